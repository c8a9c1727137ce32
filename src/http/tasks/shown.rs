//! Tasks and queues as answers show them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    ports::{Queue, QueueSettings, Task, TaskBodies},
    time::Timestamp,
};
use tidings_entity::kind::TaskState;
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// A task without what it works on.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskShown {
    /// The id of the task, `tsk_...`.
    id: String,
    /// The command that names its queue.
    command: String,
    /// `waiting`, `ready`, `claimed`, `succeeded`, `failed`, `dead`, `aside` or `cancelled`.
    state: &'static str,
    /// The priority, 0 to 9; 9 goes first.
    priority: u8,
    /// How often it was claimed, abandoned claims left out.
    attempts: u64,
    /// After how many attempts it is dead.
    max_attempts: u64,
    /// When it is due, in ISO 8601 with milliseconds, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    /// When its claim runs out.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_until: Option<String>,
    /// When it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_until: Option<String>,
    /// Who has it, or ended it: the id of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// Whether it is cancelled as soon as its claim ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancelling: bool,
    /// What its last worker said, or why it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What it comes from: `person` and the id of a token, for example.
    origin: String,
    /// The task that it follows up.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// The address that is told of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// When it was created.
    created_at: String,
    /// When it changed last.
    updated_at: String,
    /// When it was claimed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    /// When the task ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

impl TaskShown {
    pub(super) fn of(task: &Task) -> Self {
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
            webhook: task.callback.clone(),
            parent: task.parent.as_ref().map(ToString::to_string),
            created_at: iso(task.created_at),
            updated_at: iso(task.updated_at),
            claimed_at: task.claimed_at.map(iso),
            ended_at: task.ended_at.map(iso),
        }
    }
}

/// A task with what it works on and what came of it.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeTask {
    #[serde(flatten)]
    task: TaskShown,
    /// What the worker is given, byte for byte as it was created.
    #[schema(value_type = Object)]
    payload: Option<Box<RawValue>>,
    /// What the worker completed it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    result: Option<Box<RawValue>>,
    /// What the worker said last of its progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    progress: Option<Box<RawValue>>,
}

impl WholeTask {
    pub(super) fn of(task: &Task, bodies: TaskBodies) -> Self {
        Self {
            task: TaskShown::of(task),
            payload: raw(Some(bodies.payload)),
            result: raw(bodies.result),
            progress: raw(bodies.progress),
        }
    }
}

/// JSON as it was sent.
pub(super) fn raw(text: Option<String>) -> Option<Box<RawValue>> {
    RawValue::from_string(text?).ok()
}

/// A queue with its settings and numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueShown {
    /// What the workers of its tasks do.
    command: String,
    /// Whether nothing of it is handed out.
    paused: bool,
    /// How many tasks it has in each state.
    counts: BTreeMap<&'static str, u64>,
    /// Bytes of the payloads of its open tasks.
    bytes: u64,
    /// How long the next task to be claimed has been there, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ready_seconds: Option<u64>,
    /// When its first task was created, or it was declared.
    created_at: String,
    /// What is set; everything else is by default.
    settings: QueueSettingsShown,
}

/// The settings of a queue that are not by default.
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
        }
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
