//! Tasks: created, claimed and completed, in batches against bare prepared statements on the same tables, and
//! over HTTP; how soon a waiting worker has a task; how late tasks are that wait for a moment; how busy many
//! workers are; what a backlog, rest and hostile apps cost.
//!
//! `cargo bench --bench tasks [-- NAME]` runs the figures whose name contains NAME: "batches in the store",
//! "over HTTP", "waiting workers", "moments", "busy workers", "backlog", "rest", "hostile". `TIDINGS_BENCH_DATABASE` names
//! a PostgreSQL database of its own for the parts over HTTP except the backlog, which is made in a SQLite
//! file; `TIDINGS_BENCH_BACKLOG` is the number of ready tasks of the backlog.

#![expect(clippy::disallowed_methods, reason = "the benchmark is a client of its own")]

#[path = "tasks/bare.rs"]
mod bare;
#[path = "tasks/busy.rs"]
mod busy;
#[path = "tasks/client.rs"]
mod client;
#[path = "tasks/hostile.rs"]
mod hostile;
#[path = "tasks/idle.rs"]
mod idle;
#[path = "tasks/moments.rs"]
mod moments;
#[path = "registered.rs"]
#[expect(dead_code, reason = "tasks need no watch")]
mod registered;
#[path = "served.rs"]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "there is no repository here")]
mod support;
#[path = "workers.rs"]
mod workers;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{Client, serve};
use serde_json::json;
use served::Served;
use support::{figure, rate, settings, timed};
use tidings::app::Adapters;
use tidings_actors::{
    model::task::{ClaimProof, TaskMove},
    ports::{ClaimRequest, ClaimStore, DeliverySettings, NewTask, Origin, TaskStore, TaskWord},
};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::OriginKind,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Tasks of one request.
const BATCH: usize = 100;
/// Batches of one turn of a figure.
const BATCHES: usize = 100;
/// Turns of a figure; the median is told.
const TURNS: usize = 3;
/// Connections that work one task at a time.
const CONNECTIONS: usize = 32;
/// Tasks of the figure that works one task at a time.
const SINGLE: usize = 10_000;
/// Creates a second, of the figure of waiting workers, and their number.
const RATE: u32 = 1_000;
const PACED: u32 = 10_000;
/// Workers that wait while tasks are created at [`RATE`].
const WORKERS: usize = 64;
/// Ready tasks of the backlog unless `TIDINGS_BENCH_BACKLOG` says otherwise.
const BACKLOG: usize = 5_000_000;
/// How much more than before a backlog the disk may hold after it, in MiB: room for rows to come, and the log of
/// the database. And how long that may take.
const RETURNED_TO: f64 = 64.0;
const RETURNED_WITHIN: Duration = Duration::from_secs(600);
/// What a worker is given: the size that other queues are measured with.
pub(crate) const PAYLOAD: &str = r#"{"path":"docs/guide/first-steps.md","commit":"0123456789abcdef"}"#;
pub(crate) const RESULT: &str = r#"{"ok":true}"#;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    if is_wanted("batches in the store") {
        batches(folder.path()).await;
    }
    if is_wanted("over HTTP") {
        over_http(&folder.path().join("http")).await;
    }
    if is_wanted("waiting workers") {
        waiting(&folder.path().join("waiting")).await;
    }
    if is_wanted("moments") {
        moments::moments(&folder.path().join("moments")).await;
    }
    if is_wanted("busy workers") {
        busy::busy(&folder.path().join("busy")).await;
    }
    if is_wanted("backlog") {
        backlog(&folder.path().join("backlog")).await;
    }
    if is_wanted("rest") {
        idle::idle(&folder.path().join("rest")).await;
    }
    if is_wanted("hostile") {
        hostile::hostile(&folder.path().join("hostile")).await;
    }
}

/// Create, claim, complete: three requests of the store, each for a batch, against three transactions with
/// the same changes as prepared statements.
async fn batches(folder: &Path) {
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        let home = folder.join(format!("bare {turn}"));
        let adapters = Adapters::open(settings(&home)).await.expect("the house opens");
        let app = registered::app(&adapters, None, DeliverySettings::default()).await;
        drop(adapters);
        let ((), took) = timed(bare::work(&home.join("tidings.db"), &app, BATCHES, BATCH)).await;
        let bare = rate((BATCHES * BATCH) as u64, took);

        let adapters =
            Adapters::open(settings(&folder.join(format!("store {turn}")))).await.expect("it opens");
        let app = registered::app(&adapters, None, DeliverySettings::default()).await;
        let ((), took) = timed(store(&adapters, &app)).await;
        let ours = rate((BATCHES * BATCH) as u64, took);
        println!("  {ours:.0} tasks/s against {bare:.0}");
        turns.push((ours, bare));
    }
    turns.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    let (ours, bare) = turns[TURNS / 2];
    figure("create, claim, complete in batches of 100 in the store", "tasks/s", ours, bare, ">= 0.60");
}

