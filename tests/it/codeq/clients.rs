//! Clients of codeQ as they are: what they leave out, whom they are, and the routes of their operators.

use serde_json::{Value, json};

use super::{TASKS, app, at, claim, create, post, second_token, seconds_until};
use crate::support::{
    http,
    inbox::Inbox,
    patience::{SOON, eventually},
    server::Server,
};

#[test]
fn clients_without_a_body_and_with_types_on_reads_are_served() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, json!({ "command": "plain", "payload": {} }));
    claim(&server, &app.token, "plain");
    // The Go client sends no body and no type, the Python client a type also where it reads.
    let raw = |method: &str, path: &str, headers: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             x-request-id: caller-0123456789\r\n{headers}\r\n",
            app.token
        );
        http::raw(server.address(), request.as_bytes()).expect("an answer")
    };
    let reply = raw("POST", &at(&task, "abandon"), "content-length: 0\r\n");
    assert_eq!((reply.status, reply.json()), (200, json!({ "status": "requeued" })));
    assert_eq!(reply.message.header("x-request-id"), Some("caller-0123456789"));
    let path = format!("{TASKS}/{}", task["id"].as_str().expect("one"));
    assert_eq!(raw("GET", &path, "content-type: application/json\r\n").status, 200);
    let reply = raw("POST", "/v1/codeq/admin/tasks/cleanup", "content-length: 0\r\n");
    assert_eq!((reply.status, &reply.json()["deleted"]), (200, &json!(0)));
    let raft = raw("GET", "/v1/codeq/raft/status", "").json();
    assert_eq!(raft, json!({ "enabled": false, "numGroups": 0, "groups": [] }));
}

#[test]
fn tasks_whose_time_is_over_are_cleaned_up_for_the_app_alone() {
    let server = Server::start();
    let (app, other) = (app(&server), super::app(&server));
    for who in [&app, &other] {
        let settings = json!({ "retention_seconds": 0 });
        assert_eq!(who.ask(&server, "PUT", "/api/queues/brief", Some(&settings)).status, 200);
        create(&server, who, json!({ "command": "brief", "payload": {} }));
        let task = claim(&server, &who.token, "brief");
        let body = json!({ "status": "COMPLETED", "result": {} });
        assert_eq!(post(&server, &who.token, &at(&task, "result"), body).0, 200);
    }
    let clean = |body: Value| post(&server, &app.token, "/v1/codeq/admin/tasks/cleanup", body);
    let early = clean(json!({ "before": "2020-01-01T00:00:00Z", "limit": 7 }));
    let want = json!({ "deleted": 0, "before": "2020-01-01T00:00:00.000Z", "limit": 7 });
    assert_eq!(early, (200, want));
    assert_eq!(clean(json!({ "before": "never" })).0, 400);
    let (status, cleaned) = clean(json!({}));
    assert_eq!(
        (status, &cleaned["deleted"], &cleaned["limit"]),
        (200, &json!(1), &json!(1_000)),
        "{cleaned}"
    );
    assert_eq!(app.ask(&server, "GET", "/api/tasks", None).json()["items"], json!([]));
    let kept = other.ask(&server, "GET", "/api/tasks", None).json();
    assert_eq!(kept["items"].as_array().map(Vec::len), Some(1), "that of the other app is its own: {kept}");
}

#[test]
fn subscriptions_are_made_told_and_extended() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    let path = "/v1/codeq/workers/subscriptions";
    let body = json!({ "callbackUrl": inbox.url(), "eventTypes": ["embed"], "ttlSeconds": 60,
        "deliveryMode": "group", "groupId": "pool-1", "minIntervalSeconds": 0 });
    let (status, made) = post(&server, &app.token, path, body);
    assert_eq!(status, 200, "{made}");
    assert!((1..=60).contains(&seconds_until(&made["expiresAt"])), "{made}");
    create(&server, &app, json!({ "command": "embed", "payload": {} }));
    let letter = eventually("a message", SOON, || inbox.letters().into_iter().next());
    assert_eq!(letter.body["eventType"], "embed");
    let id = made["subscriptionId"].as_str().expect("an id");
    let renew = |id: &str, body: Value| post(&server, &app.token, &format!("{path}/{id}/heartbeat"), body);
    let (status, renewed) = renew(id, json!({ "ttlSeconds": 7_200 }));
    assert_eq!((status, &renewed["subscriptionId"]), (200, &json!(id)));
    assert!((7_100..=7_200).contains(&seconds_until(&renewed["expiresAt"])), "{renewed}");
    assert_eq!(renew(id, json!({})).0, 200);
    let (status, missing) = renew("wsb_01ARZ3NDEKTSV4RRFFQ69G5FAV", json!({}));
    assert_eq!((status, &missing["error"]), (404, &json!("not-found")));
    // Without commands: those of the app's queues; the mode of one by the minute is one in turn.
    let hash = json!({ "callbackUrl": inbox.url(), "deliveryMode": "hash" });
    assert_eq!(post(&server, &app.token, path, hash).0, 200);
    for (body, error) in [
        (json!({ "eventTypes": ["embed"] }), "callbackUrl is required"),
        (json!({ "callbackUrl": inbox.url(), "deliveryMode": "group" }), "groupId is required"),
        (
            json!({ "callbackUrl": inbox.url(), "deliveryMode": "all" }),
            "deliveryMode must be fanout, group or hash",
        ),
        (json!({ "callbackUrl": "http://10.9.8.7/x", "eventTypes": ["embed"] }), "Private IP addresses"),
    ] {
        let (status, said) = post(&server, &app.token, path, body);
        let text = said["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.starts_with(error), "{status} {said}");
    }
}

