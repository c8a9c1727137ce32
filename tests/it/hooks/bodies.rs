//! Bodies of hooks: kept sealed within a ring, shown to those who may see them, and read again for a replay.

use std::fs;

use serde_json::{Value, json};

use super::{
    World, body, digits, github, is, outcome,
    own::{make, push, told},
    patient, send,
};
use crate::{
    keys,
    support::{
        api::{App, items},
        cluster, database,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::Subscriber,
    },
};

const MARK: &str = "a-word-that-stands-in-this-body-alone";

/// A push with this many bytes more.
fn padded(url: &str, mark: &str, more: usize) -> Vec<u8> {
    let mut sent: Value = serde_json::from_slice(&told(url, mark)).expect("JSON");
    sent["padding"] = json!("x".repeat(more));
    sent.to_string().into_bytes()
}

fn all_receipts(server: &Server) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let more = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = server.ask_as_admin("GET", &format!("/api/admin/receipts?limit=100{more}")).json();
        found.extend(items(&page));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return found;
        }
    }
}

fn shown(server: &Server, id: &Value) -> Value {
    let id = id.as_str().expect("an id");
    let reply = server.ask_as_admin("GET", &format!("/api/admin/receipts/{id}"));
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

/// Sum and number of the bodies that are kept.
fn kept<'r>(receipts: impl IntoIterator<Item = &'r Value>) -> (u64, usize) {
    let kept = receipts.into_iter().filter(|receipt| receipt["body_state"] == "kept");
    kept.fold((0, 0), |(bytes, count), row| (bytes + row["body_bytes"].as_u64().expect("a size"), count + 1))
}

#[test]
fn a_body_is_shown_with_its_headers_and_without_what_proves_it_and_is_sealed_on_disk() {
    let mut world = World::new();
    let sent = told(&world.host.url("o/r"), MARK);
    let signature = format!("sha256={}", digits(super::SECRET, &sent));
    let fields = [
        ("x-github-delivery", "1"),
        ("x-github-event", "push"),
        ("x-hub-signature-256", &signature),
        ("authorization", "Bearer something-secret"),
        ("user-agent", "GitHub-Hookshot/1"),
        ("content-type", "application/json"),
    ];
    assert_eq!(send(&world.server, "/hooks/github", &fields, &sent).status, 202);
    let fields = [
        ("idempotency-key", "1"),
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-token", super::SECRET),
        ("content-type", "application/json"),
    ];
    let url = world.host.url("o/r");
    let of_gitlab = json!({
        "object_kind": "push", "ref": "refs/heads/main", "project": { "git_http_url": url },
    });
    assert_eq!(send(&world.server, "/hooks/gitlab", &fields, of_gitlab.to_string().as_bytes()).status, 202);

    let receipts = all_receipts(&world.server);
    let lab = shown(&world.server, &receipts[0]["receipt_id"]);
    assert_eq!(lab["request_headers"]["x-gitlab-event"], "Push Hook");
    assert!(!lab.to_string().contains(super::SECRET), "{lab}");
    let hub = shown(&world.server, &receipts[1]["receipt_id"]);
    assert_eq!((&hub["body_state"], hub["body_bytes"].as_u64()), (&json!("kept"), Some(sent.len() as u64)));
    assert_eq!(hub["body"].as_str().map(str::as_bytes), Some(sent.as_slice()), "as it came");
    let names: Vec<_> = hub["request_headers"].as_object().expect("headers").keys().cloned().collect();
    assert_eq!(names, ["content-type", "user-agent", "x-github-delivery", "x-github-event"]);

    // Bodies tell of repositories, also private ones: who may only look sees none.
    let viewer = world
        .server
        .ask(
            "POST",
            "/api/admin/tokens",
            Some(admin(&world.server).trim()),
            Some(&json!({ "name": "v", "role": "viewer" })),
        )
        .expect("an answer")
        .json();
    let token = viewer["token"].as_str().expect("a token");
    let id = receipts[1]["receipt_id"].as_str().expect("an id");
    let path = format!("/api/admin/receipts/{id}");
    assert_eq!(world.server.ask("GET", &path, Some(token), None).expect("an answer").status, 403);
    let (verdict, out, said) = keys::run(&world.server, &["receipt", "show", id]);
    assert_eq!(
        (verdict, out["body"].as_str().map(str::as_bytes)),
        (Some(0), Some(sent.as_slice())),
        "{said}"
    );

    world.server.kill();
    for entry in fs::read_dir(world.server.data()).expect("the data directory").filter_map(Result::ok) {
        let Ok(bytes) = fs::read(entry.path()) else { continue };
        let is_there = bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes());
        assert!(!is_there, "{} holds the body as it is", entry.path().display());
    }
}

