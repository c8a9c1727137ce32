//! Claiming tasks. Callers are served in order, and wait if the request says so. A client that leaves gives
//! its place up; tasks whose answer does not reach the client go back, and no attempt is counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    housekeeping::claims::GivenTasks,
    ports::{CLAIM_COMMANDS_MAX, CLAIM_DEFAULT, CLAIM_MAX, ClaimRequest, ClaimedTask, TASK_BATCH_MAX},
    time::Timestamp,
};
use tokio::time::timeout;
use utoipa::ToSchema;
use warp::{Reply, reply::Response};

use super::{
    creates::{at_most, check_command},
    may_use, owner,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        request::{JSON, Request},
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
};

/// The longest wait for a task, in seconds.
const WAIT_MAX: u64 = 60;
/// How long one look for tasks may take for a request that does not wait.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Seconds after which a client should repeat a claim for which no look was possible.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The routes of this file.
pub(super) fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    vec![route_with::<__path_claim, _, _, _>(Access::App(Permission::TasksClaim), lifecycle, claim)]
}

body! {
    /// A request of a worker for tasks.
    struct ClaimToMake {
        /// Commands of the tasks that the worker can do, 1 to 100. The worker gets the first tasks in line
        /// over all these commands.
        commands: Vec<String>,
        /// Most tasks to claim, 1 to 100. Default 1.
        count: Option<u64>,
        /// Seconds until the claim ends, unless the worker extends the claim, 1 to 3,600. Default 300.
        claim_seconds: Option<u64>,
        /// Seconds to wait for a task, 0 to 60. Default 0: no wait.
        wait_seconds: Option<u64>,
    }
}

/// Tasks that a worker claimed.
#[derive(Serialize, ToSchema)]
struct ClaimShown {
    /// The tasks, in the order in which they waited.
    tasks: Vec<ClaimedShown>,
}

/// A task that a worker claimed.
#[derive(Serialize, ToSchema)]
struct ClaimedShown {
    /// Id of the task, `tsk_...`.
    id: String,
    /// Token of the claim. The worker sends this token with each request about the task. The token is valid
    /// until the task ends, is given back, or the claim runs out.
    token: String,
    /// Command of the task.
    command: String,
    /// Payload of the task, byte for byte as it was created.
    #[schema(value_type = serde_json::Value)]
    payload: Box<RawValue>,
    /// Priority, 0 to 9.
    priority: u8,
    /// Number of this attempt, from 1.
    attempt: u64,
    /// Number of attempts after which the task is dead.
    max_attempts: u64,
    /// When the claim runs out unless the worker extends it, in ISO 8601 with milliseconds, UTC.
    claimed_until: String,
    /// When the task was created.
    created_at: String,
    /// Error or reason that the worker of an earlier attempt reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ClaimedShown {
    fn of(claimed: ClaimedTask) -> Option<Self> {
        let task = claimed.task;
        Some(Self {
            id: task.id.to_string(),
            token: claimed.token.to_string(),
            command: task.command,
            payload: RawValue::from_string(claimed.payload).ok()?,
            priority: task.priority,
            attempt: task.attempts,
            max_attempts: task.max_attempts,
            claimed_until: iso(task.wake_at.unwrap_or(Timestamp(0))),
            created_at: iso(task.created_at),
            error: task.error,
        })
    }
}

/// Claims tasks for a worker. The worker holds each task until it ends the task or gives it back, or until
/// the claim expires.
#[utoipa::path(post, path = "/api/tasks/claim", tag = "tasks", request_body = ClaimToMake, responses(
    (status = 200, body = ClaimShown),
    (status = 204, description = "No task is ready."),
    (status = 429, description = "Too many requests of workers are under way or wait.")
))]
async fn claim(front: Arc<Front>, lifecycle: Lifecycle, request: Request) -> Answer {
    let app = owner(&request)?;
    let mut fields = Fields::of_body::<ClaimToMake>(&request.body)?;
    let commands = commands(&mut fields);
    let count = at_most(&mut fields, "count", 1, TASK_BATCH_MAX as u64).unwrap_or(1);
    let seconds = at_most(&mut fields, "claim_seconds", 1, CLAIM_MAX.as_secs());
    let wait = at_most(&mut fields, "wait_seconds", 0, WAIT_MAX).unwrap_or(0);
    fields.finish()?;
    commands.iter().try_for_each(|command| may_use(&request, Some(command)))?;
    let wanted = ClaimRequest {
        app: app.id.clone(),
        commands,
        count: usize::try_from(count).unwrap_or(1),
        claim: seconds.map_or(CLAIM_DEFAULT, Duration::from_secs),
        worker: request.actor.clone(),
    };
    let Some(given) = given(&front, &lifecycle, &request, wanted, wait).await? else { return Ok(nothing()) };
    let shown = |tasks: Vec<ClaimedTask>| {
        let tasks = tasks.into_iter().filter_map(ClaimedShown::of).collect();
        serde_json::to_vec(&ClaimShown { tasks })
    };
    answer(&front, given, shown).await
}

