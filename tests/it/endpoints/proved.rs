//! What goes with each request: header fields, a password, a token, a token of a token server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tidings_actors::{
    model::secret::Secret,
    ports::{EndpointAccess, EndpointAuth, SendFailure},
};

use super::{Owner, paths};
use crate::support::{
    patience::{SOON, eventually},
    peer::{Peer, Seen, Word},
    project::Project,
    sender::{endpoint, parcel, world},
    server::Server,
};

const PASSWORD: &str = "a-password-of-a-story";
const BEARER: &str = "a-bearer-token-of-a-story";
const HEADER: &str = "a-header-value-of-a-story";
const CLIENT_SECRET: &str = "a client/secret+of a story";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// A token server that issues `token-1`, `token-2`, ... and says that they live this long.
fn token_server(expires_in: u64) -> Peer {
    let count = AtomicUsize::new(0);
    Peer::plain(move |seen| {
        // Both parts are form-encoded before they are joined.
        let proof = basic("a+client", "a+client%2Fsecret%2Bof+a+story");
        if seen.header("authorization") != proof {
            let echo =
                json!({ "error": "invalid_client", "error_description": seen.header("authorization") });
            return Word::Say(401, echo.to_string());
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let token = json!({
            "access_token": format!("token-{number}-of-a-story"), "token_type": "Bearer", "expires_in": expires_in,
        });
        Word::Say(200, token.to_string())
    })
}

fn client(server: &Peer) -> Value {
    json!({ "oauth2": {
        "token_url": format!("{}/token", server.url()), "client_id": "a client", "client_secret": CLIENT_SECRET,
        "scope": "push all", "audience": "https://receiver.example",
    } })
}

fn bearers(peer: &Peer) -> Vec<String> {
    peer.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect()
}

#[test]
fn headers_and_credentials_go_with_every_request_and_are_never_shown() {
    let server = Server::start();
    let peer = Peer::plain(|_| Word::status(200));
    let fields = json!({
        "delivery": { "headers": { "X-Api-Key": HEADER, "x-tenant": "seven" } },
        "endpoint_auth": { "basic": { "username": "user", "password": PASSWORD } },
    });
    let owner = Owner::with(&server, Some(&peer.url()), &fields);
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let watch = json!({ "url": project.url() });
    assert_eq!(owner.ask(&server, "POST", "/api/repositories", Some(&watch)).status, 201);
    for seen in peer.wait_for(2) {
        assert_eq!((seen.header("x-api-key"), seen.header("x-tenant")), (HEADER, "seven"), "{}", seen.path);
        assert_eq!(seen.header("authorization"), basic("user", PASSWORD));
        assert_eq!(seen.header("content-type"), "application/json");
    }
    let shown = owner.ask(&server, "GET", "/api/app", None).json();
    assert_eq!(shown["endpoint_headers"], json!(["x-api-key", "x-tenant"]));
    assert_eq!(shown["endpoint_auth"], json!({ "basic": { "username": "user" } }));
    let text = shown.to_string();
    assert!(!text.contains(HEADER) && !text.contains(PASSWORD) && !text.contains("seven"), "{text}");

    let changed = owner.set(
        &server,
        &json!({
            "delivery": { "headers": { "x-tenant": null, "x-more": "eight" } },
            "endpoint_auth": { "bearer": { "token": BEARER } },
        }),
    );
    assert_eq!(changed["endpoint_headers"], json!(["x-api-key", "x-more"]));
    assert_eq!(changed["endpoint_auth"], json!({ "bearer": {} }));
    peer.script(|seen| {
        let sent = seen.message.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        Word::Say(500, sent.collect::<Vec<_>>().join(" | "))
    });
    let outcome = owner.test(&server);
    let seen = peer.seen().pop().expect("a request");
    assert_eq!((seen.header("x-tenant"), seen.header("x-more")), ("", "eight"));
    assert_eq!(seen.header("authorization"), format!("Bearer {BEARER}"));
    let detail = outcome["detail"].as_str().expect("a text");
    assert!(detail.contains("[redacted]"), "the endpoint repeats what it got: {detail}");
    assert!(!detail.contains(BEARER) && !detail.contains(HEADER), "{detail}");

    owner.set(&server, &json!({ "delivery": { "headers": null }, "endpoint_auth": null }));
    owner.test(&server);
    let seen = peer.seen().pop().expect("a request");
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), ("", ""));
    let shown = owner.ask(&server, "GET", "/api/app", None).json();
    assert_eq!((&shown["endpoint_headers"], &shown["endpoint_auth"]), (&json!([]), &Value::Null));
}

