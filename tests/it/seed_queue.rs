//! The check list of the queue, line by line: QA to QH. Each line of the list stands as a comment before its
//! check; where a promise has stories of its own, this one checks that the line holds at all. Lines whose
//! mark says that they are not kept (QH5 and the incidental ones) are left out.

mod people;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::{App, items},
    http,
    inbox::Inbox,
    patience::{SOON, eventually, shortest_of},
    server::Server,
    subscriber::Subscriber,
};

/// The routes of the older contract.
const OLDER: &str = "/v1/codeq";

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

fn ask(server: &Server, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = (method != "GET").then_some(body);
    let reply = server.ask(method, path, Some(token), body.as_ref()).expect("an answer");
    (reply.status, if reply.status == 204 { Value::Null } else { reply.json() })
}

fn post(server: &Server, token: &str, path: &str, body: Value) -> (u16, Value) {
    ask(server, token, "POST", path, body)
}

fn get(server: &Server, token: &str, path: &str) -> Value {
    let (status, answer) = ask(server, token, "GET", path, Value::Null);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Creates a task; its id.
fn create(server: &Server, app: &App, body: Value) -> String {
    let (status, made) = post(server, &app.token, "/api/tasks", body);
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

/// Claims one task; null: there is none.
fn claim(server: &Server, token: &str, command: &str, seconds: u64, wait: u64) -> Value {
    let body = json!({ "commands": [command], "claim_seconds": seconds, "wait_seconds": wait });
    let (status, given) = post(server, token, "/api/tasks/claim", body);
    assert!(matches!(status, 200 | 204), "{given}");
    given["tasks"][0].clone()
}

fn say(server: &Server, token: &str, task: &Value, verb: &str, mut body: Value) -> (u16, Value) {
    body["token"] = task["token"].clone();
    post(server, token, &format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id")), body)
}

fn task(server: &Server, app: &App, id: &str) -> Value {
    get(server, &app.token, &format!("/api/tasks/{id}"))
}

fn second_token(server: &Server, app: &App, body: Value) -> String {
    let (status, made) = post(server, &app.token, "/api/app/tokens", body);
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().expect("a token").to_owned()
}

fn is_moment(value: &Value) -> bool {
    value.as_str().is_some_and(|text| tidings_actors::time::Timestamp::parsed(text).is_some())
}

/// A metric without labels, or with these.
fn metric(server: &Server, line: &str) -> f64 {
    let reply = server.ask("GET", "/metrics", None, None).expect("an answer");
    let text = String::from_utf8(reply.message.body).expect("text");
    let found = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |number| number.trim().parse().expect("a number"))
}

/// QA6 to QA9: claims that wait, last, and are given back.
fn claims_of_qa(server: &Server, app: &App, stranger: &App, other: &str) {
    // QA6: nothing is 204; a waiting claim is woken by a create.
    for path in ["/api/tasks/claim".to_owned(), format!("{OLDER}/tasks/claim")] {
        assert_eq!(post(server, &app.token, &path, json!({ "commands": ["nobody"] })).0, 204, "{path}");
    }
    let wake_up = || {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let task = claim(server, &app.token, "wait", 60, 30);
                (task, Instant::now())
            });
            thread::sleep(Duration::from_millis(400));
            let created = Instant::now();
            create(server, app, json!({ "command": "wait" }));
            let (task, at) = waiting.join().expect("answered");
            assert!(task["id"].is_string(), "{task}");
            at.duration_since(created)
        })
    };
    // 50 ms on a quiet machine: a benchmark holds that figure.
    let took = shortest_of(5, Duration::from_millis(500), wake_up);
    assert!(took < Duration::from_secs(1), "woken after {took:?} at best");
    // QA7: extended each second, nobody else gets it; a stranger 404, another identity 403, an older attempt
    // 409.
    create(server, app, json!({ "command": "beat" }));
    let (held, began) = (claim(server, &app.token, "beat", 6, 0), Instant::now());
    while began.elapsed() < Duration::from_secs(8) {
        thread::sleep(Duration::from_secs(1));
        let (status, said) = say(server, &app.token, &held, "heartbeat", json!({ "extend_seconds": 6 }));
        assert_eq!(status, 200, "after {:?}: {said}", began.elapsed());
        assert_eq!(claim(server, &app.token, "beat", 6, 0), Value::Null);
    }
    let older = format!("{OLDER}/tasks/{}/heartbeat", held["id"].as_str().expect("an id"));
    assert_eq!(post(server, &stranger.token, &older, json!({})).0, 404);
    assert_eq!(post(server, other, &older, json!({})).0, 403);
    let again = claim(server, other, "beat", 60, 30);
    assert_eq!(again["attempt"], 2);
    assert_eq!(say(server, &app.token, &held, "heartbeat", json!({})).0, 409);
    // QA8: the wait lies in the policy's range (full jitter, base 5, first attempt: 0 to 5 s).
    create(server, app, json!({ "command": "nack" }));
    let held = claim(server, &app.token, "nack", 60, 0);
    let (_, said) = say(server, &app.token, &held, "nack", json!({}));
    assert!(["waiting", "ready"].contains(&said["state"].as_str().expect("a state")), "{said}");
    if said["state"] == "waiting" {
        let shown = task(server, app, held["id"].as_str().expect("an id"));
        let moment = |name: &str| {
            let text = shown[name].as_str().expect("a moment");
            tidings_actors::time::Timestamp::parsed(text).expect("a moment").0
        };
        let wait = moment("run_at") - moment("updated_at");
        assert!((0..=5_000).contains(&wait), "waits {wait} ms: {shown}");
    }
    let began = Instant::now();
    assert!(claim(server, &app.token, "nack", 60, 30)["id"].is_string(), "within 5 s");
    assert!(began.elapsed() < Duration::from_secs(15), "within 5 s: {:?}", began.elapsed());
    // QA9: at once another worker's, and no attempt is spent.
    create(server, app, json!({ "command": "drop" }));
    let held = claim(server, &app.token, "drop", 60, 0);
    assert_eq!(say(server, &app.token, &held, "abandon", json!({})).0, 200);
    let held = claim(server, other, "drop", 60, 0);
    assert_eq!(held["attempt"], 1);
}

