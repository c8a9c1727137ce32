//! A backup is taken while everything moves, and restored much later: every app ends with the tree.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    listening::{Listening, wait_for_folder},
    support::{
        api::App,
        churn::Churn,
        dice::Dice,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::Subscriber,
    },
};

const PASSPHRASE: &str = "a passphrase for stories";

/// Runs a verb on the data directory of a server; its exit code and what it printed.
fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = server.command(arguments);
    let output = command.arg("--json").env("TIDINGS_PASSPHRASE", PASSPHRASE).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

fn listener(home: &Path) -> (Listening, Value) {
    let listening = Listening::start(home, "127.0.0.1:0");
    let base_url = format!("http://{}", listening.address);
    (listening, json!({ "base_url": base_url, "delivery": { "resync": true, "synced": true } }))
}

#[test]
fn a_backup_taken_under_load_and_restored_later_ends_with_the_right_trees() {
    let mut dice = Dice::thrown("backups");
    let (home, subscriber) = (TempDir::new().expect("a folder"), Subscriber::start());
    let (_listening, fields) = listener(home.path());
    let mut old = Server::start();
    let mirror = App::onboard_with(&old, &subscriber, &fields);
    let plain = App::onboard(&old, &subscriber);
    let project = Project::new();
    let mut churn = Churn::begin(&project, 60);
    project.write("of-before", b"1");
    project.write("edited", b"1");
    let known = project.commit("what the backup knows");
    let ids = [mirror.watch(&old, &project), plain.watch(&old, &project)];
    for (app, id) in [&mirror, &plain].into_iter().zip(&ids) {
        app.wait_until_held(&old, id, &known);
    }

    // Commits go on while the database is copied.
    let folder = TempDir::new().expect("a folder");
    let backup = folder.path().join("backup");
    let to = backup.to_str().expect("a path");
    let mut copying = old.command(&["backup", to]);
    let mut copying = copying.env("TIDINGS_PASSPHRASE", PASSPHRASE).spawn().expect("it starts");
    let mut commits = 0;
    let copied = loop {
        churn.commit(&project, &mut dice);
        commits += 1;
        if let Some(status) = copying.try_wait().expect("a child") {
            break status;
        }
    };
    assert!(copied.success() && commits > 0, "{copied}");

    // The apps go on: what the backup never heard of is delivered.
    project.write("edited", b"2");
    project.write("of-after", b"1");
    project.write("lived-and-died", b"1");
    let second = project.commit("after the backup");
    for (app, id) in [&mirror, &plain].into_iter().zip(&ids) {
        app.wait_until_held(&old, id, &second);
    }
    wait_for_folder(home.path(), &project, &second);
    old.kill();
    subscriber.model().note_kill();
    project.remove("of-before");
    project.remove("lived-and-died");
    project.write("of-later", b"1");
    let third = project.commit("while nothing ran");

    let mut new = Server::prepare();
    let (code, restored, said) = run(&new, &["restore", to]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(restored["resyncs"], 2, "{restored}");
    new.run();
    for (app, id) in [&mirror, &plain].into_iter().zip(&ids) {
        app.wait_until_held(&new, id, &third);
    }
    wait_for_folder(home.path(), &project, &third);
    // Who does not ask for notices gets the deletes that the backup knows of, and its branch says that
    // there may be more: that is what the guide tells.
    let mut expected = project.tree(&third);
    expected.insert(b"lived-and-died".to_vec(), project.tree(&second)[&b"lived-and-died".to_vec()].clone());
    subscriber.wait_for_tree(&ids[1], &expected);
    subscriber.assert_faultless();
    let branch = |app: &App, id: &str| app.repository(&new, id)["branches"][0].clone();
    assert_eq!(branch(&plain, &ids[1])["deletes_unknown"], true);
    assert_eq!(branch(&mirror, &ids[0])["deletes_unknown"], Value::Null);

    // From here on everything is as it always was.
    project.write("last", b"1");
    let last = project.commit("after the restoration");
    for (app, id) in [&mirror, &plain].into_iter().zip(&ids) {
        app.wait_until_held(&new, id, &last);
    }
    wait_for_folder(home.path(), &project, &last);
    let (code, _, said) = run(&new, &["restore", to]);
    assert_eq!(code, Some(73), "a data directory in use is left alone: {said}");
    assert!(said.contains("nothing is written over it") || said.contains("in use"), "{said}");
}

#[test]
fn after_a_restore_nobody_is_brought_back_to_an_old_commit_first() {
    let project = Project::with(&[("file", "1")]);
    let subscriber = Subscriber::start();
    let mut old = Server::start();
    let app = App::onboard_with(&old, &subscriber, &json!({ "delivery": { "resync": true } }));
    let id = app.watch(&old, &project);
    app.wait_until_held(&old, &id, &project.head());
    let folder = TempDir::new().expect("a folder");
    let backup = folder.path().join("backup");
    let to = backup.to_str().expect("a path");
    assert_eq!(run(&old, &["backup", to]).0, Some(0));
    let number = |server: &Server| {
        let rounds = app.ask(server, "GET", &format!("/api/repositories/{id}/rounds"), None).json();
        rounds["items"][0]["round"].as_u64().expect("a round")
    };
    project.write("file", b"2");
    let second = project.commit("after the backup");
    app.wait_until_held(&old, &id, &second);
    let before = number(&old);
    let (status, _) = old.terminate();
    assert!(status.success());
    let seen = subscriber.applied().len();

    let mut new = Server::prepare();
    assert_eq!(run(&new, &["restore", to]).0, Some(0));
    new.run();
    eventually("the resync", SOON, || (subscriber.applied().len() > seen).then_some(()));
    app.wait_until_held(&new, &id, &second);
    let resyncs: Vec<Value> = {
        let model = subscriber.model();
        model
            .notices
            .iter()
            .filter(|notice| notice.action == "resync")
            .map(|notice| notice.body.clone())
            .collect()
    };
    assert_eq!(resyncs.len(), 1, "{resyncs:?}");
    assert_eq!(resyncs[0]["event"]["complete"], true);
    assert!(number(&new) > before, "round numbers go on above what the app has seen");
    let (applied, model) = (subscriber.applied()[seen..].to_vec(), subscriber.model());
    assert_eq!(applied, [("create".to_owned(), "file".to_owned())]);
    assert_eq!(
        model.applied.last().map(|change| change.commit.clone()),
        Some(second),
        "never the old content"
    );
}

#[test]
fn a_backup_says_what_is_missing_and_writes_over_nothing() {
    let server = Server::start();
    let folder = TempDir::new().expect("a folder");
    let to = folder.path().join("backup");
    let to = to.to_str().expect("a path");
    let bare = |arguments: &[&str]| {
        let output = server.command(arguments).output().expect("it ran");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = bare(&["backup", to]);
    assert!(code == Some(64) && said.contains("--without-keyring"), "{said}");
    let short = folder.path().join("short");
    fs::write(&short, "short\n").expect("written");
    fs::set_permissions(&short, fs::Permissions::from_mode(0o600)).expect("its owner's alone");
    let (code, said) = bare(&["backup", to, "--passphrase-file", short.to_str().expect("a path")]);
    assert!(code == Some(65) && said.contains("shorter than"), "{said}");
    assert!(!Path::new(to).exists() && !folder.path().join("backup.partial").exists());
    let (code, said) = bare(&["backup", to, "--without-keyring"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = bare(&["backup", to, "--without-keyring"]);
    assert!(code == Some(73) && said.contains("nothing is written over it"), "{said}");
    let elsewhere = Server::prepare();
    let refused = elsewhere.command(&["restore", to]).output().expect("it ran");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--keyring FILE"), "{refused:?}");
    let absent =
        elsewhere.command(&["backup", to]).env("TIDINGS_PASSPHRASE", PASSPHRASE).output().expect("it ran");
    assert!(!absent.status.success(), "there is nothing to copy");
}
