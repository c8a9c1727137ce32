//! Rows that are changed without a word to the replica whose lanes they concern, on paused time.

use std::time::Duration;

use tidings_entity::{
    id::AppId,
    kind::{OrderMode, WatchState},
};
use tokio::time::{Instant, sleep};

use super::{CONFIRMED_FOR, FENCED_AFTER, LOOK};
use crate::{
    ports::{LaneStore, StoreError, Watch, WatchPatch, WatchStore},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

const LIFE: Duration = Duration::from_secs(60);
/// What one attempt of these tests takes.
const ATTEMPT: Duration = Duration::from_millis(250);

/// The verb that looks at terms.
const LOOKING: &str = "lane_terms";

/// A receiver that takes its time, and a watch of which it has some of many files.
async fn under_way(house: &House) -> (AppId, Watch) {
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, ATTEMPT)));
    house.commit(&refs(&files(1_000, "one")));
    let watch = house.watch(&app).await;
    house.until("some of it was sent", async || house.tried(&app).len() >= 5).await;
    (app, watch)
}

/// When the last attempt to this app ended.
fn last(house: &House, app: &AppId) -> Instant {
    house.tried(app).last().expect("some were made").at
}

fn state(state: WatchState) -> WatchPatch {
    WatchPatch { state: Some((state, None)), ..WatchPatch::default() }
}

/// Another replica over the same rows that takes no shards. It does not run.
async fn other_than(house: &House) -> House {
    let mut other = House::replicas(2, LIFE).pop().expect("two");
    other.store = house.store.clone();
    other.context.store = house.store.clone();
    other.context.leases = None;
    other
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_watch_is_paused_without_a_word_stops_within_a_look() {
    let house = House::alone(LIFE).await;
    let (app, watch) = under_way(&house).await;
    house.store.patch_watch(&app, &watch.id, &state(WatchState::Paused)).await.expect("paused");
    let paused = Instant::now();
    sleep(Duration::from_secs(30)).await;
    assert!(last(&house, &app) <= paused + LOOK + ATTEMPT, "{:?}", last(&house, &app) - paused);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_skipped_without_a_word_is_given_up_within_a_look() {
    let house = House::alone(LIFE).await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Status(503)));
    house.commit(&refs(&files(3, "one")));
    let watch = house.watch(&app).await;
    house.until("the first was tried", async || !house.tried(&app).is_empty()).await;
    house.store.request_skip(&app, &watch.id, None, None).await.expect("asked");
    sleep(LOOK * 2).await;
    assert_eq!(house.letters(&app).await.len(), 1, "it is given up");
    assert_eq!(house.context.terms.ended().len(), 0, "a skip that is done ends no lane again");
}

