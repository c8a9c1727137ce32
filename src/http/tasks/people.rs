//! Tasks for people and producers: lists, one task, its result, cancelling and sending again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    model::{filter::sets, task::TaskMove},
    ports::{CreateRefusal, Redriven, Task, TaskChange, TaskFilter, TaskWord},
};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::TaskState,
};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::{
    artifacts,
    creates::check_command,
    may_read_payload, may_use, owner, refused, seen,
    shown::{TaskShown, WholeTask, raw},
    words::{WordedShown, not_moved},
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        filters,
        paging::{Page, Query, searched},
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    front::Front,
};

/// The name of the list in its cursors, followed by the app.
const TASKS: &str = "tasks";
/// The longest wait for the end of a task, in seconds.
pub(in crate::http) const WAIT_MAX: u64 = 60;
/// The longest time between two reads of a task while a request waits for its end.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Tasks that are sent again in one transaction.
const REDRIVE_STEP: u64 = 500;
/// Most tasks that one request sends again, or counts.
const REDRIVE_MAX: u64 = 10_000;

/// The routes of this file.
pub(super) fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::TasksRead), list),
        route::<__path_show, _, _>(Access::App(Permission::TasksRead), show),
        route_with::<__path_result, _, _, _>(Access::App(Permission::TasksRead), lifecycle, result),
        route::<__path_cancel, _, _>(Access::App(Permission::TasksCancel), cancel),
        route::<__path_redrive, _, _>(Access::App(Permission::TasksRedrive), redrive),
        route::<__path_redrive_all, _, _>(Access::App(Permission::TasksRedrive), redrive_all),
    ]
}

/// Lists the tasks of the app, newest first.
#[utoipa::path(get, path = "/api/tasks", tag = "tasks",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("command" = Option<String>, Query, description = "Only tasks with this command."),
        ("state" = Option<String>, Query, description = "Only tasks in this state: `waiting`, `ready`, \
            `claimed`, `succeeded`, `failed`, `dead`, `aside` or `cancelled`."),
    ),
    responses((status = 200, body = Page<TaskShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let query = Query::of(&request.query, &["limit", "cursor", "q", "command", "state"])?;
    let state = query.get("state").map(str::parse::<TaskState>).transpose();
    let filter = TaskFilter {
        command: query.get("command").map(str::to_owned),
        state: state.map_err(|_| Problem::malformed(format!("state is one of: {}", states())))?,
        query: filters::of_query(&query, &sets::TASKS, front.clock.now())?,
    };
    may_use(&request, filter.command.as_deref())?;
    let (limit, list) = (query.limit()?, format!("{TASKS} {app}"));
    let before: Option<TaskId> = query.after(&list)?;
    let tasks = front.tasks.list_tasks(&app, &filter, before.as_ref(), limit).await;
    let tasks = tasks.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let mut changes = changes(&front, &app, &tasks.found).await?;
    let shown = |task: &Task| TaskShown::of(task, changes.remove(&task.id));
    Ok(json(StatusCode::OK, &searched(&tasks, &list, shown)))
}

/// The changes of tasks that watches made.
async fn changes(front: &Front, app: &AppId, tasks: &[Task]) -> Result<HashMap<TaskId, TaskChange>, Problem> {
    let of_watches = tasks.iter().filter(|task| task.is_of_watch);
    let ids: Vec<TaskId> = of_watches.map(|task| task.id.clone()).collect();
    let found = front.tasks.changes_of_tasks(app, &ids).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    Ok(found.into_iter().map(|change| (change.task.clone(), change)).collect())
}

fn states() -> String {
    TaskState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ")
}

/// Shows one task with its payload, result, progress, artifacts and claims.
#[utoipa::path(get, path = "/api/tasks/{id}", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = WholeTask)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let id: TaskId = request.id(Kind::NO_TASK)?;
    let task = seen(&front, &request, &id).await?;
    let bodies = front.tasks.task_bodies(&app.id, &id).await;
    let mut bodies = bodies.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let is_withheld = !may_read_payload(&request, &task);
    if is_withheld {
        bodies.payload.clear();
    }
    let artifacts = artifacts::of_task(&front, &app.id, &id).await?;
    let claims = front.tasks.task_claims(&task).await;
    let claims = claims.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let change = changes(&front, &app.id, std::slice::from_ref(&task)).await?.remove(&id);
    let shown = TaskShown::of(&task, change);
    Ok(json(StatusCode::OK, &WholeTask::of(shown, bodies, is_withheld, artifacts, claims)))
}

