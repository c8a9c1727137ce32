//! Watches of one app that go to different sinks: each has its own order, breaker and end, and what the app takes
//! as a whole they share.

use std::time::Duration;

use tidings_entity::id::{AppId, SinkId};
use tokio::time::{Instant, sleep};
use ulid::Ulid;

use crate::{
    circuit_breaker::endpoint_key,
    deliverer::{
        DelivererMessage,
        outlets::pulling::{Acknowledgement, ClaimedChanges, PullRequest},
    },
    model::{secret::Secret, sink::SinkAddress},
    ports::{
        AppStore, DeliverySettings, EndpointAccess, GONE, NewSink, NewWatch, StoreError, UpkeepStore, Watch,
        WatchPatch, WatchStore,
    },
    supervision::{
        directory::{Doing, Mailbox},
        tree::{CIRCUIT_BREAKER, DELIVERER},
    },
    testing::{
        Fault,
        house::{House, URL, files, refs},
        transport::Answer,
    },
};

const LEASE: Duration = Duration::from_secs(60);

fn sink(number: u128, address: SinkAddress) -> NewSink {
    NewSink {
        id: SinkId::new(Ulid::from_parts(9, number)),
        address,
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        signing_key: Some(Secret::new("a key of its own".into())),
    }
}

fn elsewhere(number: u128) -> NewSink {
    sink(number, SinkAddress::Endpoint(format!("https://sink{number}.example")))
}

/// A second watch of `main`.
async fn second(house: &House, app: &AppId, alias: &str, sink: NewSink) -> Watch {
    house
        .watch_with(app, URL, |new: &mut NewWatch| (new.alias, new.sink) = (alias.to_owned(), Some(sink)))
        .await
}

async fn claim(house: &House, watch: &Watch, wait: u64) -> Option<ClaimedChanges> {
    let cursors = house.store.watch(&watch.app, &watch.id).await.expect("a watch").cursors;
    let cursors = cursors.into_iter().map(|cursor| cursor.id).collect();
    let (id, wait) = (watch.id.clone(), Duration::from_secs(wait));
    let request = |reply| PullRequest { watch: id, cursors, most: 64, lease: LEASE, wait, reply };
    house.handle().pull(&watch.sink_key(), request).await.claimed()
}

/// Claims and takes all that is pending; how many changes.
async fn take_all(house: &House, watch: &Watch) -> u64 {
    let mut taken = 0;
    while let Some(lease) = claim(house, watch, 30).await {
        let (id, of, last) = (lease.id, watch.id.clone(), lease.positions.end - 1);
        let back = |reply| Acknowledgement {
            id,
            watch: of,
            accepted_through: Some(last),
            refused: Vec::new(),
            reply,
        };
        if let Some(Ok(_)) = house.handle().acknowledge(&watch.sink_key(), back).await {
            taken += lease.positions.end - lease.positions.start;
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn two_watches_of_one_branch_bring_it_each_to_its_own_sink() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    let sent = house.watch(&app).await;
    let claimed = second(&house, &app, "claims", sink(1, SinkAddress::Pull)).await;
    house.until_held(&sent, first).await;
    assert_eq!(house.taken(&app).len(), 5, "what is claimed is not sent");
    house.kill(DELIVERER, &sent.sink_key().to_string());
    assert_eq!(take_all(&house, &claimed).await, 5);
    house.until_held(&claimed, first).await;

    let next = house.commit(&refs(&files(5, "two")));
    house.poke(&sent).await;
    house
        .until("both deliverers run", async || {
            let runs = |watch: &Watch| house.context.directory.cell(DELIVERER, &watch.sink_key().to_string());
            runs(&sent).is_some() && runs(&claimed).is_some()
        })
        .await;
    house.kill(DELIVERER, &claimed.sink_key().to_string());
    house.until_held(&sent, next).await;
    take_all(&house, &claimed).await;
    house.until_held(&claimed, next).await;
    house.assert_mirrors(&app, next);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_holds_no_other_back_and_has_a_breaker_of_its_own() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(8, "one")));
    let app = house.app().await;
    let sent = house.watch(&app).await;
    let other = house.register(&app, URL, |new| {
        (new.alias, new.sink) = ("other".to_owned(), Some(elsewhere(1)));
    });
    let other = other.await;
    house.transport.answer_watch(&other.id, Some(Answer::Status(503)));
    house.refresh(&app).await;
    let key = endpoint_key(other.sink_key().id());
    house
        .until("its breaker is open", async || {
            let rows = house.store.breakers().await.expect("rows");
            rows.iter().any(|row| row.id == other.sink_key().id() && row.opened_at.is_some())
        })
        .await;
    assert!(house.context.directory.cell(CIRCUIT_BREAKER, &key).is_some());
    house.until_held(&sent, first).await;
    let rows = house.store.breakers().await.expect("rows");
    assert!(rows.iter().all(|row| row.id != app.as_str()), "the endpoint of the app is well");
    house.transport.answer_watch(&other.id, None);
    house.until_held(&other, first).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_gone_is_disabled_alone() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(3, "one")));
    let app = house.app().await;
    let sent = house.watch(&app).await;
    let other = house.register(&app, URL, |new| {
        (new.alias, new.sink) = ("other".to_owned(), Some(elsewhere(1)));
    });
    let other = other.await;
    house.transport.answer_watch(&other.id, Some(Answer::Status(410)));
    house.refresh(&app).await;
    house
        .until("it is disabled", async || {
            let watch = house.store.watch(&app, &other.id).await.expect("a watch");
            watch.sink.is_some_and(|sink| sink.disabled.as_deref() == Some(GONE))
        })
        .await;
    house.until_held(&sent, first).await;
    assert_eq!(house.store.app(&app).await.expect("read").expect("an app").disabled, None);
    house.transport.answer_watch(&other.id, None);
    let again = WatchPatch { sink: Some(Some(elsewhere(1))), ..WatchPatch::default() };
    house.store.patch_watch(&app, &other.id, &again).await.expect("named again");
    house.refresh(&app).await;
    house.until_held(&other, first).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_round_goes_on_at_the_sink_that_its_watch_is_given() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(6, "one")));
    let app = house.app().await;
    house.transport.answer_path("name0003", Some(Answer::Slow(200, Duration::from_secs(20))));
    let watch = house.register(&app, URL, |new| new.sink = Some(elsewhere(1))).await;
    house.refresh(&app).await;
    house
        .until("the fourth is on its way", async || {
            house.taken(&app).len() == 3 && house.transport.flying(&app) > 0
        })
        .await;
    let to = |sink| WatchPatch { sink: Some(sink), ..WatchPatch::default() };
    let pulls = to(Some(sink(1, SinkAddress::Pull)));
    let pulling = house.store.patch_watch(&app, &watch.id, &pulls).await.expect("patched");
    house.refresh(&app).await;
    let lease = claim(&house, &pulling, 60).await.expect("the rest");
    assert_eq!(lease.positions, 4..6, "what was on its way was waited for");
    assert_eq!(house.taken(&app).len(), 4);
    let back = house.store.patch_watch(&app, &watch.id, &to(None)).await.expect("patched");
    assert_eq!(back.sink, None);
    house.refresh(&app).await;
    house.until_held(&back, first).await;
    assert_eq!(house.taken(&app).len(), 6, "each once, and the last ones at the endpoint of the app");
}

