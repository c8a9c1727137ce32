//! The contract of codeQ, seen with the eyes of its public clients: the requests are spelt as those clients
//! send them, and each status, code and word that they read is compared.

mod clients;
mod messages;
mod topics;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{api::App, patience::shortest_of, server::Server, subscriber::Subscriber};

const TASKS: &str = "/v1/codeq/tasks";

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

fn ask(server: &Server, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let reply = server.ask(method, path, Some(token), body).expect("an answer");
    let answer = if reply.status == 204 { Value::Null } else { reply.json() };
    if reply.status < 400 {
        return (reply.status, answer);
    }
    // These clients read the status and one text.
    (reply.status, json!({ "status": reply.status, "error": answer["error"] }))
}

fn post(server: &Server, token: &str, path: &str, body: Value) -> (u16, Value) {
    ask(server, token, "POST", path, Some(&body))
}

fn get(server: &Server, token: &str, path: &str) -> (u16, Value) {
    ask(server, token, "GET", path, None)
}

/// Creates a task as the clients do; the task.
fn create(server: &Server, app: &App, body: Value) -> Value {
    let (status, task) = post(server, &app.token, TASKS, body);
    assert_eq!(status, 202, "{task}");
    task
}

fn claim(server: &Server, token: &str, command: &str) -> Value {
    let body = json!({ "commands": [command], "leaseSeconds": 120, "waitSeconds": 30 });
    let (status, task) = post(server, token, &format!("{TASKS}/claim"), body);
    assert_eq!(status, 200, "{task}");
    task
}

fn at(task: &Value, verb: &str) -> String {
    format!("{TASKS}/{}/{verb}", task["id"].as_str().expect("an id"))
}

/// A second identity of the app.
fn second_token(server: &Server, app: &App) -> String {
    let (status, made) = post(server, &app.token, "/api/app/tokens", json!({ "name": "second" }));
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().expect("a token").to_owned()
}

/// The seconds from now until a moment of the wire.
#[expect(clippy::disallowed_methods, reason = "the test is a client with a clock of its own")]
fn seconds_until(moment: &Value) -> i64 {
    let moment = tidings_actors::time::Timestamp::parsed(moment.as_str().expect("a text")).expect("RFC 3339");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    (moment.0 - i64::try_from(now.as_millis()).expect("it fits")) / 1_000
}

/// Whether a moment of the wire is that of something that happened just now, on a machine that may be slow.
fn is_just_now(moment: &Value) -> bool {
    (-60..=0).contains(&seconds_until(moment))
}

