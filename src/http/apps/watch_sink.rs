//! The sink that one watch has for itself, beside that of its app: `sink` in the bodies of repositories.
//!
//! Its fields are those of an app (`base_url`, `delivery`, `endpoint_auth`, `endpoint_tls`) under shorter
//! names, so they are read by the same functions, with the same rules. What bounds the app as a whole (rate,
//! attempts at once) is not a matter of one sink.

use serde::Serialize;
use serde_json::{Map, Value};
use tidings_actors::{
    ports::{
        App, BatchSettings, BreakerRow, DeliverySettings, EndpointAccess, NewSink, OwnSink, ReplicaSeen,
        Watch,
    },
    sink::{Outlet, SinkAddress},
};
use tidings_entity::{
    id::SinkId,
    kind::{PayloadFormat, SinkKind},
};
use utoipa::ToSchema;

use super::{
    access, delivery::read_delivery, endpoint::EndpointShown, receiver::read_base_url, streams, test_delivery,
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
/// Fields of the sink of a subscription.
const OF_SUBSCRIPTIONS: [&str; 9] =
    ["kind", "url", "headers", "auth", "tls", "format", "retry_policy", "retry_base_ms", "retry_cap_ms"];
/// Most characters of a `watch_name`.
const ALIAS_MAX: usize = 40;

/// Where the changes of one repository go, where that is not the endpoint of the app.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
pub(in crate::http) struct SinkWish {
    /// `endpoint` (requests to `url`), `stream` (messages of the NATS server at `url`) or `pull` (changes
    /// are asked for with `GET /api/repositories/{id}/pending`).
    kind: String,
    /// Where changes are sent; not with `pull`.
    #[schema(min_length = 1, max_length = 2048)]
    url: Option<String>,
    /// Header fields that go with each request, as in `delivery.headers` of an app.
    headers: Option<std::collections::BTreeMap<String, Option<String>>>,
    /// Credentials of requests, as in `endpoint_auth` of an app.
    #[schema(value_type = Option<Object>)]
    auth: Option<Value>,
    /// Certificates of requests, as in `endpoint_tls` of an app.
    #[schema(value_type = Option<Object>)]
    tls: Option<Value>,
    /// `docora` or `cloudevents`; missing: what its kind begins with.
    format: Option<String>,
    /// `strict` (missing) or `phased`.
    order: Option<String>,
    /// As in `delivery` of an app.
    max_in_flight: Option<u32>,
    /// As in `delivery` of an app.
    #[schema(value_type = Option<Object>)]
    batch: Option<Value>,
    /// As in `delivery` of an app.
    retry_policy: Option<String>,
    /// As in `delivery` of an app.
    retry_base_ms: Option<u64>,
    /// As in `delivery` of an app.
    retry_cap_ms: Option<u64>,
    /// As in `delivery` of an app.
    retry_window_ms: Option<u64>,
    /// Wants `/synced` after each round.
    synced: Option<bool>,
    /// Wants `/resync` before each resync.
    resync: Option<bool>,
    /// Wants `/sync_recovered`.
    sync_recovered: Option<bool>,
}

/// The sink that a repository has for itself.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct SinkShown {
    /// Its id: that of its breaker.
    sink_id: String,
    /// `endpoint`, `stream` or `pull`.
    kind: &'static str,
    /// Where changes are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// `docora` or `cloudevents`.
    format: &'static str,
    /// `strict` or `phased`.
    order: &'static str,
    max_in_flight: u32,
    /// Many changes in one request; null: one by one.
    #[schema(value_type = Option<Object>)]
    batch: Option<BatchSettings>,
    /// Header fields, credentials or certificates of the app's choice go with its requests.
    has_access: bool,
    /// Why it is not served, where it is not. Naming `sink` in a change serves it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<String>,
    /// How it does. Missing where nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointShown>,
    /// The key that was made for it just now, in the form of Standard Webhooks; never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) signing_secret: Option<String>,
}

impl SinkShown {
    /// The sink of a watch, where it has one for itself.
    pub(in crate::http) fn of(watch: &Watch, breakers: &[BreakerRow]) -> Option<Self> {
        let sink = watch.sink.as_ref()?;
        let address = &sink.address;
        let is_sent_to = matches!(address, SinkAddress::Endpoint(_) | SinkAddress::Stream(_));
        Some(Self {
            sink_id: sink.id.to_string(),
            kind: address.kind().as_str(),
            url: address.base_url().filter(|_| is_sent_to).map(str::to_owned),
            format: sink.delivery.format.as_str(),
            order: sink.delivery.order.as_str(),
            max_in_flight: sink.delivery.max_in_flight,
            batch: sink.delivery.batch,
            has_access: sink.has_access,
            disabled: sink.disabled.clone(),
            endpoint: EndpointShown::of(&watch.sink_key(), address, breakers),
            signing_secret: None,
        })
    }
}

/// Reads `sink`: `None` where it is missing, `Some(None)` for the sink of the app. What is missing in it
/// stays as it is `now`.
pub(in crate::http) fn read_sink(
    front: &Front,
    fields: &mut Fields,
    now: Option<&OwnSink>,
) -> Option<Option<NewSink>> {
    if fields.null("sink") {
        return Some(None);
    }
    let wish = fields.object::<Map<String, Value>>("sink")?;
    read_wish(front, fields, wish, now).map(Some)
}

