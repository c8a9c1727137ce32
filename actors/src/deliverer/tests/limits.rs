//! What an app takes at most, what it takes from others, and what an outage costs it.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::id::AppId;
use tokio::time::Instant;

use crate::{
    limits::budget::Budget,
    ports::{PrepareError, SendFailure, Watch},
    supervision::{directory::Doing, tree::DELIVERER},
    testing::{
        house::{House, URL, files, location, refs},
        transport::{Answer, Arrival},
    },
};

/// This many watches of one app, each of a repository of its own with this many files.
async fn watches(house: &House, app: &AppId, count: usize, size: usize) -> Vec<Watch> {
    let mut watches = Vec::new();
    for number in 0..count {
        let url = format!("{URL}/{app}/{number}");
        house.git.commit(&location(&url), "main", &refs(&files(size, &format!("of {number}"))));
        watches.push(house.register(app, &url, |_| {}).await);
    }
    watches
}

async fn until_taken(house: &House, app: &AppId, count: usize) {
    // What arrived is copied to be read: with a hundred thousand of them not at every look.
    let taken = async || house.transport.arrived() >= count && house.taken(app).len() >= count;
    house.until(&format!("{count} are taken"), taken).await;
}

fn busiest_second(arrivals: &[Arrival]) -> usize {
    let within = |from: usize| {
        let since = arrivals[from].at;
        arrivals[from..].iter().take_while(|arrival| arrival.at - since < Duration::from_secs(1)).count()
    };
    (0..arrivals.len()).map(within).max().unwrap_or(0)
}

