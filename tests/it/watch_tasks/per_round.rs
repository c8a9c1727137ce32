//! One task for each round: the round is settled as a whole, and a round that fails is one dead letter.

use super::*;

fn watch_rounds(server: &Server, app: &App, project: &Project) -> String {
    let sink = json!({ "kind": "tasks", "command": COMMAND, "per": "round" });
    app.watch_with(server, &json!({ "url": project.url(), "sink": sink }))
}

/// The operations and paths that a task lists.
fn listed(task: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let changes = task["payload"]["changes"].as_array().unwrap_or_else(|| panic!("a list: {task}"));
    changes.iter().map(|change| (text(&change["operation"]), text(&change["path"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[test]
fn a_round_is_one_task_and_its_end_settles_the_round() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let id = watch_rounds(&server, &app, &project);
    assert_eq!(app.repository(&server, &id)["sink"]["per"], "round");
    let first = claim_all(&server, &app, 1).remove(0);
    let (payload, head) = (&first["payload"], project.head());
    assert_eq!(listed(&first), pairs(&[("create", "a"), ("create", "b"), ("create", "c")]));
    assert_eq!(
        (&payload["event"]["type"], &payload["event"]["kind"], &payload["event"]["total"]),
        (&json!("round"), &json!("sync"), &json!(3))
    );
    assert_eq!((&payload["commit_sha"], &payload["creates"]), (&json!(head), &json!(3)));
    assert_eq!(payload["event"]["previous_commit_sha"], Value::Null);
    let path = format!("/api/tasks/{}", first["id"].as_str().expect("an id"));
    let change = app.ask(&server, "GET", &path, None).json()["change"].clone();
    assert_eq!((&change["operation"], &change["path"]), (&json!("round"), &json!("")), "{change}");
    // Three commits while the worker is busy cost one task.
    for number in 1..=3 {
        project.write("a", number.to_string().as_bytes());
        project.commit("more");
    }
    project.remove("b");
    let last = project.commit("last");
    eventually("the head is seen", SOON, || {
        (app.repository(&server, &id)["branches"][0]["head_commit"] == *last).then_some(())
    });
    assert!(claim(&server, &app, 10).is_empty());
    assert_eq!(unfinished(&server, &app), 1);
    complete(&server, &app, &first);
    let second = claim_all(&server, &app, 1).remove(0);
    assert_eq!(listed(&second), pairs(&[("delete", "b"), ("update", "a")]));
    assert_eq!(
        (&second["payload"]["commit_sha"], &second["payload"]["event"]["previous_commit_sha"]),
        (&json!(last), &json!(head))
    );
    let shown = app.repository(&server, &id);
    assert_eq!(shown["branches"][0]["held_commit"], *head, "{shown}");
    complete(&server, &app, &second);
    app.wait_until_held(&server, &id, &last);
    assert_eq!(say(&server, &app, &first, "complete", json!({})).1["repeated"], true);
    assert_eq!(unfinished(&server, &app), 0);
    // The list is where the payload says, also for a round that ended.
    let url = second["payload"]["changes_url"].as_str().expect("an address");
    let page = app.ask(&server, "GET", url, None).json();
    let paths: Vec<&str> =
        page["items"].as_array().expect("items").iter().filter_map(|item| item["path"].as_str()).collect();
    assert_eq!(paths, ["b", "a"], "{page}");
}

#[test]
fn a_long_list_is_read_by_the_worker_that_has_the_task() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::new();
    Churn::begin(&project, 150);
    let id = watch_rounds(&server, &app, &project);
    let body = json!({ "name": "worker", "permissions": ["tasks:claim"], "commands": [COMMAND] });
    let token = app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
    let worker = App { token: token["token"].as_str().expect("a token").to_owned(), ..app.clone() };
    let task = claim_all(&server, &worker, 1).remove(0);
    let payload = &task["payload"];
    let total = project.tree("HEAD").len();
    assert_eq!((&payload["changes"], &payload["event"]["total"]), (&Value::Null, &json!(total)), "{payload}");
    let url = payload["changes_url"].as_str().expect("an address");
    let (mut paths, mut next) = (BTreeSet::new(), String::new());
    loop {
        let reply = worker.ask(&server, "GET", &format!("{url}&limit=100{next}"), None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        let page = reply.json();
        paths.extend(page["items"].as_array().expect("items").iter().map(|item| item["path"].to_string()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!(paths.len(), total);
    complete(&server, &worker, &task);
    assert_eq!(worker.ask(&server, "GET", url, None).status, 403, "its claim has ended");
    app.wait_until_held(&server, &id, &project.head());
}

#[test]
fn a_round_that_fails_is_one_letter_and_its_redrive_covers_what_came_after() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    let id = watch_rounds(&server, &app, &project);
    complete(&server, &app, &claim_all(&server, &app, 1).remove(0));
    app.wait_until_held(&server, &id, &project.head());
    let held = project.head();
    let fail = |task: &Value| {
        let (status, answer) = say(&server, &app, task, "fail", json!({ "error": "the build is red" }));
        assert_eq!((status, &answer["state"]), (200, &json!("failed")));
    };
    project.write("a", b"broken");
    let broken = project.commit("broken");
    let failed = claim_all(&server, &app, 1).remove(0);
    assert_eq!(listed(&failed), pairs(&[("update", "a")]));
    fail(&failed);
    app.wait_until_held(&server, &id, &broken);
    // The next round fails too: still one open letter, the older, which covers both.
    project.write("b", b"broken too");
    let again = project.commit("broken too");
    let other = claim_all(&server, &app, 1).remove(0);
    assert_eq!(listed(&other), pairs(&[("update", "b")]));
    fail(&other);
    app.wait_until_held(&server, &id, &again);
    let letters = |status: &str| -> Vec<Value> {
        let all = app.ask(&server, "GET", &format!("/api/dead-letters?status={status}"), None).json();
        all["items"].as_array().expect("items").clone()
    };
    let open = letters("open");
    let [letter] = &open[..] else { panic!("one letter: {open:?}") };
    assert_eq!(
        (&letter["path"], &letter["operation"], &letter["task_id"], &letter["excerpt"]),
        (&json!(""), &json!("round"), &failed["id"], &json!("the build is red"))
    );
    assert_eq!(letters("superseded").len(), 1);
    let redrive = || {
        let path_of =
            format!("/api/dead-letters/{}/redrive", letter["dead_letter_id"].as_str().expect("an id"));
        let reply = app.ask(&server, "POST", &path_of, None);
        assert!(matches!(reply.status, 200 | 202), "{}", reply.json());
    };
    // A redrive that fails leaves the letter open.
    redrive();
    let task = claim_all(&server, &app, 1).remove(0);
    assert_eq!((&task["id"], &task["attempt"]), (&failed["id"], &json!(1)), "the same task");
    assert_eq!(listed(&task), pairs(&[("update", "a"), ("update", "b")]));
    assert_eq!(
        (&task["payload"]["commit_sha"], &task["payload"]["event"]["previous_commit_sha"]),
        (&json!(again), &json!(held))
    );
    fail(&task);
    eventually("an open letter", SOON, || (letters("open").len() == 1).then_some(()));
    redrive();
    let task = claim_all(&server, &app, 1).remove(0);
    assert_eq!(task["id"], failed["id"]);
    complete(&server, &app, &task);
    eventually("no letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
    assert_eq!(letters("redriven").len(), 1);
    // Each change of the round that failed is shown as given up.
    let round = failed["payload"]["event"]["round"].as_i64().expect("a number");
    let page = app.ask(&server, "GET", &format!("/api/repositories/{id}/changes?round={round}"), None).json();
    assert_eq!(page["items"][0]["state"], "parked", "{page}");
    thread::sleep(Duration::from_millis(300));
    assert!(claim(&server, &app, 10).is_empty(), "nothing is left to do");
}

#[test]
fn the_first_round_that_fails_is_redriven_from_nothing() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    let id = watch_rounds(&server, &app, &project);
    let first = claim_all(&server, &app, 1).remove(0);
    // A skip by hand, while nobody has the task, is a letter as well.
    assert_eq!(say(&server, &app, &first, "abandon", json!({})).0, 200);
    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/skip"), None);
    assert_eq!(reply.status, 202, "{}", reply.json());
    app.wait_until_held(&server, &id, &project.head());
    let letters = app.dead_letters(&server);
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((&letter["reason"], &letter["task_id"]), (&json!("skipped"), &first["id"]));
    let path_of = format!("/api/dead-letters/{}/redrive", letter["dead_letter_id"].as_str().expect("an id"));
    app.ask(&server, "POST", &path_of, None);
    let task = claim_all(&server, &app, 1).remove(0);
    assert_eq!((&task["id"], &task["payload"]["event"]["kind"]), (&first["id"], &json!("resync")));
    assert_eq!(listed(&task), pairs(&[("create", "a"), ("create", "b")]));
    complete(&server, &app, &task);
    eventually("no letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
}