#[test]
fn a_token_for_one_command_claims_that_command_alone() {
    let server = Server::start();
    let app = app(&server);
    let narrowed =
        json!({ "name": "narrow", "permissions": ["tasks:claim", "tasks:read"], "commands": ["a"] });
    let (status, made) = post(&server, &app.token, "/api/app/tokens", narrowed);
    assert_eq!(status, 201, "{made}");
    let token = made["token"].as_str().expect("a token");
    for command in ["b", "a"] {
        create(&server, &app, json!({ "command": command, "payload": {} }));
    }
    let claim = |body: Value| post(&server, token, &format!("{TASKS}/claim"), body);
    let (status, said) = claim(json!({ "commands": ["b"] }));
    assert_eq!((status, &said["error"]), (403, &json!("event type not allowed")));
    let (status, given) = claim(json!({}));
    assert_eq!((status, &given["command"]), (200, &json!("a")), "none is named: those of the token");
    assert_eq!(claim(json!({ "waitSeconds": 0 })).0, 204, "and nothing of others");
    // A token for every command: what the app has.
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), json!({})).1["command"], "b");
}

#[test]
fn a_token_for_a_glob_claims_of_queues_behind_a_hundred_others() {
    let server = Server::start();
    let app = app(&server);
    let others: Vec<Value> = (0..100).map(|number| json!({ "command": format!("a.{number:03}") })).collect();
    let made = app.ask(&server, "POST", "/api/tasks/batch", Some(&json!({ "tasks": others })));
    assert_eq!(made.status, 201, "{:?}", made.json());
    create(&server, &app, json!({ "command": "z.last", "payload": {} }));
    let narrowed = json!({ "name": "glob", "permissions": ["tasks:claim"], "commands": ["z.*"] });
    let (status, made) = post(&server, &app.token, "/api/app/tokens", narrowed);
    assert_eq!(status, 201, "{made}");
    let token = made["token"].as_str().expect("a token");
    let (status, given) = post(&server, token, &format!("{TASKS}/claim"), json!({}));
    assert_eq!((status, &given["command"]), (200, &json!("z.last")));
}

#[test]
fn the_weaker_fence_holds_the_identity_and_not_the_claim() {
    let server = Server::start();
    let app = app(&server);
    let other = second_token(&server, &app);
    let task = create(&server, &app, json!({ "command": "fence", "payload": {} }));
    let body = json!({ "commands": ["fence"], "leaseSeconds": 1 });
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), body).0, 200);
    assert_eq!(claim(&server, &other, "fence")["attempts"], 2, "the first claim ran out");
    let done = json!({ "status": "COMPLETED", "result": { "by": "the first" } });
    let (status, said) = post(&server, &app.token, &at(&task, "result"), done.clone());
    assert_eq!((status, &said["error"]), (403, &json!("not-owner")), "another identity has it now");
    assert_eq!(post(&server, &other, &at(&task, "result"), done).0, 200);
    // Two processes with one token are one identity: the weaker part that the guide names.
    let task = create(&server, &app, json!({ "command": "fence", "payload": {} }));
    let body = json!({ "commands": ["fence"], "leaseSeconds": 1 });
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), body).0, 200);
    assert_eq!(claim(&server, &app.token, "fence")["attempts"], 2);
    assert_eq!(post(&server, &app.token, &at(&task, "heartbeat"), json!({})).0, 200);
}
