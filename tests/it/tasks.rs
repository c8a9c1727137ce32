//! Tasks: what producers and workers are promised, with the real server, kills, stopped workers and crowds.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    fleet::Fleet,
    patience::{SOON, eventually},
    server::Server,
    setting,
    subscriber::Subscriber,
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 12;

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

/// Asks as an app; `None` where the server is gone.
fn ask(server: &Server, app: &App, path: &str, body: &Value) -> Option<(u16, Value)> {
    let reply = server.ask("POST", path, Some(&app.token), Some(body)).ok()?;
    let answer = if reply.status == 204 { Value::Null } else { reply.json() };
    Some((reply.status, answer))
}

fn create(server: &Server, app: &App, body: &Value) -> String {
    let (status, made) = ask(server, app, "/api/tasks", body).expect("an answer");
    assert!(matches!(status, 200 | 201), "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

fn claim(server: &Server, app: &App, body: &Value) -> Vec<Value> {
    let (status, given) = ask(server, app, "/api/tasks/claim", body).expect("an answer");
    assert!(matches!(status, 200 | 204), "{given}");
    given["tasks"].as_array().cloned().unwrap_or_default()
}

fn say(server: &Server, app: &App, task: &Value, verb: &str, mut body: Value) -> (u16, Value) {
    body["token"] = task["token"].clone();
    let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
    ask(server, app, &path, &body).expect("an answer")
}

fn shown(server: &Server, app: &App, id: &str) -> Value {
    app.ask(server, "GET", &format!("/api/tasks/{id}"), None).json()
}

/// A worker that does not outlive its story.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _killed = self.0.kill();
        drop(self.0.wait());
    }
}

#[test]
fn a_worker_program_ends_tasks_by_its_exit_code() {
    let server = Server::start();
    let app = app(&server);
    let settings = json!({ "max_attempts": 2, "retry_policy": "fixed", "retry_base_seconds": 0 });
    assert_eq!(app.ask(&server, "PUT", "/api/queues/run", Some(&settings)).status, 200);
    let id = |payload: Value| create(&server, &app, &json!({ "command": "run", "payload": payload }));
    let (good, bad, again) = (id(json!("good")), id(json!("bad")), id(json!("again")));
    let program = "read -r word; case $word in '\"good\"') echo '{\"a\" : 1}';; '\"bad\"') echo no >&2; exit 100;; \
                   *) echo later >&2; exit 75;; esac";
    let address = format!("http://{}", server.address());
    let mut command = server.command(&["worker", "start", "run", "--server", &address, "--exec", program]);
    command.env("TIDINGS_TOKEN", &app.token).stdout(Stdio::null());
    let mut worker = Worker(command.spawn().expect("it starts"));
    let state = |id: &str, state: &str| {
        eventually("task that ends", SOON, || {
            let task = shown(&server, &app, id);
            (task["state"] == state).then_some(task)
        })
    };
    assert_eq!(state(&good, "succeeded")["result"], json!({ "a": 1 }));
    assert_eq!(state(&bad, "failed")["error"], "no");
    let dead = state(&again, "dead");
    assert_eq!((&dead["attempts"], &dead["error"]), (&json!(2), &json!("later")));
    let entries = app.ask(&server, "GET", "/api/ledger?type=task.dead", None).json();
    assert_eq!(entries["items"][0]["subject"], again, "{entries}");
    Command::new("kill").args(["-TERM", &worker.0.id().to_string()]).status().expect("told");
    assert!(worker.0.wait().expect("ended").success());
}

#[test]
fn a_worker_that_was_stopped_beyond_its_claim_changes_nothing_when_it_goes_on() {
    let server = Server::start();
    let app = app(&server);
    let id = create(&server, &app, &json!({ "command": "slow", "payload": [1] }));
    let wanted = json!({ "commands": ["slow"], "claim_seconds": 1 });
    let first = claim(&server, &app, &wanted).remove(0);
    let began = Instant::now();
    let wanted = json!({ "commands": ["slow"], "wait_seconds": 10, "claim_seconds": 60 });
    let second = claim(&server, &app, &wanted).remove(0);
    assert!(began.elapsed() < Duration::from_secs(3), "a claim that ran out is free within a second");
    for (verb, body) in [
        ("heartbeat", json!({})),
        ("complete", json!({ "result": "stale" })),
        ("fail", json!({ "error": "stale" })),
        ("nack", json!({})),
        ("abandon", json!({})),
    ] {
        let (status, problem) = say(&server, &app, &first, verb, body);
        assert_eq!((status, &problem["type"]), (409, &json!("urn:tidings:problem:claim-lost")), "{verb}");
    }
    let task = shown(&server, &app, &id);
    assert_eq!((&task["state"], &task["attempts"]), (&json!("claimed"), &json!(2)));
    assert_eq!(say(&server, &app, &second, "complete", json!({ "result": 7 })).0, 200);
    let (status, twice) = say(&server, &app, &second, "complete", json!({ "result": 8 }));
    assert_eq!((status, &twice["repeated"]), (200, &json!(true)));
    assert_eq!(shown(&server, &app, &id)["result"], 7);
}

