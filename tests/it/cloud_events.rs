//! Everything that leaves in the format `cloudevents`, read by the reference SDK of CloudEvents: it
//! takes each for an event, and sees in it what was sent.

use std::time::Duration;

use bytes::Bytes;
use cloudevents::{AttributesReader, Data, Event, event::ExtensionValue};
use serde_json::Value;
use tidings::sinks::body::CHUNK_THRESHOLD;
use tidings_actors::{
    model::round::{DeliveryId, Round},
    ownership::shards::ShardHold,
    ports::{Action, DeliveryOrder, Endpoint, GitError, ItemOutcome, Notice, Transport},
    time::Timestamp,
};
use tidings_entity::kind::{ContentRule, Operation, PayloadFormat};

use crate::support::{
    receiver::{Behaviour, Receiver, Recorded},
    sender::{World, blob, endpoint, order, with_view, world},
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// A world with a receiver, whose app takes CloudEvents.
struct Sending {
    world: World,
    receiver: Receiver,
    endpoint: Endpoint,
}

impl Sending {
    async fn begin() -> Self {
        let receiver = Receiver::start().await;
        let mut endpoint = endpoint(receiver.url());
        endpoint.timeout = Duration::from_secs(60);
        endpoint.format = PayloadFormat::Cloudevents;
        Self { world: world(), receiver, endpoint }
    }

    /// Sends a change; the requests it took.
    async fn deliver(&self, order: &DeliveryOrder) -> Vec<Recorded> {
        let before = self.receiver.requests().len();
        let parcel = self.world.prepare(order).await.expect("prepared");
        let outcome = self.world.send(&self.endpoint, &parcel).await;
        assert!(outcome.is_success(), "{outcome:?}");
        self.receiver.requests().split_off(before)
    }

    async fn notify(&self, notice: &Notice) -> Recorded {
        let before = self.receiver.requests().len();
        let outcome = self.world.webhooks.notify(&self.endpoint, notice).await;
        assert!(outcome.is_success(), "{outcome:?}");
        self.receiver.requests().split_off(before).remove(0)
    }
}

fn edit(order: &mut DeliveryOrder, edit: impl FnOnce(&mut Round)) {
    edit(std::sync::Arc::make_mut(&mut std::sync::Arc::make_mut(&mut order.lane).round));
}

fn of_format(mut order: DeliveryOrder, format: PayloadFormat) -> DeliveryOrder {
    edit(&mut order, |round| round.format = format);
    order
}

/// What a body says in Docora's format: the data of the event.
async fn plain(sending: &Sending, order: &DeliveryOrder) -> Value {
    let order = of_format(order.clone(), PayloadFormat::Docora);
    sending.deliver(&order).await.remove(0).json()
}

fn read(body: &[u8]) -> Event {
    serde_json::from_slice(body).expect("the SDK takes it for an event")
}

fn data(event: &Event) -> Value {
    match event.data() {
        Some(Data::Json(data)) => data.clone(),
        other => panic!("{other:?}"),
    }
}

fn extension(event: &Event, name: &str) -> Option<String> {
    match event.extension(name) {
        None => None,
        Some(ExtensionValue::String(text)) => Some(text.clone()),
        Some(other) => panic!("{name} is {other:?}"),
    }
}

/// The attributes that every event of ours has.
fn assert_attributes(event: &Event, id: &str, kind: &str, time: Timestamp) {
    assert_eq!(event.specversion().as_str(), "1.0");
    assert_eq!((event.id(), event.ty()), (id, kind));
    assert_eq!(event.source(), "/api/repositories/repo_00000000010000000000000003");
    assert_eq!(event.time().expect("a time").timestamp_millis(), time.0);
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.dataschema(), None);
}

