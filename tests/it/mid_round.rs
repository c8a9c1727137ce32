//! Commands in the middle of a round, each with a kill: whatever was half delivered, the app ends
//! with exactly the right tree, without ghosts of the round that was cut short and without gaps.

use std::sync::Arc;

use serde_json::json;

use crate::support::{
    api::App,
    model::Arrival,
    patience::{SOON, eventually},
    project::{Project, Tree},
    server::Server,
    subscriber::{Answer, Gate, Subscriber},
};

/// A server, an app that has the first commit, and a second commit whose round is half delivered:
/// three deletes and the first of the creates are in, the next change waits at the gate.
struct Half {
    server: Server,
    subscriber: Subscriber,
    app: App,
    project: Project,
    id: String,
    gate: Arc<Gate>,
}

impl Half {
    fn way() -> Self {
        let project = Project::new();
        for number in 0..12 {
            project.write(format!("docs/{number:02}.md"), format!("first {number}").as_bytes());
            project.write(format!("code/{number:02}.rs"), format!("first {number}").as_bytes());
        }
        let first = project.commit("first");
        let subscriber = Subscriber::start();
        let server = Server::start();
        let app = App::onboard(&server, &subscriber);
        let id = app.watch(&server, &project);
        app.wait_until_held(&server, &id, &first);

        let gate = subscriber.hold_after(7);
        for number in 0..5 {
            project.remove(&format!("docs/{number:02}.md"));
            project.write(format!("docs/new-{number:02}.md"), b"second");
            project.write(format!("code/{:02}.rs", number + 6), b"second");
        }
        project.commit("second");
        eventually("change at the gate", SOON, || (gate.arrived() > 0).then_some(()));
        Self { server, subscriber, app, project, id, gate }
    }

    /// The process dies; the next one finds a receiver that takes everything.
    fn kill_and_go_on(&mut self) {
        self.server.kill();
        self.subscriber.model().note_kill();
        self.subscriber.accept_all();
        self.gate.open();
        self.server.run();
    }

    /// A third commit: takes back some of what the second one brought, so that a round which
    /// forgets what it already delivered leaves ghosts.
    fn third_commit(&self) -> String {
        self.project.remove("docs/new-00.md");
        self.project.remove("docs/new-01.md");
        self.project.write("docs/00.md", b"back again");
        self.project.write("code/07.rs", b"third");
        self.project.commit("third")
    }

    fn assert_ends_with(&self, tree: &Tree) {
        self.subscriber.wait_for_tree(&self.id, tree);
        self.app.wait_until_held(&self.server, &self.id, &self.project.head());
        self.subscriber.wait_for_tree(&self.id, tree);
        self.subscriber.assert_faultless();
    }
}

#[test]
fn a_kill_in_the_middle_of_a_round_goes_on_where_it_was() {
    let mut half = Half::way();
    let before = half.subscriber.applied().len();

    half.kill_and_go_on();

    half.assert_ends_with(&half.project.tree("HEAD"));
    half.subscriber.assert_straight();
    assert_eq!(half.subscriber.applied().len(), before + 8, "15 changes, 7 of them before the kill");
}

#[test]
fn a_resync_in_the_middle_of_a_round_leaves_no_ghosts() {
    let mut half = Half::way();
    let third = half.third_commit();
    eventually("scan of the third commit", SOON, || {
        (half.app.repository(&half.server, &half.id)["branches"][0]["head_commit"] == third.as_str())
            .then_some(())
    });

    half.app.tell(&half.server, &half.id, "resync");
    half.kill_and_go_on();

    half.assert_ends_with(&half.project.tree("HEAD"));
    let model = half.subscriber.model();
    let everything = half.project.tree("HEAD");
    let resynced = model.finished.last().expect("a finished round");
    assert!(resynced.tree == everything);
    let last_round = model.applied.last().expect("a change").round;
    let created =
        model.applied.iter().filter(|change| change.round == last_round && change.action == "create");
    assert_eq!(created.count(), everything.len(), "a resync brings every file again");
}

#[test]
fn a_resync_of_a_resync_in_the_middle_leaves_no_ghosts() {
    let mut half = Half::way();
    half.app.tell(&half.server, &half.id, "resync");
    // The gate's attempt belongs to the round that the resync ends.
    half.subscriber.accept_all();
    let gate = half.subscriber.hold_after(4);
    half.gate.open();
    eventually("change of the resync at the gate", SOON, || (gate.arrived() > 0).then_some(()));
    half.third_commit();

    half.app.tell(&half.server, &half.id, "resync");
    half.gate = gate;
    half.kill_and_go_on();

    half.assert_ends_with(&half.project.tree("HEAD"));
}

