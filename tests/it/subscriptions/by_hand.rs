//! What people do with subscriptions: over the API, on the command line, and where it is not theirs.

use super::*;
use crate::support::private_file;

#[test]
fn a_test_says_what_was_answered_and_moves_nothing() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    let made = scene.subscribe("ops", &inbox.url(), &json!({}));
    let secret = made["sink"]["signing_secret"].as_str().expect("a secret");
    let outcome = scene.act("ops", "test");
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(true), &json!(200)), "{outcome}");
    let letter = inbox.letters().remove(0);
    assert_eq!((letter.kind(), letter.path.as_str()), ("test", "/in"));
    assert!(letter.is_signed_with(&[secret]));
    inbox.script(|_| 418);
    let outcome = scene.act("ops", "test");
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(false), &json!(418)));
    assert_eq!(scene.entries(""), Vec::<Value>::new());
    assert!(scene.tries("ops", "").is_empty());
    for _ in 0..4 {
        scene.act("ops", "test");
    }
    assert_eq!(scene.ask("POST", "/ops/test", None).0, 429, "six a minute");
}

#[test]
fn a_new_key_signs_at_once_and_the_old_one_beside_it_for_a_while() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    let made = scene.subscribe("ops", &inbox.url(), &json!({}));
    let secret = |shown: &Value| shown["sink"]["signing_secret"].as_str().expect("a secret").to_owned();
    let first = secret(&made);
    let second = secret(&scene.act("ops", "rotate-key"));
    scene.act("ops", "test");
    let letter = inbox.letters().pop().expect("a letter");
    assert_eq!(letter.header("webhook-signature").split(' ').count(), 2, "one for each key");
    assert!(letter.is_signed_with(&[&first]), "who has the old key alone goes on");
    assert!(letter.is_signed_with(&[&second, &first]));
    let (status, shown) = scene.ask("POST", "/ops/rotate-key", Some(&json!({ "overlap_seconds": 0 })));
    assert_eq!(status, 200, "{shown}");
    scene.act("ops", "test");
    let letter = inbox.letters().pop().expect("a letter");
    assert!(letter.is_signed_with(&[&secret(&shown)]));
    assert!(!letter.is_signed_with(&[&first]) && !letter.is_signed_with(&[&second]));
}

#[test]
fn a_body_that_is_wrong_is_told_each_field_and_what_mends_it() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    let good = json!({ "name": "ops", "sink": { "url": inbox.url() } });
    for (key, value, pointer, part) in [
        ("name", json!("a b"), "/name", "letters"),
        ("name", json!("sub_x"), "/name", "sub_"),
        ("filter", json!("typ:x"), "/filter", "column 1"),
        ("filter", json!("(a"), "/filter", "column"),
        ("filter", json!("type:source.failed"), "/filter", "source.failing, "),
        ("sink", json!({}), "/sink", "url (https:// or nats://), or to (mail addresses)"),
        ("sink", json!({ "format": "docora" }), "/sink", "must say where entries go"),
        ("sink", json!({ "url": 5 }), "/sink/url", "must be a text"),
        (
            "sink",
            json!({ "url": format!("{}?key=1", inbox.url()) }),
            "/sink/url",
            "clear text; send a secret in",
        ),
        ("sink", json!({ "url": inbox.url(), "format": "xml" }), "/sink/format", "docora, cloudevents"),
        ("sink", json!({ "url": inbox.url(), "retry_cap_ms": 0 }), "/sink/retry_cap_ms", "1 or more"),
        ("sink", json!({ "kind": "pull" }), "/sink/kind", "endpoint, stream"),
        ("sink", json!({ "kind": "email" }), "/sink/kind", "endpoint, stream, mail"),
        ("sink", json!({ "kind": "endpoint" }), "/sink/url", "is required"),
        ("sink", json!({ "url": inbox.url(), "batch": {} }), "/sink/batch", "no field"),
        ("from", json!(0), "/from", "numbered from 1"),
        ("expires_at", json!("soon"), "/expires_at", "RFC 3339"),
        ("expires_at", json!("2001-01-01T00:00:00Z"), "/expires_at", "future"),
        ("colour", json!("red"), "/colour", "no such field"),
    ] {
        let mut body = good.clone();
        body[key] = value.clone();
        let (status, problem) = scene.ask("POST", "", Some(&body));
        assert_eq!(status, 422, "{key} {value}: {problem}");
        let fault = &problem["errors"][0];
        assert_eq!(fault["pointer"], pointer, "{problem}");
        assert!(fault["detail"].as_str().expect("a text").contains(part), "{fault}");
    }
    let private = json!({ "name": "ops", "sink": { "url": "http://10.1.2.3/in" } });
    let (_, problem) = scene.ask("POST", "", Some(&private));
    let error = problem["error"].as_str().expect("a text");
    assert!(error.starts_with("sink.url: 10.1.2.3 is") && error.contains("egress.allow"), "{problem}");
    let (status, problem) = scene.ask("GET", "/nosuch", None);
    assert_eq!(status, 404);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("\"nosuch\"")), "{problem}");
    assert_eq!(scene.ask("POST", "", Some(&json!({}))).0, 422);
    assert_eq!(scene.ask("POST", "", Some(&good)).0, 201);
    let (status, problem) = scene.ask("POST", "", Some(&good));
    assert_eq!(status, 409, "{problem}");
    for number in 1..100 {
        let body = json!({ "name": format!("s{number}"), "sink": { "url": inbox.url() } });
        assert_eq!(scene.ask("POST", "", Some(&body)).0, 201);
    }
    let (status, problem) = scene.ask("POST", "", Some(&json!({ "name": "x", "sink": good["sink"] })));
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().expect("a detail").contains("100"), "{problem}");
    assert_eq!(items(&scene.ask("GET", "?q=name:s7", None).1).len(), 1);
    assert_eq!(items(&scene.ask("GET", "?q=state:paused", None).1).len(), 0);
    assert_eq!(scene.ask("GET", "?q=colour:red", None).0, 400);
}

