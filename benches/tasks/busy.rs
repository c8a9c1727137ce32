//! How busy many workers are, each of which does one task at a time, while one task in a thousand dies: its
//! worker is never heard of again. The baseline is the same work without a queue.

use std::{
    path::Path,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    BATCH, in_parallel, start,
    support::figure,
    workers::{self, DIES, WORKERS, Works},
};

const TASKS: usize = 100_000;
/// How long the work of one task takes.
const WORK: Duration = Duration::from_millis(100);

pub(crate) async fn busy(home: &Path) {
    let (_server, client) = start(home, &[]).await;
    // A task that nobody ends is dead after its first claim.
    client.put("/api/queues/busy", &json!({ "max_attempts": 1 })).await;
    in_parallel(&client, 4, TASKS / BATCH, |client, _| async move { client.create("busy", BATCH).await })
        .await;
    let alone = share(&alone().await);
    let wanted = json!({ "commands": ["busy"], "wait_seconds": 1, "claim_seconds": 2 });
    let number = Arc::new(AtomicU64::new(0));
    let works = workers::work(&client, &wanted, WORK, TASKS as u64, move |client, task| {
        let dies = number.fetch_add(1, Ordering::Relaxed).is_multiple_of(DIES);
        async move {
            if !dies {
                client.complete(slice::from_ref(&task)).await;
            }
            1
        }
    });
    let with = share(&works.await);
    figure("share of their time that 200 workers work, 1 task in 1,000 dies", "%", with, alone, ">= 80 %");
}

/// The work without a queue: workers take one task after another.
async fn alone() -> Works {
    let taken = Arc::new(AtomicU64::new(0));
    workers::side_by_side(|| {
        let taken = taken.clone();
        async move {
            let mut works = Works::new();
            while taken.fetch_add(1, Ordering::Relaxed) < TASKS as u64 {
                let began = Instant::now();
                sleep(WORK).await;
                works.push((began, Instant::now()));
            }
            works
        }
    })
    .await
}

/// The percentage of their time that workers work.
fn share(works: &[(Instant, Instant)]) -> f64 {
    let (busy, span) = workers::busy(works);
    busy.as_secs_f64() / (span * WORKERS).as_secs_f64() * 100.0
}
