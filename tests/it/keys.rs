//! Keys are rotated and what they sealed is sealed again while everything goes on, over a kill; the
//! keyring leaves the data directory under a passphrase only.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{api::App, project::Project, remote::Host, server::Server, subscriber::Subscriber};

/// Runs a verb against a server as its administrator.
pub(crate) fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let token = fs::read_to_string(server.data().join("admin-token")).expect("an admin token");
    let mut command = server.command(arguments);
    command.arg("--json").env("TIDINGS_TOKEN", token.trim());
    command.env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let output = command.output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

pub(crate) fn sealed(server: &Server) -> Vec<(String, u64)> {
    let (code, keys, said) = run(server, &["key", "list"]);
    assert_eq!(code, Some(0), "{said}");
    let key = |key: &Value| {
        (key["id"].as_str().expect("an id").to_owned(), key["sealed"].as_u64().expect("a number"))
    };
    keys.as_array().expect("keys").iter().map(key).collect()
}

#[test]
fn keys_change_while_deliveries_go_on_and_a_kill_in_the_middle_loses_nothing() {
    let host = Host::start();
    host.demand_token("a-token-of-the-host");
    let project = Project::with(&[("file", "1")]);
    let first = project.head();
    host.publish(&project, "o/one");
    host.publish(&project, "o/two");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let others = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    for _ in 0..3 {
        App::onboard(&server, &others);
    }
    let watched = |name: &str| json!({ "url": host.url(name), "token": "a-token-of-the-host" });
    let id = app.watch_with(&server, &watched("o/one"));
    app.wait_until_held(&server, &id, &project.head());

    let before = sealed(&server);
    assert_eq!(before.len(), 1);
    let all = before[0].1;
    assert!(all >= 6, "four signing keys, a credential, the canary: {before:?}");
    let (code, _, said) = run(&server, &["key", "retire", &before[0].0]);
    assert_eq!(code, Some(65), "it is the primary key: {said}");
    let (code, made, said) = run(&server, &["key", "rotate"]);
    assert_eq!(code, Some(0), "{said}");
    let new = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(sealed(&server), [(before[0].0.clone(), all), (new.clone(), 0)]);

    // One step, then the process is gone.
    let token = fs::read_to_string(server.data().join("admin-token")).expect("an admin token");
    let step =
        server.ask("POST", "/api/admin/keys/reencrypt", Some(token.trim()), Some(&json!({ "limit": 2 })));
    assert_eq!(step.expect("an answer").json()["left"], all - 2);
    server.kill();
    subscriber.model().note_kill();
    server.run();
    assert_eq!(sealed(&server), [(before[0].0.clone(), all - 2), (new.clone(), 2)]);
    let (code, _, said) = run(&server, &["key", "retire", &before[0].0]);
    assert!(code == Some(65) && said.contains("still seals"), "{said}");
    project.write("file", b"2");
    let second = project.commit("in the middle");
    host.push_main(&project, "o/one");
    let (code, done, said) = run(&server, &["key", "reencrypt", "--step", "1"]);
    assert_eq!((code, &done["resealed"]), (Some(0), &json!(all - 2)), "{said}");
    app.wait_until_held(&server, &id, &second);

    // The same credential is found again, although its fingerprint is another one now.
    let other = app.watch_with(&server, &watched("o/two"));
    app.wait_until_held(&server, &other, &first);
    assert_eq!(sealed(&server), [(before[0].0.clone(), 0), (new.clone(), all)]);
    assert_eq!(run(&server, &["key", "retire", &before[0].0]).0, Some(0));
    assert_eq!(run(&server, &["key", "retire", &before[0].0]).0, Some(65), "it is gone");
    server.kill();
    subscriber.model().note_kill();
    server.run();
    project.write("file", b"3");
    let third = project.commit("under the new key alone");
    host.push_main(&project, "o/one");
    app.wait_until_held(&server, &id, &third);
    subscriber.wait_for_tree(&id, &project.tree(&third));
    subscriber.assert_faultless();

    // Without a server the same verbs work on the data directory, and only without one.
    let (code, _, said) = run(&server, &["key", "rotate", "--offline"]);
    assert!(code == Some(69) && said.contains("in use"), "{said}");
    let (status, _) = server.terminate();
    assert!(status.success());
    assert_eq!(run(&server, &["key", "rotate", "--offline"]).0, Some(0));
    let (code, done, said) = run(&server, &["key", "reencrypt", "--offline"]);
    assert_eq!((code, &done["resealed"]), (Some(0), &json!(all)), "{said}");
    assert_eq!(run(&server, &["key", "retire", "--offline", &new]).0, Some(0));
    server.run();
    assert_eq!(app.repository(&server, &id)["repository_id"], id.as_str());
}

#[test]
fn a_keyring_leaves_the_data_directory_under_a_passphrase_only() {
    let server = Server::start();
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    fs::write(path("pass"), "a passphrase for stories\n").expect("written");
    fs::write(path("wrong"), "another passphrase that is long\n").expect("written");
    let export = ["key", "export", &path("out"), "--passphrase-file", &path("pass")];
    let (code, _, said) = run(&server, &export);
    assert!(code == Some(65) && said.contains("chmod 600"), "others can read the passphrase: {said}");
    for name in ["pass", "wrong"] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).expect("its owner's alone");
    }
    let (code, _, said) = run(&server, &["key", "export", &path("out")]);
    assert!(code == Some(64) && said.contains("--passphrase-file"), "{said}");
    let (code, _, said) = run(&server, &export);
    assert_eq!(code, Some(0), "{said}");
    let keyring = fs::read_to_string(server.data().join("keyring")).expect("a keyring");
    let keyring_json: Value = serde_json::from_str(&keyring).expect("JSON");
    let exported = fs::read_to_string(path("out")).expect("a file");
    assert!(!exported.contains(keyring_json["keys"][0]["key"].as_str().expect("a key")));
    let import = |passphrase: &str, to: &str| {
        run(
            &server,
            &["key", "import", &path("out"), "--passphrase-file", &path(passphrase), "--path", &path(to)],
        )
    };
    let (code, _, said) = import("wrong", "in");
    assert!(code == Some(65) && said.contains("does not open"), "{said}");
    assert!(!Path::new(&path("in")).exists());
    assert_eq!(import("pass", "in").0, Some(0));
    assert_eq!(fs::read_to_string(path("in")).expect("a keyring"), keyring);
    assert_eq!(import("pass", "in").0, Some(73), "nothing is written over");
}
