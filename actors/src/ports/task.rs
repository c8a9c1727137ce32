//! Tasks: units of work that producers create and workers claim. A queue has all tasks of one command of an
//! app; it exists from its first task on.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidings_entity::{
    id::{AppId, QueueId, TaskId},
    kind::{ClaimEnd, RetryPolicy, TaskState},
};

use super::{Origin, QueueWork, ScheduleStore, StoreError, TaskTally, WorkWords, WorkerSubscriptions};
use crate::{
    model::{
        filter::Filter,
        task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove, TaskRules},
    },
    time::Timestamp,
};

/// Most tasks of one request: created, claimed or ended together.
pub const TASK_BATCH_MAX: usize = 100;
/// Most commands of one claim.
pub const CLAIM_COMMANDS_MAX: usize = 100;
/// Characters of a command: letters, digits and `_.:-`.
pub const COMMAND_MAX: usize = 128;
/// The prefix of commands that Tidings itself defines.
pub const COMMAND_RESERVED: &str = "tidings.";
/// Most queues of an app.
pub const QUEUES_MAX: u64 = 1_000;
/// Most open tasks of an app.
pub const OPEN_TASKS_MAX: u64 = 1_000_000;
/// Most bytes of payloads of an app's open tasks (1 GiB).
pub const OPEN_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a payload or a result where the queue sets nothing else (256 KiB).
pub const PAYLOAD_DEFAULT: u64 = 256 << 10;
/// Most bytes of a payload or a result that a queue may allow (1 MiB).
pub const PAYLOAD_MAX: u64 = 1 << 20;
/// Most bytes of a worker's progress report (4 KiB).
pub const PROGRESS_MAX: usize = 4 << 10;
/// The longest chain of tasks that follow up one another.
pub const DEPTH_MAX: i64 = 100;
/// How long a claim lasts where the worker names no time.
pub const CLAIM_DEFAULT: Duration = Duration::from_secs(300);
/// The longest time of one extension of a claim.
pub const CLAIM_MAX: Duration = Duration::from_secs(3_600);
/// The longest time that a queue may give a claim with all its extensions.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The settings of a queue: how tasks are claimed, tried again and kept. A field that is `None` has its
/// default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// Most tasks of the queue that workers have at once; `None`: no limit.
    pub max_claimed: Option<u64>,
    /// Most claims in any second; `None`: no limit.
    pub rate: Option<u32>,
    /// After how many attempts a task is dead; 5.
    pub max_attempts: Option<u32>,
    /// How the wait grows with each attempt; `exp_full_jitter`.
    pub retry_policy: Option<RetryPolicy>,
    /// The wait after the first attempt, in milliseconds; 5,000.
    pub retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds; 900,000.
    pub retry_cap_ms: Option<u64>,
    /// The longest time of a claim with all its extensions, in milliseconds; 3,600,000.
    pub timeout_ms: Option<u64>,
    /// The age that counts as much as one step of priority, in milliseconds; `None`: the higher priority
    /// always goes first.
    pub ageing_ms: Option<u64>,
    /// How long a task is kept after its end, in milliseconds; 7 days.
    pub retention_ms: Option<u64>,
    /// How long a dead task is kept, in milliseconds; 30 days.
    pub dead_retention_ms: Option<u64>,
    /// Most bytes of a payload or a result; [`PAYLOAD_DEFAULT`].
    pub payload_bytes: Option<u64>,
}

impl QueueSettings {
    /// The rules for the moves of its tasks.
    #[must_use]
    pub fn rules(&self) -> TaskRules {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        let or = |value: Option<u64>, default: u64| Duration::from_millis(value.unwrap_or(default));
        TaskRules {
            claim_max: CLAIM_MAX,
            timeout: or(self.timeout_ms, 3_600_000),
            retention: or(self.retention_ms, 7 * DAY_MS),
            dead_retention: or(self.dead_retention_ms, 30 * DAY_MS),
        }
    }

    /// The settings, with the default of each that is not set and has one.
    #[must_use]
    pub fn in_effect(&self) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).ok();
        let (rules, (policy, base, cap)) = (self.rules(), self.backoff());
        Self {
            max_claimed: self.max_claimed,
            rate: self.rate,
            max_attempts: Some(self.attempts()),
            retry_policy: Some(policy),
            retry_base_ms: milliseconds(base),
            retry_cap_ms: milliseconds(cap),
            timeout_ms: milliseconds(rules.timeout),
            ageing_ms: self.ageing_ms,
            retention_ms: milliseconds(rules.retention),
            dead_retention_ms: milliseconds(rules.dead_retention),
            payload_bytes: Some(self.payload_limit()),
        }
    }

    /// After how many attempts a task of the queue is dead that says nothing else.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(5)
    }

    /// Most bytes of a payload or a result.
    #[must_use]
    pub fn payload_limit(&self) -> u64 {
        self.payload_bytes.unwrap_or(PAYLOAD_DEFAULT)
    }

    /// The policy of waits, the wait after the first attempt, and the longest one.
    #[must_use]
    pub fn backoff(&self) -> (RetryPolicy, Duration, Duration) {
        (
            self.retry_policy.unwrap_or(RetryPolicy::ExpFullJitter),
            Duration::from_millis(self.retry_base_ms.unwrap_or(5_000)),
            Duration::from_millis(self.retry_cap_ms.unwrap_or(900_000)),
        )
    }
}

