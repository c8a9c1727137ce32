//! What workers say of their tasks, each with the token of its claim: that they still work, are done, give
//! up, could not do it this time, or did not try.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tidings_actors::{
    model::task::{ClaimToken, MoveRefusal, Moved, TaskMove},
    ports::{
        CLAIM_DEFAULT, CLAIM_MAX, PROGRESS_MAX, TASK_BATCH_MAX, TIMEOUT_MAX, TaskWord, WordRefusal, Worded,
    },
};
use tidings_entity::id::{AppId, TaskId};
use utoipa::ToSchema;

use super::{
    creates::{CreatedShown, TaskToCreate, at_most, read_list},
    may_use, owner, refused, seen,
};
use crate::http::{
    bodies::{
        body::{Body, body},
        fields::Fields,
        moment::iso,
        problem::{Kind, Problem},
        raw::{self, RawFields},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// Most characters of a token: that of a task of a watch also names the place of its change.
const TOKEN_MAX: usize = 200;
/// Most characters of a reason.
pub(in crate::http) const REASON_MAX: usize = 2_000;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_heartbeat, _, _>(Access::App(Permission::TasksClaim), heartbeat),
        route::<__path_complete, _, _>(Access::App(Permission::TasksClaim), complete),
        route::<__path_fail, _, _>(Access::App(Permission::TasksClaim), fail),
        route::<__path_nack, _, _>(Access::App(Permission::TasksClaim), nack),
        route::<__path_abandon, _, _>(Access::App(Permission::TasksClaim), abandon),
        route::<__path_heartbeat_all, _, _>(Access::App(Permission::TasksClaim), heartbeat_all),
        route::<__path_complete_all, _, _>(Access::App(Permission::TasksClaim), complete_all),
        route::<__path_nack_all, _, _>(Access::App(Permission::TasksClaim), nack_all),
    ]
}

body! {
    /// Extends the claim on a task.
    struct Heartbeat {
        /// Token of the claim.
        token: String,
        /// Seconds until the claim ends, counted from now, 1 to 3,600. Default 300.
        extend_seconds: Option<u64>,
        /// Progress of the worker: any JSON, at most 4 KiB.
        progress: Option<Value>,
    }
}

body! {
    /// Ends a task with success.
    struct Completion {
        /// Token of the claim.
        token: String,
        /// Result of the task: any JSON, kept byte for byte, at most `payload_bytes` of the queue.
        result: Option<Value>,
        /// Up to 100 follow-up tasks. They are created in the same transaction that ends the task, or nothing
        /// changes.
        then: Option<Vec<TaskToCreate>>,
    }
}

body! {
    /// Ends a task as failed; no attempt follows.
    struct FailureOfTask {
        /// Token of the claim.
        token: String,
        /// Error, for people, at most 2,000 characters.
        error: String,
    }
}

body! {
    /// Gives a task back after a failed attempt.
    struct Nack {
        /// Token of the claim.
        token: String,
        /// Seconds until the next attempt. Missing: the retry policy of the queue decides.
        delay_seconds: Option<u64>,
        /// Reason, for people, at most 2,000 characters.
        reason: Option<String>,
    }
}

body! {
    /// Gives a task back that the worker did not start.
    struct Abandonment {
        /// Token of the claim.
        token: String,
        /// Seconds until another worker can claim the task. Default 0: at once.
        delay_seconds: Option<u64>,
    }
}

body! {
    /// Requests about several tasks.
    struct Words {
        /// 1 to 100 bodies, each as in the request for one task.
        items: Vec<Value>,
    }
}

/// State of a task after a request of its worker.
#[derive(Serialize, ToSchema)]
pub(super) struct WordedShown {
    /// Id of the task.
    id: String,
    /// State of the task.
    state: &'static str,
    /// Number of claims that were not abandoned.
    attempts: u64,
    /// Whether an earlier, equal request had already changed the task.
    repeated: bool,
    /// Whether the task was cancelled. Its claim is not extended any more, and the worker should stop.
    cancelled: bool,
    /// When the claim runs out, in ISO 8601 with milliseconds, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_until: Option<String>,
    /// When the task is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    /// The follow-up tasks that the completion created.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    then: Vec<CreatedShown>,
}

