//! A replica for requests and one that works, of which the one never hears what the other tells: behind a
//! pooler nobody can listen, and what is told while PostgreSQL restarts is lost. Whatever an app decides
//! reaches the lane that runs all the same, within ten seconds; and nothing of a watch begins after the
//! answer to its end.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    postgres::between::Pooler,
    replicas::LEASE,
    support::{
        api::App,
        cluster::{self, Cluster},
        fleet::lend_keyring,
        model::Arrival,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::{Answer, Subscriber},
    },
};

/// The longest time that docs/operating.md promises.
const WITHIN: Duration = Duration::from_secs(10);
/// Nothing came for this long: a lane that runs sends some tens of changes in that time.
const QUIET: Duration = Duration::from_millis(1_500);
/// What a receiver of these stories takes for a change.
const EACH: Duration = Duration::from_millis(40);
/// Files of a round that takes much longer than [`WITHIN`].
const FILES: usize = 1_500;

/// A replica that answers requests and one that works, with a receiver and its app.
struct Pair {
    api: Server,
    worker: Server,
    subscriber: Subscriber,
    app: App,
}

impl Pair {
    /// On the database at this address.
    fn on(url: &str) -> Self {
        let server = |role: &str| {
            let lease = format!("{}ms", LEASE.as_millis());
            let server = Server::prepare().with("database.url", url).with("database.lease", &lease);
            server.with("server.role", role)
        };
        let (mut api, mut worker) = (server("api"), server("worker"));
        api.run();
        lend_keyring(&api, &worker);
        worker.run();
        let subscriber = Subscriber::start();
        let app = App::onboard(&api, &subscriber);
        Self { api, worker, subscriber, app }
    }

    /// A watch of which some of many changes arrived.
    fn under_way(&self, project: &Project) -> String {
        self.subscriber.script(|_| Answer::AcceptAfter(EACH));
        let id = self.app.watch(&self.api, project);
        self.wait_until_sending("first changes");
        id
    }

    fn requests(&self) -> u64 {
        self.subscriber.model().requests
    }

    /// Waits until some more arrived.
    fn wait_until_sending(&self, what: &str) {
        let before = self.requests();
        eventually(what, SOON, || (self.requests() >= before + 20).then_some(()));
    }

    /// Waits until nothing arrives any more, no longer than is promised.
    fn wait_until_quiet(&self, what: &str) {
        self.wait_until_quiet_for(QUIET, what);
    }

    fn wait_until_quiet_for(&self, quiet: Duration, what: &str) {
        let (mut seen, mut since) = (self.requests(), Instant::now());
        eventually(what, WITHIN + quiet, || {
            let now = self.requests();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            (since.elapsed() >= quiet).then_some(())
        });
    }

    fn pausing_stops_the_lane(&self, id: &str) {
        eventually("pause", SOON, || self.says(id, "pause").then_some(()));
        self.wait_until_quiet("end of deliveries after a pause");
        eventually("resumption", SOON, || self.says(id, "resume").then_some(()));
        self.wait_until_sending("deliveries after a resumption");
    }

    /// Whether a verb was done; after a restart of the database the first may be answered 503.
    fn says(&self, id: &str, verb: &str) -> bool {
        let path = format!("/api/repositories/{id}/{verb}");
        let status = self.app.ask(&self.api, "POST", &path, None).status;
        assert!(matches!(status, 200 | 202 | 409 | 503), "{verb}: {status}");
        status < 300
    }

    fn skipping_gives_the_head_up(&self, id: &str) {
        self.subscriber.script(|_| Answer::Refuse(503));
        let before = self.requests();
        eventually("refused change", SOON, || (self.requests() > before).then_some(()));
        // A skip names the head that rows know: what was acknowledged before is settled first.
        let (mut seen, mut since) = (json!(null), Instant::now());
        eventually("head that waits", SOON, || {
            let now = self.app.repository(&self.api, id)["branches"][0]["round"]["position"].clone();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            (since.elapsed() >= QUIET).then_some(())
        });
        let letters = self.app.dead_letters(&self.api).len();
        eventually("word of a skip", SOON, || self.says(id, "skip").then_some(()));
        eventually("skipped change", WITHIN, || {
            (self.app.dead_letters(&self.api).len() > letters).then_some(())
        });
        self.subscriber.script(|_| Answer::AcceptAfter(EACH));
        self.wait_until_sending("deliveries after a skip");
    }