#[test]
fn secrets_survive_a_restart_and_a_rotation_of_the_signing_key_leaves_them() {
    let mut server = Server::start();
    let peer = Peer::plain(|_| Word::status(200));
    let fields = json!({ "endpoint_auth": { "bearer": { "token": BEARER } } });
    let owner = Owner::with(&server, Some(&peer.url()), &fields);
    owner.set(&server, &json!({ "rotate_signing_key": true }));
    server.kill();
    server.run();
    assert_eq!(owner.test(&server)["accepted"], true);
    let seen = peer.seen().pop().expect("a request");
    assert_eq!(seen.header("authorization"), format!("Bearer {BEARER}"));
    assert_eq!(seen.header("webhook-signature").split(' ').count(), 2, "both keys sign");
}

#[test]
fn one_token_serves_all_attempts_until_it_is_about_to_end() {
    let server = Server::start();
    let (tokens, short) = (token_server(3600), token_server(0));
    let peer = Peer::plain(|_| Word::status(200));
    let fields = json!({
        "endpoint_auth": client(&tokens), "delivery": { "order": "phased", "max_in_flight": 8 },
    });
    let owner = Owner::with(&server, Some(&peer.url()), &fields);
    let files: Vec<(String, &str)> = (0..24).map(|number| (format!("f{number:02}"), "1")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    let project = Project::with(&files);
    owner.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": project.url() })));
    peer.wait_for(24);
    assert!(
        bearers(&peer).iter().all(|bearer| bearer == "Bearer token-1-of-a-story"),
        "{:?}",
        bearers(&peer)
    );
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "one asks, the others wait for it");
    assert_eq!(asked[0].header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(
        asked[0].text(),
        "grant_type=client_credentials&scope=push+all&audience=https%3A%2F%2Freceiver.example"
    );
    owner.set(&server, &json!({ "endpoint_auth": client(&short) }));
    for number in 1..=2 {
        assert_eq!(owner.test(&server)["accepted"], true);
        let bearer = bearers(&peer).pop().expect("a request");
        assert_eq!(bearer, format!("Bearer token-{number}-of-a-story"), "one that has ended is not used");
    }
}

#[test]
fn a_token_that_the_endpoint_refuses_is_renewed_once_within_the_attempt() {
    let server = Server::start();
    let tokens = token_server(3600);
    let peer = Peer::plain(|_| Word::status(204));
    let owner = Owner::with(&server, Some(&peer.url()), &json!({ "endpoint_auth": client(&tokens) }));
    assert_eq!(owner.test(&server)["accepted"], true);
    let fresh = |seen: &Seen| seen.header("authorization") == "Bearer token-2-of-a-story";
    peer.script(move |seen| Word::status(if fresh(seen) { 204 } else { 401 }));
    let outcome = owner.test(&server);
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(true), &json!(204)));
    assert_eq!((tokens.seen().len(), peer.seen().len()), (2, 3), "asked once more, sent once more");
    let seen = peer.seen();
    assert_eq!(seen[1].header("webhook-id"), seen[2].header("webhook-id"), "it is one attempt");
    assert_eq!(seen[1].message.body, seen[2].message.body);

    peer.script(|_| Word::status(401));
    let outcome = owner.test(&server);
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(false), &json!(401)));
    assert_eq!((tokens.seen().len(), peer.seen().len()), (3, 5), "not again and again");
}

