//! How far the branches are whose changes become tasks, and what an open round waits for. For people and for
//! metrics: a lane decides in the transaction that hands changes over, by the same bounds.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::round::DeliveryId,
    ports::{BranchTasks, HandOverWait, StoreError, TaskChange, WINDOW_MAX},
};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, TaskId, WatchId},
    kind::{Operation, TaskState},
};

use super::hand_over::{AHEAD, AHEAD_PER_CLAIM, BYTES_OF_WATCHES, TASKS_OF_WATCHES};
use crate::{
    apps::{self, sinks::SERVED},
    database::rows::{self, LISTED_MAX, list, signed, unsigned},
};

/// A branch whose changes become tasks, with the numbers that bound its open round.
#[derive(Clone, Debug, FromQueryResult)]
struct Branch {
    id: CursorId,
    delivery: String,
    is_served: i32,
    streak: i64,
    /// The open round: all of these, or none.
    position: Option<i64>,
    deletes: Option<i64>,
    total: Option<i64>,
    unfinished: i64,
    claimed: i64,
    aside: i64,
    /// The greatest position of a task of the open round.
    last: Option<i64>,
    /// The end of the last range of the open round that has ended.
    ended: Option<i64>,
    /// Deletes of the open round that have ended.
    deletes_ended: i64,
    /// Tasks of the queue that may be claimed, and those that workers have.
    ready: Option<i64>,
    of_workers: Option<i64>,
    /// Open tasks of the app, and the bytes of their payloads.
    of_app: i64,
    bytes_of_app: i64,
}

/// The numbers of branches. `c` is the row of the cursor, `w` that of its watch.
fn branches() -> String {
    format!(
        "select c.id, k.delivery, cast(c.streak as bigint) as streak,
           case when w.state = 'active' and {SERVED} then 1 else 0 end as is_served,
           r.position, r.deletes, r.total,
           (select count(*) from task t where t.cursor_id = c.id) as unfinished,
           (select count(*) from task t where t.cursor_id = c.id and t.state = 'claimed') as claimed,
           (select count(*) from task t where t.cursor_id = c.id and t.state = 'aside') as aside,
           (select max(t.position) from task t where t.cursor_id = c.id and t.round = r.number) as last,
           (select max(s.to_position) from settled s
             where s.cursor_id = c.id and s.round = r.number) as ended,
           (select cast(coalesce(sum(case when s.to_position < r.deletes then s.to_position else r.deletes end
               - s.from_position), 0) as bigint) from settled s
             where s.cursor_id = c.id and s.round = r.number and s.from_position < r.deletes)
             as deletes_ended,
           q.ready, q.claimed as of_workers,
           (select cast(coalesce(sum(x.waiting + x.ready + x.claimed + x.aside), 0) as bigint) from queue x
             where x.app_id = w.app_id) as of_app,
           (select cast(coalesce(sum(x.bytes), 0) as bigint) from queue x
             where x.app_id = w.app_id) as bytes_of_app
         from cursor c join watch w on w.id = c.watch_id join app a on a.id = w.app_id
         join sink k on k.id = w.sink_id
         left join round r on r.cursor_id = c.id and r.number = c.open_round
         left join queue q on q.app_id = w.app_id and q.command = k.address
         where k.kind = 'tasks'"
    )
}

impl Branch {
    /// The first position of the open round that was never handed over. Changes are handed over in order.
    fn next(&self) -> i64 {
        let handed = self.last.map_or(0, |last| last + 1);
        self.position.unwrap_or(0).max(self.ended.unwrap_or(0)).max(handed)
    }

    /// Deletes of the open round that have not ended.
    fn deletes_left(&self) -> i64 {
        let (position, deletes) = (self.position.unwrap_or(0), self.deletes.unwrap_or(0));
        deletes - self.deletes_ended.max(position).min(deletes)
    }

    fn waits_for(&self, window: i64) -> Option<HandOverWait> {
        let (deletes, total) = self.deletes.zip(self.total)?;
        let next = self.next();
        if next >= total || self.is_served == 0 {
            return None;
        }
        if next >= deletes && self.deletes_left() > 0 {
            return Some(HandOverWait::Deletes);
        }
        // A branch without a task may always have one.
        if self.unfinished == 0 {
            return None;
        }
        let ahead = AHEAD + AHEAD_PER_CLAIM * self.of_workers.unwrap_or(0);
        if self.unfinished >= window {
            return Some(HandOverWait::Window);
        }
        if self.ready.unwrap_or(0) >= ahead {
            return Some(HandOverWait::Queue);
        }
        let is_full = self.of_app >= TASKS_OF_WATCHES || self.bytes_of_app >= BYTES_OF_WATCHES;
        is_full.then_some(HandOverWait::App)
    }

