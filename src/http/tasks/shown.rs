//! Tasks and queues as answers show them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    model::codeq,
    ports::{Artifact, PastClaim, Queue, QueueSettings, Task, TaskBodies, TaskChange},
    time::Timestamp,
};
use tidings_entity::kind::TaskState;
use utoipa::ToSchema;

use super::rates::QueueRatesShown;
use crate::http::bodies::{moment::iso, operation::operation};

/// A task, without its payload and result.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskShown {
    /// Id of the task, `tsk_...`.
    id: String,
    /// Command of the task, which names its queue.
    command: String,
    /// State: `waiting`, `ready`, `claimed`, `succeeded`, `failed`, `dead`, `aside` (set aside by a pause) or
    /// `cancelled`.
    state: &'static str,
    /// Priority, 0 to 9; 9 is claimed first.
    priority: u8,
    /// Number of claims that were not abandoned.
    attempts: u64,
    /// Number of attempts after which the task is dead.
    max_attempts: u64,
    /// When the task is due, in ISO 8601 with milliseconds, UTC. Only while the task is `waiting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    /// When the claim runs out. Only while the task is `claimed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_until: Option<String>,
    /// When the task is removed. Only after the task has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_until: Option<String>,
    /// Id of the token of the worker that has the task, or that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// Whether the task will be cancelled when its claim ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancelling: bool,
    /// Error or reason that the last worker reported, or why the task is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Cause of the task: a kind and a name, such as `person` and the id of a token.
    origin: String,
    /// The change that the task is about. Only of a task that a watch made.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<ChangeOfTask>,
    /// Id of the task whose completion created this task.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// Web address that receives a message when the task ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// When the task was created.
    created_at: String,
    /// When the task last changed.
    updated_at: String,
    /// When the task was last claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    /// When the task ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

/// The change of a watch that a task is about. The end of the task settles this change and removes the task;
/// the delivery stays.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeOfTask {
    /// Id of the watch, `repo_...`.
    repository_id: String,
    /// Id of the branch, `cur_...`.
    cursor: String,
    /// Full name of the branch.
    branch: String,
    /// Number of the round.
    round: i64,
    /// Position of the change in the round, from 0.
    position: u64,
    /// Commit that the round leads to. Null: the branch is gone.
    commit: Option<String>,
    /// Id of the delivery, as `event.id` in the payload.
    delivery_id: String,
    /// Path of the file. Bytes that are not UTF-8 are replaced.
    path: String,
    /// Bytes of the path in base64. Only if the path is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// Operation of the change: `create`, `update`, `delete`, or `round` for a whole round that is one task
    /// and has an empty path.
    operation: &'static str,
}

impl ChangeOfTask {
    fn of(change: TaskChange) -> Self {
        Self {
            repository_id: change.watch.to_string(),
            cursor: change.cursor.to_string(),
            branch: change.branch,
            round: change.round,
            position: change.position,
            commit: change.commit.map(|commit| commit.to_string()),
            delivery_id: change.delivery.to_string(),
            path: String::from_utf8_lossy(&change.path).into_owned(),
            path_base64: str::from_utf8(&change.path).is_err().then(|| BASE64.encode(&change.path)),
            operation: operation(change.operation, &change.path),
        }
    }
}

impl TaskShown {
    /// A task, with its change where a watch made it.
    pub(super) fn of(task: &Task, change: Option<TaskChange>) -> Self {
        let is_over = task.state.has_ended();
        let at = |state| task.wake_at.filter(|_| task.state == state).map(iso);
        Self {
            id: task.id.to_string(),
            command: task.command.clone(),
            state: task.state.as_str(),
            priority: task.priority,
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            run_at: at(TaskState::Waiting),
            claimed_until: at(TaskState::Claimed),
            kept_until: task.wake_at.filter(|_| is_over).map(iso),
            worker: task.worker.clone(),
            cancelling: task.is_flagged,
            error: task.error.clone(),
            origin: format!("{} {}", task.origin.kind, task.origin.name),
            change: change.map(ChangeOfTask::of),
            webhook: task.callback.as_deref().map(codeq::address).map(str::to_owned),
            parent: task.parent.as_ref().map(ToString::to_string),
            created_at: iso(task.created_at),
            updated_at: iso(task.updated_at),
            claimed_at: task.claimed_at.map(iso),
            ended_at: task.ended_at.map(iso),
        }
    }
}

/// A task with its payload, result and progress.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeTask {
    #[serde(flatten)]
    task: TaskShown,
    /// Payload of the task, byte for byte as it was created. Null with `payload_left_out`.
    #[schema(value_type = serde_json::Value)]
    payload: Option<Box<RawValue>>,
    /// Why the payload is missing: `permission` (the task is a change of a watch, and the caller lacks
    /// `contents:read` and `tasks:claim`).
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_left_out: Option<&'static str>,
    /// Result that the worker reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    /// Latest progress that the worker reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    progress: Option<Box<RawValue>>,
    /// Files that belong to the task, by name.
    artifacts: Vec<ArtifactShown>,
    /// Its newest claims, oldest first, at most 21.
    claims: Vec<ClaimOfTask>,
}

