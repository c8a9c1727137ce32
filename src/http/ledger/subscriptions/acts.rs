//! Operations on a subscription: pause, resume, rotate the key, send a message now; and the list of its
//! attempts.

use std::{str::FromStr, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    ports::{App, Subscription, SubscriptionAttempt, SubscriptionMessage, SubscriptionPatch},
    subscriber::course,
    time::Timestamp,
};
use tidings_entity::kind::SinkKind;
use utoipa::ToSchema;

use super::{SubscriptionShown, changed, named, next_of, own_sink, store_failed};
use crate::{
    http::{
        apps::test_delivery::{TestOutcome, Tests, send_once},
        bodies::{
            body::body,
            fields::Fields,
            moment::iso,
            paging::{Page, Query, page},
            problem::{Kind, Problem},
        },
        deliveries::attempt::AttemptShown,
        door::{
            request::{Request, json},
            route::{Access, Answer, Permission, Route, route, route_with},
        },
        front::Front,
    },
    secrets::{generate_signing_key, shown_signing_secret},
};

/// How long the previous key signs beside a new one, unless the request says otherwise: a day.
const OVERLAP_SECONDS: u64 = 86_400;
/// The longest overlap: thirty days.
const OVERLAP_SECONDS_MAX: u64 = 30 * 86_400;

/// The routes of this file.
pub(super) fn routes(tests: &Arc<Tests>) -> Vec<Route> {
    vec![
        route::<__path_pause, _, _>(Access::App(Permission::SubscriptionsPause), pause),
        route::<__path_resume, _, _>(Access::App(Permission::SubscriptionsPause), resume),
        route::<__path_rotate_key, _, _>(Access::App(Permission::SubscriptionsRotateKey), rotate_key),
        route_with::<__path_test, _, _, _>(Access::App(Permission::SubscriptionsTest), tests, test),
        route_with::<__path_send, _, _, _>(Access::App(Permission::SubscriptionsSend), tests, send),
        route::<__path_attempts, _, _>(Access::App(Permission::SubscriptionsRead), attempts),
    ]
}

/// Pauses a subscription: nothing is sent until it is resumed. Then all entries written in the meantime are
/// sent.
#[utoipa::path(post, path = "/api/subscriptions/{id}/pause", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = SubscriptionShown)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let patch = SubscriptionPatch { is_paused: Some(true), ..SubscriptionPatch::default() };
    Ok(json(StatusCode::OK, &changed(&front, &request, &patch).await?))
}

/// Resumes a subscription that is paused or blocked, or whose sink is disabled. Its next message is tried at
/// once.
#[utoipa::path(post, path = "/api/subscriptions/{id}/resume", tag = "subscriptions",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = SubscriptionShown),
        (status = 409, description = "The subscription has expired. Change `expires_at` first.")
    ))]
async fn resume(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let patch = SubscriptionPatch { is_paused: Some(false), ..SubscriptionPatch::default() };
    let shown = changed(&front, &request, &patch).await?;
    front.handle.reset_breaker(&shown.breaker()).await;
    Ok(json(StatusCode::OK, &shown))
}

body! {
    /// Replaces a signing key.
    struct KeyRotation {
        /// Seconds for which the previous key signs beside the new one, 0 to 2,592,000. Default 86,400.
        #[schema(maximum = 2_592_000)]
        overlap_seconds: Option<u64>,
    }
}

/// Replaces the signing key of the subscription's sink. The answer shows the new key once. The previous key
/// also signs for `overlap_seconds`; an older one no longer signs.
#[utoipa::path(post, path = "/api/subscriptions/{id}/rotate-key", tag = "subscriptions",
    params(("id" = String, Path)), request_body = Option<KeyRotation>,
    responses(
        (status = 200, body = SubscriptionShown),
        (status = 409, description = "The sink sends mails, which are not signed.")
    ))]
async fn rotate_key(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<KeyRotation>(&request.body)?;
    let overlap = fields.number_within("overlap_seconds", 0..=OVERLAP_SECONDS_MAX).unwrap_or(OVERLAP_SECONDS);
    fields.finish()?;
    if named(&front, &request).await?.sink.address.kind() == SinkKind::Mail {
        return Err(
            Problem::new(Kind::CONFLICT).with_detail("mails are not signed: there is no key to rotate")
        );
    }
    let key = generate_signing_key(front.random.as_ref());
    let until = front.clock.now().after(Duration::from_secs(overlap));
    let patch = SubscriptionPatch { key: Some((key.clone(), until)), ..SubscriptionPatch::default() };
    let mut shown = changed(&front, &request, &patch).await?;
    shown.sink.signing_secret = Some(shown_signing_secret(&key).expose().to_owned());
    Ok(json(StatusCode::OK, &shown))
}

/// The app as it is served at the sink of a subscription, whether or not anything is sent there now.
async fn served(front: &Front, request: &Request, subscription: &Subscription) -> Result<App, Problem> {
    Ok(request.app()?.at(&own_sink(front, subscription).await?))
}