#[test]
fn waiting_claims_are_served_in_order_and_who_left_loses_nothing() {
    let waiting = usize::try_from(setting("TIDINGS_STORY_WAITING").unwrap_or(100)).expect("a number");
    let server = Server::start();
    let app = app(&server);
    let order = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for place in 0..waiting {
            let (server, app, order) = (&server, &app, &order);
            scope.spawn(move || {
                let wanted = json!({ "commands": ["line"], "wait_seconds": 60, "claim_seconds": 600 });
                let given = claim(server, app, &wanted);
                let [task] = &given[..] else { panic!("one task: {given:?}") };
                order.lock().expect("sound").push((place, task["payload"].as_u64().expect("a number")));
            });
            // In line before the next one comes.
            eventually("the claim waits", SOON, || in_line(server, place + 1).then_some(()));
        }
        for number in 0..waiting {
            create(&server, &app, &json!({ "command": "line", "payload": number }));
        }
    });
    let order = order.into_inner().expect("sound");
    assert!(order.iter().all(|(place, number)| *place as u64 == *number), "{order:?}");
    // One that leaves while it waits takes no task along.
    let stream = waiting_claim(&server, &app, "left");
    thread::sleep(Duration::from_millis(300));
    drop(stream);
    thread::sleep(Duration::from_millis(300));
    create(&server, &app, &json!({ "command": "left", "payload": 1 }));
    let given = claim(&server, &app, &json!({ "commands": ["left"], "wait_seconds": 5 }));
    assert_eq!(given[0]["attempt"], 1, "{given:?}");
}

/// Whether so many claims wait, as the supervision tree tells.
fn in_line(server: &Server, count: usize) -> bool {
    let token = std::fs::read_to_string(server.data().join("admin-token")).expect("a token");
    let tree = server.ask("GET", "/api/admin/tree", Some(token.trim()), None).expect("an answer");
    String::from_utf8_lossy(&tree.message.body).contains(&format!("\"{count} wait\""))
}

#[test]
fn a_token_that_ends_while_it_waits_gets_nothing_and_one_of_other_commands_changes_nothing() {
    let server = Server::start();
    let app = app(&server);
    let narrowed = |commands: Value| {
        let body = json!({ "name": "w", "permissions": ["tasks:claim", "tasks:read"], "commands": commands });
        let made = app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
        (
            made["token_id"].as_str().expect("an id").to_owned(),
            made["token"].as_str().expect("one").to_owned(),
        )
    };
    let (id, token) = narrowed(json!(["mail"]));
    let wanted = json!({ "commands": ["mail"], "wait_seconds": 30 });
    let answer = thread::scope(|scope| {
        let ask = || server.ask("POST", "/api/tasks/claim", Some(&token), Some(&wanted)).expect("an answer");
        let waiting = scope.spawn(ask);
        eventually("the claim waits", SOON, || in_line(&server, 1).then_some(()));
        assert_eq!(app.ask(&server, "DELETE", &format!("/api/app/tokens/{id}"), None).status, 204);
        create(&server, &app, &json!({ "command": "mail", "payload": "after the end" }));
        waiting.join().expect("an answer")
    });
    assert_eq!(answer.status, 401, "{}", answer.json());
    let given = claim(&server, &app, &json!({ "commands": ["mail"], "wait_seconds": 20 }));
    assert_eq!((&given[0]["payload"], &given[0]["attempt"]), (&json!("after the end"), &json!(1)));

    let (_, other) = narrowed(json!(["pictures"]));
    let body = json!({ "token": given[0]["token"] });
    for verb in ["heartbeat", "complete", "nack", "abandon"] {
        let path = format!("/api/tasks/{}/{verb}", given[0]["id"].as_str().expect("an id"));
        let answer = server.ask("POST", &path, Some(&other), Some(&body)).expect("an answer");
        assert_eq!(answer.status, 404, "{verb}: {}", answer.json());
    }
    let items = json!({ "items": [body] });
    let answer = server.ask("POST", "/api/tasks/batch/complete", Some(&other), Some(&items));
    assert_eq!(answer.expect("an answer").json()["items"][0]["status"], 404);
    assert_eq!(say(&server, &app, &given[0], "complete", json!({})).0, 200);
}

