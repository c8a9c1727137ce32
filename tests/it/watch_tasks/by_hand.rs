//! Tasks of a watch in the hands of people: skipped changes, a disabled app, workers with narrowed tokens.

use super::*;

/// The dead letters, as path and reason.
fn letters(server: &Server, app: &App) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let letters = app.dead_letters(server);
    letters.iter().map(|letter| (text(&letter["path"]), text(&letter["reason"]))).collect()
}

fn count(server: &Server, app: &App, state: &str) -> u64 {
    queue(server, app)["counts"][state].as_u64().expect("a count")
}

fn cancel(server: &Server, app: &App, task: &Value) -> Value {
    let path = format!("/api/tasks/{}/cancel", task["id"].as_str().expect("an id"));
    let reply = app.ask(server, "POST", &path, None);
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

#[test]
fn a_change_is_skipped_by_the_watch_or_by_its_task() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    let id = watch(&server, &app, &project, 10);
    eventually("four tasks", SOON, || (unfinished(&server, &app) == 4).then_some(()));
    // The change at the head is a task that nobody has.
    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/skip"), None);
    assert_eq!((reply.status, &reply.json()["position"]), (202, &json!(0)), "{}", reply.json());
    assert_eq!(letters(&server, &app), [("a".into(), "skipped".into())].into());
    // A worker that has the task is told, and its word wins.
    let claimed = claim_all(&server, &app, 3);
    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/skip"), None);
    assert_eq!((reply.status, &reply.json()["position"]), (202, &json!(1)), "{}", reply.json());
    let beat = say(&server, &app, &claimed[0], "heartbeat", json!({ "extend_seconds": 600 }));
    assert_eq!((beat.0, &beat.1["cancelled"]), (200, &json!(true)));
    complete(&server, &app, &claimed[0]);
    // One that is given back after its cancel is not tried again.
    assert_eq!(cancel(&server, &app, &claimed[1])["state"], "claimed");
    assert_eq!(say(&server, &app, &claimed[1], "nack", json!({ "reason": "later" })).0, 200);
    complete(&server, &app, &claimed[2]);
    app.wait_until_held(&server, &id, &project.head());
    let skipped = |path: &str| (path.to_owned(), "skipped".to_owned());
    assert_eq!(letters(&server, &app), [skipped("a"), skipped("c")].into());
    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/skip"), None);
    assert_eq!(reply.status, 409, "nothing is open");
}

#[test]
fn an_app_that_is_disabled_in_the_middle_gets_no_task_and_loses_none() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::new();
    Churn::begin(&project, 30);
    let id = watch(&server, &app, &project, 10);
    let turn = |disabled: bool| {
        let reply = app.ask(&server, "PATCH", "/api/app", Some(&json!({ "disabled": disabled })));
        assert_eq!(reply.status, 200, "{}", reply.json());
    };
    let first = claim_all(&server, &app, 1).remove(0);
    assert_eq!(say(&server, &app, &first, "nack", json!({ "delay_seconds": 0 })).0, 200);
    let out = claim_all(&server, &app, 4);
    assert_eq!((&out[0]["id"], &out[0]["attempt"]), (&first["id"], &json!(2)));
    eventually("a full window", SOON, || (unfinished(&server, &app) == 10).then_some(()));
    turn(true);
    project.write("new", b"while it is disabled");
    let head = project.commit("new");
    assert!(claim(&server, &app, 4).is_empty(), "nothing is handed out");
    assert_eq!((count(&server, &app, "aside"), count(&server, &app, "ready")), (4, 2));
    // Who has a task may end it, or give it back.
    out[1..].iter().for_each(|task| complete(&server, &app, task));
    assert_eq!(say(&server, &app, &out[0], "nack", json!({ "delay_seconds": 0 })).0, 200);
    assert!(claim(&server, &app, 10).is_empty());
    assert_eq!((count(&server, &app, "aside"), unfinished(&server, &app)), (7, 7), "no more came");
    thread::scope(|scope| {
        // A worker that waits is given a task by the word, not by its next look.
        let waiting = scope.spawn(|| {
            let wanted = json!({ "commands": [COMMAND], "wait_seconds": 60, "claim_seconds": 300 });
            try_claim(&server, &app, &wanted).expect("a server that answers")
        });
        thread::sleep(Duration::from_millis(300));
        let began = std::time::Instant::now();
        turn(false);
        let task = waiting.join().expect("joined").remove(0);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert_eq!((&task["id"], &task["attempt"]), (&first["id"], &json!(3)), "n attempts are n");
        complete(&server, &app, &task);
    });
    let (mirror, stops) = (Mirror::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| mirror.work(&server, &app, &stops, 300));
        app.wait_until_held(&server, &id, &head);
        stops.store(true, Ordering::Relaxed);
    });
    let counts = mirror.counts.lock().expect("sound");
    let by_hand = [&first].into_iter().chain(&out[1..]).map(path);
    let told: BTreeSet<String> = counts.keys().cloned().chain(by_hand).collect();
    assert_eq!(told.len(), project.tree(&head).len(), "each file came");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(app.dead_letters(&server).is_empty());
}