    fn tasks(mut self) -> Result<BranchTasks, StoreError> {
        let settings = apps::settings("sink", &self.delivery)?;
        if settings.per_round {
            // The one task of a round is about all of its changes.
            self.last = self.last.and(self.total).map(|total| total - 1);
        }
        let window = settings.window.unwrap_or(WINDOW_MAX);
        let count = |number: i64| unsigned("task", number.max(0));
        Ok(BranchTasks {
            unfinished: count(self.unfinished)?,
            claimed: count(self.claimed)?,
            aside: count(self.aside)?,
            deletes: count(self.deletes_left())?,
            left: count(self.total.unwrap_or(0) - self.next())?,
            dead_in_a_row: count(self.streak)?,
            waits_for: self.waits_for(window.into()),
            cursor: self.id,
        })
    }
}

/// The tasks of these branches; cursors whose changes do not become tasks are left out.
pub(crate) async fn of_cursors(
    connection: &impl ConnectionTrait,
    cursors: &[CursorId],
) -> Result<Vec<BranchTasks>, StoreError> {
    let asked: Vec<Vec<Value>> = cursors.iter().map(|cursor| vec![cursor.clone().into()]).collect();
    let mut found = Vec::with_capacity(cursors.len());
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!("with v(id) as ({values}) {} and c.id in (select id from v)", branches());
        let branches: Vec<Branch> = rows::all(connection, "cursor", &text, bound).await?;
        found.extend(branches.into_iter().map(Branch::tasks).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(found)
}

/// How many branches with an open round hand nothing over now, by the reason. A branch that cannot be read is
/// left out.
pub(crate) async fn waiting(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<HandOverWait, u64>, StoreError> {
    let text = format!("{} and c.open_round is not null", branches());
    let branches: Vec<Branch> = rows::readable(connection, "cursor", &text, vec![]).await?;
    let mut waiting = BTreeMap::new();
    for tasks in branches.into_iter().map(Branch::tasks).filter_map(rows::readable_or_logged) {
        if let Some(reason) = tasks.waits_for {
            *waiting.entry(reason).or_default() += 1;
        }
    }
    Ok(waiting)
}

/// How many unfinished tasks of watches there are in each state.
pub(crate) async fn unfinished(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<TaskState, u64>, StoreError> {
    #[derive(FromQueryResult)]
    struct Standing {
        state: TaskState,
        tasks: i64,
    }
    let text = "select state, count(*) as tasks from task where cursor_id is not null group by state";
    let found: Vec<Standing> = rows::all(connection, "task", text, vec![]).await?;
    found.into_iter().map(|row| Ok((row.state, unsigned("task", row.tasks)?))).collect()
}

/// The changes of those of these tasks of an app that a watch made.
pub(crate) async fn changes(
    connection: &impl ConnectionTrait,
    app: &AppId,
    tasks: &[TaskId],
) -> Result<Vec<TaskChange>, StoreError> {
    #[derive(FromQueryResult)]
    struct Changed {
        id: TaskId,
        app_id: AppId,
        watch_id: WatchId,
        cursor_id: CursorId,
        branch: String,
        round: i64,
        position: i64,
        target: Option<ObjectId>,
        delivery_id: String,
        path: Vec<u8>,
        operation: Operation,
    }
    let asked: Vec<Vec<Value>> = tasks.iter().map(|task| vec![task.clone().into()]).collect();
    let mut found = Vec::new();
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values})
             select t.id, t.app_id, t.watch_id, t.cursor_id, c.branch, t.round, t.position, r.target,
               x.delivery_id, x.path, x.operation
             from task t join task_change x on x.task_id = t.id join cursor c on c.id = t.cursor_id
             left join round r on r.cursor_id = t.cursor_id and r.number = t.round
             where t.id in (select id from v)"
        );
        let changed: Vec<Changed> = rows::all(connection, "task_change", &text, bound).await?;
        for row in changed.into_iter().filter(|row| row.app_id == *app) {
            found.push(TaskChange {
                task: row.id,
                watch: row.watch_id,
                cursor: row.cursor_id,
                branch: row.branch,
                round: row.round,
                position: unsigned("task", row.position)?,
                commit: row.target,
                delivery: DeliveryId::from_stored(row.delivery_id),
                path: row.path,
                operation: row.operation,
            });
        }
    }
    Ok(found)
}