impl WordedShown {
    pub(super) fn of(id: &TaskId, worded: &Worded) -> Self {
        use tidings_entity::kind::TaskState::{Cancelled, Claimed, Waiting};
        let at = |state| worded.wake_at.filter(|_| worded.state == state).map(iso);
        Self {
            id: id.to_string(),
            state: worded.state.as_str(),
            attempts: worded.attempts,
            repeated: worded.moved == Moved::Before,
            cancelled: worded.moved == Moved::Flagged || worded.state == Cancelled,
            claimed_until: at(Claimed),
            run_at: at(Waiting),
            then: worded.then.iter().map(CreatedShown::of).collect(),
        }
    }
}

/// Result of one of several requests: the state of the task, or the problem.
#[derive(Serialize, ToSchema)]
struct ItemShown {
    /// Status code that a single request would have.
    status: u16,
    /// State of the task. Missing: nothing changed, see `problem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<WordedShown>,
    /// Code of the problem. Missing: the request succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

/// Results of several requests.
#[derive(Serialize, ToSchema)]
struct ItemsShown {
    /// One result for each item, in the order of the request.
    items: Vec<ItemShown>,
}

/// Extends a claim and stores the progress that the worker reports.
#[utoipa::path(post, path = "/api/tasks/{id}/heartbeat", tag = "tasks", params(("id" = String, Path)),
    request_body = Heartbeat, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The claim has ended. Stop working on the task.")
    ))]
async fn heartbeat(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_heartbeat).await
}

/// Completes a task with a result. A repeated request is no error.
#[utoipa::path(post, path = "/api/tasks/{id}/complete", tag = "tasks", params(("id" = String, Path)),
    request_body = Completion, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The claim has ended. Nothing changed."),
        (status = 413, description = "The result is larger than the queue allows."),
        (status = 429, description = "The tasks in `then` would exceed a limit of the app. The task did not \
            end.")
    ))]
async fn complete(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_completion).await
}

/// Fails a task for good: it is not tried again. A repeated request is no error.
#[utoipa::path(post, path = "/api/tasks/{id}/fail", tag = "tasks", params(("id" = String, Path)),
    request_body = FailureOfTask, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The claim has ended. Nothing changed.")
    ))]
async fn fail(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_failure).await
}

/// Gives back a task that the worker could not do this time. The task is tried again, or is dead after its
/// last attempt.
#[utoipa::path(post, path = "/api/tasks/{id}/nack", tag = "tasks", params(("id" = String, Path)),
    request_body = Nack, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The claim has ended. Nothing changed.")
    ))]
async fn nack(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_nack).await
}

/// Gives back a task that the worker did not try. The first 100 times do not count as attempts.
#[utoipa::path(post, path = "/api/tasks/{id}/abandon", tag = "tasks", params(("id" = String, Path)),
    request_body = Abandonment, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "The claim has ended. Nothing changed.")
    ))]
async fn abandon(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_abandonment).await
}

/// Extends several claims with one request.
#[utoipa::path(post, path = "/api/tasks/batch/heartbeat", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn heartbeat_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_heartbeat).await
}

/// Completes several tasks, each with its result.
#[utoipa::path(post, path = "/api/tasks/batch/complete", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn complete_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_completion).await
}

/// Gives back several tasks that the worker could not do this time.
#[utoipa::path(post, path = "/api/tasks/batch/nack", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn nack_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_nack).await
}

/// Reads the body of a worker's request.
type Reader = fn(&Front, &Request, &[u8]) -> Result<(ClaimToken, Said), Problem>;

impl ItemShown {
    fn of(id: &TaskId, answer: Result<Worded, Problem>) -> Self {
        match answer {
            Ok(worded) => Self { status: 200, task: Some(WordedShown::of(id, &worded)), problem: None },
            Err(problem) => {
                Self { status: problem.status().as_u16(), task: None, problem: Some(problem.code()) }
            }
        }
    }
}