/// Result of a task.
#[derive(Serialize, ToSchema)]
struct ResultShown {
    /// Id of the task.
    id: String,
    /// State of the task.
    state: &'static str,
    /// Result that the worker reported, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    /// Error or reason that the last worker reported, or why the task is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Shows the result of a task. With `wait_seconds` the request waits until the task has ended.
#[utoipa::path(get, path = "/api/tasks/{id}/result", tag = "tasks",
    params(
        ("id" = String, Path),
        ("wait_seconds" = Option<u64>, Query, description = "Number of seconds to wait for the end of the \
            task, 0 to 60. Default 0."),
    ),
    responses(
        (status = 200, body = ResultShown, description = "The task has ended."),
        (status = 202, body = ResultShown, description = "The task has not ended yet.")
    ))]
async fn result(front: Arc<Front>, lifecycle: Lifecycle, request: Request) -> Answer {
    let app = owner(&request)?;
    let id: TaskId = request.id(Kind::NO_TASK)?;
    let query = Query::of(&request.query, &["wait_seconds"])?;
    let wait = match query.get("wait_seconds").map(str::parse) {
        None => 0,
        Some(Ok(wait @ 0..=WAIT_MAX)) => wait,
        Some(_) => {
            return Err(Problem::malformed(format!("wait_seconds is a whole number from 0 to {WAIT_MAX}")));
        }
    };
    let task = until_ended(&front, &lifecycle, &request, &id, wait).await?;
    let has_ended = task.state.has_ended();
    let result = if has_ended {
        let bodies = front.tasks.task_bodies(&app.id, &id).await;
        bodies.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?.result
    } else {
        None
    };
    let status = if has_ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let shown = ResultShown {
        id: id.to_string(),
        state: task.state.as_str(),
        result: raw(result),
        error: task.error,
    };
    Ok(json(status, &shown))
}

/// Waits until a task has ended, at most `wait` seconds. Returns the task as it is then.
pub(in crate::http) async fn until_ended(
    front: &Front,
    lifecycle: &Lifecycle,
    request: &Request,
    id: &TaskId,
    wait: u64,
) -> Result<Task, Problem> {
    let _aside = if wait > 0 { request.step_aside()? } else { None };
    let until = Instant::now() + Duration::from_secs(wait);
    loop {
        // Begun before the look: an end in between is told.
        let mut ended = Box::pin(front.handle.task_ended(id));
        let _begun = futures_util::poll!(&mut ended);
        let task = seen(front, request, id).await?;
        if task.state.has_ended() || Instant::now() >= until || lifecycle.is_draining() {
            if wait > 0 {
                request.check_after_wait().await?;
            }
            return Ok(task);
        }
        let look = until.min(Instant::now() + LOOK_EVERY);
        tokio::select! {
            told = timeout_at(look, ended) => drop(told),
            () = lifecycle.drained() => {}
        }
    }
}

/// Cancels a task. A worker that has claimed the task may still end it, for at most 60 seconds.
#[utoipa::path(post, path = "/api/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path)),
    responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The task has ended already, in another state.")
    ))]
async fn cancel(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, TaskMove::Cancel).await
}

/// Redrives a task that failed, is dead or was cancelled: it runs again under the same id, with no attempts
/// counted.
#[utoipa::path(post, path = "/api/tasks/{id}/redrive", tag = "tasks", params(("id" = String, Path)),
    responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "A task in this state cannot be redriven."),
        (status = 429, description = "The app has reached its limit of open tasks or bytes. Nothing changed.")
    ))]
async fn redrive(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, TaskMove::Redrive).await
}

async fn one(front: &Front, request: &Request, step: TaskMove) -> Answer {
    let app = owner(request)?;
    let id: TaskId = request.id(Kind::NO_TASK)?;
    Fields::of_optional(&request.body)?.finish()?;
    if !request.may_use("") {
        seen(front, request, &id).await?;
    }
    let word =
        TaskWord { id: id.clone(), app: app.id.clone(), proof: None, step, body: None, then: Vec::new() };
    let answers = front.tasks.move_tasks(vec![word]).await;
    let answers = answers.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    match answers.into_iter().next() {
        Some(Ok(worded)) => Ok(json(StatusCode::OK, &WordedShown::of(&id, &worded))),
        Some(Err(refusal)) => Err(not_moved(&refusal)),
        None => Err(Problem::new(Kind::INTERNAL)),
    }
}