#[test]
fn a_task_lives_with_the_words_of_the_older_contract() {
    let server = Server::start();
    let app = app(&server);
    let payload = json!({ "jobId": "j-123", "pages": [1, 2.5], "deep": { "ä": null } });
    let task = create(
        &server,
        &app,
        json!({ "command": "GENERATE_MASTER", "payload": payload, "priority": 5,
        "maxAttempts": 3, "someFieldOfALaterClient": true }),
    );
    for (field, want) in [
        ("command", json!("GENERATE_MASTER")),
        ("status", json!("PENDING")),
        ("lastKnownLocation", json!("PENDING_LIST")),
        ("priority", json!(5)),
        ("maxAttempts", json!(3)),
        ("tenantId", json!(app.id)),
        ("payload", json!(payload.to_string())),
    ] {
        assert_eq!(task[field], want, "{field} of {task}");
    }
    assert!(task.get("attempts").is_none() && task.get("workerId").is_none(), "{task}");
    assert!(is_just_now(&task["createdAt"]) && is_just_now(&task["updatedAt"]), "{task}");

    let claimed = claim(&server, &app.token, "GENERATE_MASTER");
    assert_eq!((&claimed["id"], &claimed["status"]), (&task["id"], &json!("IN_PROGRESS")));
    assert_eq!((&claimed["attempts"], &claimed["lastKnownLocation"]), (&json!(1), &json!("INPROG_SET")));
    assert!((60..=120).contains(&seconds_until(&claimed["leaseUntil"])), "{claimed}");
    assert!(claimed["workerId"].is_string() && claimed.get("token").is_none(), "{claimed}");
    let text = claimed["payload"].as_str().expect("the JSON as a text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), payload);
    let none = json!({ "commands": ["GENERATE_MASTER"], "leaseSeconds": 300, "waitSeconds": 0 });
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), none), (204, Value::Null));

    let beat = post(&server, &app.token, &at(&task, "heartbeat"), json!({ "extendSeconds": 600 }));
    assert_eq!(beat, (200, json!({ "ok": true })));
    assert_eq!(post(&server, &app.token, &at(&task, "heartbeat"), json!({})), (200, json!({ "ok": true })));
    let shown = get(&server, &app.token, &format!("{TASKS}/{}", task["id"].as_str().expect("one"))).1;
    assert!(
        (240..=300).contains(&seconds_until(&shown["leaseUntil"])),
        "the default, also if shorter: {shown}"
    );
    assert_eq!(get(&server, &app.token, &at(&task, "result")), (404, problem(404, "result not found")));

    let body = json!({ "status": "COMPLETED", "result": { "output": "done" } });
    let (status, record) = post(&server, &app.token, &at(&task, "result"), body.clone());
    assert_eq!(status, 200, "{record}");
    assert_eq!((&record["taskId"], &record["status"]), (&task["id"], &json!("COMPLETED")));
    assert_eq!(record["result"], json!({ "output": "done" }));
    assert!(is_just_now(&record["completedAt"]), "{record}");
    assert_eq!(post(&server, &app.token, &at(&task, "result"), body), (409, problem(409, "not-in-progress")));
    let (status, both) = get(&server, &app.token, &format!("{}?waitSeconds=5", at(&task, "result")));
    assert_eq!((status, &both["task"]["status"], &both["result"]), (200, &json!("COMPLETED"), &record));
    // The same task below the routes of this server.
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("one"));
    let (_, own) = get(&server, &app.token, &path);
    assert_eq!(
        (&own["state"], &own["result"], &own["payload"]),
        (&json!("succeeded"), &record["result"], &payload)
    );
}

/// A refusal as far as these clients read it.
fn problem(status: u16, error: &str) -> Value {
    json!({ "status": status, "error": error })
}

