//! One request of each kind, sent by the real sender to a receiver that keeps it, and what a server hands
//! out to an app that pulls. The clock stands still and the ids are fixed, so that the page is too.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidings::{egress::Egress, settings::EgressSettings, sinks::Webhooks};
use tidings_actors::{
    model::round::{DeliveryId, Entry, Round},
    ownership::shards::ShardHold,
    ports::{Action, Clock, CommitFacts, DeliveryOrder, Endpoint, GitError, ItemOutcome, Notice, Transport},
    testing::MemoryStore,
    time::Timestamp,
};
use tidings_entity::kind::{ContentRule, Operation, PayloadFormat};

use crate::support::{
    content::Blobs,
    project::Project,
    puller::Puller,
    receiver::{Behaviour, Receiver, Recorded},
    sender::{Counting, World, blob, endpoint, order, with_view},
    server::Server,
};

/// When the round of all examples began: 2026-01-01T00:00:00.000Z. It is also the number of the round.
const BEGAN: i64 = 1_767_225_600_000;
/// What a receiver answers to the batch of two changes below.
const ANSWER: &str = r#"{"results":[{"id":"FIRST","outcome":"accepted"},{"id":"SECOND","outcome":"refused","reason":"no page has this name"}]}"#;
/// A pointer of Git LFS.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\nsize 12345\n";

/// A request, or an answer.
pub(super) struct Example {
    /// Its name in the page.
    pub(super) name: &'static str,
    /// The first line of a request; empty for an answer.
    pub(super) head: String,
    /// The header fields that the sender chose.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The schema of its body.
    pub(super) schema: &'static str,
}

/// A moment after the beginning of the round.
struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGAN + 1_500)
    }
}

struct Sending {
    world: World,
    receiver: Receiver,
    endpoint: Endpoint,
    made: Vec<Example>,
}

/// All examples of docs/payloads.md, made by the code that sends them.
pub(super) fn examples() -> Vec<Example> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut made = runtime.block_on(sent());
    made.extend(pulled());
    made
}

async fn sent() -> Vec<Example> {
    let settings =
        EgressSettings { allow: vec!["127.0.0.0/8".into()], allow_http: true, ..EgressSettings::default() };
    let clock = Arc::new(StandingClock);
    let (git, store) = (Arc::new(Blobs::default()), Arc::new(MemoryStore::new(clock.clone())));
    let egress = Egress::new(&settings).expect("settings");
    let webhooks = Webhooks::new(egress, git.clone(), store.clone(), clock, Arc::new(Counting::default()));
    let receiver = Receiver::start().await;
    let mut endpoint = endpoint(receiver.url());
    endpoint.timeout = Duration::from_secs(60);
    let world = World { webhooks, git, store };
    let mut sending = Sending { world, receiver, endpoint, made: Vec::new() };
    sending.changes().await;
    sending.batches().await;
    sending.notices().await;
    sending.made
}

/// An order of the round of all examples.
fn named(operation: Operation, path: &[u8], old: Option<u8>, new: Option<u8>) -> DeliveryOrder {
    let mut order = order(operation, old, new);
    order.change.path = path.to_vec();
    let lane = Arc::make_mut(&mut order.lane);
    lane.repository.github_url = "https://github.com/owner/name".into();
    (lane.repository.owner, lane.repository.name) = ("owner".into(), "name".into());
    lane.commit = Some(Arc::new(CommitFacts {
        author: "Ada <ada@example.org>".into(),
        time: BEGAN / 1_000 - 60,
        subject: "Say hello".into(),
        first_parent: None,
    }));
    let round = Arc::make_mut(&mut lane.round);
    (round.number, round.began_at) = (BEGAN, Timestamp(BEGAN));
    (round.summary.deletes, round.summary.creates, round.summary.updates) = (1, 7, 1);
    order.id = DeliveryId::of(&round.cursor, round.number, &order.change);
    order
}

fn edited(mut order: DeliveryOrder, edit: impl FnOnce(&mut Round)) -> DeliveryOrder {
    edit(Arc::make_mut(&mut Arc::make_mut(&mut order.lane).round));
    order
}

fn at(mut order: DeliveryOrder, position: u64) -> DeliveryOrder {
    order.position = position;
    order
}

/// Everything that seldom stands in a body, in one.
fn odd() -> DeliveryOrder {
    let mut odd = at(named(Operation::Create, b"caf\xe9.png", None, Some(3)), 4);
    odd.renamed_from = Some(b"th\xe9.png".to_vec());
    odd.change.replay_of = Some(DeliveryId::from_stored("dlv_".to_owned() + &"a2b3".repeat(13)));
    edited(odd, |round| (round.history_rewritten, round.skipped_commits) = (true, true))
}

