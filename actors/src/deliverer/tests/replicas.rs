//! Lanes whose right to send ends: what was begun is left, says nothing, and is done elsewhere.

use std::time::Duration;

use tidings_entity::kind::CursorState;
use tokio::time::{Instant, sleep};

use crate::{
    circuit_breaker::endpoint_key,
    ports::{SHARDS, UpkeepStore, WatchStore},
    supervision::{
        directory::Doing,
        tree::{CIRCUIT_BREAKER, DELIVERER},
    },
    testing::{
        Fault,
        house::{House, refs},
        transport::Answer,
    },
};

const LIFE: Duration = Duration::from_secs(9);

#[tokio::test(start_paused = true)]
async fn a_file_in_chunks_whose_lease_ends_counts_as_not_sent() {
    let house = House::alone(LIFE).await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Sliced(200, 30, Duration::from_secs(1))));
    let commit = house.commit(&refs(&[("big".into(), "1".into())]));
    let watch = house.watch(&app).await;
    house.until("some of it was sent", async || house.transport.slices().len() >= 3).await;
    house.store.leases().cut_off(true);
    let cut_off = Instant::now();
    sleep(LIFE * 2).await;
    let sent = house.transport.slices();
    assert!(sent.iter().all(|at| *at < cut_off + LIFE), "another may send it by then: {sent:?}");
    assert!(house.tried(&app).is_empty(), "it was not sent to its end");
    house.store.leases().cut_off(false);
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app), ["C big"], "all of it was sent again");
    assert!(house.store.attempts().is_empty(), "nothing failed");
    assert!(house.store.breakers().await.expect("rows").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_left_is_permitted_again_at_once() {
    let house = House::alone(LIFE).await;
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Status(503)));
    let commit = house.commit(&[("big", "1")]);
    let watch = house.watch(&app).await;
    sleep(Duration::from_secs(300)).await;
    house.transport.answer_app(&app, Some(Answer::Sliced(200, 30, Duration::from_secs(1))));
    house.until("a probe is on its way", async || house.transport.slices().len() >= 3).await;
    house.store.leases().cut_off(true);
    sleep(LIFE * 2).await;
    house.transport.answer_app(&app, None);
    house.store.leases().cut_off(false);
    let began = Instant::now();
    house.until_held(&watch, commit).await;
    assert!(began.elapsed() < LIFE, "it waited for a probe that was not sent: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_probe_for_which_nothing_is_left_is_another_replicas() {
    let mut houses = House::replicas(2, LIFE);
    for house in &mut houses {
        house.start().await;
    }
    houses[1]
        .until("shards are shared", async || houses.iter().all(|house| house.shards() == SHARDS / 2))
        .await;
    let app = houses[0].app().await;
    houses[0].transport.answer_app(&app, Some(Answer::Status(503)));
    let commit = houses[0].commit(&[("a", "1")]);
    let watch = houses[0].watch(&app).await;
    let key = endpoint_key(app.as_str());
    let knows =
        |house: &House| house.doing(CIRCUIT_BREAKER, &key).is_some_and(|doing| doing.to_string() == "open");
    houses[0].until("both breakers are open", async || houses.iter().all(knows)).await;
    sleep(Duration::from_secs(300)).await;
    // The next probe is permitted, and waits until it is rendered.
    houses[0].transport.render_slowly(Duration::from_secs(30));
    houses[0]
        .until("it is permitted", async || {
            let rows = houses[0].store.breakers().await.expect("rows");
            rows[0].probe_at.expect("open").since(houses[0].context.now()) > Duration::from_secs(100)
        })
        .await;
    houses[0].transport.render_slowly(Duration::ZERO);
    houses[0].transport.answer_app(&app, None);
    let busy = usize::from(houses[1].context.shards.owns(&watch.repository));
    let mut stopping = houses.remove(busy);
    let began = Instant::now();
    stopping.stop(Duration::from_secs(1)).await;
    houses[0].until_held(&watch, commit).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_lease_is_lost_drops_what_it_owes_to_its_cursor() {
    let house = House::alone(LIFE).await;
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let commit = house.commit(&[("a", "1")]);
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    // An announcement that is refused blocks the cursor; before that is written, the shard is lost.
    house.transport.answer_app(&app, Some(Answer::Status(422)));
    house.store.befall("set_blocked", Fault::Waits(LIFE));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is to be blocked", async || !house.store.awaits_fault("set_blocked")).await;
    house.lose_shards().await;
    let lanes = || match house.doing(DELIVERER, app.as_str()) {
        Some(Doing::Delivering { lanes, .. }) => lanes,
        _ => 0,
    };
    assert_eq!(lanes(), 1);
    sleep(LIFE * 2).await;
    assert_eq!(lanes(), 0, "it is another's, with all that is to be done for it");
    assert_ne!(house.cursor(&watch).await.state, CursorState::Blocked, "that is the other's to find out");
}
