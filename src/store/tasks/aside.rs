//! Tasks of a watch that nobody may claim, or that go at once.
//!
//! One rule says which tasks are aside: those that nobody has claimed, while their watch is paused, or while
//! their cursor is blocked and they are not its oldest. Code that changes one of these facts calls
//! [`arrange`] in the same transaction. Attempts stay.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{model::task::CANCEL_GRACE, ports::StoreError, time::Timestamp};
use tidings_entity::{
    id::{CursorId, QueueId, TaskId, WatchId},
    kind::TaskState,
};

use super::{for_update, queues::Queues};
use crate::{Context, rows};

/// The word in `flag` of a task whose round ended early: whatever its worker reports is void.
pub(super) const OVERTAKEN: &str = "resync";

#[derive(FromQueryResult)]
struct Moved {
    queue_id: QueueId,
    state: TaskState,
    bytes: i64,
}

#[derive(FromQueryResult)]
struct Free {
    id: TaskId,
    queue_id: QueueId,
    state: TaskState,
    bytes: i64,
}

/// The cursors of a watch that have tasks, and what decides whether these are aside.
#[derive(FromQueryResult)]
struct Stands {
    id: CursorId,
    is_paused: i32,
    is_blocked: i32,
}

/// Sets tasks of a watch aside or lets them go on, after the watch was paused or resumed.
pub(crate) async fn arrange_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<(), StoreError> {
    arrange_where(connection, context, "c.watch_id = $1", watch.as_str()).await
}

/// Sets tasks of a cursor aside or lets them go on, after the cursor was blocked or recovered.
pub(crate) async fn arrange_cursor(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: &CursorId,
) -> Result<(), StoreError> {
    arrange_where(connection, context, "c.id = $1", cursor.as_str()).await
}

async fn arrange_where(
    connection: &impl ConnectionTrait,
    context: &Context,
    condition: &str,
    value: &str,
) -> Result<(), StoreError> {
    let text = format!(
        "select c.id, case when w.state = 'paused' then 1 else 0 end as is_paused,
           case when c.state = 'blocked' then 1 else 0 end as is_blocked
         from cursor c join watch w on w.id = c.watch_id
         where {condition} and exists (select 1 from task t where t.cursor_id = c.id) order by c.id"
    );
    let cursors: Vec<Stands> = rows::all(connection, "cursor", &text, vec![value.into()]).await?;
    if cursors.is_empty() {
        return Ok(());
    }
    let mut queues = Queues::none();
    for cursor in &cursors {
        let stands = (cursor.is_paused == 1, cursor.is_blocked == 1);
        arrange(connection, &mut queues, &cursor.id, stands).await?;
    }
    queues.write(connection).await?;
    // A claim that looks at once is done in a turn after this one.
    context.tasks.tell(queues.news());
    Ok(())
}

