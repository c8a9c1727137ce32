//! A store that fails, hangs, or belongs to another process.

use std::time::Duration;

use tidings_entity::kind::LetterStatus;
use tokio::time::Instant;

use crate::{
    ports::{GitError, LaneStore, PrepareError, Settlement, Standing, StoreError, Streak, WatchStore},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

fn down() -> Fault {
    Fault::Fails(StoreError::Unavailable("down".into()))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_loses_nothing() {
    for verb in ["pending", "lane", "begin_round", "settle", "finish_round", "record_attempt"] {
        let house = House::running().await;
        let commit = house.commit(&refs(&files(100, "one")));
        for _ in 0..3 {
            house.store.befall(verb, down());
        }
        let (app, watch, _) = house.watching().await;
        house.until_held(&watch, commit).await;
        house.assert_mirrors(&app, commit);
        let repeated = house.taken(&app).len() - 100;
        assert!(repeated <= 3 * 64, "{verb}: {repeated} were repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_not_written_takes_no_letter_with_it() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("name0003", Some(Answer::Status(422)));
    let all = files(30, "one");
    // The settlement that carries the park takes long and fails; changes go on meanwhile.
    for _ in 0..3 {
        house.store.befall("settle", Fault::Waits(Duration::ZERO));
    }
    house.store.befall("settle", down());
    let second = house.commit(&refs(&all));
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let letters = house.letters(&app).await;
    assert_eq!(letters.len(), 1, "what was not delivered is visibly parked");
    assert_eq!((letters[0].path.as_slice(), letters[0].status), (b"name0003".as_slice(), LetterStatus::Open));
}

#[tokio::test(start_paused = true)]
async fn a_slow_settlement_that_fails_takes_no_letter_with_it() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("name0003", Some(Answer::Status(422)));
    let second = house.commit(&refs(&files(30, "one")));
    // From the fourth change on nothing is written until the lane has gone far beyond it.
    for _ in 0..4 {
        house.store.befall("settle", Fault::Waits(Duration::ZERO));
    }
    house.store.befall("settle", Fault::Fails(StoreError::Conflict("not now".into())));
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(1))));
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.letters(&app).await.len(), 1, "{cursor}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_stops_one_lane_for_a_while_and_no_other() {
    for verb in ["pending", "lane", "begin_round", "settle", "finish_round", "sources"] {
        let house = House::running().await;
        let commit = house.commit(&refs(&files(30, "one")));
        house.store.befall(verb, Fault::Hangs);
        let (app, watch, _) = house.watching().await;
        house.until_held(&watch, commit).await;
        house.assert_mirrors(&app, commit);
        let start = Instant::now();
        let (other, second, _) = house.watching().await;
        house.until_held(&second, commit).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{verb}: another app waited");
        house.assert_mirrors(&other, commit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fenced_store_ends_the_process() {
    for verb in ["pending", "lane", "begin_round", "settle", "finish_round", "record_attempt", "move_heads"] {
        let house = House::running().await;
        house.commit(&[("a", "1")]);
        house.store.befall(verb, Fault::Fails(StoreError::Fenced));
        let mut fatal = house.context.fatal.subscribe();
        let app = house.app().await;
        if verb == "record_attempt" {
            house.transport.script([Answer::Status(503)]);
        }
        house.watch(&app).await;
        let said = tokio::time::timeout(Duration::from_secs(600), fatal.wait_for(Option::is_some)).await;
        assert!(said.is_ok(), "{verb}: nobody noticed");
    }
}

#[tokio::test(start_paused = true)]
async fn settling_an_ended_round_changes_nothing() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(30, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(100))));
    let watch = house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    let before = house.cursor(&watch).await;
    let (round, _, _) = before.open.expect("in mid-round");
    // The round ends behind the lane's back.
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    let settlement = Settlement {
        cursor: before.id.clone(),
        round,
        position: 20,
        above: vec![],
        absorbs: false,
        parked: vec![],
        streak: Streak::default(),
        acknowledged: true,
        standing: Standing::Unchanged,
        redrive: vec![],
        at: house.context.now(),
    };
    assert!(!house.store.settle(settlement).await.expect("answered"), "the round has ended");
    house.until_held(&watch, commit).await;
    house.assert_mirrors(&app, commit);
    assert_eq!(house.taken(&app).iter().filter(|taken| *taken == "C name0029").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_cannot_be_rendered_now_is_rendered_later() {
    let house = House::running().await;
    let commit = house.commit(&[("a", "1"), ("b", "1")]);
    let app = house.app().await;
    let trouble = || PrepareError::Git(GitError::Unreachable("no route".into()));
    house.transport.fail_to_prepare([trouble(), trouble(), trouble()]);
    let watch = house.watch(&app).await;
    let start = Instant::now();
    house.until_held(&watch, commit).await;
    assert!(start.elapsed() < Duration::from_secs(20), "after {:?}", start.elapsed());
    assert_eq!(house.taken(&app), ["C a", "C b"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_settled_while_the_next_attempt_hangs() {
    let house = House::running().await;
    house.commit(&refs(&files(10, "one")));
    house.transport.answer_path("name0003", Some(Answer::Hang));
    let (_, watch, _) = house.watching().await;
    house
        .until("the first three are settled", async || {
            house.cursor(&watch).await.open.is_some_and(|(_, position, _)| position == 3)
        })
        .await;
}
