//! Subscriptions: readers of the ledger of an app, each with its own sink. This file creates, changes, shows
//! and removes them; `acts` has their other operations.

mod acts;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    circuit_breaker::endpoint_key,
    model::filter::sets::SUBSCRIPTIONS,
    ports::{
        BreakerRow, NewSubscription, OwnSink, ReadFrom, SinkKey, StoreError, Subscription, SubscriptionName,
        SubscriptionPatch, sink_of,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{SinkId, SubscriptionId},
    kind::{BreakerKind, SubscriptionState},
};
use utoipa::ToSchema;
use warp::reply::Response;

use self::request::{SubscriptionChange, SubscriptionRequest};
use crate::{
    http::{
        apps::{endpoint::EndpointShown, test_delivery::Tests, watch_sink::refuse_beside_older},
        bodies::{
            filters,
            moment::iso,
            paging::{Page, Query, page},
            problem::{Kind, Problem},
        },
        door::{
            request::{Request, json},
            route::{Access, Answer, Permission, Route, route},
        },
        front::Front,
        repositories::standing::open_breaker,
    },
    secrets::shown_signing_secret,
};

/// The state of a subscription that is active or blocked, and whose sink is disabled.
const DISABLED: &str = "disabled";
/// Most characters of an unknown name that a problem repeats.
const NAME_SHOWN: usize = 64;

/// The routes of this folder.
pub(in crate::http) fn routes(tests: &Arc<Tests>) -> Vec<Route> {
    let own = vec![
        route::<__path_list, _, _>(Access::App(Permission::SubscriptionsRead), list),
        route::<__path_create, _, _>(Access::App(Permission::SubscriptionsCreate), create),
        route::<__path_show, _, _>(Access::App(Permission::SubscriptionsRead), show),
        route::<__path_change, _, _>(Access::App(Permission::SubscriptionsUpdate), change),
        route::<__path_remove, _, _>(Access::App(Permission::SubscriptionsRemove), remove),
    ];
    [own, acts::routes(tests)].concat()
}

/// A subscription to the ledger of an app.
#[derive(Serialize, ToSchema)]
struct SubscriptionShown {
    subscription_id: String,
    name: String,
    /// The filter that selects entries (docs/filters.md, fields of the ledger). Empty: all entries.
    filter: String,
    /// `active`, `paused`, `blocked` (the sink fails; retries continue), `disabled` (the sink asked for no
    /// more messages; a resume tries again) or `expired`.
    state: &'static str,
    /// Why the subscription is blocked or disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of the last settled entry: sent, skipped, or not selected by the filter.
    position: i64,
    /// Number of the newest entry of the ledger; for a callback, of the newest entry for its address.
    last: i64,
    /// Number of failed attempts of the next message.
    tries: u32,
    /// When the next message is retried. Only after a failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    /// When the next mail may be sent. A wait follows each mail (`mail.digest_interval`).
    #[serde(skip_serializing_if = "Option::is_none")]
    next_mail_at: Option<String>,
    /// When the subscription expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    created_at: String,
    /// Whether it is the callback of tasks, which their `webhook` made: it is sent the ends of these tasks
    /// alone. Missing: a person made it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    callback: bool,
    sink: SubscriptionSinkShown,
}

