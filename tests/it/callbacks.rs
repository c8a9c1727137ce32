//! Callbacks of tasks, with the real server and a real receiver: each end of a task with a `webhook` makes one
//! entry, which comes to that address, in order and signed, whatever happens to either side.

use std::{collections::BTreeMap, thread, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    api::{App, items},
    dice::Dice,
    inbox::Inbox,
    kills,
    patience::{SOON, eventually},
    server::Server,
    subscriber::{KEY, Subscriber},
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 6;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(600);

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

/// The key of the app, as the API shows keys.
fn key() -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(KEY))
}

fn ask(server: &Server, app: &App, method: &str, path: &str, body: Value) -> (u16, Value) {
    let reply = app.ask(server, method, path, Some(&body));
    let answer = if reply.status == 204 { Value::Null } else { reply.json() };
    (reply.status, answer)
}

fn create(server: &Server, app: &App, url: &str, more: Value) -> String {
    let mut body = json!({ "command": "embed", "webhook": url });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    let (status, made) = ask(server, app, "POST", "/api/tasks", body);
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

/// Claims the next task, and says this word about it; its id.
fn end(server: &Server, app: &App, verb: &str, mut body: Value) -> String {
    let (_, given) = ask(server, app, "POST", "/api/tasks/claim", json!({ "commands": ["embed"] }));
    let id = given["tasks"][0]["id"].as_str().expect("a task").to_owned();
    body["token"] = given["tasks"][0]["token"].clone();
    let (status, said) = ask(server, app, "POST", &format!("/api/tasks/{id}/{verb}"), body);
    assert_eq!(status, 200, "{said}");
    id
}

/// The entries about ends, oldest first.
fn ends(server: &Server, app: &App) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = "/api/ledger?type=task.ended&limit=100".to_owned();
    loop {
        let page = app.ask(server, "GET", &path, None).json();
        all.extend(items(&page));
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/api/ledger?type=task.ended&limit=100&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// The callback to an address.
fn callback(server: &Server, app: &App, url: &str) -> Option<Value> {
    let page = app.ask(server, "GET", "/api/subscriptions?limit=100&q=kind:callback", None).json();
    items(&page).into_iter().find(|one| one["sink"]["url"] == url)
}

fn wait_for_state(server: &Server, app: &App, url: &str, state: &str) -> Value {
    eventually(&format!("callback that is {state}"), SOON, || {
        callback(server, app, url).filter(|one| one["state"] == state)
    })
}

#[test]
fn each_end_comes_once_to_its_address_in_order_and_signed_with_the_key_of_the_app() {
    let server = Server::start();
    let (app, here, there) = (app(&server), Inbox::start(), Inbox::start());
    let settings = json!({ "max_attempts": 1, "retry_base_seconds": 0 });
    assert_eq!(ask(&server, &app, "PUT", "/api/queues/embed", settings).0, 200);
    for _ in 0..3 {
        create(&server, &app, &here.url(), json!({}));
    }
    let follow = json!({ "command": "next", "webhook": there.url() });
    let done = end(&server, &app, "complete", json!({ "result": { "pages": 3 }, "then": [follow] }));
    let failed = end(&server, &app, "fail", json!({ "error": "no such page" }));
    let dead = end(&server, &app, "nack", json!({ "reason": "later" }));
    let cancelled = create(&server, &app, &here.url(), json!({ "delay_seconds": 600 }));
    let quiet = json!({ "command": "quiet" });
    let (_, silent) = ask(&server, &app, "POST", "/api/tasks", quiet);
    for id in [&cancelled, silent["id"].as_str().expect("an id")] {
        assert_eq!(ask(&server, &app, "POST", &format!("/api/tasks/{id}/cancel"), json!({})).0, 200);
    }
    let entries = ends(&server, &app);
    let told: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| (entry["subject"].as_str().expect("one"), entry["data"]["state"].as_str().expect("one")))
        .collect();
    let expected =
        [(done.as_str(), "succeeded"), (&failed, "failed"), (&dead, "dead"), (&cancelled, "cancelled")];
    assert_eq!(told, expected);
    let last = entries[3]["number"].as_u64().expect("a number");
    here.wait_for(last);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["number"].as_u64().expect("one")).collect();
    assert_eq!(here.taken(), numbers, "in their order, each once");
    for (letter, entry) in here.letters().iter().zip(&entries) {
        assert_eq!((&letter.data()["entry"], letter.path.as_str()), (entry, "/in"));
        assert_eq!(letter.header("webhook-id"), entry["entry_id"].as_str().expect("an id"));
        assert!(letter.is_signed_with(&[&key()]), "{letter:?}");
    }
    assert_eq!(entries[0]["data"]["result"], json!({ "pages": 3 }));
    assert_eq!(entries[1]["data"]["error"], "no such page");
    assert!(there.letters().is_empty(), "the follow-up has not ended");
    // What ended and is sent again ends again.
    assert_eq!(ask(&server, &app, "POST", &format!("/api/tasks/{failed}/redrive"), json!({})).0, 200);
    assert_eq!(end(&server, &app, "complete", json!({ "result": "x".repeat(2_000) })), failed);
    let entries = ends(&server, &app);
    assert_eq!(entries.len(), 5);
    let data = &entries[4]["data"];
    assert_eq!(
        (&data["result"], &data["result_bytes"]),
        (&Value::Null, &json!(2_002)),
        "it is read by its link"
    );
    let read = app.ask(&server, "GET", data["result_url"].as_str().expect("a link"), None);
    assert_eq!(read.json()["result"], "x".repeat(2_000));
    here.wait_for(entries[4]["number"].as_u64().expect("a number"));
    let shown = callback(&server, &app, &here.url()).expect("it is listed");
    assert_eq!((&shown["callback"], &shown["state"]), (&json!(true), &json!("active")));
    let task = app.ask(&server, "GET", &format!("/api/tasks/{done}"), None).json();
    assert_eq!(task["webhook"], here.url());
}

