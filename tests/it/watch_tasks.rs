//! Tasks of a watch: workers build a mirror of a repository from the tasks of their queue, with the real
//! server, while commits arrive, people pause and resync, and servers and workers are killed.

mod faces;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::support::{
    api::{App, is_settled},
    churn::Churn,
    dice::Dice,
    fleet::Fleet,
    kills,
    patience::{SOON, eventually},
    project::{FileFacts, Project, Tree, sha256},
    server::Server,
    subscriber::Subscriber,
};

mod by_hand;
mod per_round;

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 12;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(900);
const COMMAND: &str = "index";

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

/// Watches a project whose changes become tasks.
fn watch(server: &Server, app: &App, project: &Project, window: u32) -> String {
    let sink = json!({ "kind": "tasks", "command": COMMAND, "window": window });
    app.watch_with(server, &json!({ "url": project.url(), "sink": sink }))
}

/// Claims tasks; `None`: the server is gone.
fn try_claim(server: &Server, app: &App, body: &Value) -> Option<Vec<Value>> {
    let reply = server.ask("POST", "/api/tasks/claim", Some(&app.token), Some(body)).ok()?;
    match reply.status {
        200 => Some(reply.json()["tasks"].as_array().cloned().unwrap_or_default()),
        204 => Some(Vec::new()),
        // A server that starts or ends.
        503 | 429 => None,
        status => panic!("{status}: {}", reply.json()),
    }
}

fn claim(server: &Server, app: &App, count: usize) -> Vec<Value> {
    let wanted = json!({ "commands": [COMMAND], "count": count, "claim_seconds": 300 });
    try_claim(server, app, &wanted).expect("a server that answers")
}

/// Waits for this many tasks.
fn claim_all(server: &Server, app: &App, count: usize) -> Vec<Value> {
    let mut tasks = Vec::new();
    eventually("tasks to claim", SOON, || {
        tasks.extend(claim(server, app, count - tasks.len()));
        (tasks.len() == count).then_some(())
    });
    tasks
}

/// Says a word about a task; `None`: the server is gone.
fn try_say(server: &Server, app: &App, task: &Value, verb: &str, mut body: Value) -> Option<(u16, Value)> {
    body["token"] = task["token"].clone();
    let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
    let reply = server.ask("POST", &path, Some(&app.token), Some(&body)).ok()?;
    Some((reply.status, reply.json()))
}

fn say(server: &Server, app: &App, task: &Value, verb: &str, body: Value) -> (u16, Value) {
    try_say(server, app, task, verb, body).expect("a server that answers")
}

fn complete(server: &Server, app: &App, task: &Value) {
    let (status, answer) = say(server, app, task, "complete", json!({}));
    assert_eq!(status, 200, "{answer}");
}

fn path(task: &Value) -> String {
    task["payload"]["file"]["path"].as_str().expect("a path").to_owned()
}

fn queue(server: &Server, app: &App) -> Value {
    app.ask(server, "GET", &format!("/api/queues/{COMMAND}"), None).json()
}

/// Unfinished tasks of the queue.
fn unfinished(server: &Server, app: &App) -> u64 {
    let queue = queue(server, app);
    // The first task makes the queue.
    if queue["counts"].is_null() && queue["status"] == 404 {
        return 0;
    }
    ["waiting", "ready", "aside", "claimed"]
        .iter()
        .map(|state| queue["counts"][state].as_u64().expect("a count"))
        .sum()
}

