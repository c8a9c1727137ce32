//! Worker subscriptions: addresses that are told that a queue has work. A caller whose token is for some
//! commands sees and makes only those of its commands.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::codeq,
    ports::{WORKER_INTERVAL_DEFAULT, WORKER_SUBSCRIPTIONS_MAX, WORKER_TTL_DEFAULT, WorkerSubscription},
};
use tidings_entity::id::WorkerSubscriptionId;
use utoipa::ToSchema;

use super::{
    RETRY_AFTER_SECONDS,
    claims::{commands, nothing},
    creates::at_most,
    may_use, owner,
};
use crate::http::{
    apps::receiver::read_web_address,
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// What the cursors of the list are made for, beside the app.
const WORKERS: &str = "worker subscriptions";
/// The modes: each subscription is told of all work, or one of a group in turn.
const FANOUT: &str = "fanout";
const GROUP: &str = "group";
/// The shortest and the longest time for which a worker subscription is made, in seconds.
pub(in crate::http) const TTL: (u64, u64) = (5, 86_400);
/// The longest shortest time between two messages, in seconds.
pub(in crate::http) const INTERVAL_MAX: u64 = 3_600;
/// Most characters of the name of a group.
pub(in crate::http) const GROUP_MAX: usize = 64;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let access = || Access::App(Permission::WorkersSubscribe);
    vec![
        route::<__path_create, _, _>(access(), create),
        route::<__path_list, _, _>(access(), list),
        route::<__path_show, _, _>(access(), show),
        route::<__path_heartbeat, _, _>(access(), heartbeat),
        route::<__path_remove, _, _>(access(), remove),
    ]
}

body! {
    /// A worker subscription to be made.
    struct WorkerToSubscribe {
        /// A web address that is told of work.
        #[schema(min_length = 1, max_length = 2048)]
        url: String,
        /// The commands of the queues, 1 to 100.
        commands: Vec<String>,
        /// How long it lasts unless a heartbeat extends it, in seconds, 5 to 86400; 300 where it is missing.
        ttl_seconds: Option<u64>,
        /// `fanout` (it is told of all work) or `group` (one member of its group is told, in turn); `fanout`
        /// where it is missing.
        mode: Option<String>,
        /// The name of the group, with `group`: letters, digits and `_.-`.
        #[schema(min_length = 1, max_length = 64)]
        group: Option<String>,
        /// The shortest time between two messages about one command, in seconds, 0 to 3600; 5 where it is
        /// missing. Work that comes sooner is told at its end, once, if it is still there.
        min_interval_seconds: Option<u64>,
    }
}

body! {
    /// How long a worker subscription is to last.
    struct WorkerHeartbeat {
        /// In seconds from now on, 5 to 86400; the time that it was made for where it is missing.
        ttl_seconds: Option<u64>,
    }
}

/// A worker subscription as it stands.
#[derive(Serialize, ToSchema)]
struct WorkerSubscriptionShown {
    /// The id of the worker subscription, `wsb_...`.
    subscription_id: String,
    /// The address that is told of work.
    url: String,
    /// The commands of the queues.
    commands: Vec<String>,
    /// Which subscriptions are told: `fanout` or `group`.
    mode: &'static str,
    /// The name of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// The shortest time between two messages about one command.
    min_interval_seconds: u64,
    /// How long it lasts after it is made or extended.
    ttl_seconds: u64,
    /// When it ends, unless it is extended.
    expires_at: String,
    /// When the subscription was created.
    created_at: String,
}

impl WorkerSubscriptionShown {
    fn of(one: &WorkerSubscription) -> Self {
        Self {
            subscription_id: one.id.to_string(),
            url: codeq::address(&one.url).to_owned(),
            commands: one.commands.clone(),
            mode: if one.group.is_some() { GROUP } else { FANOUT },
            group: one.group.clone(),
            min_interval_seconds: one.min_interval.as_secs(),
            ttl_seconds: one.ttl.as_secs(),
            expires_at: iso(one.expires_at),
            created_at: iso(one.created_at),
        }
    }
}

/// Makes a worker subscription: its address is sent one message when a queue of its commands has work that it
/// did not have before. A message is a hint: it is sent once, and a worker claims as always.
#[utoipa::path(post, path = "/api/workers/subscriptions", tag = "tasks", request_body = WorkerToSubscribe,
    responses(
        (status = 201, body = WorkerSubscriptionShown),
        (status = 429, description = "the app has 100 worker subscriptions")
    ))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let now = front.clock.now();
    let mut fields = Fields::of_body::<WorkerToSubscribe>(&request.body)?;
    if !fields.has("url") {
        fields.refuse("url", "is required");
    }
    let url = read_web_address(&front, &mut fields, "url").unwrap_or_default();
    let commands = commands(&mut fields);
    let ttl = ttl(&mut fields).unwrap_or(WORKER_TTL_DEFAULT);
    let group = group(&mut fields);
    let min_interval = at_most(&mut fields, "min_interval_seconds", 0, INTERVAL_MAX);
    let min_interval = min_interval.map_or(WORKER_INTERVAL_DEFAULT, Duration::from_secs);
    fields.finish()?;
    for command in &commands {
        may_use(&request, Some(command))?;
    }
    let new = WorkerSubscription {
        id: WorkerSubscriptionId::new(front.random.ulid(now)),
        app,
        url,
        commands,
        group,
        min_interval,
        ttl,
        expires_at: now.after(ttl),
        created_at: now,
    };
    make(&front, &new).await?;
    Ok(json(StatusCode::CREATED, &WorkerSubscriptionShown::of(&new)))
}