#[test]
fn a_filter_change_in_the_middle_of_a_round_is_taken_next() {
    let mut half = Half::way();

    half.app.patch(&half.server, &half.id, &json!({ "include": ["docs/**"], "exclude": ["docs/1*"] }));
    half.kill_and_go_on();

    let mut filtered = half.project.tree("HEAD");
    filtered.retain(|path, _| path.starts_with(b"docs/") && !path.starts_with(b"docs/1"));
    half.assert_ends_with(&filtered);
    half.subscriber.assert_straight();
    let whole = half.project.tree("HEAD");
    let model = half.subscriber.model();
    assert!(
        model.finished.iter().any(|round| round.tree == whole),
        "the open round went to its own end first"
    );
}

#[test]
fn a_filter_change_and_a_commit_in_the_middle_of_a_round_end_in_the_right_tree() {
    let mut half = Half::way();

    half.app.patch(&half.server, &half.id, &json!({ "include": ["code/**"] }));
    half.third_commit();
    half.kill_and_go_on();

    let mut filtered = half.project.tree("HEAD");
    filtered.retain(|path, _| path.starts_with(b"code/"));
    half.assert_ends_with(&filtered);
    half.subscriber.assert_straight();
}

#[test]
fn an_unwatch_in_the_middle_of_a_round_ends_it_and_a_new_watch_starts_from_nothing() {
    let mut half = Half::way();

    half.app.unwatch(&half.server, &half.id);
    half.kill_and_go_on();
    let requests = half.subscriber.model().requests;
    half.third_commit();
    let again = half.app.watch(&half.server, &half.project);

    let head = half.project.head();
    half.subscriber.wait_for_tree(&again, &half.project.tree(&head));
    half.app.wait_until_held(&half.server, &again, &head);
    half.subscriber.assert_faultless();
    assert_ne!(again, half.id);
    let model = half.subscriber.model();
    let late = model.applied.iter().rev().take_while(|change| change.repository == half.id).count();
    assert_eq!(late, 0, "nothing came for the ended watch");
    assert_eq!(model.requests - requests, half.project.tree(&head).len() as u64);
    drop(model);
    let gone = half.app.ask(&half.server, "GET", &format!("/api/repositories/{}", half.id), None);
    assert_eq!(gone.status, 404);
}

#[test]
fn a_redrive_in_the_middle_of_a_round_brings_what_was_given_up() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    let first = project.head();
    app.wait_until_held(&server, &id, &first);
    subscriber.script(refusing(&["poison"]));
    project.write("poison", b"2");
    project.write("q", b"2");
    let second = project.commit("second");
    app.wait_until_held(&server, &id, &second);
    let letters = app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["path"], "poison");

    let gate = subscriber.hold_after(1);
    for name in ["b", "c", "d"] {
        project.write(name, b"3");
    }
    let third = project.commit("third");
    eventually("change at the gate", SOON, || (gate.arrived() > 0).then_some(()));
    let reply = app.ask(&server, "POST", "/api/dead-letters/redrive", None);
    assert_eq!((reply.status, reply.json()["requested"].as_u64()), (202, Some(1)));
    server.kill();
    subscriber.model().note_kill();
    subscriber.accept_all();
    gate.open();
    server.run();

    subscriber.wait_for_tree(&id, &project.tree(&third));
    app.wait_until_held(&server, &id, &third);
    subscriber.assert_straight();
    eventually("end of all letters", SOON, || app.dead_letters(&server).is_empty().then_some(()));
    let model = subscriber.model();
    let redriven = model.applied.iter().find(|change| change.path == b"poison").expect("it came");
    assert_eq!(redriven.body["event"]["replay_of"], letters[0]["delivery_id"]);
}

/// Refuses these paths for good and accepts all others.
pub(crate) fn refusing(paths: &'static [&'static str]) -> impl FnMut(&Arrival) -> Answer + Send + 'static {
    move |arrival| match arrival {
        Arrival::Change(change) if paths.iter().any(|path| change.path.starts_with(path.as_bytes())) => {
            Answer::Refuse(422)
        }
        _ => Answer::Accept,
    }
}
