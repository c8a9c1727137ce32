//! The workers of docs/workers.md: each gets tasks that are longer than their claim, payloads that cannot be
//! used, a server that restarts in the middle, and SIGTERM.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Group, PAGE, blocks, is_there, page, worker::Worker};
use crate::{
    support::{
        api::App,
        balancer::Balancer,
        patience::{SOON, eventually},
        server::Server,
    },
    tasks::{app, create, shown},
};

/// How long workers claim, in seconds: a slow machine must be in time with the heartbeat of each third.
const CLAIM_SECONDS: u64 = 9;

/// A worker that runs.
enum Running {
    /// A program, whose output is in the file `log` of its home.
    Program { home: TempDir, group: Group },
    /// The worker for Rust, which a story compares with the guide.
    Thread { is_stopping: Arc<AtomicBool>, thread: JoinHandle<Result<(), u16>> },
}

impl Running {
    /// Starts the program of a block of the guide; `None` where the machine lacks the language.
    fn start(language: &str, file: &str, command: &[&str], server: &str, token: &str) -> Option<Self> {
        if !is_there(command[0]) {
            println!("skipped: there is no {} on this machine", command[0]);
            return None;
        }
        let home = TempDir::new().expect("a folder");
        let block = blocks(&page("workers.md")).into_iter().find(|(words, _)| words == language);
        fs::write(home.path().join(file), block.expect("a worker").1).expect("written");
        let mut worker = Command::new(command[0]);
        worker.args(&command[1..]).arg(file).current_dir(home.path()).env("HOME", home.path());
        worker.env("TIDINGS_SERVER", server).env("TIDINGS_TOKEN", token);
        worker.env("CLAIM_SECONDS", CLAIM_SECONDS.to_string());
        let group = Group::start(&mut worker, &home.path().join("log"));
        Some(Self::Program { home, group })
    }

    #[expect(clippy::disallowed_methods, reason = "a worker is a client of ours")]
    fn of_rust(server: &str, token: &str) -> Self {
        // Whoever comes first installs it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (server, token) = (server.to_owned(), token.to_owned());
        let worker = Worker { http, server, token, claim_seconds: CLAIM_SECONDS };
        let is_stopping = Arc::new(AtomicBool::new(false));
        let is_told = is_stopping.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(worker.run(&is_told))
        });
        Self::Thread { is_stopping, thread }
    }

    fn said(&self) -> String {
        match self {
            Self::Program { home, .. } => fs::read_to_string(home.path().join("log")).unwrap_or_default(),
            Self::Thread { .. } => String::new(),
        }
    }

    /// Tells the worker to end, as a service manager does.
    fn terminate(&self) {
        match self {
            Self::Program { group, .. } => {
                kill_process_group(Pid::from_child(&group.0), Signal::TERM).expect("told");
            }
            Self::Thread { is_stopping, .. } => is_stopping.store(true, Ordering::Relaxed),
        }
    }

    fn has_stopped(&self) -> bool {
        match self {
            Self::Program { .. } => self.said().contains("stopped\n"),
            Self::Thread { thread, .. } => thread.is_finished(),
        }
    }
}

/// Waits for a state of a task; the task in that state.
fn in_state(server: &Server, app: &App, running: &Running, id: &str, state: &str, within: Duration) -> Value {
    let until = Instant::now() + within;
    eventually(&format!("task that is {state}"), within + SOON, || {
        let task = shown(server, app, id);
        assert!(Instant::now() < until, "{task} is not {state}:\n{}", running.said());
        (task["state"] == state).then_some(task)
    })
}

/// Gives a worker everything that a worker must bear.
fn work(start: impl FnOnce(&str, &str) -> Option<Running>) {
    let mut server = Server::start();
    let app = app(&server);
    let door = Balancer::to(vec![server.address()]);
    let settings = json!({ "max_attempts": 2, "retry_policy": "fixed", "retry_base_seconds": 0 });
    assert_eq!(app.ask(&server, "PUT", "/api/queues/count", Some(&settings)).status, 200);
    let wish = json!({ "name": "a worker", "permissions": ["tasks:claim"], "commands": ["count"] });
    let made = app.ask(&server, "POST", "/api/app/tokens", Some(&wish)).json();
    let token = made["token"].as_str().unwrap_or_else(|| panic!("no token in {made}"));
    let Some(running) = start(&format!("http://{}", door.address()), token) else { return };
    let make = |server: &Server, payload: Value, attempts: u64| {
        let body = json!({ "command": "count", "payload": payload, "max_attempts": attempts });
        create(server, &app, &body)
    };

    let good = make(&server, json!({ "text": " two  words\n" }), 2);
    let bad = make(&server, json!({}), 2);
    let none = make(&server, Value::Null, 2);
    let again = make(&server, json!({ "text": 7 }), 2);
    let long = make(&server, json!({ "text": "a b c", "seconds": CLAIM_SECONDS + 2 }), 2);
    // Some languages compile the worker first.
    let task = in_state(&server, &app, &running, &good, "succeeded", PAGE);
    assert_eq!((&task["result"], &task["attempts"]), (&json!({ "words": 2 }), &json!(1)), "{task}");
    for id in [&bad, &none] {
        let task = in_state(&server, &app, &running, id, "failed", SOON);
        assert_eq!(
            (&task["error"], &task["attempts"]),
            (&json!("the payload has no text"), &json!(1)),
            "{task}"
        );
    }
    let task = in_state(&server, &app, &running, &again, "dead", SOON);
    assert_eq!(task["attempts"], 2, "each fault is told at once: {task}");
    assert!(task["error"].as_str().is_some_and(|error| !error.is_empty()), "{task}");
    let task = in_state(&server, &app, &running, &long, "succeeded", SOON);
    assert_eq!(task["attempts"], 1, "the claim was extended: {task}");

    // The server restarts while the worker works.
    let long = make(&server, json!({ "text": "a b", "seconds": 6 }), 9);
    in_state(&server, &app, &running, &long, "claimed", SOON);
    server.kill();
    server.run();
    door.lead_to(vec![server.address()]);
    let task = in_state(&server, &app, &running, &long, "succeeded", SOON);
    assert_eq!(task["result"], json!({ "words": 2 }), "{task}");

    // Told to end, the worker ends its task and takes no other one.
    let long = make(&server, json!({ "text": "a", "seconds": 6 }), 2);
    in_state(&server, &app, &running, &long, "claimed", SOON);
    running.terminate();
    let late = make(&server, json!({ "text": "a" }), 2);
    eventually("end of the worker", SOON, || running.has_stopped().then_some(()));
    let task = shown(&server, &app, &long);
    assert_eq!((&task["state"], &task["attempts"]), (&json!("succeeded"), &json!(1)), "{task}");
    assert_eq!(shown(&server, &app, &late)["state"], "ready");
}

#[test]
fn the_worker_in_python_works() {
    work(|server, token| Running::start("python", "worker.py", &["python3"], server, token));
}

#[test]
fn the_worker_in_javascript_works() {
    work(|server, token| Running::start("javascript", "worker.js", &["node"], server, token));
}

#[test]
fn the_worker_in_go_works() {
    work(|server, token| Running::start("go", "worker.go", &["go", "run"], server, token));
}

#[test]
fn the_worker_in_rust_works() {
    let (_, block) =
        blocks(&page("workers.md")).into_iter().find(|(words, _)| words == "rust").expect("a block");
    let source = include_str!("worker.rs").replace("pub(super) ", "pub ");
    assert!(source.ends_with(&block), "docs/workers.md shows another worker than is tested:\n{block}");
    work(|server, token| Some(Running::of_rust(server, token)));
}
