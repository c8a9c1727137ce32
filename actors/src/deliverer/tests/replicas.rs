//! Lanes whose right to send ends: what was begun is left, and says nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    ports::{SHARDS, Store},
    testing::{
        house::{House, refs},
        transport::Answer,
    },
};

const LIFE: Duration = Duration::from_secs(9);

/// A replica that is alone and holds everything.
async fn alone() -> House {
    let mut house = House::replicas(1, LIFE).pop().expect("one");
    house.start().await;
    house.until("it holds everything", async || house.shards() == SHARDS).await;
    house
}

#[tokio::test(start_paused = true)]
async fn a_file_in_chunks_whose_lease_ends_counts_as_not_sent() {
    let house = alone().await;
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
