//! Numbers of queues, and the removal of tasks whose time is over.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{QUEUES_MAX, Queue, QueueFilter, StoreError};
use utoipa::ToSchema;

use super::{
    bodies::{Cleanup, invalid, read_optional},
    older, owner,
    shown::QueueShown,
};
use crate::http::{
    bodies::{
        moment::{iso, parsed},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// Tasks that a cleanup removes where it names no limit.
const CLEANUP_DEFAULT: u64 = 1_000;
/// Most tasks that one cleanup removes.
const CLEANUP_MAX: u64 = 10_000;
/// Tasks that are removed in one transaction.
const CLEANUP_STEP: u64 = 500;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_queues, _, _>(Access::App(Permission::QueuesRead), queues),
        route::<__path_queue, _, _>(Access::App(Permission::QueuesRead), queue),
        route::<__path_cleanup, _, _>(Access::App(Permission::QueuesPurge), cleanup),
        route::<__path_raft, _, _>(Access::Anybody, raft),
    ]
}

/// The numbers of all queues of the app, by the names of codeQ's keys. Tasks that may be claimed are counted
/// under priority 0 whatever their priority.
#[utoipa::path(get, path = "/v1/codeq/admin/queues", tag = "codeq",
    responses((status = 200, body = Object)))]
async fn queues(front: Arc<Front>, request: Request) -> Answer {
    let filter = QueueFilter { app: Some(owner(&request)?.id.clone()), query: None };
    let queues = front.tasks.queues(&filter, None, QUEUES_MAX).await;
    let queues = queues.map_err(|error| older(Problem::of_store(error, Kind::NO_QUEUE)))?;
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for queue in queues.iter().filter(|queue| request.may_use(&queue.command)) {
        for (key, number) in keys(queue) {
            *numbers.entry(key).or_default() += number;
        }
    }
    Ok(json(StatusCode::OK, &numbers))
}

fn keys(queue: &Queue) -> [(String, u64); 4] {
    let shown = QueueShown::of(&queue.command, Some(queue));
    let key = |part: &str| format!("codeq:q:{}:{part}", queue.command.to_lowercase());
    [
        (key("pending:0"), shown.ready),
        (key("delayed"), shown.delayed),
        (key("inprog"), shown.in_progress),
        (key("dlq"), shown.dlq),
    ]
}

/// The numbers of a queue; those of a queue that is not there are 0.
#[utoipa::path(get, path = "/v1/codeq/admin/queues/{command}", tag = "codeq",
    params(("command" = String, Path)), responses((status = 200, body = QueueShown)))]
async fn queue(front: Arc<Front>, request: Request) -> Answer {
    let command = request.parameters.first().map_or("", String::as_str);
    super::check_command(&request, command)?;
    let queue = match front.tasks.queue(&owner(&request)?.id, command).await {
        Ok(queue) => Some(queue),
        Err(StoreError::NotFound) => None,
        Err(error) => return Err(older(Problem::of_store(error, Kind::NO_QUEUE))),
    };
    Ok(json(StatusCode::OK, &QueueShown::of(command, queue.as_ref())))
}

/// What a cleanup removed.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqCleaned)]
struct CleanedShown {
    /// Number of tasks that were removed.
    deleted: u64,
    /// The moment that counted.
    before: String,
    /// The limit that counted.
    limit: u64,
}

/// Removes tasks of the app that have ended and whose retention is over. Retention removes them by itself, a
/// little later.
#[utoipa::path(post, path = "/v1/codeq/admin/tasks/cleanup", tag = "codeq", request_body = Cleanup,
    responses((status = 200, body = CleanedShown)))]
async fn cleanup(front: Arc<Front>, request: Request) -> Answer {
    let body: Cleanup = read_optional(&request.body)?;
    if !request.may_use("") {
        return Err(Problem::new(Kind::PERMISSION_REQUIRED).saying(super::texts::NOT_ALLOWED));
    }
    let app = owner(&request)?.id.clone();
    let limit = body.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(CLEANUP_DEFAULT).min(CLEANUP_MAX);
    let now = front.clock.now();
    let before = match body.before.filter(|text| !text.is_empty()) {
        None => now,
        // A moment that is still to come means now: tasks whose retention is not over stay.
        Some(text) => parsed(&text).ok_or_else(|| invalid("invalid before"))?.min(now),
    };
    let mut deleted = 0;
    while deleted < limit {
        let step = CLEANUP_STEP.min(limit - deleted);
        let gone = front.tasks.forget_tasks_of(&app, before, step).await;
        let gone = gone.map_err(|error| older(Problem::of_store(error, Kind::NO_TASK)))?;
        deleted += gone;
        if gone < step {
            break;
        }
    }
    Ok(json(StatusCode::OK, &CleanedShown { deleted, before: iso(before), limit }))
}

/// The groups of replicas that elect a leader.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqRaft)]
struct RaftShown {
    /// Always false: no replica is a leader, and each takes writes.
    enabled: bool,
    /// Always 0: there are no groups.
    num_groups: u64,
    /// Always empty: there are no groups.
    groups: Vec<String>,
}

/// Tells that replicas elect no leader: clients may send each request to any replica.
#[utoipa::path(get, path = "/v1/codeq/raft/status", tag = "codeq",
    responses((status = 200, body = RaftShown)))]
async fn raft(_front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &RaftShown { enabled: false, num_groups: 0, groups: Vec::new() }))
}