/// Those of a change, with all that may stand in it.
fn assert_change(event: &Event, id: &str, order: &DeliveryOrder, subject: &str) {
    let round = &order.lane.round;
    let kind = match order.change.operation {
        Operation::Create => "dev.tidings.file.created",
        Operation::Update => "dev.tidings.file.updated",
        Operation::Delete => "dev.tidings.file.deleted",
    };
    assert_attributes(event, id, kind, round.began_at);
    assert_eq!(event.subject(), Some(subject));
    assert_eq!(extension(event, "partitionkey"), Some(round.cursor.to_string()));
    let sequence = format!("{:020}.{:020}", round.number, order.position);
    assert_eq!(extension(event, "sequence"), Some(sequence));
    assert_eq!(event.iter_extensions().count(), 2, "nothing else");
    assert_eq!(data(event)["event"]["id"], order.id.as_str());
}

/// What the SDK writes of what it read is what was sent.
fn assert_round_trip(event: &Event, body: &Value) {
    let mut written = serde_json::to_value(event).expect("JSON");
    // It writes the same moment in another of the allowed forms.
    written["time"] = body["time"].clone();
    assert_eq!(written, *body);
}

/// Changes of every kind and the subject of each.
fn changes(world: &World) -> Vec<(DeliveryOrder, &'static str)> {
    world.git.put(blob(1), "hello");
    world.git.put(blob(2), "good bye, \"ä\" \u{1f600}\r\n\u{7f}");
    world.git.put(blob(3), b"\xff\xfe\0binary".as_slice());
    world.git.put(blob(4), "");
    let create = |new| order(Operation::Create, None, Some(new));
    let named = |path: &[u8]| {
        let mut order = create(1);
        order.change.path = path.to_vec();
        order
    };
    let mut told = create(1);
    told.renamed_from = Some(b"docs/before.md".to_vec());
    told.change.replay_of = Some(DeliveryId::from_stored("dlv_before".into()));
    told.position = 17;
    edit(&mut told, |round| (round.history_rewritten, round.skipped_commits) = (true, true));
    let mut first = create(1);
    edit(&mut first, |round| (round.spec.held, round.number) = (None, 1_767_225_600_000));
    vec![
        (create(1), "docs/a.md"),
        (order(Operation::Update, Some(1), Some(2)), "docs/a.md"),
        (order(Operation::Delete, Some(1), None), "docs/a.md"),
        (create(3), "docs/a.md"),
        (create(4), "docs/a.md"),
        (told, "docs/a.md"),
        (first, "docs/a.md"),
        (with_view(create(1), ContentRule::None, 1 << 20), "docs/a.md"),
        (with_view(create(1), ContentRule::Inline, 3), "docs/a.md"),
        (named("ü/ß \u{1f600}".as_bytes()), "ü/ß \u{1f600}"),
        (named(b"caf\xe9"), "caf\u{fffd}"),
        (named(b"a\nb\x1b[2J\"\\"), "a\u{fffd}b\u{fffd}[2J\"\\"),
    ]
}

#[tokio::test]
async fn every_change_is_an_event_to_the_reference_sdk() {
    let sending = Sending::begin().await;
    for (order, subject) in changes(&sending.world) {
        let order = of_format(order, PayloadFormat::Cloudevents);
        let request = sending.deliver(&order).await.remove(0);
        assert_eq!(request.header("content-type"), STRUCTURED);
        assert_eq!(request.header("webhook-id"), order.id.as_str());
        let event = read(&request.body);
        assert_change(&event, order.id.as_str(), &order, subject);
        assert_eq!(data(&event), plain(&sending, &order).await, "{subject}");
        assert_round_trip(&event, &request.json());
    }
}

#[tokio::test]
async fn every_piece_of_a_large_file_is_an_event_to_the_reference_sdk() {
    let sending = Sending::begin().await;
    sending.world.git.put(blob(9), vec![0xff; CHUNK_THRESHOLD + 1]);
    let order = of_format(order(Operation::Create, None, Some(9)), PayloadFormat::Cloudevents);
    let requests = sending.deliver(&order).await;
    assert_eq!(requests.len(), 3);
    for (index, request) in requests.iter().enumerate() {
        assert_eq!(request.header("content-type"), STRUCTURED);
        let event = read(&request.body);
        assert_change(&event, request.header("webhook-id"), &order, "docs/a.md");
        assert_eq!(data(&event)["file"]["chunk"]["index"], index);
        assert_round_trip(&event, &request.json());
    }
    let ids: std::collections::BTreeSet<String> =
        requests.iter().map(|request| read(&request.body).id().to_owned()).collect();
    assert_eq!(ids.len(), 3, "source and id together name one event");
}

