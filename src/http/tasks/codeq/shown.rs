//! Tasks, results and queues in the words of codeQ.

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    model::codeq,
    ports::{Artifact, Queue, Task},
};
use tidings_entity::kind::TaskState;
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// A task as clients of codeQ read it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqTask)]
pub(super) struct TaskShown {
    /// Id of the task.
    id: String,
    /// Command of the task.
    command: String,
    /// Payload: a text that holds the JSON, byte for byte as it was created.
    payload: String,
    /// Priority, 0 to 9; missing where it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    priority: u64,
    /// Web address that receives a message when the task ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// `PENDING`, `IN_PROGRESS`, `COMPLETED` or `FAILED`.
    status: &'static str,
    /// `PENDING_LIST`, `DELAYED_ZSET`, `INPROG_SET`, `DLQ_SET` or `NONE`.
    last_known_location: &'static str,
    /// Identity of the worker that has the task, or that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    /// When the claim runs out.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<String>,
    /// Number of claims that were not abandoned; missing where it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    attempts: u64,
    /// Number of attempts after which the task is dead.
    max_attempts: u64,
    /// Error or reason that the last worker reported, `LEASE_EXPIRED`, `MAX_ATTEMPTS` or `CANCELLED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Id of the app.
    tenant_id: String,
    /// When the task was created.
    created_at: String,
    /// When the task last changed.
    updated_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl TaskShown {
    pub(super) fn of(task: &Task, payload: String) -> Self {
        Self {
            id: task.id.to_string(),
            command: task.command.clone(),
            payload,
            priority: u64::from(task.priority),
            webhook: task.callback.as_deref().map(codeq::address).map(str::to_owned),
            status: codeq::status(task.state),
            last_known_location: location(task.state),
            worker_id: task.worker.clone(),
            lease_until: task.wake_at.filter(|_| task.state == TaskState::Claimed).map(iso),
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            error: codeq::error(task.state, task.error.as_deref()),
            tenant_id: task.app.to_string(),
            created_at: iso(task.created_at),
            updated_at: iso(task.updated_at),
        }
    }
}

/// The part of a queue in which codeQ would keep a task in this state.
fn location(state: TaskState) -> &'static str {
    match state {
        TaskState::Ready | TaskState::Aside => "PENDING_LIST",
        TaskState::Waiting => "DELAYED_ZSET",
        TaskState::Claimed => "INPROG_SET",
        TaskState::Dead => "DLQ_SET",
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled => "NONE",
    }
}

/// A file that came with a result.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqArtifactShown)]
pub(super) struct ArtifactShown {
    /// Name of the artifact.
    name: String,
    /// The address that the worker gave, or the path of this server at which the bytes are.
    url: String,
}

impl ArtifactShown {
    /// `link`: the address of a file that is kept elsewhere.
    pub(super) fn of(artifact: &Artifact, link: Option<String>) -> Self {
        let path = || format!("/api/tasks/{}/artifacts/{}", artifact.task, artifact.name);
        Self { name: artifact.name.clone(), url: link.unwrap_or_else(path) }
    }
}

/// The result of a task.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqResultRecord)]
pub(super) struct ResultShown {
    /// Id of the task.
    pub(super) task_id: String,
    /// How the task ended: `COMPLETED` or `FAILED`.
    pub(super) status: &'static str,
    /// Result that the worker reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) result: Option<Box<RawValue>>,
    /// Error that the worker reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Files that came with the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) artifacts: Vec<ArtifactShown>,
    /// When the task ended.
    pub(super) completed_at: String,
}

/// A task and its result.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqTaskAndResult)]
pub(super) struct TaskAndResult {
    pub(super) task: TaskShown,
    pub(super) result: ResultShown,
}

/// The numbers of a queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqQueue)]
pub(super) struct QueueShown {
    /// Command of the queue.
    pub(super) command: String,
    /// Tasks that may be claimed.
    pub(super) ready: u64,
    /// Tasks that wait until they are due.
    pub(super) delayed: u64,
    /// Tasks that workers have.
    pub(super) in_progress: u64,
    /// Tasks whose attempts are used up.
    pub(super) dlq: u64,
}

impl QueueShown {
    /// A queue of this command; `None`: there is none, so nothing is in it.
    pub(super) fn of(command: &str, queue: Option<&Queue>) -> Self {
        let count = |state: TaskState| {
            let counts = queue.into_iter().flat_map(|queue| &queue.counts);
            counts.filter(|(other, _)| *other == state).map(|(_, count)| *count).sum::<u64>()
        };
        Self {
            command: command.to_owned(),
            ready: count(TaskState::Ready) + count(TaskState::Aside),
            delayed: count(TaskState::Waiting),
            in_progress: count(TaskState::Claimed),
            dlq: count(TaskState::Dead),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_and_a_place() {
        let words = TaskState::ALL
            .iter()
            .map(|state| format!("{} {} {}", state.as_str(), codeq::status(*state), location(*state)));
        expect_test::expect![[r#"
            waiting PENDING DELAYED_ZSET
            ready PENDING PENDING_LIST
            claimed IN_PROGRESS INPROG_SET
            succeeded COMPLETED NONE
            failed FAILED NONE
            dead FAILED DLQ_SET
            aside PENDING PENDING_LIST
            cancelled FAILED NONE"#]]
        .assert_eq(&words.collect::<Vec<_>>().join("\n"));
    }
}