/// What workers have built.
#[derive(Default)]
struct Mirror {
    files: Mutex<Tree>,
    /// How often each path was completed.
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Mirror {
    /// Does what a task says.
    fn apply(&self, server: &Server, app: &App, task: &Value) -> Option<()> {
        let file = &task["payload"]["file"];
        let path = match file["path_base64"].as_str() {
            Some(text) => BASE64.decode(text.as_bytes()).expect("base64"),
            None => file["path"].as_str().expect("a path").as_bytes().to_vec(),
        };
        if task["payload"]["event"]["type"] == "file.deleted" {
            self.files.lock().expect("sound").remove(&path);
            return Some(());
        }
        let content = content(server, app, file)?;
        let mode = file["mode"].as_str().expect("a mode").to_owned();
        self.files.lock().expect("sound").insert(path, FileFacts { mode, sha: sha256(&content) });
        Some(())
    }

    fn note(&self, task: &Value) {
        *self.counts.lock().expect("sound").entry(path(task)).or_default() += 1;
    }

    /// Claims and completes until it is told to stop. A worker does its work, then completes the task.
    fn work(&self, server: &Server, app: &App, stops: &AtomicBool, claim_seconds: u64) {
        let wanted = json!({ "commands": [COMMAND], "count": 7, "wait_seconds": 1,
                             "claim_seconds": claim_seconds });
        while !stops.load(Ordering::Relaxed) {
            for task in try_claim(server, app, &wanted).unwrap_or_default() {
                if self.apply(server, app, &task).is_none() {
                    break;
                }
                if let Some((200, _)) = try_say(server, app, &task, "complete", json!({})) {
                    self.note(&task);
                }
            }
        }
    }

    fn assert_is(&self, tree: &Tree) {
        assert_eq!(&*self.files.lock().expect("sound"), tree);
    }
}

/// The content of a file; `None`: the server is gone.
fn content(server: &Server, app: &App, file: &Value) -> Option<Vec<u8>> {
    if let Some(text) = file["content"].as_str() {
        return Some(match file["content_encoding"].as_str() {
            Some(_) => BASE64.decode(text.as_bytes()).expect("base64"),
            None => text.as_bytes().to_vec(),
        });
    }
    let url = file["content_url"].as_str().expect("content, or where it is");
    let reply = server.ask("GET", url, Some(&app.token), None).ok()?;
    (reply.status == 200).then_some(reply.message.body)
}

#[test]
fn the_first_synchronisation_gives_each_file_to_a_worker_once() {
    const FILES: u64 = 400;
    const WINDOW: u32 = 25;
    let server = Server::start();
    let app = app(&server);
    let project = Project::new();
    Churn::begin(&project, FILES);
    project.write("large.bin", &vec![7; 300_000]);
    project.write("large.txt", "word ".repeat(20_000).as_bytes());
    let head = project.commit("large");
    let id = watch(&server, &app, &project, WINDOW);
    let (mirror, stops) = (Mirror::default(), AtomicBool::new(false));
    let mut most = 0;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| mirror.work(&server, &app, &stops, 300));
        }
        eventually("mirror", 4 * SOON, || {
            most = most.max(unfinished(&server, &app));
            is_settled(&app.repository(&server, &id), &head).then_some(())
        });
        stops.store(true, Ordering::Relaxed);
    });
    assert!(most <= u64::from(WINDOW), "{most} unfinished tasks");
    mirror.assert_is(&project.tree(&head));
    let counts = mirror.counts.lock().expect("sound");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(unfinished(&server, &app), 0);
    let shown = app.repository(&server, &id);
    let sink = &shown["sink"];
    assert_eq!(
        (&sink["kind"], &sink["command"], &sink["window"]),
        (&json!("tasks"), &json!(COMMAND), &json!(WINDOW))
    );
    for field in ["order", "max_in_flight", "batch"] {
        assert!(sink.get(field).is_none(), "{field} means nothing here: {sink}");
    }
}

#[test]
fn ten_commits_to_one_file_while_workers_are_busy_cost_two_tasks() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "0")]);
    let id = watch(&server, &app, &project, 10);
    let first = claim_all(&server, &app, 1).remove(0);
    let mut head = String::new();
    for number in 1..=10 {
        project.write("a", number.to_string().as_bytes());
        head = project.commit("more");
        eventually("the head is seen", SOON, || {
            (app.repository(&server, &id)["branches"][0]["head_commit"] == *head).then_some(())
        });
    }
    assert!(claim(&server, &app, 10).is_empty(), "what is not claimed is not there yet");
    complete(&server, &app, &first);
    let second = claim_all(&server, &app, 1).remove(0);
    assert_eq!(second["payload"]["file"]["content"], "10");
    complete(&server, &app, &second);
    app.wait_until_held(&server, &id, &head);
    assert!(claim(&server, &app, 10).is_empty());
    // Long after, a worker that did not hear the answer asks again.
    let (status, again) = say(&server, &app, &first, "complete", json!({}));
    assert_eq!((status, &again["repeated"]), (200, &json!(true)));
}

