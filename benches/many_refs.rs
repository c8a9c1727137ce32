//! What a restart costs a repository of which many refs are followed: the real binary follows every branch
//! of a repository on a real Git host, is stopped, one branch moves, and it is started again. Prints how
//! long the change takes to its receiver with 4,000 and 10,000 branches, against one branch in the same
//! run, and what a poll costs while nothing moves.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

#[path = "../tests/it/support/git_host.rs"]
#[expect(dead_code, reason = "this host behaves")]
mod git_host;
#[path = "receiver.rs"]
mod receiver;
#[path = "registered.rs"]
#[expect(dead_code, reason = "all branches are followed")]
mod registered;
#[path = "../tests/it/support/repository.rs"]
#[expect(dead_code, reason = "its commits are made by fast-import")]
mod repository;
#[path = "served.rs"]
#[expect(dead_code, reason = "memory is measured elsewhere")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "this repository has many commits")]
mod support;

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use git_host::GitHost;
use receiver::Receiver;
use repository::Repository;
use served::Served;
use support::{figure, settings};
use tidings::app::Adapters;
use tidings_actors::ports::{DeliverySettings, Selector, Start};
use tidings_entity::kind::SelectorKind;

/// Branches that are followed, and how long the change may take after a restart.
const CROWDS: [(usize, &str); 2] = [(4_000, "<= 3,000 ms"), (10_000, "<= 10,000 ms")];
/// So short that what the server does beside polls counts little in the cost of a poll.
const POLL: Duration = Duration::from_millis(20);
/// Polls that are looked at while nothing moves. The host works in the process of the benchmark, and only the
/// processor time of the server's process counts.
const CALM: u32 = 500;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let one = restarted(1).await;
    for (branches, wanted) in CROWDS {
        let many = restarted(branches).await;
        let milliseconds = |span: Duration| span.as_secs_f64() * 1e3;
        let (figure_of, base) = (milliseconds(many.restart), milliseconds(one.restart));
        figure(&format!("first change after a restart, {branches} branches"), "ms", figure_of, base, wanted);
        let (figure_of, base) = (milliseconds(many.poll), milliseconds(one.poll));
        figure(&format!("CPU of a calm poll, {branches} branches"), "ms", figure_of, base, "<= 1 ms");
    }
}

struct Shown {
    /// From the start of the server to the receiver.
    restart: Duration,
    /// Of the server's processor time, for each poll.
    poll: Duration,
}

async fn restarted(branches: usize) -> Shown {
    let folder = tempfile::tempdir().expect("a folder");
    let host = GitHost::start().await;
    let repository = host.repository("o/many");
    in_flight(&repository, branches);
    let receiver = Receiver::start();
    let data = folder.path().join("data");
    {
        let adapters = Adapters::open(settings(&data)).await.expect("the house opens");
        let base = format!("http://{}", receiver.address);
        let app = registered::app(&adapters, Some(&base), DeliverySettings::default()).await;
        let selector = Selector { kind: SelectorKind::BranchPattern, value: "b*".into() };
        let (url, start) = (host.url("o/many"), repository.git(["rev-parse", "main"]).parse());
        let start = Start::At(start.expect("a commit"));
        registered::watch(&adapters, &app, url.as_str(), selector, start, Duration::ZERO).await;
        adapters.store.close().await;
    }
    let server = start(folder.path(), &data);
    // Each branch differs from main by its own file.
    receiver.until(branches as u64).await;
    server.stop();

    push(&repository);
    let began = Instant::now();
    let server = start(folder.path(), &data);
    receiver.until(branches as u64 + 1).await;
    let restart = began.elapsed();

    tokio::time::sleep(100 * POLL).await;
    let (cpu, asked) = (server.cpu(), host.requests());
    tokio::time::sleep(CALM * POLL).await;
    let polls = u32::try_from(host.requests() - asked).expect("few");
    let poll = (server.cpu() - cpu) / polls.max(1);
    server.stop();
    println!("{branches} branches: first change after {restart:.0?}, {poll:.1?} a poll");
    Shown { restart, poll }
}

/// Branches of which each has a commit and a file of its own beside twenty that all have.
fn in_flight(repository: &Repository, branches: usize) {
    let who = "A <a@example.org> 1700000000 +0000";
    let mut input = format!("commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n");
    for file in 0..20 {
        writeln!(input, "M 644 inline shared/f{file}\ndata 4\n{file:04}").expect("a String takes all");
    }
    for branch in 0..branches {
        write!(input, "commit refs/heads/b{branch:05}\ncommitter {who}\ndata 3\none\nfrom :1\n")
            .expect("a String takes all");
        writeln!(input, "M 644 inline own\ndata 5\n{branch:05}").expect("a String takes all");
    }
    repository.git_with(["fast-import", "--quiet"], input.as_bytes());
    repository.git(["repack", "-adq"]);
    repository.git(["pack-refs", "--all"]);
}

/// One change on the first branch.
fn push(repository: &Repository) {
    let who = "A <a@example.org> 1700000001 +0000";
    let branch = "refs/heads/b00000";
    let input = format!(
        "commit {branch}\ncommitter {who}\ndata 3\ntwo\nfrom {branch}^0\nM 644 inline own\ndata 7\nchanged\n"
    );
    repository.git_with(["fast-import", "--quiet"], input.as_bytes());
}

fn start(home: &Path, data: &Path) -> Served {
    let poll = format!("{}ms", POLL.as_millis());
    let own = [("GIT__POLL_MIN", &*poll), ("GIT__POLL_MAX", &*poll), ("GIT__HOST_RATE", "1000/s")];
    Served::start(home, data, &own)
}