fn of_app(house: &House, app: &AppId) -> Vec<Arrival> {
    let mut arrivals = house.transport.arrivals();
    arrivals.retain(|arrival| arrival.app == *app);
    arrivals
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_an_app_takes_notices_included() {
    let mut house = House::with(|policy| policy.app_in_flight = 5);
    let few = house.app_with(|delivery| (delivery.max_concurrent, delivery.synced) = (Some(3), true)).await;
    let greedy =
        house.app_with(|delivery| (delivery.max_concurrent, delivery.synced) = (Some(64), true)).await;
    for app in [&few, &greedy] {
        house.transport.answer_app(app, Some(Answer::Slow(200, Duration::from_millis(70))));
        watches(&house, app, 30, 4).await;
    }
    house.start().await;
    let mut most = [0, 0];
    while house.transport.arrived() < 2 * 30 * (4 + 1) {
        most[0] = most[0].max(house.transport.flying(&few));
        most[1] = most[1].max(house.transport.flying(&greedy));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(most, [3, 5], "its own limit, and the server's");
    assert_eq!([&few, &greedy].map(|app| of_app(&house, app).len()), [30 * (4 + 1); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_over_lanes_retries_notices_and_restarts() {
    let mut house = House::new();
    let app = house.app_with(|delivery| (delivery.rate, delivery.synced) = (Some(50), true)).await;
    watches(&house, &app, 12, 60).await;
    for number in [3, 17, 40] {
        house.transport.answer_path(&format!("name{number:04}"), Some(Answer::Status(500)));
    }
    for life in 0..6 {
        house.start().await;
        tokio::time::sleep(Duration::from_millis(900 + 170 * life)).await;
        if life % 2 == 0 {
            house.kill(DELIVERER, app.as_str());
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        house.stop(Duration::from_secs(1)).await;
        // A new process has nothing but the rows.
        house.context.paces =
            crate::limits::pace::Paces::new(house.store.clone(), house.context.clock.clone());
    }
    house.start().await;
    until_taken(&house, &app, 12 * 57).await;
    let arrivals = of_app(&house, &app);
    assert!(busiest_second(&arrivals) <= 50, "{} in a second", busiest_second(&arrivals));
    let retries = arrivals.iter().filter(|arrival| arrival.answer == Ok(500)).count();
    assert!(retries > 12, "some were retried: {retries}");
    assert!(house.context.fatal.borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lane_alone_reaches_the_rate_of_its_app() {
    let house = House::running().await;
    let app = house.app_with(|delivery| delivery.rate = Some(50)).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(5))));
    house.commit(&refs(&files(500, "one")));
    house.watch(&app).await;
    until_taken(&house, &app, 500).await;
    let arrivals = of_app(&house, &app);
    let took = arrivals[499].at - arrivals[0].at;
    assert!(took <= Duration::from_secs(10) * 100 / 95, "{took:?} for what 10 s allow");
    assert!(busiest_second(&arrivals) <= 50);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_rate_holds_up_no_stop() {
    let mut house = House::new();
    let app = house.app_with(|delivery| (delivery.rate, delivery.synced) = (Some(1), true)).await;
    watches(&house, &app, 20, 1).await;
    house.start().await;
    until_taken(&house, &app, 3).await;
    let began = Instant::now();
    house.stop(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_app_opens_few_of_many_lanes_at_once_and_forgets_none() {
    let mut house = House::with(|policy| policy.app_lanes = 8);
    let app = house.app().await;
    let watches = watches(&house, &app, 120, 3).await;
    // The first of some lanes are not taken for a while: a waiting lane keeps no other lane from going on.
    for watch in watches.iter().take(24) {
        house.transport.answer_watch(&watch.id, Some(Answer::Status(500)));
    }
    house.start().await;
    let mut most = 0;
    let wanted = 96 * 3;
    let began = Instant::now();
    while house.taken(&app).len() < wanted {
        assert!(began.elapsed() < Duration::from_secs(120), "{} are taken", house.taken(&app).len());
        if let Some(Doing::Delivering { lanes, .. }) = house.doing(DELIVERER, app.as_str()) {
            most = most.max(lanes);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(most, 8);
    for watch in watches.iter().take(24) {
        house.transport.answer_watch(&watch.id, None);
    }
    until_taken(&house, &app, 120 * 3).await;
    assert!(house.letters(&app).await.is_empty(), "nothing was given up meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_one_app_costs_another_one_slot_at_each_step() {
    let mut house = House::with(|policy| policy.readers = 1);
    let (busy, other) = (house.app().await, house.app().await);
    watches(&house, &busy, 64, 200).await;
    house.transport.render_slowly(Duration::from_millis(50));
    house.start().await;
    until_taken(&house, &busy, 500).await;
    let single = watches(&house, &other, 1, 1).await;
    let before = house.transport.rendered().len();
    house.refresh(&other).await;
    until_taken(&house, &other, 1).await;
    let rendered = house.transport.rendered();
    let at = rendered.iter().position(|watch| *watch == single[0].id).expect("it was rendered");
    // Planning (again after the refresh), reading and rendering each wait for the slot that is taken
    // then and for one turn; one more was taken before.
    assert!(at - before <= 4 * 2 + 1, "{} renderings of the other app went before", at - before);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_all_its_places_taken_lets_apps_take_turns() {
    let mut house = House::with(|policy| policy.in_flight = 2);
    let (busy, other) = (house.app().await, house.app().await);
    for app in [&busy, &other] {
        house.transport.answer_app(app, Some(Answer::Slow(200, Duration::from_secs(1))));
    }
    watches(&house, &busy, 32, 30).await;
    house.start().await;
    until_taken(&house, &busy, 20).await;
    watches(&house, &other, 1, 1).await;
    let before = house.taken(&busy).len();
    house.refresh(&other).await;
    until_taken(&house, &other, 1).await;
    let went = house.taken(&busy).len() - before;
    assert!(went <= 2 * 2, "{went} of the other app went before");
    assert!(house.transport.flying(&busy) + house.transport.flying(&other) <= 2);
}

/// The first app's receiver is slow with a file that takes more than all memory for deliveries. The memory
/// here is so small that each body is large; a window takes what there is.
#[tokio::test(start_paused = true)]
async fn a_slow_receiver_of_a_large_file_delays_no_ordinary_delivery_of_another_app() {
    let mut house = House::new();
    let [slow, other, large] = [house.app().await, house.app().await, house.app().await];
    let (memory, attempt) = (12, Duration::from_secs(800));
    house.context.budget = Budget::new(memory);
    house.transport.answer_app(&slow, Some(Answer::Late(attempt)));
    house.transport.fail_to_prepare([PrepareError::OverBudget(memory)]);
    watches(&house, &slow, 1, 1).await;
    house.start().await;
    house.until("it is on its way", async || house.transport.flying(&slow) == 1).await;
    let began = Instant::now();
    for (app, needs) in [(&large, Some(memory)), (&other, None)] {
        house.transport.fail_to_prepare(needs.map(PrepareError::OverBudget));
        let before = house.transport.rendered().len();
        watches(&house, app, 1, 1).await;
        house.refresh(app).await;
        house.until("it was read", async || house.transport.rendered().len() > before).await;
    }
    until_taken(&house, &other, 1).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(house.taken(&large).is_empty(), "one large file is in memory at a time");
    until_taken(&house, &large, 1).await;
    assert!(began.elapsed() < attempt + Duration::from_secs(60), "it waited for one attempt");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_on_everything_gets_a_bounded_share_of_retries() {
    let mut house = House::new();
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Status(500)));
    watches(&house, &app, 100, 5).await;
    house.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let arrivals = of_app(&house, &app);
    let mut tries: BTreeMap<String, usize> = BTreeMap::new();
    for arrival in &arrivals {
        *tries.entry(arrival.id.to_string()).or_default() += 1;
    }
    let retries = arrivals.len() - tries.len();
    let bound = 10 + 5 * 60 + tries.len() / 5 + 1;
    assert!(tries.len() >= 100, "each is tried once at once: {}", tries.len());
    assert!((100..=bound).contains(&retries), "{retries} retries, {bound} at most");
}

/// An hour of outage with a backlog over many lanes, and what follows it.
async fn outage(down: Answer, in_full_flow: bool, lanes: usize, size: usize) {
    let mut house = House::new();
    let app = house.app().await;
    let watches = watches(&house, &app, lanes, size).await;
    let well = Answer::Slow(200, Duration::from_millis(40));
    house.transport.answer_app(&app, Some(if in_full_flow { well } else { down }));
    house.start().await;
    let mut before = 0;
    if in_full_flow {
        until_taken(&house, &app, lanes * 4).await;
        house.transport.answer_app(&app, Some(down));
        before = of_app(&house, &app).len();
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let failed = of_app(&house, &app).iter().skip(before).filter(|arrival| arrival.answer != Ok(200)).count();
    assert!(failed <= 100, "{failed} attempts in an hour of {down:?}");
    assert!(failed > 30, "{failed}: nobody would see that it is well again");

    house.transport.answer_app(&app, Some(well));
    let from = Instant::now();
    let mut widths = Vec::new();
    while widths.iter().filter(|width| **width > 0).count() < 4 {
        widths.push(house.transport.flying(&app));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(from.elapsed() < Duration::from_secs(200), "no probe went");
    }
    widths.retain(|width| *width > 0);
    assert_eq!(widths[0], 1, "no herd: {widths:?}");
    let mut most = 0;
    house
        .until("everything is drained", async || {
            // Dearer to ask than to count.
            if house.transport.arrived() < lanes * size {
                return false;
            }
            let held = house.store_holds(&watches).await;
            held == watches.len()
        })
        .await;
    most = most.max(house.transport.flying(&app));
    assert!(most <= 32);
    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for arrival in of_app(&house, &app).into_iter().filter(|arrival| arrival.answer == Ok(200)) {
        let order = house.transport.order(&arrival.id).expect("it was rendered");
        let path = String::from_utf8_lossy(&arrival.path).into_owned();
        taken.entry(order.lane.round.cursor.to_string()).or_default().push(path);
    }
    let expected: Vec<String> = files(size, "").into_iter().map(|(path, _)| path).collect();
    assert_eq!(taken.len(), lanes);
    assert!(taken.values().all(|paths| *paths == expected), "each lane once and in order");
    assert!(house.letters(&app).await.is_empty(), "nothing is given up");
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_refused_connections_with_a_large_backlog_costs_a_hundred_attempts() {
    outage(Answer::Failure(SendFailure::Connection), false, 100, 1_000).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_503_in_full_flow_costs_a_hundred_attempts() {
    outage(Answer::Status(503), true, 60, 40).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_timeouts_in_full_flow_costs_a_hundred_attempts() {
    outage(Answer::Late(Duration::from_secs(30)), true, 60, 40).await;
}