/// A queue with its settings and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Id of the queue, made of app and command.
    pub id: QueueId,
    /// The app that the tasks belong to.
    pub app: AppId,
    /// The command of the tasks, which workers carry out.
    pub command: String,
    /// The settings of the queue.
    pub settings: QueueSettings,
    /// Whether nothing of it is handed out.
    pub is_paused: bool,
    /// How many tasks it has in each state, in the order of [`TaskState::ALL`].
    pub counts: Vec<(TaskState, u64)>,
    /// Bytes of the payloads of its open tasks.
    pub bytes: u64,
    /// When the next task to be claimed was created; `None`: no task is ready, or the list did not read it.
    pub oldest_ready: Option<Timestamp>,
    /// When its first task was created, or it was declared.
    pub created_at: Timestamp,
}

/// A task to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Id of the task, if it is new.
    pub id: TaskId,
    /// The command that names its queue.
    pub command: String,
    /// JSON as it was sent, byte for byte.
    pub payload: String,
    /// From 0 to 9; 9 is claimed first.
    pub priority: u8,
    /// The number of attempts after which the task is dead; `None`: the number of its queue.
    pub max_attempts: Option<u32>,
    /// When the task is due; `None`, or a moment in the past: at once.
    pub run_at: Option<Timestamp>,
    /// The wait until the task is due, which takes precedence over `run_at`.
    pub delay: Option<Duration>,
    /// The hash of its idempotency key, which is unique in its queue, and of the request that it came with.
    pub key: Option<TaskRequestKey>,
    /// The origin of the task.
    pub origin: Origin,
    /// The address that is notified of the end of the task.
    pub callback: Option<String>,
}

/// The idempotency key of a task, and the hash that distinguishes two requests with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRequestKey {
    /// SHA-256 of the key, as hexadecimal digits.
    pub key_hash: String,
    /// SHA-256 of the request, as hexadecimal digits.
    pub request_hash: String,
}

/// A task that is there after a request to create it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTask {
    /// Id of the task.
    pub id: TaskId,
    /// Whether this request created the task; `false`: an earlier request with the same key did.
    pub is_new: bool,
}

/// The reason why tasks were not created. The request created none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateRefusal {
    /// The key of the task with this index was used with another request.
    KeyReused(usize),
    /// The payload of the task with this index is larger than its queue allows, in bytes.
    PayloadTooLarge(usize, u64),
    /// The app would have more than [`QUEUES_MAX`] queues.
    Queues,
    /// The app would have more than [`OPEN_TASKS_MAX`] open tasks.
    OpenTasks,
    /// The payloads of its open tasks would be more than [`OPEN_BYTES_MAX`] bytes.
    OpenBytes,
    /// The chain of follow-up tasks would be longer than [`DEPTH_MAX`].
    Depth,
    /// The callbacks of the app would have more than [`CALLBACKS_MAX`](super::CALLBACKS_MAX) addresses.
    Callbacks,
}

/// The result of creating tasks: all are created, or none.
pub type Creation = Result<Vec<CreatedTask>, CreateRefusal>;

/// A worker asks for tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The app whose tasks are claimed.
    pub app: AppId,
    /// The commands that the worker carries out.
    pub commands: Vec<String>,
    /// The most tasks it takes.
    pub count: usize,
    /// How long the worker has the tasks, unless it asks for more time.
    pub claim: Duration,
    /// The worker: the id of its token.
    pub worker: String,
}

/// The result of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The tasks, in the order in which they stood in line.
    pub tasks: Vec<ClaimedTask>,
    /// When claiming again may succeed although nothing changes until then: rates allow no more now.
    pub again_at: Option<Timestamp>,
}

/// A task that a worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// The proof of the claim.
    pub token: ClaimToken,
    /// The task as it is now.
    pub task: Task,
    /// JSON as it was sent; empty until it is read ([`ClaimStore::payloads`]).
    pub payload: String,
}

