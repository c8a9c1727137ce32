//! Tasks: units of work that producers create and workers claim. A queue has all tasks of one command of an
//! app; it exists from its first task on.

pub(super) mod artifact;
pub(super) mod queue;
pub(super) mod schedule;
pub(super) mod topic;
pub(super) mod watch_task;
pub(super) mod worker_subscription;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, QueueId, TaskId, WatchId},
    kind::{ClaimEnd, TaskState},
};

use super::{
    Origin, QueueSettings, QueueWork, ScheduleStore, Searched, StoreError, TaskTally, TopicPolicy,
    WatchTasks, WorkWords, WorkerSubscriptions,
};
use crate::{
    model::{
        filter::Filter,
        task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove},
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
/// Most bytes of the payloads that one claim hands out together. A task with more is handed out alone.
pub const CLAIM_BYTES_MAX: i64 = 4 << 20;
/// Most tasks that one turn takes from one queue. A request that asks for the tasks behind them finds nothing
/// in that turn, although the queue has more.
pub const CLAIM_QUEUE_MAX: i64 = 1_000;
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
    /// When claiming again may succeed although nobody tells of a change: rates allow no more now, or another
    /// replica just looks at the tasks.
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
    /// Whether a watch made the task of a change.
    pub is_of_watch: bool,
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

impl TaskWord {
    /// Gives a claimed task back that its worker never got: no attempt is counted.
    #[must_use]
    pub fn give_back(app: AppId, token: ClaimToken) -> Self {
        Self {
            proof: Some(token.proof()),
            id: token.task,
            app,
            step: TaskMove::Abandon(Duration::ZERO),
            body: None,
            then: Vec::new(),
        }
    }
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
    /// The task cannot be sent again: the app has as much as it may have.
    Redrive(CreateRefusal),
}

/// How far a redrive of several tasks came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// How many of the tasks were sent again.
    pub count: u64,
    /// The bound of the app that the first of the other tasks met; `None`: no task met one.
    pub refusal: Option<CreateRefusal>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Tasks that became due.
    pub due: u64,
    /// Claims that ran out.
    pub expired: u64,
    /// Ticks of schedules for which tasks were created.
    pub ticks: u64,
    /// Apps of which schedules asked for resyncs: their lanes have work.
    pub resynced: BTreeSet<AppId>,
    /// When the next task is due, the next claim runs out or the next schedule is to be looked at; `None`:
    /// nothing is ahead.
    pub next: Option<Timestamp>,
}

/// News about tasks since the last call, as far as they are on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskNews {
    /// Queues with tasks that may be claimed now and could not before, with their apps.
    pub ready: BTreeSet<(AppId, QueueId)>,
    /// Queues whose rate allows no claim now although tasks of them are ready, with their apps.
    pub rated: BTreeSet<(AppId, QueueId)>,
    /// Tasks that have ended, or that were removed before their end.
    pub ended: BTreeSet<TaskId>,
    /// Apps of which tasks were claimed, ended, set aside or removed, so that more changes of their watches
    /// may be handed over.
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
    /// Makes due tasks ready, ends claims that ran out, and does what ticks ask for: some hundred per call.
    async fn wake_tasks(&self) -> Result<Woken, StoreError>;
    /// Removes ended tasks whose retention is over, at most `limit`. Returns their number.
    async fn forget_tasks(&self, limit: u64) -> Result<u64, StoreError>;
    /// The queues among these words that have tasks which may be claimed now or once the rate of the queue
    /// allows that, with the worker subscriptions that are to be told; queues that nobody listens to are left
    /// out.
    async fn work_for(&self, words: &WorkWords) -> Result<Vec<QueueWork>, StoreError>;
    /// Waits until tasks changed in this process since the last call. One caller waits at a time.
    async fn task_news(&self) -> TaskNews;
}

/// The calls of the HTTP handlers about tasks.
#[async_trait]
pub trait TaskStore: ClaimStore + ScheduleStore + WatchTasks + WorkerSubscriptions {
    /// Creates tasks of an app, all or none.
    async fn create_tasks(&self, app: &AppId, tasks: Vec<NewTask>) -> Result<Creation, StoreError>;
    /// One task of an app. A [`StoreError::NotFound`] where the app has no such task.
    async fn task(&self, app: &AppId, id: &TaskId) -> Result<Task, StoreError>;
    /// The newest claims of a task, oldest first, at most [`CLAIMS_KEPT`] and the last one.
    async fn task_claims(&self, task: &Task) -> Result<Vec<PastClaim>, StoreError>;
    /// Whether this worker has a claim on a task of this watch of this app.
    async fn has_claim(&self, app: &AppId, watch: &WatchId, worker: &str) -> Result<bool, StoreError>;
    /// The payload, result and progress of a task.
    async fn task_bodies(&self, app: &AppId, id: &TaskId) -> Result<TaskBodies, StoreError>;
    /// Tasks of an app, newest first, before `before`, at most `limit`.
    async fn list_tasks(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        before: Option<&TaskId>,
        limit: u64,
    ) -> Result<Searched<Task, TaskId>, StoreError>;
    /// Tasks of an app that a redrive by this filter sends again, oldest first, after `after`, at most
    /// `limit`.
    async fn redrivable(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        after: Option<&TaskId>,
        limit: u64,
    ) -> Result<Searched<TaskId, TaskId>, StoreError>;
    /// Sends those of these tasks of an app again that failed, died or were cancelled, as far as the bounds
    /// of the app allow.
    async fn redrive_tasks(&self, app: &AppId, tasks: Vec<TaskId>) -> Result<Redriven, StoreError>;
    /// Queues by their apps and commands, after the queue of `after`, at most `limit`.
    async fn queues(
        &self,
        filter: &QueueFilter,
        after: Option<(&AppId, &str)>,
        limit: u64,
    ) -> Result<Vec<Queue>, StoreError>;
    /// One queue of an app.
    async fn queue(&self, app: &AppId, command: &str) -> Result<Queue, StoreError>;
    /// Declares a queue, or gives it other settings; its topic stays. A [`StoreError::Conflict`] where the
    /// app has [`QUEUES_MAX`].
    async fn set_queue(
        &self,
        app: &AppId,
        command: &str,
        settings: &QueueSettings,
        at: Timestamp,
    ) -> Result<Queue, StoreError>;
    /// Gives a queue a topic with this policy, and declares the queue if it is not there; `None`: takes its
    /// topic from it, a [`StoreError::NotFound`] where it has none.
    async fn set_topic(
        &self,
        app: &AppId,
        command: &str,
        policy: Option<&TopicPolicy>,
        at: Timestamp,
    ) -> Result<Queue, StoreError>;
    /// Pauses a queue or resumes it; claimed tasks stay with their workers.
    async fn pause_queue(&self, app: &AppId, command: &str, is_paused: bool) -> Result<Queue, StoreError>;
    /// Removes ended tasks of an app whose retention was over then, at most `limit`. Returns their number.
    async fn forget_tasks_of(&self, app: &AppId, before: Timestamp, limit: u64) -> Result<u64, StoreError>;
    /// Removes tasks of a queue that are neither claimed nor ended, at most `limit`. Returns their number.
    async fn purge_queue(&self, app: &AppId, command: &str, limit: u64) -> Result<u64, StoreError>;
    /// Removes tasks of a queue that failed, died or were cancelled, at most `limit`, before their retention
    /// is over. Those whose idempotency key must still hold stay. Returns the number of removed tasks.
    async fn purge_ended(
        &self,
        app: &AppId,
        command: &str,
        state: TaskState,
        limit: u64,
    ) -> Result<u64, StoreError>;
}
