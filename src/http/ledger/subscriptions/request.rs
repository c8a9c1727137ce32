//! The bodies of requests about subscriptions.

use tidings_actors::{
    model::filter::{BYTES_MAX, Filter, sets},
    ports::{App, NewSink, OwnSink, ReadFrom, Subscription, SubscriptionPatch, sink_of},
    subscriber::rounds::reads_rounds,
    time::Timestamp,
};
use tidings_entity::id::SubscriptionId;

use crate::http::{
    apps::watch_sink::{SinkRequest, read_subscription_sink},
    bodies::{body::body, fields::Fields, moment::parsed, problem::Problem},
    front::Front,
};

/// Most characters of a name.
const NAME_MAX: usize = 64;
/// The fields that a change cannot have, each with the reason.
const FIXED: [(&str, &str); 5] = [
    ("subscription_id", "the id stays as long as the subscription; name can be changed"),
    ("state", "POST /api/subscriptions/{id}/pause and /resume change the state"),
    ("position", "from names the next entry to send"),
    ("callback", "only the webhook of a task makes a callback"),
    ("rotate_signing_key", "POST /api/subscriptions/{id}/rotate-key replaces the key"),
];

body! {
    /// A subscription to create.
    pub(super) struct SubscriptionRequest {
        /// Name, unique among the subscriptions of the app: letters, digits, `.`, `-` and `_`.
        #[schema(min_length = 1, max_length = 64)]
        name: String,
        /// Filter that selects entries of the ledger (docs/filters.md). Missing: all entries. Entries about
        /// sending (`subscription.*`, `mail.*`) are never sent.
        #[schema(max_length = 1024)]
        filter: Option<String>,
        /// Sink for the entries: `kind` (`endpoint`, `stream` or `mail`; missing: derived from the other
        /// fields), `url`, `headers`, `auth`, `tls`, `format`, `retry_policy`, `retry_base_ms` and
        /// `retry_cap_ms`. Requests go to `url` itself: no path is appended. Messages of a stream have the
        /// subject `{prefix}.entry`. Mails go to the addresses in `to`, which `mail.allow` must list.
        sink: SinkRequest,
        /// Number of the first entry to send. Missing: the next entry that is written.
        #[schema(minimum = 1)]
        from: Option<u64>,
        /// When the subscription expires (RFC 3339). Missing: never.
        expires_at: Option<String>,
    }
}

body! {
    /// Changes to a subscription. A field that is missing keeps its value.
    pub(super) struct SubscriptionChange {
        /// New name of the subscription.
        #[schema(min_length = 1, max_length = 64)]
        name: Option<String>,
        /// New filter of the subscription.
        #[schema(max_length = 1024)]
        filter: Option<String>,
        /// Changes to the sink. A field that is missing keeps its value, unless `kind` changes.
        sink: Option<SinkRequest>,
        /// Number of the next entry to send. Entries from this number on are sent, also if they were sent
        /// before; earlier entries are not sent.
        #[schema(minimum = 1)]
        from: Option<u64>,
        /// When the subscription expires (RFC 3339). Null: never.
        expires_at: Option<String>,
    }
}

/// The fields of a subscription to create, after reading.
pub(super) struct NewSubscription {
    pub(super) name: String,
    /// The text of the filter, and whether the filter can select entries about rounds.
    pub(super) filter: (String, bool),
    pub(super) sink: NewSink,
    pub(super) from: Option<i64>,
    pub(super) expires_at: Option<Timestamp>,
}

/// Reads the body for a new subscription.
///
/// # Errors
/// 400 and 422 that name each fault.
pub(super) fn read_new(
    front: &Front,
    body: &[u8],
    app: &App,
    id: &SubscriptionId,
) -> Result<NewSubscription, Problem> {
    let mut fields = Fields::of_body::<SubscriptionRequest>(body)?;
    if !fields.has("name") {
        fields.refuse("name", "is required");
    }
    let name = read_name(&mut fields).unwrap_or_default();
    let filter = read_filter(front, &mut fields).unwrap_or_else(|| (String::new(), true));
    if !fields.has("sink") {
        fields.refuse("sink", "is required");
    }
    let sink = read_subscription_sink(front, &mut fields, app, None);
    let from = read_from(&mut fields);
    let expires_at = read_end(front, &mut fields);
    fields.finish()?;
    // Without a valid sink a fault was recorded.
    let sink = sink.ok_or_else(|| Problem::invalid_field("sink", "is required"))?;
    Ok(NewSubscription { name, filter, sink: NewSink { id: sink_of(id), ..sink }, from, expires_at })
}

/// Reads a change of a subscription, whose sink is `sink` now.
///
/// # Errors
/// 400 and 422 that name each fault.
pub(super) fn read_change(
    front: &Front,
    body: &[u8],
    app: &App,
    now: &Subscription,
    sink: &OwnSink,
) -> Result<SubscriptionPatch, Problem> {
    let mut fields = Fields::of_body::<SubscriptionChange>(body)?;
    fields.refuse_fixed(&FIXED);
    let patch = SubscriptionPatch {
        name: read_name(&mut fields),
        filter: read_filter(front, &mut fields),
        sink: read_subscription_sink(front, &mut fields, app, Some(sink))
            .map(|new| NewSink { id: sink_of(&now.id), ..new }),
        start: read_from(&mut fields).map(ReadFrom::Number),
        expires_at: match fields.null("expires_at") {
            true => Some(None),
            false => read_end(front, &mut fields).map(Some),
        },
        ..SubscriptionPatch::default()
    };
    fields.finish()?;
    Ok(patch)
}

fn read_name(fields: &mut Fields) -> Option<String> {
    let name = fields.text("name", 1..=NAME_MAX)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !name.bytes().all(is_plain) || name.bytes().all(|byte| byte == b'.') {
        fields.refuse("name", "must hold letters, digits, '.', '-' and '_' only");
    } else if name.starts_with(SubscriptionId::PREFIX) {
        fields.refuse("name", "must not begin with sub_, as ids do");
    }
    Some(name)
}

fn read_filter(front: &Front, fields: &mut Fields) -> Option<(String, bool)> {
    let text = fields.free_text("filter", 0..=BYTES_MAX)?;
    match Filter::parse(&text, &sets::LEDGER, front.clock.now()) {
        Ok(filter) => Some((text, reads_rounds(&filter))),
        Err(fault) => {
            fields.refuse("filter", fault.to_string());
            None
        }
    }
}

fn read_from(fields: &mut Fields) -> Option<i64> {
    let from = fields.number("from")?;
    if from == 0 {
        fields.refuse("from", "must be 1 or more: the entries of a ledger are numbered from 1");
    }
    Some(i64::try_from(from).unwrap_or(i64::MAX))
}

fn read_end(front: &Front, fields: &mut Fields) -> Option<Timestamp> {
    let text = fields.text("expires_at", 1..=64)?;
    match parsed(&text) {
        Some(at) if at > front.clock.now() => Some(at),
        Some(_) => {
            fields.refuse("expires_at", "must lie in the future");
            None
        }
        None => {
            fields.refuse("expires_at", "must be a moment (RFC 3339), such as 2027-01-31T00:00:00Z");
            None
        }
    }
}
