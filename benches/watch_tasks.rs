//! Tasks of watches: a first synchronisation with few unfinished tasks and flat memory; files of 16 KiB to
//! completed tasks, against reading and hashing the same files on one core; and how much of their time many
//! workers are busy while some tasks die.
//!
//! `cargo bench --bench watch_tasks [NAME]` runs the figures whose name contains NAME. `TIDINGS_BENCH_FILES`,
//! `TIDINGS_BENCH_CONTENTS` and `TIDINGS_BENCH_TASKS` are the numbers of files of the three figures,
//! `TIDINGS_BENCH_WORK_MS` is what a task of the third one takes, and `TIDINGS_BENCH_DATABASE` names a
//! PostgreSQL database of its own. The server ends with the benchmark, also where that is interrupted.

#![expect(clippy::disallowed_methods, reason = "the benchmark is a client of its own")]

#[path = "tasks/client.rs"]
#[expect(dead_code, reason = "nobody creates these tasks but the watch")]
mod client;
#[path = "reading.rs"]
mod reading;
#[path = "served.rs"]
#[expect(dead_code, reason = "what counts here is time and memory")]
mod served;
#[path = "support.rs"]
mod support;
#[path = "workers.rs"]
mod workers;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use client::{Client, serve};
use serde_json::{Value, json};
use served::Served;
use support::{figure, rate, repository, settings, timed};
use tidings::app::Adapters;
use tidings_actors::{
    model::{round::TreeEnd, view::View},
    ports::{Location, Remote},
};
use tidings_entity::id::RepositoryId;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use workers::{DIES, WORKERS};

/// Small files of the first synchronisation; to make them takes a minute.
const FILES: usize = 1_000_000;
const SMALL: usize = 64;
/// Files that are read and hashed, and their size: the largest that stands in a payload.
const CONTENTS: usize = 10_000;
const CONTENT: usize = 16 << 10;
/// Tasks of the workers of which some die.
const TASKS: usize = 100_000;
const WORK_MS: usize = 250;
/// A task that dies does so after this number of attempts.
const ATTEMPTS: u64 = 3;
/// Workers that claim and complete 100 tasks at once.
const BATCHERS: usize = 4;
const BATCH: usize = 100;
/// Unfinished tasks of a branch, at most.
const WINDOW: u64 = 1_000;
/// Between two looks at the queue and at the memory of the server.
const LOOK: Duration = Duration::from_millis(100);
/// How long one figure may take; a benchmark that takes longer fails.
const FIGURE_MAX: Duration = Duration::from_secs(1_800);
const COMMAND: &str = "index";
/// What the client of the benchmark of tasks sends.
pub(crate) const PAYLOAD: &str = "{}";
pub(crate) const RESULT: &str = r#"{"ok":true}"#;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    if is_wanted("first synchronisation") {
        bounded(first_synchronisation(&folder.path().join("first"))).await;
    }
    if is_wanted("files of 16 KiB") {
        bounded(contents(&folder.path().join("contents"))).await;
    }
    if is_wanted("busy workers") {
        bounded(busy(&folder.path().join("busy"))).await;
    }
}

async fn bounded(figure: impl Future<Output = ()>) {
    tokio::time::timeout(FIGURE_MAX, figure).await.expect("the figure within half an hour");
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Many small files: the most unfinished tasks at any look, and the memory of the server after a tenth of the
/// files beside the most of it later.
async fn first_synchronisation(home: &Path) {
    let files = number("TIDINGS_BENCH_FILES", FILES);
    let (path, server, client) = start(home, files, SMALL).await;
    let done = Arc::new(AtomicU64::new(0));
    let batchers = batchers(&client, &done, files as u64);
    watch(&client, &path).await;
    let (mut most, mut early, mut late) = (0, 0, 0);
    let ((), took) = timed(async {
        while done.load(Ordering::Relaxed) < files as u64 {
            let memory = server.memory("RssAnon");
            if done.load(Ordering::Relaxed) < files as u64 / 10 {
                early = early.max(memory);
            } else {
                late = late.max(memory);
            }
            most = most.max(unfinished(&client).await);
            sleep(LOOK).await;
        }
    })
    .await;
    batchers.join_all().await;
    println!("{files} files in {took:.1?}, {:.0}/s", rate(files as u64, took));
    assert!(most > 0, "no task was seen");
    #[expect(clippy::cast_precision_loss, reason = "a count of tasks, and MiB")]
    let float = |number: u64| number as f64;
    figure("most unfinished tasks beside the window", "tasks", float(most), float(WINDOW), "<= 1.00");
    let mib = |bytes: u64| float(bytes >> 10) / 1_024.0;
    figure("most memory beside that of the first tenth", "MiB", mib(late), mib(early), "flat");
}

/// Files of 16 KiB until they are completed, against reading and hashing them.
async fn contents(home: &Path) {
    let files = number("TIDINGS_BENCH_CONTENTS", CONTENTS);
    let (path, _server, client) = start(home, files, CONTENT).await;
    let bare = read_and_hash(home, &path).await;
    let done = Arc::new(AtomicU64::new(0));
    let batchers = batchers(&client, &done, files as u64);
    let began = Instant::now();
    watch(&client, &path).await;
    let reached = async |count: u64| {
        while done.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(2)).await;
        }
    };
    reached(1).await;
    let (first, before) = (began.elapsed(), done.load(Ordering::Relaxed));
    let ((), took) = timed(reached(files as u64)).await;
    batchers.join_all().await;
    println!("  the first tasks after {first:.1?}");
    figure(
        "files of 16 KiB to completed tasks beside reading and hashing",
        "files/s",
        rate(files as u64 - before, took),
        bare,
        ">= 0.80",
    );
}