/// The queues that the changes of those of these watches fill whose changes become tasks.
pub(crate) async fn queues(
    connection: &impl ConnectionTrait,
    watches: &[WatchId],
) -> Result<HashMap<WatchId, String>, StoreError> {
    #[derive(FromQueryResult)]
    struct Filled {
        id: WatchId,
        command: String,
    }
    let asked: Vec<Vec<Value>> = watches.iter().map(|watch| vec![watch.clone().into()]).collect();
    let mut queues = HashMap::new();
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values}) select w.id, k.address as command from watch w
             join sink k on k.id = w.sink_id where k.kind = 'tasks' and w.id in (select id from v)"
        );
        let found: Vec<Filled> = rows::all(connection, "sink", &text, bound).await?;
        queues.extend(found.into_iter().map(|row| (row.id, row.command)));
    }
    Ok(queues)
}

/// The unfinished task of a change.
pub(crate) async fn of_change(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
    position: u64,
) -> Result<Option<TaskId>, StoreError> {
    #[derive(FromQueryResult)]
    struct Found {
        id: TaskId,
    }
    let text = "select id from task where cursor_id = $1 and round = $2 and position = $3";
    let values = vec![cursor.clone().into(), round.into(), signed(position).into()];
    let found: Option<Found> = rows::one(connection, "task", text, values).await?;
    Ok(found.map(|found| found.id))
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::DeliverySettings;

    use super::*;

    fn branch(position: i64, last: i64, unfinished: i64) -> Branch {
        Branch {
            id: "cur_00000000000000000000000001".parse().expect("an id"),
            delivery: String::new(),
            is_served: 1,
            streak: 0,
            position: Some(position),
            deletes: Some(2),
            total: Some(500),
            unfinished,
            claimed: 0,
            aside: 0,
            last: Some(last),
            ended: None,
            deletes_ended: position.min(2),
            ready: Some(unfinished),
            of_workers: Some(0),
            of_app: unfinished,
            bytes_of_app: 0,
        }
    }

    #[test]
    fn the_first_bound_that_is_met_is_the_reason() {
        let at = |branch: &Branch| branch.waits_for(200);
        assert_eq!(at(&branch(0, 0, 1)), None, "the second delete is under way");
        assert_eq!(at(&branch(1, 1, 1)), Some(HandOverWait::Deletes));
        assert_eq!(at(&branch(2, 50, 49)), None);
        assert_eq!(at(&branch(2, 201, 200)), Some(HandOverWait::Window));
        assert_eq!(at(&branch(2, 101, 100)), Some(HandOverWait::Queue));
        let with_workers = Branch { of_workers: Some(1), ..branch(2, 101, 100) };
        assert_eq!(at(&with_workers), None);
        let crowded = Branch { of_app: TASKS_OF_WATCHES, ..branch(2, 10, 9) };
        assert_eq!(at(&crowded), Some(HandOverWait::App));
        assert_eq!(at(&Branch { unfinished: 0, ..crowded }), None, "a branch may always have one");
        let heavy = Branch { bytes_of_app: BYTES_OF_WATCHES, ..branch(2, 10, 9) };
        assert_eq!(at(&heavy), Some(HandOverWait::App));
        assert_eq!(at(&branch(400, 499, 100)), None, "everything is handed over");
        assert_eq!(at(&Branch { is_served: 0, ..branch(1, 1, 1) }), None, "its watch is paused");
        assert_eq!(at(&Branch { position: None, deletes: None, total: None, ..branch(1, 1, 1) }), None);
    }

    #[test]
    fn nothing_of_a_round_is_left_once_the_round_is_one_task() {
        let settings = DeliverySettings { per_round: true, ..DeliverySettings::default() };
        let delivery = serde_json::to_string(&settings).expect("plain data");
        let handed = Branch { delivery, deletes: Some(1), ..branch(0, 0, 1) };
        let tasks = handed.clone().tasks().expect("numbers");
        assert_eq!((tasks.waits_for, tasks.left, tasks.deletes), (None, 0, 1));
        let tasks = Branch { last: None, unfinished: 0, ..handed }.tasks().expect("numbers");
        assert_eq!((tasks.waits_for, tasks.left), (None, 500));
    }

    #[test]
    fn deletes_that_ended_above_the_position_are_not_left() {
        let some = Branch { deletes: Some(5), deletes_ended: 3, position: Some(1), ..branch(1, 4, 2) };
        assert_eq!(some.deletes_left(), 2);
        assert_eq!(Branch { position: Some(9), ..some }.deletes_left(), 0);
    }
}
