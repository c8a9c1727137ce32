//! Hostile producers and workers: large payloads in batches, names with every byte, queues that are only asked
//! for, heartbeats without an end, floods of results. Each costs bounded memory and is answered within its
//! bounds.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    support::{
        api::{App, items},
        http::{self, Reply},
        patience::{SOON, eventually},
        server::Server,
        setting,
    },
    tasks::{app, ask, claim, create, say, shown},
};

/// Names of queues that are asked for, unless `TIDINGS_STORY_NAMES` says otherwise.
const NAMES: u64 = 5_000;
/// Equal words of one worker, unless `TIDINGS_STORY_WORDS` says otherwise.
const WORDS: u64 = 300;
/// Tasks with the largest payload, and the bytes of that payload with its quotes.
const LARGE: usize = 96;
const MEBIBYTE: usize = 1 << 20;
/// How much more memory than before is little, in bytes.
const LITTLE: u64 = 64 << 20;

/// Sends a body that is JSON already.
fn send(server: &Server, app: &App, method: &str, path: &str, body: &str) -> Reply {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        app.token,
        body.len()
    );
    http::raw(server.address(), request.as_bytes()).expect("an answer")
}

fn declare(server: &Server, app: &App, command: &str, settings: &Value) {
    let reply = app.ask(server, "PUT", &format!("/api/queues/{command}"), Some(settings));
    assert_eq!(reply.status, 200, "{}", reply.json());
}

#[test]
fn large_payloads_are_taken_and_handed_out_in_bounded_parts() {
    let server = Server::start();
    let app = app(&server);
    declare(&server, &app, "large", &json!({ "payload_bytes": MEBIBYTE }));
    let task = format!("{{\"command\":\"large\",\"payload\":\"{}\"}}", "x".repeat(MEBIBYTE - 2));
    let batch = |count: usize| format!("{{\"tasks\":[{}]}}", vec![task.as_str(); count].join(","));
    assert_eq!(send(&server, &app, "POST", "/api/tasks/batch", &batch(4)).status, 413, "more than 4 MiB");
    let larger = task.replacen("xx", "xxx", 1);
    assert_eq!(send(&server, &app, "POST", "/api/tasks", &larger).status, 413, "more than the queue allows");
    for _ in 0..LARGE / 3 {
        assert_eq!(send(&server, &app, "POST", "/api/tasks/batch", &batch(3)).status, 201);
    }
    let before = server.peak_resident();
    let mut given = 0;
    while given < LARGE {
        let wanted = "{\"commands\":[\"large\"],\"count\":100,\"claim_seconds\":3600}";
        let reply = send(&server, &app, "POST", "/api/tasks/claim", wanted);
        let count = reply.json()["tasks"].as_array().map_or(0, Vec::len);
        assert_eq!((reply.status, count), (200, 4), "four payloads are 4 MiB");
        given += count;
    }
    let more = server.peak_resident().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more for claims of {LARGE} MiB");
    // A payload that is larger than the room that is left ends the claim, and none is passed over.
    let large = "x".repeat(MEBIBYTE - 2);
    for payload in ["s", &large, &large, &large, &large, "t"] {
        create(&server, &app, &json!({ "command": "large", "payload": payload }));
    }
    let sizes = || -> Vec<usize> {
        let given = claim(&server, &app, &json!({ "commands": ["large"], "count": 100 }));
        given.iter().map(|task| task["payload"].as_str().expect("a text").len()).collect()
    };
    assert_eq!(sizes(), [1, large.len(), large.len(), large.len()]);
    assert_eq!(sizes(), [large.len(), 1]);
}

