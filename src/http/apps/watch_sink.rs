//! The own sink of one watch: `sink` in the bodies of repositories.
//!
//! Its fields are those of an app (`base_url`, `delivery`, `endpoint_auth`, `endpoint_tls`) under shorter
//! names, so they are read by the same functions, with the same rules. Limits of the app as a whole (rate,
//! attempts at once) cannot be set for one sink.

mod shown;

use serde_json::{Map, Value};
use tidings_actors::{
    model::sink::{Outlet, SinkAddress},
    ports::{App, DeliverySettings, EndpointAccess, NewSink, OwnSink, ReplicaSeen, Watch},
};
use tidings_entity::{id::SinkId, kind::SinkKind};
use url::Url;
use utoipa::ToSchema;

pub(in crate::http) use self::shown::SinkShown;
use super::{
    access, delivery::read_delivery, mail_sink, receiver::read_base_url, streams, tasks_sink, test_delivery,
};
use crate::{
    http::{
        bodies::{
            fields::Fields,
            problem::{Kind, Problem},
        },
        front::Front,
    },
    secrets::{generate_signing_key, shown_signing_secret},
};

/// Fields of `delivery` that bound an app over all its sinks.
const OF_APPS: [&str; 3] = ["rate", "max_concurrent", "multi_branch"];
/// Fields about attempts, of which a sink that pulls has none.
const OF_ATTEMPTS: [&str; 8] = [
    "order",
    "max_in_flight",
    "batch",
    "retry_policy",
    "retry_base_ms",
    "retry_cap_ms",
    "retry_window_ms",
    "sync_recovered",
];
/// Fields of the sink of a subscription.
const OF_SUBSCRIPTIONS: [&str; 10] = [
    "kind",
    "url",
    "headers",
    "auth",
    "tls",
    "format",
    "retry_policy",
    "retry_base_ms",
    "retry_cap_ms",
    "to",
];
/// The texts about the place where a sink sends.
struct PlaceTexts {
    /// No field says where.
    missing: &'static str,
    /// The kind is another word than these.
    kinds: &'static str,
}

/// The texts for the sink of a watch.
const OF_WATCH: PlaceTexts =
    PlaceTexts { missing: WITHOUT_PLACE, kinds: "must be one of: endpoint, stream, pull, tasks" };
/// The texts for the sink of a subscription.
const OF_SUBSCRIPTION: PlaceTexts = PlaceTexts {
    missing: "must say where entries go: url (https:// or nats://), or to (mail addresses)",
    kinds: "must be one of: endpoint, stream, mail",
};
/// Most characters of a `watch_name`.
const ALIAS_MAX: usize = 40;

/// Sink for the changes of one repository, used in place of the endpoint of the app.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
pub(in crate::http) struct SinkRequest {
    /// `endpoint` (requests to `url`), `stream` (messages to the NATS server at `url`), `pull` (consumers
    /// request changes with `GET /api/repositories/{id}/pending`) or `tasks` (each change becomes a task of
    /// the queue `command`, which workers claim). For a subscription: `endpoint`, `stream` or `mail`.
    /// Missing: the kind follows from `url`, `to` or `command`. Whether changes become tasks is decided when
    /// the repository is added.
    kind: Option<String>,
    /// Command of the tasks, 1 to 128 letters, digits and `_.:-`. Only with `tasks`.
    command: Option<String>,
    /// `change` (one task for each change) or `round` (one task for each round). Default `change`. Only with
    /// `tasks`; decided when the repository is added.
    per: Option<String>,
    /// Maximum number of unfinished tasks of one branch, 1 to 1,000. Default 1,000. Only with `tasks`.
    window: Option<u32>,
    /// Address that changes are sent to. Not allowed with `pull`.
    #[schema(min_length = 1, max_length = 2048)]
    url: Option<String>,
    /// Recipients of mails, 1 to 10 addresses. Only with `mail`.
    #[schema(max_items = 10)]
    to: Option<Vec<String>>,
    /// Header fields that are sent with each request, as `delivery.headers` of an app.
    headers: Option<std::collections::BTreeMap<String, Option<String>>>,
    /// Credentials for requests, as `endpoint_auth` of an app.
    #[schema(value_type = Option<Object>)]
    auth: Option<Value>,
    /// TLS settings for requests, as `endpoint_tls` of an app.
    #[schema(value_type = Option<Object>)]
    tls: Option<Value>,
    /// Format of the bodies: `docora` or `cloudevents`, from the next round of each branch on. Default of a
    /// new sink: `cloudevents` for a stream, otherwise `docora`. Open rounds take the format of another sink,
    /// or of another kind of sink, with the change.
    format: Option<String>,
    /// `strict` (one change at a time) or `phased` (attempts may overlap). Default of a new sink: `strict`.
    /// This field and those below, but for `synced` and `resync`, are not allowed with `pull`.
    order: Option<String>,
    /// The setting `max_in_flight`, as in `delivery` of an app.
    max_in_flight: Option<u32>,
    /// The setting `batch`, as in `delivery` of an app.
    #[schema(value_type = Option<Object>)]
    batch: Option<Value>,
    /// The setting `retry_policy`, as in `delivery` of an app.
    retry_policy: Option<String>,
    /// The setting `retry_base_ms`, as in `delivery` of an app.
    retry_base_ms: Option<u64>,
    /// The setting `retry_cap_ms`, as in `delivery` of an app.
    retry_cap_ms: Option<u64>,
    /// The setting `retry_window_ms`, as in `delivery` of an app.
    retry_window_ms: Option<u64>,
    /// Whether `/synced` is sent after each round.
    synced: Option<bool>,
    /// Whether `/resync` is sent before each resync.
    resync: Option<bool>,
    /// Whether `/sync_recovered` is sent when a source can be scanned again.
    sync_recovered: Option<bool>,
}