#[test]
fn a_narrowed_worker_reads_contents_while_it_has_a_claim_on_the_watch() {
    let server = Server::start();
    let (app, other) = (app(&server), app(&server));
    let (project, foreign) = (Project::new(), Project::new());
    for project in [&project, &foreign] {
        project.write("large.txt", "word ".repeat(20_000).as_bytes());
        project.commit("large");
    }
    watch(&server, &app, &project, 10);
    watch(&server, &other, &foreign, 10);
    let narrowed = |command: &str| {
        let body = json!({ "name": command, "permissions": ["tasks:claim"], "commands": [command] });
        let reply = app.ask(&server, "POST", "/api/app/tokens", Some(&body));
        assert_eq!(reply.status, 201, "{}", reply.json());
        App { token: reply.json()["token"].as_str().expect("a token").to_owned(), ..app.clone() }
    };
    let (worker, idle) = (narrowed(COMMAND), narrowed("other"));
    let task = claim_all(&server, &worker, 1).remove(0);
    let url = task["payload"]["file"]["content_url"].as_str().expect("an address");
    let theirs = claim_all(&server, &other, 1).remove(0);
    let their_url = theirs["payload"]["file"]["content_url"].as_str().expect("an address");
    let status = |by: &App, url: &str| by.ask(&server, "GET", url, None).status;
    let reply = worker.ask(&server, "GET", url, None);
    assert_eq!((reply.status, reply.message.body.len()), (200, 100_000));
    assert_eq!(status(&idle, url), 403, "it has no claim");
    // What is another app's is answered like what is not there.
    let nothing = their_url.replace("repo_0", "repo_7");
    let answer = |url: &str| {
        let mut problem = worker.ask(&server, "GET", url, None).json();
        problem.as_object_mut().expect("a problem").remove("request_id");
        problem
    };
    assert_eq!(answer(their_url), answer(&nothing));
    assert_eq!((status(&worker, their_url), status(&app, their_url)), (403, 404));
    complete(&server, &worker, &task);
    assert_eq!(status(&worker, url), 403, "its claim has ended");
    assert_eq!(status(&app, url), 200, "a whole token needs no claim");
}

#[test]
fn a_dead_letter_of_a_task_is_found_and_redriven_on_the_command_line() {
    let server = Server::start();
    let app = app(&server);
    let project = Project::with(&[("good", "1"), ("bad", "2")]);
    let id = watch(&server, &app, &project, 10);
    let mut failed = Value::Null;
    for task in claim_all(&server, &app, 2) {
        if path(&task) == "bad" {
            assert_eq!(say(&server, &app, &task, "fail", json!({ "error": "no such language" })).0, 200);
            failed = task;
        } else {
            complete(&server, &app, &task);
        }
    }
    app.wait_until_held(&server, &id, &project.head());
    let run = |arguments: &[&str]| -> Value {
        let mut command = server.command(&[&["dead-letter"], arguments, &["--json"]].concat());
        command.args(["--server", &format!("http://{}", server.address())]);
        let output = command.env("TIDINGS_TOKEN", &app.token).output().expect("it ran");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let listed = run(&["list", "--query", "path:bad"]);
    assert_eq!(
        (&listed[0]["task_id"], &listed[0]["command"], &listed[0]["excerpt"]),
        (&failed["id"], &failed["command"], &json!("no such language")),
        "{listed}"
    );
    run(&["redrive", "--query", "path:bad", "--dry-run"]);
    assert!(claim(&server, &app, 1).is_empty(), "a dry run changes nothing");
    run(&["redrive", "--query", "path:bad"]);
    let again = claim_all(&server, &app, 1).remove(0);
    assert_eq!((&again["id"], &again["attempt"]), (&failed["id"], &json!(1)), "the same task");
    complete(&server, &app, &again);
    eventually("no letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
}
