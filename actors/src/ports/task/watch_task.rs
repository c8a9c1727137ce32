//! The tasks of watches, as people look at them: how far a branch is whose changes become tasks, and the
//! change that a task is about. Lanes decide by [`HandOverRoom`](crate::ports::HandOverRoom) alone.

use std::collections::HashMap;

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, TaskId, WatchId},
    kind::Operation,
};

use crate::{model::round::DeliveryId, ports::StoreError};

/// The reason why no change of an open round becomes a task now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandOverWait {
    /// Creates and updates wait until every delete of the round has ended.
    Deletes,
    /// The branch has as many unfinished tasks as its window allows.
    Window,
    /// The queue has many tasks that no worker has claimed.
    Queue,
    /// The app has half of the open tasks, or of their bytes, that it may have, those of producers included.
    App,
}

impl HandOverWait {
    /// All reasons to wait, the one that is looked at first first.
    pub const ALL: [Self; 4] = [Self::Deletes, Self::Window, Self::Queue, Self::App];

    /// The reason in a word, as in the API and in the label of the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deletes => "deletes",
            Self::Window => "window",
            Self::Queue => "queue",
            Self::App => "app",
        }
    }
}

/// The tasks of one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchTasks {
    /// The cursor of the branch.
    pub cursor: CursorId,
    /// Tasks that have not ended.
    pub unfinished: u64,
    /// Unfinished tasks that workers have claimed.
    pub claimed: u64,
    /// Those of them that a pause or a block sets aside.
    pub aside: u64,
    /// Deletes of the open round that have not ended.
    pub deletes: u64,
    /// Changes of the open round that are no tasks yet.
    pub left: u64,
    /// Tasks that died one after another, without a success between them.
    pub dead_in_a_row: u64,
    /// The reason why none of the changes that are left becomes a task now; `None`: none is left, or the next
    /// ones are under way.
    pub waits_for: Option<HandOverWait>,
}

/// The change of a watch that a task is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskChange {
    /// Id of the task that the change became.
    pub task: TaskId,
    /// The watch of the change.
    pub watch: WatchId,
    /// The cursor of its branch.
    pub cursor: CursorId,
    /// The full name of the branch.
    pub branch: String,
    /// The number of the round.
    pub round: i64,
    /// The position of the change in the round.
    pub position: u64,
    /// The commit that the round leads to; `None`: the branch is gone.
    pub commit: Option<ObjectId>,
    /// The id of the delivery, which outlives the task.
    pub delivery: DeliveryId,
    /// The path of the file as the raw bytes of Git.
    pub path: Vec<u8>,
    /// Whether the file was created, updated or deleted.
    pub operation: Operation,
}

/// The calls of the HTTP handlers about the tasks of watches.
#[async_trait]
pub trait WatchTasks: Send + Sync + 'static {
    /// The tasks of these branches; cursors whose changes do not become tasks are left out.
    async fn tasks_of_branches(&self, cursors: &[CursorId]) -> Result<Vec<BranchTasks>, StoreError>;
    /// The changes of those of these tasks of an app that a watch made.
    async fn changes_of_tasks(&self, app: &AppId, tasks: &[TaskId]) -> Result<Vec<TaskChange>, StoreError>;
    /// The queues that the changes of those of these watches fill whose changes become tasks.
    async fn queues_of_watches(&self, watches: &[WatchId]) -> Result<HashMap<WatchId, String>, StoreError>;
    /// The unfinished task of a change; `None`: the change is no task yet, or its task has ended.
    async fn task_of_change(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
    ) -> Result<Option<TaskId>, StoreError>;
}
