//! Deliveries a second, durable, 1 KiB files, against the bare HTTP client on the same receiver in
//! the same run: one strict lane against one connection, 64 watches of one repository against 64
//! tasks; changes in batches against reading and hashing the same files; and one lane whose rounds are told to
//! a subscription against the same lane without.
//!
//! What a machine gives to two threads that wait for each other changes from second to second, so
//! each figure is the median of several turns, each right after its own baseline. A rate counts from
//! the first delivery on; how long that took from the start is said apart.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

#[path = "reading.rs"]
mod reading;
#[path = "receiver.rs"]
mod receiver;
#[path = "registered.rs"]
mod registered;
#[path = "support.rs"]
mod support;

use std::time::Duration;

use reading::read_and_hash;
use receiver::Receiver;
use reqwest::Method;
use support::{figure, rate, repository, settings, timed};
use tidings::{app::Adapters, egress::Egress};
use tidings_actors::{
    model::{round::TreeEnd, secret::Secret, sink::SinkAddress, view::View},
    ports::{
        BatchSettings, DeliverySettings, EndpointAccess, Location, NewSink, NewSubscription, ReadFrom,
        Remote, Start, Subscriptions, WatchStore, sink_of,
    },
};
use tidings_entity::id::{AppId, RepositoryId, SubscriptionId};
use url::Url;

const STRICT_FILES: usize = 10_000;
const LANES: usize = 64;
const LANE_FILES: usize = 3_000;
/// About what a delivery of a 1 KiB file weighs.
const BODY_BYTES: usize = 1_900;

const LEDGER: &str = "one strict lane whose rounds are told";

const BATCHES: &str = "batches, read and hashed";
const BATCHED_LANES: usize = 4;
const BATCHED_FILES: usize = 20_000;
/// Turns of each figure.
const TURNS: usize = 5;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let receiver = Receiver::start();
    let folder = tempfile::tempdir().expect("a folder");
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    for (name, lanes, files, goal) in [
        ("one strict lane", 1, STRICT_FILES, "0.60"),
        ("64 watches of one repository", LANES, LANE_FILES, "0.50"),
    ] {
        if !is_wanted(name) {
            continue;
        }
        let path = folder.path().join(format!("{lanes}.git"));
        repository(&path, files, 1_024, lanes, false);
        let mut turns = Vec::new();
        for turn in 0..TURNS {
            let bare = bare(&receiver, folder.path(), lanes, lanes * files).await;
            let home = folder.path().join(format!("{lanes} {turn}"));
            let (rate, first) = tidings(&receiver, None, &home, &path, lanes, files).await;
            println!("  {name}: {rate:.0} against {bare:.0}, the first after {first:.0?}");
            turns.push((rate, bare));
        }
        let (rate, bare) = median(turns);
        figure(name, "deliveries/s", rate, bare, goal);
    }
    if is_wanted(LEDGER) {
        ledger(&receiver, folder.path()).await;
    }
    if is_wanted(BATCHES) {
        batches(&receiver, folder.path()).await;
    }
}

/// The turn whose ratio is the median.
fn median(mut turns: Vec<(f64, f64)>) -> (f64, f64) {
    turns.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    turns[turns.len() / 2]
}

/// Deliveries of a lane whose rounds are entries that a subscription is told, against the same without one: then
/// a healthy delivery writes no entry.
async fn ledger(receiver: &Receiver, folder: &std::path::Path) {
    let reader = Receiver::start();
    let path = folder.join("ledger.git");
    repository(&path, STRICT_FILES, 1_024, 1, false);
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        let home = folder.join(format!("ledger {turn}"));
        let (alone, _) = tidings(receiver, None, &home.join("alone"), &path, 1, STRICT_FILES).await;
        let (told, _) = tidings(receiver, Some(&reader), &home.join("told"), &path, 1, STRICT_FILES).await;
        println!("  {LEDGER}: {told:.0} against {alone:.0}");
        turns.push((told, alone));
    }
    assert!(reader.count() >= TURNS as u64, "the rounds were told");
    let (told, alone) = median(turns);
    figure(LEDGER, "deliveries/s", told, alone, "no slower");
}

/// Has everything in the ledger of an app told to a receiver.
async fn subscribe(adapters: &Adapters, app: &AppId, reader: &Receiver) {
    let now = adapters.clock.now();
    let id = SubscriptionId::new(adapters.random.ulid(now));
    let sink = NewSink {
        id: sink_of(&id),
        address: SinkAddress::Endpoint(format!("http://{}/", reader.address)),
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        signing_key: Some(Secret::new("0123456789abcdef01234567".into())),
    };
    let subscription = NewSubscription {
        id,
        app: app.clone(),
        name: "benchmark".into(),
        filter: String::new(),
        reads_rounds: true,
        sink,
        start: ReadFrom::Now,
        expires_at: None,
        created_at: now,
    };
    adapters.store.create_subscription(&subscription).await.expect("made");
}

