//! Going back: an app that was restored from a backup gets what came after it, over a kill; one that
//! only asks for it ends the same; nobody can ask for what was never held.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

fn ask(app: &App, server: &Server, id: &str, body: &Value) -> (u16, Value) {
    let reply = app.ask(server, "POST", &format!("/api/repositories/{id}/replay"), Some(body));
    (reply.status, reply.json())
}

/// Three commits of a project, each held before the next is made.
fn three_commits(app: &App, server: &Server, project: &Project, id: &str) -> [String; 3] {
    let held = |subject| {
        let commit = project.commit(subject);
        app.tell(server, id, "scan");
        app.wait_until_held(server, id, &commit);
        commit
    };
    let first = held("first");
    for number in 0..20 {
        project.write(format!("new/{number:02}"), b"second");
    }
    project.remove("gone");
    project.write("changed", b"second");
    let second = held("second");
    project.write("changed", b"third");
    [first, second, held("third")]
}

#[test]
fn a_restored_app_gets_what_came_after_its_backup_over_a_kill() {
    for is_restored in [true, false] {
        let project = Project::with(&[("gone", "1"), ("changed", "1"), ("same", "1")]);
        let subscriber = Subscriber::start();
        let mut server = Server::start();
        let app = App::onboard(&server, &subscriber);
        let id = app.watch(&server, &project);
        project.write("more", b"first");
        let [first, ..] = three_commits(&app, &server, &project, &id);
        let before = subscriber.applied().len();
        if is_restored {
            subscriber.model().restore(&id, project.tree(&first));
        }

        let gate = subscriber.hold_after(7);
        let (status, answer) = ask(&app, &server, &id, &json!({ "commit": first }));
        assert_eq!((status, &answer["commit"]), (202, &json!(first)), "{answer}");
        eventually("change at the gate", SOON, || (gate.arrived() > 0).then_some(()));
        // What comes meanwhile waits for its turn.
        project.write("last", b"fourth");
        let fourth = project.commit("fourth");
        server.kill();
        subscriber.model().note_kill();
        subscriber.accept_all();
        gate.open();
        server.run();
        app.wait_until_held(&server, &id, &fourth);

        subscriber.wait_for_tree(&id, &project.tree(&fourth));
        subscriber.assert_faultless();
        if is_restored {
            subscriber.assert_straight();
        }
        let applied = subscriber.applied()[before..].to_vec();
        assert_eq!(
            applied.len(),
            1 + 20 + 1 + 1,
            "a delete, creates, an update, and the new file: {applied:?}"
        );
        assert_eq!(applied[0], ("delete".to_owned(), "gone".to_owned()));
        assert_eq!(applied.last(), Some(&("create".to_owned(), "last".to_owned())));
    }
}

#[test]
fn only_what_a_watch_held_can_be_gone_back_to() {
    let project = Project::with(&[("gone", "1"), ("changed", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    // By its name: the head of this repository is another branch for a moment.
    let id = app.watch_with(&server, &json!({ "url": project.url(), "branch": "main" }));
    let [first, _, third] = three_commits(&app, &server, &project, &id);
    // A commit of the same mirror, held by another app only.
    project.git(["checkout", "-q", "-b", "other"]);
    project.write("secret", b"1");
    let other = project.commit("other");
    project.git(["checkout", "-q", "-"]);
    let theirs = Subscriber::start();
    let stranger = App::onboard(&server, &theirs);
    let watched =
        stranger.watch_with(&server, &json!({ "url": project.url(), "branch": "other", "content": "none" }));
    stranger.wait_until_held(&server, &watched, &other);
    let before = subscriber.model().requests;

    let missing = "0123456789012345678901234567890123456789";
    for (body, expected) in [
        (json!({ "commit": other }), 409),
        (json!({ "commit": missing }), 409),
        (json!({ "commit": first[..12] }), 422),
        (json!({ "commit": "" }), 422),
        (json!({ "commit": null }), 422),
        (json!({}), 422),
        (json!({ "commit": first, "from": 1 }), 422),
        (json!({ "commit": first, "cursor": "cur_x" }), 404),
        (json!({ "commit": 7 }), 422),
    ] {
        let (status, answer) = ask(&app, &server, &id, &body);
        assert_eq!(status, expected, "{body}: {answer}");
        assert_eq!(answer["status"], expected, "a problem: {answer}");
    }
    assert_eq!(ask(&stranger, &server, &id, &json!({ "commit": first })).0, 404);
    // What is held already is nothing to bring.
    assert_eq!(ask(&app, &server, &id, &json!({ "commit": third.to_uppercase() })).0, 202);
    app.tell(&server, &id, "pause");
    assert_eq!(ask(&app, &server, &id, &json!({ "commit": first })).0, 202, "it waits for the watch");
    app.tell(&server, &id, "resync");
    app.tell(&server, &id, "resume");
    let everything = project.tree(&third);
    subscriber.wait_for("every file once more", |model| {
        (model.requests >= before + everything.len() as u64).then_some(())
    });
    app.wait_until_held(&server, &id, &third);
    subscriber.wait_for_tree(&id, &everything);
    subscriber.assert_faultless();
}

#[test]
fn a_tree_that_only_the_host_has_is_fetched_and_one_that_is_gone_is_refused() {
    for is_gone in [false, true] {
        let host = Host::start();
        let project = Project::with(&[("edited", "1"), ("ghost", "1"), ("kept", "1")]);
        host.publish(&project, "o/r");
        let subscriber = Subscriber::start();
        let mut server = Server::start();
        let app = App::onboard(&server, &subscriber);
        let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
        let first = project.head();
        app.wait_until_held(&server, &id, &first);
        project.git(["checkout", "--quiet", "--orphan", "fresh"]);
        project.remove("ghost");
        project.write("edited", b"2");
        let second = project.commit("unrelated");
        project.git(["branch", "--force", "main", "fresh"]);
        project.git(["checkout", "--quiet", "--force", "main"]);
        project.git(["branch", "-D", "fresh"]);
        host.publish(&project, "o/r");
        app.tell(&server, &id, "scan");
        app.wait_until_held(&server, &id, &second);
        let before = subscriber.applied().len();

        if is_gone {
            host.forget_unreachable("o/r");
        }
        server.kill();
        server.lose(&server.data().join("mirrors"));
        server.run();
        let (status, answer) = ask(&app, &server, &id, &json!({ "commit": first }));
        if is_gone {
            assert_eq!((status, &answer["type"]), (409, &json!("urn:tidings:problem:tree-unavailable")));
            assert_eq!(subscriber.applied().len(), before);
        } else {
            assert_eq!(status, 202, "{answer}");
            subscriber
                .wait_for("the delete once more", |model| (model.applied.len() == before + 2).then_some(()));
            let again = subscriber.applied()[before..].to_vec();
            let expected = [("delete", "ghost"), ("update", "edited")];
            assert_eq!(again, expected.map(|(action, path)| (action.to_owned(), path.to_owned())));
        }
        subscriber.assert_faultless();
    }
}
