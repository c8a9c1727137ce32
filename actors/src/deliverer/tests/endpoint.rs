//! Endpoints that are down, slow, busy or gone.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::{id::CursorId, kind::OrderMode};
use tokio::time::Instant;

use crate::{
    model::secret::Secret,
    ports::{AccessPatch, Action, AppPatch, AppStore, SendFailure, UpkeepStore, WatchStore},
    testing::{
        house::{House, URL, files, location, refs},
        transport::{Answer, Arrival},
    },
};

const DOWN: Answer = Answer::Failure(SendFailure::Connection);

fn gaps(arrivals: &[Arrival]) -> Vec<u64> {
    arrivals.windows(2).map(|two| (two[1].at - two[0].at).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_a_handful_of_attempts_and_then_a_probe_now_and_then() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(20, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    let tried = house.tried(&app);
    let opened = 4;
    assert_eq!(gaps(&tried)[opened..][..5], [5, 10, 20, 40, 60], "probes double up to a minute");
    assert!(tried.len() < 25, "{} attempts in 1,000 s", tried.len());
    house.transport.answer_app(&app, None);
    house.until_held(&watch, commit).await;
    let expected: Vec<String> = files(20, "").iter().map(|(path, _)| format!("C {path}")).collect();
    assert_eq!(house.taken(&app), expected, "everything arrives once and in order");
    assert!(house.letters(&app).await.is_empty(), "an endpoint failure never parks");
    assert!(house.store.breakers().await.expect("rows").is_empty(), "the breaker is gone");
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_phased_order_costs_one_wave_and_everything_arrives_once() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(200, "one")));
    let app =
        house.app_with(|delivery| (delivery.order, delivery.max_in_flight) = (OrderMode::Phased, 16)).await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let tried = house.tried(&app);
    let gaps: Vec<u128> = tried.windows(2).map(|two| (two[1].at - two[0].at).as_millis()).collect();
    assert!(tried.len() < 16 + 20, "{} attempts in 600 s: {gaps:?}", tried.len());
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(50))));
    let mut widths = Vec::new();
    while house.taken(&app).len() < 15 {
        widths.push(house.transport.flying(&app));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let first = widths.iter().find(|width| **width > 0);
    assert_eq!(first, Some(&1), "recovery begins with one: {widths:?}");
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 200, "once each");
    house.assert_mirrors(&app, commit);
    assert!(house.store.breakers().await.expect("rows").is_empty(), "no breaker is left behind");
}

#[tokio::test(start_paused = true)]
async fn probes_take_turns_over_the_lanes() {
    let house = House::running().await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(DOWN));
    for number in 0..3 {
        let url = format!("{URL}{number}");
        house.git.commit(&location(&url), "main", &[(&format!("file{number}"), "1")]);
        house.watch_with(&app, &url, |_| {}).await;
    }
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    let tried = house.tried(&app);
    let last: Vec<&[u8]> = tried[tried.len() - 6..].iter().map(|arrival| arrival.path.as_slice()).collect();
    assert_eq!(last[..3], last[3..], "they go round");
    let mut three = last[..3].to_vec();
    three.sort_unstable();
    assert_eq!(three, [b"file0", b"file1", b"file2"], "over all of them");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_refused_shows_that_the_endpoint_is_well() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(DOWN));
    let second = house.commit(&[("ok", "1"), ("poison", "1"), ("z", "1")]);
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    house.transport.answer_app(&app, None);
    house.transport.answer_path("poison", Some(Answer::Status(422)));
    let start = Instant::now();
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(90), "{:?} after the recovery", start.elapsed());
    assert_eq!(house.taken(&app), ["C ok", "C z"]);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_is_a_probe_too() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(DOWN));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    let notices = house.transport.arrivals();
    let notices = notices.iter().filter(|arrival| arrival.action == Action::Resync).count();
    assert!((8..30).contains(&notices), "{notices} announcements in 900 s");
    house.transport.answer_app(&app, None);
    let start = Instant::now();
    house.until_held(&watch, first).await;
    assert!(start.elapsed() < Duration::from_secs(90), "{:?} after the recovery", start.elapsed());
    house.assert_mirrors(&app, first);
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_the_whole_app() {
    let house = House::running().await;
    let app = house.app().await;
    let wait = Duration::from_secs(100);
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(1))));
    house.commit(&refs(&files(20, "one")));
    let other = format!("{URL}2");
    house.git.commit(&location(&other), "main", &[("busy", "1")]);
    house.transport.answer_path("busy", Some(Answer::RetryAfter(429, wait)));
    house.watch(&app).await;
    house.transport.until("the first lane flows", |arrivals| arrivals.len() >= 3).await;
    house.watch_with(&app, &other, |_| {}).await;
    house.transport.until("it asks for patience", |all| all.iter().any(|one| one.answer == Ok(429))).await;
    let asked = Instant::now();
    house.transport.answer_path("busy", None);
    tokio::time::sleep(wait * 3).await;
    let early = house
        .tried(&app)
        .into_iter()
        .filter(|arrival| arrival.at > asked + Duration::from_secs(1) && arrival.at < asked + wait);
    assert_eq!(early.count(), 0, "nothing goes to the app while it asks for patience");
    assert_eq!(house.taken(&app).len(), 21, "and then everything");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_stood_in_line_when_patience_was_asked_for_goes_on_after_it() {
    let mut house = House::with(|policy| policy.app_in_flight = 1);
    house.start().await;
    let app = house.app().await;
    let wait = Duration::from_secs(100);
    house.transport.answer_app(&app, Some(Answer::RetryAfter(429, wait)));
    let mut watches = Vec::new();
    for number in 0..6 {
        let url = format!("{URL}{number}");
        house.git.commit(&location(&url), "main", &refs(&files(5, "one")));
        watches.push(house.watch_with(&app, &url, |_| {}).await);
    }
    house.transport.until("it asks for patience", |all| all.iter().any(|one| one.answer == Ok(429))).await;
    house.transport.answer_app(&app, None);
    // Before the next check of what is pending, which looks at every lane anyway.
    tokio::time::sleep(wait + Duration::from_secs(10)).await;
    assert_eq!(house.taken(&app).len(), 30, "every lane goes on");
}