#[test]
fn refusals_have_the_codes_and_texts_that_clients_compare() {
    let server = Server::start();
    let app = app(&server);
    let (other_worker, stranger) = (second_token(&server, &app), self::app(&server));
    let refused = |token: &str, method: &str, path: &str, body: Option<Value>| {
        let (status, answer) = ask(&server, token, method, path, body.as_ref());
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let task = create(&server, &app, json!({ "command": "render", "payload": {} }));
    claim(&server, &app.token, "render");
    let done = json!({ "status": "COMPLETED", "result": {} });
    for (verb, body) in [
        ("heartbeat", json!({ "extendSeconds": 5 })),
        ("abandon", json!({})),
        ("nack", json!({ "delaySeconds": 0, "reason": "no" })),
        ("result", done.clone()),
    ] {
        let by = |token: &str| refused(token, "POST", &at(&task, verb), Some(body.clone()));
        assert_eq!(by(&other_worker), (403, "not-owner".to_owned()), "{verb}");
        let missing = if verb == "result" { "task not found" } else { "not-found" };
        assert_eq!(by(&stranger.token), (404, missing.to_owned()), "{verb}");
        let path = format!("{TASKS}/0f8fad5b-d9cb-469f-a165-70867728950e/{verb}");
        let unknown = refused(&app.token, "POST", &path, Some(body.clone()));
        assert_eq!(unknown, (404, missing.to_owned()), "{verb}");
    }
    let path = format!("{TASKS}/{}", task["id"].as_str().expect("one"));
    assert_eq!(refused(&stranger.token, "GET", &path, None), (404, "not found".to_owned()));
    assert_eq!(
        refused(&stranger.token, "GET", &at(&task, "result"), None),
        (404, "task not found".to_owned())
    );
    assert_eq!(
        post(&server, &app.token, &at(&task, "abandon"), json!({})),
        (200, json!({ "status": "requeued" }))
    );
    for verb in ["heartbeat", "abandon", "nack"] {
        let answer = refused(&app.token, "POST", &at(&task, verb), Some(json!({})));
        assert_eq!(answer, (409, "not-in-progress".to_owned()), "{verb}");
    }
    claim(&server, &app.token, "render");
    for (body, error) in [
        (json!({ "status": "DONE" }), "status must be COMPLETED or FAILED"),
        (json!({ "status": "COMPLETED" }), "result is required and must be an object"),
        (json!({ "status": "COMPLETED", "result": [1] }), "result is required and must be an object"),
        (json!({ "status": "FAILED", "error": " " }), "error is required"),
        (json!({ "status": 7 }), "invalid body"),
    ] {
        let answer = refused(&app.token, "POST", &at(&task, "result"), Some(body));
        assert_eq!(answer, (400, error.to_owned()));
    }
    for (body, error) in [
        (json!({ "payload": {} }), "command must be"),
        (json!({ "command": "  ", "payload": {} }), "command must be"),
        (json!({ "command": "render" }), "payload is required"),
        (json!({ "command": "render", "payload": null }), "payload is required"),
        (json!({ "command": "render", "payload": {}, "runAt": "tomorrow" }), "invalid runAt"),
        (json!({ "command": "render", "payload": {}, "delaySeconds": -1 }), "invalid delaySeconds"),
        (
            json!({ "command": "render", "payload": {}, "webhook": "ftp://x" }),
            "webhook must be a web address",
        ),
        (json!({ "command": 7, "payload": {} }), "invalid body"),
    ] {
        let (status, said) = refused(&app.token, "POST", TASKS, Some(body.clone()));
        assert!(status == 400 && said.starts_with(error), "{body}: {status} {said}");
    }
    assert_eq!(refused("no-token", "POST", TASKS, Some(json!({}))).0, 401);
}

#[test]
fn attempts_are_claims_and_the_last_one_leads_to_the_dead_letters() {
    let server = Server::start();
    let app = app(&server);
    let settings =
        json!({ "retry_policy": "exponential", "retry_base_seconds": 5, "retry_cap_seconds": 900 });
    assert_eq!(ask(&server, &app.token, "PUT", "/api/queues/flaky", Some(&settings)).0, 200);
    let task = create(&server, &app, json!({ "command": "flaky", "payload": 0, "maxAttempts": 3 }));
    // 5 x 2^attempts, where the routes of this server give 5 x 2^(attempts - 1).
    claim(&server, &app.token, "flaky");
    let nack = |body: Value| post(&server, &app.token, &at(&task, "nack"), body);
    assert_eq!(
        nack(json!({ "delaySeconds": 0, "reason": "busy" })).1,
        json!({ "status": "requeued", "delaySeconds": 10 })
    );
    let shown = || get(&server, &app.token, &format!("{TASKS}/{}", task["id"].as_str().expect("one"))).1;
    let waiting = shown();
    assert_eq!(
        (&waiting["status"], &waiting["lastKnownLocation"]),
        (&json!("PENDING"), &json!("DELAYED_ZSET"))
    );
    assert_eq!(waiting["error"], "busy");
    let (_, numbers) = get(&server, &app.token, "/v1/codeq/admin/queues/flaky");
    assert_eq!(numbers, json!({ "command": "flaky", "ready": 0, "delayed": 1, "inProgress": 0, "dlq": 0 }));
    let again = create(&server, &app, json!({ "command": "quick", "payload": "", "maxAttempts": 2 }));
    for attempt in 1..=2 {
        let given = claim(&server, &app.token, "quick");
        assert_eq!(given["attempts"], attempt);
        let (status, said) = post(&server, &app.token, &at(&again, "nack"), json!({ "delaySeconds": 1 }));
        let want = if attempt == 1 { ("requeued", 1) } else { ("dlq", 0) };
        assert_eq!((status, &said), (200, &json!({ "status": want.0, "delaySeconds": want.1 })));
    }
    let (_, dead) = get(&server, &app.token, &format!("{TASKS}/{}", again["id"].as_str().expect("one")));
    assert_eq!((&dead["status"], &dead["lastKnownLocation"]), (&json!("FAILED"), &json!("DLQ_SET")));
    assert_eq!((&dead["attempts"], &dead["error"]), (&json!(2), &json!("MAX_ATTEMPTS")));
    assert_eq!(get(&server, &app.token, &at(&again, "result")).1["error"], "result not found");
    let (_, all) = get(&server, &app.token, "/v1/codeq/admin/queues");
    assert_eq!((&all["codeq:q:flaky:delayed"], &all["codeq:q:quick:dlq"]), (&json!(1), &json!(1)), "{all}");

    // A claim that runs out is an attempt, and the next worker is given the task at once.
    let mut lost = Value::Null;
    let took = shortest_of(3, Duration::from_secs(3), || {
        lost = create(&server, &app, json!({ "command": "lost", "payload": {}, "maxAttempts": 2 }));
        let body = json!({ "commands": ["lost"], "leaseSeconds": 1 });
        assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim"), body).0, 200);
        let began = Instant::now();
        assert_eq!(claim(&server, &app.token, "lost")["attempts"], 2);
        began.elapsed()
    });
    assert!(took < Duration::from_secs(3), "the claim of a second that ran out was free after {took:?}");
    let path = format!("{TASKS}/{}", lost["id"].as_str().expect("one"));
    assert_eq!(get(&server, &app.token, &path).1["error"], "LEASE_EXPIRED");
    let failed = json!({ "status": "FAILED", "error": "no such page" });
    let (_, record) = post(&server, &app.token, &at(&lost, "result"), failed);
    assert_eq!((&record["status"], &record["error"]), (&json!("FAILED"), &json!("no such page")));
    let (_, shown) = get(&server, &app.token, &path);
    assert_eq!((&shown["status"], &shown["lastKnownLocation"]), (&json!("FAILED"), &json!("NONE")));
}

#[test]
fn batches_answer_each_item() {
    let server = Server::start();
    let app = app(&server);
    let tasks = json!([
        { "command": "many", "payload": 1, "priority": 0 },
        { "command": "", "payload": 2 },
        { "command": "many", "payload": 3, "priority": 99, "idempotencyKey": "k" },
    ]);
    let (status, made) = post(&server, &app.token, &format!("{TASKS}/batch"), json!({ "tasks": tasks }));
    assert_eq!(status, 200, "{made}");
    let results = made["results"].as_array().expect("a list").clone();
    assert_eq!(results.len(), 3);
    assert_eq!((&results[0]["task"]["payload"], &results[2]["task"]["priority"]), (&json!("1"), &json!(9)));
    assert!(results[1]["error"].as_str().is_some_and(|text| text.starts_with("command must be")), "{made}");
    // The same key gives the same task; another body under it is refused.
    let same = json!({ "command": "many", "payload": 3, "priority": 99, "idempotencyKey": "k" });
    assert_eq!(create(&server, &app, same)["id"], results[2]["task"]["id"]);
    let other = json!({ "command": "many", "payload": 4, "idempotencyKey": "k" });
    assert_eq!(post(&server, &app.token, TASKS, other).0, 409);
    for (path, body) in [
        ("batch", json!({ "tasks": [] })),
        ("batch", json!({ "tasks": vec![json!({ "command": "many", "payload": 1 }); 101] })),
        ("claim/batch", json!({ "commands": ["many"], "count": 0 })),
        ("claim/batch", json!({ "commands": ["many"], "count": 11 })),
        ("batch/results", json!({ "results": [] })),
    ] {
        assert_eq!(post(&server, &app.token, &format!("{TASKS}/{path}"), body).0, 400, "{path}");
    }
    let body = json!({ "commands": ["many"], "leaseSeconds": 60, "count": 10 });
    let (status, given) = post(&server, &app.token, &format!("{TASKS}/claim/batch"), body.clone());
    let payloads: Vec<&Value> =
        given["tasks"].as_array().expect("a list").iter().map(|t| &t["payload"]).collect();
    assert_eq!((status, payloads), (200, vec![&json!("3"), &json!("1")]), "9 before 0");
    assert_eq!(post(&server, &app.token, &format!("{TASKS}/claim/batch"), body).0, 204);
    let (first, last) = (&results[0]["task"]["id"], &results[2]["task"]["id"]);
    let ends = json!({ "results": [
        { "taskId": first, "status": "COMPLETED", "result": { "n": 1 } },
        { "taskId": "nothing", "status": "COMPLETED", "result": {} },
        { "taskId": last, "status": "FAILED", "error": "no" },
        { "taskId": last, "status": "PENDING" },
    ] });
    let (status, ended) = post(&server, &app.token, &format!("{TASKS}/batch/results"), ends);
    assert_eq!(status, 200, "{ended}");
    let results = ended["results"].as_array().expect("a list");
    assert_eq!((&results[0]["taskId"], &results[0]["result"]["result"]), (first, &json!({ "n": 1 })));
    assert_eq!(results[1], json!({ "taskId": "nothing", "error": "task not found" }));
    assert_eq!(results[2]["result"]["error"], "no");
    assert_eq!(results[3]["error"], "status must be COMPLETED or FAILED");
}

#[test]
fn artifacts_come_back_byte_for_byte_and_addresses_as_they_were_given() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, json!({ "command": "render", "payload": {} }));
    claim(&server, &app.token, "render");
    let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let artifacts = json!([
        { "name": "output.bin", "contentBase64": BASE64_STANDARD.encode(&bytes), "contentType": "image/png" },
        { "name": "elsewhere", "url": "https://files.example/a?b=c" },
    ]);
    let nothing = json!({ "status": "COMPLETED", "result": {}, "artifacts": [{ "name": "empty" }] });
    assert_eq!(
        post(&server, &app.token, &at(&task, "result"), nothing).0,
        400,
        "nothing is dropped silently"
    );
    let body = json!({ "status": "COMPLETED", "result": {}, "artifacts": artifacts });
    let (status, record) = post(&server, &app.token, &at(&task, "result"), body);
    assert_eq!(status, 200, "{record}");
    let id = task["id"].as_str().expect("an id");
    let path = format!("/api/tasks/{id}/artifacts/output.bin");
    let want = json!([
        { "name": "elsewhere", "url": "https://files.example/a?b=c" },
        { "name": "output.bin", "url": path },
    ]);
    assert_eq!(record["artifacts"], want);
    assert_eq!(get(&server, &app.token, &at(&task, "result")).1["result"], record);
    let reply = app.ask(&server, "GET", &path, None);
    assert!(reply.status == 200 && reply.message.body == bytes, "{} bytes", reply.message.body.len());
    assert_eq!(reply.message.header("content-type"), Some("image/png"));
}