/// Files a second that one core reads and hashes.
async fn read_and_hash(home: &Path, path: &Path) -> f64 {
    let adapters = Adapters::open(settings(&home.join("bare"))).await.expect("the house opens");
    let remote = Remote {
        repository: RepositoryId::new(adapters.random.ulid(adapters.clock.now())),
        location: Location::Local(path.to_owned()),
        credential: None,
        apps: Vec::new(),
    };
    let commit = support::git(path, &["rev-parse", "main"]).parse().expect("a commit");
    let target = Some(TreeEnd { commit, view: View::default() });
    let ((files, _), took) = timed(reading::read_and_hash(adapters.git.as_ref(), &remote, target)).await;
    rate(files, took)
}

/// Workers that claim 100 tasks and complete them at once, until this many are done.
fn batchers(client: &Client, done: &Arc<AtomicU64>, count: u64) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for _ in 0..BATCHERS {
        let (client, done) = (client.clone(), done.clone());
        workers.spawn(async move {
            let wanted = json!({ "commands": [COMMAND], "count": BATCH, "wait_seconds": 1 });
            while done.load(Ordering::Relaxed) < count {
                let claimed = client.claim(&wanted).await;
                client.complete(&claimed).await;
                done.fetch_add(claimed.len() as u64, Ordering::Relaxed);
            }
        });
    }
    workers
}

/// Many workers with one task each at a time, while one task in a thousand dies: the share of the time between
/// the first claim and the last one in which they work.
async fn busy(home: &Path) {
    let files = number("TIDINGS_BENCH_TASKS", TASKS);
    let work = Duration::from_millis(number("TIDINGS_BENCH_WORK_MS", WORK_MS) as u64);
    let (path, _server, client) = start(home, files, SMALL).await;
    let settings = json!({ "max_attempts": ATTEMPTS, "retry_base_seconds": 1 });
    client.put(&format!("/api/queues/{COMMAND}"), &settings).await;
    let wanted = json!({ "commands": [COMMAND], "wait_seconds": 1 });
    let works = workers::work(&client, &wanted, work, files as u64, |client, task| async move {
        end(&client, &task).await
    });
    let (works, ()) = tokio::join!(works, watch(&client, &path));
    let (busy, span) = workers::busy(&works);
    let letters = client.get_json("/api/dead-letters?status=open&limit=100").await;
    let dead = letters["items"].as_array().map_or(0, Vec::len);
    println!("{files} tasks of {work:?} in {span:.1?}, {dead} dead");
    assert_eq!(dead, (files as u64).div_ceil(DIES).min(100) as usize, "one in {DIES} dies");
    figure(
        "time in which workers are busy beside their whole time",
        "s",
        busy.as_secs_f64(),
        (span * WORKERS).as_secs_f64(),
        ">= 0.80",
    );
}

/// Ends a task, or gives it back if it is one that dies. Returns the number of tasks that ended.
async fn end(client: &Client, task: &Value) -> u64 {
    let path = task["payload"]["file"]["path"].as_str().expect("a path");
    let file: u64 = path.rsplit('f').next().and_then(|name| name[..6].parse().ok()).expect("a number");
    if !file.is_multiple_of(DIES) {
        client.complete(std::slice::from_ref(task)).await;
        return 1;
    }
    let body = json!({ "token": task["token"], "reason": "no memory" });
    let answer =
        client.post(&format!("/api/tasks/{}/nack", task["id"].as_str().expect("an id")), &body).await;
    u64::from(answer["state"] == "dead")
}

async fn unfinished(client: &Client) -> u64 {
    let queues = client.get_json("/api/queues").await;
    let counts = &queues["items"][0]["counts"];
    ["waiting", "ready", "aside", "claimed"].iter().filter_map(|state| counts[state].as_u64()).sum()
}

/// Watches the repository: its files become tasks.
async fn watch(client: &Client, path: &Path) {
    let sink = json!({ "kind": "tasks", "command": COMMAND, "window": WINDOW });
    client.post("/api/repositories", &json!({ "url": path, "sink": sink })).await;
}

/// A repository of this many files of this size, a server, and an app.
async fn start(home: &Path, files: usize, size: usize) -> (PathBuf, Served, Client) {
    std::fs::create_dir_all(home).expect("a folder");
    let path = home.join("files.git");
    repository(&path, files, size, 0, false);
    let server = serve(home, &[("GIT__ALLOW_LOCAL", "true")]);
    let client = Client::onboard(server.address(home)).await;
    (path, server, client)
}