fn link() -> DeliveryOrder {
    let mut link = at(named(Operation::Create, b"latest", None, Some(7)), 6);
    link.change.new = Some(Entry { mode: 0o120_000, blob: blob(7) });
    link
}

fn update() -> DeliveryOrder {
    let mut update = at(named(Operation::Update, b"run.sh", Some(1), Some(2)), 8);
    update.change.new = Some(Entry { mode: 0o100_755, blob: blob(2) });
    update
}

impl Sending {
    async fn changes(&mut self) {
        let git = &self.world.git;
        git.put(blob(1), "hello");
        git.put(blob(2), "#!/bin/sh\necho hello\n");
        git.put(blob(3), b"\x89PNG\r\n\x1a\n".as_slice());
        git.put(blob(4), vec![0; 1_048_577]);
        git.put(blob(5), "x".repeat(2_000));
        git.put(blob(6), POINTER);
        git.put(blob(7), "README.md");
        let create = || at(named(Operation::Create, b"README.md", None, Some(1)), 1);
        let large =
            with_view(named(Operation::Create, b"all.txt", None, Some(5)), ContentRule::Inline, 1_000);
        for (name, order) in [
            ("create", create()),
            ("update", update()),
            ("delete", named(Operation::Delete, b"old.md", Some(1), None)),
            ("chunk", at(named(Operation::Create, b"film.mp4", None, Some(4)), 5)),
            ("too_large", at(large, 2)),
            ("odd", odd()),
            ("lfs", at(named(Operation::Create, b"model.bin", None, Some(6)), 7)),
            ("link", link()),
        ] {
            self.deliver(name, &order, "ChangePayload").await;
        }
        let event = edited(create(), |round| round.format = PayloadFormat::Cloudevents);
        self.deliver("cloudevent", &event, "CloudEventPayload").await;
    }

    /// Sends a change, and keeps the first request that it takes.
    async fn deliver(&mut self, name: &'static str, order: &DeliveryOrder, schema: &'static str) {
        let before = self.receiver.requests().len();
        let parcel = self.world.prepare(order).await.expect("prepared");
        let outcome = self.world.send(&self.endpoint, &parcel).await;
        assert!(outcome.is_success(), "{name}: {outcome:?}");
        let request = self.receiver.requests().swap_remove(before);
        self.keep(name, &request, schema);
    }

    fn keep(&mut self, name: &'static str, request: &Recorded, schema: &'static str) {
        let own = ["host", "content-length", "accept", "accept-encoding"];
        let headers = request.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().expect("a text").to_owned()));
        let headers: Vec<_> = headers.collect();
        let head = format!("POST {}", request.path);
        self.made.push(Example { name, head, headers, body: request.body.clone(), schema });
    }

    fn answered(&mut self, name: &'static str, body: Vec<u8>, schema: &'static str) {
        self.made.push(Example { name, head: String::new(), headers: Vec::new(), body, schema });
    }

    /// A batch in each format, and an answer that the sender understands.
    async fn batches(&mut self) {
        let orders = [at(named(Operation::Create, b"README.md", None, Some(1)), 1), update()];
        let answer = ANSWER.replace("FIRST", orders[0].id.as_str()).replace("SECOND", orders[1].id.as_str());
        self.receiver.always(Behaviour::Answer(200, Vec::new(), answer.clone()));
        for (name, format) in [("batch", PayloadFormat::Docora), ("cloudevents", PayloadFormat::Cloudevents)]
        {
            let mut parcels = Vec::new();
            for order in orders.clone() {
                let order = edited(order, |round| round.format = format);
                parcels.push(self.world.prepare(&order).await.expect("prepared"));
            }
            let sent = self.world.webhooks.send_batch(&self.endpoint, parcels, &ShardHold::sole()).await;
            let refused = ItemOutcome::Refused("no page has this name".into());
            assert_eq!(sent.1, [ItemOutcome::Accepted, refused], "{:?}", sent.0);
            let request = self.receiver.requests().pop().expect("a request");
            self.keep(name, &request, "BatchPayload");
        }
        let events: Vec<Value> =
            serde_json::from_slice(&self.made.pop().expect("a batch").body).expect("JSON");
        assert!(events.iter().all(|event| event["specversion"] == "1.0"));
        self.answered("batch_answer", answer.into_bytes(), "BatchAnswer");
        self.receiver.always(Behaviour::Status(200));
    }

    async fn notices(&mut self) {
        let lane = named(Operation::Create, b"README.md", None, Some(1)).lane;
        let repository = lane.repository.clone();
        let mut round = Round::clone(&lane.round);
        round.complete = true;
        let round = Arc::new(round);
        let of_round =
            |action| Notice::OfRound { action, round: Arc::clone(&round), repository: repository.clone() };
        let id = |letter: &str| DeliveryId::from_stored(format!("dlv_{}", letter.repeat(52)));
        let timestamp = Timestamp(BEGAN);
        let failed = Notice::SyncFailed {
            id: id("b"),
            repository: repository.clone(),
            error: GitError::Unauthorized,
            consecutive_failures: 5,
            threshold: 5,
            cooldown_until: Timestamp(BEGAN + 1_800_000),
            timestamp,
        };
        let recovered = Notice::SyncRecovered { id: id("c"), repository: repository.clone(), timestamp };
        let app = self.endpoint.app.clone();
        for (name, notice, schema) in [
            ("resync", of_round(Action::Resync), "RoundPayload"),
            ("synced", of_round(Action::Synced), "RoundPayload"),
            ("sync_failed", failed, "SyncFailedPayload"),
            ("sync_recovered", recovered, "SyncRecoveredPayload"),
            ("test", Notice::Test { id: id("d"), app, timestamp }, "TestPayload"),
        ] {
            let outcome = self.world.webhooks.notify(&self.endpoint, &notice).await;
            assert!(outcome.is_success(), "{name}: {outcome:?}");
            let request = self.receiver.requests().pop().expect("a request");
            self.keep(name, &request, schema);
        }
    }
}

