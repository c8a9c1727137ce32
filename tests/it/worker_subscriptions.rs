//! Worker subscriptions, with the real server and real receivers: a word comes where a queue has work that it
//! did not have before, once, not too often, to one of a group in turn, and delays nobody.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tidings_actors::time::Timestamp;

use crate::support::{
    api::{App, items},
    fleet::Fleet,
    inbox::Inbox,
    patience::{SOON, eventually, eventually_or},
    server::Server,
    subscriber::{KEY, Subscriber},
};

const PATH: &str = "/api/workers/subscriptions";
/// The longest that the server waits for a receiver of such a word.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a message that must not come is waited for.
const QUIET: Duration = Duration::from_millis(700);

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

fn ask(server: &Server, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let reply = server.ask(method, path, Some(token), Some(&body)).expect("an answer");
    let answer = if reply.status == 204 { Value::Null } else { reply.json() };
    (reply.status, answer)
}

/// Makes a worker subscription without a shortest interval; its id.
fn listen(server: &Server, app: &App, url: &str, more: Value) -> String {
    let mut body = json!({ "url": url, "commands": ["embed"], "min_interval_seconds": 0 });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    let (status, made) = ask(server, &app.token, "POST", PATH, body);
    assert_eq!(status, 201, "{made}");
    made["subscription_id"].as_str().expect("an id").to_owned()
}

fn create(server: &Server, app: &App, more: Value) {
    let mut body = json!({ "command": "embed" });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    let (status, made) = ask(server, &app.token, "POST", "/api/tasks", body);
    assert_eq!(status, 201, "{made}");
}

fn claim(server: &Server, app: &App, seconds: u64) -> Value {
    let wanted = json!({ "commands": ["embed"], "claim_seconds": seconds });
    let (_, given) = ask(server, &app.token, "POST", "/api/tasks/claim", wanted);
    given["tasks"][0].clone()
}

fn wait_for(inbox: &Inbox, count: usize) {
    let look = || (inbox.letters().len() >= count).then_some(());
    eventually_or(&format!("{count} messages"), SOON, look, || format!("but {:?}", inbox.letters()));
}

#[test]
fn a_word_comes_with_created_due_given_back_and_free_work_and_not_without() {
    let server = Server::start();
    let (app, other, inbox) = (app(&server), app(&server), Inbox::start());
    let id = listen(&server, &app, &inbox.url(), json!({}));
    create(&server, &app, json!({}));
    wait_for(&inbox, 1);
    let letter = inbox.letters().remove(0);
    assert_eq!(
        (
            &letter.body["type"],
            &letter.body["command"],
            &letter.body["ready"],
            &letter.body["subscription_id"]
        ),
        (&json!("work.available"), &json!("embed"), &json!(1), &json!(id))
    );
    assert!(letter.body["sent_at"].is_string() && letter.header("webhook-id").starts_with("wrk_"));
    assert!(letter.is_signed_with(&[&format!("whsec_{}", BASE64_STANDARD.encode(KEY))]), "{letter:?}");
    let document = server.ask("GET", "/openapi.json", None, None).expect("an answer").json();
    let documented = &document["components"]["schemas"]["WorkPayload"]["properties"];
    let mut names = letter.body.as_object().expect("fields").keys();
    assert!(names.all(|name| documented[name].is_object()), "{:?}", letter.body);
    // Given back: a word. Claimed, completed, of another command or another app, not due: none.
    let task = claim(&server, &app, 60);
    let path = |verb: &str| format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
    let word = json!({ "token": task["token"], "delay_seconds": 0 });
    assert_eq!(ask(&server, &app.token, "POST", &path("nack"), word).0, 200);
    wait_for(&inbox, 2);
    create(&server, &other, json!({}));
    create(&server, &app, json!({ "command": "other" }));
    create(&server, &app, json!({ "delay_seconds": 8 }));
    let task = claim(&server, &app, 6);
    thread::sleep(QUIET);
    assert_eq!(inbox.letters().len(), 2, "{:?}", inbox.letters().last());
    assert!(task["token"].is_string(), "{task}");
    // The claim runs out, and the delayed task is due: two seconds apart or together.
    wait_for(&inbox, 3);
    eventually("both are told", SOON, || {
        inbox.letters().iter().any(|letter| letter.body["ready"] == 2).then_some(())
    });
    let entries = app.ask(&server, "GET", "/api/ledger", None).json();
    assert!(items(&entries).is_empty(), "no entry: {entries}");
    assert_eq!(ask(&server, &app.token, "DELETE", &format!("{PATH}/{id}"), json!({})).0, 204);
    let count = inbox.letters().len();
    create(&server, &app, json!({}));
    thread::sleep(QUIET);
    assert_eq!(inbox.letters().len(), count, "it was removed");
}