body! {
    /// Selects the tasks to redrive: failed, dead and cancelled tasks that match all fields.
    struct RedriveOfTasks {
        /// Only tasks of this queue.
        command: Option<String>,
        /// Only tasks in this state: `failed`, `dead` or `cancelled`.
        state: Option<String>,
        /// Only tasks that match this filter (docs/filters.md).
        q: Option<String>,
        /// Must be true if no other field selects tasks. Then all of them are redriven.
        all: Option<bool>,
        /// True: the tasks are only counted.
        dry_run: Option<bool>,
    }
}

/// Result of a redrive of tasks.
#[derive(Serialize, ToSchema)]
struct RedriveShown {
    /// Number of tasks that were redriven, or would be in a dry run.
    count: u64,
    /// Whether more tasks may be left: the request met its limit of tasks, or the app its limit of open tasks
    /// or bytes. The same request continues with them.
    more: bool,
    /// Whether the tasks were only counted.
    dry_run: bool,
}

/// Redrives tasks that failed, are dead or were cancelled, at most 10,000 per request.
#[utoipa::path(post, path = "/api/tasks/redrive", tag = "tasks", request_body = RedriveOfTasks, responses(
    (status = 200, body = RedriveShown),
    (status = 429, description = "The app has reached its limit of open tasks or bytes. Nothing changed.")
))]
async fn redrive_all(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let mut fields = Fields::of_body::<RedriveOfTasks>(&request.body)?;
    let command = fields.text("command", 1..=128);
    if let Some(reason) = command.as_deref().and_then(|command| check_command(command).err()) {
        fields.refuse("command", reason);
    }
    let state = ended_state(&mut fields);
    let query = filters::of_fields(&mut fields, &sets::TASKS, front.clock.now());
    let is_all = fields.boolean("all").unwrap_or(false);
    let is_dry = fields.boolean("dry_run").unwrap_or(false);
    // A field that cannot be read is a fault already, and is no request for all tasks.
    if command.is_none() && state.is_none() && query.is_none() && !is_all && !fields.has_faults() {
        fields.refuse(
            "all",
            "must be true to redrive every failed, dead and cancelled task; or give command, state or q",
        );
    }
    fields.finish()?;
    may_use(&request, command.as_deref())?;
    let filter = TaskFilter { command, state, query };
    let Redriven { count, refusal } = redriven(&front, &app, &filter, is_dry).await?;
    match refusal {
        Some(refusal) if count == 0 => Err(refused(&refusal, None)),
        // What was sent again is said; the next request is refused as long as there is no room.
        refusal => {
            let more = count >= REDRIVE_MAX || refusal.is_some();
            Ok(json(StatusCode::OK, &RedriveShown { count, more, dry_run: is_dry }))
        }
    }
}

/// Reads `state`: one in which a task can be sent again, or removed before its time.
pub(super) fn ended_state(fields: &mut Fields) -> Option<TaskState> {
    match fields.text("state", 1..=16)?.parse::<TaskState>() {
        Ok(state @ (TaskState::Failed | TaskState::Dead | TaskState::Cancelled)) => Some(state),
        _ => {
            fields.refuse("state", "must be one of: failed, dead, cancelled");
            None
        }
    }
}

/// Sends tasks again, or counts them if `is_dry`: in steps, so that other work runs in between. Returns the
/// first bound of the app that a task met. Where an app has as many open tasks as it may have, that is the
/// end; what meets another bound is left, because a smaller task, or one with another address, may have room.
async fn redriven(
    front: &Front,
    app: &AppId,
    filter: &TaskFilter,
    is_dry: bool,
) -> Result<Redriven, Problem> {
    let failed = |error| Problem::of_store(error, Kind::NO_TASK);
    let (mut all, mut after) = (Redriven::default(), None);
    while all.count < REDRIVE_MAX {
        let limit = REDRIVE_STEP.min(REDRIVE_MAX - all.count);
        let step = front.tasks.redrivable(app, filter, after.as_ref(), limit).await.map_err(failed)?;
        if is_dry {
            all.count += step.found.len() as u64;
        } else {
            let sent = front.tasks.redrive_tasks(app, step.found).await.map_err(failed)?;
            let is_full = sent.refusal == Some(CreateRefusal::OpenTasks);
            all = Redriven { count: all.count + sent.count, refusal: all.refusal.or(sent.refusal) };
            if is_full {
                break;
            }
        }
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    Ok(all)
}
