//! Test deliveries: what they send, what they tell, and that they change nothing.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tidings::{
    cli::listen::{ListenArgs, Listener},
    sinks::signature::{SigningKey, check},
};
use tidings_actors::{
    model::round::DeliveryId,
    model::secret::Secret,
    ports::{Notice, Transport},
    time::Timestamp,
};
use tidings_entity::kind::PayloadFormat;

use super::{Owner, paths};
use crate::support::{
    patience::SOON,
    peer::{Authority, Peer, Seen, Word},
    sender::{SECRET, WallClock, endpoint, world},
    server::Server,
    subscriber::KEY,
};

fn is_signed(seen: &Seen, key: &str) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &seen.message.headers {
        headers.append(
            name.parse::<HeaderName>().expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    let verdict = check(&SigningKey::readings(key), &headers, &seen.message.body, None);
    verdict.standard == Some(Ok(())) && verdict.docora == Some(Ok(()))
}

#[test]
fn a_test_delivery_is_signed_like_any_other_and_its_outcome_is_the_answer() {
    let server = Server::start();
    let peer = Peer::plain(|_| Word::Say(418, "short and stout\u{1b}".to_owned()));
    let owner = Owner::at(&server, Some(&format!("{}/in", peer.url())));
    let outcome = owner.test(&server);
    assert_eq!(
        [&outcome["accepted"], &outcome["status"], &outcome["failure"], &outcome["detail"]],
        [&json!(false), &json!(418), &Value::Null, &json!("short and stout\\u{1b}")]
    );
    let seen = peer.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/in/test"), "once, whatever it answers");
    assert!(is_signed(&seen[0], KEY) && !is_signed(&seen[0], "another-key-of-somebody"));
    let body = seen[0].json();
    assert_eq!((&body["event"]["type"], &body["event"]["id"]), (&json!("test"), &outcome["webhook_id"]));
    assert_eq!(seen[0].header("webhook-id"), outcome["webhook_id"]);
    assert_eq!(seen[0].header("x-docora-app-id"), body["app"]["app_id"]);
    assert_eq!(body.get("repository"), None, "nobody takes it for a change");

    peer.script(|_| Word::status(204));
    let again = owner.test(&server);
    assert_eq!((&again["accepted"], &again["status"]), (&json!(true), &json!(204)));
    assert_ne!(again["webhook_id"], outcome["webhook_id"]);
    assert_eq!(again["url"], json!(format!("{}/in/test", peer.url())));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_told_by_kind() {
    let server = Server::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", closed.local_addr().expect("bound"));
    drop(closed);
    let stranger = Peer::secure(Authority::new().server(None), |_| Word::status(200));
    let owner = Owner::at(&server, None);
    for (url, kind) in [(nobody, "connection"), (stranger.url(), "connection")] {
        let body = json!({ "base_url": url });
        let reply = owner.ask(&server, "POST", "/api/app/test", Some(&body));
        let outcome = reply.json();
        assert_eq!(
            (reply.status, &outcome["failure"], &outcome["status"]),
            (200, &json!(kind), &Value::Null)
        );
        assert_eq!(outcome["accepted"], false);
    }
    let outcome = owner.ask(&server, "POST", "/api/app/test", Some(&json!({ "base_url": stranger.url() })));
    let detail = outcome.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("UnknownIssuer"), "{detail}");
    for (url, fault) in [
        (
            "https://192.168.1.1",
            "192.168.1.1 is a private address and egress.allow does not list it (add 192.168.1.1 to allow it)",
        ),
        ("https://a.example/?x", "must not hold a query or a fragment, because a path is appended to it"),
    ] {
        let refused = owner.ask(&server, "POST", "/api/app/test", Some(&json!({ "base_url": url })));
        assert_eq!((refused.status, &refused.json()["errors"][0]["detail"]), (422, &json!(fault)));
    }
}

#[test]
fn test_deliveries_are_few_and_need_an_endpoint() {
    let server = Server::start();
    let peer = Peer::plain(|_| Word::status(200));
    let owner = Owner::at(&server, None);
    let nowhere = owner.ask(&server, "POST", "/api/app/test", None);
    assert_eq!(nowhere.status, 409, "{}", nowhere.json());
    assert!(nowhere.json()["detail"].as_str().expect("a text").contains("no endpoint"));
    let there = json!({ "base_url": peer.url() });
    for _ in 0..6 {
        assert_eq!(owner.ask(&server, "POST", "/api/app/test", Some(&there)).status, 200);
    }
    let first = owner.change(&server, &json!({ "base_url": peer.url(), "test_first": true }));
    let refused = owner.ask(&server, "POST", "/api/app/test", Some(&there));
    for refused in [first, refused] {
        assert_eq!(refused.status, 429, "{}", refused.json());
        let wait: u64 = refused.message.header("retry-after").expect("a wait").parse().expect("a number");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(peer.seen().len(), 6);
    assert_eq!(owner.ask(&server, "GET", "/api/app", None).json()["base_url"], Value::Null);
    let other = Owner::at(&server, Some(&peer.url()));
    assert_eq!(other.test(&server)["accepted"], true, "each app has its own share");
}

#[test]
fn a_test_delivery_feeds_no_breaker_disables_nobody_and_is_no_attempt() {
    let server = Server::start();
    let peer = Peer::plain(|_| Word::status(503));
    let owner = Owner::at(&server, Some(&peer.url()));
    for _ in 0..5 {
        assert_eq!(owner.test(&server)["status"], 503);
    }
    peer.script(|_| Word::status(410));
    assert_eq!(owner.test(&server)["status"], 410);
    let shown = owner.ask(&server, "GET", "/api/app", None).json();
    assert_eq!(shown["disabled"], Value::Null, "a 410 to a test disables nobody");
    let tree = server.ask_as_admin("GET", "/api/admin/tree").json().to_string();
    assert!(!tree.contains("circuit-breaker endpoint"), "five failures would have opened one: {tree}");
    assert_eq!(owner.ask(&server, "GET", "/api/dead-letters", None).json()["items"], json!([]));
}

#[test]
fn an_endpoint_is_changed_only_after_it_took_a_test_delivery() {
    let server = Server::start();
    let old = Peer::plain(|_| Word::status(200));
    let new = Peer::plain(|seen| Word::status(if is_signed(seen, NEW_KEY) { 200 } else { 401 }));
    let owner = Owner::at(&server, Some(&old.url()));
    let wish = json!({ "base_url": new.url(), "test_first": true, "delivery": { "synced": true } });
    let refused = owner.change(&server, &wish);
    let problem = refused.json();
    assert_eq!((refused.status, &problem["outcome"]["status"]), (422, &json!(401)), "{problem}");
    assert_eq!(problem["type"], "urn:tidings:problem:test-delivery-failed");
    let shown = owner.ask(&server, "GET", "/api/app", None).json();
    assert_eq!((&shown["base_url"], &shown["delivery"]["synced"]), (&json!(old.url()), &json!(false)));

    let mut wish = wish;
    wish["rotate_signing_key"] = json!(true);
    wish["client_auth_key"] = json!(NEW_KEY);
    wish["overlap_seconds"] = json!(0);
    let shown = owner.set(&server, &wish);
    assert_eq!((&shown["base_url"], &shown["delivery"]["synced"]), (&json!(new.url()), &json!(true)));
    assert_eq!(shown["signing_keys"], 1);
    assert_eq!(paths(&new), ["/test", "/test"], "it was tried with the settings that came with it");
    assert_eq!(paths(&old), Vec::<String>::new());
    let untested = owner.set(&server, &json!({ "base_url": old.url() }));
    assert_eq!((&untested["base_url"], paths(&old).len()), (&json!(old.url()), 0), "only who asks is tested");
    let nowhere = owner.change(&server, &json!({ "base_url": null, "test_first": true }));
    assert_eq!((nowhere.status, &nowhere.json()["errors"][0]["pointer"]), (422, &json!("/test_first")));
}

const NEW_KEY: &str = "a-key-that-comes-with-the-address";

#[derive(clap::Parser)]
struct ListenLine {
    #[command(flatten)]
    listen: ListenArgs,
}

#[tokio::test]
async fn listen_takes_a_test_delivery_in_both_formats_if_it_is_rightly_signed() {
    let line = ["listen", "--listen=127.0.0.1:0", "--secret", SECRET];
    let line = <ListenLine as clap::Parser>::parse_from(line);
    let listener = Listener::bind(&line.listen, Arc::new(WallClock), Box::new(std::io::sink())).await;
    let listener = listener.expect("bound");
    let mut endpoint = endpoint(format!("http://{}", listener.address()));
    endpoint.timeout = SOON;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(listener.run(std::future::pending()));
    let id = DeliveryId::of_test(&endpoint.app, b"salt");
    let notice = Notice::Test { id, app: endpoint.app.clone(), timestamp: Timestamp(0) };
    for format in [PayloadFormat::Docora, PayloadFormat::Cloudevents] {
        endpoint.format = format;
        let outcome = world().webhooks.notify(&endpoint, &notice).await;
        assert_eq!(outcome.result, Ok(200), "{outcome:?}");
    }
    endpoint.keys = vec![Secret::new("another-key-of-somebody".to_owned())];
    let outcome = world().webhooks.notify(&endpoint, &notice).await;
    assert_eq!(outcome.result, Ok(401), "{outcome:?}");
}

#[test]
fn the_command_line_says_by_its_exit_code_whether_the_endpoint_took_it() {
    let server = Server::start();
    let peer = Peer::plain(|_| Word::status(204));
    let owner = Owner::at(&server, Some(&peer.url()));
    let address = format!("http://{}", server.address());
    let perform = |arguments: &[&str]| {
        let arguments = [&["app"], arguments, &["--server", &address]].concat();
        let output = server.command(&arguments).env("TIDINGS_TOKEN", &owner.token).output().expect("it ran");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    let (code, text) = perform(&["test", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let outcome: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(true), &json!(204)));
    peer.script(|_| Word::Say(503, "out for lunch".to_owned()));
    let (code, text) = perform(&["test"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("503") && text.contains("did not accept"), "{text}");
    let (code, text) = perform(&["update", "--rate", "7", "--test-first"]);
    assert_eq!(code, Some(65), "{text}");
    assert!(text.contains("503: out for lunch"), "{text}");
    assert_eq!(owner.ask(&server, "GET", "/api/app", None).json()["delivery"]["rate"], Value::Null);
}