#[test]
fn words_keep_their_interval_and_a_late_one_comes_only_if_work_is_there() {
    // So long that a slow machine does in that time all that is to happen in it.
    const INTERVAL: Duration = Duration::from_secs(8);
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    listen(&server, &app, &inbox.url(), json!({ "min_interval_seconds": INTERVAL.as_secs() }));
    create(&server, &app, json!({}));
    wait_for(&inbox, 1);
    for _ in 0..5 {
        create(&server, &app, json!({}));
        thread::sleep(Duration::from_millis(60));
    }
    wait_for(&inbox, 2);
    let letters = inbox.letters();
    let sent_at = |place: usize| {
        let text = letters[place].body["sent_at"].as_str().expect("a text");
        Timestamp::parsed(text).expect("RFC 3339")
    };
    let apart = sent_at(1).since(sent_at(0));
    assert!(apart > INTERVAL - Duration::from_millis(500), "{apart:?} apart");
    assert_eq!(letters[1].body["ready"], 6, "five words are one");
    // A word that waits while workers take everything is not told.
    create(&server, &app, json!({}));
    let wanted = json!({ "commands": ["embed"], "count": 100 });
    let (_, given) = ask(&server, &app.token, "POST", "/api/tasks/claim", wanted);
    assert_eq!(given["tasks"].as_array().expect("tasks").len(), 7);
    thread::sleep(INTERVAL + QUIET);
    assert_eq!(inbox.letters().len(), 2, "{:?}", inbox.letters().last());
}

#[test]
fn a_worker_that_only_listens_is_given_what_a_rate_leaves_for_later() {
    let server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    assert_eq!(ask(&server, &app.token, "PUT", "/api/queues/embed", json!({ "rate": 1 })).0, 200);
    listen(&server, &app, &inbox.url(), json!({}));
    for _ in 0..4 {
        create(&server, &app, json!({}));
    }
    // The worker asks when it is told of work, and then until it is given nothing.
    let (mut heard, mut given) = (0, 0);
    eventually("all tasks", SOON, || {
        let letters = inbox.letters().len();
        if std::mem::replace(&mut heard, letters) < letters {
            while claim(&server, &app, 60)["token"].is_string() {
                given += 1;
            }
        }
        (given == 4).then_some(())
    });
}

#[test]
fn one_of_a_group_is_told_in_turn_and_each_of_a_fanout() {
    let server = Server::start();
    let (app, inboxes, all) =
        (app(&server), [Inbox::start(), Inbox::start(), Inbox::start()], Inbox::start());
    for inbox in &inboxes {
        listen(&server, &app, &inbox.url(), json!({ "mode": "group", "group": "gpu" }));
    }
    listen(&server, &app, &all.url(), json!({}));
    for count in 1..=6 {
        create(&server, &app, json!({}));
        wait_for(&all, count);
        let of_group = || inboxes.iter().map(|inbox| inbox.letters().len()).sum::<usize>();
        eventually("one of the group", SOON, || (of_group() >= count).then_some(()));
        assert_eq!(of_group(), count);
    }
    assert!(inboxes.iter().all(|inbox| inbox.letters().len() == 2), "each in turn");
}

