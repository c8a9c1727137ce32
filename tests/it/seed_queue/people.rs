//! QE to QH: who may, the routes of operators, the command line and metrics.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{OLDER, app, ask, claim, create, get, metric, post, say, task};
use crate::support::{
    api::items,
    fleet::Fleet,
    http,
    inbox::Inbox,
    oidc::Provider,
    patience::{SOON, eventually},
    server::{Server, bare_command},
};

#[test]
fn qe_who_may() {
    let issuer = Provider::start(json!([]));
    let key = |part: &str| format!("identity.issuers.programs.{part}");
    let mut server = Server::prepare()
        .with(&key("opens"), "apps")
        .with(&key("issuer"), &issuer.issuer())
        .with(&key("audience"), "queue")
        .with(&key("jwks_url"), &format!("{}/keys", issuer.issuer()));
    server.run();
    let app = app(&server);
    let tasks = format!("{OLDER}/tasks");
    let claims = |scope: &str, commands: Value| {
        let mut claims = json!({ "aud": "queue", "sub": "worker-7", "tenant": app.id });
        (claims["scope"], claims["eventTypes"]) = (json!(scope), commands);
        claims
    };
    let body = |command: &str| json!({ "command": command, "payload": {} });
    // QE1: a JWT with the scope creates; without it 403.
    let producer = issuer.token(&claims("tasks:create tasks:read", json!(["*"])));
    let reader = issuer.token(&claims("tasks:read", json!(["*"])));
    assert_eq!(post(&server, &producer, &tasks, body("a")).0, 202);
    assert_eq!(post(&server, &producer, &tasks, body("b")).0, 202);
    assert_eq!(post(&server, &reader, &tasks, body("a")).0, 403);
    // QE2: a worker's JWT claims, and cannot create. QE5: for command A: B is 403, none named is A alone.
    let scope = "codeq:claim codeq:heartbeat codeq:abandon codeq:nack codeq:result";
    let worker = issuer.token(&claims(scope, json!(["a"])));
    assert_eq!(post(&server, &worker, &tasks, body("a")).0, 403);
    let claim = |token: &str, body: Value| post(&server, token, &format!("{tasks}/claim"), body);
    let (status, said) = claim(&worker, json!({ "commands": ["b"] }));
    assert_eq!((status, &said["error"]), (403, &json!("event type not allowed")));
    let (status, given) = claim(&worker, json!({}));
    assert_eq!((status, &given["command"]), (200, &json!("a")), "{given}");
    assert!(given["workerId"].as_str().is_some_and(|id| id.starts_with("jwt:")), "{given}");
    assert_eq!(claim(&worker, json!({})).0, 204);
    let id = given["id"].as_str().expect("an id").to_owned();
    let beat = issuer.token(&claims("codeq:heartbeat", json!(["a"])));
    assert_eq!(
        post(&server, &beat, &format!("{tasks}/{id}/heartbeat"), json!({})).0,
        403,
        "without codeq:claim"
    );
    let done = json!({ "status": "COMPLETED", "result": {} });
    assert_eq!(post(&server, &worker, &format!("{tasks}/{id}/result"), done).0, 200);
    // QE3: both read.
    for token in [&producer, &worker] {
        assert_eq!(get(&server, token, &format!("{tasks}/{id}/result"))["task"]["id"], id);
    }
    // QE4: the routes of admins need their scope.
    let admin = issuer.token(&claims("codeq:admin", json!(["*"])));
    for (method, path) in [("GET", "queues"), ("GET", "queues/a"), ("POST", "tasks/cleanup")] {
        let path = format!("{OLDER}/admin/{path}");
        assert_eq!(ask(&server, &worker, method, &path, json!({})).0, 403, "{path}");
        assert_eq!(ask(&server, &admin, method, &path, json!({})).0, 200, "{path}");
    }
    // QE6: issuer, audience, end and beginning are checked.
    let far = 4_000_000_000_u64;
    for (claim, value) in [("iss", json!("x")), ("aud", json!("x")), ("exp", json!(1)), ("nbf", json!(far))] {
        let mut claims = claims("tasks:create", json!(["*"]));
        claims[claim] = value.clone();
        assert_eq!(post(&server, &issuer.token(&claims), &tasks, body("a")).0, 401, "{claim} {value}");
    }
    // QE7: the caller's own id is kept.
    let request = format!(
        "GET {tasks}/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {producer}\r\n\
         x-request-id: 0123-of-the-caller\r\n\r\n"
    );
    let reply = http::raw(server.address(), request.as_bytes()).expect("an answer");
    assert_eq!((reply.status, reply.message.header("x-request-id")), (200, Some("0123-of-the-caller")));
}