/// A task without its bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Id of the task.
    pub id: TaskId,
    /// The app that it belongs to.
    pub app: AppId,
    /// The command that names its queue.
    pub command: String,
    /// The state of the task.
    pub state: TaskState,
    /// From 0 to 9; 9 is claimed first.
    pub priority: u8,
    /// Claims that were not abandoned.
    pub attempts: u64,
    /// After how many attempts it is dead.
    pub max_attempts: u64,
    /// The moment of the next move by the clock: the task is due, its claim runs out, or it is forgotten,
    /// depending on its state.
    pub wake_at: Option<Timestamp>,
    /// The worker that has the task, or that ended it.
    pub worker: Option<String>,
    /// Whether the task is cancelled once its claim ends.
    pub is_flagged: bool,
    /// The last error of a worker, or the reason why the task is dead.
    pub error: Option<String>,
    /// The origin of the task.
    pub origin: Origin,
    /// The task that it follows up.
    pub parent: Option<TaskId>,
    /// The address that is notified of the end of the task.
    pub callback: Option<String>,
    /// When the task was created.
    pub created_at: Timestamp,
    /// When the task was last changed.
    pub updated_at: Timestamp,
    /// When the task was last claimed.
    pub claimed_at: Option<Timestamp>,
    /// When the task ended.
    pub ended_at: Option<Timestamp>,
}

/// The bodies of a task, each JSON as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskBodies {
    /// The payload for the worker.
    pub payload: String,
    /// The result with which the worker completed the task.
    pub result: Option<String>,
    /// The last progress report of the worker.
    pub progress: Option<String>,
}

/// The most by which the clocks of two replicas differ that follow the database's clock: each corrects steps
/// of 50 ms, and an answer of the database takes time to travel.
pub const CLOCKS_APART_MAX: Duration = Duration::from_millis(250);
/// Most past claims of a task that are kept.
pub const CLAIMS_KEPT: u64 = 20;

/// A claim of a task, as people look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastClaim {
    /// The worker that had the task: the id of its token.
    pub worker: String,
    /// When the claim began.
    pub claimed_at: Timestamp,
    /// When and how the claim ended; `None`: the worker has the task.
    pub ended: Option<(Timestamp, ClaimEnd)>,
    /// The reason that the worker gave.
    pub reason: Option<String>,
}

/// A requested move of one task: by its worker, by a person, or by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskWord {
    /// The task that is to move.
    pub id: TaskId,
    /// The app of the caller: tasks of other apps are not found.
    pub app: AppId,
    /// The proof of the claim; `None` if the move needs no proof.
    pub proof: Option<ClaimProof>,
    /// The move that is asked for.
    pub step: TaskMove,
    /// With [`TaskMove::Complete`] the result, with [`TaskMove::Heartbeat`] the progress: JSON as it was
    /// sent.
    pub body: Option<String>,
    /// With [`TaskMove::Complete`]: the tasks that follow it up. They are created together with its end, or
    /// the task does not end.
    pub then: Vec<NewTask>,
}

/// Why a word changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordRefusal {
    /// The state of the task does not allow the move.
    Move(MoveRefusal),
    /// The result is larger than the queue allows, in bytes.
    ResultTooLarge(u64),
    /// The tasks that follow it up cannot be created.
    Then(CreateRefusal),
}

/// The result of a requested move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worded {
    /// Whether the task moved.
    pub moved: Moved,
    /// The state of the task now.
    pub state: TaskState,
    /// The moment of the next move by the clock: the task is due, its claim runs out, or it is forgotten,
    /// depending on its state.
    pub wake_at: Option<Timestamp>,
    /// Claims that were not abandoned.
    pub attempts: u64,
    /// The tasks that follow it up.
    pub then: Vec<CreatedTask>,
}

/// The result of one look by the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Tasks that became due.
    pub due: u64,
    /// Claims that ran out.
    pub expired: u64,
    /// Ticks of schedules for which tasks were created.
    pub ticks: u64,
    /// When the next task is due, the next claim runs out or the next schedule is to be looked at; `None`:
    /// nothing is ahead.
    pub next: Option<Timestamp>,
}

/// News about tasks since the last call, as far as they are on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskNews {
    /// Queues with tasks that may be claimed now and could not before, with their apps.
    pub ready: BTreeSet<(AppId, QueueId)>,
    /// Tasks that have ended.
    pub ended: BTreeSet<TaskId>,
    /// Apps of which tasks of watches were claimed or ended, so that more changes may be handed over.
    pub room: BTreeSet<AppId>,
    /// The nearest moment, among the tasks written, at which a task is due or a claim runs out.
    pub wake_at: Option<Timestamp>,
    /// The numbers of the turn, which go to the meter.
    pub tally: TaskTally,
}

