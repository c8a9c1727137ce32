//! Tasks of a watch that nobody may claim, or that go at once.
//!
//! One rule says which tasks are aside: those that nobody has claimed, while their watch is paused, or while
//! their cursor is blocked and they are not its oldest. Code that changes one of these facts calls
//! [`arrange`] in the same transaction. Attempts stay, and so does the moment that a task waits for.
//!
//! An app may have half a million tasks, so its disabling sets none aside at once: claims set those aside
//! that they meet ([`of_disabled`]). Before the app is enabled they go on, some cursors at a time
//! ([`go_on`]); a process that dies between leaves the app disabled.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::task::CANCEL_GRACE,
    ports::{StoreError, TaskNews},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, QueueId, TaskId, WatchId},
    kind::TaskState,
};

use crate::{
    Context,
    apps::sinks::STOPPED,
    database::rows,
    tasks::{for_update, queues::Queues},
};

/// The word in `flag` of a task whose round ended early: whatever its worker reports is void.
pub(in crate::tasks) const OVERTAKEN: &str = "resync";
/// Cursors whose tasks go on in one transaction, when their app is enabled: at most 1,000 tasks each.
const CURSORS_AT_ONCE: i64 = 4;

#[derive(FromQueryResult)]
struct Gone {
    id: TaskId,
    queue_id: QueueId,
    state: TaskState,
    bytes: i64,
}

#[derive(FromQueryResult)]
struct Free {
    id: TaskId,
    queue_id: QueueId,
    state: TaskState,
    wake_at: Option<i64>,
    bytes: i64,
}

impl Free {
    /// Its state once it goes on. A task that waits stays so until the clock finds it due.
    fn goes_on(&self, at: Timestamp) -> TaskState {
        let is_ahead = self.wake_at.is_some_and(|until| until > at.0);
        if self.state == TaskState::Waiting || is_ahead { TaskState::Waiting } else { TaskState::Ready }
    }
}

