//! Workers that do one task at a time, side by side, and the part of their time in which they work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::client::Client;

/// How many workers work side by side.
pub(crate) const WORKERS: u32 = 200;
/// One task in this number dies.
pub(crate) const DIES: u64 = 1_000;

/// The time of each piece of work.
pub(crate) type Works = Vec<(Instant, Instant)>;

/// Lets all workers work: each does what `worker` returns.
pub(crate) async fn side_by_side<W>(worker: impl Fn() -> W) -> Works
where
    W: Future<Output = Works> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(worker());
    }
    workers.join_all().await.into_iter().flatten().collect()
}

/// Lets all workers claim tasks, work on each for `work`, and end it by `end`, which returns the number of
/// tasks that ended; until `count` tasks have ended.
pub(crate) async fn work<E>(
    client: &Client,
    wanted: &Value,
    work: Duration,
    count: u64,
    end: impl Fn(Client, Value) -> E + Clone + Send + Sync + 'static,
) -> Works
where
    E: Future<Output = u64> + Send + 'static,
{
    let ended = Arc::new(AtomicU64::new(0));
    side_by_side(|| {
        let (client, wanted, ended, end) = (client.clone(), wanted.clone(), ended.clone(), end.clone());
        async move {
            let mut works = Works::new();
            while ended.load(Ordering::Relaxed) < count {
                for task in client.claim(&wanted).await {
                    let began = Instant::now();
                    sleep(work).await;
                    works.push((began, Instant::now()));
                    ended.fetch_add(end(client.clone(), task).await, Ordering::Relaxed);
                }
            }
            works
        }
    })
    .await
}

/// How long all workers together were busy between the first beginning of work and the last one, and how long
/// that was. Afterwards there is no work for all of them.
pub(crate) fn busy(works: &[(Instant, Instant)]) -> (Duration, Duration) {
    let first = works.iter().map(|(began, _)| *began).min().expect("some work");
    let last = works.iter().map(|(began, _)| *began).max().expect("some work");
    let busy = works.iter().map(|(began, over)| (*over).min(last) - *began).sum();
    (busy, last - first)
}
