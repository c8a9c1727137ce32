//! Topics of codeQ: declared, changed, shown and removed with its codes, and what follows for the queue.

use serde_json::{Value, json};

use super::{app, ask, claim, create, get, is_just_now, post};
use crate::support::server::Server;

const TOPICS: &str = "/v1/codeq/admin/topics";

#[test]
fn a_topic_is_declared_changed_and_removed_and_its_queue_follows() {
    let mut server = Server::start();
    let (app, stranger) = (app(&server), self::app(&server));
    let put = |server: &Server, name: &str, policy: Value| {
        ask(server, &app.token, "PUT", &format!("{TOPICS}/{name}"), Some(&policy))
    };
    let policy = json!({ "priorityTiers": [9, 5, 0], "maxAttempts": 2, "deadLetterTopicRef": "render-dead",
        "retentionSeconds": 3_600, "maxConsumers": 1 });
    let (status, made) = put(&server, "render", policy.clone());
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["topicName"], &made["tenantId"]), (&json!("render"), &json!(app.id)));
    assert_eq!((&made["policy"], &made["version"]), (&policy, &json!(1)));
    assert!(is_just_now(&made["createdAt"]) && made["createdAt"] == made["updatedAt"], "{made}");
    assert!(made["topicId"].is_string(), "{made}");
    assert_eq!(put(&server, "render", policy.clone()), (200, made.clone()), "a replay changes nothing");

    // What it says counts for the queue of its name; a person may still set the queue.
    for payload in [1, 2] {
        let task = create(&server, &app, json!({ "command": "render", "payload": payload }));
        assert_eq!(task["maxAttempts"], 2);
    }
    let held = claim(&server, &app.token, "render");
    let none = json!({ "commands": ["render"], "waitSeconds": 0 });
    assert_eq!(post(&server, &app.token, "/v1/codeq/tasks/claim", none.clone()).0, 204, "one at once");
    let queue = get(&server, &app.token, "/api/queues/render").1;
    assert_eq!(queue["settings"], json!({ "max_attempts": 2, "max_claimed": 1, "retention_seconds": 3_600 }));
    let (_, set) = ask(&server, &app.token, "PUT", "/api/queues/render", Some(&json!({ "rate": 50 })));
    assert_eq!(set["settings"], json!({ "rate": 50 }));
    server.kill();
    server.run();
    let path = format!("{TOPICS}/render");
    assert_eq!(get(&server, &app.token, &path), (200, made.clone()), "the topic stays, over a kill, too");

    let (status, changed) = put(&server, "render", json!({ "maxConsumers": 3 }));
    assert_eq!((status, &changed["version"], &changed["createdAt"]), (200, &json!(2), &made["createdAt"]));
    assert_eq!(changed["policy"], json!({ "maxConsumers": 3 }));
    let queue = get(&server, &app.token, "/api/queues/render").1;
    assert_eq!(queue["settings"], json!({ "rate": 50, "max_claimed": 3 }));
    assert_eq!(post(&server, &app.token, "/v1/codeq/tasks/claim", none).0, 200, "two more may be claimed");

    for (method, path) in [("GET", path.clone()), ("DELETE", format!("{path}?deletionPolicy=Delete"))] {
        let (status, said) = ask(&server, &stranger.token, method, &path, None);
        assert_eq!((status, &said["error"]), (404, &json!("topic not found")), "{method}");
    }
    assert_eq!(ask(&server, &app.token, "DELETE", &path, None).0, 400, "without the word nothing goes");
    let gone = format!("{path}?deletionPolicy=Delete");
    assert_eq!(ask(&server, &app.token, "DELETE", &gone, None).0, 204);
    assert_eq!(ask(&server, &app.token, "DELETE", &gone, None).0, 404);
    assert_eq!(get(&server, &app.token, &path).0, 404);
    let queue = get(&server, &app.token, "/api/queues/render").1;
    assert_eq!((&queue["settings"], &queue["counts"]["claimed"]), (&json!({ "rate": 50 }), &json!(2)));
    let done = json!({ "status": "COMPLETED", "result": {} });
    assert_eq!(post(&server, &app.token, &super::at(&held, "result"), done).0, 200, "its tasks stay");
    assert_eq!(put(&server, "render", policy).0, 201, "and it may be declared again");
}

#[test]
fn a_policy_that_is_not_right_is_refused_with_its_field() {
    let server = Server::start();
    let app = app(&server);
    let put = |name: &str, policy: Value| {
        let path = format!("{TOPICS}/{name}");
        server.ask("PUT", &path, Some(&app.token), Some(&policy)).expect("an answer")
    };
    for (field, value) in [
        ("priorityTiers", json!([])),
        ("priorityTiers", json!([1, 1])),
        ("priorityTiers", json!([11])),
        ("priorityTiers", json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
        ("maxAttempts", json!(0)),
        ("maxAttempts", json!(101)),
        ("deadLetterTopicRef", json!("work")),
        ("deadLetterTopicRef", json!("No_Label")),
        ("retentionSeconds", json!(2_147_483_648_u64)),
        ("maxConsumers", json!(10_001)),
    ] {
        let mut policy = json!({});
        policy[field] = value.clone();
        let refused = put("work", policy);
        let pointer = refused.json()["errors"][0]["pointer"].clone();
        assert_eq!((refused.status, pointer), (422, json!(format!("/{field}"))), "{value}");
    }
    for (name, policy) in [
        ("work", json!({ "unknown": 1 })),
        ("work", json!({ "maxAttempts": "5" })),
        ("work", json!([1])),
        ("Work", json!({})),
        ("-work", json!({})),
        (&"x".repeat(64), json!({})),
    ] {
        assert_eq!(put(name, policy.clone()).status, 400, "{name} {policy}");
    }
    assert_eq!(get(&server, &app.token, &format!("{TOPICS}/work")).0, 404, "nothing was declared");
}
