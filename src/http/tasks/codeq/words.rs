//! What workers say of their tasks: that they still work, could not do it this time, or did not try.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    deliverer::retry::RetryRules,
    model::task::{ClaimProof, MoveRefusal, Moved, TaskMove},
    ports::{CLAIM_DEFAULT, CLAIM_MAX, Task, TaskWord, WordRefusal, Worded},
};
use tidings_entity::{
    id::TaskId,
    kind::{RetryPolicy, TaskState},
};
use utoipa::ToSchema;

use super::{
    bodies::{Heartbeat, Nack, read, reason, seconds},
    id, older, owner, task, texts,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    tasks::words::not_moved,
};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_heartbeat, _, _>(Access::App(Permission::TasksClaim), heartbeat),
        route::<__path_abandon, _, _>(Access::App(Permission::TasksClaim), abandon),
        route::<__path_nack, _, _>(Access::App(Permission::TasksClaim), nack),
    ]
}

/// The claim was extended.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqExtended)]
struct ExtendedShown {
    /// Always true: a refusal has another status.
    ok: bool,
}

/// The task was given back.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqGivenBack)]
struct GivenBackShown {
    /// `requeued`, or `dlq` after the last attempt.
    status: &'static str,
    /// Seconds until the next attempt; only after `nack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u64>,
}

/// Extends the claim of the worker.
#[utoipa::path(post, path = "/v1/codeq/tasks/{id}/heartbeat", tag = "codeq", params(("id" = String, Path)),
    request_body = Heartbeat, responses((status = 200, body = ExtendedShown)))]
async fn heartbeat(front: Arc<Front>, request: Request) -> Answer {
    let body: Heartbeat = read(&request.body)?;
    let extended = async {
        let id = id(&request, texts::NOT_FOUND)?;
        held(&front, &request, &id, texts::NOT_FOUND).await?;
        let step = TaskMove::Heartbeat(seconds(body.extend_seconds, CLAIM_DEFAULT, CLAIM_MAX));
        let worded = say(&front, &request, &id, step, None).await?;
        // A task that is cancelled: its claim is not extended any more, and the worker should stop.
        if worded.moved == Moved::Flagged { Err(not_in_progress()) } else { Ok(()) }
    };
    extended.await.map_err(older)?;
    Ok(json(StatusCode::OK, &ExtendedShown { ok: true }))
}

/// Gives back a task that the worker did not try.
#[utoipa::path(post, path = "/v1/codeq/tasks/{id}/abandon", tag = "codeq", params(("id" = String, Path)),
    responses((status = 200, body = GivenBackShown)))]
async fn abandon(front: Arc<Front>, request: Request) -> Answer {
    let abandoned = async {
        let id = id(&request, texts::NOT_FOUND)?;
        held(&front, &request, &id, texts::NOT_FOUND).await?;
        say(&front, &request, &id, TaskMove::Abandon(Duration::ZERO), None).await
    };
    abandoned.await.map_err(older)?;
    Ok(json(StatusCode::OK, &GivenBackShown { status: "requeued", delay_seconds: None }))
}

/// Gives back a task that the worker could not do this time.
#[utoipa::path(post, path = "/v1/codeq/tasks/{id}/nack", tag = "codeq", params(("id" = String, Path)),
    request_body = Nack, responses((status = 200, body = GivenBackShown)))]
async fn nack(front: Arc<Front>, request: Request) -> Answer {
    let body: Nack = read(&request.body)?;
    let shown = async {
        let id = id(&request, texts::NOT_FOUND)?;
        let task = held(&front, &request, &id, texts::NOT_FOUND).await?;
        let delay = delay(&front, &task, body.delay_seconds).await?;
        let why = body.reason.as_deref().map(reason).filter(|reason| !reason.is_empty());
        let step = TaskMove::Nack { delay: Some(delay), reason: why };
        let worded = say(&front, &request, &id, step, None).await?;
        Ok(match worded.state {
            TaskState::Dead | TaskState::Cancelled => {
                GivenBackShown { status: "dlq", delay_seconds: Some(0) }
            }
            _ => GivenBackShown { status: "requeued", delay_seconds: Some(delay.as_secs()) },
        })
    };
    Ok(json(StatusCode::OK, &shown.await.map_err(older)?))
}

