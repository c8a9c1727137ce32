//! What Git hosts may cost that send as many small things as they like: the real binary watches a repository
//! on each of eight hosts; then each host answers the next fetch with 5,000,000 `shallow` lines, with 400,000
//! `shallow` and 400,000 `unshallow` lines, or with a pack of 5,000,000 objects of a few bytes. Prints the most
//! memory that was ever resident, against the same server while the hosts behave, and how long a stop takes in
//! the middle.

#[path = "../tests/it/support/git_host.rs"]
#[expect(dead_code, reason = "these hosts do two misdeeds")]
mod git_host;
#[path = "../tests/it/support/pack.rs"]
#[expect(dead_code, reason = "its objects are all alike")]
mod pack;
#[path = "registered.rs"]
mod registered;
#[path = "../tests/it/support/repository.rs"]
#[expect(dead_code, reason = "its commits are made by fast-import")]
mod repository;
#[path = "served.rs"]
#[expect(dead_code, reason = "what counts here is memory")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "this repository is made by hand")]
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use git_host::{Fault, GitHost};
use pack::Pack;
use repository::Repository;
use served::Served;
use support::{figure, settings};
use tidings::app::Adapters;
use tidings_actors::ports::{DeliverySettings, Start};

const HOSTS: usize = 8;
const POLL: Duration = Duration::from_millis(500);
/// How long the hosts go on when the server is stopped.
const LASTS: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let calm = flooded("hosts that behave", None).await;
    for (what, answer) in [
        ("5,000,000 shallow lines", Fault::SaysToFetch(lines(5_000_000, 0))),
        ("400,000 shallow and 400,000 unshallow lines", Fault::SaysToFetch(lines(400_000, 400_000))),
        ("5,000,000 tiny objects", Fault::Pack(tiny(5_000_000))),
    ] {
        let most = flooded(what, Some(answer)).await;
        let mebibytes = |bytes: u64| (bytes >> 20) as f64;
        figure(
            &format!("memory at most, {HOSTS} hosts, {what}"),
            "MiB",
            mebibytes(most),
            mebibytes(calm),
            "< 300",
        );
    }
}

/// The most memory that was resident.
async fn flooded(what: &str, answer: Option<Fault>) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, mut hosts) = (folder.path().join("data"), Vec::new());
    let adapters = Adapters::open(settings(&data)).await.expect("the house opens");
    for _ in 0..HOSTS {
        let host = GitHost::start_apart().await;
        let repository = host.repository("o/r");
        commit(&repository, "one");
        let app = registered::app(&adapters, None, DeliverySettings::default()).await;
        let url = host.url("o/r");
        registered::watch(&adapters, &app, url.as_str(), registered::branch("main"), Start::All, POLL).await;
        hosts.push((host, repository));
    }
    adapters.store.close().await;
    // The data directory belongs to one process, and this one had it until here.
    drop(adapters);
    let server = start(folder.path(), &data);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (host, repository) in &hosts {
        host.set_fault(answer.clone());
        commit(repository, "two");
    }
    let lasts = if answer.is_some() { LASTS } else { LASTS / 4 };
    tokio::time::sleep(lasts).await;
    let (most, now) = (server.memory("VmHWM:"), server.memory("VmRSS:"));
    let began = Instant::now();
    server.stop();
    let took = began.elapsed();
    println!(
        "{what}: {} MiB at most, {} MiB at the end, stopped in {took:.1?} (wanted <= 20 s)",
        most >> 20,
        now >> 20
    );
    most
}

fn commit(repository: &Repository, content: &str) {
    let input = format!(
        "commit refs/heads/main\ncommitter A <a@example.org> 1700000000 +0000\ndata 3\none\nM 644 inline {content}\ndata {}\n{content}\n",
        content.len()
    );
    repository.git_with(["fast-import", "--quiet", "--force"], input.as_bytes());
}

/// The section of a fetch that names commits without parents, and commits that have theirs by now.
fn lines(shallow: u32, unshallow: u32) -> Bytes {
    let packet = |text: String| format!("{:04x}{text}", text.len() + 4);
    let mut answer = packet("shallow-info\n".to_owned());
    (0..shallow).for_each(|number| answer.push_str(&packet(format!("shallow {number:040x}\n"))));
    (0..unshallow).for_each(|number| answer.push_str(&packet(format!("unshallow {number:040x}\n"))));
    answer.into()
}

/// A pack of blobs that differ.
fn tiny(objects: u32) -> Bytes {
    let mut pack = Pack::new();
    (0..objects).for_each(|number| pack.stored_blob(&number.to_be_bytes()));
    pack.finish()
}

fn start(home: &Path, data: &Path) -> Served {
    let poll = format!("{}ms", POLL.as_millis());
    let own = [("GIT__POLL_MIN", &*poll), ("GIT__POLL_MAX", &*poll), ("GIT__HOST_RATE", "1000/s")];
    Served::start(home, data, &own)
}
