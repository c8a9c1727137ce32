//! Queues: their numbers and settings, pausing, and removing what is in them.

use std::{str::FromStr, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::filter::sets,
    ports::{PAYLOAD_MAX, QUEUES_MAX, Queue, QueueFilter, QueueSettings, TIMEOUT_MAX},
};
use tidings_entity::{
    id::AppId,
    kind::{RetryPolicy, TaskState},
};
use tokio::time::{Duration, Instant};
use utoipa::ToSchema;

use super::{
    creates::{ATTEMPTS_MAX, at_most, check_command},
    may_use, owner,
    people::ended_state,
    shown::QueueShown,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        filters,
        names::Names,
        paging::{Page, Query, cut, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// The name of the list in its cursors, followed by the app.
const QUEUES: &str = "queues";
/// The name of the list of all apps in its cursors.
const ALL_QUEUES: &str = "admin queues";
/// Largest value of `rate`, in claims per second.
const RATE_MAX: u64 = 100_000;
/// The longest time that ended tasks are kept (a year, in seconds).
const KEPT_MAX: u64 = 366 * 24 * 3_600;
/// Tasks that are removed in one transaction.
const PURGE_STEP: u64 = 500;
/// How long one request removes tasks before it answers.
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
    /// Settings of a queue. Each request sets all of them: a field that is missing gets its default.
    struct QueueToSet {
        /// Most tasks of the queue that are claimed at once. Missing: no limit.
        max_claimed: Option<u64>,
        /// Most claims per second. Missing: no limit.
        rate: Option<u64>,
        /// Number of attempts after which a task is dead, 1 to 1,000. Default 5.
        max_attempts: Option<u64>,
        /// Growth of the wait between attempts: `fixed`, `linear`, `exponential`, `exp_full_jitter` or
        /// `exp_equal_jitter`. Default `exp_full_jitter`.
        retry_policy: Option<String>,
        /// Wait after the first attempt, in seconds. Default 5.
        retry_base_seconds: Option<u64>,
        /// Longest wait between attempts, in seconds. Default 900.
        retry_cap_seconds: Option<u64>,
        /// Longest duration of a claim with all extensions, in seconds, up to 86,400. Default 3,600.
        timeout_seconds: Option<u64>,
        /// Seconds of age that count as one step of priority. Missing: the higher priority always goes first.
        /// Applies to tasks that are created after the change.
        ageing_seconds: Option<u64>,
        /// Seconds for which succeeded, failed and cancelled tasks are kept. Default 604,800.
        retention_seconds: Option<u64>,
        /// Seconds for which dead tasks are kept. Default 2,592,000.
        dead_retention_seconds: Option<u64>,
        /// Most bytes of a payload or a result, up to 1,048,576. Default 262,144.
        payload_bytes: Option<u64>,
    }
}

body! {
    /// Confirmation that a queue is to be purged.
    struct PurgeConfirmation {
        /// The command of the queue, repeated.
        confirm: String,
        /// `failed`, `dead` or `cancelled`: tasks in this state are removed. Missing: tasks that wait, are
        /// ready or are set aside.
        state: Option<String>,
    }
}

/// Result of a purge.
#[derive(Serialize, ToSchema)]
struct PurgeShown {
    /// Number of tasks that were removed.
    removed: u64,
    /// Whether more tasks may be left. The same request continues with them.
    more: bool,
    /// Number of tasks that wait, are ready or are set aside and stay, because they are changes of a watch.
    /// Missing while there may be more, and where tasks that ended were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_watches: Option<u64>,
}

/// Lists the queues of the app, in the order of their commands. A token for some commands sees their queues.
#[utoipa::path(get, path = "/api/queues", tag = "tasks",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
    ),
    responses((status = 200, body = Page<QueueShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let (limit, list) = (query.limit()?, format!("{QUEUES} {app}"));
    let after: Option<String> = query.after(&list)?;
    let now = front.clock.now();
    let filter =
        QueueFilter { app: Some(app.clone()), query: filters::of_query(&query, &sets::QUEUES, now)? };
    let after = after.as_deref().map(|command| (&app, command));
    // Of the queues of an app, which are few, a token for some commands may see any part.
    let most = if request.may_use("") { limit + 1 } else { QUEUES_MAX };
    let queues = front.tasks.queues(&filter, after, most).await;
    let mut queues = queues.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    queues.retain(|queue| request.may_use(&queue.command));
    queues.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
    let shown = |queue: &_| QueueShown::of(queue, now);
    Ok(json(StatusCode::OK, &page(queues, limit, &list, |queue| queue.command.clone(), shown)))
}

/// A queue, with its app.
#[derive(Serialize, ToSchema)]
struct QueueOfApp {
    /// Id of the app.
    app_id: String,
    /// Name of the app.
    app_name: String,
    #[serde(flatten)]
    queue: QueueShown,
}

/// Lists the queues of all apps, in the order of their apps and commands.
#[utoipa::path(get, path = "/api/admin/queues", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
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
    let mut queues = queues.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    let place = |queue: &Queue| PlaceOfApp::text(&queue.app, &queue.command);
    let next_cursor = cut(&mut queues, limit, ALL_QUEUES, place);
    let (mut names, mut items) = (Names::of(&front), Vec::with_capacity(queues.len()));
    for queue in &queues {
        items.push(QueueOfApp {
            app_id: queue.app.to_string(),
            app_name: names.app(&queue.app).await?.name,
            queue: QueueShown::of(queue, now),
        });
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

/// The place of a queue or schedule among those of all apps: its app and its name.
pub(super) struct PlaceOfApp(pub(super) AppId, pub(super) String);

impl PlaceOfApp {
    /// The place as a cursor holds it.
    pub(super) fn text(app: &AppId, name: &str) -> String {
        format!("{app} {name}")
    }
}

impl FromStr for PlaceOfApp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (app, command) = text.split_once(' ').ok_or(())?;
        Ok(Self(app.parse().map_err(drop)?, command.to_owned()))
    }
}