#[test]
fn qf_administration() {
    let server = Server::start();
    let app = app(&server);
    for command in ["a", "a", "b"] {
        create(&server, &app, json!({ "command": command }));
    }
    // QF1 and QF2: every queue with its numbers (QB3 has all four).
    let all = get(&server, &app.token, &format!("{OLDER}/admin/queues"));
    assert_eq!((&all["codeq:q:a:pending:0"], &all["codeq:q:b:pending:0"]), (&json!(2), &json!(1)));
    // QF3: those whose time is over are gone, with their number.
    assert_eq!(ask(&server, &app.token, "PUT", "/api/queues/b", json!({ "retention_seconds": 0 })).0, 200);
    let held = claim(&server, &app.token, "b", 60, 0);
    assert_eq!(say(&server, &app.token, &held, "complete", json!({})).0, 200);
    let cleaned = post(&server, &app.token, &format!("{OLDER}/admin/tasks/cleanup"), json!({})).1;
    assert_eq!(cleaned["deleted"], 1, "{cleaned}");
    // QF4: paused: nothing is claimed and nothing lost; cancelled: never claimed; a limit of 2 holds.
    assert_eq!(post(&server, &app.token, "/api/queues/a/pause", json!({})).0, 200);
    assert_eq!(claim(&server, &app.token, "a", 60, 0), Value::Null);
    assert_eq!(post(&server, &app.token, "/api/queues/a/resume", json!({})).0, 200);
    let found = items(&get(&server, &app.token, "/api/tasks?q=command:a%20state:ready"));
    assert_eq!(found.len(), 2);
    let cancelled = found[0]["id"].as_str().expect("an id");
    assert_eq!(post(&server, &app.token, &format!("/api/tasks/{cancelled}/cancel"), json!({})).0, 200);
    assert_eq!(claim(&server, &app.token, "a", 60, 0)["id"], found[1]["id"]);
    assert_eq!(claim(&server, &app.token, "a", 60, 0), Value::Null);
    assert_eq!(ask(&server, &app.token, "PUT", "/api/queues/two", json!({ "max_claimed": 2 })).0, 200);
    for _ in 0..5 {
        create(&server, &app, json!({ "command": "two" }));
    }
    let body = json!({ "commands": ["two"], "count": 5 });
    assert_eq!(
        post(&server, &app.token, "/api/tasks/claim", body).1["tasks"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(claim(&server, &app.token, "two", 60, 0), Value::Null);
}

#[test]
fn qg_the_command_line() {
    let server = Server::start();
    let (app, stranger) = (app(&server), app(&server));
    let home = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = bare_command(home.path());
        command.args(arguments).current_dir(home.path());
        if let Some(token) = token {
            command.env("TIDINGS_TOKEN", token);
        }
        let output = command.output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    };
    // QG1: a commented file that is accepted.
    let (is_well, said) = run(&["init"], None);
    assert!(is_well, "{said}");
    let file = std::fs::read_dir(home.path())
        .expect("a folder")
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|extension| extension == "toml"));
    let file = file.expect("a file").path();
    assert!(std::fs::read_to_string(&file).expect("text").contains("# "));
    assert!(run(&["check-config", "--config", file.to_str().expect("text")], None).0);
    // QG2: logged in, later verbs need no token; nothing shows the secret. `kept_login` looks at the file.
    let address = format!("http://{}", server.address());
    assert!(run(&["auth", "login", "--server", &address], Some(&app.token)).0);
    let (is_well, shown) = run(&["auth", "show"], None);
    assert!(is_well && !shown.contains(&app.token), "{shown}");
    // QG3: create and get with --json; a stranger's task is none.
    let (is_well, made) = run(&["task", "create", "say", "--payload", "{\"a\":1}", "--json"], None);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert!(is_well && made["id"].is_string(), "{made}");
    let theirs = create(&server, &stranger, json!({ "command": "say" }));
    assert!(!run(&["task", "show", &theirs], None).0);
    // QG4: a worker with a handler: the payload on its input, the result from its output.
    let mut worker = bare_command(home.path());
    worker.args(["worker", "start", "say", "--exec", "cat"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut worker = worker.spawn().expect("started");
    let id = made["id"].as_str().expect("an id");
    eventually("a result", SOON, || (task(&server, &app, id)["result"] == json!({ "a": 1 })).then_some(()));
    Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().expect("told");
    assert!(worker.wait().expect("ended").success());
    let (_, shown) = run(&["task", "show", id], None);
    assert!(shown.contains("CLAIMED_AT") && shown.contains("completed"), "{shown}");
    // QG5: the numbers of a queue.
    let (is_well, said) = run(&["queue", "show", "say", "--json"], None);
    let queue: Value = serde_json::from_str(&said).expect("JSON");
    assert!(is_well && queue["counts"]["succeeded"] == 1, "{said}");
    assert!(run(&["auth", "clear"], None).0 && !run(&["queue", "show", "say"], None).0);
}

#[test]
fn qh_metrics() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    // QH1: each counter moves by one with one action. QH2: a task of 2 s falls into its bucket, by state.
    let began = Instant::now();
    create(&server, &app, json!({ "command": "m", "webhook": inbox.url() }));
    let held = claim(&server, &app.token, "m", 60, 0);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(say(&server, &app.token, &held, "complete", json!({})).0, 200);
    // By another clock, which may differ by a little.
    let most = began.elapsed().as_secs_f64() + 0.1;
    for line in [
        "tidings_tasks_created_total{queue=\"other\"}",
        "tidings_tasks_claimed_total{queue=\"other\"}",
        "tidings_tasks_ended_total{queue=\"other\",state=\"succeeded\"}",
        "tidings_callbacks_total{outcome=\"taken\"}",
        "tidings_task_duration_seconds_count{queue=\"other\",state=\"succeeded\"}",
    ] {
        eventually(line, SOON, || (metric(&server, line) == 1.0).then_some(()));
    }
    let sum = metric(&server, "tidings_task_duration_seconds_sum{queue=\"other\",state=\"succeeded\"}");
    assert!((2.0..=most).contains(&sum), "{sum} seconds of {most}");
    // QH3: the depth by state equals the numbers of the queue.
    create(&server, &app, json!({ "command": "m" }));
    create(&server, &app, json!({ "command": "m", "delay_seconds": 600 }));
    for state in ["ready", "waiting", "succeeded"] {
        let line = format!("tidings_tasks{{queue=\"other\",state=\"{state}\"}}");
        eventually(&line, SOON, || (metric(&server, &line) == 1.0).then_some(()));
    }
    let listener = json!({ "url": inbox.url(), "commands": ["m"] });
    assert_eq!(post(&server, &app.token, "/api/workers/subscriptions", listener).0, 201);
    let line = "tidings_worker_subscriptions";
    eventually(line, SOON, || (metric(&server, line) == 1.0).then_some(()));
    // QH4: of several replicas the one that leads reports the depth, so that `max` is right.
    let Some(fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
    let app = super::app(&fleet.servers[0]);
    create(&fleet.servers[1], &app, json!({ "command": "m" }));
    let depth = |server: &Server| metric(server, "tidings_tasks{queue=\"other\",state=\"ready\"}");
    eventually("the depth", SOON, || {
        let all: Vec<f64> = fleet.servers.iter().map(depth).collect();
        (all.iter().copied().fold(0.0, f64::max) == 1.0).then_some(())
    });
}
