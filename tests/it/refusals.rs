//! Changes that a receiver does not want: parked after a few tries, remembered by the next round,
//! and a receiver that wants nothing at all stops its branch until it is well.

use serde_json::json;

use crate::support::{
    api::App,
    model::Arrival,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// A server whose app has the first commit of a project.
fn settled(project: &Project) -> (Server, Subscriber, App, String) {
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, project);
    app.wait_until_held(&server, &id, &project.head());
    (server, subscriber, app, id)
}

/// Fails on every path that begins with `bad`.
fn failing_on_bad(status: u16) -> impl FnMut(&Arrival) -> Answer + Send + 'static {
    move |arrival| match arrival {
        Arrival::Change(change) if change.path.starts_with(b"bad") => Answer::Refuse(status),
        _ => Answer::Accept,
    }
}

#[test]
fn a_poisoned_file_does_not_block_the_next() {
    let project = Project::with(&[("a", "1")]);
    let (server, subscriber, app, id) = settled(&project);
    subscriber.script(failing_on_bad(422));

    project.write("bad.md", b"2");
    project.write("good.md", b"2");
    let head = project.commit("one is poisoned");
    app.wait_until_held(&server, &id, &head);

    let mut expected = project.tree(&head);
    expected.remove(b"bad.md".as_slice());
    assert_eq!(subscriber.mirror(&id), expected);
    let letters = app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    for (key, value) in [
        ("path", json!("bad.md")),
        ("operation", json!("create")),
        ("reason", json!("rejected")),
        ("http_status", json!(422)),
        ("repository_id", json!(id)),
    ] {
        assert_eq!(letters[0][key], value, "{key}");
    }
    assert_eq!(app.repository(&server, &id)["branches"][0]["dead_letters"], 1);
    subscriber.assert_straight();
}

#[test]
fn the_next_round_remembers_what_was_given_up() {
    let project = Project::with(&[("a", "1"), ("bad-update.md", "1"), ("bad-delete.md", "1")]);
    let (server, subscriber, app, id) = settled(&project);
    subscriber.script(failing_on_bad(500));
    project.write("bad-create.md", b"2");
    project.write("bad-gone.md", b"2");
    project.write("bad-update.md", b"2");
    project.remove("bad-delete.md");
    let second = project.commit("four are poisoned");
    app.wait_until_held(&server, &id, &second);
    assert_eq!(app.dead_letters(&server).len(), 4);
    assert_eq!(subscriber.mirror(&id).len(), 3, "the app has what it had");

    subscriber.accept_all();
    project.write("bad-create.md", b"3");
    project.write("bad-update.md", b"3");
    project.write("bad-delete.md", b"3");
    project.remove("bad-gone.md");
    let third = project.commit("all change again");
    app.wait_until_held(&server, &id, &third);

    subscriber.wait_for_tree(&id, &project.tree(&third));
    subscriber.assert_faultless();
    assert_eq!(app.dead_letters(&server), Vec::<serde_json::Value>::new());
    let letters = app.ask(&server, "GET", "/api/dead-letters?status=superseded", None).json();
    assert_eq!(letters["items"].as_array().map(Vec::len), Some(4), "{letters}");
}

#[test]
fn ten_refusals_in_a_row_block_the_branch_and_it_heals_by_itself() {
    let project = Project::with(&[("a", "1")]);
    let (mut server, subscriber, app, id) = settled(&project);
    subscriber.script(|_| Answer::Refuse(500));
    for number in 0..15 {
        project.write(format!("f{number:02}"), b"2");
    }
    let second = project.commit("fifteen files");

    let shown = app.wait_for_state(&server, &id, "blocked");
    assert!(shown["branches"][0]["reason"].is_string(), "{shown}");
    assert_eq!(app.dead_letters(&server).len(), 10);
    assert_eq!(shown["branches"][0]["round"]["position"], 10, "the eleventh waits at the head");
    server.kill();
    subscriber.model().note_kill();
    server.run();
    app.wait_for_state(&server, &id, "blocked");

    subscriber.accept_all();
    subscriber.wait_for_tree(&id, &project.tree(&second));
    app.wait_until_held(&server, &id, &second);
    app.wait_for_state(&server, &id, "active");
    eventually("end of all letters", SOON, || app.dead_letters(&server).is_empty().then_some(()));
    subscriber.assert_straight();
}

#[test]
fn a_receiver_that_says_gone_is_never_asked_again() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    subscriber.script(|_| Answer::Refuse(410));
    app.watch(&server, &project);

    let shown = eventually("disabled app", SOON, || {
        let shown = app.ask(&server, "GET", "/api/app", None).json();
        shown["disabled"].is_string().then_some(shown)
    });
    assert_eq!(shown["app_id"], app.id.as_str());
    server.kill();
    server.run();
    project.write("c", b"2");
    project.commit("more");
    // Another app on the same repository proves that the commit was seen.
    let other = Subscriber::start();
    let witness = App::onboard(&server, &other);
    let id = witness.watch(&server, &project);
    witness.wait_until_held(&server, &id, &project.head());

    assert_eq!(subscriber.model().requests, 1);
}

#[test]
fn an_app_that_is_slow_to_save_its_registration_loses_nothing() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let mut left = 12;
    subscriber.script(move |_| {
        if left > 0 {
            left -= 1;
            Answer::Refuse(404)
        } else {
            Answer::Accept
        }
    });

    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_straight();
    assert!(app.dead_letters(&server).is_empty());
}