/// QA13: a file of 1 MiB comes back byte for byte.
fn artifacts_of_qa(server: &Server, app: &App) {
    let id = create(server, app, json!({ "command": "files" }));
    let held = claim(server, &app.token, "files", 60, 0);
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let head = |method: &str, more: &str| {
        format!(
            "{method} /api/tasks/{id}/artifacts/output.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\n{more}\r\n",
            app.token
        )
    };
    let token = held["token"].as_str().expect("a token");
    let put = head("PUT", &format!("tidings-claim: {token}\r\ncontent-length: {}\r\n", bytes.len()));
    let put = http::raw(server.address(), &[put.as_bytes(), &bytes].concat()).expect("an answer");
    assert_eq!(put.status, 201);
    let read = http::raw(server.address(), head("GET", "").as_bytes()).expect("an answer");
    assert!(read.status == 200 && read.message.body == bytes, "{}: other bytes", read.status);
}

#[test]
fn qa_the_life_of_a_task() {
    let server = Server::start();
    let (app, stranger) = (app(&server), app(&server));
    let tasks = format!("{OLDER}/tasks");
    // QA1: create, 202, PENDING, the payload comes back equal. QA2: moments are RFC 3339.
    let payload = json!({ "a": [1, 2.50], "b": null });
    let (status, made) =
        post(&server, &app.token, &tasks, json!({ "command": "one", "payload": payload, "priority": 3 }));
    assert_eq!((status, &made["status"], &made["priority"]), (202, &json!("PENDING"), &json!(3)));
    assert_eq!(
        serde_json::from_str::<Value>(made["payload"].as_str().expect("text")).expect("JSON"),
        payload
    );
    assert!(is_moment(&made["createdAt"]) && is_moment(&made["updatedAt"]), "{made}");
    // QA3: bad JSON is 400 and creates nothing.
    let bad = format!(
        "POST {tasks} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 12\r\n\r\n{{\"command\": ",
        app.token
    );
    assert_eq!(http::raw(server.address(), bad.as_bytes()).expect("an answer").status, 400);
    assert_eq!(items(&get(&server, &app.token, "/api/tasks")).len(), 1);
    // QA5: one of two concurrent claimers gets it; the answer has worker, end and attempts.
    let body = json!({ "commands": ["one"], "leaseSeconds": 60 });
    let both: Vec<(u16, Value)> = thread::scope(|scope| {
        let claims = [(), ()]
            .map(|()| scope.spawn(|| post(&server, &app.token, &format!("{tasks}/claim"), body.clone())));
        claims.into_iter().map(|claim| claim.join().expect("answered")).collect()
    });
    let given: Vec<&Value> = both.iter().filter(|(status, _)| *status == 200).map(|(_, task)| task).collect();
    let [given] = given[..] else { panic!("one of two: {both:?}") };
    assert!(given["workerId"].is_string() && is_moment(&given["leaseUntil"]), "{given}");
    assert_eq!(given["attempts"], 1);
    // QA4: due in 3 s: not before, and ready then, before anybody claims.
    let began = Instant::now();
    let later = create(&server, &app, json!({ "command": "later", "delay_seconds": 3 }));
    assert_eq!(claim(&server, &app.token, "later", 60, 0), Value::Null);
    eventually("a due task", SOON, || (task(&server, &app, &later)["state"] == "ready").then_some(()));
    let took = began.elapsed();
    // Not before, and not long after: a second where a busy machine is late by more.
    assert!((2_900..15_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(claim(&server, &app.token, "later", 60, 0)["id"], json!(later));
    let other = second_token(&server, &app, json!({ "name": "other" }));
    claims_of_qa(&server, &app, &stranger, &other);
    // QA10: the result is readable, the lease gone, the second submit 409. QA11: both read, a stranger does
    // not.
    let id = given["id"].as_str().expect("an id");
    let done = json!({ "status": "COMPLETED", "result": { "pages": 3 } });
    assert_eq!(post(&server, &app.token, &format!("{tasks}/{id}/result"), done.clone()).0, 200);
    assert_eq!(post(&server, &app.token, &format!("{tasks}/{id}/result"), done).0, 409);
    for token in [&app.token, &other] {
        let both = get(&server, token, &format!("{tasks}/{id}/result"));
        assert_eq!(
            (&both["result"]["result"], &both["task"]["status"]),
            (&json!({ "pages": 3 }), &json!("COMPLETED"))
        );
        assert!(both["task"].get("leaseUntil").is_none(), "{both}");
    }
    assert_eq!(ask(&server, &stranger.token, "GET", &format!("{tasks}/{id}"), Value::Null).0, 404);
    artifacts_of_qa(&server, &app);
    // QA12: 9 before 0, and in each the older first.
    let made: Vec<Value> = (0..100)
        .map(|n| json!({ "command": "line", "payload": n, "priority": if n % 2 == 0 { 0 } else { 9 } }))
        .collect();
    assert_eq!(post(&server, &app.token, "/api/tasks/batch", json!({ "tasks": made })).0, 201);
    let body = json!({ "commands": ["line"], "count": 100 });
    let (_, given) = post(&server, &app.token, "/api/tasks/claim", body);
    let order: Vec<u64> =
        given["tasks"].as_array().expect("tasks").iter().map(|t| t["payload"].as_u64().expect("n")).collect();
    let want: Vec<u64> = (0..100).filter(|n| n % 2 == 1).chain((0..100).filter(|n| n % 2 == 0)).collect();
    assert_eq!(order, want);
    // QA14: the same key is one task with a mark; another body 409; of one app.
    let keyed = json!({ "command": "keyed", "payload": 1, "key": "k" });
    let first = post(&server, &app.token, "/api/tasks", keyed.clone()).1;
    let second = post(&server, &app.token, "/api/tasks", keyed.clone()).1;
    assert_eq!((&first["id"], &second["created"]), (&second["id"], &json!(false)));
    let other_body = json!({ "command": "keyed", "payload": 2, "key": "k" });
    assert_eq!(post(&server, &app.token, "/api/tasks", other_body).0, 409);
    assert_ne!(post(&server, &stranger.token, "/api/tasks", keyed).1["id"], first["id"]);
}

#[test]
fn qb_repair_delays_and_dead_letters() {
    let server = Server::start();
    let app = app(&server);
    // QB1: a worker that says nothing loses its claim within a second of its end; the counter rises.
    let took = shortest_of(3, Duration::from_secs(2), || {
        create(&server, &app, json!({ "command": "lost" }));
        claim(&server, &app.token, "lost", 1, 0);
        let began = Instant::now();
        assert_eq!(claim(&server, &app.token, "lost", 60, 30)["attempt"], 2);
        began.elapsed()
    });
    assert!(took < Duration::from_secs(2), "the claim of a second was free after {took:?}");
    eventually("a counted end", SOON, || {
        (metric(&server, "tidings_tasks_claims_run_out_total{queue=\"other\"}") >= 1.0).then_some(())
    });
    // QB2 is QA4. QB4: n attempts are n deliveries, then it is dead; so for each n.
    let settings = json!({ "retry_policy": "fixed", "retry_base_seconds": 0 });
    assert_eq!(ask(&server, &app.token, "PUT", "/api/queues/dies", settings).0, 200);
    let mut dead = Vec::new();
    for attempts in 1..=5 {
        let id = create(&server, &app, json!({ "command": "dies", "max_attempts": attempts }));
        for attempt in 1..=attempts {
            let held = claim(&server, &app.token, "dies", 60, 5);
            assert_eq!((&held["id"], &held["attempt"]), (&json!(id), &json!(attempt)));
            assert_eq!(say(&server, &app.token, &held, "nack", json!({ "reason": "no" })).0, 200);
        }
        assert_eq!(task(&server, &app, &id)["state"], "dead");
        assert_eq!(claim(&server, &app.token, "dies", 60, 0), Value::Null);
        dead.push(id);
    }
    // The claims of the last one, with their ends.
    let claims = task(&server, &app, &dead[4])["claims"].as_array().cloned().expect("a list");
    assert_eq!(claims.len(), 5, "{claims:?}");
    assert!(claims.iter().all(|claim| claim["end"] == "nacked" && claim["reason"] == "no"), "{claims:?}");
    // QB3: the numbers of a queue are what was done.
    create(&server, &app, json!({ "command": "dies", "delay_seconds": 600 }));
    create(&server, &app, json!({ "command": "dies" }));
    create(&server, &app, json!({ "command": "dies" }));
    claim(&server, &app.token, "dies", 60, 0);
    let numbers = get(&server, &app.token, &format!("{OLDER}/admin/queues/dies"));
    assert_eq!(numbers, json!({ "command": "dies", "ready": 1, "delayed": 1, "inProgress": 1, "dlq": 5 }));
    // QB5: listed, looked at, sent again, purged.
    let listed = get(&server, &app.token, "/api/tasks?q=command:dies%20state:dead");
    assert_eq!(items(&listed).len(), 5);
    let (_, dry) =
        post(&server, &app.token, "/api/tasks/redrive", json!({ "q": "command:dies", "dry_run": true }));
    assert_eq!((&dry["count"], &dry["dry_run"]), (&json!(5), &json!(true)));
    assert_eq!(post(&server, &app.token, &format!("/api/tasks/{}/redrive", dead[0]), json!({})).0, 200);
    assert_eq!(post(&server, &app.token, "/api/tasks/redrive", json!({ "q": "command:dies" })).1["count"], 4);
    let purged = post(&server, &app.token, "/api/queues/dies/purge", json!({ "confirm": "dies" })).1;
    assert_eq!(purged["removed"], 7, "five sent again, one ready, one waiting");
    create(&server, &app, json!({ "command": "dies", "max_attempts": 1 }));
    let held = claim(&server, &app.token, "dies", 60, 5);
    assert_eq!(say(&server, &app.token, &held, "nack", json!({})).1["state"], "dead");
    let purge = json!({ "confirm": "dies", "state": "dead" });
    assert_eq!(post(&server, &app.token, "/api/queues/dies/purge", purge).1["removed"], 1);
    assert_eq!(get(&server, &app.token, &format!("{OLDER}/admin/queues/dies"))["dlq"], 0);
    let wrong = json!({ "confirm": "dies", "state": "claimed" });
    assert_eq!(post(&server, &app.token, "/api/queues/dies/purge", wrong).0, 422);
}

#[test]
fn qc_back_off_by_queue() {
    let server = Server::start();
    let app = app(&server);
    // QC1 is a table of the unit tests (codeq::words); here: the third wait of each policy, and QC2: two
    // queues have two policies, and a task its own delay.
    for (policy, least, most) in [
        ("fixed", 5, 5),
        ("linear", 15, 15),
        ("exponential", 40, 40),
        ("exp_full_jitter", 0, 40),
        ("exp_equal_jitter", 20, 40),
    ] {
        let path = format!("/api/queues/{policy}");
        let settings = json!({ "retry_policy": policy, "retry_base_seconds": 5, "retry_cap_seconds": 900 });
        assert_eq!(ask(&server, &app.token, "PUT", &path, settings).0, 200);
        let id = create(&server, &app, json!({ "command": policy, "max_attempts": 9 }));
        for _ in 0..2 {
            let held = claim(&server, &app.token, policy, 60, 5);
            let word = json!({ "delay_seconds": 0 });
            assert_eq!(say(&server, &app.token, &held, "nack", word).0, 200, "a delay of its own");
        }
        assert_eq!(claim(&server, &app.token, policy, 60, 0)["attempt"], 3);
        let (_, said) = post(&server, &app.token, &format!("{OLDER}/tasks/{id}/nack"), json!({}));
        let delay = said["delaySeconds"].as_u64().expect("a number");
        assert!((least..=most).contains(&delay) && said["status"] == "requeued", "{policy}: {said}");
    }
}

#[test]
fn qd_wake_ups_and_callbacks() {
    let mut server = Server::start();
    let (app, inbox, ends) = (app(&server), Inbox::start(), Inbox::start());
    let path = format!("{OLDER}/workers/subscriptions");
    // QD1: address and commands; id and expiry in the answer. QD5: not to where the rules forbid.
    let body = json!({ "callbackUrl": inbox.url(), "eventTypes": ["embed"], "ttlSeconds": 600,
        "minIntervalSeconds": 0 });
    let (status, made) = post(&server, &app.token, &path, body);
    assert!(status == 200 && is_moment(&made["expiresAt"]), "{made}");
    let forbidden = json!({ "callbackUrl": "http://10.9.8.7/x", "eventTypes": ["embed"] });
    assert_eq!(post(&server, &app.token, &path, forbidden).0, 400);
    // QD3: a create on an empty queue is told within a second, signed.
    let took = shortest_of(5, Duration::from_secs(1), || {
        let (began, before) = (Instant::now(), inbox.letters().len());
        create(&server, &app, json!({ "command": "embed" }));
        eventually("a message", SOON, || (inbox.letters().len() > before).then_some(()));
        assert!(claim(&server, &app.token, "embed", 600, 0)["id"].is_string(), "the queue is empty again");
        began.elapsed()
    });
    assert!(took < Duration::from_secs(1), "told after {took:?}");
    assert!(!inbox.letters()[0].header("webhook-signature").is_empty());
    // QD2: extended by a heartbeat; without one it is gone after its time, and nothing is sent.
    let id = made["subscriptionId"].as_str().expect("an id").to_owned();
    let beat = format!("{path}/{id}/heartbeat");
    let (status, longer) = post(&server, &app.token, &beat, json!({ "ttlSeconds": 900 }));
    let is_later = longer["expiresAt"].as_str() > made["expiresAt"].as_str();
    assert!(status == 200 && is_later, "{longer} after {made}");
    assert_eq!(post(&server, &app.token, &beat, json!({ "ttlSeconds": 5 })).0, 200);
    eventually("the end of a subscription", SOON, || {
        items(&get(&server, &app.token, "/api/workers/subscriptions")).is_empty().then_some(())
    });
    assert_eq!(post(&server, &app.token, &beat, json!({})).0, 404);
    let count = inbox.letters().len();
    create(&server, &app, json!({ "command": "embed" }));
    thread::sleep(Duration::from_millis(700));
    assert_eq!(inbox.letters().len(), count);
    // QD4: the receiver is down, the server restarts, and the end still arrives, once per id.
    ends.script(|_| 503);
    let webhook = json!({ "command": "call", "payload": {}, "webhook": ends.url() });
    assert_eq!(post(&server, &app.token, &format!("{OLDER}/tasks"), webhook).0, 202);
    let held = claim(&server, &app.token, "call", 60, 0);
    assert_eq!(say(&server, &app.token, &held, "complete", json!({ "result": 7 })).0, 200);
    eventually("a refused try", SOON, || ends.letters().first().map(|letter| letter.status));
    server.kill();
    server.run();
    ends.script(|_| 204);
    let letter =
        eventually("the end", SOON, || ends.letters().into_iter().find(|letter| letter.status == 204));
    assert_eq!((&letter.body["taskId"], &letter.body["status"]), (&held["id"], &json!("COMPLETED")));
    assert!(!letter.header("webhook-signature").is_empty());
    thread::sleep(Duration::from_millis(700));
    let taken = ends.letters().iter().filter(|letter| letter.status == 204).count();
    assert_eq!(taken, 1, "once");
}