#[test]
fn what_was_a_file_is_deleted_before_what_is_below_it_is_created() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "file"), ("b", "same")]);
    let id = watch(&server, &app, &project, 10);
    claim_all(&server, &app, 2).iter().for_each(|task| complete(&server, &app, task));
    project.remove("a");
    project.write("a/b", b"below");
    project.write("c", b"new");
    let head = project.commit("a becomes a folder");
    let delete = claim_all(&server, &app, 1).remove(0);
    assert_eq!((path(&delete).as_str(), &delete["payload"]["event"]["type"]), ("a", &json!("file.deleted")));
    thread::sleep(Duration::from_millis(300));
    assert!(claim(&server, &app, 10).is_empty(), "creates wait for the delete");
    complete(&server, &app, &delete);
    let creates = claim_all(&server, &app, 2);
    let paths: BTreeSet<String> = creates.iter().map(path).collect();
    assert_eq!(paths, ["a/b".to_owned(), "c".to_owned()].into());
    creates.iter().for_each(|task| complete(&server, &app, task));
    app.wait_until_held(&server, &id, &head);
}

#[test]
fn a_task_that_fails_is_a_letter_and_its_redrive_is_applied() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("good", "1"), ("bad", "2")]);
    let id = watch(&server, &app, &project, 10);
    let mut failed = Value::Null;
    for task in claim_all(&server, &app, 2) {
        if path(&task) == "bad" {
            let (status, answer) = say(&server, &app, &task, "fail", json!({ "error": "no such language" }));
            assert_eq!((status, &answer["state"]), (200, &json!("failed")));
            failed = task;
        } else {
            complete(&server, &app, &task);
        }
    }
    app.wait_until_held(&server, &id, &project.head());
    let letters = app.dead_letters(&server);
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((&letter["path"], &letter["excerpt"]), (&json!("bad"), &json!("no such language")));
    let path_of = format!("/api/dead-letters/{}/redrive", letter["dead_letter_id"].as_str().expect("an id"));
    let reply = app.ask(&server, "POST", &path_of, None);
    assert!(matches!(reply.status, 200 | 202), "{}", reply.json());
    let again = claim_all(&server, &app, 1).remove(0);
    assert_eq!((path(&again).as_str(), &again["payload"]["file"]["content"]), ("bad", &json!("2")));
    let (event, before) = (&again["payload"]["event"], &failed["payload"]["event"]);
    assert_eq!((&event["replay_of"], event["id"] != before["id"]), (&before["id"], true), "{again}");
    assert_eq!(
        (&again["id"], &again["attempt"], &letter["task_id"]),
        (&failed["id"], &json!(1), &failed["id"]),
        "the same task"
    );
    assert_eq!(say(&server, &app, &failed, "complete", json!({})).0, 409, "with another token");
    complete(&server, &app, &again);
    eventually("no letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
}

#[test]
fn pauses_resyncs_and_unwatch_in_the_middle_leave_nothing_behind() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::new();
    Churn::begin(&project, 30);
    let id = watch(&server, &app, &project, 10);
    eventually("a full window", SOON, || (unfinished(&server, &app) == 10).then_some(()));
    let out = claim_all(&server, &app, 3);
    app.tell(&server, &id, "pause");
    assert!(claim(&server, &app, 10).is_empty(), "nothing of a paused watch is handed out");
    assert_eq!(queue(&server, &app)["counts"]["aside"], 7);
    complete(&server, &app, &out[0]);
    app.tell(&server, &id, "resume");
    let more = claim_all(&server, &app, 5);
    app.tell(&server, &id, "resync");
    let (status, problem) = say(&server, &app, &out[1], "complete", json!({}));
    assert_eq!((status, &problem["type"]), (409, &json!("urn:tidings:problem:claim-lost")));
    let (status, beat) = say(&server, &app, &out[2], "heartbeat", json!({ "extend_seconds": 600 }));
    assert_eq!((status, &beat["cancelled"]), (200, &json!(true)), "its worker is told to stop");
    assert_eq!(say(&server, &app, &out[2], "abandon", json!({})).0, 200);
    assert!(claim(&server, &app, 10).is_empty(), "the resync waits for the claims");
    for task in &more {
        assert_eq!(say(&server, &app, task, "complete", json!({})).0, 409);
    }
    let (mirror, stops) = (Mirror::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| mirror.work(&server, &app, &stops, 300));
        app.wait_until_held(&server, &id, &project.head());
        stops.store(true, Ordering::Relaxed);
    });
    mirror.assert_is(&project.tree("HEAD"));
    app.tell(&server, &id, "resync");
    let out = claim_all(&server, &app, 4);
    app.unwatch(&server, &id);
    assert_eq!(unfinished(&server, &app), 0, "rows go at once");
    let (status, problem) = say(&server, &app, &out[0], "complete", json!({}));
    assert_eq!((status, &problem["type"]), (409, &json!("urn:tidings:problem:claim-lost")));
    thread::sleep(Duration::from_millis(300));
    assert!(claim(&server, &app, 10).is_empty(), "nothing comes after unwatch");
}

