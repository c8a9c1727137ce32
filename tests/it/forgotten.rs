//! A database that forgot what was committed: a standby took over without the last transactions, or an older
//! dump was put back. The apps may have files of rounds that no row tells of; one verb brings them right.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    listening::{Listening, wait_for_folder},
    support::{
        api::App,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::Subscriber,
    },
};

/// The files of the database of a server that does not run.
fn database_of(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.data()).expect("the data directory").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.contains(".db")).collect()
}

fn keep(server: &Server, folder: &Path) {
    for name in database_of(server) {
        fs::copy(server.data().join(&name), folder.join(&name)).expect("kept");
    }
}

fn put_back(server: &Server, folder: &Path) {
    for name in database_of(server) {
        fs::remove_file(server.data().join(name)).expect("gone");
    }
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        fs::copy(entry.path(), server.data().join(entry.file_name())).expect("put back");
    }
}

fn by_the_staff(server: &Server, arguments: &[&str]) -> (Option<i32>, Value) {
    let token = fs::read_to_string(server.data().join("admin-token")).expect("a token");
    let mut command = server.command(arguments);
    command.arg("--json").env("TIDINGS_TOKEN", token.trim());
    command.env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let output = command.output().expect("it ran");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[test]
fn after_the_database_forgot_rounds_one_verb_brings_all_apps_to_the_right_trees() {
    let (home, subscriber) = (TempDir::new().expect("a folder"), Subscriber::start());
    let listening = Listening::start(home.path(), "127.0.0.1:0");
    let fields = json!({
        "base_url": format!("http://{}", listening.address), "delivery": { "resync": true, "synced": true },
    });
    let mut server = Server::start();
    let (mirror, idle) =
        (App::onboard_with(&server, &subscriber, &fields), App::onboard(&server, &subscriber));
    let project = Project::with(&[("a", "1")]);
    let known = project.head();
    let id = mirror.watch(&server, &project);
    let paused = idle.watch(&server, &project);
    mirror.wait_until_held(&server, &id, &known);
    idle.wait_until_held(&server, &paused, &known);
    idle.tell(&server, &paused, "pause");
    assert!(server.terminate().0.success());
    let kept = TempDir::new().expect("a folder");
    keep(&server, kept.path());

    // What no row tells of later: a file that came, and went while nobody looked.
    server.run();
    project.write("lived-and-died", b"1");
    let forgotten = project.commit("forgotten");
    mirror.wait_until_held(&server, &id, &forgotten);
    wait_for_folder(home.path(), &project, &forgotten);
    assert!(server.terminate().0.success());
    put_back(&server, kept.path());
    project.remove("lived-and-died");
    project.write("b", b"1");
    let head = project.commit("without it");
    subscriber.model().note_kill();
    server.run();
    mirror.wait_until_held(&server, &id, &head);

    let (code, said) = by_the_staff(&server, &["admin", "resync", "--complete"]);
    assert_eq!(code, Some(64), "all apps, or one, is to be said: {said}");
    let (code, said) = by_the_staff(&server, &["admin", "resync", "--all", "--complete"]);
    assert_eq!((code, &said), (Some(0), &json!({ "watches": 2, "branches": 2 })));
    wait_for_folder(home.path(), &project, &head);
    let shown = idle.repository(&server, &paused);
    assert_eq!(shown["state"], "paused", "what its app paused stays so");
    idle.tell(&server, &paused, "resume");
    idle.wait_until_held(&server, &paused, &head);
    subscriber.wait_for_tree(&paused, &project.tree(&head));

    let (code, said) = by_the_staff(&server, &["admin", "resync", "--of", &idle.id]);
    assert_eq!((code, &said), (Some(0), &json!({ "watches": 1, "branches": 1 })));
    eventually("end of the resync", SOON, || {
        let rounds = idle.ask(&server, "GET", &format!("/api/repositories/{paused}/rounds"), None).json();
        let newest = &rounds["items"][0];
        (newest["kind"] == "resync" && newest["complete"].is_null() && newest["state"] == "finished")
            .then_some(())
    });
    subscriber.assert_faultless();
}

#[test]
fn everything_anew_is_asked_for_page_by_page() {
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let projects: Vec<Project> = (0..3).map(|_| Project::with(&[("a", "1")])).collect();
    for project in &projects {
        let id = app.watch(&server, project);
        app.wait_until_held(&server, &id, &project.head());
    }
    let first = server.ask_as_admin("POST", "/api/admin/watches/resync?limit=2");
    assert_eq!(first.status, 202, "{}", first.json());
    assert_eq!((&first.json()["watches"], &first.json()["branches"]), (&json!(2), &json!(2)));
    let cursor = first.json()["next_cursor"].as_str().expect("there is more").to_owned();
    let path = format!("/api/admin/watches/resync?limit=2&cursor={cursor}");
    let last = server.ask_as_admin("POST", &path).json();
    assert_eq!(last, json!({ "watches": 1, "branches": 1 }));
    let strange = server.ask_as_admin("POST", "/api/admin/watches/resync?app_id=repo_1");
    assert_eq!(strange.status, 400, "{}", strange.json());
    assert!(strange.json()["detail"].as_str().is_some_and(|detail| detail.contains("app_id")));
}
