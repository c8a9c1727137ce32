//! Several servers on one PostgreSQL database: deliveries a second with one, two and three of them against
//! the same receiver, and with one on a SQLite file; what a delivery and an idle repository cost the database
//! in statements and in its processors' time. Figures to calculate with: docs/operating.md does.
//!
//! The machine is shared by the servers, the database, the receiver and this: with few processors more
//! servers are no faster.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

#[path = "../tests/it/support/cluster.rs"]
#[expect(dead_code, reason = "nothing befalls the server here")]
mod cluster;
#[path = "receiver.rs"]
mod receiver;
#[path = "registered.rs"]
mod registered;
#[path = "served.rs"]
#[expect(dead_code, reason = "memory is measured elsewhere")]
mod served;
#[path = "support.rs"]
mod support;

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::Cluster;
use receiver::Receiver;
use served::Served;
use sqlx::{Connection, PgConnection};
use support::{figure, rate, repository, settings, timed};
use tidings::app::Adapters;
use tidings_actors::{
    model::secret::Secret,
    ports::{DeliverySettings, Start},
};

/// Watches, each of an app of its own, so that the breaks of one are no other's.
const WATCHES: usize = 48;
const FILES: usize = 2_000;
/// How long servers have to divide the repositories among them, before anything is delivered.
const SHARED_WITHIN: Duration = Duration::from_secs(15);
/// Idle repositories, and for how long they are looked at.
const IDLE: usize = 1_000;
const LOOKED_AT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.git");
    repository(&path, FILES, 1_024, WATCHES, false);
    let receiver = Receiver::start();
    let wanted = ["shared_preload_libraries=pg_stat_statements", "fsync=on", "max_wal_size=4GB"];
    let Some(cluster) = Cluster::start(&wanted) else { return println!("there is no PostgreSQL here") };

    let alone = throughput(&receiver, folder.path(), &path, None, 1).await;
    let mut one = None;
    for count in 1..=3 {
        let name = format!("replicas_{count}");
        cluster::run_sql(&cluster.url("postgres"), &format!("create database {name}")).expect("made");
        cluster::run_sql(&cluster.url(&name), "create extension pg_stat_statements").expect("made");
        let url = cluster.url(&name);
        let figures = throughput(&receiver, folder.path(), &path, Some(&url), count).await;
        let beside = one.get_or_insert(figures.rate);
        figure(&format!("{count} replicas"), "deliveries/s", figures.rate, *beside, "no less");
        figure(
            &format!("{count} replicas beside a SQLite file"),
            "deliveries/s",
            figures.rate,
            alone.rate,
            "-",
        );
        println!(
            "  a delivery: {:.3} statements; {:.0} us of the servers' processors, {:.0} us with a SQLite file",
            figures.statements, figures.cpu_us, alone.cpu_us
        );
    }
    idle(folder.path(), &path, &cluster).await;
}

