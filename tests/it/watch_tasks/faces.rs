//! What people and programs see of the tasks of a watch: in answers, on the command line, in metrics, and in
//! the ledger.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{COMMAND, app, claim, claim_all, complete, path, queue, say, watch};
use crate::{
    ledger::entries,
    support::{
        api::{App, items},
        inbox::Inbox,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
    },
};

/// How often a state is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What happens within a minute is told when nothing changed for a minute.
const FOLDED: Duration = Duration::from_secs(300);

/// The first branch of a watch.
fn branch(server: &Server, app: &App, id: &str) -> Value {
    app.repository(server, id)["branches"][0].clone()
}

/// Waits until the tasks of the first branch are these.
fn wait_for_tasks(server: &Server, app: &App, id: &str, wanted: &Value) {
    let until = Instant::now() + SOON;
    loop {
        let last = branch(server, app, id)["tasks"].clone();
        if last == *wanted {
            return;
        }
        assert!(Instant::now() < until, "{wanted} is not reached: {last}");
        thread::sleep(LOOK);
    }
}

fn tasks_of(server: &Server, app: &App, query: &str) -> Vec<Value> {
    items(&app.ask(server, "GET", &format!("/api/tasks?{query}"), None).json())
}

/// Gives a task back for the last time.
fn let_die(server: &Server, app: &App, task: &Value, reason: &str) {
    let (status, answer) = say(server, app, task, "nack", json!({ "reason": reason }));
    assert_eq!((status, &answer["state"]), (200, &json!("dead")), "{answer}");
}

fn attempts(server: &Server, app: &App, count: u32) {
    let path = format!("/api/queues/{COMMAND}");
    assert_eq!(app.ask(server, "PUT", &path, Some(&json!({ "max_attempts": count }))).status, 200);
}

/// Runs a verb of the command line as an app; its exit code, and what it printed.
fn run(server: &Server, app: &App, arguments: &[&str]) -> (i32, String) {
    let mut command = server.command(arguments);
    command.args(["--server", &format!("http://{}", server.address())]).env("TIDINGS_TOKEN", &app.token);
    let output = command.output().expect("it ran");
    (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_branch_says_how_many_tasks_it_has_and_what_the_rest_waits_for() {
    let server = Server::start();
    let app = app(&server);
    let files: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "1")).collect();
    let project = Project::with(&files);
    let id = watch(&server, &app, &project, 4);
    let tasks = |unfinished: u64, claimed: u64, left: u64, waits: Option<&str>| {
        let mut tasks = json!({ "unfinished": unfinished, "claimed": claimed, "aside": 0, "left": left,
            "deletes": 0, "dead_in_a_row": 0 });
        if let Some(reason) = waits {
            tasks["waits_for"] = json!(reason);
        }
        tasks
    };
    wait_for_tasks(&server, &app, &id, &tasks(4, 0, 2, Some("window")));
    let (code, shown) = run(&server, &app, &["queue", "purge", COMMAND, "--yes"]);
    let stay = "removed 0 tasks of ";
    assert!(code == 0 && shown.contains(stay) && shown.contains("those of a watch stay: 4"), "{shown}");
    let first = claim_all(&server, &app, 3);
    wait_for_tasks(&server, &app, &id, &tasks(4, 3, 2, Some("window")));
    first.iter().for_each(|task| complete(&server, &app, task));
    wait_for_tasks(&server, &app, &id, &tasks(3, 0, 0, None));
    let (code, shown) = run(&server, &app, &["repository", "show", &id]);
    let line = "refs/heads/main: 3 unfinished tasks of at most 4, 0 with workers";
    assert!(code == 0 && shown.contains(line), "{shown}");
    claim_all(&server, &app, 3).iter().for_each(|task| complete(&server, &app, task));
    app.wait_until_held(&server, &id, &project.head());

    // Deletes come first, and what is created waits for them.
    project.remove("f0");
    project.remove("f1");
    project.write("g", b"new");
    let head = project.commit("less and more");
    let delete = claim_all(&server, &app, 1).remove(0);
    let mut wanted = tasks(2, 1, 1, Some("deletes"));
    wanted["deletes"] = json!(2);
    wait_for_tasks(&server, &app, &id, &wanted);
    complete(&server, &app, &delete);
    complete(&server, &app, &claim_all(&server, &app, 1)[0]);
    let create = claim_all(&server, &app, 1).remove(0);
    assert_eq!(path(&create), "g");
    // A pause sets aside what nobody has.
    complete(&server, &app, &create);
    app.wait_until_held(&server, &id, &head);
    project.write("h", b"new");
    project.commit("one more");
    eventually("a task", SOON, || (queue(&server, &app)["counts"]["ready"] == 1).then_some(()));
    app.tell(&server, &id, "pause");
    let mut wanted = tasks(1, 0, 0, None);
    wanted["aside"] = json!(1);
    wait_for_tasks(&server, &app, &id, &wanted);
}