#[test]
fn the_fields_of_a_sink_of_tasks_are_checked() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "1")]);
    for (sink, field) in [
        (json!({ "kind": "tasks" }), "/sink/command"),
        (json!({ "kind": "tasks", "command": "tidings.x" }), "/sink/command"),
        (json!({ "kind": "tasks", "command": "x", "window": 0 }), "/sink/window"),
        (json!({ "kind": "tasks", "command": "x", "per": "file" }), "/sink/per"),
        (json!({ "kind": "tasks", "command": "x", "url": "https://a.example" }), "/sink/url"),
    ] {
        let body = json!({ "url": project.url(), "sink": sink });
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
        let problem = reply.json();
        assert_eq!((reply.status, &problem["errors"][0]["pointer"]), (422, &json!(field)), "{problem}");
    }
    let id = watch(&server, &app, &project, 10);
    for sink in [json!({ "kind": "pull" }), json!({ "per": "round", "kind": "tasks" })] {
        let body = json!({ "sink": sink });
        let reply = app.ask(&server, "PATCH", &format!("/api/repositories/{id}"), Some(&body));
        assert_eq!(reply.status, 409, "{}", reply.json());
    }
}

/// Kills servers while a project changes and workers build a mirror; in the end the mirror is the tree.
fn rage(servers: &mut [Server], thrown: &str) {
    let kills = kills(KILLS);
    let mut dice = Dice::thrown(thrown);
    let app = app(&servers[0]);
    let project = Project::new();
    let mut churn = Churn::begin(&project, 60);
    // A claim of a second runs out whenever its server is killed.
    let settings = json!({ "max_attempts": 100 });
    let path = format!("/api/queues/{COMMAND}");
    assert_eq!(app.ask(&servers[0], "PUT", &path, Some(&settings)).status, 200);
    let id = watch(&servers[0], &app, &project, 12);
    let mirror = Mirror::default();
    for _ in 0..kills {
        churn.commit(&project, &mut dice);
        let victim = usize::try_from(dice.below(servers.len() as u64)).expect("small");
        let (life, stops) = (dice.up_to(LIFE), AtomicBool::new(false));
        thread::scope(|scope| {
            for server in servers.iter() {
                scope.spawn(|| mirror.work(server, &app, &stops, 1));
            }
            thread::sleep(life);
            servers[victim].signal(rustix::process::Signal::KILL);
            stops.store(true, Ordering::Relaxed);
        });
        servers[victim].kill();
        servers[victim].run();
    }
    let (head, stops) = (project.head(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| mirror.work(&servers[0], &app, &stops, 5));
        eventually("mirror", 4 * SOON, || is_settled(&app.repository(&servers[0], &id), &head).then_some(()));
        stops.store(true, Ordering::Relaxed);
    });
    let letters = app.dead_letters(&servers[0]);
    assert!(letters.is_empty(), "{letters:?}");
    mirror.assert_is(&project.tree(&head));
    assert_eq!(unfinished(&servers[0], &app), 0);
}

#[test]
fn over_kills_workers_build_the_tree() {
    rage(&mut [Server::start()], "tasks of a watch");
}

#[test]
fn over_kills_of_replicas_workers_build_the_tree() {
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
    rage(&mut fleet.servers, "tasks of a watch on replicas");
}