/// The fault of a sink of a watch without a place for its changes.
pub(crate) const WITHOUT_PLACE: &str =
    "must say where changes go: url (https:// or nats://), or the kind pull or tasks";

/// Reads `sink`: `None` if it is missing, `Some(None)` for the sink of the app. Missing fields keep their
/// values of `now`.
pub(in crate::http) fn read_sink(
    front: &Front,
    fields: &mut Fields,
    now: Option<&OwnSink>,
) -> Option<Option<NewSink>> {
    if fields.null("sink") {
        return Some(None);
    }
    let settings = fields.object::<Map<String, Value>>("sink")?;
    if tasks_sink::is_meant(&settings, now) {
        // A sink that cannot be read does not mean the sink of the app.
        return tasks_sink::read(front, fields, settings, now).map(Some);
    }
    read_settings(front, fields, settings, now, &OF_WATCH).map(Some)
}

/// Reads the sink of a subscription: entries are sent one at a time, so settings about batches and order do
/// not apply.
pub(in crate::http) fn read_subscription_sink(
    front: &Front,
    fields: &mut Fields,
    app: &App,
    now: Option<&OwnSink>,
) -> Option<NewSink> {
    let mut settings = fields.object::<Map<String, Value>>("sink")?;
    let foreign: Vec<String> =
        settings.keys().filter(|name| !OF_SUBSCRIPTIONS.contains(&name.as_str())).cloned().collect();
    for name in foreign {
        settings.remove(&name);
        fields.refuse(&format!("sink/{name}"), "is no field of the sink of a subscription");
    }
    let is_of_watches = |kind: &Value| kind == SinkKind::Pull.as_str() || kind == SinkKind::Tasks.as_str();
    if settings.get("kind").is_some_and(is_of_watches) {
        fields.refuse("sink/kind", OF_SUBSCRIPTION.kinds);
        return None;
    }
    if mail_sink::is_meant(&settings, now) {
        return mail_sink::read(front, fields, settings, (app, now));
    }
    if settings.remove("to").is_some() {
        fields.refuse("sink/to", "is for the kind mail");
    }
    let url = settings.get("url").and_then(Value::as_str);
    if url.and_then(|url| Url::parse(url).ok()).is_some_and(|url| holds_secrets(&url)) {
        fields.refuse(
            "sink/url",
            "must not hold a query or a fragment, because addresses are stored and shown in clear text; send \
             a secret in headers or auth",
        );
        return None;
    }
    read_settings(front, fields, settings, now, &OF_SUBSCRIPTION)
}

/// Whether an address has parts in which secrets are often given.
fn holds_secrets(url: &Url) -> bool {
    url.query().is_some() || url.fragment().is_some()
}