/// Changes rows of a server that does not run.
fn change(server: &Server, statement: &'static str) {
    if server.is_on_postgres() {
        cluster::run_sql(server.setting("database.url"), statement).expect("it changes");
    } else {
        database::change(server, statement);
    }
}

fn admin(server: &Server) -> String {
    fs::read_to_string(server.data().join("admin-token")).expect("an admin token")
}

#[test]
fn bodies_beyond_their_bound_are_not_kept_and_the_receipt_says_so() {
    let world = World::new();
    let url = world.host.url("o/r");
    let fits = 65_536 - padded(&url, "1", 0).len();
    for (number, more, state) in
        [("1", fits, "kept"), ("2", fits + 1, "too_large"), ("3", 1 << 20, "too_large")]
    {
        let sent = padded(&url, number, more);
        assert_eq!(github(&world.server, number, super::SECRET, &sent).status, 202, "it counts all the same");
        let newest = &all_receipts(&world.server)[0];
        assert_eq!(
            (&newest["body_state"], newest["body_bytes"].as_u64()),
            (&json!(state), Some(sent.len() as u64))
        );
        let whole = shown(&world.server, &newest["receipt_id"]);
        assert_eq!(whole["body"].is_string(), state == "kept");
        assert_eq!(whole["request_headers"].is_object(), state == "kept");
    }
    // What is not kept is replayed as it was read when it came.
    let newest = all_receipts(&world.server)[0]["receipt_id"].as_str().expect("an id").to_owned();
    let (code, replayed, said) = keys::run(&world.server, &["receipt", "replay", &newest]);
    assert_eq!((code, &replayed["reason"]), (Some(0), &json!("ref_moved")), "{said}");
}

#[test]
fn a_flood_of_bodies_stays_within_the_ring_and_within_the_part_of_its_app() {
    let mut server = patient().with("hooks.kept_bytes", "1048576");
    server.run();
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "main" }));
    app.wait_until_held(&server, &id, &project.head());
    let url = host.url("o/r");
    for number in 0..10 {
        let sent = padded(&url, &format!("server {number}"), 40_000);
        assert_eq!(github(&server, &format!("s{number}"), super::SECRET, &sent).status, 202);
    }
    let own = make(&server, &app, &json!({ "name": "ci", "provider": "github" }));
    for number in 0..40 {
        let sent = padded(&url, &format!("own {number}"), 40_000);
        assert_eq!(push(&server, &own.path, &own.secret, &format!("o{number}"), &sent).status, 202);
    }
    let receipts = all_receipts(&server);
    assert_eq!(receipts.len(), 50, "the rows stay");
    let of_app = receipts.iter().filter(|row| row["hook_id"].is_string());
    let (bytes, count) = kept(of_app);
    assert!(bytes <= 1_048_576 / 4 && count >= 5, "{count} bodies with {bytes} bytes");
    assert_eq!(receipts[0]["body_state"], "kept", "the newest");
    let (_, of_server) = kept(receipts.iter().filter(|row| row.get("hook_id").is_none()));
    println!("{of_server} bodies of the server's own address outlive the flood");

    for number in 0..60 {
        let sent = padded(&url, &format!("more {number}"), 40_000);
        assert_eq!(github(&server, &format!("m{number}"), super::SECRET, &sent).status, 202);
    }
    let receipts = all_receipts(&server);
    let (bytes, count) = kept(&receipts);
    assert!(bytes <= 1_048_576 && count >= 20, "{count} bodies with {bytes} bytes");
    let states: Vec<_> = receipts.iter().map(|row| row["body_state"].as_str().expect("a state")).collect();
    assert!(states[..count].iter().all(|state| *state == "kept"), "the oldest go first: {states:?}");
    assert!(states[count..].iter().all(|state| *state == "dropped"), "{states:?}");
    let gone = shown(&server, &receipts[count]["receipt_id"]);
    assert!(gone["body"].is_null() && gone["request_headers"].is_null(), "{gone}");

    // A ring that is switched off is empty with the next hook.
    server.terminate();
    let mut server = server.with("hooks.kept_bytes", "0");
    server.run();
    assert_eq!(github(&server, "last", super::SECRET, &told(&url, "last")).status, 202);
    let receipts = all_receipts(&server);
    assert_eq!((receipts[0]["body_state"].as_str(), kept(&receipts).1), (Some("off"), 0));
}