async fn store(adapters: &Adapters, app: &AppId) {
    let worker = "a worker".to_owned();
    for _ in 0..BATCHES {
        let now = adapters.clock.now();
        let task = |_| NewTask {
            id: TaskId::new(adapters.random.ulid(now)),
            command: "work".into(),
            payload: PAYLOAD.into(),
            priority: 4,
            max_attempts: None,
            run_at: None,
            delay: None,
            key: None,
            origin: Origin { kind: OriginKind::Person, name: "a producer".into() },
            callback: None,
        };
        let created = adapters.store.create_tasks(app, (0..BATCH).map(task).collect()).await;
        assert_eq!(created.expect("the store answers").expect("no bound is met").len(), BATCH);
        let request = ClaimRequest {
            app: app.clone(),
            commands: vec!["work".into()],
            count: BATCH,
            claim: Duration::from_secs(300),
            worker: worker.clone(),
        };
        let mut claims = adapters.store.claim_tasks(vec![request]).await.expect("the store answers");
        let claimed = claims.pop().expect("an answer").tasks;
        let claimed = adapters.store.payloads(claimed).await.expect("the store answers");
        assert_eq!(claimed.len(), BATCH);
        let word = |task: tidings_actors::ports::ClaimedTask| TaskWord {
            id: task.task.id.clone(),
            app: app.clone(),
            proof: Some(ClaimProof::Hash(task.token.hash())),
            step: TaskMove::Complete,
            body: Some(RESULT.into()),
            then: Vec::new(),
        };
        let ended = adapters.store.move_tasks(claimed.into_iter().map(word).collect()).await;
        assert!(ended.expect("the store answers").iter().all(Result::is_ok));
    }
}

/// The server as its clients see it: in batches on four connections, and one task at a time on 32.
async fn over_http(home: &Path) {
    let (server, client) = start(home, &[]).await;
    let answered = {
        let work =
            in_parallel(&client, CONNECTIONS, SINGLE, |client, _| async move { client.get("/livez").await });
        let (count, took) = timed(work).await;
        rate(count as u64, took)
    };
    let work = in_parallel(&client, 4, BATCHES, |client, _| async move {
        client.create("batches", BATCH).await;
        let claimed = client.claim(&json!({ "commands": ["batches"], "count": BATCH })).await;
        client.complete(&claimed).await;
    });
    let (count, took) = timed(work).await;
    figure(
        "create, claim, complete over HTTP in batches of 100, beside bare answers",
        "/s",
        rate((count * BATCH) as u64, took),
        answered,
        "see benches/peers",
    );
    let before = server.cpu();
    let work = in_parallel(&client, CONNECTIONS, SINGLE, |client, _| async move {
        client.create("single", 1).await;
        let claimed = client.claim(&json!({ "commands": ["single"] })).await;
        client.complete(&claimed).await;
    });
    let (count, took) = timed(work).await;
    println!("  {:.0} us of processor a task", (server.cpu() - before).as_secs_f64() * 1e6 / SINGLE as f64);
    figure(
        "one task at a time over HTTP, 32 connections, beside bare answers",
        "/s",
        rate(count as u64, took),
        answered,
        "see benches/peers",
    );
}

/// From create to claimed at 1,000 tasks a second.
async fn waiting(home: &Path) {
    let (_server, client) = start(home, &[]).await;
    let alone = paced(&client, "nobody waits").await;
    let (is_over, mut workers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..WORKERS {
        let (client, is_over) = (client.clone(), is_over.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            while is_over.load(Ordering::Relaxed) == 0 {
                let wanted = json!({ "commands": ["paced"], "wait_seconds": 2 });
                let claimed = client.claim(&wanted).await;
                let now = client.elapsed();
                for task in &claimed {
                    let sent = task["payload"].as_f64().expect("the moment of its request");
                    took.push(now.as_secs_f64() - sent);
                }
                client.complete(&claimed).await;
            }
            took
        });
    }
    sleep(Duration::from_secs(1)).await;
    paced(&client, "paced").await;
    sleep(Duration::from_secs(1)).await;
    is_over.store(1, Ordering::Relaxed);
    let mut took: Vec<f64> = workers.join_all().await.into_iter().flatten().collect();
    took.sort_by(f64::total_cmp);
    assert_eq!(took.len(), PACED as usize, "each task was claimed once");
    let p99 = took[took.len() * 99 / 100] * 1e3;
    let alone = alone.as_secs_f64() * 1e3;
    figure("p99 from create to claimed, beside the create alone", "ms", p99, alone, "<= 3 ms");
}