#[tokio::test(start_paused = true)]
async fn a_resync_that_is_asked_for_without_a_word_ends_the_round_within_a_look() {
    let house = House::alone(LIFE).await;
    let (app, watch) = under_way(&house).await;
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    sleep(LOOK * 2).await;
    let begun_again = house.taken(&app).iter().filter(|change| *change == "C name0000").count();
    assert_eq!(begun_again, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_watch_that_is_gone_begins_after_its_fence_also_while_the_database_hangs() {
    let house = House::alone(LIFE).await;
    let (app, watch) = under_way(&house).await;
    for _ in 0..100 {
        house.store.befall(LOOKING, Fault::Hangs);
    }
    sleep(LOOK).await;
    assert!(house.store.unwatch(&app, &watch.id).await.expect("unwatched"), "a round of it was open");
    let gone = Instant::now();
    sleep(Duration::from_secs(60)).await;
    assert!(house.store.awaits_fault(LOOKING), "it never learned that its watch is gone");
    assert!(last(&house, &app) <= gone + CONFIRMED_FOR + ATTEMPT, "{:?}", last(&house, &app) - gone);
}

#[tokio::test(start_paused = true)]
async fn lanes_that_could_not_be_looked_at_for_a_while_go_on_where_they_were() {
    let house = House::alone(LIFE).await;
    let (app, _watch) = under_way(&house).await;
    for _ in 0..6 {
        house.store.befall(LOOKING, Fault::Hangs);
    }
    house.until("all looks failed", async || !house.store.awaits_fault(LOOKING)).await;
    sleep(Duration::from_secs(10)).await;
    let (tried, now) = (house.tried(&app), Instant::now());
    let pauses: Vec<Duration> = tried.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses.iter().any(|pause| *pause > FENCED_AFTER), "it waited: {pauses:?}");
    assert!(now - last(&house, &app) <= ATTEMPT, "and goes on");
    let mut paths: Vec<_> = tried.iter().map(|arrival| arrival.path.clone()).collect();
    paths.dedup();
    assert_eq!(paths.len(), tried.len(), "nothing was sent twice");
}

#[tokio::test(start_paused = true)]
async fn unwatching_where_its_lane_runs_ends_it_before_the_answer() {
    let house = House::alone(LIFE).await;
    let (app, watch) = under_way(&house).await;
    // Nobody looks, and nobody is told.
    for _ in 0..100 {
        house.store.befall(LOOKING, Fault::Hangs);
    }
    let was_open = house.store.unwatch(&app, &watch.id).await.expect("unwatched");
    let asked = Instant::now();
    house.handle().unwatched(&watch, was_open).await;
    let answered = Instant::now();
    assert_eq!(answered, asked, "there is nothing to wait for");
    sleep(Duration::from_secs(60)).await;
    assert!(last(&house, &app) <= answered + ATTEMPT, "one was on its way at most");
}

#[tokio::test(start_paused = true)]
async fn unwatching_where_its_lane_does_not_run_waits_until_none_can_begin_anywhere() {
    let house = House::alone(LIFE).await;
    let (app, watch) = under_way(&house).await;
    let other = other_than(&house).await;
    assert!(!other.handle().works_on(&watch.repository));
    for _ in 0..100 {
        house.store.befall(LOOKING, Fault::Hangs);
    }
    let was_open = house.store.unwatch(&app, &watch.id).await.expect("unwatched");
    let asked = Instant::now();
    other.handle().unwatched(&watch, was_open).await;
    assert_eq!(asked.elapsed(), FENCED_AFTER);
    let answered = Instant::now();
    sleep(Duration::from_secs(60)).await;
    assert!(last(&house, &app) <= answered, "nothing begins after the answer");
    other.handle().unwatched(&watch, false).await;
    assert_eq!(
        answered.elapsed(),
        Duration::from_secs(60),
        "without an open round there is nothing to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_about_one_watch_costs_the_lanes_of_others_nothing() {
    let house = House::running().await;
    let app = house.app_with(|delivery| delivery.order = OrderMode::Phased).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, ATTEMPT)));
    let urls = ["https://git.example/one/two", "https://git.example/one/three"];
    let mut watches = Vec::new();
    for url in urls {
        house.git.commit(&crate::testing::house::location(url), "main", &refs(&files(1_000, "one")));
        watches.push(house.watch_with(&app, url, |_| {}).await);
    }
    let sent = || house.transport.arrivals().len();
    house.until("both are sent", async || sent() >= 10).await;
    // Each lane that is opened looks at its cursor once.
    (0..2).for_each(|_| house.store.befall("glimpse", Fault::Waits(Duration::ZERO)));
    house.refresh(&app).await;
    sleep(Duration::from_secs(5)).await;
    house.store.patch_watch(&app, &watches[0].id, &state(WatchState::Paused)).await.expect("paused");
    house.refresh(&app).await;
    sleep(Duration::from_secs(5)).await;
    assert!(house.store.awaits_fault("glimpse"), "only the lane that is paused read its rows again");
    house.store.patch_watch(&app, &watches[1].id, &state(WatchState::Paused)).await.expect("paused");
    house.refresh(&app).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!house.store.awaits_fault("glimpse"));
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_in_a_process_of_its_own_is_done_again() {
    let house = House::running().await;
    let (app, watch) = under_way(&house).await;
    house.store.befall(LOOKING, Fault::Fails(StoreError::Unavailable("busy".into())));
    house.store.patch_watch(&app, &watch.id, &state(WatchState::Paused)).await.expect("paused");
    let paused = Instant::now();
    house.refresh(&app).await;
    sleep(Duration::from_secs(30)).await;
    assert!(last(&house, &app) <= paused + Duration::from_secs(2), "{:?}", last(&house, &app) - paused);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_rows_are_being_read_while_its_watch_goes_does_not_stand() {
    let house = House::running().await;
    let (_, watch) = under_way(&house).await;
    let (terms, cursor) = (house.context.terms.clone(), watch.cursors[0].id.clone());
    let reading = async {
        let rows = house.store.lane(&cursor).await;
        // The rows that were read are the earlier ones.
        terms.end(&watch.id);
        rows
    };
    let (_, late) = terms.read(&cursor, false, reading).await.expect("read");
    assert!(!late.stand(), "it reads them again");
    let (_, sound) = terms.read(&cursor, false, house.store.lane(&cursor)).await.expect("read");
    assert!(sound.stand());
    terms.end(&watch.id);
    assert!(!sound.stand() && sound.are_gone());
}
