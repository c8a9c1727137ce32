//! The breaker as an actor: how it comes, counts, survives and goes.

use std::time::Duration;

use tidings_entity::id::AppId;
use tokio::time::{Instant, sleep};

use crate::{
    circuit_breaker::{CircuitBreakerMessage, PROBE_DEADLINE, endpoint_key, report},
    ports::{SendFailure, StoreError, UpkeepStore},
    supervision::tree::{CIRCUIT_BREAKER, DELIVERER},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

const DOWN: Answer = Answer::Failure(SendFailure::Connection);

async fn failures(house: &House, app: &AppId) -> u32 {
    let rows = house.store.breakers().await.expect("rows");
    rows.iter().find(|row| row.id == app.as_str()).map_or(0, |row| row.failures)
}

fn runs(house: &House, app: &AppId) -> bool {
    house.context.directory.cell(CIRCUIT_BREAKER, &endpoint_key(app.as_str())).is_some()
}

fn doing(house: &House, key: &str) -> String {
    house.doing(CIRCUIT_BREAKER, key).map_or_else(|| "nothing".to_owned(), |doing| doing.to_string())
}

#[tokio::test(start_paused = true)]
async fn failures_that_come_before_it_runs_are_all_counted() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    for _ in 0..4 {
        report(&house.context, &key, Err(("no route".into(), None)));
    }
    house.until("four are counted", async || failures(&house, &app).await == 4).await;
    assert_eq!(house.store.breakers().await.expect("rows")[0].last_error, "no route");
    report(&house.context, &key, Err(("no route".into(), None)));
    house
        .until("it opened", async || house.store.breakers().await.expect("rows")[0].opened_at.is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn many_successes_at_once_leave_no_breaker_behind() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    report(&house.context, &key, Err(("no route".into(), None)));
    house.until("it runs", async || runs(&house, &app)).await;
    for _ in 0..50 {
        report(&house.context, &key, Ok(()));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!runs(&house, &app) && house.store.breakers().await.expect("rows").is_empty());
    assert_eq!(failures(&house, &app).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_crosses_its_end_is_counted_by_the_next_one() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    report(&house.context, &key, Err(("first".into(), None)));
    house.until("it runs", async || runs(&house, &app)).await;
    report(&house.context, &key, Ok(()));
    report(&house.context, &key, Err(("second".into(), None)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rows = house.store.breakers().await.expect("rows");
    assert!(rows.len() <= 1 && rows.iter().all(|row| row.failures == 1), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_killed_breaker_starts_from_its_row_and_the_outage_ends_as_it_should() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counted = failures(&house, &app).await;
    assert!(counted >= 5);
    for _ in 0..3 {
        house.kill(CIRCUIT_BREAKER, &endpoint_key(app.as_str()));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(runs(&house, &app) && failures(&house, &app).await >= counted);
    house.transport.answer_app(&app, None);
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 5);
    house.until("it is gone", async || !runs(&house, &app)).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_went_with_its_deliverer_is_permitted_to_the_next_one() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The longest wait between probes is a minute: within it one goes, and never comes back.
    house.transport.answer_app(&app, Some(Answer::Hang));
    tokio::time::sleep(Duration::from_secs(61)).await;
    house.transport.answer_app(&app, None);
    house.kill(DELIVERER, app.as_str());
    let began = Instant::now();
    house.until_held(&watch, commit).await;
    let lost_at_the_earliest = PROBE_DEADLINE.saturating_sub(Duration::from_secs(61));
    assert!(began.elapsed() < lost_at_the_earliest, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_written_does_not_stop_it() {
    for fault in [Fault::Hangs, Fault::Fails(StoreError::Unavailable("down".into()))] {
        let house = House::running().await;
        let commit = house.commit(&refs(&files(5, "one")));
        let app = house.app().await;
        house.store.befall("record_breaker", fault.clone());
        house.store.befall("record_breaker", fault);
        house.transport.answer_app(&app, Some(DOWN));
        let watch = house.watch(&app).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(house.tried(&app).len() < 40, "{} attempts", house.tried(&app).len());
        house.transport.answer_app(&app, None);
        house.until_held(&watch, commit).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_for_seconds_costs_a_breaker_seconds() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    let away = |verb, times| {
        for _ in 0..times {
            house.store.befall(verb, Fault::Fails(StoreError::Unavailable("down".into())));
        }
    };
    // It cannot read its row, nor write what it counts.
    away("breakers", 3);
    away("record_breaker", 6);
    for _ in 0..12 {
        report(&house.context, &key, Err(("no route".into(), None)));
        sleep(Duration::from_millis(300)).await;
    }
    let began = Instant::now();
    house.until("it is open", async || failures(&house, &app).await == 5).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Nor that it closes.
    away("record_breaker", 6);
    report(&house.context, &key, Ok(()));
    let began = Instant::now();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(doing(&house, &key), "open", "nobody is told what is not written");
    house.until("it is gone", async || !runs(&house, &app)).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(house.store.breakers().await.expect("rows").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_did_not_go_is_given_back_also_while_the_database_is_away() {
    let house = House::alone(Duration::from_secs(9)).await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    for _ in 0..5 {
        report(&house.context, &key, Err(("no route".into(), None)));
    }
    house.until("it is open", async || failures(&house, &app).await == 5).await;
    let breaker = house.context.directory.find(CIRCUIT_BREAKER, &key).expect("it runs");
    sleep(Duration::from_secs(120)).await;
    breaker.send(CircuitBreakerMessage::ProbeWanted);
    house.until("a probe may go", async || doing(&house, &key) == "half-open").await;
    let probe_at = async || house.store.breakers().await.expect("rows")[0].probe_at.expect("open");
    assert!(probe_at().await > house.context.now(), "no other goes meanwhile");
    for _ in 0..2 {
        house.store.befall("record_breaker", Fault::Fails(StoreError::Unavailable("down".into())));
    }
    breaker.send(CircuitBreakerMessage::ProbeUnused);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(doing(&house, &key), "open");
    assert!(probe_at().await <= house.context.now(), "a lane that has something to send may probe");
}

#[tokio::test(start_paused = true)]
async fn late_failures_write_nothing_over_what_another_replica_knows() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    for _ in 0..5 {
        report(&house.context, &key, Err(("no route".into(), None)));
    }
    house.until("it is open", async || failures(&house, &app).await == 5).await;
    // Another replica's probe failed; the word of it is not here yet.
    let mut row = house.store.breakers().await.expect("rows").remove(0);
    row.failures += 1;
    row.probe_at = Some(house.context.now().after(Duration::from_secs(50)));
    house.store.record_breaker(&row).await.expect("recorded");
    report(&house.context, &key, Err(("late".into(), None)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.store.breakers().await.expect("rows"), [row]);
}

#[tokio::test(start_paused = true)]
async fn a_moment_of_a_clock_that_is_ahead_keeps_nobody_waiting_for_it() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    for _ in 0..5 {
        report(&house.context, &key, Err(("no route".into(), None)));
    }
    house.until("it is open", async || failures(&house, &app).await == 5).await;
    let mut row = house.store.breakers().await.expect("rows").remove(0);
    row.probe_at = Some(house.context.now().after(Duration::from_secs(10 * 86_400)));
    house.store.record_breaker(&row).await.expect("recorded");
    let breaker = house.context.directory.find(CIRCUIT_BREAKER, &key).expect("it runs");
    breaker.send(CircuitBreakerMessage::Changed);
    sleep(Duration::from_secs(1)).await;
    let latest = house.context.now().after(house.context.policy.retry_cap);
    let rows = house.store.breakers().await.expect("rows");
    assert!(rows[0].probe_at.is_some_and(|at| at <= latest), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_puts_no_probe_off_also_over_a_restart() {
    for (back, restarts) in [(100, false), (86_400, false), (100, true), (86_400, true)] {
        let mut house = House::running().await;
        let commit = house.commit(&refs(&files(5, "one")));
        let app = house.app().await;
        house.transport.answer_app(&app, Some(DOWN));
        let watch = house.watch(&app).await;
        house
            .until("it opened", async || {
                house.store.breakers().await.expect("rows").first().is_some_and(|row| row.opened_at.is_some())
            })
            .await;
        // The clock is set back within the wait for the first probe, which takes seconds.
        house.set_clock_back(Duration::from_secs(back));
        house.transport.answer_app(&app, None);
        if restarts {
            house.stop(Duration::ZERO).await;
            house.start().await;
        }
        let began = Instant::now();
        house.until_held(&watch, commit).await;
        let longest = 2 * house.context.policy.endpoint_breaker.first_wait + Duration::from_secs(30);
        assert!(began.elapsed() < longest, "{back} s back, {restarts}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn by_hand_it_closes_at_once() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    house.transport.answer_app(&app, None);
    assert!(house.handle().reset_breaker(&endpoint_key(app.as_str())).await);
    let start = tokio::time::Instant::now();
    house.until_held(&watch, commit).await;
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert!(!house.handle().reset_breaker("endpoint:app_none").await);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_its_handler_restarts_it_and_no_failure_is_lost() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    house.until("it counts", async || failures(&house, &app).await >= 1).await;
    // Every second write of its row panics in the handler that counts a failure.
    for _ in 0..2 {
        house.store.befall("record_breaker", Fault::Panics);
        let counted = failures(&house, &app).await;
        house.until("it counts on", async || failures(&house, &app).await > counted).await;
    }
    house
        .until("it opened", async || house.store.breakers().await.expect("rows")[0].opened_at.is_some())
        .await;
    let tried = house.tried(&app).len();
    assert!(tried < 12, "it opens in time although it crashed: {tried} attempts");
    // Its close panics too: the row stays, it starts from it, and the next probe closes it.
    house.transport.answer_app(&app, None);
    house.store.befall("record_breaker", Fault::Panics);
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 5);
    house.until("it is gone", async || !runs(&house, &app)).await;
    assert!(house.store.breakers().await.expect("rows").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_it_was_counting_when_it_panicked_is_counted_by_the_next_one() {
    let house = House::running().await;
    let app = house.app().await;
    let key = endpoint_key(app.as_str());
    for counted in [2, 4] {
        house.store.befall("record_breaker", Fault::Panics);
        for _ in 0..2 {
            report(&house.context, &key, Err(("no route".into(), None)));
        }
        house.until("all are counted", async || failures(&house, &app).await == counted).await;
    }
}
