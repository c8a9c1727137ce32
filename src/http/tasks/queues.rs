//! Queues: their numbers and settings, pausing, and removing what is in them.

use std::{str::FromStr, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::filter::sets,
    ports::{PAYLOAD_MAX, Queue, QueueFilter, QueueSettings, TIMEOUT_MAX},
};
use tidings_entity::{id::AppId, kind::RetryPolicy};
use tokio::time::{Duration, Instant};
use utoipa::ToSchema;

use super::{
    creates::{ATTEMPTS_MAX, at_most, check_command},
    may_use, owner,
    shown::QueueShown,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        filters,
        names::Names,
        paging::{Page, Query, cursor_at, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// What the cursors of the list are made for, beside the app.
const QUEUES: &str = "queues";
/// What the cursors of the list of all apps are made for.
const ALL_QUEUES: &str = "admin queues";
/// Most claims a second that a queue may be bounded to.
const RATE_MAX: u64 = 100_000;
/// The longest time that ended tasks are kept (a year, in seconds).
const KEPT_MAX: u64 = 366 * 24 * 3_600;
/// Tasks that are removed in one transaction.
const PURGE_STEP: u64 = 500;
/// How long one request removes tasks.
const PURGE_TIME: Duration = Duration::from_secs(15);

/// The routes of the staff in this file.
pub(super) fn staff_routes() -> Vec<Route> {
    vec![route::<__path_list_all, _, _>(Access::Staff(Permission::QueuesRead), list_all)]
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::QueuesRead), list),
        route::<__path_show, _, _>(Access::App(Permission::QueuesRead), show),
        route::<__path_set, _, _>(Access::App(Permission::QueuesUpdate), set),
        route::<__path_pause, _, _>(Access::App(Permission::QueuesPause), pause),
        route::<__path_resume, _, _>(Access::App(Permission::QueuesPause), resume),
        route::<__path_purge, _, _>(Access::App(Permission::QueuesPurge), purge),
    ]
}

body! {
    /// The settings of a queue. Each request says all of them: what is missing is by default from then on.
    struct QueueToSet {
        /// Most tasks of it that workers have at once; missing: no bound.
        max_claimed: Option<u64>,
        /// Most claims in any second; missing: no bound.
        rate: Option<u64>,
        /// After how many attempts a task is dead, 1 to 1000; 5 where it is missing.
        max_attempts: Option<u64>,
        /// How the wait between attempts grows: `fixed`, `linear`, `exponential`, `exp_full_jitter` or
        /// `exp_equal_jitter`; `exp_full_jitter` where it is missing.
        retry_policy: Option<String>,
        /// The wait after the first attempt, in seconds; 5 where it is missing.
        retry_base_seconds: Option<u64>,
        /// The longest wait between attempts, in seconds; 900 where it is missing.
        retry_cap_seconds: Option<u64>,
        /// The longest time of a claim with all its extensions, in seconds, up to 86400; 3600 where it is
        /// missing.
        timeout_seconds: Option<u64>,
        /// How much age one step of priority is worth, in seconds; missing: the higher priority always goes
        /// first. It holds for tasks that are created from then on.
        ageing_seconds: Option<u64>,
        /// How long tasks are kept that succeeded, failed or were cancelled, in seconds; 604800 where it is
        /// missing.
        retention_seconds: Option<u64>,
        /// How long dead tasks are kept, in seconds; 2592000 where it is missing.
        dead_retention_seconds: Option<u64>,
        /// Most bytes of a payload or a result, up to 1048576; 262144 where it is missing.
        payload_bytes: Option<u64>,
    }
}

body! {
    /// Confirms that a queue is to be purged.
    struct PurgeConfirmation {
        /// The command of the queue, once more.
        confirm: String,
    }
}

/// What came of a purge.
#[derive(Serialize, ToSchema)]
struct PurgeShown {
    /// How many tasks were removed.
    removed: u64,
    /// Whether there may be more: the same request goes on with them.
    more: bool,
}