/// What a real server hands out, and how it is settled; ids and moments are replaced by fixed ones.
fn pulled() -> Vec<Example> {
    let server = Server::start();
    let puller = Puller::onboard(&server);
    let project = Project::with(&[("README.md", "hello")]);
    let id = puller.app.watch(&server, &project);
    let path = format!("/api/repositories/{id}/pending?limit=1&wait_seconds=60");
    let answer = puller.app.ask(&server, "GET", &path, None);
    assert_eq!(answer.status, 200);
    let pending = answer.json();
    let refused = json!([{ "position": 0, "reason": "no page has this name" }]);
    let settle = json!({ "lease_id": pending["lease_id"], "accepted_through": 0, "refused": refused });
    let path = format!("/api/repositories/{id}/settle");
    let settled = puller.app.ask(&server, "POST", &path, Some(&settle));
    assert_eq!(settled.status, 200, "{}", settled.json());

    let body = &pending["changes"][0]["body"];
    let lasting = named(Operation::Create, b"README.md", None, Some(1));
    let owner = body["repository"]["owner"].as_str().expect("an owner");
    let url = body["repository"]["github_url"].as_str().expect("an address");
    let replacements = [
        (text(&pending["lease_id"]), "lease_01KE0000000000000000000000".to_owned()),
        (keyed("expires_at", &pending["expires_at"]), moment("expires_at", "2026-01-01T00:01:00")),
        (text(&pending["cursor"]), lasting.lane.round.cursor.to_string()),
        (pending["round"].to_string(), BEGAN.to_string()),
        (id, lasting.lane.repository.repository_id.to_string()),
        (url.to_owned(), "https://github.com/owner/name".to_owned()),
        (format!("\"{owner}\""), "\"owner\"".to_owned()),
        ("\"work\"".to_owned(), "\"name\"".to_owned()),
        (text(&body["event"]["id"]), lasting.id.to_string()),
        (text(&body["commit_sha"]), "bb".repeat(20)),
        (keyed("timestamp", &body["timestamp"]), moment("timestamp", "2026-01-01T00:00:00")),
        (keyed("time", &body["event"]["commit"]["time"]), moment("time", "2025-12-31T23:59:00")),
    ];
    let fixed = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
        replacements.iter().fold(text, |text, (old, new)| text.replace(old.as_str(), new)).into_bytes()
    };
    let example = |name, body: &[u8], schema| Example {
        name,
        head: String::new(),
        headers: Vec::new(),
        body: fixed(body),
        schema,
    };
    vec![
        example("pending", &answer.message.body, "Pending"),
        example("settle", settle.to_string().as_bytes(), "Settlement"),
        example("settled", &settled.message.body, "SettledShown"),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A field as it is written.
fn keyed(key: &str, value: &Value) -> String {
    format!("\"{key}\":{value}")
}

fn moment(key: &str, seconds: &str) -> String {
    format!("\"{key}\":\"{seconds}.000Z\"")
}
