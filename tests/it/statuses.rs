//! Statuses of commits over the real binary, a real Git server and an API that can answer everything: after the
//! host is back no commit is shown as pending, none is shown wrong, and no word is told twice in a row but after
//! a doubtful answer.

use serde_json::{Value, json};
use tidings_entity::kind::StatusHost;

use crate::support::{
    api::{App, items},
    forge::{Forge, Told, Verdict},
    model::Arrival,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

mod branches;
mod replicas;
mod settings;
mod trouble;

/// The token of the stories, as each API is to be shown it.
const TOKEN: &str = "status-token-PLANTED";

/// A server whose app watches a repository of a forge, and shows where it stands.
struct Scene {
    server: Server,
    subscriber: Subscriber,
    app: App,
    forge: Forge,
    project: Project,
    watch: String,
}

impl Scene {
    fn start(kind: StatusHost) -> Self {
        Self::with(kind, prepared())
    }

    fn with(kind: StatusHost, mut server: Server) -> Self {
        server.run();
        let (forge, subscriber) = (Forge::start(kind), Subscriber::start());
        let project = Project::with(&[("a", "1"), ("b", "1")]);
        forge.publish(&project);
        let app = App::onboard_with(&server, &subscriber, &json!({ "app_name": "docs" }));
        let watch =
            app.watch_with(&server, &json!({ "url": forge.url(), "token": TOKEN, "status": kind.as_str() }));
        Self { server, subscriber, app, forge, project, watch }
    }

    /// Makes a commit that changes this many files, and publishes it.
    fn push(&self, files: u64) -> String {
        let before = self.project.head();
        for number in 0..files {
            self.project.write(format!("file-{number}"), before.as_bytes());
        }
        let head = self.project.commit("one more");
        self.forge.publish(&self.project);
        head
    }

    fn wait_until_held(&self, commit: &str) {
        self.app.wait_until_held(&self.server, &self.watch, commit);
    }

    fn entries(&self) -> Vec<Value> {
        let reply = self.app.ask(&self.server, "GET", "/api/ledger?limit=100&q=type%3Astatus.ended", None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        items(&reply.json())
    }

    /// The end of a story: nothing is left to tell, and the forge saw nothing wrong.
    fn end(&self) {
        self.forge.assert_straight();
        assert!(!self.server.log().contains(TOKEN), "a token is in the log");
    }
}

/// The waits for a host are as long as ever: a busy machine takes its time to answer, and a word without an
/// answer is told twice.
fn prepared() -> Server {
    Server::prepare()
}

/// The wait for a host that does not answer is short.
fn impatient() -> Server {
    Server::prepare().with("git.connect_timeout", "1s").with("git.read_timeout", "3s")
}

#[test]
fn every_kind_of_host_is_told_that_a_round_begins_and_what_came_of_it() {
    for (kind, failure, shown_as) in [
        (StatusHost::Github, "failure", format!("Bearer {TOKEN}")),
        (StatusHost::Gitlab, "failed", format!("Bearer {TOKEN}")),
        (StatusHost::Gitea, "failure", format!("token {TOKEN}")),
    ] {
        let scene = Scene::start(kind);
        let first = scene.project.head();
        assert_eq!(scene.forge.wait_for(&first, "success"), "docs: 2 of 2 delivered");

        let gate = scene.subscriber.hold_after(1);
        let second = scene.push(3);
        assert_eq!(scene.forge.wait_for(&second, "pending"), "docs: 0 of 3 delivered");
        gate.open();
        assert_eq!(scene.forge.wait_for(&second, "success"), "docs: 3 of 3 delivered");

        // One of three changes is refused for good.
        scene.subscriber.script(|arrival| match arrival {
            Arrival::Change(change) if change.path == b"file-1" => Answer::Refuse(400),
            _ => Answer::Accept,
        });
        let third = scene.push(3);
        assert_eq!(scene.forge.wait_for(&third, failure), "docs: 2 of 3 delivered, 1 parked");

        // It is sent again, and taken.
        scene.subscriber.accept_all();
        let letters = scene.app.dead_letters(&scene.server);
        let path =
            format!("/api/dead-letters/{}/redrive", letters[0]["dead_letter_id"].as_str().expect("an id"));
        let reply = scene.app.ask(&scene.server, "POST", &path, None);
        assert!(reply.status < 300, "{}", reply.json());
        assert_eq!(scene.forge.wait_for(&third, "success"), "docs: 3 of 3 delivered");

        let told = scene.forge.told();
        assert!(told.iter().all(|told| told.context == "tidings/docs/two"), "{told:?}");
        assert!(told.iter().all(|told| told.authorization == shown_as), "{told:?}");
        assert_eq!(scene.forge.words(&second), ["pending", "success"]);
        scene.end();
    }
}

#[test]
fn a_commit_that_changes_nothing_for_the_app_is_a_success_and_one_that_was_overtaken_costs_nothing() {
    let scene = Scene::start(StatusHost::Gitea);
    scene.forge.wait_for(&scene.project.head(), "success");
    let empty = scene.push(0);
    assert_eq!(scene.forge.wait_for(&empty, "success"), "docs: nothing to deliver");
    assert_eq!(scene.forge.words(&empty), ["success"]);

    let gate = scene.subscriber.hold_after(0);
    let slow = scene.push(1);
    scene.forge.wait_for(&slow, "pending");
    let overtaken = scene.push(2);
    let last = scene.push(3);
    eventually("the last head", SOON, || {
        let shown = scene.app.repository(&scene.server, &scene.watch);
        (shown["branches"][0]["head_commit"] == last.as_str()).then_some(())
    });
    gate.open();
    scene.forge.wait_for(&last, "success");
    // The host is told of several commits at once, in any order.
    scene.forge.wait_for(&slow, "success");
    assert_eq!(scene.forge.words(&slow), ["pending", "success"]);
    assert!(scene.forge.words(&overtaken).is_empty());
    scene.end();
}

#[test]
fn a_branch_that_is_blocked_is_a_failure_until_it_moves_again() {
    let scene = Scene::start(StatusHost::Github);
    scene.forge.wait_for(&scene.project.head(), "success");
    // Ten changes in a row fail: the eleventh waits.
    scene.subscriber.script(|_| Answer::Refuse(500));
    let head = scene.push(15);
    assert_eq!(scene.forge.wait_for(&head, "failure"), "docs: blocked at 10 of 15");
    scene.subscriber.accept_all();
    assert_eq!(scene.forge.wait_for(&head, "success"), "docs: 15 of 15 delivered");
    scene.end();
}

#[test]
fn a_watch_that_is_paused_resumed_or_resynced_under_way_says_so() {
    let scene = Scene::start(StatusHost::Github);
    scene.forge.wait_for(&scene.project.head(), "success");
    let gate = scene.subscriber.hold_after(1);
    let head = scene.push(3);
    scene.forge.wait_for(&head, "pending");
    scene.app.tell(&scene.server, &scene.watch, "pause");
    let line = scene.forge.wait_for(&head, "error");
    assert!(line.starts_with("docs: paused at "), "{line}");
    gate.open();
    scene.subscriber.accept_all();
    scene.app.tell(&scene.server, &scene.watch, "resume");
    scene.forge.wait_for(&head, "success");

    // A resync ends the open round; what it was on the way to is overtaken.
    let gate = scene.subscriber.hold_after(1);
    let left = scene.push(4);
    scene.forge.wait_for(&left, "pending");
    scene.project.git(["reset", "--quiet", "--hard", &head]);
    let next = scene.push(5);
    eventually("the next head", SOON, || {
        let shown = scene.app.repository(&scene.server, &scene.watch);
        (shown["branches"][0]["head_commit"] == next.as_str()).then_some(())
    });
    scene.app.tell(&scene.server, &scene.watch, "resync");
    gate.open();
    scene.subscriber.accept_all();
    let line = scene.forge.wait_for(&left, "error");
    assert_eq!(line, format!("docs: superseded by {}", &next[..7]));
    scene.forge.wait_for(&next, "success");
    scene.end();
}

#[test]
fn a_watch_that_ends_takes_back_what_it_said_and_its_successor_goes_on() {
    let scene = Scene::start(StatusHost::Gitlab);
    scene.forge.wait_for(&scene.project.head(), "success");
    let gate = scene.subscriber.hold_after(1);
    let head = scene.push(3);
    scene.forge.wait_for(&head, "pending");
    scene.app.unwatch(&scene.server, &scene.watch);
    assert_eq!(scene.forge.wait_for(&head, "canceled"), "no longer watched");
    gate.open();
    scene.subscriber.accept_all();
    let body = json!({ "url": scene.forge.url(), "token": TOKEN, "status": "gitlab" });
    let again = scene.app.watch_with(&scene.server, &body);
    scene.app.wait_until_held(&scene.server, &again, &head);
    scene.forge.wait_for(&head, "success");

    // The whole app goes while the host is away: the host is told when it is back.
    let gate = scene.subscriber.hold_after(0);
    let last = scene.push(2);
    scene.forge.wait_for(&last, "pending");
    scene.forge.script(|_| Verdict::Refuse(503, "", "{}"));
    assert_eq!(scene.app.ask(&scene.server, "DELETE", "/api/app", None).status, 204);
    eventually("a try", SOON, || {
        let told = scene.forge.told();
        let tried = |told: &Told| told.state == "canceled" && !told.is_taken && told.commit == last;
        told.iter().any(tried).then_some(())
    });
    scene.forge.take_all();
    assert_eq!(scene.forge.wait_for(&last, "canceled"), "no longer watched");
    gate.open();
    scene.end();
}