#[test]
fn no_end_is_lost_or_doubled_over_kills() {
    let kills = kills(KILLS);
    let (mut server, inbox) = (Server::start(), Inbox::start());
    let app = app(&server);
    let mut dice = Dice::thrown("kills of callbacks");
    let mut arrived = 0;
    inbox.script(move |_| {
        arrived += 1;
        if arrived % 4 == 0 { 503 } else { 200 }
    });
    for round in 0..kills {
        let life = dice.up_to(LIFE);
        thread::scope(|scope| {
            let alive = &server;
            scope.spawn(move || {
                thread::sleep(life);
                alive.signal(Signal::KILL);
            });
            let (app, url) = (&app, inbox.url());
            scope.spawn(move || {
                for number in 0..40 {
                    let body =
                        json!({ "command": "embed", "webhook": url, "key": format!("{round}.{number}") });
                    let made = alive.ask("POST", "/api/tasks", Some(&app.token), Some(&body));
                    let Ok(made) = made else { return };
                    let id = made.json()["id"].as_str().unwrap_or_default().to_owned();
                    let cancel = format!("/api/tasks/{id}/cancel");
                    if alive.ask("POST", &cancel, Some(&app.token), Some(&json!({}))).is_err() {
                        return;
                    }
                }
            });
        });
        server.kill();
        server.run();
    }
    // Those that were created and not yet ended.
    let open = json!({ "confirm": "embed" });
    assert_eq!(ask(&server, &app, "POST", "/api/queues/embed/purge", open).0, 200);
    create(&server, &app, &inbox.url(), json!({}));
    end(&server, &app, "complete", json!({}));
    let entries = ends(&server, &app);
    let mut of_task: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &entries {
        *of_task.entry(entry["subject"].as_str().expect("a task")).or_default() += 1;
    }
    assert!(of_task.values().all(|count| *count == 1), "{of_task:?}");
    let (mut ended, mut path) = (0, "/api/tasks?limit=100".to_owned());
    loop {
        let page = app.ask(&server, "GET", &path, None).json();
        for task in items(&page) {
            assert!(of_task.contains_key(task["id"].as_str().expect("an id")), "no entry: {task}");
            ended += 1;
        }
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/api/tasks?limit=100&cursor={next}"),
            None => break,
        }
    }
    assert!(ended > 0);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["number"].as_u64().expect("one")).collect();
    inbox.wait_for(*numbers.last().expect("entries"));
    let mut seen: Vec<u64> = Vec::new();
    for number in inbox.taken() {
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    assert_eq!(seen, numbers, "each at least once, in their order");
    println!("{} ends came {} times over {kills} kills", numbers.len(), inbox.taken().len());
}

#[test]
fn a_receiver_that_fails_is_waited_for_and_one_that_is_gone_is_not() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    inbox.script(|_| 500);
    for _ in 0..2 {
        create(&server, &app, &inbox.url(), json!({}));
        end(&server, &app, "complete", json!({}));
    }
    // On a busy machine the entry that the callback is blocked may come between the two.
    let entries = ends(&server, &app);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["number"].as_u64().expect("one")).collect();
    eventually("two tries", SOON, || (inbox.letters().len() >= 2).then_some(()));
    assert!(inbox.letters().iter().all(|letter| letter.number() == numbers[0]), "the first is waited for");
    inbox.script(|_| 200);
    let path = |id: &Value, verb: &str| format!("/api/subscriptions/{}/{verb}", id.as_str().expect("an id"));
    let id = callback(&server, &app, &inbox.url()).expect("listed")["subscription_id"].clone();
    // A person who knows that it is well again does not wait for the next try.
    assert_eq!(app.ask(&server, "POST", &path(&id, "resume"), None).status, 200);
    inbox.wait_for(numbers[1]);
    assert_eq!(inbox.taken(), numbers);
    let tries = app.ask(&server, "GET", &path(&id, "attempts"), None).json();
    assert!(items(&tries).iter().any(|one| one["http_status"] == 500), "{tries}");
    // A pause holds the entries back.
    assert_eq!(app.ask(&server, "POST", &path(&id, "pause"), None).json()["state"], "paused");
    create(&server, &app, &inbox.url(), json!({}));
    end(&server, &app, "complete", json!({}));
    assert_eq!(inbox.taken(), numbers);
    inbox.script(|_| 410);
    assert_eq!(app.ask(&server, "POST", &path(&id, "resume"), None).status, 200);
    let gone = wait_for_state(&server, &app, &inbox.url(), "disabled");
    assert!(gone["reason"].as_str().expect("a reason").contains("410"), "{gone}");
    let other = json!({ "filter": "" });
    let named = format!("/api/subscriptions/{}", id.as_str().expect("an id"));
    let (status, refused) = ask(&server, &app, "PATCH", &named, other);
    assert_eq!(status, 409, "{refused}");
}

