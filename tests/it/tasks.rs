//! Tasks: what producers and workers are promised, with the real server and real workers.

mod answers;
mod by_hand;

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    fleet::Fleet,
    patience::{SOON, eventually},
    peer::{Peer, Word},
    server::{Server, bare_command},
    subscriber::Subscriber,
};

pub(crate) fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

/// Asks as an app; `None` where the server is gone.
pub(crate) fn ask(server: &Server, app: &App, path: &str, body: &Value) -> Option<(u16, Value)> {
    let reply = server.ask("POST", path, Some(&app.token), Some(body)).ok()?;
    let answer = if reply.status == 204 { Value::Null } else { reply.json() };
    Some((reply.status, answer))
}

pub(crate) fn create(server: &Server, app: &App, body: &Value) -> String {
    let (status, made) = ask(server, app, "/api/tasks", body).expect("an answer");
    assert!(matches!(status, 200 | 201), "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

pub(crate) fn claim(server: &Server, app: &App, body: &Value) -> Vec<Value> {
    let (status, given) = ask(server, app, "/api/tasks/claim", body).expect("an answer");
    assert!(matches!(status, 200 | 204), "{given}");
    given["tasks"].as_array().cloned().unwrap_or_default()
}

pub(crate) fn say(server: &Server, app: &App, task: &Value, verb: &str, mut body: Value) -> (u16, Value) {
    body["token"] = task["token"].clone();
    let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
    ask(server, app, &path, &body).expect("an answer")
}

pub(crate) fn shown(server: &Server, app: &App, id: &str) -> Value {
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
    command.env("TIDINGS_TOKEN", &app.token).stdout(Stdio::piped());
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
    let told = std::io::read_to_string(worker.0.stdout.take().expect("piped")).expect("a text");
    for line in [
        format!("{good} run completed\n"),
        format!("{bad} run failed (exit code 100)\n"),
        format!("{again} run given back (exit code 75)\n"),
        format!("{again} run dead: this was its last attempt (exit code 75)\n"),
    ] {
        assert!(told.contains(&line), "{told}");
    }
}

#[test]
fn a_worker_that_cannot_run_its_program_gives_the_task_back_and_ends() {
    let server = Server::start();
    let app = app(&server);
    let id = create(&server, &app, &json!({ "command": "run" }));
    let address = format!("http://{}", server.address());
    let ended = |concurrency: &str| {
        let start = ["worker", "start", "run", "--server", address.as_str(), "--exec", "true"];
        let mut command = server.command(&start);
        command.args(["--concurrency", concurrency]).env("TIDINGS_TOKEN", &app.token);
        // There is no room for artifacts.
        command.env("TMPDIR", "/nowhere").stdout(Stdio::null()).stderr(Stdio::null());
        let mut worker = Worker(command.spawn().expect("it starts"));
        eventually("end of the worker", SOON, || worker.0.try_wait().expect("a child"))
    };
    assert!(!ended("1").success());
    let task = shown(&server, &app, &id);
    assert_eq!((&task["state"], &task["attempts"]), (&json!("ready"), &json!(0)));
    assert!(!ended("3").success(), "none goes on without the others");
}

#[test]
fn a_worker_that_stops_gives_back_the_task_whose_answer_is_on_its_way() {
    let (asked, waits) = mpsc::channel();
    let (answers, answer) = mpsc::channel();
    let peer = Peer::plain(move |seen| {
        if seen.path != "/api/tasks/claim" {
            return Word::Say(200, "{}".to_owned());
        }
        asked.send(()).expect("the story goes on");
        Word::Say(200, answer.recv_timeout(SOON).expect("an answer"))
    });
    let home = tempfile::tempdir().expect("a folder");
    let mut command = bare_command(home.path());
    command.args(["worker", "start", "run", "--server", &peer.url(), "--exec", "true"]);
    let mut worker = Worker(command.env("TIDINGS_TOKEN", "a-token").spawn().expect("it starts"));
    waits.recv_timeout(SOON).expect("a claim");
    Command::new("kill").args(["-TERM", &worker.0.id().to_string()]).status().expect("told");
    // If the answer should come before the signal the task is completed, which loses nothing either.
    thread::sleep(Duration::from_millis(200));
    let task =
        json!({ "id": "tsk_1", "token": "of-the-claim", "command": "run", "attempt": 1, "payload": null });
    answers.send(json!({ "tasks": [task] }).to_string()).expect("it waits");
    let seen = peer.wait_for(2);
    assert!(["/api/tasks/tsk_1/abandon", "/api/tasks/tsk_1/complete"].contains(&seen[1].path.as_str()));
    assert_eq!(seen[1].json()["token"], "of-the-claim");
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
    let wanted = json!({ "commands": ["slow"], "wait_seconds": 30, "claim_seconds": 600 });
    let second = claim(&server, &app, &wanted).remove(0);
    // Within a second on a quiet machine: stories of the actors hold that figure.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "the claim of a second that ran out was free after {took:?}");
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

#[test]
fn two_replicas_hand_out_each_task_once_and_within_its_bounds() {
    const TASKS: u64 = 300;
    let Some(fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
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
                    let (status, given) = ask(server, app, "/api/tasks/claim", &wanted).expect("an answer");
                    // 503: the database had no connection in time, as on a busy machine.
                    assert!(matches!(status, 200 | 204 | 503), "{status} {given}");
                    for task in given["tasks"].as_array().into_iter().flatten() {
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let id = task["id"].as_str().expect("an id").to_owned();
                        assert!(seen.lock().expect("sound").insert(id), "given twice: {task}");
                        held.fetch_sub(1, Ordering::SeqCst);
                        eventually("word that is heard", SOON, || {
                            let (status, said) = say(server, app, task, "complete", json!({}));
                            assert!(matches!(status, 200 | 503), "{status} {said}");
                            (status == 200).then_some(())
                        });
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
            let wanted = json!({ "commands": ["across"], "wait_seconds": 60 });
            (claim(&fleet.servers[0], &app, &wanted).len(), Instant::now())
        });
        thread::sleep(Duration::from_secs(1));
        let created = Instant::now();
        create(&fleet.servers[1], &app, &json!({ "command": "across", "payload": 1 }));
        let (count, at) = waiting.join().expect("sound");
        assert_eq!(count, 1);
        let took = at.duration_since(created);
        assert!(took < Duration::from_secs(8), "woken {took:?} after the create began");
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
    run("queue set later --max-claimed none --timeout 60 --retry-policy fixed", 0);
    let settings = app.ask(&server, "GET", "/api/queues/later", None).json()["settings"].clone();
    let without_bound = json!({ "rate": 5, "timeout_seconds": 60, "retry_policy": "fixed" });
    assert_eq!(settings, without_bound, "`none` removes the bound");
    run("queue set later --timeout default --retry-policy default --rate none", 0);
    let settings = app.ask(&server, "GET", "/api/queues/later", None).json()["settings"].clone();
    assert_eq!(settings, json!({}), "`default` brings a setting back");
    run("queue set later --max-attempts none", 64);
    run("queue set later --rate default", 64);
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