/// A connection whose claim waits for a task of this command.
fn waiting_claim(server: &Server, app: &App, command: &str) -> std::net::TcpStream {
    let wanted = json!({ "commands": [command], "wait_seconds": 60 }).to_string();
    let head = format!(
        "POST /api/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        app.token,
        wanted.len()
    );
    let mut stream = std::net::TcpStream::connect(server.address()).expect("connected");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
    stream
}

#[test]
fn claims_that_wait_take_no_connection_from_anybody() {
    let mut server = Server::prepare()
        .with("server.connections_max", "8")
        .with("server.connections_per_address_max", "16")
        .with("server.waiting_connections_max", "20");
    server.run();
    let app = app(&server);
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let stream = waiting_claim(&server, &app, "few");
            // One of them is never too many for its address, if the server looks at it in time.
            thread::sleep(Duration::from_millis(50));
            stream
        })
        .collect();
    let patient = json!({ "commands": ["other"], "wait_seconds": 1 });
    let refused = eventually("no claim may wait any more", SOON, || {
        let (status, told) = ask(&server, &app, "/api/tasks/claim", &patient)?;
        (status == 429).then_some(told)
    });
    assert!(refused.to_string().contains("server.waiting_connections_max"), "{refused}");
    let (status, told) =
        ask(&server, &app, "/api/tasks/claim", &json!({ "commands": ["other"] })).expect("an answer");
    assert_eq!(status, 204, "a claim that does not wait needs no place: {told}");
    for number in 0..20 {
        create(&server, &app, &json!({ "command": "few", "payload": number }));
    }
    let mut given = Vec::new();
    for stream in &mut waiting {
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        while !text.ends_with(b"}]}") && !text.ends_with(b"0\r\n\r\n") {
            let count = std::io::Read::read(stream, &mut part).expect("an answer");
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&part[..count]);
        }
        given.push(String::from_utf8_lossy(&text).into_owned());
    }
    assert!(given.iter().all(|text| text.starts_with("HTTP/1.1 200") && text.contains("\"payload\"")));
    let closed = given.iter().filter(|text| text.to_lowercase().contains("connection: close")).count();
    assert!(closed > 0, "those that found no ordinary place end with their answer: {given:?}");
    assert!((0..20).all(|number| given.iter().any(|text| text.contains(&format!("\"payload\":{number},")))));
}

#[test]
fn who_hangs_up_while_tasks_are_written_to_it_loses_nothing() {
    const TASKS: usize = 96;
    let server = Server::start();
    let app = app(&server);
    // More than sockets hold: the answer is on its way until it is read.
    let large = "x".repeat(250 << 10);
    for _ in 0..TASKS / 12 {
        let tasks = vec![json!({ "command": "large", "payload": large }); 12];
        let made = ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("an answer");
        assert_eq!(made.0, 201);
    }
    let wanted = json!({ "commands": ["large"], "count": TASKS, "claim_seconds": 3_600 }).to_string();
    let head = format!(
        "POST /api/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        app.token,
        wanted.len()
    );
    let mut stream = std::net::TcpStream::connect(server.address()).expect("connected");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
    let mut begun = [0; 16];
    std::io::Read::read_exact(&mut stream, &mut begun).expect("the answer begins");
    assert!(begun.starts_with(b"HTTP/1.1 200"), "{begun:?}");
    drop(stream);
    let queue = eventually("tasks that are given back", SOON, || {
        let queue = app.ask(&server, "GET", "/api/queues/large", None).json();
        (queue["counts"]["ready"] == TASKS).then_some(queue)
    });
    assert_eq!(queue["counts"]["claimed"], 0);
    let given = claim(&server, &app, &json!({ "commands": ["large"] }));
    assert_eq!(given[0]["attempt"], 1, "no attempt is counted");
}

