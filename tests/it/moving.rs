//! An installation moves from SQLite to PostgreSQL and back: rounds go on in the middle, what was given up
//! and written down stays, and nobody who receives notices.

use std::process::Output;

use serde_json::{Value, json};

use crate::{
    deliveries::refuse,
    support::{
        api::App,
        cluster, database,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Most changes that a kill may send twice.
const REPEATS_MAX: u64 = 64;

fn copy(server: &Server, to: &str) -> (Option<i32>, Value, String) {
    let mut command = server.command(&["migrate", "copy", "--json"]);
    let Output { status, stdout, stderr } = command.env("TIDINGS_COPY_TO", to).output().expect("it ran");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    (status.code(), serde_json::from_slice(&stdout).unwrap_or(Value::Null), said)
}

fn rows(copied: &Value, table: &str) -> u64 {
    let tables = copied["tables"].as_array().expect("tables");
    let found = tables.iter().find(|found| found["table"] == table).expect("a table");
    assert_eq!(found["source"], found["target"]);
    found["source"]["rows"].as_u64().expect("a number")
}

#[test]
fn an_installation_moves_to_postgresql_in_mid_round_and_back_and_its_apps_notice_nothing() {
    const FILES: usize = 120;
    let Some(database) = cluster::database(None) else { return };
    let project = Project::with(&[("a", "1"), ("bad", "1")]);
    let first = project.head();
    let subscriber = Subscriber::start();
    subscriber.script(refuse(&["bad"], 422));
    let mut server = Server::prepare().without("database.url").with("database.lease", "2s");
    server.run();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &first);
    let letters = app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let gate = subscriber.hold_after(40);
    for number in 0..FILES {
        project.write(format!("file-{number:03}"), format!("{number}").as_bytes());
    }
    let second = project.commit("many");
    eventually("delivery that waits", SOON, || (gate.arrived() > 0).then_some(()));
    let open = app.repository(&server, &id)["branches"][0]["round"].clone();

    let (code, _, said) = copy(&server, &database.url);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("is in use by another process"), "{said}");
    server.kill();
    subscriber.model().note_kill();
    let (code, copied, said) = copy(&server, &database.url);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(copied["equal"], true);
    assert_eq!((rows(&copied, "app"), rows(&copied, "dead_letter"), rows(&copied, "round")), (1, 1, 2));

    let mut server = server.with("database.url", &database.url);
    subscriber.accept_all();
    gate.open();
    server.run();
    app.wait_until_held(&server, &id, &second);
    subscriber.wait_for_tree(&id, &without(&project, &second));
    assert!(open.is_object(), "{open}");
    assert!(subscriber.model().repeats <= REPEATS_MAX, "{}", subscriber.model().repeats);
    assert_eq!(app.dead_letters(&server), letters, "what was given up is still there, under the same ids");
    assert_whole(&server, &app, &letters[0]);

    let (code, _, said) = copy(&server, &format!("sqlite:{}", server.data().join("early.db").display()));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("in use by"), "{said}");
    assert!(server.terminate().0.success());
    let back = format!("sqlite:{}", server.data().join("back.db").display());
    let (code, again, said) = copy(&server, &back);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rows(&again, "round"), 2);
    let (code, _, said) = copy(&server, &back);
    assert_eq!(code, Some(73), "what holds rows is not written over: {said}");

    let mut server = server.with("database.url", &back);
    server.run();
    let path = format!("/api/dead-letters/{}/redrive", letters[0]["dead_letter_id"].as_str().expect("an id"));
    assert_eq!(app.ask(&server, "POST", &path, Some(&json!({}))).status, 202);
    eventually("redriven letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
    project.write("late", b"late");
    let third = project.commit("late");
    app.wait_until_held(&server, &id, &third);
    subscriber.wait_for_tree(&id, &project.tree(&third));
    subscriber.assert_straight();
    assert_whole(&server, &app, &letters[0]);
}

/// What the app has of a commit, without what it refused.
fn without(project: &Project, commit: &str) -> crate::support::project::Tree {
    let mut tree = project.tree(commit);
    tree.remove(b"bad".as_slice()).expect("it is there");
    tree
}

/// The log of what was done verifies, and what was tried can be read.
fn assert_whole(server: &Server, app: &App, letter: &Value) {
    let verdict = server.ask_as_admin("GET", "/api/admin/audit/verify").json();
    assert_eq!(verdict["intact"], true, "{verdict}");
    let delivery = letter["delivery_id"].as_str().expect("an id");
    let shown = app.ask(server, "GET", &format!("/api/deliveries/{delivery}"), None);
    assert_eq!(shown.status, 200, "{}", shown.json());
    assert_eq!(shown.json()["tries"][0]["http_status"], 422, "{}", shown.json());
}

#[test]
fn an_address_with_a_password_is_no_argument_and_never_shown() {
    let server = Server::prepare().without("database.url");
    for arguments in [
        &["--to", "postgres://u:planted@127.0.0.1:1/d"][..],
        &["--to", "postgres://127.0.0.1:1/d?password=planted"],
        &["--from", "postgres://u:planted@127.0.0.1:1/d", "--to", "sqlite:x.db"],
    ] {
        let output = server.command(&["migrate", "copy"]).args(arguments).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("a password does not belong into arguments"), "{said}");
        assert!(!said.contains("planted"), "{said}");
    }
    assert_eq!(server.command(&["migrate", "up"]).output().expect("it ran").status.code(), Some(0));
    let address = server.data().join("address");
    for text in ["postgres://u:planted@127.0.0.1:1/d\n", "postgres://u:pla?nted@127.0.0.1:1/planted"] {
        std::fs::write(&address, text).expect("written");
        let mut command = server.command(&["migrate", "copy", "--to-file"]);
        let output = command.arg(&address).output().expect("it ran");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && !said.contains("planted"), "{said}");
    }
}

#[test]
fn a_copy_that_is_not_whole_is_used_by_nobody() {
    let mut server = Server::prepare().without("database.url");
    assert_eq!(server.command(&["migrate", "up"]).output().expect("it ran").status.code(), Some(0));
    let mark = "insert into seaql_migrations (version, applied_at) values ('unfinished_copy', 0)";
    database::change(&server, mark);
    for arguments in
        [&["migrate", "status"][..], &["migrate", "up"], &["migrate", "down", "--yes"], &["doctor"]]
    {
        let Output { status, stdout, stderr } = server.command(arguments).output().expect("it ran");
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!status.success() && said.contains("did not end"), "{arguments:?}: {said}");
        assert!(said.contains("tidings migrate copy"), "{arguments:?}: {said}");
    }
    server.spawn();
    assert!(!server.ended().success());
    assert!(server.log().contains("did not end"), "{}", server.log());
}
