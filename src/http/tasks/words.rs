//! What workers say of their tasks, each with the token of its claim: that they still work, are done, give
//! up, could not do it this time, or did not try.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tidings_actors::{
    model::task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove},
    ports::{
        CLAIM_DEFAULT, CLAIM_MAX, PROGRESS_MAX, TASK_BATCH_MAX, TIMEOUT_MAX, TaskWord, WordRefusal, Worded,
    },
};
use tidings_entity::id::{AppId, TaskId};
use utoipa::ToSchema;

use super::{
    creates::{CreatedShown, TaskToCreate, at_most, read_list},
    may_use, owner,
    people::seen,
    refused,
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

/// Most characters of a reason.
const REASON_MAX: usize = 2_000;

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
    /// A worker still works on a task.
    struct Heartbeat {
        /// The token of the claim.
        token: String,
        /// How long the worker wants from now on, in seconds, 1 to 3600; 300 where it is missing.
        extend_seconds: Option<u64>,
        /// How far the worker is: any JSON, at most 4 KiB.
        progress: Option<Value>,
    }
}

body! {
    /// A worker is done with a task.
    struct Completion {
        /// The token of the claim.
        token: String,
        /// What came of it: any JSON, kept byte for byte; as large as a payload may be.
        result: Option<Value>,
        /// Up to 100 tasks that follow it up. They are created with its end, or it does not end.
        then: Option<Vec<TaskToCreate>>,
    }
}

body! {
    /// A worker gives a task up for good.
    struct FailureOfTask {
        /// The token of the claim.
        token: String,
        /// Why, for people; at most 2,000 characters.
        error: String,
    }
}

body! {
    /// A worker could not do a task this time.
    struct Nack {
        /// The token of the claim.
        token: String,
        /// In how many seconds it is tried again; by the policy of the queue where it is missing.
        delay_seconds: Option<u64>,
        /// Why, for people; at most 2,000 characters.
        reason: Option<String>,
    }
}

body! {
    /// A worker did not try a task.
    struct Abandonment {
        /// The token of the claim.
        token: String,
        /// In how many seconds another worker may have it; at once where it is missing.
        delay_seconds: Option<u64>,
    }
}

body! {
    /// Words about several tasks.
    struct Words {
        /// 1 to 100 words, each as for one task.
        items: Vec<Value>,
    }
}

/// Where a task stands after a word.
#[derive(Serialize, ToSchema)]
pub(super) struct WordedShown {
    /// The id of the task.
    id: String,
    /// Where the task stands.
    state: &'static str,
    /// How often it was claimed, abandoned claims left out.
    attempts: u64,
    /// Whether it stood there before: the word was said twice.
    repeated: bool,
    /// Whether it was cancelled: no claim of it is extended any more, and the worker should end it.
    cancelled: bool,
    /// When the claim runs out, in ISO 8601 with milliseconds, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_until: Option<String>,
    /// When it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    /// The tasks that follow it up.
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

/// What became of one of several words: where the task stands, or why nothing changed.
#[derive(Serialize, ToSchema)]
struct ItemShown {
    /// The status that a request of its own would have.
    status: u16,
    /// Where the task stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<WordedShown>,
    /// The code of the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

/// What became of several words.
#[derive(Serialize, ToSchema)]
struct ItemsShown {
    /// An answer to each word, in their order.
    items: Vec<ItemShown>,
}

/// Extends a claim, and keeps what the worker says of its progress.
#[utoipa::path(post, path = "/api/tasks/{id}/heartbeat", tag = "tasks", params(("id" = String, Path)),
    request_body = Heartbeat, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "the claim is over: stop working on it")
    ))]
async fn heartbeat(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_heartbeat).await
}

/// Ends a task with a result. Saying it twice is no error.
#[utoipa::path(post, path = "/api/tasks/{id}/complete", tag = "tasks", params(("id" = String, Path)),
    request_body = Completion, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "the claim is over, and nothing changed"),
        (status = 413, description = "the result is larger than the queue allows"),
        (status = 429, description = "the tasks that follow it up are too many; it did not end")
    ))]
async fn complete(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_completion).await
}

/// Gives a task up for good. Saying it twice is no error.
#[utoipa::path(post, path = "/api/tasks/{id}/fail", tag = "tasks", params(("id" = String, Path)),
    request_body = FailureOfTask, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "the claim is over, and nothing changed")
    ))]