#[test]
fn a_change_takes_effect_and_an_end_ends_it() {
    let (scene, inbox, other) = (Scene::start(), Inbox::start(), Inbox::start());
    inbox.script(|_| 503);
    let made = scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.commit(2);
    scene.settle();
    scene.wait_for_state("ops", "blocked");
    let id = made["subscription_id"].as_str().expect("an id");
    let patch = json!({ "name": "new", "filter": "type:round.ended", "sink": { "url": other.url() } });
    let (status, shown) = scene.ask("PATCH", &format!("/{id}"), Some(&patch));
    assert_eq!((status, &shown["state"]), (200, &json!("active")), "{shown}");
    let ended = scene.numbers("type:round.ended");
    other.wait_for(ended[1]);
    assert_eq!(other.taken(), ended, "under its new filter, at its new address");
    let secret = made["sink"]["signing_secret"].as_str().expect("a secret");
    assert!(other.letters()[0].is_signed_with(&[secret]), "the key stays");
    assert_eq!(scene.ask("PATCH", "/new", Some(&json!({ "from": 2 }))).0, 200);
    let twice = [&ended[..], &ended].concat();
    eventually("sent again", SOON, || (other.taken() == twice).then_some(()));

    for (field, reason) in [
        ("subscription_id", "name can be changed"),
        ("state", "/pause and /resume"),
        ("position", "from names the next entry"),
        ("callback", "the webhook of a task"),
        ("rotate_signing_key", "/rotate-key replaces the key"),
    ] {
        let (status, problem) = scene.ask("PATCH", "/new", Some(&json!({ field: "x" })));
        let fault = &problem["errors"][0];
        assert_eq!((status, &fault["pointer"]), (422, &json!(format!("/{field}"))), "{problem}");
        let detail = fault["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with("cannot be changed: ") && detail.contains(reason), "{problem}");
    }
    let soon = json!({ "expires_at": "2001-01-01T00:00:00Z" });
    assert_eq!(scene.ask("PATCH", "/new", Some(&soon)).0, 422);
    let (status, shown) = scene.ask("PATCH", "/new", Some(&json!({ "expires_at": "2999-01-01T00:00:00Z" })));
    assert_eq!((status, &shown["expires_at"]), (200, &json!("2999-01-01T00:00:00.000Z")));
    let before = scene.numbers(ROUNDS).pop();
    let (status, _) = scene.ask("DELETE", "/new", None);
    assert_eq!(status, 204);
    assert_eq!(scene.ask("GET", &format!("/{id}"), None).0, 404);
    scene.commit(1);
    scene.settle();
    // That the subscription moves again is told a minute later, and is no entry of a round.
    assert_eq!(scene.numbers(ROUNDS).pop(), before, "nobody reads rounds any more");
}

#[test]
fn what_belongs_to_another_app_looks_like_what_is_not_there() {
    let (scene, inbox, stranger) = (Scene::start(), Inbox::start(), Subscriber::start());
    let id = scene.subscribe("ops", &inbox.url(), &json!({}))["subscription_id"].clone();
    let id = id.as_str().expect("an id");
    let other = App::onboard(&scene.server, &stranger);
    let missing = "sub_00000000000000000000000000";
    for (method, path, body) in [
        ("GET", "", None),
        ("PATCH", "", Some(json!({ "name": "mine" }))),
        ("DELETE", "", None),
        ("GET", "/attempts", None),
        ("POST", "/test", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/rotate-key", None),
        ("POST", "/send", Some(json!({ "number": 1 }))),
    ] {
        let answers = [id, "ops", missing].map(|named| {
            let path = format!("/api/subscriptions/{named}{path}");
            let reply = other.ask(&scene.server, method, &path, body.as_ref());
            let mut problem = reply.json();
            problem["request_id"] = Value::Null;
            let detail = problem["detail"].as_str().expect("it names what is not there").to_owned();
            problem["detail"] = json!(detail.replace(named, "NAMED"));
            (reply.status, problem)
        });
        assert_eq!(answers[0].0, 404, "{method} {path}: {}", answers[0].1);
        assert!(answers[0] == answers[2] && answers[1] == answers[2], "{method} {path}: {answers:?}");
    }
    let list = items(&other.ask(&scene.server, "GET", "/api/subscriptions", None).json());
    assert!(list.is_empty(), "{list:?}");
    assert!(inbox.letters().is_empty());
    let path = format!("/api/admin/apps/{}/subscriptions/ops/pause", scene.app.id);
    assert_eq!(
        scene.server.ask_as_admin("POST", &path).json()["state"],
        "paused",
        "the staff does it for it"
    );
}

/// A file that nobody else may read.
#[test]
fn the_command_line_does_all_of_it() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    let address = format!("http://{}", scene.server.address());
    let run = |arguments: &[&str]| -> (Option<i32>, Value, String) {
        let mut command = scene.server.command(&[&["subscription"], arguments].concat());
        command.args(["--server", &address]).env("TIDINGS_TOKEN", scene.app.token.trim());
        let ended = command.output().expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("a text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        (ended.status.code(), json, text + &String::from_utf8_lossy(&ended.stderr))
    };
    let url = inbox.url();
    let (code, made, text) = run(&["add", "ops", "--url", &url, "--filter", ROUNDS, "--json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(made["sink"]["signing_secret"].is_string());
    scene.commit(1);
    scene.wait_until_done(&inbox);
    // What the last message was answered is written down after it arrived.
    eventually("position", SOON, || (scene.shown("ops")["position"] == 2).then_some(()));
    let (_, _, text) = run(&["list"]);
    assert!(text.contains("ops") && text.contains("active") && text.contains(ROUNDS), "{text}");
    let (_, listed, _) = run(&["list", "--json", "--query", "state:active"]);
    assert_eq!(items(&listed).len(), 1);
    let (_, shown, _) = run(&["show", "ops", "--json"]);
    assert_eq!((items(&shown["attempts"]).len(), &shown["position"]), (2, &json!(2)), "{shown}");
    assert_eq!(items(&run(&["attempts", "ops", "--json"]).1).len(), 2);
    assert_eq!(items(&run(&["attempts", "ops", "--number", "2", "--json"]).1).len(), 1);
    for (verb, state) in [("pause", "paused"), ("resume", "active")] {
        assert_eq!(run(&[verb, "ops", "--json"]).1["state"], state);
    }
    assert_eq!(run(&["test", "ops"]).0, Some(0));
    assert_eq!(run(&["send", "ops", "1"]).0, Some(0));
    assert_eq!(inbox.taken(), [1, 2, 1]);
    inbox.script(|_| 500);
    assert_eq!(run(&["test", "ops"]).0, Some(1), "a test that is not taken fails");
    assert_eq!(run(&["remove", "ops"]).0, Some(0));
    let (code, _, text) = run(&["show", "ops"]);
    assert!(code == Some(65) && text.contains("\"ops\"") && text.contains("subscription list"), "{text}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let dead = format!("http://{closed}/in");
    assert_eq!(run(&["add", "dead", "--url", &dead]).0, Some(0));
    let (code, _, text) = run(&["test", "dead"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("{dead} cannot be reached")) && !text.contains("answered"), "{text}");

    let (code, _, text) = run(&["add", "nowhere"]);
    assert!(code == Some(64) && text.contains("--url <URL>|--mail <TO>"), "{code:?} {text}");
    let (code, made, text) =
        run(&["update", "dead", "--name", "well", "--url", &url, "--filter", "", "--json"]);
    assert_eq!((code, &made["name"], &made["sink"]["url"]), (Some(0), &json!("well"), &json!(url)), "{text}");
    let (code, made, text) = run(&["update", "well", "--expires-at", "2999-01-01T00:00:00Z", "--json"]);
    assert!(code == Some(0) && made["expires_at"].is_string(), "{text}");
    assert_eq!(run(&["update", "well", "--no-end", "--json"]).1.get("expires_at"), None);
    assert_eq!(run(&["update", "well"]).0, Some(64), "nothing is named");
    assert!(run(&["rotate-key", "well", "--json"]).1["sink"]["signing_secret"].is_string());
    assert_eq!(run(&["remove", "well"]).0, Some(0));

    let folder = tempfile::tempdir().expect("a folder");
    let secret = |name: &str, text: &str| private_file(folder.path(), name, text);
    inbox.script(|_| 200);
    let header = format!("X-Team={}", secret("team", "blue"));
    let token = secret("token", "of-the-inbox");
    let access = ["--header-file", &header, "--bearer", "--auth-secret-file", &token];
    let (code, made, text) = run(&[&["add", "kept", "--url", &url, "--json"], &access[..]].concat());
    assert_eq!((code, &made["sink"]["has_access"]), (Some(0), &json!(true)), "{text}");
    assert_eq!(run(&["test", "kept"]).0, Some(0));
    let letter = inbox.letters().pop().expect("a letter");
    assert_eq!((letter.header("x-team"), letter.header("authorization")), ("blue", "Bearer of-the-inbox"));
    assert_ne!(run(&[&["add", "m", "--mail", "a@b.example"], &access[..]].concat()).0, Some(0));
    let (code, _, text) = run(&["add", "x", "--url", &url, "--filter", "typ:x"]);
    assert!(code == Some(65) && text.contains("filter"), "{code:?} {text}");
}