/// Shows one queue with its counts, its settings and its rates of the last hour.
#[utoipa::path(get, path = "/api/queues/{command}", tag = "tasks", params(("command" = String, Path)),
    responses((status = 200, body = QueueShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let queue = front.tasks.queue(&app.id, command(&request)?).await;
    let queue = queue.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    Ok(json(StatusCode::OK, &QueueShown::of_one(&queue, front.clock.now())))
}

/// Creates a queue, or replaces its settings.
#[utoipa::path(put, path = "/api/queues/{command}", tag = "tasks", params(("command" = String, Path)),
    request_body = QueueToSet, responses(
        (status = 200, body = QueueShown),
        (status = 409, description = "The app has reached its limit of queues.")
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
        topic: None,
    }
}

/// Pauses a queue: its tasks are not handed out. Workers keep the tasks that they have claimed.
#[utoipa::path(post, path = "/api/queues/{command}/pause", tag = "tasks", params(("command" = String, Path)),
    responses((status = 200, body = QueueShown)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    paused(&front, &request, true).await
}

/// Resumes a paused queue: its tasks are handed out again.
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

/// Removes the tasks of a queue that wait, are ready or are set aside, or those that are `failed`, `dead` or
/// `cancelled`. Claimed tasks and those of watches stay.
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
    let state = ended_state(&mut fields);
    fields.finish()?;
    let (mut removed, until) = (0, Instant::now() + PURGE_TIME);
    loop {
        let step = match state {
            None => front.tasks.purge_queue(&app.id, command, PURGE_STEP).await,
            Some(state) => front.tasks.purge_ended(&app.id, command, state, PURGE_STEP).await,
        };
        let step = step.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
        removed += step;
        let is_done = step < PURGE_STEP;
        if is_done || Instant::now() >= until {
            let of_watches = match is_done && state.is_none() {
                true => Some(unclaimed(&front, &app.id, command).await?),
                false => None,
            };
            return Ok(json(StatusCode::OK, &PurgeShown { removed, more: !is_done, of_watches }));
        }
    }
}

/// The number of tasks of a queue that wait, are ready or are set aside.
async fn unclaimed(front: &Front, app: &AppId, command: &str) -> Result<u64, Problem> {
    let queue = front.tasks.queue(app, command).await;
    let counts = queue.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?.counts;
    let unclaimed = [TaskState::Waiting, TaskState::Ready, TaskState::Aside];
    Ok(counts.iter().filter(|(state, _)| unclaimed.contains(state)).map(|(_, count)| count).sum())
}

/// The command in the path.
fn command(request: &Request) -> Result<&str, Problem> {
    let command = request.parameters.first().map(String::as_str);
    command.filter(|command| request.may_use(command)).ok_or_else(|| Problem::new(Kind::NO_QUEUE))
}