#[tokio::test]
async fn a_batch_is_a_list_of_events_to_the_reference_sdk() {
    let sending = Sending::begin().await;
    let orders: Vec<(DeliveryOrder, &str)> = changes(&sending.world);
    let mut parcels = Vec::new();
    for (order, _) in &orders {
        let order = of_format(order.clone(), PayloadFormat::Cloudevents);
        parcels.push(sending.world.prepare(&order).await.expect("prepared"));
    }
    sending.receiver.always(Behaviour::Status(200));
    let (outcome, words) =
        sending.world.webhooks.send_batch(&sending.endpoint, parcels, &ShardHold::sole()).await;
    assert!(outcome.is_success(), "{outcome:?}");
    assert_eq!(words, vec![ItemOutcome::Accepted; orders.len()]);
    let requests = sending.receiver.requests();
    let request = requests.last().expect("a batch");
    assert_eq!((request.path.as_str(), request.header("content-type")), ("/batch", BATCH));
    let events: Vec<Event> = serde_json::from_slice(&request.body).expect("the SDK takes it for events");
    assert_eq!(events.len(), orders.len());
    for ((event, (order, subject)), body) in
        events.iter().zip(&orders).zip(request.json().as_array().expect("a list"))
    {
        assert_change(event, order.id.as_str(), order, subject);
        assert_round_trip(event, body);
    }
}

#[tokio::test]
async fn every_notice_is_an_event_to_the_reference_sdk() {
    let sending = Sending::begin().await;
    let mut order = of_format(order(Operation::Create, None, Some(1)), PayloadFormat::Cloudevents);
    edit(&mut order, |round| round.complete = true);
    let (round, repository) = ((*order.lane.round).clone(), order.lane.repository.clone());
    for action in [Action::Synced, Action::Resync] {
        let notice = Notice::OfRound { action, round: round.clone().into(), repository: repository.clone() };
        let request = sending.notify(&notice).await;
        assert_eq!(request.header("content-type"), STRUCTURED);
        let event = read(&request.body);
        let kind = format!("dev.tidings.{}", action.as_str());
        assert_attributes(&event, request.header("webhook-id"), &kind, round.began_at);
        assert_eq!(extension(&event, "partitionkey"), Some(round.cursor.to_string()));
        assert_eq!(data(&event)["event"]["round"], round.number);
        assert_round_trip(&event, &request.json());
    }
    let (at, id) = (Timestamp(1_767_225_600_123), DeliveryId::from_stored("dlv_n".into()));
    let failed = Notice::SyncFailed {
        id: id.clone(),
        repository: repository.clone(),
        error: GitError::NotFound,
        consecutive_failures: 5,
        threshold: 5,
        cooldown_until: at,
        timestamp: at,
    };
    let recovered = Notice::SyncRecovered { id, repository, timestamp: at };
    for (notice, kind) in [(failed, "sync_failed"), (recovered, "sync_recovered")] {
        let request = sending.notify(&notice).await;
        let event = read(&request.body);
        assert_attributes(&event, "dlv_n", &format!("dev.tidings.{kind}"), at);
        assert_eq!((event.subject(), event.iter_extensions().count()), (None, 0));
        assert_round_trip(&event, &request.json());
    }
}

/// The SDK that the others trust, made to fail.
#[test]
fn what_is_no_event_is_refused_by_the_reference_sdk() {
    let event = serde_json::json!({
        "specversion": "1.0", "id": "a", "source": "/b", "type": "c", "time": "2026-01-01T00:00:00.000Z",
        "datacontenttype": "application/json", "data": {},
    });
    let read = |event: &Value| serde_json::from_slice::<Event>(&Bytes::from(event.to_string()));
    read(&event).expect("an event");
    for name in ["specversion", "id", "source", "type"] {
        let mut lacking = event.clone();
        lacking.as_object_mut().expect("an object").remove(name);
        assert!(read(&lacking).is_err(), "without {name}");
    }
    let mut late = event;
    late["time"] = "the first of January".into();
    assert!(read(&late).is_err());
}
