//! What watching costs while nothing happens: one small request per interval whatever the number of
//! watches and refs, no row, no write to disk, no new connection.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use crate::support::{
    api::App,
    git_host::Seen,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

/// The interval of the story: its bounds are equal, and jitter is a tenth.
const INTERVAL: Duration = Duration::from_secs(1);
/// Measurements until one is calm: together they last longer than what a minute brings about.
const MEASUREMENTS: usize = 20;

#[test]
fn a_hundred_watches_cost_one_small_poll_per_interval_and_no_write() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    host.add_branches("o/r", 100_000, &project.head());
    let mut server = Server::prepare().with("git.poll_min", "1s").with("git.poll_max", "1s");
    server.run();
    let url = json!({ "url": host.url("o/r") });
    let watches: Vec<(Subscriber, App, String)> = (0..100)
        .map(|_| {
            let subscriber = Subscriber::start();
            let app = App::onboard(&server, &subscriber);
            let id = app.watch_with(&server, &url);
            (subscriber, app, id)
        })
        .collect();
    for (_, app, id) in &watches {
        app.wait_until_held(&server, id, &project.head());
    }

    polls(&host, 2);
    let mut measurements = Vec::new();
    while !measurements.iter().any(Measurement::is_calm) {
        assert!(measurements.len() < MEASUREMENTS, "{measurements:#?}");
        measurements.push(Measurement::of(&host, &server));
    }

    project.write("b", b"2");
    let second = project.commit("second");
    host.push_main(&project, "o/r");
    for (subscriber, app, id) in &watches {
        app.wait_until_held(&server, id, &second);
        subscriber.assert_straight();
    }
}

/// Six polls, and what they cost.
///
/// A minute after its start the server looks after its files once, a minute after the last change it tells what
/// it folded, and a machine with other work delays a poll: each spoils some measurements, while a poll that
/// writes spoils every measurement.
#[derive(Debug)]
struct Measurement {
    span: Duration,
    written: Vec<PathBuf>,
    connections: usize,
}

impl Measurement {
    fn of(host: &Host, server: &Server) -> Self {
        let (before, connections) = (files_below(&server.data()), host.connections());
        let seen = polls(host, 6);
        for poll in &seen {
            assert!(poll.path.ends_with("/git-upload-pack"), "a poll is one request: {}", poll.path);
            assert!(poll.sent + poll.answered <= 400, "{} and {} bytes", poll.sent, poll.answered);
        }
        let after = files_below(&server.data());
        Self {
            span: seen[5].at - seen[0].at,
            written: after.into_iter().filter(|file| !before.contains(file)).map(|file| file.0).collect(),
            connections: host.connections() - connections,
        }
    }

    fn is_calm(&self) -> bool {
        self.span >= INTERVAL.mul_f64(0.85 * 5.0) && self.written.is_empty() && self.connections == 0
    }
}

/// Waits for this many more polls, and gives them.
fn polls(host: &Host, count: usize) -> Vec<Seen> {
    host.take_seen();
    let mut seen = Vec::new();
    eventually("poll", SOON, || {
        seen.append(&mut host.take_seen());
        (seen.len() >= count).then_some(())
    });
    seen
}

/// What is on disk: sizes and times of every file and folder, but for SQLite's shared memory, which
/// is no part of the database.
fn files_below(folder: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        let facts = fs::symlink_metadata(&path).expect("readable");
        if facts.is_dir() {
            open.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()));
        }
        if !path.to_string_lossy().ends_with("-shm") {
            found.push((path, facts.len(), facts.mtime(), facts.mtime_nsec()));
        }
    }
    found.sort();
    found
}