/// Makes a worker subscription.
///
/// # Errors
/// 429 where the app has as many as it may.
pub(in crate::http) async fn make(front: &Front, new: &WorkerSubscription) -> Result<(), Problem> {
    let made = front.tasks.create_worker_subscription(new).await;
    if !made.map_err(|error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION))? {
        let text = format!(
            "an app has at most {WORKER_SUBSCRIPTIONS_MAX} worker subscriptions: remove one, or let one end"
        );
        return Err(Problem::new(Kind::TOO_MANY).with_detail(text).retry_after(RETRY_AFTER_SECONDS));
    }
    Ok(())
}

/// Reads `mode` and `group`: the name of the group, if one of it is to be told.
fn group(fields: &mut Fields) -> Option<String> {
    let words = format!("{FANOUT}, {GROUP}");
    let mode = fields.text("mode", 1..=GROUP_MAX).unwrap_or_else(|| FANOUT.to_owned());
    let group = fields.text("group", 1..=GROUP_MAX);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match (&group, mode.as_str()) {
        (None, GROUP) => fields.refuse("group", "is required with the mode group"),
        (Some(_), FANOUT) => fields.refuse("group", "is for the mode group"),
        (Some(name), GROUP) if !name.bytes().all(is_plain) => {
            fields.refuse("group", "must hold letters, digits and _.- only");
        }
        (_, FANOUT | GROUP) => {}
        _ => fields.refuse("mode", format!("must be one of: {words}")),
    }
    group
}

fn ttl(fields: &mut Fields) -> Option<Duration> {
    at_most(fields, "ttl_seconds", TTL.0, TTL.1).map(Duration::from_secs)
}

/// The worker subscriptions of this app that have not ended, oldest first; with a token for some commands
/// those of its commands.
#[utoipa::path(get, path = "/api/workers/subscriptions", tag = "tasks",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<WorkerSubscriptionShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let (limit, list) = (query.limit()?, format!("{WORKERS} {app}"));
    let after: Option<WorkerSubscriptionId> = query.after(&list)?;
    // An app has at most a hundred: all are read, and those are shown that the caller may see.
    let found = front.tasks.worker_subscriptions(&app, after.as_ref(), WORKER_SUBSCRIPTIONS_MAX * 2).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION))?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let seen: Vec<WorkerSubscription> =
        found.into_iter().filter(|one| is_seen(&request, one)).take(most).collect();
    Ok(json(StatusCode::OK, &page(seen, limit, &list, |one| one.id.to_string(), WorkerSubscriptionShown::of)))
}

/// Whether the caller's token is for all commands of a worker subscription.
fn is_seen(request: &Request, one: &WorkerSubscription) -> bool {
    one.commands.iter().all(|command| request.may_use(command))
}

/// The worker subscription in the path, if the caller may see it.
pub(in crate::http) async fn seen(front: &Front, request: &Request) -> Result<WorkerSubscription, Problem> {
    let id: WorkerSubscriptionId = request.id(Kind::NO_WORKER_SUBSCRIPTION)?;
    let found = front.tasks.worker_subscription(&owner(request)?.id, &id).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION))?;
    if is_seen(request, &found) { Ok(found) } else { Err(Problem::new(Kind::NO_WORKER_SUBSCRIPTION)) }
}

/// Shows one worker subscription by its id.
#[utoipa::path(get, path = "/api/workers/subscriptions/{id}", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = WorkerSubscriptionShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    Ok(json(StatusCode::OK, &WorkerSubscriptionShown::of(&seen(&front, &request).await?)))
}

/// Extends a worker subscription.
#[utoipa::path(post, path = "/api/workers/subscriptions/{id}/heartbeat", tag = "tasks",
    params(("id" = String, Path)), request_body = WorkerHeartbeat,
    responses((status = 200, body = WorkerSubscriptionShown)))]
async fn heartbeat(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<WorkerHeartbeat>(&request.body)?;
    let ttl = ttl(&mut fields);
    fields.finish()?;
    let found = seen(&front, &request).await?;
    let extended = front.tasks.extend_worker_subscription(&found.app, &found.id, ttl).await;
    let extended = extended.map_err(|error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION))?;
    Ok(json(StatusCode::OK, &WorkerSubscriptionShown::of(&extended)))
}

/// Removes a worker subscription: its address is told of nothing any more.
#[utoipa::path(delete, path = "/api/workers/subscriptions/{id}", tag = "tasks",
    params(("id" = String, Path)), responses((status = 204, description = "it is gone")))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let found = seen(&front, &request).await?;
    let removed = front.tasks.remove_worker_subscription(&found.app, &found.id).await;
    removed.map_err(|error| Problem::of_store(error, Kind::NO_WORKER_SUBSCRIPTION))?;
    Ok(nothing())
}