/// The queues of this app, by their commands.
#[utoipa::path(get, path = "/api/queues", tag = "tasks",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "a filter (docs/filters.md)"),
    ),
    responses((status = 200, body = Page<QueueShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    may_use(&request, None)?;
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let (limit, list) = (query.limit()?, format!("{QUEUES} {app}"));
    let after: Option<String> = query.after(&list)?;
    let now = front.clock.now();
    let filter =
        QueueFilter { app: Some(app.clone()), query: filters::of_query(&query, &sets::QUEUES, now)? };
    let after = after.as_deref().map(|command| (&app, command));
    let queues = front.tasks.queues(&filter, after, limit + 1).await;
    let queues = queues.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    let shown = |queue: &_| QueueShown::of(queue, now);
    Ok(json(StatusCode::OK, &page(queues, limit, &list, |queue| queue.command.clone(), shown)))
}

/// A queue, and whose it is.
#[derive(Serialize, ToSchema)]
struct QueueOfApp {
    /// The id of the app.
    app_id: String,
    /// The name of the app.
    app_name: String,
    #[serde(flatten)]
    queue: QueueShown,
}

/// Queues of all apps, by their apps and commands.
#[utoipa::path(get, path = "/api/admin/queues", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "only what this filter means; see docs/filters.md"),
    ),
    responses((status = 200, body = Page<QueueOfApp>)))]
async fn list_all(front: Arc<Front>, request: Request) -> Answer {
    may_use(&request, None)?;
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let limit = query.limit()?;
    let now = front.clock.now();
    let filter = QueueFilter { app: None, query: filters::of_query(&query, &sets::QUEUES, now)? };
    let after: Option<PlaceOfApp> = query.after(ALL_QUEUES)?;
    let after = after.as_ref().map(|PlaceOfApp(app, command)| (app, command.as_str()));
    let queues = front.tasks.queues(&filter, after, limit + 1).await;
    let queues = queues.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    let (mut names, mut items) = (Names::of(&front), Vec::with_capacity(queues.len()));
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    for queue in queues.iter().take(shown) {
        items.push(QueueOfApp {
            app_id: queue.app.to_string(),
            app_name: names.app(&queue.app).await?.name,
            queue: QueueShown::of(queue, now),
        });
    }
    let last = queues.get(shown).and_then(|_more| queues.get(shown - 1));
    let place = |queue: &Queue| cursor_at(ALL_QUEUES, &format!("{} {}", queue.app, queue.command));
    Ok(json(StatusCode::OK, &Page { items, next_cursor: last.map(place) }))
}

/// The place of a queue or schedule among those of all apps: its app and its name.
pub(super) struct PlaceOfApp(pub(super) AppId, pub(super) String);

impl FromStr for PlaceOfApp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (app, command) = text.split_once(' ').ok_or(())?;
        Ok(Self(app.parse().map_err(drop)?, command.to_owned()))
    }
}

/// One queue, with its numbers and settings.
#[utoipa::path(get, path = "/api/queues/{command}", tag = "tasks", params(("command" = String, Path)),
    responses((status = 200, body = QueueShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let queue = front.tasks.queue(&app.id, command(&request)?).await;
    let queue = queue.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    Ok(json(StatusCode::OK, &QueueShown::of(&queue, front.clock.now())))
}

/// Declares a queue, or replaces its settings.
#[utoipa::path(put, path = "/api/queues/{command}", tag = "tasks", params(("command" = String, Path)),
    request_body = QueueToSet, responses(
        (status = 200, body = QueueShown),
        (status = 409, description = "the app has as many queues as it may have")
    ))]
async fn set(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let command = command(&request)?;
    if let Err(reason) = check_command(command) {
        return Err(Problem::invalid_field("command", reason));
    }
    let mut fields = Fields::of_body::<QueueToSet>(&request.body)?;
    let settings = settings(&mut fields);
    fields.finish()?;
    let now = front.clock.now();
    let queue = front.tasks.set_queue(&app.id, command, &settings, now).await;
    let queue = queue.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    Ok(json(StatusCode::OK, &QueueShown::of(&queue, now)))
}

