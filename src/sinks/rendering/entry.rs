//! Entries of a ledger: their form in lists and tails, and as messages to the sinks of subscriptions.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tidings_actors::{
    model::round::DeliveryId,
    ports::{LedgerEntry, SubscriptionContent, SubscriptionMessage},
};
use tidings_entity::kind::PayloadFormat;
use utoipa::ToSchema;

use super::{body::iso, cloud_event};

/// Cause of an entry.
#[derive(Serialize, ToSchema)]
struct OriginShown {
    /// Kind of the origin: `commit`, `tick`, `person` or `outside`.
    kind: &'static str,
    /// Name of the origin. For a commit: `<cursor>/<round>`. For a tick: `<schedule>/<tick>`. For a person:
    /// `admin`, `tok_...` or `jwt:...`. Otherwise `git`, `endpoint`, `guard` or `restore`.
    name: String,
}

/// An entry of the ledger.
#[derive(Serialize, ToSchema)]
pub struct EntryShown {
    /// Unique id of the entry, `ent_...`.
    pub entry_id: String,
    app_id: String,
    /// Number of the entry. Numbers of an app rise by one.
    number: i64,
    /// Type of the entry: `source.failing`, `source.recovered`, `watch.blocked`, `watch.recovered`,
    /// `watch.paused`, `watch.resumed`, `round.began`, `round.ended`, `letter.parked`, `sink.disabled`,
    /// `sink.enabled`, `sink.opened`, `sink.closed`, `subscription.blocked`, `subscription.recovered`,
    /// `subscription.skipped`, `subscription.gap`, `mail.sent`, `mail.failed`, `status.ended`, `task.dead`,
    /// `schedule.missed` or `ledger.restored`.
    #[serde(rename = "type")]
    pub entry_type: &'static str,
    at: String,
    /// Id of the watch. Missing: the entry is not about a single watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_id: Option<String>,
    /// Id of the object that changed: a source, a branch (`cur_...`), a watch, a sink, a subscription, a task
    /// or the app. For a schedule: its name.
    subject: String,
    origin: OriginShown,
    /// Number of the previous entry about the same state of the same subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<i64>,
    /// Details of the change; the fields depend on the type.
    data: Value,
}

impl EntryShown {
    /// The entry as lists, tails and messages show it.
    #[must_use]
    pub fn of(entry: &LedgerEntry) -> Self {
        Self {
            entry_id: entry.id.to_string(),
            app_id: entry.app.to_string(),
            number: entry.id.number,
            entry_type: entry.entry_type.as_str(),
            at: iso(entry.at),
            repository_id: entry.watch.as_ref().map(ToString::to_string),
            subject: entry.subject.clone(),
            origin: OriginShown { kind: entry.origin.kind.as_str(), name: entry.origin.name.clone() },
            cause: entry.cause,
            data: serde_json::from_str(&entry.data).unwrap_or(Value::Null),
        }
    }
}

/// The body of a message to the sink of a subscription.
#[derive(Serialize)]
struct SubscriptionPayload<'a> {
    event: MessageShown<'a>,
    subscription: SubscribedShown<'a>,
    /// The entry; missing in a test and in the message of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryShown>,
    /// The entries that were removed before they were sent, in the message `subscription.gap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapShown>,
    /// When the entry was written. For other messages: when the message was made.
    timestamp: String,
}

/// The facts of a message.
#[derive(Serialize)]
struct MessageShown<'a> {
    /// Id of the entry, as in the header `webhook-id`. A repeated message has the same id.
    id: &'a str,
    /// The type of the entry; `subscription.gap`, or `test`.
    r#type: &'static str,
}

/// The subscription that a message is for.
#[derive(Serialize)]
struct SubscribedShown<'a> {
    subscription_id: &'a str,
    name: &'a str,
    app_id: &'a str,
}

/// Entries that were removed before they were sent.
#[derive(Serialize)]
struct GapShown {
    /// Number of the first removed entry.
    first: i64,
    /// Number of the last removed entry.
    last: i64,
}

/// Renders a message: its id and its body.
pub(crate) fn render(message: &SubscriptionMessage, format: PayloadFormat) -> (DeliveryId, Bytes) {
    let (kind, number, subject) = match &message.content {
        SubscriptionContent::Entry(entry) => {
            (entry.entry_type.as_str(), Some(entry.id.number), Some(&*entry.subject))
        }
        SubscriptionContent::Gap(_) => ("subscription.gap", None, None),
        // A digest is sent only by mail, and has no JSON body.
        SubscriptionContent::Digest(_) => ("digest", None, None),
        SubscriptionContent::Test => ("test", None, None),
    };
    let id = message.id.as_str();
    let data = SubscriptionPayload {
        event: MessageShown { id, r#type: kind },
        subscription: SubscribedShown {
            subscription_id: message.subscription.as_str(),
            name: &message.name,
            app_id: message.app.as_str(),
        },
        entry: match &message.content {
            SubscriptionContent::Entry(entry) => Some(EntryShown::of(entry)),
            SubscriptionContent::Gap(_) | SubscriptionContent::Digest(_) | SubscriptionContent::Test => None,
        },
        gap: match &message.content {
            SubscriptionContent::Gap(gap) => Some(GapShown { first: gap.first, last: gap.last }),
            SubscriptionContent::Entry(_) | SubscriptionContent::Digest(_) | SubscriptionContent::Test => {
                None
            }
        },
        timestamp: iso(message.timestamp),
    };
    let body = match format {
        PayloadFormat::Docora => serde_json::to_vec(&data).expect("a message is plain data").into(),
        PayloadFormat::Cloudevents => {
            let place = (message.app.as_str(), number, subject);
            cloud_event::of_entry((id, kind), place, message.timestamp, data)
        }
    };
    (message.id.clone(), body)
}
