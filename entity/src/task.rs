//! A unit of work for a worker: the columns that change with its moves. Its payload is in `task_body`.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, CursorId, QueueId, TaskId, WatchId},
    kind::{OriginKind, TaskState},
};

/// One row of `task`. It references no other row: removing a queue must not read millions of tasks.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "task")]
pub struct Model {
    /// The id of the task: `tsk_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TaskId,
    /// The queue of the task.
    pub queue_id: QueueId,
    /// The app of its queue.
    pub app_id: AppId,
    /// The state of the task.
    pub state: TaskState,
    /// The rank of the task in its queue: the smallest is claimed first.
    pub rank: i64,
    /// When a waiting task is due, when the claim of a claimed task runs out, or when an ended task is
    /// removed, in unix milliseconds.
    pub wake_at: Option<i64>,
    /// Priority, 0 to 9; 9 is claimed first.
    pub priority: i64,
    /// Number of claims that were not abandoned.
    pub attempts: i64,
    /// Number of claims that were abandoned.
    pub abandons: i64,
    /// Number of attempts after which the task is dead.
    pub max_attempts: i64,
    /// The hash of the newest claim's bits; null: the task was not claimed since it was last free.
    pub claim: Option<String>,
    /// The worker that has the task, or ended it: the id of a token.
    pub worker: Option<String>,
    /// When the task was last claimed, in unix milliseconds.
    pub claimed_at: Option<i64>,
    /// The move when its claim ends; null: the move that its worker reports.
    pub flag: Option<String>,
    /// The watch that created the task; null: the API created it.
    pub watch_id: Option<WatchId>,
    /// The cursor of that watch.
    pub cursor_id: Option<CursorId>,
    /// The round of that cursor.
    pub round: Option<i64>,
    /// The position in that round.
    pub position: Option<i64>,
    /// The kind of its origin, as a word.
    pub origin_kind: OriginKind,
    /// The id of its origin.
    pub origin: String,
    /// The task whose completion created this task.
    pub parent_id: Option<TaskId>,
    /// The length of the chain of tasks that this one follows up.
    pub depth: i64,
    /// The hash of its idempotency key.
    pub key_hash: Option<String>,
    /// The hash of the request that created it.
    pub request_hash: Option<String>,
    /// The address that is notified of the end of the task.
    pub callback: Option<String>,
    /// The last error of a worker, or the reason why the task is dead.
    pub error: Option<String>,
    /// The size of its payload in bytes.
    pub bytes: i64,
    /// When the row was inserted, in unix milliseconds.
    pub created_at: i64,
    /// When the row was last changed, in unix milliseconds.
    pub updated_at: i64,
    /// When the task ended, in unix milliseconds.
    pub ended_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
