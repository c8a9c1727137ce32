//! Subscriptions: readers of the ledger of an app, each with a sink of its own. They are made, changed, shown
//! and removed here; what they are asked to do is in `acts`.

mod acts;
mod wish;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    circuit_breaker::endpoint_key,
    filter::sets::SUBSCRIPTIONS,
    ports::{
        BreakerRow, NewSubscription, OwnSink, ReadFrom, SinkKey, StoreError, Subscription, SubscriptionName,
        SubscriptionPatch, sink_of,
    },
    time::Timestamp,
};
use tidings_entity::id::SubscriptionId;
use utoipa::ToSchema;
use warp::reply::Response;

use self::wish::{SubscriptionChange, SubscriptionWish};
use super::{
    apps::{endpoint::EndpointShown, test_delivery::Tests, watch_sink::refuse_beside_older},
    bodies::{
        filters,
        moment::iso,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route},
    },
    front::Front,
};
use crate::secrets::shown_signing_secret;

/// The routes of this folder.
pub(super) fn routes(tests: &Arc<Tests>) -> Vec<Route> {
    let own = vec![
        route::<__path_list, _, _>(Access::App, list),
        route::<__path_create, _, _>(Access::App, create),
        route::<__path_show, _, _>(Access::App, show),
        route::<__path_change, _, _>(Access::App, change),
        route::<__path_remove, _, _>(Access::App, remove),
    ];
    [own, acts::routes(tests)].concat()
}

/// A subscription.
#[derive(Serialize, ToSchema)]
struct SubscriptionShown {
    subscription_id: String,
    name: String,
    /// Which entries it is sent (docs/filters.md, the fields of the ledger); empty: all.
    filter: String,
    /// `active`, `paused`, `blocked` (its sink fails; it is tried again now and then) or `expired`.
    state: &'static str,
    /// Why it is blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The number of the last entry that it is done with: sent, skipped, or not meant by the filter.
    position: i64,
    /// The number of the newest entry of the ledger.
    last: i64,
    /// Failed tries of the next message.
    tries: u32,
    /// When the next message is tried again, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    created_at: String,
    sink: SubscriptionSinkShown,
}

/// Where the entries of a subscription go.
#[derive(Serialize, ToSchema)]
struct SubscriptionSinkShown {
    /// Its id: that of its breaker.
    sink_id: String,
    /// `endpoint` or `stream`.
    kind: &'static str,
    url: String,
    /// `docora` or `cloudevents`.
    format: &'static str,
    /// Header fields, credentials or certificates of the app's choice go with its requests.
    has_access: bool,
    /// Why nothing is sent there, where nothing is. Resuming the subscription, or naming `sink` in a change,
    /// sends there again.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<String>,
    /// How it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointShown>,
    /// The key that was made for it just now, in the form of Standard Webhooks; never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl SubscriptionShown {
    fn of(subscription: &Subscription, breakers: &[BreakerRow], now: Timestamp) -> Self {
        let Subscription { sink, app, .. } = subscription;
        let key = SinkKey { app: app.clone(), sink: Some(sink.id.clone()) };
        Self {
            subscription_id: subscription.id.to_string(),
            name: subscription.name.clone(),
            filter: subscription.filter.clone(),
            state: subscription.state_at(now).as_str(),
            reason: subscription.reason.clone(),
            position: subscription.position,
            last: subscription.last,
            tries: subscription.tries,
            next_attempt_at: subscription.next_at.map(iso),
            expires_at: subscription.expires_at.map(iso),
            created_at: iso(subscription.created_at),
            sink: SubscriptionSinkShown {
                sink_id: sink.id.to_string(),
                kind: sink.address.kind().as_str(),
                url: sink.address.base_url().unwrap_or_default().to_owned(),
                format: sink.delivery.format.as_str(),
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

fn store_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_SUBSCRIPTION)
}

/// What stands in a path for a subscription: its id, or its name.
fn name(text: &str) -> SubscriptionName {
    text.parse().map_or_else(|_| SubscriptionName::Name(text.to_owned()), SubscriptionName::Id)
}

/// The subscription that the path names, if the caller owns it.
async fn named(front: &Front, request: &Request) -> Result<Subscription, Problem> {
    let text: String = request.id(Kind::NO_SUBSCRIPTION)?;
    front.subscriptions.subscription(&request.app()?.id, &name(&text)).await.map_err(store_failed)
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

/// Changes the subscription that the path names; how it is then.
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

/// The subscriptions of this app, oldest first.
#[utoipa::path(get, path = "/api/subscriptions", tag = "subscriptions",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "only what this filter means; see docs/filters.md"),
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

/// Makes a subscription: the entries of the ledger that its filter means are sent to its sink, in their
/// order, each until the sink took or refused it. An app has at most 100.
#[utoipa::path(post, path = "/api/subscriptions", tag = "subscriptions", request_body = SubscriptionWish,
    responses(
        (status = 201, body = SubscriptionShown),
        (status = 409, description = "the name is taken, the app has 100 subscriptions, or a replica of an \
            older version is alive")
    ))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let now = front.clock.now();
    let id = SubscriptionId::new(front.random.ulid(now));
    let wish = wish::read_new(&front, &request.body, &id)?;
    refuse_beside_older(&front, "no subscriptions").await?;
    let secret = wish.sink.signing_key.as_ref().map(|key| shown_signing_secret(key).expose().to_owned());
    let new = NewSubscription {
        id,
        app,
        name: wish.name,
        filter: wish.filter.0,
        reads_rounds: wish.filter.1,
        sink: wish.sink,
        start: wish.from.map_or(ReadFrom::Now, ReadFrom::Number),
        expires_at: wish.expires_at,
        created_at: now,
    };
    let made = front.subscriptions.create_subscription(&new).await.map_err(store_failed)?;
    front.handle.subscription_changed(&made.id).await;
    let mut made = shown(&front, &made).await?;
    made.sink.signing_secret = secret;
    Ok(json(StatusCode::CREATED, &made))
}

/// One subscription, by its id or its name.
#[utoipa::path(get, path = "/api/subscriptions/{id}", tag = "subscriptions", params(("id" = String, Path)),
    responses((status = 200, body = SubscriptionShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    Ok(json(StatusCode::OK, &shown(&front, &found).await?))
}

/// Changes a subscription; what is not named stays. Its signing key stays, too. With `sink` its next message
/// is tried at once.
#[utoipa::path(patch, path = "/api/subscriptions/{id}", tag = "subscriptions", params(("id" = String, Path)),
    request_body = SubscriptionChange,
    responses(
        (status = 200, body = SubscriptionShown),
        (status = 409, description = "the name is taken")
    ))]
async fn change(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    let sink = own_sink(&front, &found).await?;
    let patch = wish::read_change(&front, &request.body, &found, &sink)?;
    Ok(json(StatusCode::OK, &changed(&front, &request, &patch).await?))
}

/// Removes a subscription with its sink and what is known of its tries.
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
