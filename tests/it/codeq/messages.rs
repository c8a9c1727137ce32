//! Messages that receivers of codeQ read: the end of a task and work for a worker subscription, with codeQ's
//! fields and codeQ's signature.

use std::time::UNIX_EPOCH;

use base64::{Engine, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{TASKS, app, at, claim, create, is_just_now, post};
use crate::support::{
    inbox::{Inbox, Letter},
    model::sign,
    patience::{SOON, eventually},
    server::Server,
    subscriber::KEY,
};

/// The message about this task.
fn about(inbox: &Inbox, task: &Value) -> Letter {
    eventually("message about the task", SOON, || {
        inbox.letters().into_iter().find(|letter| letter.body["taskId"] == task["id"])
    })
}

/// Checks the signature as codeQ's documents tell receivers to.
fn assert_signed(letter: &Letter) {
    let timestamp = letter.header("x-codeq-timestamp");
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let age = now.abs_diff(timestamp.parse().expect("seconds"));
    assert!(age < 200, "{timestamp} is not {now}");
    let wanted = HEXLOWER.encode(&sign(KEY.as_bytes(), &[timestamp, "."], letter.bytes()));
    assert_eq!(letter.header("x-codeq-signature"), wanted);
    assert!(letter.is_signed_with(&[&format!("whsec_{}", BASE64_STANDARD.encode(KEY))]));
}

#[test]
fn ends_of_tasks_come_with_the_fields_and_the_signature_of_codeq() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    let make = |command: &str, attempts: u64| {
        let body = json!({ "command": command, "payload": {}, "maxAttempts": attempts,
            "webhook": inbox.url() });
        let task = create(&server, &app, body);
        assert_eq!(task["webhook"], inbox.url());
        claim(&server, &app.token, command);
        task
    };
    // A result that no entry of the ledger holds, with a file.
    let done = make("done", 3);
    let result = json!({ "text": "x".repeat(100_000) });
    let files = json!([{ "name": "out.txt", "contentBase64": "aGVsbG8=", "contentType": "text/plain" }]);
    let body = json!({ "status": "COMPLETED", "result": result, "artifacts": files });
    assert_eq!(post(&server, &app.token, &at(&done, "result"), body).0, 200);
    let letter = about(&inbox, &done);
    assert_signed(&letter);
    let url = format!("/api/tasks/{}/artifacts/out.txt", done["id"].as_str().expect("an id"));
    let mut told = letter.body.clone();
    assert!(is_just_now(&told["completedAt"].take()));
    let wanted = json!({ "taskId": done["id"], "eventType": "done", "status": "COMPLETED", "result": result,
        "artifacts": [{ "name": "out.txt", "url": url }], "completedAt": null });
    assert_eq!(told, wanted);
    assert_eq!(app.ask(&server, "GET", &url, None).message.body, b"hello");

    let failed = make("failed", 3);
    let body = json!({ "status": "FAILED", "error": "no such page" });
    assert_eq!(post(&server, &app.token, &at(&failed, "result"), body).0, 200);
    let nacked = make("nacked", 1);
    assert_eq!(post(&server, &app.token, &at(&nacked, "nack"), json!({})).1["status"], "dlq");
    let lost = create(
        &server,
        &app,
        json!({ "command": "lost", "payload": {}, "maxAttempts": 1,
        "webhook": inbox.url() }),
    );
    let brief = json!({ "commands": ["lost"], "leaseSeconds": 1 });
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), brief).0, 200);
    for (task, error) in [(failed, "no such page"), (nacked, "MAX_ATTEMPTS"), (lost, "LEASE_EXPIRED")] {
        let letter = about(&inbox, &task);
        assert_signed(&letter);
        assert_eq!((&letter.body["status"], &letter.body["error"]), (&json!("FAILED"), &json!(error)));
        assert!(letter.body.get("result").is_none() && letter.body.get("entry").is_none(), "{}", letter.body);
    }

    // The same address in a task of the other routes gets their messages, without the headers of codeQ.
    let own = json!({ "command": "own", "webhook": inbox.url() });
    let (status, own) = post(&server, &app.token, "/api/tasks", own);
    assert_eq!(status, 201, "{own}");
    claim(&server, &app.token, "own");
    let body = json!({ "status": "COMPLETED", "result": {} });
    assert_eq!(post(&server, &app.token, &at(&own, "result"), body).0, 200);
    let letter = eventually("message of the other form", SOON, || {
        inbox.letters().into_iter().find(|letter| letter.body["entry"]["subject"] == own["id"])
    });
    assert_eq!((letter.kind(), letter.header("x-codeq-signature")), ("task.ended", ""));
}

#[test]
fn work_is_told_with_the_fields_and_the_signature_of_codeq() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    let path = "/v1/codeq/workers/subscriptions";
    let body = json!({ "callbackUrl": inbox.url(), "eventTypes": ["embed"], "minIntervalSeconds": 0 });
    let (status, made) = post(&server, &app.token, path, body);
    assert_eq!(status, 200, "{made}");
    let task = create(&server, &app, json!({ "command": "embed", "payload": {} }));
    let letter = eventually("message about work", SOON, || inbox.letters().into_iter().next());
    assert_signed(&letter);
    let mut told = letter.body.clone();
    assert!(is_just_now(&told["sentAt"].take()));
    let id = made["subscriptionId"].as_str().expect("an id");
    let wanted = json!({ "eventType": "embed", "available": true, "queueDepth": 1, "sentAt": null,
        "claimUrl": format!("{TASKS}/claim"), "notificationId": format!("ntf-{id}") });
    assert_eq!(told, wanted);
    // The route that it names is there, and the other routes show the address as it was given.
    let body = json!({ "commands": ["embed"] });
    let claim_url = letter.body["claimUrl"].as_str().expect("a path");
    assert_eq!(post(&server, &app.token, claim_url, body).1["id"], task["id"]);
    let shown = app.ask(&server, "GET", &format!("/api/workers/subscriptions/{id}"), None).json();
    assert_eq!(shown["url"], inbox.url());
    // A worker that is told again after its claim has run out.
    create(&server, &app, json!({ "command": "embed", "payload": {} }));
    eventually("second message", SOON, || (inbox.letters().len() > 1).then_some(()));
}
