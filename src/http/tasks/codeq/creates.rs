//! Creating tasks, one or many. Each task of a batch is created or refused by itself.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{model::codeq, ports::Task};
use tidings_entity::kind::TaskState;
use utoipa::ToSchema;

use super::{
    bodies::{BATCH_MAX, TaskToCreate, TasksToCreate, address, invalid, read},
    check_command, older, owner,
    shown::TaskShown,
};
use crate::http::{
    bodies::{
        moment::parsed,
        problem::{Kind, Problem},
    },
    door::{
        idempotency::KEY_CHARACTERS_MAX,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    tasks::{
        creates::{ATTEMPTS_MAX, DELAY_MAX, Draft, check_command as check_name},
        refused,
    },
};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_create, _, _>(Access::App(Permission::TasksCreate), create),
        route::<__path_create_batch, _, _>(Access::App(Permission::TasksCreate), create_batch),
    ]
}

/// One of several tasks: the task, or why it was not created.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqCreated)]
struct CreatedShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskShown>,
    /// Why the task was not created.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The results of a request for several tasks.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqCreatedList)]
struct CreatedList {
    /// One result for each task, in the order of the request.
    results: Vec<CreatedShown>,
}

/// Creates a task for workers.
#[utoipa::path(post, path = "/v1/codeq/tasks", tag = "codeq", request_body = TaskToCreate,
    responses((status = 202, body = TaskShown)))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let made = async { made(&front, &request, read(&request.body)?).await };
    Ok(json(StatusCode::ACCEPTED, &made.await.map_err(older)?))
}

/// Creates several tasks. A task that is refused does not stop the others.
#[utoipa::path(post, path = "/v1/codeq/tasks/batch", tag = "codeq", request_body = TasksToCreate,
    responses((status = 200, body = CreatedList)))]
async fn create_batch(front: Arc<Front>, request: Request) -> Answer {
    let TasksToCreate { tasks } = read(&request.body)?;
    if !(1..=BATCH_MAX).contains(&tasks.len()) {
        return Err(invalid(format!("tasks must have 1 to {BATCH_MAX} items")));
    }
    let made = join_all(tasks.into_iter().map(|task| made(&front, &request, task))).await;
    let results = made.into_iter().map(|made| match made {
        Ok(task) => CreatedShown { task: Some(task), error: None },
        Err(problem) => CreatedShown { task: None, error: Some(problem.reason()) },
    });
    Ok(json(StatusCode::OK, &CreatedList { results: results.collect() }))
}

async fn made(front: &Front, request: &Request, asked: TaskToCreate) -> Result<TaskShown, Problem> {
    let app = owner(request)?.id.clone();
    let draft = draft(front, asked)?;
    check_command(request, &draft.command)?;
    let payload = draft.payload.clone();
    let created = front.tasks.create_tasks(&app, vec![draft.task(front, request)]).await;
    let created = created.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let created = created.map_err(|refusal| refused(&refusal, None))?;
    let [created] = &created[..] else { return Err(Problem::new(Kind::INTERNAL)) };
    let task = front.tasks.task(&app, &created.id).await;
    let mut task = task.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    if created.is_new {
        task = as_created(task);
    }
    Ok(TaskShown::of(&task, payload))
}

/// A new task as it was created: a waiting worker may have it by now.
fn as_created(task: Task) -> Task {
    match task.state {
        TaskState::Waiting | TaskState::Ready | TaskState::Aside => task,
        _ => Task { state: TaskState::Ready, attempts: 0, worker: None, wake_at: None, error: None, ..task },
    }
}

fn draft(front: &Front, asked: TaskToCreate) -> Result<Draft, Problem> {
    let command = asked.command.trim().to_owned();
    check_name(&command).map_err(|reason| invalid(format!("command {reason}")))?;
    // `null` is read as a missing field.
    let payload = asked.payload.ok_or_else(|| invalid("payload is required"))?.get().to_owned();
    let run_at = asked.run_at.filter(|text| !text.is_empty());
    if run_at.as_deref().is_some_and(|text| parsed(text).is_none()) {
        return Err(invalid("invalid runAt"));
    }
    let delay = match asked.delay_seconds {
        Some(seconds) => {
            let seconds = u64::try_from(seconds).map_err(|_| invalid("invalid delaySeconds"))?;
            Some(Duration::from_secs(seconds.min(DELAY_MAX)))
        }
        None => None,
    };
    let key = asked.idempotency_key.filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| key.chars().count() > KEY_CHARACTERS_MAX) {
        return Err(invalid(format!("idempotencyKey must have at most {KEY_CHARACTERS_MAX} characters")));
    }
    let attempts = asked.max_attempts.and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0);
    Ok(Draft {
        command,
        payload,
        priority: u8::try_from(asked.priority.unwrap_or(0).clamp(0, 9)).unwrap_or(9),
        max_attempts: attempts.and_then(|most| u32::try_from(most.min(ATTEMPTS_MAX)).ok()),
        delay: delay.filter(|_| run_at.is_none()),
        run_at,
        key,
        webhook: address(front, "webhook", asked.webhook)?.as_deref().map(codeq::stored),
    })
}