fn read_settings(
    front: &Front,
    fields: &mut Fields,
    mut settings: Map<String, Value>,
    now: Option<&OwnSink>,
    texts: &PlaceTexts,
) -> Option<NewSink> {
    let kind = read_kind(fields, &mut settings, now, texts)?;
    for name in OF_APPS.iter().filter(|name| settings.contains_key(**name)) {
        fields.refuse(&format!("sink/{name}"), "is chosen for the app as a whole (PATCH /api/app)");
    }
    if kind == SinkKind::Pull {
        for name in OF_ATTEMPTS {
            if settings.remove(name).is_some() {
                let fault = "is only for the kinds endpoint and stream: nothing is sent to a sink that pulls";
                fields.refuse(&format!("sink/{name}"), fault);
            }
        }
    }
    let now = now.filter(|now| now.address.kind() == kind);
    let mut inner = Map::new();
    for (short, long) in [("url", "base_url"), ("auth", "endpoint_auth"), ("tls", "endpoint_tls")] {
        inner.extend(settings.remove(short).map(|value| (long.to_owned(), value)));
    }
    inner.insert("delivery".to_owned(), Value::Object(settings));
    let mut inner = Fields::of_object(inner);
    let sink = read_fields(front, &mut inner, kind, now);
    fields.adopt(inner, |name| {
        let (first, rest) = name.split_once('/').map_or((name, None), |(first, rest)| (first, Some(rest)));
        match (first, rest) {
            ("delivery", Some(rest)) => format!("sink/{rest}"),
            ("delivery", None) => "sink".to_owned(),
            ("base_url", _) => "sink/url".to_owned(),
            ("endpoint_auth", Some(rest)) => format!("sink/auth/{rest}"),
            ("endpoint_auth", None) => "sink/auth".to_owned(),
            ("endpoint_tls", Some(rest)) => format!("sink/tls/{rest}"),
            ("endpoint_tls", None) => "sink/tls".to_owned(),
            _ => format!("sink/{name}"),
        }
    });
    Some(sink)
}

fn read_kind(
    fields: &mut Fields,
    settings: &mut Map<String, Value>,
    now: Option<&OwnSink>,
    texts: &PlaceTexts,
) -> Option<SinkKind> {
    const KINDS: [SinkKind; 3] = [SinkKind::Endpoint, SinkKind::Stream, SinkKind::Pull];
    let Some(word) = settings.remove("kind") else {
        // The address alone says the kind.
        if let Some(url) = settings.get("url") {
            let kind = SinkAddress::of(url.as_str().map(str::to_owned)).kind();
            return Some(if kind == SinkKind::Stream { kind } else { SinkKind::Endpoint });
        }
        if now.is_none() {
            fields.refuse("sink", texts.missing);
        }
        return now.map(|now| now.address.kind());
    };
    let kind = KINDS.into_iter().find(|kind| word.as_str() == Some(kind.as_str()));
    if kind.is_none() {
        fields.refuse("sink/kind", texts.kinds);
    }
    kind
}

fn read_fields(front: &Front, inner: &mut Fields, kind: SinkKind, now: Option<&OwnSink>) -> NewSink {
    let address = read_address(front, inner, kind, now);
    let begin = now.map_or_else(DeliverySettings::default, |now| now.delivery.clone());
    let (delivery, headers) = read_delivery(inner, &address, &begin);
    let delivery = delivery.unwrap_or(begin);
    // The access data does not follow to another origin without consent.
    let stays = now.is_some_and(|now| match (now.address.base_url(), address.base_url()) {
        (Some(one), Some(other)) => test_delivery::is_same_origin(one, other),
        (one, other) => one == other,
    });
    let kept = now.filter(|_| stays).map_or_else(EndpointAccess::default, |now| (*now.access).clone());
    let patch = access::read(front, inner, headers, &kept, address.base_url());
    let access = kept.changed(&patch).unwrap_or(kept);
    match kind {
        SinkKind::Stream => streams::check(inner, &access),
        SinkKind::Pull if !access.is_empty() => {
            inner.refuse("delivery", "has headers or credentials, and nothing is sent to a sink that pulls");
        }
        _ => {}
    }
    let signs = Outlet::of(kind) == Outlet::Attempt;
    NewSink {
        id: SinkId::new(front.random.ulid(front.clock.now())),
        address,
        access,
        delivery,
        signing_key: signs.then(|| generate_signing_key(front.random.as_ref())),
    }
}