/// Reads the sink of a subscription: it is sent one entry at a time, so what says how changes go does not
/// apply. The address alone may say the kind.
pub(in crate::http) fn read_subscription_sink(
    front: &Front,
    fields: &mut Fields,
    now: Option<&OwnSink>,
) -> Option<NewSink> {
    let mut wish = fields.object::<Map<String, Value>>("sink")?;
    let foreign: Vec<String> =
        wish.keys().filter(|name| !OF_SUBSCRIPTIONS.contains(&name.as_str())).cloned().collect();
    for name in foreign {
        wish.remove(&name);
        fields.refuse(&format!("sink/{name}"), "is no field of the sink of a subscription");
    }
    if wish.get("kind").is_some_and(|kind| kind == SinkKind::Pull.as_str()) {
        fields.refuse("sink/kind", "must be one of: endpoint, stream");
        return None;
    }
    if let (None, Some(url)) = (wish.get("kind"), wish.get("url").and_then(Value::as_str)) {
        let kind = SinkAddress::of(Some(url.to_owned())).kind();
        wish.insert("kind".to_owned(), Value::String(kind.as_str().to_owned()));
    }
    read_wish(front, fields, wish, now)
}

fn read_wish(
    front: &Front,
    fields: &mut Fields,
    mut wish: Map<String, Value>,
    now: Option<&OwnSink>,
) -> Option<NewSink> {
    let kind = read_kind(fields, &mut wish, now)?;
    for name in OF_APPS.iter().filter(|name| wish.contains_key(**name)) {
        fields.refuse(&format!("sink/{name}"), "is chosen for the app as a whole (PATCH /api/app)");
    }
    let now = now.filter(|now| now.address.kind() == kind);
    let mut inner = Map::new();
    for (short, long) in [("url", "base_url"), ("auth", "endpoint_auth"), ("tls", "endpoint_tls")] {
        inner.extend(wish.remove(short).map(|value| (long.to_owned(), value)));
    }
    inner.insert("delivery".to_owned(), Value::Object(wish));
    let mut inner = Fields::of_object(inner);
    let sink = read_fields(front, &mut inner, kind, now);
    fields.adopt(inner, |name| {
        let (first, rest) = name.split_once('/').map_or((name, None), |(first, rest)| (first, Some(rest)));
        match (first, rest) {
            ("delivery", Some(rest)) => format!("sink/{rest}"),
            ("delivery", None) => "sink".to_owned(),
            ("base_url", _) => "sink/url".to_owned(),
            ("endpoint_auth", _) => "sink/auth".to_owned(),
            ("endpoint_tls", _) => "sink/tls".to_owned(),
            _ => format!("sink/{name}"),
        }
    });
    Some(sink)
}

fn read_kind(fields: &mut Fields, wish: &mut Map<String, Value>, now: Option<&OwnSink>) -> Option<SinkKind> {
    const KINDS: [SinkKind; 3] = [SinkKind::Endpoint, SinkKind::Stream, SinkKind::Pull];
    let Some(word) = wish.remove("kind") else {
        if now.is_none() {
            fields.refuse("sink/kind", "is required");
        }
        return now.map(|now| now.address.kind());
    };
    let kind = KINDS.into_iter().find(|kind| word.as_str() == Some(kind.as_str()));
    if kind.is_none() {
        fields.refuse("sink/kind", "must be one of: endpoint, stream, pull");
    }
    kind
}

fn read_fields(front: &Front, inner: &mut Fields, kind: SinkKind, now: Option<&OwnSink>) -> NewSink {
    let address = read_address(front, inner, kind, now);
    let mut begin = now.map_or_else(DeliverySettings::default, |now| now.delivery.clone());
    if now.is_none() && kind == SinkKind::Stream {
        begin.format = PayloadFormat::Cloudevents;
    }
    let (delivery, headers) = read_delivery(inner, (None, &address), &begin);
    let delivery = delivery.unwrap_or(begin);
    // What goes with requests follows to no other origin by itself.
    let stays = now.is_some_and(|now| match (now.address.base_url(), address.base_url()) {
        (Some(one), Some(other)) => test_delivery::is_same_origin(one, other),
        (one, other) => one == other,
    });
    let kept = now.filter(|_| stays).map_or_else(EndpointAccess::default, |now| (*now.access).clone());
    let patch = access::read(front, inner, headers, &kept, address.base_url());
    let access = kept.changed(&patch).unwrap_or(kept);
    match kind {
        SinkKind::Stream => streams::check(inner, &delivery, &access),
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
            inner.refuse("base_url", "is for kinds that changes are sent to");
            inner.text("base_url", 0..=usize::MAX);
        }
        return SinkAddress::Pull;
    }
    match (read_base_url(front, inner), now) {
        (Some(address), _) => {
            if address.kind() != kind {
                inner.refuse("base_url", format!("is no address of the kind {kind}"));
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

/// Reads `watch_name`; empty where it is missing.
pub(in crate::http) fn read_alias(fields: &mut Fields) -> String {
    let alias = fields.text("watch_name", 0..=ALIAS_MAX).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !alias.bytes().all(is_plain) {
        fields.refuse("watch_name", "must hold small letters, digits and - only");
    }
    alias
}

/// The key that a sink was given just now, to be shown once.
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
    // A sink that had a key keeps it.
    let is_new = kept.is_some_and(|kept| kept.expose() == given.expose());
    Ok(is_new.then(|| shown_signing_secret(given).expose().to_owned()))
}

/// Refuses what a replica of an older version would misread, while one lives: without sinks it would send
/// the changes to the endpoint of the app. `knows` is what that version knows not, as in "no sinks".
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

/// A replica of a version before this one.
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