    /// Ends the watch while it is under way. What was on its way at the answer may still arrive, nothing else.
    fn unwatching_is_a_fence(&self, id: &str) {
        let began = Instant::now();
        self.app.unwatch(&self.api, id);
        let (at_the_answer, took) = (self.requests(), began.elapsed());
        println!("unwatched after {took:?}");
        assert!(took < WITHIN, "{took:?}");
        self.wait_until_quiet("end of deliveries after the watch");
        let later = self.requests() - at_the_answer;
        assert!(later <= 1, "{later} requests came after the answer to the end of their watch");
    }

    fn cancelling_ends_the_redrive(&self) {
        const SLOW: Duration = Duration::from_millis(1_500);
        let project = Project::new();
        for number in 0..24 {
            project.write(format!("file-{number:03}"), format!("{number}").as_bytes());
        }
        project.commit("all of them");
        let is_odd = |path: &[u8]| path.last().is_some_and(|digit| digit % 2 == 1);
        self.subscriber.script(move |arrival| match arrival {
            Arrival::Change(change) if is_odd(&change.path) => Answer::Refuse(422),
            _ => Answer::Accept,
        });
        let id = self.app.watch(&self.api, &project);
        self.app.wait_until_held(&self.api, &id, &project.head());
        let parked = self.app.dead_letters(&self.api).len();
        assert!(parked >= 12, "{parked}");
        self.subscriber.script(|_| Answer::AcceptAfter(SLOW));
        let before = self.requests();
        let asked = self.app.ask(&self.api, "POST", "/api/dead-letters/redrive", Some(&json!({})));
        assert_eq!(asked.status, 202, "{}", asked.json());
        eventually("letters that come again", SOON, || (self.requests() >= before + 2).then_some(()));
        let path = "/api/dead-letters/redrive/cancel";
        let cancelled = self.app.ask(&self.api, "POST", path, Some(&json!({})));
        assert!(cancelled.status < 300, "{}", cancelled.json());
        self.wait_until_quiet_for(SLOW * 2, "end of the redrive");
        let left = self.app.dead_letters(&self.api).len();
        assert!(left > 0, "the last of {parked} letters was not reached");
    }

    /// What an app decides of a lane that runs elsewhere, one thing after another.
    fn decides_everything(self) {
        let project = project();
        let id = self.under_way(&project);
        self.pausing_stops_the_lane(&id);
        self.skipping_gives_the_head_up(&id);
        self.unwatching_is_a_fence(&id);
        self.cancelling_ends_the_redrive();
        self.subscriber.assert_faultless();
        drop(self.worker);
    }
}

/// A project whose first round takes about a minute.
fn project() -> Project {
    let project = Project::new();
    for number in 0..FILES {
        project.write(format!("file-{number:04}"), format!("{number}").as_bytes());
    }
    project.commit("all of them");
    project
}

#[test]
fn what_an_app_decides_reaches_a_lane_elsewhere_where_nobody_listens() {
    let Some(database) = cluster::database(None) else { return };
    let mut url = database.url.clone();
    // With that word no replica listens, whatever the address leads to.
    let mark = if url.contains('?') { '&' } else { '?' };
    write!(url, "{mark}pgbouncer=true").expect("a text");
    Pair::on(&url).decides_everything();
}

#[test]
fn what_an_app_decides_reaches_a_lane_elsewhere_through_a_pooler() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let Some(_pooler) = Pooler::before(&cluster) else { return };
    let folder = cluster.folder().display();
    Pair::on(&format!("postgres://postgres@localhost:6432/postgres?host={folder}&pgbouncer=true"))
        .decides_everything();
}

#[test]
fn what_an_app_decides_right_after_a_restart_of_the_database_reaches_a_lane_elsewhere() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let pair = Pair::on(&cluster.url("postgres"));
    // What was acknowledged while the database was away comes again: of that no fault is made.
    let restart = |cluster: &mut Cluster| {
        cluster.stop();
        cluster.run();
    };
    let project = project();
    let id = pair.under_way(&project);
    for _ in 0..2 {
        restart(&mut cluster);
        pair.pausing_stops_the_lane(&id);
    }
    restart(&mut cluster);
    eventually("answer to a request", SOON, || {
        let path = format!("/api/repositories/{id}");
        (pair.app.ask(&pair.api, "GET", &path, None).status == 200).then_some(())
    });
    pair.wait_until_sending("deliveries after a restart");
    restart(&mut cluster);
    eventually("end of the watch", SOON, || {
        let path = format!("/api/repositories/{id}");
        let status = pair.app.ask(&pair.api, "DELETE", &path, None).status;
        assert!(matches!(status, 204 | 404 | 503), "{status}");
        (status != 503).then_some(())
    });
    pair.wait_until_quiet("end of deliveries after the watch");
}