/// The sink of a subscription.
#[derive(Serialize, ToSchema)]
struct SubscriptionSinkShown {
    /// Id of the sink, `snk_...`. Its breaker has the same id.
    sink_id: String,
    /// Kind of the sink: `endpoint`, `stream` or `mail`.
    kind: &'static str,
    /// Address that messages are sent to. For mail: `mailto:` and the recipients.
    url: String,
    /// Recipients of mails. Missing: the sink is not mail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<String>,
    /// Format of the bodies: `docora` or `cloudevents`.
    format: &'static str,
    /// Whether header fields, credentials or certificates of the app are used for requests to the sink.
    has_access: bool,
    /// Why nothing is sent to the sink. Missing: the sink is served. A resume of the subscription, or a
    /// change that names `sink`, enables the sink again.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<String>,
    /// State of the sink's circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointShown>,
    /// The signing key that this request made for the sink, in the format of Standard Webhooks. Never shown
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl SubscriptionShown {
    fn of(subscription: &Subscription, breakers: &[BreakerRow], now: Timestamp) -> Self {
        let Subscription { sink, app, .. } = subscription;
        let key = SinkKey { app: app.clone(), sink: Some(sink.id.clone()) };
        let state = subscription.state_at(now);
        let is_sending = matches!(state, SubscriptionState::Active | SubscriptionState::Blocked);
        let disabled = sink.disabled.clone().filter(|_| is_sending);
        Self {
            subscription_id: subscription.id.to_string(),
            name: subscription.name.clone(),
            filter: subscription.filter.clone(),
            state: if disabled.is_some() { DISABLED } else { state.as_str() },
            reason: disabled.or_else(|| subscription.reason.clone()),
            position: subscription.position,
            last: subscription.last,
            tries: subscription.tries,
            next_attempt_at: next_of(subscription, breakers, now).map(iso),
            next_mail_at: subscription.quiet_until.filter(|until| *until > now).map(iso),
            expires_at: subscription.expires_at.map(iso),
            created_at: iso(subscription.created_at),
            callback: subscription.callback.is_some(),
            sink: SubscriptionSinkShown {
                sink_id: sink.id.to_string(),
                kind: sink.address.kind().as_str(),
                url: sink.address.base_url().unwrap_or_default().to_owned(),
                to: sink.address.recipients().into_iter().map(str::to_owned).collect(),
                format: sink.delivery.format_at(&sink.address).as_str(),
                has_access: sink.has_access,
                disabled: sink.disabled.clone(),
                endpoint: EndpointShown::of(&key, &sink.address, breakers),
                signing_secret: None,
            },
        }
    }
}

impl SubscriptionShown {
    /// The key of the breaker of its sink.
    fn breaker(&self) -> String {
        endpoint_key(&self.sink.sink_id)
    }
}

/// When the next message of a subscription is sent, if it failed before. A mail that the mail server may have
/// waits for its own moment, also while the breaker is open.
fn next_of(subscription: &Subscription, breakers: &[BreakerRow], now: Timestamp) -> Option<Timestamp> {
    let breakers: &[BreakerRow] = if subscription.mail.is_some() { &[] } else { breakers };
    next_try(subscription.next_at, &subscription.sink.id, breakers, now)
}

/// When a message that failed is tried next: with the next probe while the breaker of its sink is open, and
/// otherwise as it was planned. A probe that is due already is under way, or no process waits for it since a
/// restart.
fn next_try(
    planned: Option<Timestamp>,
    sink: &SinkId,
    breakers: &[BreakerRow],
    now: Timestamp,
) -> Option<Timestamp> {
    let open = open_breaker(breakers, BreakerKind::Endpoint, sink.as_str());
    let probe = open.and_then(|open| open.probe_at).filter(|at| *at > now);
    planned.map(|planned| probe.unwrap_or(planned))
}

fn store_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_SUBSCRIPTION)
}

/// The subscription that a part of a path names: by its id, or by its name.
fn name(text: &str) -> SubscriptionName {
    text.parse().map_or_else(|_| SubscriptionName::Name(text.to_owned()), SubscriptionName::Id)
}

/// The subscription that the path names, if the caller owns it.
async fn named(front: &Front, request: &Request) -> Result<Subscription, Problem> {
    let text: String = request.id(Kind::NO_SUBSCRIPTION)?;
    let found = front.subscriptions.subscription(&request.app()?.id, &name(&text)).await;
    found.map_err(|error| match error {
        StoreError::NotFound => Problem::new(Kind::NO_SUBSCRIPTION).with_detail(no_such(&text)),
        other => store_failed(other),
    })
}

/// Says that the app has nothing with this name or id.
pub(in crate::http) fn no_such(text: &str) -> String {
    let shown: String = text.chars().take(NAME_SHOWN).collect();
    format!("this app has none with the name or id {shown:?}")
}

/// The sink of a subscription as it is served.
async fn own_sink(front: &Front, subscription: &Subscription) -> Result<OwnSink, Problem> {
    let sink = front.store.sink(&subscription.app, &sink_of(&subscription.id)).await.map_err(store_failed)?;
    sink.ok_or_else(|| Problem::new(Kind::NO_SUBSCRIPTION))
}

/// The subscription as its app sees it now.
async fn shown(front: &Front, subscription: &Subscription) -> Result<SubscriptionShown, Problem> {
    let breakers = front.store.breakers().await.map_err(store_failed)?;
    Ok(SubscriptionShown::of(subscription, &breakers, front.clock.now()))
}

/// Changes the subscription in the path. Returns its new state.
async fn changed(
    front: &Front,
    request: &Request,
    patch: &SubscriptionPatch,
) -> Result<SubscriptionShown, Problem> {
    let found = named(front, request).await?;
    let next = front
        .subscriptions
        .change_subscription(&found.app, &found.id, patch, front.clock.now())
        .await
        .map_err(store_failed)?;
    front.handle.subscription_changed(&next.id).await;
    shown(front, &next).await
}

