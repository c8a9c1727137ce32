//! Crashes, restarts, drains and ends of deliverers.

use std::{collections::HashSet, time::Duration};

use tidings_entity::kind::OrderMode;
use tokio::time::Instant;

use crate::{
    deliverer::DelivererMessage,
    ports::{LaneStore, Reach, SourceStore},
    supervision::tree::DELIVERER,
    testing::{
        house::{House, URL, files, refs},
        transport::Answer,
    },
};

#[tokio::test(start_paused = true)]
async fn a_killed_deliverer_loses_nothing_and_repeats_at_most_its_window_with_equal_ids() {
    for order in [OrderMode::Strict, OrderMode::Phased] {
        let house = House::running().await;
        let commit = house.commit(&refs(&files(400, "one")));
        let app = house.app_with(|delivery| (delivery.order, delivery.max_in_flight) = (order, 16)).await;
        house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(20))));
        let watch = house.watch(&app).await;
        let kills = 5;
        for kill in 1..=kills {
            let enough = kill * 50;
            house.transport.until("more arrived", |arrivals| arrivals.len() >= enough).await;
            house.kill(DELIVERER, app.as_str());
            house.until("it runs again", async || house.deliverer(&app).is_some()).await;
        }
        house.until_held(&watch, commit).await;
        house.assert_mirrors(&app, commit);
        let tried = house.tried(&app);
        let ids: HashSet<&str> = tried.iter().map(|arrival| arrival.id.as_str()).collect();
        assert_eq!(ids.len(), 400, "an id never changes and never names two changes");
        assert!(tried.len() - 400 <= kills * 64, "{} repeats", tried.len() - 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_sending_restarts_the_deliverer_and_the_round_goes_on() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(50, "one")));
    let (calm, nervous) = (house.app().await, house.app().await);
    let watch = house.watch(&calm).await;
    house.until_held(&watch, commit).await;
    house.transport.script([Answer::Status(200), Answer::Panic]);
    let watch = house.watch(&nervous).await;
    house.until_held(&watch, commit).await;
    house.assert_mirrors(&nervous, commit);
    assert_eq!(house.taken(&nervous).len(), 50);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_settled_while_the_attempt_after_it_waits() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(20, "one")));
    let app = house.app_with(|delivery| delivery.order = OrderMode::Strict).await;
    house.transport.answer_path("name0010", Some(Answer::Slow(200, Duration::from_secs(20))));
    let watch = house.watch(&app).await;
    let position = async || house.cursor(&watch).await.open.map(|(_, position, _)| position);
    house.until("ten are settled", async || position().await == Some(10)).await;
    assert_eq!(house.transport.flying(&app), 1, "the eleventh has no answer yet");
    house.until_held(&watch, commit).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_nothing_new_and_replies_when_all_is_still() {
    let mut house = House::new();
    let commit = house.commit(&refs(&files(100, "one")));
    house.start().await;
    let app = house.app_with(|delivery| delivery.order = OrderMode::Phased).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(3))));
    let watch = house.watch(&app).await;
    house.transport.until("some arrived", |arrivals| arrivals.len() >= 8).await;
    house.until("more are on their way", async || house.transport.flying(&app) == 8).await;
    let begun = house.tried(&app).len() + 8;
    let start = Instant::now();
    house.stop(Duration::from_secs(20)).await;
    assert!(start.elapsed() < Duration::from_secs(4), "it waited {:?}", start.elapsed());
    assert_eq!(house.transport.flying(&app), 0, "every attempt ended by itself");
    assert_eq!(house.tried(&app).len(), begun, "nothing new was sent");
    let (_, position, _) = house.cursor(&watch).await.open.expect("in mid-round");
    assert_eq!(position, begun as u64, "every answer is settled");

    house.start().await;
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 100, "a clean stop repeats nothing");
    house.assert_mirrors(&app, commit);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_up_on_attempts_that_hang() {
    let mut house = House::new();
    house.commit(&refs(&files(10, "one")));
    house.start().await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Hang));
    house.watch(&app).await;
    house.until("one hangs", async || house.transport.flying(&app) == 1).await;
    let start = Instant::now();
    house.stop(Duration::from_secs(20)).await;
    assert!(start.elapsed() < Duration::from_secs(30), "it waited {:?}", start.elapsed());
    assert_eq!(house.transport.flying(&app), 0);
}

#[tokio::test(start_paused = true)]
async fn no_deliverer_begins_to_send_while_the_tree_stops() {
    let mut house = House::new();
    house.commit(&refs(&files(10, "one")));
    house.start().await;
    let (slow, late) = (house.app().await, house.app().await);
    house.transport.answer_app(&slow, Some(Answer::Slow(200, Duration::from_secs(10))));
    house.watch(&slow).await;
    house.until("one is on its way", async || house.transport.flying(&slow) == 1).await;
    // Its rows are there, nobody was told yet.
    let watch = house.register(&late, URL, |_| {}).await;
    let handle = house.handle();
    let hints = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle.repository_changed(&watch.repository).await;
        handle.refresh(&late).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    };
    tokio::join!(hints, house.stop(Duration::from_secs(20)));
    assert_eq!(house.tried(&late).len(), 0, "nothing new goes out during a drain");
}

#[tokio::test(start_paused = true)]
async fn a_deliverer_without_work_ends_and_comes_back_with_it() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.until("it ended", async || house.deliverer(&app).is_none()).await;
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_crosses_the_end_is_not_lost() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    // Back in what it has, and forward again: only a wake can bring the round about.
    let deliverer = house.deliverer(&app).expect("it idles");
    let second = house.commit(&[("a", "2")]);
    let listing = house.listing(URL).await;
    house.store.move_heads(&watch.source, &listing, house.context.now()).await.expect("moved");
    // The end and the wake lie in the mailbox one behind the other.
    deliverer.send(DelivererMessage::EndIfIdle);
    house.kill(DELIVERER, app.as_str());
    deliverer.send(DelivererMessage::Wake(vec![cursor]));
    let start = Instant::now();
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_process_takes_up_the_round_where_the_old_one_was_killed() {
    let mut house = House::new();
    let commit = house.commit(&refs(&files(200, "one")));
    house.start().await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(20))));
    let watch = house.watch(&app).await;
    house.transport.until("some arrived", |arrivals| arrivals.len() >= 100).await;
    house.stop(Duration::ZERO).await;
    let (_, position, _) = house.cursor(&watch).await.open.expect("in mid-round");
    assert!(position >= 36);
    house.start().await;
    house.until_held(&watch, commit).await;
    let tried = house.tried(&app);
    assert!(tried.len() <= 264, "{} attempts", tried.len());
    house.assert_mirrors(&app, commit);
    assert!(house.store.pending(None, &Reach::All).await.expect("rows").is_empty());
}
