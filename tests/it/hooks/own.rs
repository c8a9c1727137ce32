//! Hooks that apps have for themselves: an address and a secret each, which wake that app alone.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::sinks::signature::{SigningKey, standard};

use super::{World, body, digits, github, is, outcome, patient, send};
use crate::support::{
    api::{App, items},
    http::Reply,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    sender::WallClock,
    server::Server,
    subscriber::Subscriber,
};
use tidings_actors::ports::Clock;

/// A hook as its maker knows it.
pub(super) struct Own {
    pub(super) id: String,
    pub(super) path: String,
    pub(super) secret: String,
}

/// Makes a hook for an app.
pub(super) fn make(server: &Server, app: &App, wish: &Value) -> Own {
    let reply = app.ask(server, "POST", "/api/hooks", Some(wish));
    assert_eq!(reply.status, 201, "{}", reply.json());
    let made = reply.json();
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    Own { id: text("hook_id"), path: text("path"), secret: text("secret") }
}

/// Sends a push as GitHub does, to this path with this secret.
pub(super) fn push(server: &Server, path: &str, secret: &str, delivery: &str, body: &[u8]) -> Reply {
    let signature = format!("sha256={}", digits(secret, body));
    let fields = [
        ("x-github-delivery", delivery),
        ("x-github-event", "push"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/json"),
    ];
    send(server, path, &fields, body)
}

/// A push of `main` that is like no other.
pub(super) fn told(url: &str, mark: &str) -> Vec<u8> {
    let mut told: Value = serde_json::from_slice(&body(url, "main")).expect("JSON");
    told["pushed_at"] = json!(mark);
    told.to_string().into_bytes()
}

fn sample(text: &str, at: &str, url: &str) -> Vec<u8> {
    let mut body: Value = serde_json::from_str(text).expect("JSON");
    for field in ["clone_url", "html_url", "git_http_url", "web_url"] {
        if body[at].get(field).is_some() {
            body[at][field] = json!(url);
        }
    }
    body.to_string().into_bytes()
}

/// A problem without what differs from request to request.
fn refusal(reply: &Reply) -> (u16, Value) {
    let mut problem = reply.json();
    problem.as_object_mut().and_then(|problem| problem.remove("request_id"));
    (reply.status, problem)
}

#[test]
fn hooks_of_an_app_take_the_samples_of_each_kind_of_host() {
    let world = World::new();
    let url = world.host.url("o/r");
    let of = |provider: &str| {
        let wish = json!({ "name": provider, "provider": provider });
        make(&world.server, &world.app, &wish)
    };

    let second = world.push("b");
    let (own, text) = (of("github"), include_str!("../../../src/hook/samples/github-push.json"));
    let mut sent: Value = serde_json::from_slice(&sample(text, "repository", &url)).expect("JSON");
    sent["ref"] = json!("refs/heads/main");
    let reply = push(&world.server, &own.path, &own.secret, "1", sent.to_string().as_bytes());
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    world.wait_until_held(&second);

    let third = world.push("c");
    let (own, text) = (of("gitea"), include_str!("../../../src/hook/samples/gitea-push.json"));
    let mut sent: Value = serde_json::from_slice(&sample(text, "repository", &url)).expect("JSON");
    sent["ref"] = json!("refs/heads/main");
    let sent = sent.to_string();
    let signature = digits(&own.secret, sent.as_bytes());
    let fields = [
        ("x-gitea-delivery", "1"),
        ("x-gitea-event", "push"),
        ("x-gitea-signature", signature.as_str()),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, &own.path, &fields, sent.as_bytes());
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    world.wait_until_held(&third);

    let fourth = world.push("d");
    let (own, text) = (of("gitlab"), include_str!("../../../src/hook/samples/gitlab-push.json"));
    let sent = sample(text, "project", &url);
    let fields = [
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-token", own.secret.as_str()),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, &own.path, &fields, &sent);
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"), "with the token");
    world.wait_until_held(&fourth);

    let fifth = world.push("e");
    let sent = String::from_utf8(sent).expect("text").replace("bffeb74", "cffeb74").into_bytes();
    let seconds = WallClock.now().0 / 1000;
    let signature = standard(&[SigningKey::of_text(&own.secret)], "msg_1", seconds, &sent);
    let seconds = seconds.to_string();
    let fields = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", seconds.as_str()),
        ("webhook-signature", signature.as_str()),
        ("x-gitlab-event", "Push Hook"),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, &own.path, &fields, &sent);
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"), "with a signature");
    world.wait_until_held(&fifth);

    assert_eq!(world.hook("old address").status, 202, "the old address goes on");
    let log = world.server.log();
    assert!(!log.contains(&own.secret));
    world.subscriber.assert_straight();
}

/// The repositories and the name of a hook are changed; its address and its secret stay.
fn assert_changes(server: &Server, host: &Host, [ours, theirs]: [&App; 2], only: &Own, mine: &str) {
    let path = format!("/api/hooks/{}", only.id);
    let change = |app: &App, body: Value| {
        let reply = app.ask(server, "PATCH", &path, Some(&body));
        (reply.status, reply.json())
    };
    assert_eq!(change(theirs, json!({ "name": "mine" })).0, 404);
    assert_eq!(change(ours, json!({ "name": "all" })).0, 409, "the name is taken");
    assert_eq!(change(ours, json!({ "repository_id": "repo_00000000000000000000000000" })).0, 422);
    assert_eq!(change(ours, json!({ "provider": "gitea" })).0, 422, "it stays what it is");
    let (status, shown) = change(ours, json!({ "name": "wide", "repository_id": null }));
    assert_eq!((status, &shown["name"], shown.get("repository_url")), (200, &json!("wide"), None), "{shown}");
    let reply = push(server, &only.path, &only.secret, "3", &told(&host.url("o/s"), "3"));
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"), "all that the app watches");
    let (status, shown) = change(ours, json!({ "repository_id": mine }));
    assert_eq!((status, &shown["name"]), (200, &json!("wide")), "{shown}");
    let reply = push(server, &only.path, &only.secret, "4", &told(&host.url("o/s"), "4"));
    assert_eq!(outcome(&reply), is(200, "ignored", "unknown_repository"), "limited to o/r again");
}

#[test]
fn a_hook_wakes_its_own_app_alone() {
    let mut server = patient();
    server.run();
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    host.publish(&project, "o/s");
    let receivers = [Subscriber::start(), Subscriber::start()];
    let [ours, theirs] = receivers.each_ref().map(|receiver| App::onboard(&server, receiver));
    // Each reads the repository with a credential of its own, which the host sees.
    let watch = |app: &App, name: &str, token: &str| {
        let wish = json!({ "url": host.url(name), "branch": "main", "token": token });
        let id = app.watch_with(&server, &wish);
        app.wait_until_held(&server, &id, &project.head());
        id
    };
    let (mine, _) = (watch(&ours, "o/r", "token-of-ours"), watch(&ours, "o/s", "token-of-ours"));
    watch(&theirs, "o/r", "token-of-theirs");
    let only =
        make(&server, &ours, &json!({ "name": "only-r", "provider": "github", "repository_id": mine }));
    let all = make(&server, &ours, &json!({ "name": "all", "provider": "github" }));
    let other = make(&server, &theirs, &json!({ "name": "all", "provider": "github" }));
    host.take_seen();

    let elsewhere = told(&host.url("o/s"), "1");
    let reply = push(&server, &only.path, &only.secret, "1", &elsewhere);
    assert_eq!(outcome(&reply), is(200, "ignored", "unknown_repository"), "limited to o/r");
    let reply = push(&server, &other.path, &other.secret, "1", &elsewhere);
    assert_eq!(outcome(&reply), is(200, "ignored", "unknown_repository"), "they do not watch o/s");
    assert_eq!(host.take_polls(), 0, "nobody was polled");
    let reply = push(&server, &all.path, &all.secret, "1", &elsewhere);
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"), "the same delivery id at another hook");

    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "o/r");
    let here = told(&host.url("o/r"), "2");
    let reply = push(&server, &only.path, &only.secret, "2", &here);
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    ours.wait_until_held(&server, &mine, &second);
    let seen = host.take_seen();
    let asked = seen.iter().filter(|seen| seen.path.contains("o/r")).collect::<Vec<_>>();
    let ours_alone = data_encoding::BASE64.encode(b"x-access-token:token-of-theirs");
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|seen| !seen.authorization.as_deref().unwrap_or_default().contains(&ours_alone)
            && !seen.authorization.as_deref().unwrap_or_default().contains("token-of-theirs")),
        "their source was asked: {asked:?}"
    );
    let shown = theirs.ask(&server, "GET", &format!("/api/hooks/{}", only.id), None);
    assert_eq!(shown.status, 404, "another app's hook");
    let receipts = items(&theirs.ask(&server, "GET", "/api/receipts", None).json());
    assert_eq!(receipts.len(), 1, "their own: {receipts:?}");
    let foreign = items(&ours.ask(&server, "GET", "/api/receipts?hook=only-r", None).json());
    let id = foreign[0]["receipt_id"].as_str().expect("an id");
    for (method, path) in
        [("GET", format!("/api/receipts/{id}")), ("POST", format!("/api/receipts/{id}/replay"))]
    {
        assert_eq!(theirs.ask(&server, method, &path, None).status, 404, "{path}");
        assert!([200, 202].contains(&ours.ask(&server, method, &path, None).status), "{path}");
    }

    assert_changes(&server, &host, [&ours, &theirs], &only, &mine);
}