/// Changes of several watches in batches, until all are settled, against reading and hashing the same
/// files on one core.
async fn batches(receiver: &Receiver, folder: &std::path::Path) {
    let path = folder.join("batches.git");
    repository(&path, BATCHED_FILES, 1_024, BATCHED_LANES, false);
    let commit = support::git(&path, &["rev-parse", "main"]).parse().expect("a commit");
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        let home = folder.join(format!("batches {turn}"));
        let adapters = Adapters::open(settings(&home)).await.expect("the house opens");
        let remote = Remote {
            repository: RepositoryId::new(adapters.random.ulid(adapters.clock.now())),
            location: Location::Local(path.clone()),
            credential: None,
            apps: Vec::new(),
        };
        let target = Some(TreeEnd { commit, view: View::default() });
        let reading = read_and_hash(adapters.git.as_ref(), &remote, target);
        let ((files, _), took) = timed(reading).await;
        let bare = rate(files, took);
        let delivery = DeliverySettings {
            batch: Some(BatchSettings { count: 1_000, bytes: 4 << 20, linger_ms: 50 }),
            ..DeliverySettings::default()
        };
        let app = registered::app(&adapters, Some(&format!("http://{}", receiver.address)), delivery).await;
        for lane in 0..BATCHED_LANES {
            registered::watch(
                &adapters,
                &app,
                path.to_str().expect("utf-8"),
                registered::branch(&format!("b{lane}")),
                Start::All,
                Duration::ZERO,
            )
            .await;
        }
        let before = receiver.count();
        let store = adapters.store.clone();
        let house = adapters.start(None).await.expect("the tree starts");
        receiver.until(before + 1).await;
        let ((), took) = timed(async {
            loop {
                let watches = store.watches(&app, None, 100).await.expect("watches");
                if watches.iter().all(|watch| watch.cursors[0].held.is_some()) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let ours = rate((BATCHED_LANES * BATCHED_FILES) as u64, took);
        println!("  {BATCHES}: {ours:.0} against {bare:.0}, in {} requests", receiver.count() - before);
        turns.push((ours, bare));
        house.stop().await;
    }
    let (ours, bare) = median(turns);
    figure(BATCHES, "changes/s", ours, bare, "0.50");
}

async fn bare(receiver: &Receiver, folder: &std::path::Path, tasks: usize, requests: usize) -> f64 {
    let egress = Egress::new(&settings(folder).egress).expect("egress");
    let url: std::sync::Arc<Url> =
        std::sync::Arc::new(format!("http://{}/create", receiver.address).parse().expect("an address"));
    let body = bytes::Bytes::from(vec![b'x'; BODY_BYTES]);
    let work = async {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let (egress, url, body) = (egress.clone(), url.clone(), body.clone());
            set.spawn(async move {
                for _ in 0..requests / tasks {
                    let request = egress.request(Method::POST, &url).expect("allowed").body(body.clone());
                    let answer = request.send().await.expect("answered");
                    assert!(answer.status().is_success());
                }
            });
        }
        set.join_all().await;
    };
    let ((), took) = timed(work).await;
    rate(requests as u64, took)
}

/// The rate, and how long the first delivery took; `reader` is told what is in the ledger.
async fn tidings(
    receiver: &Receiver,
    reader: Option<&Receiver>,
    home: &std::path::Path,
    path: &std::path::Path,
    lanes: usize,
    files: usize,
) -> (f64, Duration) {
    let adapters = Adapters::open(settings(home)).await.expect("the house opens");
    let delivery = DeliverySettings::default();
    let app = registered::app(&adapters, Some(&format!("http://{}", receiver.address)), delivery).await;
    if let Some(reader) = reader {
        subscribe(&adapters, &app, reader).await;
    }
    for lane in 0..lanes {
        let (path, branch) = (path.to_str().expect("utf-8"), format!("b{lane}"));
        registered::watch(&adapters, &app, path, registered::branch(&branch), Start::All, Duration::ZERO)
            .await;
    }
    let expected = (lanes * files) as u64;
    let before = receiver.count();
    let (house, first) = timed(async {
        let house = adapters.start(None).await.expect("the tree starts");
        receiver.until(before + 1).await;
        house
    })
    .await;
    let arrived = receiver.count() - before;
    let ((), took) = timed(receiver.until(before + expected)).await;
    house.stop().await;
    (rate(expected - arrived, took), first)
}
