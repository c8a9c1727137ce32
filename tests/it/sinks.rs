//! One app that watches one repository twice: what goes to its endpoint and what goes elsewhere are brought there
//! side by side, each with its own paths, over kills.

use std::{thread, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    kills,
    model::Model,
    patience::{SOON, eventually},
    peer::{Authority, Peer, Word},
    private_file,
    project::{Project, Tree},
    puller::Puller,
    server::Server,
    subscriber::Subscriber,
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 100;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(700);

/// What of a tree lies below a folder.
fn below(tree: &Tree, folder: &str) -> Tree {
    let below = tree.iter().filter(|(path, _)| path.starts_with(folder.as_bytes()));
    below.map(|(path, facts)| (path.clone(), facts.clone())).collect()
}

fn commit(project: &Project, dice: &mut Dice) {
    for folder in ["docs", "deploy"] {
        for _ in 0..1 + dice.below(6) {
            let (name, content) = (dice.below(30), dice.number());
            project.write(format!("{folder}/{name}"), content.to_string().as_bytes());
        }
    }
    project.commit("more");
}

#[test]
fn two_sinks_of_one_repository_have_each_their_own_paths_over_kills() {
    let kills = kills(KILLS);
    let mut dice = Dice::thrown("two sinks");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::new();
    commit(&project, &mut dice);
    let sent = app.watch_with(&server, &json!({ "url": project.url(), "include": ["docs/**"] }));
    let pulled = json!({ "url": project.url(), "include": ["deploy/**"], "watch_name": "deploy",
                         "sink": { "kind": "pull" } });
    let pulled = app.watch_with(&server, &pulled);
    assert_ne!(sent, pulled);
    let mut puller = Puller { app: app.clone(), model: Model::new("unused") };
    for _ in 0..kills {
        commit(&project, &mut dice);
        let (life, alive) = (dice.up_to(LIFE), &server);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(life);
                alive.signal(Signal::KILL);
            });
            while pull(&mut puller, alive, &pulled) {}
        });
        server.kill();
        puller.model.note_kill();
        subscriber.model().note_kill();
        server.run();
    }
    let head = project.head();
    app.wait_until_held(&server, &sent, &head);
    eventually("what is pulled is held", 2 * SOON, || {
        puller.drain(&server, &pulled);
        crate::support::api::is_settled(&app.repository(&server, &pulled), &head).then_some(())
    });
    let tree = project.tree(&head);
    subscriber.wait_for_tree(&sent, &below(&tree, "docs/"));
    puller.assert_has(&pulled, &below(&tree, "deploy/"));
    subscriber.assert_straight();
    assert!(subscriber.mirror(&pulled).is_empty(), "what is pulled is sent nowhere");
    assert!(app.dead_letters(&server).is_empty());
}

/// Takes what is pending; `false`: the server is gone.
fn pull(puller: &mut Puller, server: &Server, id: &str) -> bool {
    let Ok(pending) = puller.try_ask(server, id, "wait_seconds=1&lease_seconds=1") else { return false };
    let Some(pending) = pending else { return true };
    let last = pending["to"].as_u64().expect("to") - 1;
    let arrivals = puller.take(&pending, last);
    let body = json!({ "lease_id": pending["lease_id"], "accepted_through": last });
    match puller.try_settle(server, id, &body) {
        Ok((200, _)) => arrivals.iter().for_each(|arrival| puller.model.acknowledged(arrival)),
        Ok((409, _)) => {}
        Ok((status, answer)) => panic!("{status}: {answer}"),
        // Settled or not: what was taken in may come again, under the same ids.
        Err(_) => return false,
    }
    true
}

#[test]
fn a_sink_signs_with_a_key_of_its_own_and_takes_a_test() {
    let (endpoint, other) = (Subscriber::start(), Subscriber::start());
    let server = Server::start();
    let app = App::onboard(&server, &endpoint);
    let project = Project::with(&[("a", "1")]);
    let body = json!({ "url": project.url(), "start": "now",
                       "sink": { "kind": "endpoint", "url": other.url() } });
    let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
    assert_eq!(reply.status, 201, "{}", reply.json());
    let shown = reply.json();
    let id = shown["repository_id"].as_str().expect("an id").to_owned();
    let secret = shown["sink"]["signing_secret"].as_str().expect("a secret").to_owned();
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("its form")).expect("base64");
    other.model().expect_key(std::str::from_utf8(&key).expect("a text"));
    other.model().expect_app(&app.id);

    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/test"), None);
    let outcome: Value = reply.json();
    assert_eq!((reply.status, &outcome["accepted"]), (200, &json!(true)), "{outcome}");
    assert_eq!(outcome["url"], json!(format!("{}/test", other.url())));
    project.write("b", b"2");
    let head = project.commit("more");
    app.wait_until_held(&server, &id, &head);
    assert_eq!(other.mirror(&id).len(), 1, "what came after its registration");
    other.assert_straight();
    endpoint.assert_straight();
    assert_eq!(endpoint.model().requests, 0, "the endpoint of the app hears nothing of it");
    let reply = app.ask(&server, "GET", &format!("/api/repositories/{id}"), None);
    assert!(!reply.json().to_string().contains(&secret), "it is shown once");
}

#[test]
fn the_command_line_says_what_goes_with_requests_to_the_sink_of_a_watch() {
    let (server, endpoint) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &endpoint);
    let project = Project::with(&[("a", "1")]);
    let authority = Authority::new();
    let peer = Peer::secure(authority.server(None), |_| Word::status(200));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| private_file(folder.path(), name, text);
    let (team, token, ca) =
        (file("team", "blue"), file("token", "of-the-sink"), file("ca", &authority.pem()));
    let address = format!("http://{}", server.address());
    let run = |arguments: &[&str]| -> (Option<i32>, Value, String) {
        let mut command = server.command(&[&["repository"], arguments].concat());
        command.args(["--server", &address, "--json"]).env("TIDINGS_TOKEN", app.token.trim());
        let ended = command.output().expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("a text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        (ended.status.code(), json, text + &String::from_utf8_lossy(&ended.stderr))
    };
    let (url, sink_url, header) = (project.url(), peer.url(), format!("X-Team={team}"));
    let sink = ["--sink-url", &sink_url, "--sink-order", "phased", "--max-in-flight", "4"];
    let access = ["--header-file", &header, "--bearer", "--auth-secret-file", &token, "--ca-file", &ca];
    let (code, made, text) = run(&[&["add", &url, "--start", "now"], &sink[..], &access[..]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        (&made["sink"]["has_access"], &made["sink"]["max_in_flight"]),
        (&json!(true), &json!(4)),
        "{made}"
    );
    let id = made["repository_id"].as_str().expect("an id");
    let test = || app.ask(&server, "POST", &format!("/api/repositories/{id}/test"), None).json();
    assert_eq!(test()["accepted"], true, "its authority is trusted");
    let last = || peer.wait_for(1).pop().expect("a request");
    assert_eq!((last().header("x-team"), last().header("authorization")), ("blue", "Bearer of-the-sink"));

    let (code, _, text) = run(&["update", id, "--no-auth", "--remove-header", "X-Team"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(test()["accepted"], true);
    assert_eq!((last().header("x-team"), last().header("authorization")), ("", ""));
    let (code, _, text) = run(&[&["update", id, "--no-sink"], &access[..]].concat());
    assert!(code == Some(64) && text.contains("--no-sink"), "{code:?} {text}");
}