fn read_address(front: &Front, inner: &mut Fields, kind: SinkKind, now: Option<&OwnSink>) -> SinkAddress {
    let is_there = inner.has("base_url");
    if kind == SinkKind::Pull {
        if is_there {
            inner.refuse("base_url", "is only for the kinds endpoint and stream");
            inner.text("base_url", 0..=usize::MAX);
        }
        return SinkAddress::Pull;
    }
    match (read_base_url(front, inner), now) {
        (Some(address), _) => {
            if address.kind() != kind {
                let form = if kind == SinkKind::Stream { "nats://HOST/SUBJECT" } else { "https://HOST/PATH" };
                inner.refuse("base_url", format!("is no address of the kind {kind}, which is {form}"));
            }
            address
        }
        (None, Some(now)) if !is_there => now.address.clone(),
        (None, _) => {
            if !is_there {
                inner.refuse("base_url", "is required");
            }
            SinkAddress::Pull
        }
    }
}

/// Reads `watch_name`; empty if it is missing.
pub(in crate::http) fn read_alias(fields: &mut Fields) -> String {
    let alias = fields.text("watch_name", 0..=ALIAS_MAX).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !alias.bytes().all(is_plain) {
        fields.refuse("watch_name", "must hold small letters, digits and - only");
    }
    alias
}

/// The new key of a sink, to be shown once.
///
/// # Errors
/// When the database does not answer.
pub(in crate::http) async fn new_secret(
    front: &Front,
    app: &App,
    watch: &Watch,
    given: Option<&NewSink>,
) -> Result<Option<String>, Problem> {
    let (Some(given), Some(sink)) = (given.and_then(|given| given.signing_key.as_ref()), &watch.sink) else {
        return Ok(None);
    };
    let kept = front.store.sink(&app.id, &sink.id).await;
    let kept = kept.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let kept = kept.and_then(|kept| kept.signing_key);
    // A sink that already had a key keeps the key.
    let is_new = kept.is_some_and(|kept| kept.expose() == given.expose());
    Ok(is_new.then(|| shown_signing_secret(given).expose().to_owned()))
}

/// Refuses a request while a replica of an older version is alive that would misread its rows: without
/// knowing sinks it would send the changes to the endpoint of the app. `knows` says what that version lacks,
/// as in "no sinks".
///
/// # Errors
/// 409 that names the replica, and when the database does not answer.
pub(in crate::http) async fn refuse_beside_older(front: &Front, knows: &str) -> Result<(), Problem> {
    let (own, replicas) =
        front.handle.replicas().await.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let lives = 2 * front.settings.database.lease;
    let alive: Vec<ReplicaSeen> =
        replicas.into_iter().filter(|seen| seen.replica.id != own && seen.seen <= lives).collect();
    match older(&alive, env!("CARGO_PKG_VERSION")) {
        None => Ok(()),
        Some(replica) => Err(Problem::new(Kind::CONFLICT).with_detail(format!(
            "the replica {} is of version {}, which knows {knows}: stop it first",
            replica.replica.name, replica.replica.version
        ))),
    }
}

/// The first replica of an older version than this one.
fn older<'r>(replicas: &'r [ReplicaSeen], version: &str) -> Option<&'r ReplicaSeen> {
    let parts = |text: &str| -> Vec<u64> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    replicas.iter().find(|seen| parts(&seen.replica.version) < parts(version))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_actors::{ports::Replica, time::Timestamp};
    use tidings_entity::{id::ReplicaId, kind::ReplicaRole};
    use ulid::Ulid;

    use super::*;

    fn seen(version: &str) -> ReplicaSeen {
        ReplicaSeen {
            replica: Replica {
                id: ReplicaId::new(Ulid::from_parts(1, 1)),
                name: format!("host of {version}"),
                version: version.into(),
                role: ReplicaRole::All,
                works: true,
                address: None,
                started_at: Timestamp(0),
            },
            shards: 0,
            seen: Duration::ZERO,
            lag: Duration::ZERO,
        }
    }

    #[test]
    fn only_a_replica_of_a_version_before_keeps_sinks_out() {
        for (versions, found) in [
            (&["0.2.0"][..], None),
            (&["0.2.0", "0.2.1", "0.10.0", "1.0.0"], None),
            (&["0.2.0", "0.1.9"], Some("0.1.9")),
            (&["0.2.0-rc.1"], None),
            (&["nonsense"], Some("nonsense")),
        ] {
            let all: Vec<ReplicaSeen> = versions.iter().map(|version| seen(version)).collect();
            let older = older(&all, "0.2.0").map(|seen| seen.replica.version.as_str());
            assert_eq!(older, found, "{versions:?}");
        }
    }
}