/// The wait until the next attempt, in whole seconds: the wait that the request asks for, or the wait of the
/// queue's policy with 2 to the power of `attempts`. Neither is longer than the longest wait of the queue.
async fn delay(front: &Front, task: &Task, asked: Option<i64>) -> Result<Duration, Problem> {
    let queue = front.tasks.queue(&task.app, &task.command).await;
    let queue = queue.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let (policy, base, cap) = queue.settings.backoff();
    if let Some(asked) = asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|asked| *asked > 0) {
        return Ok(Duration::from_secs(asked).min(cap));
    }
    let rules = RetryRules { policy, base, cap, window: cap };
    let wait = rules.wait(tries(policy, task.attempts), None, &*front.random);
    Ok(Duration::from_secs(wait.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)))
}

/// The number of failures for which the policy gives codeQ's wait: its exponent is the number of attempts,
/// and that of tasks is one less.
fn tries(policy: RetryPolicy, attempts: u64) -> u32 {
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX).max(1);
    match policy {
        RetryPolicy::Fixed | RetryPolicy::Linear => attempts,
        RetryPolicy::Exponential | RetryPolicy::ExpFullJitter | RetryPolicy::ExpEqualJitter => {
            attempts.saturating_add(1)
        }
    }
}

/// A task that the caller's identity has claimed.
pub(super) async fn held(
    front: &Front,
    request: &Request,
    id: &TaskId,
    missing: &'static str,
) -> Result<Task, Problem> {
    let task = task(front, request, id, missing).await?;
    if task.state != TaskState::Claimed {
        return Err(not_in_progress());
    }
    if task.worker.as_ref() != Some(&request.actor) {
        return Err(Problem::new(Kind::PERMISSION_REQUIRED).saying(texts::NOT_OWNER));
    }
    Ok(task)
}

fn not_in_progress() -> Problem {
    Problem::new(Kind::CONFLICT).saying(texts::NOT_IN_PROGRESS)
}

/// Moves a task whose claim the caller's identity has.
pub(super) async fn say(
    front: &Front,
    request: &Request,
    id: &TaskId,
    step: TaskMove,
    body: Option<String>,
) -> Result<Worded, Problem> {
    let proof = Some(ClaimProof::Worker(request.actor.clone()));
    let app = owner(request)?.id.clone();
    let word = TaskWord { id: id.clone(), app, proof, step, body, then: Vec::new() };
    let answers = front.tasks.move_tasks(vec![word]).await;
    let answers = answers.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    match answers.into_iter().next() {
        // Another request of this worker came first.
        Some(Ok(Worded { moved: Moved::Before, .. })) => Err(not_in_progress()),
        Some(Ok(worded)) => Ok(worded),
        Some(Err(WordRefusal::Move(MoveRefusal::ClaimLost | MoveRefusal::State(_)))) => {
            Err(not_in_progress())
        }
        Some(Err(refusal)) => Err(not_moved(&refusal)),
        None => Err(Problem::new(Kind::INTERNAL)),
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::QueueSettings;

    use super::*;
    use crate::machine::MachineRandom;

    #[test]
    fn the_waits_are_those_of_the_older_contract() {
        let (_, base, cap) = QueueSettings::default().backoff();
        assert_eq!((base.as_secs(), cap.as_secs()), (5, 900));
        let wait = |policy, attempts| {
            let rules = RetryRules { policy, base, cap, window: cap };
            rules.wait(tries(policy, attempts), None, &MachineRandom).as_secs()
        };
        for (policy, at_3, at_20) in
            [(RetryPolicy::Fixed, 5, 5), (RetryPolicy::Linear, 15, 100), (RetryPolicy::Exponential, 40, 900)]
        {
            assert_eq!((wait(policy, 3), wait(policy, 20)), (at_3, at_20), "{policy:?}");
        }
        for (policy, least) in [(RetryPolicy::ExpFullJitter, 0), (RetryPolicy::ExpEqualJitter, 20)] {
            let drawn: Vec<u64> = (0..1_000).map(|_| wait(policy, 3)).collect();
            let (first, last) = (drawn.iter().min().expect("some"), drawn.iter().max().expect("some"));
            assert!((least..=40).contains(first) && *last <= 40, "{policy:?}: {first} to {last}");
            assert!(first - least <= 2 && *last >= 38, "{policy:?} spreads: {first} to {last}");
        }
    }
}