/// Sets tasks of a cursor aside or lets them go on, in a turn that holds these queues.
pub(super) async fn arrange(
    connection: &impl ConnectionTrait,
    queues: &mut Queues,
    cursor: &CursorId,
    (is_paused, is_blocked): (bool, bool),
) -> Result<(), StoreError> {
    // Other turns may hold tasks and wait for a queue that this one holds, so none is waited for here.
    let text = format!(
        "select t.id, t.queue_id, t.state, t.bytes from task t
         where t.cursor_id = $1 and t.state in ('waiting', 'ready', 'aside') order by t.round, t.position{}",
        for_update(connection, "t", true)
    );
    let free: Vec<Free> = rows::all(connection, "task", &text, vec![cursor.clone().into()]).await?;
    let text = "select count(*) from task where cursor_id = $1 and state = 'claimed'";
    let claimed = rows::number(connection, "task", text, vec![cursor.clone().into()]).await?;
    let ids: BTreeSet<QueueId> = free.iter().map(|task| task.queue_id.clone()).collect();
    queues.also(connection, &ids).await?;
    let is_oldest = |index: usize| index == 0 && claimed == 0;
    let (mut aside, mut ready) = (Vec::new(), Vec::new());
    for (index, task) in free.into_iter().enumerate() {
        let is_aside = is_paused || (is_blocked && !is_oldest(index));
        let to = if is_aside { TaskState::Aside } else { TaskState::Ready };
        // A task that waits for its next attempt goes on waiting, unless it is set aside.
        if task.state == to || (!is_aside && task.state == TaskState::Waiting) {
            continue;
        }
        if let Some(queue) = queues.get_mut(&task.queue_id) {
            queue.moved(Some(task.state), to, task.bytes);
        }
        if is_aside { aside.push(vec![task.id.into()]) } else { ready.push(vec![task.id.into()]) }
    }
    for (state, ids) in [(TaskState::Aside, aside), (TaskState::Ready, ready)] {
        for some in ids.chunks(rows::LISTED_MAX) {
            let (values, bound) = rows::list(connection, &["text"], some);
            let text = format!(
                "with v(id) as ({values}) update task set state = '{state}', wake_at = null
                 where id in (select id from v)"
            );
            rows::execute(connection, "task", &text, bound).await?;
        }
    }
    Ok(())
}

/// The open round of a cursor ends early: tasks that nobody has claimed go, and a claim lasts until its
/// worker reports, at most a minute. The next round waits for that.
pub(crate) async fn overtake(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "delete from task where cursor_id = $1 and state in ('waiting', 'ready', 'aside')
                returning queue_id, state, bytes";
    leave(connection, text, cursor.as_str()).await?;
    let text = format!(
        "update task set flag = '{OVERTAKEN}', wake_at = case when wake_at > $2 then $2 else wake_at end
         where cursor_id = $1 and state = 'claimed'"
    );
    let values = vec![cursor.clone().into(), at.after(CANCEL_GRACE).0.into()];
    rows::execute(connection, "task", &text, values).await.map(drop)
}

/// Removes all tasks of a watch, also those that workers have: their tokens are void.
pub(crate) async fn remove(connection: &impl ConnectionTrait, watch: &WatchId) -> Result<(), StoreError> {
    let text = "delete from task where cursor_id in (select id from cursor where watch_id = $1)
                returning queue_id, state, bytes";
    leave(connection, text, watch.as_str()).await
}

/// After a restore: the rounds of all watches have ended, and tokens of before are void. Watches whose
/// changes become tasks are paused, because nobody knows what their workers did since the backup.
pub(super) async fn of_restored(connection: &impl ConnectionTrait, reason: &str) -> Result<(), StoreError> {
    let text = "delete from task where cursor_id is not null and cursor_id <> $1
                returning queue_id, state, bytes";
    leave(connection, text, "").await?;
    let text = "update watch set state = 'paused', reason = $1 where state = 'active'
                and sink_id in (select id from sink where kind = 'tasks')";
    rows::execute(connection, "watch", text, vec![reason.into()]).await.map(drop)
}

/// Whether tasks of a cursor are unfinished.
pub(crate) async fn has_tasks(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
) -> Result<bool, StoreError> {
    let text = "select count(*) from task where cursor_id = $1";
    Ok(rows::number(connection, "task", text, vec![cursor.clone().into()]).await? > 0)
}

async fn leave(connection: &impl ConnectionTrait, text: &str, value: &str) -> Result<(), StoreError> {
    let gone: Vec<Moved> = rows::all(connection, "task", text, vec![value.into()]).await?;
    if gone.is_empty() {
        return Ok(());
    }
    let ids = gone.iter().map(|task| task.queue_id.clone()).collect();
    let mut queues = Queues::load(connection, &ids).await?;
    for task in &gone {
        if let Some(queue) = queues.get_mut(&task.queue_id) {
            queue.left(task.state, task.bytes);
        }
    }
    queues.write(connection).await
}