#[tokio::test(start_paused = true)]
async fn gone_disables_the_app_and_serving_it_again_goes_on_where_it_was() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.script([Answer::Status(200), Answer::Status(200), Answer::Status(410)]);
    let watch = house.watch(&app).await;
    house
        .until("it is disabled", async || {
            house.store.app(&app).await.expect("read").expect("there").disabled.is_some()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(house.tried(&app).len(), 3, "nothing goes to an app that is gone");
    assert!(house.deliverer(&app).is_none(), "its deliverer ended");
    house.disable(&app, None).await;
    house.refresh(&app).await;
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_app_served_again_at_once_goes_on() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.transport.script([Answer::Status(200), Answer::Status(410)]);
    let watch = house.watch(&app).await;
    house
        .until("it is disabled", async || {
            house.store.app(&app).await.expect("read").expect("there").disabled.is_some()
        })
        .await;
    house.disable(&app, None).await;
    house.refresh(&app).await;
    let start = Instant::now();
    house.until_held(&watch, commit).await;
    assert!(start.elapsed() < Duration::from_secs(10), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn gone_in_answer_to_an_announcement_disables_the_app_too() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(Answer::Status(410)));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house
        .until("it is disabled", async || {
            house.store.app(&app).await.expect("read").expect("there").disabled.is_some()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_app_disabled_in_mid_round_without_a_hint_gets_nothing_more() {
    let house = House::running().await;
    house.commit(&refs(&files(500, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(1))));
    house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    house.disable(&app, Some("by hand")).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    let sent = house.tried(&app).len();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(house.tried(&app).len(), sent);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_hangs_does_not_delay_another() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(50, "one")));
    let (stuck, well) = (house.app().await, house.app().await);
    house.transport.answer_app(&stuck, Some(Answer::Hang));
    house.watch(&stuck).await;
    let watch = house.watch(&well).await;
    let start = Instant::now();
    house.until_held(&watch, commit).await;
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert_eq!(house.transport.flying(&stuck), 1, "a strict lane has one on its way");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_for_the_whole_window_blocks_and_is_still_probed() {
    let house = House::running().await;
    let commit = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.retry_window_ms = Some(600_000)).await;
    house.transport.answer_app(&app, Some(DOWN));
    let watch = house.watch(&app).await;
    let cursor: CursorId = watch.cursors[0].id.clone();
    house
        .until("it is blocked", async || {
            house.cursor(&watch).await.state == tidings_entity::kind::CursorState::Blocked
        })
        .await;
    house.transport.answer_app(&app, None);
    house.until_held(&watch, commit).await;
    assert_eq!(house.cursor(&watch).await.id, cursor);
    assert_eq!(house.cursor(&watch).await.state, tidings_entity::kind::CursorState::Active);
}

#[tokio::test(start_paused = true)]
async fn what_goes_with_requests_counts_from_the_next_attempt_in_the_middle_of_a_round() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(12, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(1))));
    let watch = house.watch(&app).await;
    house.transport.until("three have arrived", |arrivals| arrivals.len() == 3).await;
    // The fourth is on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let headers = BTreeMap::from([("x-key".to_owned(), Some(Secret::new("value".to_owned())))]);
    let access = AccessPatch { headers, ..AccessPatch::default() };
    let patch = AppPatch { access, ..AppPatch::default() };
    house.store.patch_app(&app, &patch, house.context.now()).await.expect("changed");
    house.refresh(&app).await;
    house.until_held(&watch, commit).await;
    let arrivals = house.transport.arrivals();
    let with: Vec<bool> = arrivals.iter().map(|arrival| arrival.headers.contains_key("x-key")).collect();
    assert_eq!(with, [&[false; 4][..], &[true; 8]].concat());
    assert_eq!(house.taken(&app).len(), 12, "once each");
}