/// A task at the head of a queue.
#[derive(FromQueryResult)]
struct Met {
    id: TaskId,
    cursor_id: Option<CursorId>,
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

/// Keeps the rule for tasks that a turn holds and that nobody has at its end: workers gave them back, their
/// claims ran out, they became due, or words about them changed nothing. Each cursor comes with whether one
/// of its tasks is aside. Runs in the turn that holds the tasks, after their rows were written: a turn of
/// another replica that blocked a cursor, or ended its block, passed over these rows. That turn had the
/// queues before this one, so what it did is seen here.
pub(in crate::tasks) async fn arrange_free(
    connection: &impl ConnectionTrait,
    queues: &mut Queues,
    cursors: BTreeMap<CursorId, bool>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let cursors: Vec<Vec<Value>> = cursors
        .into_iter()
        .map(|(cursor, is_aside)| vec![cursor.into(), i64::from(is_aside).into()])
        .collect();
    for some in cursors.chunks(rows::LISTED_MAX) {
        let (values, bound) = rows::list(connection, &["text", "bigint"], some);
        let text = format!(
            "with v(id, is_aside) as ({values})
             select distinct c.id, case when w.state = 'paused' then 1 else 0 end as is_paused,
               case when c.state = 'blocked' then 1 else 0 end as is_blocked
             from v join cursor c on c.id = v.id join watch w on w.id = c.watch_id
             join app a on a.id = w.app_id
             where w.state = 'paused' or c.state = 'blocked' or (v.is_aside = 1 and not {STOPPED})
             order by c.id"
        );
        for cursor in rows::all::<Stands>(connection, "cursor", &text, bound).await? {
            let stands = (cursor.is_paused == 1, cursor.is_blocked == 1);
            arrange(connection, queues, &cursor.id, stands, at).await?;
        }
    }
    Ok(())
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
    arrange_each(connection, context, &cursors).await
}

async fn arrange_each(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursors: &[Stands],
) -> Result<(), StoreError> {
    if cursors.is_empty() {
        return Ok(());
    }
    let mut queues = Queues::none();
    for cursor in cursors {
        let stands = (cursor.is_paused == 1, cursor.is_blocked == 1);
        arrange(connection, &mut queues, &cursor.id, stands, context.clock.now()).await?;
    }
    queues.write(connection).await?;
    context.tasks.mark(queues.news());
    Ok(())
}

/// Sets tasks of watches aside that a claim meets at the head of a queue while its app is disabled, at most
/// `most`. The statement reads again whether the app is disabled: the turn may have waited for the queue
/// until the app was enabled.
pub(in crate::tasks) async fn of_disabled(
    connection: &impl ConnectionTrait,
    queues: &mut Queues,
    id: &QueueId,
    most: i64,
    at: Timestamp,
) -> Result<(), StoreError> {
    let Some(queue) = queues.get_mut(id).filter(|queue| queue.count(TaskState::Ready) > 0) else {
        return Ok(());
    };
    let text = format!(
        "select t.id, t.cursor_id, t.bytes from task t join app a on a.id = t.app_id
         where t.queue_id = $1 and t.state = 'ready' and {STOPPED} order by t.rank, t.id limit $2{}",
        for_update(connection, "t", true)
    );
    let met: Vec<Met> = rows::all(connection, "task", &text, vec![id.clone().into(), most.into()]).await?;
    let of_watches = met.into_iter().filter(|task| task.cursor_id.is_some());
    let aside: Vec<Vec<Value>> = of_watches
        .map(|task| {
            queue.moved(Some(TaskState::Ready), TaskState::Aside, task.bytes);
            vec![task.id.into()]
        })
        .collect();
    write(connection, TaskState::Aside, &aside, at).await
}

/// Lets tasks go on that were set aside while their app was disabled: those of the next cursors after
/// `after`. Returns the last of these cursors; `None`: there were none.
pub(crate) async fn go_on(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    after: Option<&CursorId>,
) -> Result<Option<CursorId>, StoreError> {
    let text = "select c.id, 0 as is_paused, case when c.state = 'blocked' then 1 else 0 end as is_blocked
                from cursor c join watch w on w.id = c.watch_id
                where w.app_id = $1 and w.state = 'active' and w.sink_id is not null and c.id > $2
                  and exists (select 1 from task t where t.cursor_id = c.id and t.state = 'aside')
                order by c.id limit $3";
    let after = after.map_or_else(String::new, CursorId::to_string);
    let values = vec![app.clone().into(), after.into(), CURSORS_AT_ONCE.into()];
    let cursors: Vec<Stands> = rows::all(connection, "cursor", text, values).await?;
    arrange_each(connection, context, &cursors).await?;
    Ok(cursors.into_iter().last().map(|cursor| cursor.id))
}

/// Lets the rest of them go on in the transaction that enables the app: those that claims met since the steps
/// before. The queues of the app are held until its end, so no claim sets a task aside in between. Schedules
/// whose ticks came meanwhile fire at once.
pub(crate) async fn all_go_on(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
) -> Result<(), StoreError> {
    #[derive(FromQueryResult)]
    struct QueueOfApp {
        id: QueueId,
        ready: i64,
    }
    let text = format!(
        "select q.id, q.ready from queue q where q.app_id = $1 order by q.id{}",
        for_update(connection, "q", false)
    );
    let queues: Vec<QueueOfApp> = rows::all(connection, "queue", &text, vec![app.clone().into()]).await?;
    let mut last = go_on(connection, context, app, None).await?;
    while last.is_some() {
        last = go_on(connection, context, app, last.as_ref()).await?;
    }
    let ready = queues.into_iter().filter(|queue| queue.ready > 0).map(|queue| (app.clone(), queue.id));
    let wake_at = Some(context.clock.now());
    context.tasks.mark(TaskNews { ready: ready.collect(), wake_at, ..TaskNews::default() });
    Ok(())
}

/// Sets tasks of a cursor aside or lets them go on, in a turn that holds these queues.
pub(in crate::tasks) async fn arrange(
    connection: &impl ConnectionTrait,
    queues: &mut Queues,
    cursor: &CursorId,
    (is_paused, is_blocked): (bool, bool),
    at: Timestamp,
) -> Result<(), StoreError> {
    // Other turns may hold tasks and wait for a queue that this one holds, so none is waited for here.
    let text = format!(
        "select t.id, t.queue_id, t.state, t.wake_at, t.bytes from task t
         where t.cursor_id = $1 and t.state in ('waiting', 'ready', 'aside') order by t.round, t.position{}",
        for_update(connection, "t", true)
    );
    let free: Vec<Free> = rows::all(connection, "task", &text, vec![cursor.clone().into()]).await?;
    let text = "select count(*) from task where cursor_id = $1 and state = 'claimed'";
    let claimed = rows::number(connection, "task", text, vec![cursor.clone().into()]).await?;
    let ids: BTreeSet<QueueId> = free.iter().map(|task| task.queue_id.clone()).collect();
    queues.also(connection, &ids).await?;
    let is_oldest = |index: usize| index == 0 && claimed == 0;
    let (mut aside, mut waiting, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for (index, task) in free.into_iter().enumerate() {
        let is_aside = is_paused || (is_blocked && !is_oldest(index));
        let to = if is_aside { TaskState::Aside } else { task.goes_on(at) };
        if task.state == to {
            continue;
        }
        if let Some(queue) = queues.get_mut(&task.queue_id) {
            queue.moved(Some(task.state), to, task.bytes);
        }
        let moved = match to {
            TaskState::Aside => &mut aside,
            TaskState::Waiting => {
                queues.wake(task.wake_at.map(Timestamp));
                &mut waiting
            }
            _ => &mut ready,
        };
        moved.push(vec![task.id.into()]);
    }
    write(connection, TaskState::Aside, &aside, at).await?;
    write(connection, TaskState::Waiting, &waiting, at).await?;
    write(connection, TaskState::Ready, &ready, at).await
}

async fn write(
    connection: &impl ConnectionTrait,
    state: TaskState,
    ids: &[Vec<Value>],
    at: Timestamp,
) -> Result<(), StoreError> {
    let wake_at = if state == TaskState::Ready { "null" } else { "wake_at" };
    for some in ids.chunks(rows::LISTED_MAX) {
        let (values, bound) = rows::list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values})
             update task set state = '{state}', wake_at = {wake_at}, updated_at = {}
             where id in (select id from v)",
            at.0
        );
        rows::execute(connection, "task", &text, bound).await?;
    }
    Ok(())
}

