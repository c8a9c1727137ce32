//! Private addresses: refused in every spelling when an app registers, and again at each
//! connection, when a name turns out to lead to one.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    http,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{KEY, Subscriber},
};

const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001::1]",
    "0.0.0.0",
    "0",
    "[::]",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[100::1]",
];

#[test]
fn no_spelling_of_a_private_address_is_registered_or_watched() {
    let mut server = Server::prepare().without("egress.allow");
    server.run();
    let app = onboarded(&server, "https://example.org/hook");
    for spelling in SPELLINGS {
        for url in [format!("http://{spelling}/hook"), format!("https://{spelling}:8443/hook")] {
            let body = json!({
                "app_name": "app", "email": "app@example.org", "base_url": url, "client_auth_key": KEY,
            });
            let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
            assert_eq!(reply.status, 422, "{url} was accepted");
            assert_eq!(reply.message.header("content-type"), Some("application/problem+json"));
            let problem = reply.json();
            assert_eq!(problem["error"], "Private IP addresses are not allowed", "as Docora says it");
            assert_names_the_setting(&problem);
            let body = json!({ "url": format!("{url}/repository.git") });
            let reply = server.ask("POST", "/api/repositories", Some(&app), Some(&body)).expect("an answer");
            assert_eq!(reply.status, 422, "{url} was asked: {}", reply.json());
            assert_names_the_setting(&reply.json());
        }
    }
}

/// The refusal of an address tells an operator what would allow it.
fn assert_names_the_setting(problem: &Value) {
    let detail = problem["errors"][0]["detail"].as_str().expect("a text");
    assert!(detail.contains("egress.allow does not list it") && detail.contains("(add "), "{detail}");
}

#[test]
fn a_name_that_leads_to_a_private_address_is_refused_when_it_is_connected_to() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::prepare().without("egress.allow");
    server.run();
    let port = subscriber.address().port();
    let base_url = format!("http://localhost:{port}");
    let body = json!({ "app_name": "app", "email": "app@example.org", "base_url": base_url, "client_auth_key": KEY });
    let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
    if reply.status == 201 {
        // A name says nothing yet; the connection must be refused.
        let onboarded = reply.json();
        let token = onboarded["token"].as_str().expect("a token");
        let reply =
            server.ask("POST", "/api/repositories", Some(token), Some(&json!({ "url": project.url() })));
        assert_eq!(reply.expect("an answer").status, 201);
        eventually("refused attempt in the log", SOON, || {
            server.log().contains("attempt 2 of delivery").then_some(())
        });
    } else {
        assert_eq!(reply.status, 422, "{}", reply.json());
    }
    let reply = server.ask(
        "POST",
        "/api/repositories",
        Some(&onboarded(&server, "https://example.org/hook")),
        Some(&json!({ "url": format!("http://localhost:{port}/o/r.git") })),
    );
    let reply = reply.expect("an answer");
    assert!(matches!(reply.status, 422 | 404 | 503), "{}", reply.json());
    assert_eq!(subscriber.model().requests, 0, "something was sent");
    assert_eq!(subscriber.connections(), 0, "a connection was made");
}

#[test]
fn what_the_settings_allow_is_reached_and_nothing_beside_it() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::prepare().with("egress.allow", "127.0.0.1/32");
    server.run();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    for spelling in ["127.0.0.2", "10.0.0.1", "[::1]", "169.254.169.254"] {
        let body = json!({
            "app_name": "app", "email": "app@example.org", "base_url": format!("http://{spelling}"),
            "client_auth_key": KEY,
        });
        let reply =
            http::ask(server.address(), "POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
        assert_eq!(reply.status, 422, "{spelling}");
    }
    subscriber.assert_straight();
}

#[test]
fn the_server_sends_nothing_to_itself_although_the_settings_allow_its_address() {
    let (project, subscriber) = (Project::with(&[("a", "1")]), Subscriber::start());
    let server = Server::start();
    let port = server.address().port();
    let base_url = format!("http://127.0.0.1:{port}/hook");
    let body = json!({ "app_name": "app", "email": "app@example.org", "base_url": base_url, "client_auth_key": KEY });
    let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
    assert_eq!(reply.status, 422, "{}", reply.json());
    assert!(reply.json().to_string().contains("this server itself"), "{}", reply.json());

    // A name says nothing until it is resolved.
    let token = onboarded(&server, &format!("http://localhost:{port}/hook"));
    let tested = server.ask("POST", "/api/app/test", Some(&token), None).expect("an answer");
    assert_eq!((tested.status, &tested.json()["failure"]), (200, &json!("refused")), "{}", tested.json());

    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_straight();
}

fn onboarded(server: &Server, base_url: &str) -> String {
    let body = json!({ "app_name": "app", "email": "app@example.org", "base_url": base_url, "client_auth_key": KEY });
    let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.json());
    reply.json()["token"].as_str().expect("a token").to_owned()
}