#[test]
fn payloads_come_back_byte_by_byte_and_hostile_ones_hurt_nobody() {
    let server = Server::start();
    let app = app(&server);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for payload in ["{ \"b\" : 1.50,\"a\":1e3 }", "\"\\u0000\\ud800\"", &deep] {
        let body = format!("{{\"command\":\"bytes\",\"payload\":{payload}}}");
        let call = |path: &str, body: &str| {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \
                 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                app.token,
                body.len()
            );
            crate::support::http::raw(server.address(), request.as_bytes()).expect("an answer")
        };
        assert_eq!(call("/api/tasks", &body).status, 201);
        let given = call("/api/tasks/claim", "{\"commands\":[\"bytes\"]}");
        let text = String::from_utf8_lossy(&given.message.body).into_owned();
        assert!(text.contains(&format!("\"payload\":{payload},")), "{}", &text[..text.len().min(300)]);
    }
    let (status, refused) =
        ask(&server, &app, "/api/tasks", &json!({ "command": "large", "payload": "x".repeat(300 << 10) }))
            .expect("an answer");
    assert_eq!(status, 413, "{refused}");
    for command in ["", "a b", "tidings.x", "\u{0}", &"x".repeat(129), "../x", ".", ".."] {
        let (status, _) =
            ask(&server, &app, "/api/tasks", &json!({ "command": command })).expect("an answer");
        assert_eq!(status, 422, "{command:?}");
    }
    let other = app_named(&server);
    let id = create(&server, &app, &json!({ "command": "mine", "payload": 1 }));
    assert_eq!(other.ask(&server, "GET", &format!("/api/tasks/{id}"), None).status, 404);
    assert!(claim(&server, &other, &json!({ "commands": ["mine"] })).is_empty());
}

fn app_named(server: &Server) -> App {
    App::onboard_with(server, &Subscriber::start(), &json!({ "email": "other@example.org" }))
}

/// Creates tasks until it is over or the server is gone; the ids of those that were acknowledged.
fn produce(server: &Server, app: &App, is_over: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let tasks = vec![json!({ "command": "storm", "payload": 1 }); 5];
        let asked = ask(server, app, "/api/tasks/batch", &json!({ "tasks": tasks }));
        let Some((201, answer)) = asked else { break };
        let ids = answer["tasks"].as_array().expect("a list").clone();
        made.extend(ids.iter().map(|task| task["id"].as_str().expect("an id").to_owned()));
    }
    made
}

#[test]
fn kills_of_the_server_lose_no_task_and_count_no_attempt_twice() {
    let mut server = Server::start();
    let app = app(&server);
    let settings = json!({ "max_attempts": 1000, "retry_policy": "fixed", "retry_base_seconds": 0 });
    assert_eq!(app.ask(&server, "PUT", "/api/queues/storm", Some(&settings)).status, 200);
    let mut dice = Dice::thrown("killing tasks");
    let (mut acknowledged, mut ended) = (BTreeSet::new(), BTreeMap::new());
    for _ in 0..setting("TIDINGS_STORY_KILLS").unwrap_or(KILLS) {
        let until = Instant::now() + dice.up_to(Duration::from_millis(900));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (server, app, is_over) = (&server, &app, &is_over);
            let produced = scope.spawn(move || produce(server, app, is_over));
            let worked = scope.spawn(move || {
                let mut done = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let wanted = json!({ "commands": ["storm"], "count": 3, "claim_seconds": 2 });
                    let Some((_, given)) = ask(server, app, "/api/tasks/claim", &wanted) else { break };
                    for task in given["tasks"].as_array().into_iter().flatten() {
                        let id = task["id"].as_str().expect("an id");
                        let body = json!({ "token": task["token"], "result": task["attempt"] });
                        let told = ask(server, app, &format!("/api/tasks/{id}/complete"), &body);
                        if let Some((200, _)) = told {
                            done.push((id.to_owned(), task["attempt"].clone()));
                        }
                    }
                }
                done
            });
            while Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            // The kill comes in the middle of what both ask for.
            let process = server.process().to_string();
            Command::new("kill").args(["-KILL", &process]).status().expect("killed");
            is_over.store(true, Ordering::Relaxed);
            acknowledged.extend(produced.join().expect("sound"));
            for (id, attempt) in worked.join().expect("sound") {
                assert!(ended.insert(id.clone(), attempt).is_none(), "{id} was ended twice");
            }
        });
        server.kill();
        server.run();
    }
    assert!(!acknowledged.is_empty() && !ended.is_empty());
    for id in &acknowledged {
        let task = shown(&server, &app, id);
        assert!(task["state"].is_string(), "{id} was acknowledged and is gone: {task}");
        if let Some(attempt) = ended.get(id) {
            assert_eq!((&task["state"], &task["attempts"]), (&json!("succeeded"), attempt), "{task}");
            assert_eq!(task["result"], *attempt, "the result is that of the claim that ended it");
        }
    }
    // What is left is done to its end, and the numbers of the queue agree with the rows.
    eventually("queue that is empty", SOON + Duration::from_secs(20), || {
        for task in claim(&server, &app, &json!({ "commands": ["storm"], "count": 100, "wait_seconds": 1 })) {
            say(&server, &app, &task, "complete", json!({}));
        }
        let queue = app.ask(&server, "GET", "/api/queues/storm", None).json();
        (queue["counts"]["ready"] == 0 && queue["counts"]["claimed"] == 0).then_some(())
    });
    let queue = app.ask(&server, "GET", "/api/queues/storm", None).json();
    assert!(queue["counts"]["succeeded"].as_u64().expect("a number") >= acknowledged.len() as u64, "{queue}");
}