#[test]
fn an_unknown_address_and_a_wrong_proof_look_alike() {
    let world = World::new();
    let own = make(&world.server, &world.app, &json!({ "name": "ci", "provider": "github" }));
    let gitlab = make(&world.server, &world.app, &json!({ "name": "lab", "provider": "gitlab" }));
    let body = world.body("main");
    let sent = |path: &str, secret: &str| refusal(&push(&world.server, path, secret, "1", &body));
    let wrong = sent(&own.path, "a secret that nobody set");
    assert_eq!((wrong.0, &wrong.1["type"]), (401, &json!("urn:tidings:problem:hook-refused")));
    for (path, secret) in [
        ("/hooks/github/hook_01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(), own.secret.as_str()),
        ("/hooks/github/x".to_owned(), own.secret.as_str()),
        ("/hooks/github/%00".to_owned(), own.secret.as_str()),
        (own.path.replace("github", "gitea"), own.secret.as_str()),
        (own.path.clone(), gitlab.secret.as_str()),
        (own.path.clone(), super::SECRET),
    ] {
        assert_eq!(sent(&path, secret), wrong, "{path}");
    }
    let old = push(&world.server, "/hooks/github", &own.secret, "1", &body);
    assert_eq!(refusal(&old), wrong, "a secret of a hook opens no other address");
    let fields = [("x-github-event", "push"), ("content-type", "application/json")];
    let unsigned = |path: &str| refusal(&send(&world.server, path, &fields, &body));
    assert_eq!(unsigned(&own.path), unsigned("/hooks/github/hook_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
    assert_eq!(unsigned(&own.path).0, 401);
    assert_eq!(world.host.take_polls(), 0, "nobody was polled because of these");

    // The owner is told what was refused at the address.
    let shown = world.app.ask(&world.server, "GET", "/api/hooks/ci", None).json();
    assert_eq!(shown["last_receipt"]["reason"], "no_signature", "{shown}");
    let of_hook = items(&world.app.ask(&world.server, "GET", "/api/receipts?hook=ci", None).json());
    let reasons: Vec<_> = of_hook.iter().map(|row| row["reason"].as_str().expect("a text")).collect();
    assert_eq!(reasons[0], "no_signature");
    assert_eq!(
        reasons,
        ["no_signature", "no_signature", "wrong_signature", "wrong_signature", "wrong_signature"]
    );
    let genuine = push(&world.server, &own.path, &own.secret, "1", &body);
    assert_eq!(outcome(&genuine), is(202, "accepted", "ref_moved"), "no forged one took its place");
}

#[test]
fn a_rotated_secret_overlaps_with_the_one_before_and_no_longer() {
    let world = World::new();
    let own = make(&world.server, &world.app, &json!({ "name": "ci", "provider": "github" }));
    let mut number = 0;
    let mut status = |secret: &str| {
        number += 1;
        let body = told(&world.host.url("o/r"), &number.to_string());
        push(&world.server, &own.path, secret, &number.to_string(), &body).status
    };
    let rotate = |body: Value| {
        let reply = world.app.ask(&world.server, "POST", "/api/hooks/ci/rotate-secret", Some(&body));
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    };
    let rotated = rotate(json!({ "secret": "a secret that the owner brought" }));
    assert_eq!(rotated["secret"], "a secret that the owner brought");
    assert!(rotated["former_secret_until"].is_string());
    assert_eq!((status(&own.secret), status("a secret that the owner brought")), (202, 202));
    let again = rotate(json!({ "overlap_seconds": 2 }));
    let newest = again["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(status(&own.secret), 401, "two rotations ago");
    assert_eq!(status(&newest), 202);
    eventually("end of the overlap", SOON, || {
        (status("a secret that the owner brought") == 401).then_some(())
    });
    assert_eq!(status(&newest), 202);
    let shown = world.app.ask(&world.server, "GET", "/api/hooks/ci", None).json();
    assert!(shown.get("secret").is_none() && shown.get("former_secret_until").is_none(), "{shown}");
    let at_once = rotate(json!({ "overlap_seconds": 0 }));
    assert_eq!(status(&newest), 401);
    assert_eq!(status(at_once["secret"].as_str().expect("a secret")), 202);
    for bad in [json!({ "secret": "short" }), json!({ "overlap_seconds": 2_592_001 }), json!({ "x": 1 })] {
        let reply = world.app.ask(&world.server, "POST", "/api/hooks/ci/rotate-secret", Some(&bad));
        assert_eq!(reply.status, 422, "{bad}");
    }
}

#[test]
fn a_hook_outlives_a_kill_and_ends_with_its_removal() {
    let mut world = World::new();
    let own = make(&world.server, &world.app, &json!({ "name": "ci", "provider": "github" }));
    let first = told(&world.host.url("o/r"), "1");
    assert_eq!(push(&world.server, &own.path, &own.secret, "1", &first).status, 202);
    world.server.kill();
    world.server.run();
    let again = push(&world.server, &own.path, &own.secret, "1", &first);
    assert_eq!(outcome(&again), is(200, "duplicate", "seen_before"), "a 2xx is on disk");
    let of_hook = items(&world.app.ask(&world.server, "GET", "/api/receipts?verdict=accepted", None).json());
    let id = of_hook[0]["receipt_id"].as_str().expect("an id");
    let kept = world.app.ask(&world.server, "GET", &format!("/api/receipts/{id}"), None).json();
    assert_eq!(kept["body"].as_str().map(str::as_bytes), Some(first.as_slice()), "so is its body");
    let second = world.push("b");
    assert_eq!(
        push(&world.server, &own.path, &own.secret, "2", &told(&world.host.url("o/r"), "2")).status,
        202
    );
    world.wait_until_held(&second);

    let taken = world.app.ask(
        &world.server,
        "POST",
        "/api/hooks",
        Some(&json!({ "name": "ci", "provider": "gitlab" })),
    );
    assert_eq!(taken.status, 409, "the name is taken");
    assert_eq!(world.app.ask(&world.server, "DELETE", "/api/hooks/ci", None).status, 204);
    assert_eq!(world.app.ask(&world.server, "DELETE", "/api/hooks/ci", None).status, 404);
    let late = push(&world.server, &own.path, &own.secret, "3", &told(&world.host.url("o/r"), "3"));
    assert_eq!(late.status, 401);
    assert!(items(&world.app.ask(&world.server, "GET", "/api/receipts", None).json()).is_empty());
    assert_eq!(world.app.ask(&world.server, "GET", &format!("/api/receipts/{id}"), None).status, 404);
}

#[test]
fn a_hook_of_an_app_works_where_the_server_has_no_secret_and_makes_no_poll_rarer() {
    let mut server = Server::prepare().with("git.poll_min", "300ms").with("git.poll_max", "600ms");
    server = server.with("git.poll_max_hooked", "1h");
    server.run();
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "main" }));
    app.wait_until_held(&server, &id, &project.head());
    let own = make(&server, &app, &json!({ "name": "ci", "provider": "github" }));
    assert_eq!(github(&server, "1", &own.secret, b"{}").status, 404, "hooks.secret is not set");
    let reply = push(&server, &own.path, &own.secret, "1", &told(&host.url("o/r"), "1"));
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    std::thread::sleep(Duration::from_millis(1));
    host.take_polls();
    eventually("polls as often as without hooks", SOON, || (host.take_polls() > 0).then_some(()));
    eventually("further polls", SOON, || (host.take_polls() > 0).then_some(()));
    eventually("further polls", SOON, || (host.take_polls() > 0).then_some(()));
}

#[test]
fn what_no_hook_can_be_is_refused_with_its_reason() {
    let world = World::new();
    let refused = |wish: Value, field: &str| {
        let reply = world.app.ask(&world.server, "POST", "/api/hooks", Some(&wish));
        assert_eq!(reply.status, 422, "{wish}: {}", reply.json());
        let faults = reply.json()["errors"].to_string();
        assert!(faults.contains(&format!("\"/{field}\"")), "{wish}: {faults}");
    };
    refused(json!({ "provider": "github" }), "name");
    refused(json!({ "name": "ci" }), "provider");
    refused(json!({ "name": "ci", "provider": "svn" }), "provider");
    refused(json!({ "name": "a b", "provider": "github" }), "name");
    refused(json!({ "name": "hook_x", "provider": "github" }), "name");
    refused(json!({ "name": "ci", "provider": "github", "secret": "short" }), "secret");
    let nobodys = "repo_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    refused(json!({ "name": "ci", "provider": "github", "repository_id": nobodys }), "repository_id");
    for number in 0..100 {
        make(&world.server, &world.app, &json!({ "name": format!("h{number}"), "provider": "github" }));
    }
    let more = json!({ "name": "more", "provider": "github" });
    let reply = world.app.ask(&world.server, "POST", "/api/hooks", Some(&more));
    assert_eq!(reply.status, 409, "{}", reply.json());
    assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.contains("at most 100")));
}