#[test]
fn a_subscription_lasts_over_a_restart_and_until_its_time_is_over() {
    let mut server = Server::start();
    let (app, inbox) = (app(&server), Inbox::start());
    let id = listen(&server, &app, &inbox.url(), json!({}));
    server.kill();
    server.run();
    create(&server, &app, json!({}));
    wait_for(&inbox, 1);
    let path = format!("{PATH}/{id}");
    let (status, shown) =
        ask(&server, &app.token, "POST", &format!("{path}/heartbeat"), json!({ "ttl_seconds": 5 }));
    assert_eq!((status, &shown["ttl_seconds"]), (200, &json!(5)), "{shown}");
    eventually("the end", SOON, || (app.ask(&server, "GET", &path, None).status == 404).then_some(()));
    let count = inbox.letters().len();
    create(&server, &app, json!({}));
    thread::sleep(QUIET);
    assert_eq!(inbox.letters().len(), count, "its time is over");
    assert_eq!(ask(&server, &app.token, "POST", &format!("{path}/heartbeat"), json!({})).0, 404);
    assert!(items(&app.ask(&server, "GET", PATH, None).json()).is_empty());
}

#[test]
fn heartbeats_let_a_subscription_last_and_without_them_it_ends_and_frees_its_place() {
    let server = Server::start();
    let (app, inbox, other) = (app(&server), Inbox::start(), Inbox::start());
    for _ in 0..99 {
        listen(&server, &app, &other.url(), json!({ "ttl_seconds": 5, "commands": ["never"] }));
    }
    let id = listen(&server, &app, &inbox.url(), json!({ "ttl_seconds": 5 }));
    let beat = format!("{PATH}/{id}/heartbeat");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        let (status, shown) = ask(&server, &app.token, "POST", &beat, json!({}));
        assert_eq!((status, &shown["ttl_seconds"]), (200, &json!(5)), "{shown}");
        thread::sleep(Duration::from_secs(1));
    }
    let left = items(&app.ask(&server, "GET", PATH, None).json());
    assert_eq!((left.len(), &left[0]["subscription_id"]), (1, &json!(id)), "the others had no heartbeat");
    create(&server, &app, json!({}));
    wait_for(&inbox, 1);
    // The places of those that ended are free.
    for _ in 0..99 {
        assert_eq!(ask(&server, &app.token, "POST", &beat, json!({})).0, 200);
        listen(&server, &app, &other.url(), json!({ "ttl_seconds": 5, "commands": ["never"] }));
    }
    // A heartbeat names another time, which the next one keeps.
    let (_, shown) = ask(&server, &app.token, "POST", &beat, json!({ "ttl_seconds": 7 }));
    assert_eq!(shown["ttl_seconds"], 7);
    let last = Instant::now();
    let (_, shown) = ask(&server, &app.token, "POST", &beat, json!({}));
    assert_eq!(shown["ttl_seconds"], 7, "{shown}");
    eventually("the end without heartbeats", SOON, || {
        items(&app.ask(&server, "GET", PATH, None).json()).is_empty().then_some(())
    });
    assert!(last.elapsed() > Duration::from_secs(6), "it ended after {:?}", last.elapsed());
    create(&server, &app, json!({}));
    create(&server, &app, json!({ "command": "never" }));
    thread::sleep(QUIET);
    assert_eq!((inbox.letters().len(), other.letters().len()), (1, 0), "who has ended is told nothing");
    assert_eq!(ask(&server, &app.token, "POST", &beat, json!({})).0, 404);
}