fn settings(fields: &mut Fields) -> QueueSettings {
    let day = TIMEOUT_MAX.as_secs();
    let milliseconds = |seconds: Option<u64>| seconds.map(|number| number * 1_000);
    let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    let words = RetryPolicy::ALL.iter().map(|policy| policy.as_str()).collect::<Vec<_>>().join(", ");
    QueueSettings {
        max_claimed: at_most(fields, "max_claimed", 1, 1_000_000),
        rate: small(at_most(fields, "rate", 1, RATE_MAX)),
        max_attempts: small(at_most(fields, "max_attempts", 1, ATTEMPTS_MAX)),
        retry_policy: fields.word("retry_policy", &words),
        retry_base_ms: milliseconds(at_most(fields, "retry_base_seconds", 0, day)),
        retry_cap_ms: milliseconds(at_most(fields, "retry_cap_seconds", 0, day)),
        timeout_ms: milliseconds(at_most(fields, "timeout_seconds", 1, day)),
        ageing_ms: milliseconds(at_most(fields, "ageing_seconds", 1, KEPT_MAX)),
        retention_ms: milliseconds(at_most(fields, "retention_seconds", 0, KEPT_MAX)),
        dead_retention_ms: milliseconds(at_most(fields, "dead_retention_seconds", 0, KEPT_MAX)),
        payload_bytes: at_most(fields, "payload_bytes", 1, PAYLOAD_MAX),
    }
}

/// Pauses a queue: nothing of it is handed out. Workers keep what they have.
#[utoipa::path(post, path = "/api/queues/{command}/pause", tag = "tasks", params(("command" = String, Path)),
    responses((status = 200, body = QueueShown)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    paused(&front, &request, true).await
}

/// Lets a queue go on.
#[utoipa::path(post, path = "/api/queues/{command}/resume", tag = "tasks", params(("command" = String, Path)),
    responses((status = 200, body = QueueShown)))]
async fn resume(front: Arc<Front>, request: Request) -> Answer {
    paused(&front, &request, false).await
}

async fn paused(front: &Front, request: &Request, is_paused: bool) -> Answer {
    let app = owner(request)?;
    Fields::of_optional(&request.body)?.finish()?;
    let queue = front.tasks.pause_queue(&app.id, command(request)?, is_paused).await;
    let queue = queue.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    Ok(json(StatusCode::OK, &QueueShown::of(&queue, front.clock.now())))
}

/// Removes the tasks of a queue that wait or are ready. What workers have, and what has ended, stays.
#[utoipa::path(post, path = "/api/queues/{command}/purge", tag = "tasks", params(("command" = String, Path)),
    request_body = PurgeConfirmation, responses((status = 200, body = PurgeShown)))]
async fn purge(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let command = command(&request)?;
    let mut fields = Fields::of_body::<PurgeConfirmation>(&request.body)?;
    let confirm = fields.required_text("confirm", 1..=128);
    if !confirm.is_empty() && confirm != command {
        fields.refuse("confirm", "must be the command of the queue");
    }
    fields.finish()?;
    let (mut removed, until) = (0, Instant::now() + PURGE_TIME);
    loop {
        let step = front.tasks.purge_queue(&app.id, command, PURGE_STEP).await;
        let step = step.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
        removed += step;
        let is_done = step < PURGE_STEP;
        if is_done || Instant::now() >= until {
            return Ok(json(StatusCode::OK, &PurgeShown { removed, more: !is_done }));
        }
    }
}

/// The command in the path.
fn command(request: &Request) -> Result<&str, Problem> {
    let command = request.parameters.first().map(String::as_str);
    command.filter(|command| request.may_use(command)).ok_or_else(|| Problem::new(Kind::NO_QUEUE))
}
