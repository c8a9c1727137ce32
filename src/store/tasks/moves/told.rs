//! What follows from the moves of a turn for others: the rounds of watches, schedules, ledgers with the
//! addresses that are called back, and everybody who waits for a change of tasks.

use std::collections::BTreeMap;

use tidings_actors::{ports::TaskNews, time::Timestamp};
use tidings_entity::{
    id::{AppId, CursorId, TaskId},
    kind::{OriginKind, TaskState},
};

use super::{HeldTask, Moves};
use crate::{
    ledger::Note,
    tasks::{
        endings,
        queues::{Queues, is_open},
        watch_tasks::settles::{End, Ended},
    },
};

impl Moves {
    /// The cursors of the tasks of watches that this turn holds and that nobody has at its end, and whether
    /// one of the tasks is aside. Another replica that blocked such a cursor meanwhile, or ended its block,
    /// passed over these rows, also over those that this turn did not move.
    pub(in crate::tasks) fn free(&self) -> BTreeMap<CursorId, bool> {
        let mut cursors = BTreeMap::new();
        for task in self.held.values() {
            let state = task.standing.state;
            let is_free = matches!(state, TaskState::Waiting | TaskState::Ready | TaskState::Aside);
            if let Some(cursor) = task.row.cursor_id.as_ref().filter(|_| is_free) {
                *cursors.entry(cursor.clone()).or_default() |= state == TaskState::Aside;
            }
        }
        cursors
    }

    /// Takes the tasks of watches that ended, in the order of their ends.
    pub(in crate::tasks) fn take_ended(&mut self) -> Vec<Ended> {
        let ended = std::mem::take(&mut self.ended);
        ended.iter().filter_map(|id| ended_of_watch(self.held.get(id)?)).collect()
    }

    /// The addresses of tasks that may end.
    pub(in crate::tasks) fn callbacks(&self) -> impl Iterator<Item = (AppId, String)> {
        self.held.values().filter_map(|task| Some((task.row.app_id.clone(), task.row.callback.clone()?)))
    }

    /// The addresses of tasks that ended.
    pub(in crate::tasks) fn called_back(&self) -> Vec<(AppId, String)> {
        let ended = self.held.values().filter(|task| !task.ends.is_empty());
        ended.filter_map(|task| Some((task.row.app_id.clone(), task.row.callback.clone()?))).collect()
    }

    /// Tasks that a schedule created, and that ended.
    pub(in crate::tasks) fn ended_of_ticks(&self) -> Vec<TaskId> {
        let has_ended = |task: &&HeldTask| task.is_changed() && !is_open(task.standing.state);
        let is_of_tick =
            |task: &&HeldTask| task.row.origin_kind == OriginKind::Tick && task.row.parent_id.is_none();
        let ended = self.held.values().filter(has_ended).filter(is_of_tick);
        ended.map(|task| task.row.id.clone()).collect()
    }

    /// What others are told of the moves, and what ledgers are.
    pub(in crate::tasks) fn told(&mut self, queues: &mut Queues) -> (TaskNews, Vec<Note>) {
        let (mut news, mut notes) = (TaskNews::default(), Vec::new());
        for task in self.held.values_mut() {
            notes.append(&mut task.ends);
        }
        for task in self.held.values().filter(|task| task.is_changed()) {
            if is_open(task.standing.state) {
                news.wake_at = news.wake_at.into_iter().chain(task.standing.wake_at).min();
                continue;
            }
            news.ended.insert(task.row.id.clone());
            let lived = self.at.since(Timestamp(task.row.created_at));
            if let Some(queue) = queues.get_mut(&task.row.queue_id) {
                queue.tally.ended.push((task.standing.state, lived));
            }
            let end = endings::of_watch(&task.row, &task.standing);
            news.tally.of_watches.extend(end.map(|end| (task.row.app_id.clone(), end)));
            if task.standing.state == TaskState::Dead {
                let queue = queues.get(&task.row.queue_id);
                notes.push(endings::dead(&task.row, &task.standing, queue.map(|queue| &*queue.command)));
            }
        }
        (news, notes)
    }
}

/// How a task of a watch ended.
fn ended_of_watch(task: &HeldTask) -> Option<Ended> {
    let error = || task.standing.error.clone().unwrap_or_default();
    let end = match task.standing.state {
        TaskState::Succeeded => End::Success,
        TaskState::Failed => End::Failed(error()),
        TaskState::Dead => End::Dead(error()),
        _ => End::Cancelled,
    };
    Some(Ended {
        task: task.row.id.clone(),
        cursor: task.row.cursor_id.clone()?,
        round: task.row.round?,
        position: task.row.position?,
        end,
        change: None,
    })
}