/// The content of a worker's request.
struct Said {
    step: TaskMove,
    body: Option<String>,
    then: Vec<tidings_actors::ports::NewTask>,
}

impl From<TaskMove> for Said {
    fn from(step: TaskMove) -> Self {
        Self { step, body: None, then: Vec::new() }
    }
}

fn word(app: &AppId, (token, said): (ClaimToken, Said)) -> TaskWord {
    let Said { step, body, then } = said;
    let proof = Some(token.proof());
    TaskWord { id: token.task, app: app.clone(), proof, step, body, then }
}

/// Checks that the caller's token may use the command of a task. With a token for every command the task is
/// not read.
async fn check_command_of(front: &Front, request: &Request, token: &ClaimToken) -> Result<(), Problem> {
    if may_use(request, None).is_ok() {
        return Ok(());
    }
    match seen(front, request, &token.task).await {
        // The row of a task of a watch goes with its end: then nothing changes any more.
        Err(problem) if token.place.is_some() && problem.code() == Problem::new(Kind::NO_TASK).code() => {
            Ok(())
        }
        seen => seen.map(drop),
    }
}

async fn one(front: &Front, request: &Request, read: Reader) -> Answer {
    let app = owner(request)?;
    let id: TaskId = request.id(Kind::NO_TASK)?;
    let said = read(front, request, &request.body)?;
    if said.0.task != id {
        return Err(Problem::invalid_field("token", "is the token of another task"));
    }
    check_command_of(front, request, &said.0).await?;
    let answers = front.tasks.move_tasks(vec![word(&app.id, said)]).await;
    let answers = answers.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    match answers.into_iter().next() {
        Some(Ok(worded)) => Ok(json(StatusCode::OK, &WordedShown::of(&id, &worded))),
        Some(Err(refusal)) => Err(not_moved(&refusal)),
        None => Err(Problem::new(Kind::INTERNAL)),
    }
}

/// Answers a request about several tasks. An item that fails does not stop the others.
async fn all(front: &Front, request: &Request, read: Reader) -> Answer {
    let app = owner(request)?;
    let mut raw = RawFields::of(&request.body)?;
    let items = raw.take("items")?;
    let mut fields = Fields::of_body::<Words>(&raw.rest())?;
    fields.is_kept_raw("items");
    fields.finish()?;
    let items = raw::items("items", items, TASK_BATCH_MAX)?;
    let said = items.into_iter().enumerate().map(|(at, item)| {
        read(front, request, item.get().as_bytes()).map_err(|problem| problem.within("items", at))
    });
    let said: Vec<_> = said.collect::<Result<_, Problem>>()?;
    let ids: Vec<TaskId> = said.iter().map(|(token, _)| token.task.clone()).collect();
    let mut may = Vec::with_capacity(ids.len());
    for (token, _) in &said {
        may.push(check_command_of(front, request, token).await);
    }
    let said = said.into_iter().zip(&may).filter(|(_, may)| may.is_ok());
    let words = said.map(|(said, _)| word(&app.id, said)).collect();
    let answers = front.tasks.move_tasks(words).await;
    let mut answers = answers.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?.into_iter();
    let mut answer = |may: Result<(), Problem>| {
        may?;
        let answer = answers.next().ok_or_else(|| Problem::new(Kind::INTERNAL))?;
        answer.map_err(|refusal| not_moved(&refusal))
    };
    let items = ids.iter().zip(may).map(|(id, may)| ItemShown::of(id, answer(may))).collect();
    Ok(json(StatusCode::OK, &ItemsShown { items }))
}

/// The problem of a request that changed nothing.
pub(in crate::http) fn not_moved(refusal: &WordRefusal) -> Problem {
    match refusal {
        WordRefusal::Move(MoveRefusal::ClaimLost) => Problem::new(Kind::CLAIM_LOST),
        WordRefusal::Move(MoveRefusal::NotFound) => Problem::new(Kind::NO_TASK),
        WordRefusal::Move(MoveRefusal::State(state)) => {
            Problem::new(Kind::CONFLICT).with_detail(format!("the task is {state}"))
        }
        WordRefusal::ResultTooLarge(limit) => Problem::new(Kind::TOO_LARGE).with_detail(format!(
            "a result of this queue has at most {limit} bytes (payload_bytes of the queue)"
        )),
        WordRefusal::Then(refusal) => refused(refusal, Some("then")),
        WordRefusal::Redrive(refusal) => refused(refusal, None),
    }
}

