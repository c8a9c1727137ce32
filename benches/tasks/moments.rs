//! How late tasks are that wait for a moment, on a server that does nothing else: from the moment at which a
//! task is due, and from the end of the claim of a worker that died, to the worker that waits. The baseline is
//! the time from a create to the worker that waits for it.

use std::{path::Path, time::Duration};

use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use crate::{client::Client, start, support::figure};

/// Workers that wait, each for a queue of its own, and tasks of each of them.
const LANES: usize = 4;
const TASKS: usize = 25;
/// The delay of a task, and the length of the claim of a worker that died: the shortest ones.
const SECOND: Duration = Duration::from_secs(1);

/// How late tasks were, in milliseconds.
#[derive(Default)]
struct Late {
    created: Vec<f64>,
    due: Vec<f64>,
    given_up: Vec<f64>,
}

pub(crate) async fn moments(home: &Path) {
    let (_server, client) = start(home, &[]).await;
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(measured(client.clone(), format!("lane-{lane}")));
    }
    let mut all = Late::default();
    for late in lanes.join_all().await {
        all.created.extend(late.created);
        all.due.extend(late.due);
        all.given_up.extend(late.given_up);
    }
    let created = p99(all.created);
    figure("p99 from due to claimed, beside from create to claimed", "ms", p99(all.due), created, "<= 50 ms");
    let what = "p99 from the end of a dead worker's claim to claimed again, beside the same";
    figure(what, "ms", p99(all.given_up), created, "<= 1,000 ms");
}

fn p99(mut late: Vec<f64>) -> f64 {
    late.sort_by(f64::total_cmp);
    late[late.len() * 99 / 100]
}

async fn measured(client: Client, command: String) -> Late {
    let mut late = Late::default();
    for _ in 0..TASKS {
        late.created.push(after_create(&client, &command, Duration::ZERO).await);
        late.due.push(after_create(&client, &command, SECOND).await);
        client.post("/api/tasks", &json!({ "command": command })).await;
        let seconds = SECOND.as_secs();
        let began = Instant::now();
        let lost = client.claim(&json!({ "commands": [command], "claim_seconds": seconds })).await;
        assert_eq!(lost.len(), 1);
        late.given_up.push(claimed_after(&client, &command, began + SECOND).await);
    }
    late
}

/// How late the worker has a task that is due after `delay`.
async fn after_create(client: &Client, command: &str, delay: Duration) -> f64 {
    let began = Instant::now();
    let worker = claimed_after(client, command, began + delay);
    let task = json!({ "command": command, "delay_seconds": delay.as_secs() });
    let (late, _) = tokio::join!(worker, client.post("/api/tasks", &task));
    late
}

/// Waits for the one task that comes and completes it; how long after `moment` it came, in milliseconds.
async fn claimed_after(client: &Client, command: &str, moment: Instant) -> f64 {
    let claimed = client.claim(&json!({ "commands": [command], "wait_seconds": 20 })).await;
    let late = moment.elapsed();
    assert_eq!(claimed.len(), 1, "a task came");
    client.complete(&claimed).await;
    late.as_secs_f64() * 1e3
}
