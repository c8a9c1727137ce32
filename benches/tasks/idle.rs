//! What rest costs: schedules that are not due, workers that wait for tasks, subscriptions to ledgers and
//! worker subscriptions, while nothing happens. The baseline is the same server with nothing of that.

use std::{path::Path, time::Duration};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{client::Client, in_parallel, served::Served, start, support::figure};

/// Apps that share what rests: an app may have 1,000 schedules, and 100 subscriptions of each kind.
const APPS: usize = 10;
const SCHEDULES: usize = 1_000;
const WORKERS: usize = 100;
const SUBSCRIPTIONS: usize = 100;
/// How long the server is left alone before it is measured, and how long it is measured.
const SETTLED: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(60);
/// How long a claim waits at most, in seconds. Claims begin again within the measure.
const WAIT: u64 = 60;

pub(crate) async fn idle(home: &Path) {
    let (server, first) = start(home, &[("ONBOARDING__APPS_PER_HOUR", "1000000")]).await;
    let empty = share(&server).await;
    let mut waiting = JoinSet::<()>::new();
    for _ in 0..APPS {
        let client = first.another().await;
        rest(&client).await;
        for _ in 0..WORKERS {
            let client = client.clone();
            waiting.spawn(async move {
                loop {
                    client.claim(&json!({ "commands": ["never"], "wait_seconds": WAIT })).await;
                }
            });
        }
    }
    let with = share(&server).await;
    waiting.shutdown().await;
    let what = format!(
        "share of a core of {} idle schedules, {} waiting workers, {} subscriptions and as many of workers",
        APPS * SCHEDULES,
        APPS * WORKERS,
        APPS * SUBSCRIPTIONS
    );
    figure(&what, "%", with, empty, "< 2 %");
}

/// Schedules and subscriptions of an app.
async fn rest(client: &Client) {
    in_parallel(client, 8, SCHEDULES, |client, number| async move {
        let body = json!({ "cron": "@yearly", "zone": "Europe/Rome", "command": "yearly" });
        client.put(&format!("/api/schedules/rests-{number}"), &body).await;
    })
    .await;
    in_parallel(client, 8, SUBSCRIPTIONS, |client, number| async move {
        // Nobody listens there, and nothing is sent.
        let url = "http://127.0.0.1:9/rests";
        let body = json!({ "name": format!("rests-{number}"), "sink": { "url": url } });
        client.post("/api/subscriptions", &body).await;
        let body = json!({ "url": url, "commands": ["never"], "ttl_seconds": 86_400 });
        client.post("/api/workers/subscriptions", &body).await;
    })
    .await;
}

/// The percentage of a core that the server takes.
async fn share(server: &Served) -> f64 {
    sleep(SETTLED).await;
    let before = server.cpu();
    sleep(MEASURED).await;
    (server.cpu() - before).as_secs_f64() / MEASURED.as_secs_f64() * 100.0
}