/// Sends a signed test message to the sink and shows the answer of the sink. The message is tried once, for
/// at most 10 seconds. The test does not count for the breaker; it counts among the app's 6 test deliveries
/// per minute.
#[utoipa::path(post, path = "/api/subscriptions/{id}/test", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = TestOutcome)))]
async fn test(front: Arc<Front>, tests: Arc<Tests>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let found = named(&front, &request).await?;
    let app = served(&front, &request, &found).await?;
    let mut salt = [0; 16];
    front.random.fill(&mut salt);
    let message = SubscriptionMessage::of_test(&found, &salt, front.clock.now());
    let (outcome, _) = send_once(&front, Some(&tests), &app, message).await?;
    Ok(json(StatusCode::OK, &outcome))
}

body! {
    /// Selects the entry to send.
    struct SendRequest {
        /// Number of the entry in the ledger.
        #[schema(minimum = 1)]
        number: u64,
    }
}

/// Sends one entry to the sink at once, for example a skipped one, and shows the answer. The message has the
/// id of the entry, is tried once for at most 10 seconds and is listed among the attempts; the position does
/// not move. A mail counts among the app's 6 test deliveries per minute. Entries about the sending of entries
/// cannot be sent.
#[utoipa::path(post, path = "/api/subscriptions/{id}/send", tag = "subscriptions",
    params(("id" = String, Path)), request_body = SendRequest,
    responses((status = 200, body = TestOutcome)))]
async fn send(front: Arc<Front>, tests: Arc<Tests>, request: Request) -> Answer {
    let mut fields = Fields::of_body::<SendRequest>(&request.body)?;
    if !fields.has("number") {
        fields.refuse("number", "is required");
    }
    let number = fields.number("number").unwrap_or_default();
    fields.finish()?;
    let found = named(&front, &request).await?;
    let app = served(&front, &request, &found).await?;
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let entry = front.subscriptions.sendable_entry(&found.app, number).await.map_err(store_failed)?;
    let entry = entry.ok_or_else(|| {
        Problem::new(Kind::NO_ENTRY).with_detail(format!(
            "the ledger has no entry {number} that can be sent; entries of subscription.* and mail.* go to \
             no subscription"
        ))
    })?;
    let entry_at = entry.at;
    let message = SubscriptionMessage::of_entry(&found, entry);
    let id = message.id.as_str().to_owned();
    // A caller who may send mails must not flood recipients with them.
    let counts = (app.receives_at.kind() == SinkKind::Mail).then_some(&*tests);
    let (shown, outcome) = send_once(&front, counts, &app, message).await?;
    let attempt = SubscriptionAttempt {
        message: id,
        entry: number,
        entry_at,
        number: 0,
        is_of_message: !outcome.is_success() && !course::is_endpoint_failure(&outcome),
        at: front.clock.now(),
        next_at: None,
        outcome,
    };
    let recorded = front.subscriptions.record_subscription_attempt(&found.id, &attempt).await;
    recorded.map_err(store_failed)?;
    Ok(json(StatusCode::OK, &shown))
}

/// One attempt to send a message of a subscription.
#[derive(Serialize, ToSchema)]
struct SubscriptionAttemptShown {
    /// Id of the message, which is the id of its entry.
    event_id: String,
    /// Number of the entry. For the message of a gap: number of the last missing entry.
    entry: i64,
    #[serde(flatten)]
    attempt: AttemptShown,
    /// When the message is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

/// Where a page of attempts continues.
struct Mark(Timestamp, i64, u32);

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let at = Timestamp(word()?.parse().map_err(drop)?);
        Ok(Self(at, word()?.parse().map_err(drop)?, word()?.parse().map_err(drop)?))
    }
}

/// Lists the attempts of a subscription, newest first. Attempts for its last 1,000 entries are stored, each
/// for at most `delivery.history_days`.
#[utoipa::path(get, path = "/api/subscriptions/{id}/attempts", tag = "subscriptions",
    params(
        ("id" = String, Path),
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("number" = Option<u64>, Query, description = "Only attempts for the ledger entry with this number."),
    ),
    responses((status = 200, body = Page<SubscriptionAttemptShown>)))]
async fn attempts(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    let query = Query::of(&request.query, &["limit", "cursor", "number"])?;
    let limit = query.limit()?;
    let list = format!("attempts of {}", found.id);
    let before: Option<Mark> = query.after(&list)?;
    let entry = query.get("number").map(str::parse::<i64>).transpose();
    let entry = entry.map_err(|_| Problem::malformed("number is the number of an entry"))?;
    let before = before.map(|Mark(at, entry, number)| (at, entry, number));
    let tries = front.subscriptions.subscription_attempts(&found.id, entry, before, limit + 1).await;
    let tries = tries.map_err(store_failed)?;
    let breakers = front.store.breakers().await.map_err(store_failed)?;
    let planned = found.next_at;
    let next = next_of(&found, &breakers, front.clock.now());
    let mark = |one: &SubscriptionAttempt| format!("{} {} {}", one.at.0, one.entry, one.number);
    let shown = |one: &SubscriptionAttempt| SubscriptionAttemptShown {
        event_id: one.message.clone(),
        entry: one.entry,
        attempt: AttemptShown::of_subscription(one),
        // Only the last attempt of the next message is followed by another one.
        next_attempt_at: (if one.next_at == planned { next } else { one.next_at }).map(iso),
    };
    Ok(json(StatusCode::OK, &page(tries, limit, &list, mark, shown)))
}