#[test]
fn names_with_any_byte_are_taken_or_refused_and_break_nothing() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, &json!({ "command": "work" }));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    for byte in 0..=u8::MAX {
        // As text: bytes above 127 are characters of two bytes.
        let name = format!("x{}", char::from(byte));
        let (status, answer) =
            ask(&server, &app, "/api/tasks", &json!({ "command": name })).expect("an answer");
        assert_eq!(status, if is_plain(byte) { 201 } else { 422 }, "{name:?}: {answer}");
        let wanted = json!({ "commands": [name] });
        let (status, answer) = ask(&server, &app, "/api/tasks/claim", &wanted).expect("an answer");
        assert_eq!(status, if is_plain(byte) { 200 } else { 422 }, "{name:?}: {answer}");
        // As a part of a path: bytes above 127 are no UTF-8.
        let declared = send(&server, &app, "PUT", &format!("/api/queues/y%{byte:02X}"), "{}").status;
        let is_refused = matches!(declared, 400 | 404 | 422);
        assert!(if is_plain(byte) { declared == 200 } else { is_refused }, "{byte:02X}: {declared}");
        for (method, path, body) in [
            ("GET", format!("/api/queues/%{byte:02X}{byte:02x}"), ""),
            ("GET", format!("/api/tasks/{task}%{byte:02X}"), ""),
            ("GET", format!("/api/tasks/{task}/artifacts/%{byte:02X}"), ""),
            ("PUT", format!("/api/schedules/z%{byte:02X}"), "{\"cron\":\"@yearly\",\"command\":\"work\"}"),
            ("GET", format!("/v1/codeq/tasks/%{byte:02X}"), ""),
            ("GET", format!("/api/tasks?q=command:%{byte:02X}"), ""),
            ("GET", format!("/api/tasks?command=%{byte:02X}"), ""),
        ] {
            let reply = send(&server, &app, method, &path, body);
            assert!(reply.status < 500, "{method} {path}: {}", reply.status);
        }
    }
    let queues = app.ask(&server, "GET", "/api/queues?limit=100", None).json();
    let is_known = |queue: &Value| queue["command"].as_str().expect("a name").bytes().all(is_plain);
    assert!(items(&queues).iter().all(is_known), "{queues}");
}

#[test]
fn queues_that_are_only_asked_for_cost_nothing_and_an_app_has_a_thousand() {
    let server = Server::start();
    let app = app(&server);
    let names = setting("TIDINGS_STORY_NAMES").unwrap_or(NAMES);
    let ask_for = |from: u64| {
        let commands: Vec<String> = (from..from + 100).map(|number| format!("asked-{number}")).collect();
        let (status, answer) =
            ask(&server, &app, "/api/tasks/claim", &json!({ "commands": commands })).expect("an answer");
        assert_eq!(status, 204, "{answer}");
        assert_eq!(app.ask(&server, "GET", &format!("/api/queues/{}", commands[0]), None).status, 404);
    };
    ask_for(0);
    let before = server.resident();
    (100..names.max(200)).step_by(100).for_each(ask_for);
    let more = server.resident().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more after {names} names");
    assert!(items(&app.ask(&server, "GET", "/api/queues", None).json()).is_empty(), "no queue was made");
    // A hundred with each request, until the bound of the app.
    let batch = |from: usize| {
        let tasks: Vec<Value> =
            (from..from + 100).map(|number| json!({ "command": format!("made-{number}") })).collect();
        ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("an answer")
    };
    for from in (0..900).step_by(100) {
        assert_eq!(batch(from).0, 201);
    }
    let one = |command: &str| {
        ask(&server, &app, "/api/tasks", &json!({ "command": command })).expect("an answer").0
    };
    assert_eq!(one("made-900"), 201);
    let (status, refused) = batch(901);
    assert_eq!(status, 429, "one queue too many: {refused}");
    assert_eq!(app.ask(&server, "GET", "/api/queues/made-910", None).status, 404, "nothing is half done");
    assert_eq!(batch(900).0, 201, "exactly a thousand");
    assert_eq!((one("more"), one("made-7")), (429, 201));
}