/// The tasks that a request is given; `None`: none came within `wait` seconds.
///
/// # Errors
/// 429 if too many requests wait, 503 if no look was possible, and what the caller is answered if it may not
/// have the tasks any more.
pub(in crate::http) async fn given(
    front: &Front,
    lifecycle: &Lifecycle,
    request: &Request,
    wanted: ClaimRequest,
    wait: u64,
) -> Result<Option<GivenTasks>, Problem> {
    let is_patient = wait > 0 && !lifecycle.is_draining();
    let _aside = if is_patient { request.step_aside()? } else { None };
    let limit = if is_patient { Duration::from_secs(wait) } else { LOOK_MAX };
    let given = tokio::select! {
        given = timeout(limit, front.handle.claim(wanted, is_patient)) => given,
        // A waiting request would delay the end of the server, which starts nothing new.
        () = lifecycle.drained() => return Ok(None),
    };
    match given {
        Ok(Some(given)) if given.tasks.is_empty() => Ok(None),
        Ok(Some(given)) => {
            if is_patient {
                // The tasks are given back where the caller may not have them any more.
                request.check_after_wait().await?;
            }
            Ok(Some(given))
        }
        Err(_late) if is_patient => Ok(None),
        Ok(None) | Err(_) => Err(Problem::new(Kind::UNAVAILABLE)
            .with_detail("no answer came from the queue in time: claim again")
            .retry_after(RETRY_AFTER_SECONDS)),
    }
}

/// Reads the commands that a worker does.
pub(super) fn commands(fields: &mut Fields) -> Vec<String> {
    if !fields.has("commands") {
        fields.refuse("commands", "is required");
        return Vec::new();
    }
    let mut commands = fields.texts("commands").unwrap_or_default();
    commands.sort();
    commands.dedup();
    if commands.is_empty() || commands.len() > CLAIM_COMMANDS_MAX {
        fields.refuse("commands", format!("must be a list of 1 to {CLAIM_COMMANDS_MAX} commands"));
    }
    if let Some(reason) = commands.iter().find_map(|command| check_command(command).err()) {
        fields.refuse("commands", format!("each {reason}"));
    }
    commands
}

/// The answer without a body.
pub(in crate::http) fn nothing() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The answer with the tasks, as `shown` writes them. If the answer is dropped before its end, its claims are
/// given back.
pub(in crate::http) async fn answer(
    front: &Front,
    mut given: GivenTasks,
    shown: impl FnOnce(Vec<ClaimedTask>) -> serde_json::Result<Vec<u8>>,
) -> Answer {
    let tasks = front.tasks.payloads(std::mem::take(&mut given.tasks)).await;
    let tasks = tasks.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let bytes = shown(tasks).map_err(|_| Problem::new(Kind::INTERNAL))?;
    let body = GuardedBody { bytes: Some(bytes.into()), given: Some(given) };
    let mut response: Response = warp::reply::stream(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

/// A response body that gives its claims back, unless the body is read to its end. hyper reads a small body
/// to its end just before the bytes go to the socket. A later sign would tell little more: the bytes then lie
/// in the buffers of the system, and nobody knows whether the worker reads them.
struct GuardedBody {
    bytes: Option<Bytes>,
    given: Option<GivenTasks>,
}

impl Stream for GuardedBody {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(bytes))),
            None => {
                if let Some(given) = self.given.take() {
                    given.arrived();
                }
                Poll::Ready(None)
            }
        }
    }
}