async fn fail(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_failure).await
}

/// Gives a task back that could not be done this time: it is tried again, or dead after its last attempt.
#[utoipa::path(post, path = "/api/tasks/{id}/nack", tag = "tasks", params(("id" = String, Path)),
    request_body = Nack, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "the claim is over, and nothing changed")
    ))]
async fn nack(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_nack).await
}

/// Gives a task back that was not tried: no attempt is counted, but for the 101st time.
#[utoipa::path(post, path = "/api/tasks/{id}/abandon", tag = "tasks", params(("id" = String, Path)),
    request_body = Abandonment, responses(
        (status = 200, body = WordedShown),
        (status = 409, description = "the claim is over, and nothing changed")
    ))]
async fn abandon(front: Arc<Front>, request: Request) -> Answer {
    one(&front, &request, read_abandonment).await
}

/// Extends several claims at once.
#[utoipa::path(post, path = "/api/tasks/batch/heartbeat", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn heartbeat_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_heartbeat).await
}

/// Ends several tasks, each with its result.
#[utoipa::path(post, path = "/api/tasks/batch/complete", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn complete_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_completion).await
}

/// Gives several tasks back.
#[utoipa::path(post, path = "/api/tasks/batch/nack", tag = "tasks", request_body = Words,
    responses((status = 200, body = ItemsShown)))]
async fn nack_all(front: Arc<Front>, request: Request) -> Answer {
    all(&front, &request, read_nack).await
}

/// Reads a word from a body.
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

/// What a worker says.
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
    let proof = Some(ClaimProof::Hash(token.hash()));
    TaskWord { id: token.task, app: app.clone(), proof, step, body, then }
}

/// Checks that the caller's token is for the command of a task. A token for every command needs no look.
async fn check_command_of(front: &Front, request: &Request, id: &TaskId) -> Result<(), Problem> {
    if may_use(request, None).is_err() {
        seen(front, request, id).await?;
    }
    Ok(())
}

async fn one(front: &Front, request: &Request, read: Reader) -> Answer {
    let app = owner(request)?;
    let id: TaskId = request.id(Kind::NO_TASK)?;
    let said = read(front, request, &request.body)?;
    if said.0.task != id {
        return Err(Problem::invalid_field("token", "is that of another task"));
    }
    check_command_of(front, request, &id).await?;
    let answers = front.tasks.move_tasks(vec![word(&app.id, said)]).await;
    let answers = answers.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    match answers.into_iter().next() {
        Some(Ok(worded)) => Ok(json(StatusCode::OK, &WordedShown::of(&id, &worded))),
        Some(Err(refusal)) => Err(not_moved(&refusal)),
        None => Err(Problem::new(Kind::INTERNAL)),
    }
}

/// Words about several tasks: one that changes nothing does not keep the others from it.
async fn all(front: &Front, request: &Request, read: Reader) -> Answer {
    let app = owner(request)?;
    let mut raw = RawFields::of(&request.body)?;
    let items = raw.take("items")?;
    let mut fields = Fields::of_body::<Words>(&raw.rest())?;
    fields.is_kept_raw("items");
    fields.finish()?;
    let items = raw::items("items", items, TASK_BATCH_MAX)?;
    let said = items.into_iter().map(|item| read(front, request, item.get().as_bytes()));
    let said: Vec<_> = said.collect::<Result<_, Problem>>()?;
    let ids: Vec<TaskId> = said.iter().map(|(token, _)| token.task.clone()).collect();
    let mut may = Vec::with_capacity(ids.len());
    for id in &ids {
        may.push(check_command_of(front, request, id).await);
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

/// Why a word changed nothing, as an answer.
pub(super) fn not_moved(refusal: &WordRefusal) -> Problem {
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
    }
}

/// The body of a word without what is kept as it was sent, and its token.
fn fields<B: Body>(rest: &[u8]) -> Result<(Fields, Option<ClaimToken>), Problem> {
    let mut fields = Fields::of_body::<B>(rest)?;
    let text = fields.required_text("token", 1..=100);
    let token = text.parse().ok();
    if token.is_none() && !text.is_empty() {
        fields.refuse("token", "must be the token from the answer that gave the task");
    }
    Ok((fields, token))
}

/// The token, once nothing is wrong with the body.
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
