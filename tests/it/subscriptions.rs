//! Subscriptions over the real binary: each entry arrives in its order and at least once, whatever the receiver
//! and the server do; what is refused is passed over and can be sent again; nothing about sending is sent.

use std::{collections::BTreeSet, thread, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    api::{App, items},
    dice::Dice,
    inbox::Inbox,
    kills,
    mail_server::{Mail, MailServer},
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    stream::Nats,
    subscriber::Subscriber,
};

mod backlogs;
mod by_hand;
mod mails;
mod mails_in_trouble;
mod poisoned;
mod replicas;
mod trouble;

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 20;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(600);
/// The second half of what happens within a minute is told when nothing changed for a minute.
const FOLDED: Duration = Duration::from_secs(150);
/// What most stories are about: each round of each commit has two such entries, which are told at once.
const ROUNDS: &str = "type:~round";

/// A server whose app holds the first commit of a project, and goes through each commit of it.
struct Scene {
    server: Server,
    app: App,
    watch: String,
    project: Project,
    _subscriber: Subscriber,
}

impl Scene {
    fn start() -> Self {
        Self::with(Server::start())
    }

    fn with(server: Server) -> Self {
        let (project, subscriber) = (Project::with(&[("a", "0")]), Subscriber::start());
        let app = App::onboard(&server, &subscriber);
        let watch = app.watch_with(&server, &json!({ "url": project.url(), "mode": "every" }));
        app.wait_until_held(&server, &watch, &project.head());
        Self { server, app, watch, project, _subscriber: subscriber }
    }

    /// Makes this many commits.
    fn commit(&self, count: u64) {
        for _ in 0..count {
            self.project.write("a", self.project.head().as_bytes());
            self.project.commit("one more");
        }
    }

    /// Waits until the app holds the last commit.
    fn settle(&self) {
        self.app.wait_until_held(&self.server, &self.watch, &self.project.head());
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let reply = self.app.ask(&self.server, method, &format!("/api/subscriptions{path}"), body);
        (reply.status, reply.json())
    }

    /// Makes a subscription; it, as it was shown.
    fn subscribe(&self, name: &str, url: &str, more: &Value) -> Value {
        let mut body = json!({ "name": name, "filter": ROUNDS, "sink": { "url": url } });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let (status, made) = self.ask("POST", "", Some(&body));
        assert_eq!(status, 201, "{made}");
        made
    }

    fn act(&self, name: &str, verb: &str) -> Value {
        let (status, shown) = self.ask("POST", &format!("/{name}/{verb}"), None);
        assert_eq!(status, 200, "{verb}: {shown}");
        shown
    }

    fn shown(&self, name: &str) -> Value {
        let (status, shown) = self.ask("GET", &format!("/{name}"), None);
        assert_eq!(status, 200, "{shown}");
        shown
    }

    fn wait_for_state(&self, name: &str, state: &str) -> Value {
        eventually(&format!("{name} is {state}"), SOON, || {
            let shown = self.shown(name);
            (shown["state"] == state).then_some(shown)
        })
    }

