//! What people do by hand against the real binary: skip a change, take a redrive back, change and
//! erase an app, look at the settings before an upgrade.

use std::{fs, io::Read, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    database,
    model::Arrival,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

fn run(server: &Server, token: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = server.command(arguments);
    command.arg("--json").env("TIDINGS_TOKEN", token);
    command.env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let output = command.output().expect("it ran");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[test]
fn a_stuck_change_is_skipped_and_a_redrive_is_taken_back() {
    let project = Project::with(&[("ok", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let (code, _) = run(&server, &app.token, &["repository", "skip", &id]);
    assert_eq!(code, Some(65), "nothing is being delivered");

    subscriber.script(|arrival| match arrival {
        Arrival::Change(change) if change.path == b"stuck" => Answer::Refuse(503),
        _ => Answer::Accept,
    });
    project.write("stuck", b"1");
    project.write("after", b"1");
    let head = project.commit("second");
    app.tell(&server, &id, "scan");
    eventually("a try of the stuck one", SOON, || {
        let branch = app.repository(&server, &id)["branches"][0].clone();
        (branch["round"]["position"] == 1).then_some(())
    });
    let (code, skipping) = run(&server, &app.token, &["repository", "skip", &id]);
    assert_eq!((code, &skipping["position"]), (Some(0), &json!(1)), "{skipping}");
    app.wait_until_held(&server, &id, &head);
    let letters = app.ask(&server, "GET", "/api/dead-letters", None).json();
    let letter = &letters["items"][0];
    assert_eq!((&letter["path"], &letter["reason"]), (&json!("stuck"), &json!("skipped")));

    let letter = letter["dead_letter_id"].as_str().expect("an id");
    assert_eq!(run(&server, &app.token, &["dead-letter", "cancel"]).0, Some(65), "no redrive waits");
    assert_eq!(run(&server, &app.token, &["dead-letter", "redrive", letter]).0, Some(0));
    eventually("the redrive", SOON, || {
        app.repository(&server, &id)["branches"][0]["round"].is_object().then_some(())
    });
    let (code, cancelled) = run(&server, &app.token, &["dead-letter", "cancel", "--repository", &id]);
    assert_eq!((code, cancelled["ending"].as_array().map(Vec::len)), (Some(0), Some(1)), "{cancelled}");
    eventually("the end of the redrive", SOON, || {
        app.repository(&server, &id)["branches"][0]["round"].is_null().then_some(())
    });
    let letters = app.ask(&server, "GET", "/api/dead-letters?status=open", None).json();
    assert_eq!(letters["items"][0]["dead_letter_id"], letter, "reopened");

    subscriber.script(|_| Answer::Accept);
    let (code, done) = run(&server, &app.token, &["dead-letter", "redrive", "--all", "--wait"]);
    assert_eq!((code, &done["state"], &done["sent"]), (Some(0), &json!("done"), &json!(1)), "{done}");
    let came = subscriber.model().applied.iter().any(|change| change.path == b"stuck");
    assert!(came, "it came before the end");
}

#[test]
fn check_config_announces_rounds_of_older_rules_and_the_start_ends_them_by_a_resync() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let gate = subscriber.hold_after(0);
    let id = app.watch(&server, &project);
    eventually("attempt at the gate", SOON, || (gate.arrived() > 0).then_some(()));
    let shown = run(&server, "", &["check-config"]).1;
    assert!(shown.is_object() && shown["notices"].is_null(), "{shown}");
    server.kill();
    subscriber.model().note_kill();
    database::change(&server, "update round set rules = rules - 2");
    let (code, shown) = run(&server, "", &["check-config"]);
    assert_eq!(code, Some(0));
    let notice = shown["notices"][0].as_str().unwrap_or_default();
    assert!(notice.contains("resync") && notice.ends_with(": 1"), "{shown}");
    gate.open();
    server.run();
    app.wait_until_held(&server, &id, &project.head());
    assert!(run(&server, "", &["check-config"]).1["notices"].is_null());
}

#[test]
fn an_app_that_erases_itself_leaves_no_byte_behind() {
    let marker = "only-this-app-knows";
    let project = Project::with(&[("only-this-app-knows.txt", "1")]);
    let (subscriber, other_subscriber) = (Subscriber::start(), Subscriber::start());
    let mut server = Server::start();
    let more = json!({
        "app_name": marker, "email": format!("{marker}@example.org"), "description": marker,
        "delivery": { "headers": { "x-key": format!("{marker}-header") } },
        "endpoint_auth": { "basic": { "username": marker, "password": format!("{marker}-password") } },
    });
    let app = App::onboard_with(&server, &subscriber, &more);
    let other = App::onboard(&server, &other_subscriber);
    subscriber.script(|_| Answer::Refuse(422));
    let id = app.watch(&server, &project);
    let kept = other.watch(&server, &Project::with(&[("kept", "1")]));
    eventually("a failed attempt", SOON, || (subscriber.model().requests > 0).then_some(()));
    let public = app.token.split('_').nth(1).expect("a public part").to_owned();

    assert_eq!(app.ask(&server, "DELETE", "/api/app", None).status, 204);
    assert_eq!(app.ask(&server, "GET", "/api/app", None).status, 401);
    server.terminate();

    for needle in [marker, public.as_str(), project.url().as_str()] {
        let found = holding(&server.data(), needle.as_bytes());
        assert!(found.is_empty(), "{needle} is still in {found:?}");
    }
    // That it was here, and what was done, stays in the audit log, by ids; they say nothing else.
    for needle in [app.id.as_str(), id.as_str()] {
        let found = holding(&server.data(), needle.as_bytes());
        assert!(found.iter().all(|file| file.contains("tidings.db")), "{needle} is still in {found:?}");
    }
    assert!(!holding(&server.data(), kept.as_bytes()).is_empty(), "the search finds what is there");
    server.run();
    assert_eq!(other.repository(&server, &kept)["repository_id"], kept.as_str());
    let erased = server.ask_as_admin("GET", &format!("/api/admin/apps/{}", app.id));
    assert_eq!(erased.status, 404);
    let actions = server.ask_as_admin("GET", &format!("/api/admin/audit?app={}", app.id)).json();
    assert_eq!(actions["items"][0]["action"], "delete_api_app", "{actions}");
}

fn holding(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(holding(&entry.path(), needle));
        } else if fs::read(entry.path()).expect("bytes").windows(needle.len()).any(|part| part == needle) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn during_a_rotation_receivers_with_either_key_can_verify_and_afterwards_only_with_the_new_one() {
    const SECOND: &str = "the-second-key-of-this-app";
    const THIRD: &str = "the-third-key-of-this-app";
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let change = |content: &str| {
        project.write("a", content.as_bytes());
        let head = project.commit(content);
        app.tell(&server, &id, "scan");
        app.wait_until_held(&server, &id, &head);
        subscriber.assert_faultless();
    };

    subscriber.model().expect_second_key(SECOND);
    let overlap = json!({ "rotate_signing_key": true, "client_auth_key": SECOND, "overlap_seconds": 3_600 });
    let rotated = app.ask(&server, "PATCH", "/api/app", Some(&overlap)).json();
    assert_eq!(rotated["signing_keys"], 2, "{rotated}");
    // A receiver with only the old key, in either scheme, or only the new one, is served.
    change("during the overlap");

    let at_once = json!({ "rotate_signing_key": true, "client_auth_key": THIRD, "overlap_seconds": 0 });
    let rotated = app.ask(&server, "PATCH", "/api/app", Some(&at_once)).json();
    assert_eq!(rotated["signing_keys"], 1, "{rotated}");
    subscriber.model().expect_key(THIRD);
    change("with the new key alone");
}

#[test]
fn an_app_moves_to_another_endpoint_in_mid_round() {
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let (old, new) = (Subscriber::start(), Subscriber::start());
    let server = Server::start();
    let app = App::onboard(&server, &old);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    old.script(|_| Answer::Refuse(503));
    project.write("a", b"2");
    project.write("d", b"2");
    let head = project.commit("second");
    app.tell(&server, &id, "scan");
    old.wait_for("try at the old endpoint", |model| (model.requests > 3).then_some(()));
    let moved = app.ask(&server, "PATCH", "/api/app", Some(&json!({ "base_url": new.url() })));
    assert_eq!(moved.status, 200, "{}", moved.json());
    app.wait_until_held(&server, &id, &head);
    let applied: Vec<String> = new.applied().into_iter().map(|(_, path)| path).collect();
    assert_eq!(applied, ["d", "a"], "the round goes on where it was");
}

#[test]
fn whoever_reads_no_further_is_told_nothing() {
    let server = Server::prepare();
    let mut command = server.command(&["openapi"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // As `head` does; the rest is more than a pipe holds.
    let mut first = [0; 16];
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut first).expect("a beginning");
    drop(out);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}