#[test]
fn addresses_are_checked_keys_mean_them_and_other_apps_see_none_of_it() {
    let server = Server::start();
    let (app, other, inbox) = (app(&server), app(&server), Inbox::start());
    for (url, says) in [
        ("ftp://example.org/in", "web address"),
        ("nats://example.org/in", "web address"),
        ("http://10.0.0.1/in", "egress.allow"),
        ("https://169.254.169.254/latest", "egress.allow"),
        ("https://user:secret@example.org/in", "user"),
        ("https://example.org/in?token=secret", "query"),
    ] {
        let body = json!({ "command": "embed", "webhook": url });
        let (status, problem) = ask(&server, &app, "POST", "/api/tasks", body);
        assert_eq!(status, 422, "{url}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], "/webhook", "{problem}");
        let detail = problem["errors"][0]["detail"].as_str().expect("a text");
        assert!(detail.contains(says), "{url}: {detail}");
        let schedule = json!({ "cron": "@daily", "command": "embed", "webhook": url });
        assert_eq!(ask(&server, &app, "PUT", "/api/schedules/s", schedule).0, 422, "{url}");
    }
    assert!(callback(&server, &app, &inbox.url()).is_none());
    let keyed = |webhook: Value| json!({ "command": "embed", "key": "k", "webhook": webhook });
    let first = ask(&server, &app, "POST", "/api/tasks", keyed(json!(inbox.url())));
    let again = ask(&server, &app, "POST", "/api/tasks", keyed(json!(inbox.url())));
    assert_eq!((first.0, again.0, &first.1["id"]), (201, 200, &again.1["id"]));
    for another in [Value::Null, json!(format!("{}/other", inbox.url()))] {
        assert_eq!(
            ask(&server, &app, "POST", "/api/tasks", keyed(another)).0,
            409,
            "another address, another task"
        );
    }
    let id = callback(&server, &app, &inbox.url()).expect("listed")["subscription_id"].clone();
    let path = format!("/api/subscriptions/{}", id.as_str().expect("an id"));
    assert_eq!(other.ask(&server, "GET", &path, None).status, 404);
    assert_eq!(other.ask(&server, "DELETE", &path, None).status, 404);
    assert!(callback(&server, &other, &inbox.url()).is_none());
    // An app has this many addresses, and its subscriptions beside them.
    let many: Vec<Value> = (0..99)
        .map(|number| json!({ "command": "embed", "webhook": format!("{}/{number}", inbox.url()) }))
        .collect();
    assert_eq!(ask(&server, &app, "POST", "/api/tasks/batch", json!({ "tasks": many })).0, 201);
    let one_more = json!({ "command": "embed", "webhook": format!("{}/more", inbox.url()) });
    let (status, problem) = ask(&server, &app, "POST", "/api/tasks", one_more.clone());
    assert_eq!(status, 429, "{problem}");
    assert!(
        problem["detail"].as_str().expect("a text").contains("100 different webhook addresses"),
        "{problem}"
    );
    assert_eq!(ask(&server, &other, "POST", "/api/tasks", one_more).0, 201, "each app has its own");
    let ordinary = json!({ "name": "ops", "sink": { "url": inbox.url() } });
    assert_eq!(ask(&server, &app, "POST", "/api/subscriptions", ordinary).0, 201);
}

#[test]
fn the_command_line_and_schedules_name_a_webhook() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    let address = format!("http://{}", server.address());
    let run = |arguments: &[&str]| {
        let mut command = server.command(arguments);
        let output =
            command.args(["--server", &address]).env("TIDINGS_TOKEN", &app.token).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["task", "create", "embed", "--webhook", &inbox.url()]);
    end(&server, &app, "complete", json!({}));
    inbox.wait_for(1);
    run(&["schedule", "add", "nightly", "--cron", "@daily", "--command", "embed", "--webhook", &inbox.url()]);
    let schedule = app.ask(&server, "GET", "/api/schedules/nightly", None).json();
    assert_eq!(schedule["webhook"], inbox.url());
}
