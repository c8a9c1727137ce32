//! Claiming tasks. The answer has no token: the identity of the caller proves the claim later.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tidings_actors::ports::{
    CLAIM_COMMANDS_MAX, CLAIM_DEFAULT, CLAIM_MAX, ClaimRequest, QUEUES_MAX, QueueFilter,
};
use utoipa::ToSchema;

use super::{
    bodies::{ClaimOfMany, ClaimToMake, invalid, read, seconds},
    check_command, older, owner,
    shown::TaskShown,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        lifecycle::Lifecycle,
        request::Request,
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
    tasks::claims::{answer, given, nothing},
};

/// The longest wait for a task.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most tasks of one claim.
const COUNT_MAX: usize = 10;

/// The routes of this file.
pub(super) fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    let access = || Access::App(Permission::TasksClaim);
    vec![
        route_with::<__path_claim, _, _, _>(access(), lifecycle, claim),
        route_with::<__path_claim_batch, _, _, _>(access(), lifecycle, claim_batch),
    ]
}

/// Tasks that a worker claimed.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqClaimed)]
struct ClaimedList {
    /// The tasks, in the order in which they waited.
    tasks: Vec<TaskShown>,
}

/// Claims the first task in line for a worker.
#[utoipa::path(post, path = "/v1/codeq/tasks/claim", tag = "codeq", request_body = ClaimToMake, responses(
    (status = 200, body = TaskShown),
    (status = 204, description = "No task is ready.")
))]
async fn claim(front: Arc<Front>, lifecycle: Lifecycle, request: Request) -> Answer {
    let body: ClaimToMake = read(&request.body)?;
    let wait = seconds(body.wait_seconds, Duration::ZERO, WAIT_MAX);
    let wanted = wanted(&front, &request, body.commands, body.lease_seconds, 1).await.map_err(older)?;
    let Some(wanted) = wanted else { return Ok(nothing()) };
    let given = given(&front, &lifecycle, &request, wanted, wait.as_secs()).await.map_err(older)?;
    let Some(given) = given else { return Ok(nothing()) };
    let shown = |tasks: Vec<_>| serde_json::to_vec(&shown(tasks).pop());
    answer(&front, given, shown).await
}

/// Claims up to 10 tasks, and does not wait.
#[utoipa::path(post, path = "/v1/codeq/tasks/claim/batch", tag = "codeq", request_body = ClaimOfMany,
    responses(
        (status = 200, body = ClaimedList),
        (status = 204, description = "No task is ready.")
    ))]
async fn claim_batch(front: Arc<Front>, lifecycle: Lifecycle, request: Request) -> Answer {
    let body: ClaimOfMany = read(&request.body)?;
    let count = usize::try_from(body.count).ok().filter(|count| (1..=COUNT_MAX).contains(count));
    let count = count.ok_or_else(|| invalid(format!("count must be between 1 and {COUNT_MAX}")))?;
    let wanted = wanted(&front, &request, body.commands, body.lease_seconds, count).await.map_err(older)?;
    let Some(wanted) = wanted else { return Ok(nothing()) };
    let given = given(&front, &lifecycle, &request, wanted, 0).await.map_err(older)?;
    let Some(given) = given else { return Ok(nothing()) };
    answer(&front, given, |tasks| serde_json::to_vec(&ClaimedList { tasks: shown(tasks) })).await
}

fn shown(tasks: Vec<tidings_actors::ports::ClaimedTask>) -> Vec<TaskShown> {
    tasks.into_iter().map(|claimed| TaskShown::of(&claimed.task, claimed.payload)).collect()
}

/// The claim that a worker asks for; `None`: it names no command, and there is none that it could mean.
async fn wanted(
    front: &Front,
    request: &Request,
    asked: Option<Vec<String>>,
    lease: Option<i64>,
    count: usize,
) -> Result<Option<ClaimRequest>, Problem> {
    let commands = commands(front, request, asked).await?;
    if commands.is_empty() {
        return Ok(None);
    }
    Ok(Some(ClaimRequest {
        app: owner(request)?.id.clone(),
        commands,
        count,
        claim: seconds(lease, CLAIM_DEFAULT, CLAIM_MAX),
        worker: request.actor.clone(),
    }))
}

/// The commands that a worker asks for. Where it names none: those of its token, and with a token for every
/// command, or for globs, those of the app's queues that the token is for.
pub(super) async fn commands(
    front: &Front,
    request: &Request,
    asked: Option<Vec<String>>,
) -> Result<Vec<String>, Problem> {
    let mut commands = asked.unwrap_or_default();
    if commands.is_empty() {
        let of_token = request.powers.commands.entries().unwrap_or_default();
        let is_plain = !of_token.is_empty() && !of_token.iter().any(|entry| entry.contains('*'));
        commands = if is_plain { of_token.to_vec() } else { of_queues(front, request).await? };
    }
    commands.sort();
    commands.dedup();
    if commands.len() > CLAIM_COMMANDS_MAX {
        return Err(invalid(format!("at most {CLAIM_COMMANDS_MAX} commands")));
    }
    commands.iter().try_for_each(|command| check_command(request, command))?;
    Ok(commands)
}

/// The commands of the first queues among those of the app that the caller may use.
async fn of_queues(front: &Front, request: &Request) -> Result<Vec<String>, Problem> {
    let app = owner(request)?.id.clone();
    let filter = QueueFilter { app: Some(app), query: None };
    // The queues of a token for some commands may come after any number of others.
    let most = if request.may_use("") { CLAIM_COMMANDS_MAX as u64 } else { QUEUES_MAX };
    let queues = front.tasks.queues(&filter, None, most).await;
    let queues = queues.map_err(|error| Problem::of_store(error, Kind::NO_QUEUE))?;
    let commands = queues.into_iter().map(|queue| queue.command);
    Ok(commands.filter(|command| request.may_use(command)).take(CLAIM_COMMANDS_MAX).collect())
}
