//! The tasks of a branch, as answers show them.

use serde::Serialize;
use tidings_actors::ports::BranchTasks;
use utoipa::ToSchema;

/// The tasks of a branch whose changes become tasks.
#[derive(Serialize, ToSchema)]
pub(super) struct BranchTasksShown {
    /// Number of tasks that have not ended. `window` of the sink is the maximum.
    unfinished: u64,
    /// Number of these tasks that workers have.
    claimed: u64,
    /// Number of these tasks that are set aside, because the watch is paused or the branch is blocked.
    aside: u64,
    /// Number of changes of the open round that are no tasks yet.
    left: u64,
    /// Number of deletes of the open round that have not ended. Creates and updates become tasks after them.
    deletes: u64,
    /// Number of tasks that died one after another, without a success between them. Ten block the branch.
    dead_in_a_row: u64,
    /// Why none of the changes in `left` becomes a task now: `deletes` (see there), `window` (of the sink),
    /// `queue` (many tasks of the queue wait for a worker) or `app` (the app has half of the open tasks,
    /// or of their bytes, that it may have, those of producers included). Missing: nothing prevents it.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<&'static str>,
}

impl BranchTasksShown {
    pub(super) fn of(tasks: &BranchTasks) -> Self {
        Self {
            unfinished: tasks.unfinished,
            claimed: tasks.claimed,
            aside: tasks.aside,
            left: tasks.left,
            deletes: tasks.deletes,
            dead_in_a_row: tasks.dead_in_a_row,
            waits_for: tasks.waits_for.map(|reason| reason.as_str()),
        }
    }
}