    /// The entries that a filter means, oldest first.
    fn entries(&self, filter: &str) -> Vec<Value> {
        let query = encoded(filter);
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/ledger?limit=100&q={query}{cursor}");
            let reply = self.app.ask(&self.server, "GET", &path, None);
            assert_eq!(reply.status, 200, "{}", reply.json());
            let page = reply.json();
            all.extend(items(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        all.reverse();
        all
    }

    fn numbers(&self, filter: &str) -> Vec<u64> {
        self.entries(filter).iter().map(|entry| entry["number"].as_u64().expect("a number")).collect()
    }

    fn tries(&self, name: &str, query: &str) -> Vec<Value> {
        let (status, page) = self.ask("GET", &format!("/{name}/attempts?limit=100{query}"), None);
        assert_eq!(status, 200, "{page}");
        items(&page)
    }

    /// Waits until a subscription is done with the last entry that its filter means; all that it took.
    fn wait_until_done(&self, inbox: &Inbox) -> Vec<u64> {
        self.settle();
        let all = self.numbers(ROUNDS);
        inbox.wait_for(*all.last().expect("entries"));
        all
    }
}

/// A text as a query holds it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// What was taken, each once: as it came, but for repetitions.
fn once(taken: &[u64]) -> Vec<u64> {
    let mut seen = Vec::new();
    for number in taken {
        if !seen.contains(number) {
            seen.push(*number);
        }
    }
    seen
}

#[test]
fn every_entry_arrives_once_in_order_as_the_ledger_shows_it_signed_with_a_key_of_its_own() {
    let (scene, plain, events) = (Scene::start(), Inbox::start(), Inbox::start());
    assert_eq!(scene.entries(""), Vec::<Value>::new(), "without a reader rounds are no entries");
    let made = scene.subscribe("plain", &plain.url(), &json!({}));
    let of_events = json!({ "sink": { "url": events.url(), "format": "cloudevents" } });
    let other = scene.subscribe("events", &events.url(), &of_events);
    let secret = |made: &Value| made["sink"]["signing_secret"].as_str().expect("a secret").to_owned();
    let (secret, other_secret) = (secret(&made), secret(&other));
    assert_eq!(scene.shown("plain")["sink"]["signing_secret"], Value::Null, "it is shown once");
    scene.commit(6);
    let all = scene.wait_until_done(&plain);
    events.wait_for(*all.last().expect("entries"));
    let listed = scene.entries(ROUNDS);
    assert_eq!(listed.len(), 12, "each round begins and ends");
    assert_eq!((plain.taken(), events.taken()), (all.clone(), all.clone()), "once, in order");
    for (letter, entry) in plain.letters().iter().zip(&listed) {
        assert_eq!(letter.data()["entry"], *entry);
        assert_eq!(letter.path, "/in", "nothing is appended to the address");
        assert_eq!(letter.header("webhook-id"), entry["entry_id"].as_str().expect("an id"));
        assert!(letter.is_signed_with(&[&secret]), "{letter:?}");
        assert!(!letter.is_signed_with(&[&other_secret]), "each sink has a key of its own");
        assert_eq!(letter.data()["subscription"]["name"], "plain");
    }
    let document = scene.server.ask("GET", "/openapi.json", None, None).expect("an answer").json();
    for letter in plain.letters() {
        let data = letter.data();
        for (schema, part) in [
            ("SubscriptionPayload", data),
            ("SubscriptionEventPayload", &data["event"]),
            ("SubscribedPayload", &data["subscription"]),
            ("EntryShown", &data["entry"]),
        ] {
            let documented = &document["components"]["schemas"][schema]["properties"];
            let mut names = part.as_object().expect(schema).keys();
            assert!(names.all(|name| documented[name].is_object()), "{schema} lacks a field of {part}");
        }
    }
    for (letter, entry) in events.letters().iter().zip(&listed) {
        assert_eq!(letter.header("content-type"), "application/cloudevents+json");
        assert_eq!(letter.body["type"], format!("dev.tidings.{}", entry["type"].as_str().expect("one")));
        assert_eq!((&letter.body["id"], &letter.body["data"]["entry"]), (&entry["entry_id"], entry));
        assert!(letter.is_signed_with(&[&other_secret]), "{letter:?}");
    }
    let shown = eventually("position", SOON, || {
        let shown = scene.shown("plain");
        (shown["position"] == shown["last"]).then_some(shown)
    });
    assert_eq!((&shown["state"], &shown["tries"]), (&json!("active"), &json!(0)));
    let tries = scene.tries("plain", "");
    assert_eq!(tries.len(), 12, "each try is listed");
    assert!(tries.iter().all(|one| one["http_status"] == 200 && one["number"] == 1), "{tries:?}");
}

#[test]
fn one_begins_now_or_with_the_entry_that_it_names_and_only_with_what_its_filter_means() {
    let (scene, first) = (Scene::start(), Inbox::start());
    scene.subscribe("first", &first.url(), &json!({}));
    scene.commit(3);
    let all = scene.wait_until_done(&first);
    let (late, from, ended) = (Inbox::start(), Inbox::start(), Inbox::start());
    scene.subscribe("late", &late.url(), &json!({}));
    scene.subscribe("from", &from.url(), &json!({ "from": all[2] }));
    scene.subscribe("ended", &ended.url(), &json!({ "from": 1, "filter": "type:round.ended" }));
    from.wait_for(all[5]);
    ended.wait_for(all[5]);
    assert_eq!(from.taken(), all[2..]);
    assert_eq!(ended.taken(), [all[1], all[3], all[5]]);
    scene.commit(1);
    let all = scene.wait_until_done(&late);
    assert_eq!(late.taken(), all[6..], "what was written before it was made is not sent");
}

#[test]
fn one_that_is_paused_is_sent_nothing_and_then_everything() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.commit(1);
    scene.wait_until_done(&inbox);
    assert_eq!(scene.act("ops", "pause")["state"], "paused");
    scene.commit(2);
    scene.settle();
    assert_eq!(scene.numbers(ROUNDS).len(), 6);
    assert_eq!(inbox.taken().len(), 2, "nothing is sent while it is paused");
    assert_eq!(scene.act("ops", "resume")["state"], "active");
    let all = scene.wait_until_done(&inbox);
    assert_eq!(inbox.taken(), all, "nothing is lost");
}

#[test]
fn every_entry_arrives_in_order_over_kills() {
    let kills = kills(KILLS);
    let (mut scene, inbox) = (Scene::start(), Inbox::start());
    let mut dice = Dice::thrown("kills of subscriptions");
    // Every fourth message is not taken the first time: what is lost then is lost for good.
    let mut arrived = 0;
    inbox.script(move |_| {
        arrived += 1;
        if arrived % 4 == 0 { 503 } else { 200 }
    });
    scene.subscribe("ops", &inbox.url(), &json!({}));
    for _ in 0..kills {
        let (life, alive) = (dice.up_to(LIFE), &scene);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(life);
                alive.server.signal(Signal::KILL);
            });
            scope.spawn(move || alive.commit(3));
        });
        scene.server.kill();
        scene._subscriber.model().note_kill();
        scene.server.run();
    }
    let all = scene.wait_until_done(&inbox);
    assert_eq!(all, (1..=kills * 6).collect::<Vec<u64>>(), "the ledger has no hole");
    assert_eq!(once(&inbox.taken()), all, "each at least once, in order");
    println!("{} entries came {} times over {kills} kills", all.len(), inbox.taken().len());
}

#[test]
fn entries_stand_in_a_stream_in_their_order() {
    let Some(nats) = Nats::start() else { return };
    nats.make_stream(&json!({}));
    let scene = Scene::start();
    let made = scene.subscribe("stream", &nats.url(), &json!({}));
    assert_eq!((&made["sink"]["kind"], &made["sink"]["format"]), (&json!("stream"), &json!("cloudevents")));
    scene.commit(3);
    scene.settle();
    let listed = scene.entries(ROUNDS);
    assert_eq!(listed.len(), 6);
    let kept = eventually("messages", SOON, || Some(nats.kept()).filter(|kept| kept.len() == 6));
    for (message, entry) in kept.iter().zip(&listed) {
        assert_eq!(message.subject, format!("{}.entry", crate::support::stream::PREFIX));
        assert_eq!(message.header("Nats-Msg-Id"), entry["entry_id"].as_str().expect("an id"));
        assert_eq!(message.body["data"]["entry"], *entry);
    }
}