#[test]
fn without_a_token_nothing_is_sent_and_the_reason_is_told_without_the_secret() {
    // The silent one costs this time once. The others answer within it, also on a busy machine.
    let mut server = Server::prepare().with("delivery.attempt_timeout", "5s");
    server.run();
    let peer = Peer::plain(|_| Word::status(200));
    let (refusing, silent) = (token_server(3600), Peer::plain(|_| Word::Hang));
    let wordy = Peer::plain(|_| Word::Say(200, "<html>please log in</html>".to_owned()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", closed.local_addr().expect("bound"));
    drop(closed);
    let mut wrong = client(&refusing);
    wrong["oauth2"]["client_secret"] = json!("a-wrong-client-secret");
    let mut gone = client(&silent);
    gone["oauth2"]["token_url"] = json!(nobody);
    for (auth, word) in [
        (wrong, "status 401 (invalid_client)"),
        (client(&silent), "did not answer in time"),
        (client(&wordy), "holds no usable access token"),
        (gone, "could not be reached"),
    ] {
        let owner = Owner::with(&server, Some(&peer.url()), &json!({ "endpoint_auth": auth }));
        let outcome = owner.test(&server);
        assert_eq!((&outcome["accepted"], &outcome["failure"]), (&json!(false), &json!("connection")));
        let detail = outcome["detail"].as_str().expect("a text");
        assert!(detail.starts_with("no access token: ") && detail.contains(word), "{detail}");
        assert!(!detail.contains("wrong-client"), "{detail}");
    }
    assert_eq!(paths(&peer), Vec::<String>::new());
}

#[test]
fn a_token_server_that_fails_opens_the_endpoints_breaker_and_nothing_is_lost() {
    let server = Server::start();
    let is_well = Arc::new(AtomicUsize::new(0));
    let well = Arc::clone(&is_well);
    let tokens = Peer::plain(move |_| {
        if well.load(Ordering::SeqCst) == 0 {
            return Word::status(503);
        }
        Word::Say(200, json!({ "access_token": "a-token-at-last", "token_type": "Bearer" }).to_string())
    });
    let peer = Peer::plain(|_| Word::status(200));
    let owner = Owner::with(&server, Some(&peer.url()), &json!({ "endpoint_auth": client(&tokens) }));
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let watch = owner.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": project.url() })));
    assert_eq!(watch.status, 201);
    eventually("open breaker", SOON, || {
        let tree = server.ask_as_admin("GET", "/api/admin/tree").json().to_string();
        tree.contains("circuit-breaker").then_some(())
    });
    assert_eq!(owner.ask(&server, "GET", "/api/dead-letters", None).json()["items"], json!([]));
    assert_eq!(paths(&peer), Vec::<String>::new());
    is_well.store(1, Ordering::SeqCst);
    peer.wait_for(2);
    assert_eq!(paths(&peer), ["/create", "/create"], "all of it, in order");
    assert_eq!(bearers(&peer)[1], "Bearer a-token-at-last");
}

#[tokio::test]
async fn what_an_app_keeps_secret_goes_over_https_only() {
    let world = world();
    let mut endpoint = endpoint("http://receiver.example".to_owned());
    let token = || Secret::new(BEARER.to_owned());
    let header = BTreeMap::from([("x-key".to_owned(), token())]);
    for access in [
        EndpointAccess { auth: Some(EndpointAuth::Bearer { token: token() }), ..EndpointAccess::default() },
        EndpointAccess { headers: header, ..EndpointAccess::default() },
    ] {
        endpoint.access = Arc::new(access);
        let outcome = world.send(&endpoint, &parcel("{}")).await;
        assert_eq!(outcome.result, Err(SendFailure::Refused), "{outcome:?}");
        assert!(outcome.excerpt.contains("https only"), "{outcome:?}");
    }
}

#[test]
fn a_test_of_another_address_takes_nothing_along_that_the_endpoint_is_shown() {
    let server = Server::start();
    let (own, other) = (Peer::plain(|_| Word::status(200)), Peer::plain(|_| Word::status(200)));
    let fields = json!({
        "delivery": { "headers": { "x-api-key": HEADER } },
        "endpoint_auth": { "bearer": { "token": BEARER } },
    });
    let owner = Owner::with(&server, Some(&own.url()), &fields);
    for (peer, authorization, key) in
        [(&other, String::new(), ""), (&own, format!("Bearer {BEARER}"), HEADER)]
    {
        let wish = json!({ "base_url": format!("{}/elsewhere", peer.url()) });
        assert_eq!(owner.ask(&server, "POST", "/api/app/test", Some(&wish)).json()["accepted"], true);
        let seen = peer.seen().pop().expect("a request");
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (&*authorization, key));
    }
}