struct Figures {
    rate: f64,
    /// SQL statements for each delivery.
    statements: f64,
    /// Of the servers, for each delivery.
    cpu_us: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
async fn throughput(
    receiver: &Receiver,
    folder: &Path,
    path: &Path,
    url: Option<&str>,
    count: usize,
) -> Figures {
    let home = folder.join(format!("{} {count}", if url.is_some() { "shared" } else { "alone" }));
    let homes = prepared(&home, url, count, async |adapters| {
        for watch in 0..WATCHES {
            let base = format!("http://{}", receiver.address);
            let app = registered::app(adapters, Some(&base), DeliverySettings::default()).await;
            // By another name each: a repository belongs to one shard.
            let named = linked(&home, path, watch);
            registered::watch(
                adapters,
                &app,
                &named,
                registered::branch(&format!("b{watch}")),
                Start::All,
                SHARED_WITHIN,
            )
            .await;
        }
    })
    .await;
    let expected = (WATCHES * FILES) as u64;
    let before = receiver.count();
    let servers: Vec<Served> = homes.iter().map(|home| serve(home, url, "1s")).collect();
    // What a start takes is not counted, nor what moves while replicas find each other.
    if let Some(url) = url {
        while asked(url, SHARING).await < count as i64 {
            assert_eq!(receiver.count(), before, "they did not find each other in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        asked(url, "select pg_stat_statements_reset()::text").await;
    }
    let spent = || servers.iter().map(Served::cpu).sum::<Duration>();
    let idle = spent();
    receiver.until(before + 1).await;
    let arrived = receiver.count() - before;
    let ((), took) = timed(receiver.until(before + expected)).await;
    let cpu = spent() - idle;
    let statements = match url {
        Some(url) => asked(url, STATEMENTS).await,
        None => 0,
    };
    println!(
        "  {count} on {}: {expected} deliveries in {took:.1?}",
        url.map_or("a SQLite file", |_| "PostgreSQL")
    );
    Figures {
        rate: rate(expected - arrived, took),
        statements: statements as f64 / expected as f64,
        cpu_us: cpu.as_secs_f64() * 1e6 / expected as f64,
    }
}

/// What polls that find nothing cost the database: against the same server without repositories.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
async fn idle(folder: &Path, path: &Path, cluster: &Cluster) {
    let head = support::git(path, &["rev-parse", "main"]).parse().expect("a commit");
    let mut told = Vec::new();
    for watches in [0, IDLE] {
        let name = format!("idle_{watches}");
        cluster::run_sql(&cluster.url("postgres"), &format!("create database {name}")).expect("made");
        cluster::run_sql(&cluster.url(&name), "create extension pg_stat_statements").expect("made");
        let url = cluster.url(&name);
        let home = folder.join(&name);
        let homes = prepared(&home, Some(&url), 1, async |adapters| {
            let app = registered::app(adapters, None, DeliverySettings::default()).await;
            for watch in 0..watches {
                let start = Start::At(head);
                let named = linked(&home, path, watch);
                registered::watch(adapters, &app, &named, registered::branch("main"), start, Duration::ZERO)
                    .await;
            }
        })
        .await;
        let server = serve(&homes[0], Some(&url), "2s");
        // What a start reads is over.
        tokio::time::sleep(Duration::from_secs(10)).await;
        asked(&url, "select pg_stat_statements_reset()::text").await;
        let before = server.cpu();
        tokio::time::sleep(LOOKED_AT).await;
        let (statements, time) = (asked(&url, STATEMENTS).await, asked(&url, MICROSECONDS).await);
        println!(
            "  {watches} idle repositories polled every 2 s: {:.1} statements/s, {time} us of the database in {LOOKED_AT:?}, \
             {:?} of the server",
            statements as f64 / LOOKED_AT.as_secs_f64(),
            server.cpu() - before
        );
        told.push((statements as f64, time as f64));
    }
    let polls = IDLE as f64 * LOOKED_AT.as_secs_f64() / 2.0;
    println!(
        "a poll that finds nothing: {:.4} statements, {:.2} us of the database",
        (told[1].0 - told[0].0) / polls,
        (told[1].1 - told[0].1) / polls
    );
}

/// Statements since the last look, without the looks themselves.
const STATEMENTS: &str = "select cast(sum(s.calls) as bigint)::text from pg_stat_statements s
    join pg_database d on d.oid = s.dbid where d.datname = current_database() and s.query not like '%pg_stat%'";
/// What they took of the database, in microseconds.
const MICROSECONDS: &str = "select cast(sum(s.total_exec_time) * 1000 as bigint)::text from pg_stat_statements s
    join pg_database d on d.oid = s.dbid where d.datname = current_database() and s.query not like '%pg_stat%'";

/// How many replicas work on their share of the 256 shards; shares are even but for rounding.
const SHARING: &str =
    "select count(*)::text from (select owner from lease where owner is not null group by owner
    having count(*) >= 250 / (select count(*) from replica)) sharing";

async fn asked(url: &str, text: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("connected");
    let text: String = sqlx::query_scalar(text).fetch_one(&mut connection).await.expect("an answer");
    connection.close().await.expect("closed");
    text.parse().unwrap_or(0)
}

/// The homes of servers that share a database and a keyring, and what is registered there.
async fn prepared(
    home: &Path,
    url: Option<&str>,
    count: usize,
    register: impl AsyncFnOnce(&Adapters),
) -> Vec<PathBuf> {
    let homes: Vec<PathBuf> = (0..count).map(|number| home.join(number.to_string())).collect();
    let mut settings = settings(&homes[0]);
    settings.database.url = url.map(|url| Secret::new(url.to_owned()));
    let adapters = Adapters::open(settings).await.expect("the house opens");
    register(&adapters).await;
    let store = adapters.store.clone();
    drop(adapters);
    store.close().await;
    for other in &homes[1..] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(other).expect("a folder");
        fs::copy(homes[0].join("keyring"), other.join("keyring")).expect("copied");
    }
    homes
}

/// Another name of a repository.
fn linked(home: &Path, path: &Path, number: usize) -> String {
    let names = home.join("names");
    fs::create_dir_all(&names).expect("a folder");
    let name = names.join(format!("{number}.git"));
    symlink(path, &name).expect("a link");
    name.to_str().expect("utf-8").to_owned()
}

fn serve(home: &Path, url: Option<&str>, poll: &str) -> Served {
    let own = [
        ("GIT__ALLOW_LOCAL", "true"),
        ("GIT__POLL_MIN", poll),
        ("GIT__POLL_MAX", poll),
        ("DATABASE__URL", url.unwrap_or("")),
    ];
    Served::start(home, home, &own)
}