/// The fields of the body, without those that are kept byte for byte, and the token.
fn fields<B: Body>(rest: &[u8]) -> Result<(Fields, Option<ClaimToken>), Problem> {
    let mut fields = Fields::of_body::<B>(rest)?;
    let text = fields.required_text("token", 1..=TOKEN_MAX);
    let token = text.parse().ok();
    if token.is_none() && !text.is_empty() {
        fields.refuse("token", "must be the token from the answer that handed out the task");
    }
    Ok((fields, token))
}

/// The token, if the body has no faults.
fn finished(fields: Fields, token: Option<ClaimToken>) -> Result<ClaimToken, Problem> {
    fields.finish()?;
    token.ok_or_else(|| Problem::invalid_field("token", "is required"))
}

fn read_heartbeat(_: &Front, _: &Request, body: &[u8]) -> Result<(ClaimToken, Said), Problem> {
    let mut raw = RawFields::of(body)?;
    let progress = raw.take("progress")?.map(|progress| progress.get().to_owned());
    let (mut fields, token) = fields::<Heartbeat>(&raw.rest())?;
    fields.is_kept_raw("progress");
    if progress.as_ref().is_some_and(|progress| progress.len() > PROGRESS_MAX) {
        fields.refuse("progress", format!("must have at most {PROGRESS_MAX} bytes"));
    }
    let extend = at_most(&mut fields, "extend_seconds", 1, CLAIM_MAX.as_secs());
    let extend = extend.map_or(CLAIM_DEFAULT, Duration::from_secs);
    let said = Said { body: progress, ..TaskMove::Heartbeat(extend).into() };
    Ok((finished(fields, token)?, said))
}

fn read_completion(front: &Front, request: &Request, body: &[u8]) -> Result<(ClaimToken, Said), Problem> {
    let mut raw = RawFields::of(body)?;
    let result = raw.take("result")?.map(|result| result.get().to_owned());
    let then = raw.take("then")?;
    let (mut fields, token) = fields::<Completion>(&raw.rest())?;
    fields.is_kept_raw("result");
    fields.is_kept_raw("then");
    let token = finished(fields, token)?;
    let then = match then {
        Some(list) if !["[]", "null"].contains(&list.get()) => read_list(front, request, "then", Some(list))?,
        _ => Vec::new(),
    };
    Ok((token, Said { step: TaskMove::Complete, body: result, then }))
}

fn read_failure(_: &Front, _: &Request, body: &[u8]) -> Result<(ClaimToken, Said), Problem> {
    let (mut fields, token) = fields::<FailureOfTask>(body)?;
    if !fields.has("error") {
        fields.refuse("error", "is required");
    }
    let error = fields.free_text("error", 1..=REASON_MAX).unwrap_or_default();
    Ok((finished(fields, token)?, TaskMove::Fail(error).into()))
}

fn read_nack(_: &Front, _: &Request, body: &[u8]) -> Result<(ClaimToken, Said), Problem> {
    let (mut fields, token) = fields::<Nack>(body)?;
    let delay = at_most(&mut fields, "delay_seconds", 0, TIMEOUT_MAX.as_secs()).map(Duration::from_secs);
    let reason = fields.free_text("reason", 0..=REASON_MAX).filter(|reason| !reason.is_empty());
    Ok((finished(fields, token)?, TaskMove::Nack { delay, reason }.into()))
}

fn read_abandonment(_: &Front, _: &Request, body: &[u8]) -> Result<(ClaimToken, Said), Problem> {
    let (mut fields, token) = fields::<Abandonment>(body)?;
    let delay = at_most(&mut fields, "delay_seconds", 0, TIMEOUT_MAX.as_secs());
    let step = TaskMove::Abandon(Duration::from_secs(delay.unwrap_or(0)));
    Ok((finished(fields, token)?, step.into()))
}