/// The open round of a cursor ends early: tasks that nobody has claimed go, and a claim lasts until its
/// worker reports, at most a minute. The next round waits for that. Returns what others are told: other
/// watches of the app may hand over more.
pub(crate) async fn overtake(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    at: Timestamp,
) -> Result<TaskNews, StoreError> {
    let text = "delete from task where cursor_id = $1 and state in ('waiting', 'ready', 'aside')
                returning id, queue_id, state, bytes";
    let news = leave(connection, text, cursor.as_str()).await?;
    let text = format!(
        "update task set flag = '{OVERTAKEN}', wake_at = case when wake_at > $2 then $2 else wake_at end
         where cursor_id = $1 and state = 'claimed'"
    );
    let values = vec![cursor.clone().into(), at.after(CANCEL_GRACE).0.into()];
    rows::execute(connection, "task", &text, values).await?;
    Ok(news)
}

/// Removes all tasks of a watch, also those that workers have: their tokens are void. Other watches of the
/// app may hand over more.
pub(crate) async fn remove(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<(), StoreError> {
    let text = "delete from task where cursor_id in (select id from cursor where watch_id = $1)
                returning id, queue_id, state, bytes";
    context.tasks.mark(leave(connection, text, watch.as_str()).await?);
    Ok(())
}

/// After a restore: the rounds of all watches have ended, and tokens from before it are void. Watches whose
/// changes become tasks are paused, because nobody knows what their workers did since the backup.
pub(in crate::tasks) async fn of_restored(
    connection: &impl ConnectionTrait,
    reason: &str,
) -> Result<(), StoreError> {
    let text = "delete from task where cursor_id is not null and cursor_id <> $1
                returning id, queue_id, state, bytes";
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

/// Removes tasks by this statement. Returns what others are told.
async fn leave(connection: &impl ConnectionTrait, text: &str, value: &str) -> Result<TaskNews, StoreError> {
    let gone: Vec<Gone> = rows::all(connection, "task", text, vec![value.into()]).await?;
    if gone.is_empty() {
        return Ok(TaskNews::default());
    }
    let ids = gone.iter().map(|task| task.queue_id.clone()).collect();
    let mut queues = Queues::load(connection, &ids).await?;
    for task in &gone {
        if let Some(queue) = queues.get_mut(&task.queue_id) {
            queue.left(task.state, task.bytes);
        }
    }
    queues.write(connection).await?;
    let ended = gone.into_iter().map(|task| task.id).collect();
    Ok(TaskNews { ended, ..queues.news() })
}