#[test]
fn a_replay_reads_the_body_again_so_that_an_event_that_is_learnt_later_counts() {
    let mut world = World::new();
    let own = make(&world.server, &world.app, &json!({ "name": "ci", "provider": "github" }));
    let sent = told(&world.host.url("o/r"), "1");
    assert_eq!(push(&world.server, &own.path, &own.secret, "1", &sent).status, 202);
    eventually("the poll that it asks for", SOON, || (world.host.take_polls() > 0).then_some(()));
    let own_receipts =
        |world: &World| items(&world.app.ask(&world.server, "GET", "/api/receipts", None).json());
    let id = own_receipts(&world)[0]["receipt_id"].as_str().expect("an id").to_owned();
    // So would a version have written it down that did not know pushes.
    world.server.terminate();
    change(
        &world.server,
        "update receipt set news = 'other', verdict = 'ignored', reason = 'other_event', ref_name = null,
         addresses = '[]', repositories = '[]'",
    );
    world.server.run();
    world.app.wait_until_held(&world.server, &world.id, &world.project.head());
    let second = world.push("b");
    assert_eq!(own_receipts(&world)[0]["reason"], "other_event");
    let replayed = world.app.ask(&world.server, "POST", &format!("/api/receipts/{id}/replay"), None);
    assert_eq!(outcome(&replayed), is(202, "accepted", "ref_moved"), "{}", replayed.json());
    assert_eq!(replayed.json()["ref"], "refs/heads/main");
    world.wait_until_held(&second);

    // What is genuine and cannot be read is kept, shown and refused again.
    let garbled = push(&world.server, &own.path, &own.secret, "2", b"{\"ref\":");
    assert_eq!(garbled.status, 400);
    let newest = own_receipts(&world)[0].clone();
    assert_eq!((&newest["reason"], &newest["body_state"]), (&json!("unreadable"), &json!("kept")));
    let id = newest["receipt_id"].as_str().expect("an id");
    let replayed = world.app.ask(&world.server, "POST", &format!("/api/receipts/{id}/replay"), None);
    assert_eq!(replayed.status, 409);
    assert!(replayed.json()["detail"].as_str().is_some_and(|why| why.contains("still not be read")));
    // A forged one is not.
    assert_eq!(push(&world.server, &own.path, "a secret that nobody set", "3", &sent).status, 401);
    let forged = own_receipts(&world)[0].clone();
    assert!(forged["body_state"].is_null(), "{forged}");
    let id = forged["receipt_id"].as_str().expect("an id");
    let replayed = world.app.ask(&world.server, "POST", &format!("/api/receipts/{id}/replay"), None);
    assert_eq!(replayed.status, 409);
}

#[test]
fn keys_are_rotated_under_hooks_and_bodies() {
    let mut world = World::new();
    let own = make(&world.server, &world.app, &json!({ "name": "ci", "provider": "github" }));
    let rotate = json!({ "overlap_seconds": 3_600 });
    let rotated = world.app.ask(&world.server, "POST", "/api/hooks/ci/rotate-secret", Some(&rotate));
    let newer = rotated.json()["secret"].as_str().expect("a secret").to_owned();
    let sent = told(&world.host.url("o/r"), MARK);
    assert_eq!(push(&world.server, &own.path, &newer, "1", &sent).status, 202);
    let before = keys::sealed(&world.server);
    assert_eq!(before.len(), 1);
    for arguments in [&["key", "rotate"][..], &["key", "reencrypt"], &["key", "retire", &before[0].0]] {
        let (code, _, said) = keys::run(&world.server, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
    }
    let left = keys::sealed(&world.server);
    assert_eq!((left.len(), left[0].1), (1, before[0].1), "everything was sealed again");
    world.server.kill();
    world.server.run();
    let receipts = items(&world.app.ask(&world.server, "GET", "/api/receipts", None).json());
    let id = receipts[0]["receipt_id"].as_str().expect("an id");
    let whole = world.app.ask(&world.server, "GET", &format!("/api/receipts/{id}"), None).json();
    assert_eq!(whole["body"].as_str().map(str::as_bytes), Some(sent.as_slice()));
    for (number, secret) in [("2", &own.secret), ("3", &newer)] {
        let reply = push(&world.server, &own.path, secret, number, &told(&world.host.url("o/r"), number));
        assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    }
    // An app goes with its hooks, their receipts and bodies.
    assert_eq!(world.app.ask(&world.server, "DELETE", "/api/app", None).status, 204);
    let late = push(&world.server, &own.path, &newer, "4", &body(&world.host.url("o/r"), "main"));
    assert_eq!(late.status, 401);
    let left = all_receipts(&world.server);
    assert!(left.iter().all(|row| row["verdict"] == "refused"), "{left:?}");
    let before = keys::sealed(&world.server)[0].1;
    println!("{before} values are sealed without the app");
}