#[test]
fn bounds_permissions_and_foreign_apps() {
    let server = Server::start();
    let (app, other, inbox) = (app(&server), app(&server), Inbox::start());
    let valid = json!({ "url": inbox.url(), "commands": ["embed"] });
    for (key, value, pointer) in [
        ("url", json!("http://10.0.0.1/wake"), "/url"),
        ("url", json!("https://example.org/?a=b"), "/url"),
        ("commands", json!([]), "/commands"),
        ("commands", json!(["a b"]), "/commands"),
        ("ttl_seconds", json!(1), "/ttl_seconds"),
        ("ttl_seconds", json!(86_401), "/ttl_seconds"),
        ("min_interval_seconds", json!(3_601), "/min_interval_seconds"),
        ("mode", json!("hash"), "/mode"),
        ("mode", json!("group"), "/group"),
        ("group", json!("gpu"), "/group"),
    ] {
        let mut body = valid.clone();
        body[key] = value;
        let (status, problem) = ask(&server, &app.token, "POST", PATH, body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{problem}");
    }
    let (_, made) = ask(&server, &app.token, "POST", PATH, valid.clone());
    assert_eq!((&made["ttl_seconds"], &made["min_interval_seconds"]), (&json!(300), &json!(5)), "{made}");
    let path = format!("{PATH}/{}", made["subscription_id"].as_str().expect("an id"));
    let narrowed = |permission: &str, command: &str| {
        let body = json!({ "name": "w", "permissions": [permission], "commands": [command] });
        app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json()["token"]
            .as_str()
            .expect("one")
            .to_owned()
    };
    let (own, foreign) = (narrowed("workers:subscribe", "embed"), narrowed("workers:subscribe", "mail"));
    assert_eq!(ask(&server, &own, "GET", &path, json!({})).0, 200);
    for token in [&other.token, &foreign] {
        assert_eq!(ask(&server, token, "GET", &path, json!({})).0, 404);
        assert_eq!(ask(&server, token, "POST", &format!("{path}/heartbeat"), json!({})).0, 404);
        assert_eq!(ask(&server, token, "DELETE", &path, json!({})).0, 404);
        assert!(items(&ask(&server, token, "GET", PATH, json!({})).1).is_empty());
    }
    assert_eq!(ask(&server, &foreign, "POST", PATH, valid.clone()).0, 403);
    assert_eq!(ask(&server, &narrowed("tasks:claim", "embed"), "POST", PATH, valid.clone()).0, 403);
    for _ in 0..99 {
        assert_eq!(ask(&server, &app.token, "POST", PATH, valid.clone()).0, 201);
    }
    let (status, problem) = ask(&server, &app.token, "POST", PATH, valid);
    assert_eq!(status, 429, "{problem}");
}

#[test]
fn a_dead_address_delays_neither_creates_nor_others() {
    let server = Server::start();
    let (app, other, inbox) = (app(&server), app(&server), Inbox::start());
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/wake", silent.local_addr().expect("an address"));
    for _ in 0..60 {
        listen(&server, &app, &url, json!({}));
    }
    listen(&server, &other, &inbox.url(), json!({}));
    // What waited for the dead address would wait for the deadline of a message, each time.
    let (mut creates, mut words) = (Vec::new(), Vec::new());
    for count in 1..=40 {
        let began = Instant::now();
        create(&server, &app, json!({}));
        creates.push(began.elapsed());
        if count % 10 == 0 {
            let began = Instant::now();
            create(&server, &other, json!({}));
            wait_for(&inbox, count / 10);
            words.push(began.elapsed());
        }
    }
    creates.sort_unstable();
    assert!(creates[creates.len() / 2] < MESSAGE_DEADLINE / 2, "creates took {creates:?}");
    assert!(
        words.iter().min().is_some_and(|took| *took < MESSAGE_DEADLINE / 2),
        "the other waited {words:?}"
    );
    drop(silent);
}

#[test]
fn of_several_replicas_one_tells_whoever_made_the_work() {
    let Some(fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
    let (app, inbox) = (App::onboard(&fleet.servers[0], &Subscriber::start()), Inbox::start());
    fleet.wait_until_shared(2);
    listen(&fleet.servers[0], &app, &inbox.url(), json!({}));
    for count in 1..=6 {
        create(&fleet.servers[count % 2], &app, json!({}));
        wait_for(&inbox, count);
    }
    thread::sleep(QUIET);
    assert_eq!(inbox.letters().len(), 6, "each word once: {:?}", inbox.letters());
}