#[test]
fn a_worker_that_heartbeats_for_ever_loses_its_claim_when_the_time_of_its_queue_is_over() {
    let server = Server::start();
    let app = app(&server);
    declare(&server, &app, "slow", &json!({ "timeout_seconds": 6 }));
    let id = create(&server, &app, &json!({ "command": "slow" }));
    let began = Instant::now();
    let first = claim(&server, &app, &json!({ "commands": ["slow"], "claim_seconds": 5 })).remove(0);
    let mut beats = 0;
    let lost = eventually("end of the claim", SOON, || {
        let (status, answer) = say(&server, &app, &first, "heartbeat", json!({ "extend_seconds": 3600 }));
        beats += u64::from(status == 200);
        (status != 200).then_some((status, answer))
    });
    assert_eq!((lost.0, &lost.1["type"]), (409, &json!("urn:tidings:problem:claim-lost")));
    assert!(beats > 3, "{beats} heartbeats were taken");
    let took = began.elapsed();
    // The time of the queue, and what a busy machine adds; not the hour that was asked for.
    assert!(took > Duration::from_millis(5_500) && took < Duration::from_secs(30), "{took:?}");
    let second = claim(&server, &app, &json!({ "commands": ["slow"], "wait_seconds": 30 })).remove(0);
    assert_eq!(second["attempt"], 2);
    // Its heartbeats go on, and change nothing.
    assert_eq!(say(&server, &app, &first, "heartbeat", json!({ "progress": "still here" })).0, 409);
    let task = shown(&server, &app, &id);
    assert_eq!((&task["attempts"], task.get("progress")), (&json!(2), None), "{task}");
}

#[test]
fn floods_of_results_are_refused_or_repeated_within_bounds() {
    let server = Server::start();
    let app = app(&server);
    let make = |count: usize| {
        let tasks = vec![json!({ "command": "flood" }); count];
        assert_eq!(ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("told").0, 201);
        claim(&server, &app, &json!({ "commands": ["flood"], "count": count, "claim_seconds": 600 }))
    };
    let first = make(1).remove(0);
    let before = server.peak_resident();
    for (verb, body) in [
        ("complete", json!({ "result": "x".repeat(300 << 10) })),
        ("heartbeat", json!({ "progress": "x".repeat(5 << 10) })),
        ("complete", json!({ "then": vec![json!({ "command": "more" }); 101] })),
        ("fail", json!({ "error": "x".repeat(1 << 20) })),
        ("nack", json!({ "reason": "x".repeat(1 << 20) })),
    ] {
        let (status, answer) = say(&server, &app, &first, verb, body);
        assert!(matches!(status, 413 | 422), "{verb}: {status} {answer}");
    }
    let task = shown(&server, &app, first["id"].as_str().expect("an id"));
    assert_eq!((&task["state"], task.get("progress")), (&json!("claimed"), None), "nothing was taken");
    // Deep, and as large as the queue allows; then the same word again and again.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let path = format!("/api/tasks/{}/complete", first["id"].as_str().expect("an id"));
    let body = format!("{{\"token\":{},\"result\":{deep}}}", first["token"]);
    assert_eq!(send(&server, &app, "POST", &path, &body).status, 200);
    let words = setting("TIDINGS_STORY_WORDS").unwrap_or(WORDS);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..words / 4 {
                    let reply = send(&server, &app, "POST", &path, &body);
                    let text = String::from_utf8_lossy(&reply.message.body).into_owned();
                    assert!(reply.status == 200 && text.contains("\"repeated\":true"), "{text}");
                }
            });
        }
    });
    // A hundred results that are together more than a request may have; and as many as fit.
    let given = make(100);
    let words_of = |size: usize| {
        let word = |task: &Value| json!({ "token": task["token"], "result": "x".repeat(size) });
        json!({ "items": given.iter().map(word).collect::<Vec<_>>() }).to_string()
    };
    let path = "/api/tasks/batch/complete";
    assert_eq!(send(&server, &app, "POST", path, &words_of(43 << 10)).status, 413);
    let taken = send(&server, &app, "POST", path, &words_of(30 << 10));
    let statuses: Vec<Value> = taken.json()["items"].as_array().expect("a list").clone();
    assert!(statuses.len() == 100 && statuses.iter().all(|item| item["status"] == 200), "{}", taken.json());
    let more = server.peak_resident().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more");
}