#[test]
fn two_replicas_hand_out_each_task_once_and_within_its_bounds() {
    const TASKS: u64 = 300;
    let Some(fleet) = Fleet::start(2, Duration::from_secs(3)) else { return };
    let app = app(&fleet.servers[0]);
    let settings = json!({ "max_claimed": 2 });
    assert_eq!(app.ask(&fleet.servers[1], "PUT", "/api/queues/few", Some(&settings)).status, 200);
    for _ in 0..TASKS / 100 {
        let tasks = vec![json!({ "command": "few", "payload": 1 }); 100];
        assert_eq!(
            ask(&fleet.servers[0], &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("made").0,
            201
        );
    }
    let (held, most, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let seen = std::sync::Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for worker in 0..6 {
            let (server, app) = (&fleet.servers[worker % 2], &app);
            let (held, most, done, seen) = (&held, &most, &done, &seen);
            scope.spawn(move || {
                while done.load(Ordering::SeqCst) < TASKS {
                    let wanted = json!({ "commands": ["few"], "count": 2, "wait_seconds": 1 });
                    for task in claim(server, app, &wanted) {
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let id = task["id"].as_str().expect("an id").to_owned();
                        assert!(seen.lock().expect("sound").insert(id), "given twice: {task}");
                        held.fetch_sub(1, Ordering::SeqCst);
                        assert_eq!(say(server, app, &task, "complete", json!({})).0, 200);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(seen.into_inner().expect("sound").len() as u64, TASKS);
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
    // A worker that waits at one replica is woken by a task that comes to the other.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            let wanted = json!({ "commands": ["across"], "wait_seconds": 30 });
            (claim(&fleet.servers[0], &app, &wanted).len(), began.elapsed())
        });
        thread::sleep(Duration::from_secs(1));
        create(&fleet.servers[1], &app, &json!({ "command": "across", "payload": 1 }));
        let (count, took) = waiting.join().expect("sound");
        assert_eq!(count, 1);
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

#[test]
fn what_a_verb_does_not_name_stays_and_what_cannot_work_is_refused_at_once() {
    let server = Server::start();
    let (app, address) = (app(&server), format!("http://{}", server.address()));
    let run = |arguments: &str, code: i32| {
        let mut command = server.command(&arguments.split(' ').collect::<Vec<_>>());
        command.args(["--server", &address]).env("TIDINGS_TOKEN", &app.token);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
    };
    run("queue set later --max-claimed 3 --rate 9", 0);
    run("queue set later --rate 5", 0);
    let settings = app.ask(&server, "GET", "/api/queues/later", None).json()["settings"].clone();
    assert_eq!(settings, json!({ "max_claimed": 3, "rate": 5 }));
    run("schedule add nightly --cron @daily --command embed", 0);
    run("schedule add nightly --cron @hourly --command embed", 65);
    run("schedule add nightly --cron @weekly --command embed --replace", 0);
    assert_eq!(app.ask(&server, "GET", "/api/schedules/nightly", None).json()["cron"], "@weekly");
    run("worker start embed --exec ./nosuch", 64);
    let both = json!({ "command": "a", "run_at": "2027-01-01T00:00:00Z", "delay_seconds": 1 });
    let (status, problem) =
        ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": [{ "command": "a" }, both] }))
            .expect("told");
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/tasks/1/delay_seconds")));
}