#[tokio::test(start_paused = true)]
async fn attempts_at_all_sinks_of_an_app_count_together() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(20, "one")));
    let app = house.app_with(|delivery| delivery.max_concurrent = Some(1)).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(50))));
    let mut watches = vec![house.register(&app, URL, |_| {}).await];
    for number in 1..4 {
        let edit = |new: &mut NewWatch| {
            (new.alias, new.sink) = (format!("sink{number}"), Some(elsewhere(number)));
        };
        watches.push(house.register(&app, URL, edit).await);
    }
    house.refresh(&app).await;
    let most = std::sync::atomic::AtomicUsize::new(0);
    let watched = async {
        loop {
            most.fetch_max(house.transport.flying(&app), std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    };
    let held = async {
        for watch in &watches {
            house.until_held(watch, first).await;
        }
    };
    tokio::select! { () = held => {}, () = watched => {} }
    assert_eq!(most.into_inner(), 1, "one attempt at a time, whatever sink it goes to");
    assert_eq!(house.taken(&app).len(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_rows_never_fit_reads_them_ever_more_rarely() {
    let house = House::running().await;
    house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    // The rows of this store never let a lane hand anything over. After these calls one hangs for a while.
    for _ in 0..20 {
        house.store.befall("hand_over_room", Fault::Waits(Duration::from_millis(1)));
    }
    house.store.befall("hand_over_room", Fault::Hangs);
    let works = second(&house, &app, "works", sink(1, SinkAddress::Tasks("embed".into()))).await;
    house.until("its round is open", async || house.cursor(&works).await.open.is_some()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(house.store.awaits_fault("hand_over_room"), "not 21 times in five seconds");
    house.until("it does not give up", async || !house.store.awaits_fault("hand_over_room")).await;
}

/// The deliverer of a watch, once it has a lane.
async fn with_a_lane(house: &House, watch: &Watch) -> Mailbox<DelivererMessage> {
    let key = watch.sink_key().to_string();
    let has_lane = async || matches!(house.doing(DELIVERER, &key), Some(Doing::Delivering { lanes: 1, .. }));
    house.until("it has a lane", has_lane).await;
    house.context.directory.find(DELIVERER, &key).expect("it runs")
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ends_while_its_lane_is_opened_is_not_waited_for() {
    let house = House::running().await;
    house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    house.store.leave_tasks(true);
    for _ in 0..2 {
        house.store.befall("lane", Fault::Waits(Duration::from_secs(1)));
    }
    let began = Instant::now();
    let works = second(&house, &app, "works", sink(1, SinkAddress::Tasks("embed".into()))).await;
    // The word comes before the lane has read that there is a claim, and no other word follows.
    with_a_lane(&house, &works).await.send(DelivererMessage::Room);
    sleep(Duration::from_millis(1_500)).await;
    house.store.leave_tasks(false);
    house.until("its round is open", async || house.cursor(&works).await.open.is_some()).await;
    assert!(began.elapsed() < Duration::from_secs(10), "it waited {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_come_and_go_open_no_lane_that_waits_for_something_else() {
    let house = House::running().await;
    house.commit(&refs(&files(5, "one")));
    let app = house.app().await;
    for _ in 0..30 {
        house.store.befall("lane", Fault::Fails(StoreError::Unavailable("no".into())));
    }
    let works = second(&house, &app, "works", sink(1, SinkAddress::Tasks("embed".into()))).await;
    let deliverer = with_a_lane(&house, &works).await;
    for _ in 0..500 {
        deliverer.send(DelivererMessage::Room);
        sleep(Duration::from_millis(20)).await;
    }
    assert!(house.store.awaits_fault("lane"), "not 30 times in ten seconds");
}