/// Which tasks of an app are asked for.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only tasks of this command.
    pub command: Option<String>,
    /// Only tasks in this state.
    pub state: Option<TaskState>,
    /// Only tasks that match this filter.
    pub query: Option<Filter>,
}

/// Which queues are asked for.
#[derive(Clone, Debug, Default)]
pub struct QueueFilter {
    /// Only those of this app.
    pub app: Option<AppId>,
    /// Only those that this filter means.
    pub query: Option<Filter>,
}

/// The calls of actors about tasks. They check no lease, because claims are not the work of lanes.
#[async_trait]
pub trait ClaimStore: Send + Sync + 'static {
    /// Hands out tasks, to the first request first. An attempt is counted when this returns.
    async fn claim_tasks(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claim>, StoreError>;
    /// Adds the payloads of claimed tasks; a task that was removed meanwhile is left out.
    async fn payloads(&self, tasks: Vec<ClaimedTask>) -> Result<Vec<ClaimedTask>, StoreError>;
    /// Moves tasks; an answer to each word.
    async fn move_tasks(&self, words: Vec<TaskWord>) -> Result<Vec<Result<Worded, WordRefusal>>, StoreError>;
    /// Makes due tasks ready, ends claims whose time is over, and creates the tasks of schedules whose tick
    /// has come: some hundred of each per call.
    async fn wake_tasks(&self) -> Result<Woken, StoreError>;
    /// Removes ended tasks whose retention is over, at most `limit`. Returns their number.
    async fn forget_tasks(&self, limit: u64) -> Result<u64, StoreError>;
    /// The queues among these words that have tasks which may be claimed now, with the worker subscriptions
    /// that are to be told; queues that nobody listens to are left out.
    async fn work_for(&self, words: &WorkWords) -> Result<Vec<QueueWork>, StoreError>;
    /// Waits until tasks changed in this process since the last call. One caller waits at a time.
    async fn task_news(&self) -> TaskNews;
}

/// The calls of the HTTP handlers about tasks.
#[async_trait]
pub trait TaskStore: ClaimStore + ScheduleStore + WorkerSubscriptions {
    /// Creates tasks of an app, all or none.
    async fn create_tasks(&self, app: &AppId, tasks: Vec<NewTask>) -> Result<Creation, StoreError>;
    /// One task of an app. A [`StoreError::NotFound`] where the app has no such task.
    async fn task(&self, app: &AppId, id: &TaskId) -> Result<Task, StoreError>;
    /// The newest claims of a task, oldest first, at most [`CLAIMS_KEPT`] and the last one.
    async fn task_claims(&self, task: &Task) -> Result<Vec<PastClaim>, StoreError>;
    /// The payload, result and progress of a task.
    async fn task_bodies(&self, app: &AppId, id: &TaskId) -> Result<TaskBodies, StoreError>;
    /// Tasks of an app, newest first, before `before`, at most `limit`.
    async fn list_tasks(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        before: Option<&TaskId>,
        limit: u64,
    ) -> Result<Vec<Task>, StoreError>;
    /// Counts the tasks of an app that a redrive by this filter would send again, up to `most`.
    async fn redrivable(&self, app: &AppId, filter: &TaskFilter, most: u64) -> Result<u64, StoreError>;
    /// Sends tasks of an app again that failed, died or were cancelled, at most `limit`. How many moved.
    async fn redrive_tasks(&self, app: &AppId, filter: &TaskFilter, limit: u64) -> Result<u64, StoreError>;
    /// Queues by their apps and commands, after the queue of `after`, at most `limit`.
    async fn queues(
        &self,
        filter: &QueueFilter,
        after: Option<(&AppId, &str)>,
        limit: u64,
    ) -> Result<Vec<Queue>, StoreError>;
    /// One queue of an app.
    async fn queue(&self, app: &AppId, command: &str) -> Result<Queue, StoreError>;
    /// Declares a queue, or gives it other settings. A [`StoreError::Conflict`] where the app has
    /// [`QUEUES_MAX`].
    async fn set_queue(
        &self,
        app: &AppId,
        command: &str,
        settings: &QueueSettings,
        at: Timestamp,
    ) -> Result<Queue, StoreError>;
    /// Pauses a queue or resumes it; claimed tasks stay with their workers.
    async fn pause_queue(&self, app: &AppId, command: &str, is_paused: bool) -> Result<Queue, StoreError>;
    /// Removes ended tasks of an app whose retention was over before this moment, at most `limit`. Returns
    /// their number.
    async fn forget_tasks_of(&self, app: &AppId, before: Timestamp, limit: u64) -> Result<u64, StoreError>;
    /// Removes tasks of a queue that are neither claimed nor ended, at most `limit`. Returns their number.
    async fn purge_queue(&self, app: &AppId, command: &str, limit: u64) -> Result<u64, StoreError>;
}
