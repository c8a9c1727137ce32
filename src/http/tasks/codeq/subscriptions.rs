//! Worker subscriptions: addresses that are told of work.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::codeq,
    ports::{WORKER_INTERVAL_DEFAULT, WORKER_TTL_DEFAULT, WorkerSubscription},
};
use tidings_entity::id::WorkerSubscriptionId;
use utoipa::ToSchema;

use super::{
    bodies::{Renewal, WorkerToSubscribe, address, invalid, read, read_optional, seconds},
    claims::commands,
    older, owner, texts,
};
use crate::http::{
    bodies::{
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    tasks::{
        creates::check_command,
        workers::{GROUP_MAX, INTERVAL_MAX, TTL, make, seen},
    },
};

/// The group of subscriptions with the mode `hash`, of which one is told in turn. Groups of clients have no
/// colon in their name.
const HASHED: &str = "codeq:hash";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let access = || Access::App(Permission::WorkersSubscribe);
    vec![route::<__path_create, _, _>(access(), create), route::<__path_heartbeat, _, _>(access(), heartbeat)]
}

/// A worker subscription that exists now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqSubscribed)]
struct SubscribedShown {
    /// Id of the subscription.
    subscription_id: String,
    /// When it ends, unless it is extended.
    expires_at: String,
}

impl SubscribedShown {
    fn of(one: &WorkerSubscription) -> Self {
        Self { subscription_id: one.id.to_string(), expires_at: iso(one.expires_at) }
    }
}

/// Makes a worker subscription.
#[utoipa::path(post, path = "/v1/codeq/workers/subscriptions", tag = "codeq",
    request_body = WorkerToSubscribe, responses((status = 200, body = SubscribedShown)))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let body: WorkerToSubscribe = read(&request.body)?;
    let made = async {
        let new = subscription(&front, &request, body).await?;
        make(&front, &new).await?;
        Ok(SubscribedShown::of(&new))
    };
    Ok(json(StatusCode::OK, &made.await.map_err(older)?))
}

/// Extends a worker subscription.
#[utoipa::path(post, path = "/v1/codeq/workers/subscriptions/{id}/heartbeat", tag = "codeq",
    params(("id" = String, Path)), request_body = Renewal,
    responses((status = 200, body = SubscribedShown)))]
async fn heartbeat(front: Arc<Front>, request: Request) -> Answer {
    let body: Renewal = read_optional(&request.body)?;
    let extended = async {
        let found = seen(&front, &request).await.map_err(|problem| match problem.status() {
            StatusCode::NOT_FOUND => problem.saying(texts::NOT_FOUND),
            _ => problem,
        })?;
        let ttl = body.ttl_seconds.filter(|seconds| *seconds > 0).map(|seconds| ttl(Some(seconds)));
        let extended = front.tasks.extend_worker_subscription(&found.app, &found.id, ttl).await;
        let missing = |error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION);
        Ok(SubscribedShown::of(&extended.map_err(missing)?))
    };
    Ok(json(StatusCode::OK, &extended.await.map_err(older)?))
}

fn ttl(asked: Option<i64>) -> Duration {
    let (least, most) = TTL;
    seconds(asked, WORKER_TTL_DEFAULT, Duration::from_secs(most)).max(Duration::from_secs(least))
}

async fn subscription(
    front: &Front,
    request: &Request,
    body: WorkerToSubscribe,
) -> Result<WorkerSubscription, Problem> {
    let url = address(front, "callbackUrl", body.callback_url)?;
    let url = url.ok_or_else(|| invalid("callbackUrl is required"))?;
    let commands = commands(front, request, body.event_types).await?;
    if commands.is_empty() {
        return Err(invalid("eventTypes is required"));
    }
    if let Some(reason) = commands.iter().find_map(|command| check_command(command).err()) {
        return Err(invalid(format!("each of eventTypes {reason}")));
    }
    let group = group(body.delivery_mode.as_deref(), body.group_id)?;
    let interval = match body.min_interval_seconds {
        None => WORKER_INTERVAL_DEFAULT,
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(INTERVAL_MAX)),
    };
    let (now, ttl) = (front.clock.now(), ttl(body.ttl_seconds));
    Ok(WorkerSubscription {
        id: WorkerSubscriptionId::new(front.random.ulid(now)),
        app: owner(request)?.id.clone(),
        url: codeq::stored(&url),
        commands,
        group,
        min_interval: interval,
        ttl,
        expires_at: now.after(ttl),
        created_at: now,
    })
}

/// The group of which one member is told; `None`: all subscriptions are told.
fn group(mode: Option<&str>, id: Option<String>) -> Result<Option<String>, Problem> {
    match mode.filter(|mode| !mode.is_empty()).unwrap_or("fanout") {
        "fanout" => Ok(None),
        "hash" => Ok(Some(HASHED.to_owned())),
        "group" => {
            let id = id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("groupId is required"))?;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if id.len() > GROUP_MAX || !id.bytes().all(is_plain) {
                return Err(invalid(format!("groupId must have 1 to {GROUP_MAX} letters, digits and _.-")));
            }
            Ok(Some(id))
        }
        _ => Err(invalid("deliveryMode must be fanout, group or hash")),
    }
}