/// Creates tasks at their times; the p99 of the answers.
async fn paced(client: &Client, command: &'static str) -> Duration {
    let (mut requests, began) = (JoinSet::new(), Instant::now());
    for number in 0..PACED {
        let at = began + Duration::from_secs(1) / RATE * number;
        sleep_until(at).await;
        let client = client.clone();
        requests.spawn(async move {
            let moment = client.elapsed().as_secs_f64();
            client.post("/api/tasks", &json!({ "command": command, "payload": moment })).await;
            at.elapsed()
        });
    }
    let mut took = requests.join_all().await;
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Ready tasks by the million: the first claim after a start, memory, counts and a page of the list.
async fn backlog(home: &Path) {
    let count = std::env::var("TIDINGS_BENCH_BACKLOG").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(BACKLOG);
    // Millions of tasks are written into the file itself.
    let on_file = [("DATABASE__URL", "")];
    let (server, client) = start(home, &on_file).await;
    client.create("backlog", 1).await;
    let empty = server.memory("VmRSS");
    let first = client.get_json("/api/queues").await;
    let (_, alone) = timed(client.get_json("/api/queues/backlog")).await;
    assert_eq!(first["items"][0]["command"], "backlog", "{first}");
    server.stop();
    let before = disk(home);
    let ((), took) = timed(bare::multiply(&home.join("data/tidings.db"), count)).await;
    println!("  {count} ready tasks in {took:.1?}");

    let server = serve(home, &on_file);
    let address = server.address(home);
    let client = client.at(address);
    let (claimed, took) = timed(client.claim(&json!({ "commands": ["backlog"], "count": 1 }))).await;
    assert_eq!(claimed.len(), 1);
    figure(
        "first claim after a start beside one read",
        "ms",
        took.as_secs_f64() * 1e3,
        alone.as_secs_f64() * 1e3,
        "<= 500 ms",
    );
    let mut reads = Vec::new();
    for _ in 0..200 {
        let (queue, took) = timed(client.get_json("/api/queues/backlog")).await;
        assert!(queue["counts"]["ready"].as_u64() > Some(count as u64 - 10), "{queue}");
        reads.push(took);
    }
    reads.sort_unstable();
    let p99 = reads[reads.len() * 99 / 100].as_secs_f64() * 1e3;
    figure("p99 of the counts", "ms", p99, alone.as_secs_f64() * 1e3, "<= 10 ms");
    let (_, took) = timed(client.get_json("/api/tasks?command=backlog&limit=100")).await;
    println!("  a page of 100 of the list: {:.1} ms", took.as_secs_f64() * 1e3);
    #[expect(clippy::cast_precision_loss, reason = "MiB")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    figure("memory beside the empty server", "MiB", mib(server.memory("VmRSS")), mib(empty), "flat");
    server.stop();
    removal(home, &client, before).await;
}

/// The purge of the backlog, and the disk afterwards beside the disk with the backlog.
async fn removal(home: &Path, client: &Client, before: f64) {
    let full = disk(home);
    let server = serve(home, &[("DATABASE__URL", ""), ("HOUSEKEEPING__INTERVAL", "1s")]);
    let client = client.at(server.address(home));
    let (removed, took) = timed(async {
        let mut removed = 0;
        loop {
            let step = client.post("/api/queues/backlog/purge", &json!({ "confirm": "backlog" })).await;
            removed += step["removed"].as_u64().expect("a number");
            if step["more"] == false {
                return removed;
            }
        }
    })
    .await;
    let speed = rate(removed, took);
    println!("  {removed} tasks purged in {took:.1?}, {speed:.0}/s; {before:.0} MiB before them");
    let until = Instant::now() + RETURNED_WITHIN;
    while disk(home) > before + RETURNED_TO && Instant::now() < until {
        sleep(Duration::from_secs(1)).await;
    }
    figure("disk after the purge beside the backlog", "MiB", disk(home), full, "that before, and 64 MiB");
}

/// What the database takes on the disk, in MiB.
fn disk(home: &Path) -> f64 {
    let files = std::fs::read_dir(home.join("data")).expect("a folder").flatten();
    let of_database = files.filter(|file| file.file_name().to_string_lossy().starts_with("tidings.db"));
    let bytes: u64 = of_database.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    bytes as f64 / f64::from(1 << 20)
}

/// Does `count` works, `at_once` at a time, each with its number; how many were done.
async fn in_parallel<W>(client: &Client, at_once: usize, count: usize, work: fn(Client, usize) -> W) -> usize
where
    W: Future<Output = ()> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut hands = JoinSet::new();
    for _ in 0..at_once {
        let (next, client) = (next.clone(), client.clone());
        hands.spawn(async move {
            let mut done = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return done;
                }
                work(client.clone(), number).await;
                done += 1;
            }
        });
    }
    hands.join_all().await.into_iter().sum()
}

async fn start(home: &Path, own: &[(&str, &str)]) -> (Served, Client) {
    std::fs::create_dir_all(home).expect("a folder");
    let server = serve(home, own);
    let client = Client::onboard(server.address(home)).await;
    (server, client)
}