#[test]
fn a_task_of_a_watch_says_which_change_it_is_and_its_delivery_which_task() {
    let server = Server::start();
    let app = app(&server);
    let large = "word ".repeat(8_000);
    let project = Project::with(&[("a.md", "small"), ("b.md", large.as_str())]);
    let id = watch(&server, &app, &project, 10);
    let created = app.ask(&server, "POST", "/api/tasks", Some(&json!({ "command": COMMAND }))).json();
    let tasks = claim_all(&server, &app, 3);
    let task = tasks.iter().find(|task| task["payload"]["file"]["path"] == "b.md").expect("a task");
    let shown_path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
    let shown = app.ask(&server, "GET", &shown_path, None).json();
    let change = &shown["change"];
    let branch = branch(&server, &app, &id);
    for (field, value) in [
        ("repository_id", json!(id)),
        ("cursor", branch["cursor"].clone()),
        ("branch", json!("refs/heads/main")),
        ("round", branch["round"]["round"].clone()),
        ("position", json!(1)),
        ("commit", json!(project.head())),
        ("delivery_id", task["payload"]["event"]["id"].clone()),
        ("path", json!("b.md")),
        ("operation", json!("create")),
    ] {
        assert_eq!(change[field], value, "{field}: {shown}");
    }
    let listed = tasks_of(&server, &app, &format!("command={COMMAND}"));
    let of_watch = listed.iter().filter(|task| task["change"].is_object()).count();
    assert_eq!((listed.len(), of_watch), (3, 2), "{listed:?}");
    let own =
        app.ask(&server, "GET", &format!("/api/tasks/{}", created["id"].as_str().expect("an id")), None);
    assert!(own.json().get("change").is_none(), "nobody's change: {}", own.json());

    // The delivery leads to the task, and outlives it.
    let delivery = format!("/api/deliveries/{}", change["delivery_id"].as_str().expect("an id"));
    let seen = app.ask(&server, "GET", &delivery, None).json();
    assert_eq!((&seen["task_id"], &seen["state"]), (&task["id"], &json!("pending")), "{seen}");
    let again = app.ask(&server, "GET", &format!("{delivery}/request"), None).json();
    let body: Value = serde_json::from_str(again["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(body, task["payload"], "the payload that the worker has, with its content left out");
    complete(&server, &app, task);
    let seen = app.ask(&server, "GET", &delivery, None).json();
    assert_eq!((seen.get("task_id"), &seen["state"]), (None, &json!("delivered")), "{seen}");
    assert_eq!(app.ask(&server, "GET", &shown_path, None).status, 404, "the row went with its end");

    // Another app sees nothing of it.
    let other = super::app(&server);
    assert_eq!(other.ask(&server, "GET", &delivery, None).status, 404);
}

#[test]
fn a_queue_and_a_letter_name_the_watch_and_the_queue_that_belong_together() {
    let server = Server::start();
    let app = app(&server);
    let (project, other) = (Project::with(&[("a", "1")]), Project::with(&[("z", "1")]));
    let id = watch(&server, &app, &project, 10);
    app.watch(&server, &other);
    let filter = format!("command:{COMMAND}");
    let found = items(&app.ask(&server, "GET", &format!("/api/repositories?q={filter}"), None).json());
    assert_eq!((found.len(), &found[0]["repository_id"]), (1, &json!(id)), "{found:?}");
    let task = claim_all(&server, &app, 1).remove(0);
    let (code, shown) = run(&server, &app, &["queue", "show", COMMAND]);
    assert!(code == 0 && shown.contains(&id) && shown.contains("delivering"), "{shown}");
    let (_, shown) = run(&server, &app, &["queue", "show", COMMAND, "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["watches"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(say(&server, &app, &task, "fail", json!({ "error": "no such language" })).0, 200);
    let letters = eventually("a letter", SOON, || {
        Some(app.dead_letters(&server)).filter(|letters| !letters.is_empty())
    });
    let letter = &letters[0];
    assert_eq!((&letter["command"], &letter["excerpt"]), (&json!(COMMAND), &json!("no such language")));
    let of_staff = items(&server.ask_as_admin("GET", "/api/admin/dead-letters").json());
    assert_eq!(of_staff[0]["command"], COMMAND, "{of_staff:?}");
}

#[test]
fn what_happens_to_tasks_of_a_watch_is_in_the_ledger_once_and_leads_to_its_commit() {
    let server = Server::start();
    let app = app(&server);
    let inbox = Inbox::start();
    // Rounds are written for those who read them.
    let reader = json!({ "name": "rounds", "filter": "type:~round", "sink": { "url": inbox.url() } });
    assert_eq!(app.ask(&server, "POST", "/api/subscriptions", Some(&reader)).status, 201);
    let files: Vec<String> = (10..22).map(|number| format!("f{number}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "1")).collect();
    let project = Project::with(&files);
    let head = project.head();
    attempts(&server, &app, 1);
    let id = watch(&server, &app, &project, 100);
    for task in claim_all(&server, &app, 10) {
        let_die(&server, &app, &task, "the index is full");
    }
    let blocked = app.wait_for_state(&server, &id, "blocked");
    let open = &blocked["branches"][0];
    let origin = json!({ "kind": "commit",
        "name": format!("{}/{}", open["cursor"].as_str().expect("a cursor"), open["round"]["round"]) });
    assert_eq!(open["tasks"]["dead_in_a_row"], 10, "{open}");
    assert_eq!(open["head_commit"], head, "the round of this origin leads to the commit");
    // In a blocked branch one task at a time is tried; its success ends the block.
    let tried = claim_all(&server, &app, 1).remove(0);
    assert!(claim(&server, &app, 10).is_empty());
    complete(&server, &app, &tried);
    let mut left = 11;
    eventually("the rest, with the letters that are sent again", 4 * SOON, || {
        let tasks = claim(&server, &app, 10);
        tasks.iter().for_each(|task| complete(&server, &app, task));
        left -= tasks.len();
        (left == 0).then_some(())
    });
    app.wait_until_held(&server, &id, &head);
    eventually("no letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));

    let of = |entry_type: &str| entries(&server, &app, &format!("type={entry_type}"));
    let dead = of("task.dead");
    assert_eq!(dead.len(), 10, "{dead:?}");
    for entry in &dead {
        assert_eq!((&entry["origin"], &entry["repository_id"]), (&origin, &json!(id)), "{entry}");
        let data = &entry["data"];
        let said = (&data["command"], &data["attempts"], &data["error"]);
        assert_eq!(said, (&json!(COMMAND), &json!(1), &json!("the index is full")), "{entry}");
    }
    let subjects: BTreeSet<&str> =
        dead.iter().map(|entry| entry["subject"].as_str().expect("a task")).collect();
    assert_eq!(subjects.len(), 10, "each task once");
    // Letters of one round and reason, and a state that goes back and forth, are folded within a minute.
    let first = of("letter.parked");
    assert_eq!((&first[0]["origin"], &first[0]["data"]["reason"]), (&origin, &json!("failing")), "{first:?}");
    let block = of("watch.blocked");
    assert_eq!((block.len(), &block[0]["origin"], &block[0]["repository_id"]), (1, &origin, &json!(id)));
    let rounds: Vec<(Value, Value)> = ["round.began", "round.ended"]
        .iter()
        .flat_map(|entry_type| of(entry_type))
        .filter(|entry| entry["origin"] == origin)
        .map(|entry| (entry["type"].clone(), entry["data"]["commit"].clone()))
        .collect();
    assert_eq!(rounds, [(json!("round.began"), json!(head)), (json!("round.ended"), json!(head))]);
    eventually("the rest of the letters, and the recovery", FOLDED, || {
        let count: u64 = of("letter.parked").iter().filter_map(|entry| entry["data"]["count"].as_u64()).sum();
        (count == 10 && of("watch.recovered").len() == 1).then_some(())
    });
    let recovered = &of("watch.recovered")[0];
    assert_eq!((&recovered["origin"], &recovered["cause"]), (&origin, &block[0]["number"]), "{recovered}");
}

#[test]
fn metrics_count_what_watches_hand_over_and_how_it_ends() {
    let mut server = Server::prepare().with("telemetry.survey_interval", "200ms");
    server.run();
    let app = app(&server);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
    attempts(&server, &app, 1);
    let id = watch(&server, &app, &project, 3);
    let metrics = || String::from_utf8(server.ask_as_admin("GET", "/metrics").message.body).expect("text");
    let wait_for = |lines: &[&str]| {
        let mut last = String::new();
        let until = Instant::now() + SOON;
        while !lines.iter().all(|line| last.lines().any(|found| found == *line)) {
            assert!(Instant::now() < until, "{lines:?} is not in: {last}");
            thread::sleep(LOOK);
            last = metrics();
        }
    };
    let tasks = claim_all(&server, &app, 2);
    wait_for(&[
        "tidings_watch_tasks_handed_over_total 3",
        "tidings_watch_tasks{state=\"claimed\"} 2",
        "tidings_watch_tasks{state=\"ready\"} 1",
        "tidings_watch_hand_overs_waiting{reason=\"window\"} 1",
        "tidings_watch_tasks_ended_total{outcome=\"succeeded\"} 0",
    ]);
    complete(&server, &app, &tasks[0]);
    let_die(&server, &app, &tasks[1], "no");
    let rest = claim_all(&server, &app, 2);
    complete(&server, &app, &rest[0]);
    app.tell(&server, &id, "resync");
    assert_eq!(say(&server, &app, &rest[1], "complete", json!({})).0, 409);
    wait_for(&[
        "tidings_watch_tasks_ended_total{outcome=\"succeeded\"} 2",
        "tidings_watch_tasks_ended_total{outcome=\"dead\"} 1",
        "tidings_watch_tasks_ended_total{outcome=\"overtaken\"} 1",
        "tidings_changes_settled_total{outcome=\"acknowledged\"} 2",
        "tidings_changes_settled_total{outcome=\"parked\"} 1",
        "tidings_dead_letters_parked_total{reason=\"failing\"} 1",
        "tidings_watch_hand_overs_waiting{reason=\"window\"} 1",
    ]);
}