#[test]
fn a_result_and_a_claim_are_waited_for() {
    let server = Server::start();
    let app = app(&server);
    let (server, token) = (&server, &app.token);
    std::thread::scope(|scope| {
        let claimed = scope.spawn(|| claim(server, token, "slow"));
        std::thread::sleep(Duration::from_millis(300));
        let created = Instant::now();
        let task = create(server, &app, json!({ "command": "slow", "payload": {} }));
        assert_eq!(task["status"], "PENDING", "as it was created, even if a worker has it by now");
        assert_eq!(claimed.join().expect("claimed")["id"], task["id"]);
        let took = created.elapsed();
        assert!(took < Duration::from_secs(8), "told by the create and not by a look: {took:?}");
        let path = format!("{}?waitSeconds=30", at(&task, "result"));
        let result = scope.spawn(move || get(server, token, &path));
        std::thread::sleep(Duration::from_millis(300));
        let ended = Instant::now();
        let body = json!({ "status": "COMPLETED", "result": { "ok": 1 } });
        assert_eq!(post(server, token, &at(&task, "result"), body).0, 200);
        assert_eq!(result.join().expect("answered").1["result"]["result"], json!({ "ok": 1 }));
        let took = ended.elapsed();
        assert!(took < Duration::from_secs(8), "told by the end and not by a look: {took:?}");
    });
}
