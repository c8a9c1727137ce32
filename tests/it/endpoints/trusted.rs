//! TLS towards endpoints: authorities of an app's own, and certificates that it shows.

use serde_json::{Value, json};

use super::Owner;
use crate::support::{
    patience::{SOON, eventually},
    peer::{Authority, Pair, Peer, Word},
    project::Project,
    server::Server,
};

fn tls(authority: &Authority, client: Option<&Pair>) -> Value {
    let mut tls = json!({ "ca": authority.pem() });
    if let Some(client) = client {
        tls["client_certificate"] = json!(client.certificate);
        tls["client_key"] = json!(client.key);
    }
    json!({ "endpoint_tls": tls })
}

fn detail(outcome: &Value) -> &str {
    assert_eq!((&outcome["accepted"], &outcome["failure"]), (&json!(false), &json!("connection")));
    outcome["detail"].as_str().expect("a text")
}

#[test]
fn only_an_authority_that_the_app_named_is_trusted() {
    let server = Server::start();
    let (authority, other) = (Authority::new(), Authority::new());
    let peer = Peer::secure(authority.server(None), |_| Word::status(200));
    let owner = Owner::at(&server, Some(&peer.url()));
    assert!(detail(&owner.test(&server)).contains("UnknownIssuer"));
    owner.set(&server, &tls(&other, None));
    let outcome = owner.test(&server);
    assert!(detail(&outcome).contains("certificate"), "{outcome}");
    let shown = owner.set(&server, &tls(&authority, None));
    assert_eq!(shown["endpoint_tls"]["client_certificate"], Value::Null);
    assert_eq!(shown["endpoint_tls"]["ca"][0]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(owner.test(&server)["accepted"], true);
    let stranger = Owner::at(&server, Some(&peer.url()));
    assert!(detail(&stranger.test(&server)).contains("UnknownIssuer"), "it is this app's authority alone");
    owner.set(&server, &json!({ "endpoint_tls": null }));
    assert!(detail(&owner.test(&server)).contains("UnknownIssuer"), "without it all is as before");
}

#[test]
fn a_round_reaches_an_endpoint_that_asks_for_a_certificate() {
    let mut server = Server::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let peer = Peer::secure(authority.server(Some(&clients)), |_| Word::status(200));
    let own = clients.pair("client", 2999);
    let owner = Owner::with(&server, Some(&peer.url()), &tls(&authority, Some(&own)));
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    owner.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": project.url() })));
    let seen = peer.wait_for(3);
    assert!(seen.iter().all(|seen| seen.proof == own.proof() && seen.path == "/create"));
    // What is not settled yet would come again.
    eventually("end of the round", SOON, || {
        let shown = owner.ask(&server, "GET", "/api/repositories", None).json();
        (shown["items"][0]["branches"][0]["held_commit"] == project.head().as_str()).then_some(())
    });
    server.kill();
    server.run();
    assert_eq!(owner.test(&server)["accepted"], true, "it is kept");

    let bare = Owner::with(&server, Some(&peer.url()), &tls(&authority, None));
    let foreign = Authority::new().pair("client", 2999);
    let wrong = Owner::with(&server, Some(&peer.url()), &tls(&authority, Some(&foreign)));
    for (owner, who) in [(bare, "no certificate"), (wrong, "a foreign certificate")] {
        let outcome = owner.test(&server);
        assert_eq!(
            (&outcome["accepted"], &outcome["failure"]),
            (&json!(false), &json!("connection")),
            "{who}"
        );
    }
    assert_eq!(peer.seen().len(), 4);
}

#[test]
fn each_app_shows_its_own_certificate_and_a_new_one_from_the_next_request_on() {
    let server = Server::start();
    let authority = Authority::new();
    let peer = Peer::secure(authority.server(Some(&authority)), |_| Word::status(200));
    let [first, second, third] = [(); 3].map(|()| authority.pair("client", 2999));
    let one = Owner::with(&server, Some(&peer.url()), &tls(&authority, Some(&first)));
    let other = Owner::with(&server, Some(&peer.url()), &tls(&authority, Some(&second)));
    for owner in [&one, &other, &one] {
        assert_eq!(owner.test(&server)["accepted"], true);
    }
    one.set(&server, &tls(&authority, Some(&third)));
    for owner in [&one, &other] {
        assert_eq!(owner.test(&server)["accepted"], true);
    }
    let shown: Vec<String> = peer.seen().into_iter().map(|seen| seen.proof).collect();
    assert_eq!(shown, [&first, &second, &first, &third, &second].map(Pair::proof));
}

#[test]
fn a_setup_that_cannot_work_is_refused_when_it_is_given() {
    let server = Server::start();
    let authority = Authority::new();
    let (good, other, over) =
        (authority.pair("client", 2999), authority.pair("client", 2999), authority.pair("client", 2001));
    let owner = Owner::at(&server, Some("https://app.example"));
    owner.set(&server, &tls(&authority, Some(&good)));
    let before = owner.ask(&server, "GET", "/api/app", None).json();
    for (setup, pointer, word) in [
        (json!({ "client_certificate": good.certificate, "client_key": other.key }), "client_key", "belong"),
        (
            json!({ "client_certificate": over.certificate, "client_key": over.key }),
            "client_certificate",
            "expired",
        ),
        (json!({ "client_certificate": good.certificate }), "client_key", "required"),
        (json!({ "client_key": good.key }), "client_certificate", "required"),
        (
            json!({ "client_certificate": "x", "client_key": good.key }),
            "client_certificate",
            "no certificate",
        ),
        (json!({ "client_certificate": good.certificate, "client_key": "x" }), "client_key", "PEM"),
        (json!({ "ca": "x" }), "ca", "no certificate"),
        (json!({ "ca": 5 }), "ca", "PEM"),
        (json!({ "ca": authority.pem(), "extra": 1 }), "extra", "no such field"),
    ] {
        let refused = owner.change(&server, &json!({ "endpoint_tls": setup }));
        let problem = refused.json();
        assert_eq!(refused.status, 422, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], format!("/endpoint_tls/{pointer}"), "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().expect("a text").contains(word), "{problem}");
    }
    let bare = owner.change(&server, &json!({ "endpoint_tls": {} }));
    assert_eq!((bare.status, &bare.json()["errors"][0]["pointer"]), (422, &json!("/endpoint_tls")));
    let after = owner.ask(&server, "GET", "/api/app", None).json();
    assert_eq!(before, after, "nothing was changed");
}

#[test]
fn a_token_server_is_asked_with_the_same_setup() {
    let server = Server::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let tokens = Peer::secure(authority.server(Some(&clients)), |_| {
        Word::Say(200, json!({ "access_token": "a-token-over-tls", "token_type": "Bearer" }).to_string())
    });
    let peer = Peer::secure(authority.server(None), |_| Word::status(200));
    let mut fields = tls(&authority, Some(&clients.pair("client", 2999)));
    fields["endpoint_auth"] = json!({ "oauth2": {
        "token_url": tokens.url(), "client_id": "client", "client_secret": "a-secret-of-a-client",
    } });
    let owner = Owner::with(&server, Some(&peer.url()), &fields);
    let outcome = owner.test(&server);
    assert_eq!(outcome["accepted"], true, "{outcome}");
    assert!(!tokens.seen()[0].proof.is_empty(), "the certificate is shown to it too");
    assert_eq!(peer.seen()[0].header("authorization"), "Bearer a-token-over-tls");
    assert!(peer.seen()[0].proof.is_empty(), "who does not ask for a certificate is shown none");
    owner.set(&server, &json!({ "endpoint_tls": { "ca": Authority::new().pem() } }));
    let outcome = owner.test(&server);
    assert_eq!((&outcome["accepted"], peer.seen().len()), (&json!(false), 1), "{outcome}");
}