/// Lists the subscriptions of the app, oldest first.
#[utoipa::path(get, path = "/api/subscriptions", tag = "subscriptions",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
    ),
    responses((status = 200, body = Page<SubscriptionShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = &request.app()?.id;
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let (limit, now) = (query.limit()?, front.clock.now());
    let list = format!("subscriptions of {app}");
    let after: Option<SubscriptionId> = query.after(&list)?;
    let filter = filters::of_query(&query, &SUBSCRIPTIONS, now)?;
    let found = front.subscriptions.subscriptions(app, filter.as_ref(), after.as_ref(), limit + 1).await;
    let found = found.map_err(store_failed)?;
    let breakers = front.store.breakers().await.map_err(store_failed)?;
    let of = |subscription: &Subscription| SubscriptionShown::of(subscription, &breakers, now);
    Ok(json(StatusCode::OK, &page(found, limit, &list, |one| one.id.to_string(), of)))
}

/// Creates a subscription: the ledger entries that match its filter are sent to its sink in order, each until
/// the sink accepts or refuses it. An app has at most 100 subscriptions.
#[utoipa::path(post, path = "/api/subscriptions", tag = "subscriptions", request_body = SubscriptionRequest,
    responses(
        (status = 201, body = SubscriptionShown),
        (status = 409, description = "The name is taken, the app has 100 subscriptions already, or a replica \
            runs an older version.")
    ))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let now = front.clock.now();
    let id = SubscriptionId::new(front.random.ulid(now));
    let new = request::read_new(&front, &request.body, request.app()?, &id)?;
    refuse_beside_older(&front, "no subscriptions").await?;
    let secret = new.sink.signing_key.as_ref().map(|key| shown_signing_secret(key).expose().to_owned());
    let new = NewSubscription {
        id,
        app,
        name: new.name,
        filter: new.filter.0,
        reads_rounds: new.filter.1,
        sink: new.sink,
        start: new.from.map_or(ReadFrom::Now, ReadFrom::Number),
        expires_at: new.expires_at,
        created_at: now,
    };
    let made = front.subscriptions.create_subscription(&new).await.map_err(store_failed)?;
    front.handle.subscription_changed(&made.id).await;
    let mut made = shown(&front, &made).await?;
    made.sink.signing_secret = secret;
    Ok(json(StatusCode::CREATED, &made))
}

/// Shows the subscription with this id or name.
#[utoipa::path(get, path = "/api/subscriptions/{id}", tag = "subscriptions", params(("id" = String, Path)),
    responses((status = 200, body = SubscriptionShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    Ok(json(StatusCode::OK, &shown(&front, &found).await?))
}

/// Changes the given fields of a subscription. Its signing key stays the same. If `sink` is given, the next
/// message is tried at once.
#[utoipa::path(patch, path = "/api/subscriptions/{id}", tag = "subscriptions", params(("id" = String, Path)),
    request_body = SubscriptionChange,
    responses(
        (status = 200, body = SubscriptionShown),
        (status = 409, description = "The name is taken.")
    ))]
async fn change(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    let sink = own_sink(&front, &found).await?;
    let patch = request::read_change(&front, &request.body, request.app()?, &found, &sink)?;
    Ok(json(StatusCode::OK, &changed(&front, &request, &patch).await?))
}

/// Removes a subscription, its sink and the record of its attempts.
#[utoipa::path(delete, path = "/api/subscriptions/{id}", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 204)))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    front.subscriptions.remove_subscription(&found.app, &found.id).await.map_err(store_failed)?;
    front.handle.subscription_changed(&found.id).await;
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn a_message_behind_an_open_breaker_is_tried_with_the_next_probe() {
        let sink = SinkId::new(Ulid::from_parts(1, 1));
        let breaker = |probe_at: Option<i64>, is_open: bool| BreakerRow {
            kind: BreakerKind::Endpoint,
            id: sink.to_string(),
            failures: 5,
            opened_at: is_open.then_some(Timestamp(1)),
            probe_at: probe_at.map(Timestamp),
            last_error: "status 503".to_owned(),
        };
        let (now, planned) = (Timestamp(1_000), Some(Timestamp(300_000)));
        let next = |row: BreakerRow| next_try(planned, &sink, &[row], now);
        assert_eq!(next(breaker(Some(60_000), true)), Some(Timestamp(60_000)), "sooner than planned");
        assert_eq!(next(breaker(Some(900_000), true)), Some(Timestamp(900_000)), "nothing goes before");
        assert_eq!(next(breaker(Some(999), true)), planned, "the probe is under way");
        assert_eq!(next(breaker(None, false)), planned);
        let other = SinkId::new(Ulid::from_parts(1, 2));
        assert_eq!(next_try(planned, &other, &[breaker(Some(60_000), true)], now), planned);
        assert_eq!(next_try(None, &sink, &[breaker(Some(60_000), true)], now), None, "nothing failed");
    }
}