/// A claim of a task.
#[derive(Serialize, ToSchema)]
pub(super) struct ClaimOfTask {
    /// Id of the token of the worker.
    worker: String,
    /// When the claim began.
    claimed_at: String,
    /// When the claim ended. Missing: the worker has the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// How the claim ended: `completed`, `failed`, `nacked`, `abandoned`, `expired` or `voided` (by a
    /// restore of the database).
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    /// Reason that the worker gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ClaimOfTask {
    fn of(claim: PastClaim) -> Self {
        Self {
            worker: claim.worker,
            claimed_at: iso(claim.claimed_at),
            ended_at: claim.ended.map(|(at, _)| iso(at)),
            end: claim.ended.map(|(_, end)| end.as_str()),
            reason: claim.reason,
        }
    }
}

impl WholeTask {
    pub(super) fn of(
        task: TaskShown,
        bodies: TaskBodies,
        is_withheld: bool,
        artifacts: Vec<ArtifactShown>,
        claims: Vec<PastClaim>,
    ) -> Self {
        Self {
            claims: claims.into_iter().map(ClaimOfTask::of).collect(),
            task,
            payload: raw(Some(bodies.payload)),
            payload_left_out: is_withheld.then_some("permission"),
            result: raw(bodies.result),
            progress: raw(bodies.progress),
            artifacts,
        }
    }
}

/// A file that belongs to a task.
#[derive(Serialize, ToSchema)]
pub(super) struct ArtifactShown {
    /// The name of the artifact, unique within its task.
    name: String,
    /// The size in bytes.
    bytes: u64,
    /// The SHA-256 of its bytes, 64 hexadecimal digits.
    sha256: String,
    /// The media type that its sender named.
    content_type: String,
    /// When it was stored, in ISO 8601 with milliseconds, UTC.
    created_at: String,
}

impl ArtifactShown {
    pub(super) fn of(artifact: &Artifact) -> Self {
        Self {
            name: artifact.name.clone(),
            bytes: artifact.bytes,
            sha256: artifact.sha256.to_string(),
            content_type: artifact.content_type.clone(),
            created_at: iso(artifact.created_at),
        }
    }
}

/// JSON as it was sent.
pub(in crate::http) fn raw(text: Option<String>) -> Option<Box<RawValue>> {
    RawValue::from_string(text?).ok()
}

/// A queue with its settings and counts.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueShown {
    /// Command of the tasks of the queue.
    command: String,
    /// Whether the queue is paused: no task is handed out.
    paused: bool,
    /// Number of tasks in each state.
    counts: BTreeMap<&'static str, u64>,
    /// Bytes of the payloads of the tasks that have not ended.
    bytes: u64,
    /// Seconds since the next task to be claimed was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ready_seconds: Option<u64>,
    /// When the first task was created, or the queue was declared.
    created_at: String,
    /// Settings that differ from their defaults.
    settings: QueueSettingsShown,
    /// The settings with their defaults. A setting that is missing sets no limit. Only of one queue that is
    /// asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_effect: Option<QueueSettingsShown>,
    /// Rates of the last hour. Only of one queue that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<QueueRatesShown>,
}

/// Settings of a queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) struct QueueSettingsShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_claimed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_base_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_cap_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ageing_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_retention_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
}

impl QueueShown {
    pub(super) fn of(queue: &Queue, now: Timestamp) -> Self {
        Self {
            command: queue.command.clone(),
            paused: queue.is_paused,
            counts: queue.counts.iter().map(|(state, count)| (state.as_str(), *count)).collect(),
            bytes: queue.bytes,
            oldest_ready_seconds: queue.oldest_ready.map(|at| now.since(at).as_secs()),
            created_at: iso(queue.created_at),
            settings: QueueSettingsShown::of(&queue.settings),
            in_effect: None,
            rates: None,
        }
    }

    /// With the defaults of its settings and its rates.
    pub(super) fn of_one(queue: &Queue, now: Timestamp) -> Self {
        let in_effect = Some(QueueSettingsShown::of(&queue.settings.in_effect()));
        Self { in_effect, rates: Some(QueueRatesShown::of(queue)), ..Self::of(queue, now) }
    }
}

impl QueueSettingsShown {
    fn of(settings: &QueueSettings) -> Self {
        let seconds = |milliseconds: Option<u64>| milliseconds.map(|number| number / 1_000);
        Self {
            max_claimed: settings.max_claimed,
            rate: settings.rate,
            max_attempts: settings.max_attempts,
            retry_policy: settings.retry_policy.map(|policy| policy.as_str()),
            retry_base_seconds: seconds(settings.retry_base_ms),
            retry_cap_seconds: seconds(settings.retry_cap_ms),
            timeout_seconds: seconds(settings.timeout_ms),
            ageing_seconds: seconds(settings.ageing_ms),
            retention_seconds: seconds(settings.retention_ms),
            dead_retention_seconds: seconds(settings.dead_retention_ms),
            payload_bytes: settings.payload_bytes,
        }
    }
}
