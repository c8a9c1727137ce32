//! Changes of an open round become tasks: the room for them, and the rows.
//!
//! A cursor has at most its window of unfinished tasks. Below that, what nobody has claimed yet stays small
//! beside what workers have, so that a newer commit makes little work pointless; and the tasks of watches
//! take at most half of what an app may have. A bound makes a lane wait and never refuses it: a cursor
//! without any task may always hand one over.

use std::{collections::BTreeSet, ops::Range};

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::{
        settlement::{RoundSize, Settlements},
        task::rank,
    },
    ports::{HandOver, HandOverRoom, HandedChange, OPEN_TASKS_MAX, StoreError, TaskNews, WINDOW_MAX},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, QueueId, WatchId},
    kind::{OriginKind, TaskState},
    task, task_body, task_change,
};

use super::{
    queues::Queues,
    settles::{self, End, Ended},
};
use crate::{
    Context,
    apps::{self, sinks::SERVED},
    lanes::settle,
    ledger, rows,
};

/// Tasks of a queue that wait for a worker without making a lane wait ...
const AHEAD: i64 = 100;
/// ... beside this many for each task that a worker has.
const AHEAD_PER_CLAIM: i64 = 4;

#[derive(FromQueryResult)]
struct Open {
    app_id: AppId,
    watch_id: WatchId,
    is_blocked: i32,
    command: String,
    delivery: String,
    position: i64,
    deletes: i64,
    total: i64,
    unfinished: i64,
    last: i64,
}

#[derive(FromQueryResult)]
struct TasksOfQueue {
    unclaimed: i64,
    claimed: i64,
}

/// An open round whose changes may become tasks.
struct Seen {
    open: Open,
    room: HandOverRoom,
}

/// What may be handed over of a round; `None`: the round is not open, or is not served.
pub(crate) async fn room(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
) -> Result<Option<HandOverRoom>, StoreError> {
    Ok(seen(connection, cursor, round).await?.map(|seen| seen.room))
}

async fn seen(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
) -> Result<Option<Seen>, StoreError> {
    let text = format!(
        "select w.app_id, w.id as watch_id, k.address as command, k.delivery, r.position, r.deletes, r.total,
           case when c.state = 'blocked' then 1 else 0 end as is_blocked,
           (select count(*) from task t where t.cursor_id = c.id) as unfinished,
           (select coalesce(max(t.position), -1) from task t
             where t.cursor_id = c.id and t.round = r.number) as last
         from cursor c join round r on r.cursor_id = c.id and r.number = c.open_round
         join watch w on w.id = c.watch_id join app a on a.id = w.app_id join sink k on k.id = w.sink_id
         where c.id = $1 and r.number = $2 and k.kind = 'tasks' and w.state = 'active' and {SERVED}"
    );
    let values = vec![cursor.clone().into(), round.into()];
    let Some(open) = rows::one::<Open>(connection, "round", &text, values).await? else { return Ok(None) };
    let place = |number| rows::unsigned("round", number);
    let position = place(open.position)?;
    let above = settle::above(connection, cursor, round, position).await?;
    let settlements = Settlements::of_rows(position, above);
    let last = u64::try_from(open.last).ok();
    let free = free(connection, &open).await?;
    let size = RoundSize { deletes: place(open.deletes)?, total: place(open.total)? };
    let positions = settlements.may_hand_over(size, settlements.next(last), free);
    let room = HandOverRoom { positions, is_settled: settlements.position == size.total };
    Ok(Some(Seen { open, room }))
}

/// How many tasks more a cursor may have now.
async fn free(connection: &impl ConnectionTrait, open: &Open) -> Result<u64, StoreError> {
    let settings = apps::settings("sink", &open.delivery)?;
    let window = i64::from(settings.window.unwrap_or(WINDOW_MAX)) - open.unfinished;
    let text = "select waiting + ready as unclaimed, claimed from queue where id = $1";
    let queue = QueueId::of(&open.app_id, &open.command);
    let crowd: Option<TasksOfQueue> = rows::one(connection, "queue", text, vec![queue.into()]).await?;
    let ahead = crowd.map_or(AHEAD, |crowd| AHEAD + AHEAD_PER_CLAIM * crowd.claimed - crowd.unclaimed);
    let text = "select cast(coalesce(sum(waiting + ready + claimed + aside), 0) as bigint) from queue
                where app_id = $1";
    let of_app = rows::number(connection, "queue", text, vec![open.app_id.clone().into()]).await?;
    let quota = rows::signed(OPEN_TASKS_MAX / 2) - of_app;
    // Nobody starves: a cursor without a task may have one.
    let least = i64::from(open.unfinished == 0);
    let free = window.min(ahead).min(quota).max(least);
    Ok(u64::try_from(free).unwrap_or(0))
}

/// Makes tasks of the next changes of a round, as many as there is room for. Returns what others are told
/// once that is on disk; `None`: these changes were not the next ones.
pub(crate) async fn hand_over(
    connection: &impl ConnectionTrait,
    context: &Context,
    next: &HandOver,
) -> Result<Option<TaskNews>, StoreError> {
    let at = context.clock.now();
    let Some(Seen { open, room }) = seen(connection, &next.cursor, next.round).await? else {
        return Ok(None);
    };
    let Range { start, end } = room.positions;
    if start != next.from || start == end {
        return Ok(None);
    }
    let queue = QueueId::of(&open.app_id, &open.command);
    let mut queues = Queues::load(connection, &BTreeSet::from([queue.clone()])).await?;
    queues.make(&open.app_id, &open.command, at);
    queues.insert_new(connection).await?;
    let mut handed = Handed::default();
    for (position, change) in (start..end).zip(&next.changes) {
        let place = (next, rows::signed(position));
        match &change.payload {
            Ok(payload) => handed.add(context, &open, place, change, payload, &mut queues, at),
            Err(reason) => handed.unavailable.push(Ended::unavailable(place, change, reason)),
        }
    }
    rows::insert(connection, "task", handed.tasks).await?;
    rows::insert(connection, "task_body", handed.bodies).await?;
    rows::insert(connection, "task_change", handed.changes).await?;
    let notes = settles::settle(connection, context, handed.unavailable, &mut queues, at).await?;
    if open.is_blocked == 1 {
        super::aside::arrange(connection, &mut queues, &next.cursor, (false, true)).await?;
    }
    queues.write(connection).await?;
    ledger::write(connection, context, notes, at).await?;
    Ok(Some(queues.news()))
}

/// The rows of changes that are handed over.
#[derive(Default)]
struct Handed {
    tasks: Vec<task::Model>,
    bodies: Vec<task_body::Model>,
    changes: Vec<task_change::Model>,
    unavailable: Vec<Ended>,
}

impl Handed {
    #[expect(clippy::too_many_arguments, reason = "what a row is made of")]
    fn add(
        &mut self,
        context: &Context,
        open: &Open,
        (next, position): (&HandOver, i64),
        change: &HandedChange,
        payload: &str,
        queues: &mut Queues,
        at: Timestamp,
    ) {
        let queue_id = QueueId::of(&open.app_id, &open.command);
        let Some(queue) = queues.get_mut(&queue_id) else { return };
        let bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
        queue.moved(None, TaskState::Ready, bytes);
        let ageing = queue.settings.ageing_ms.map(std::time::Duration::from_millis);
        self.tasks.push(task::Model {
            id: change.task.clone(),
            queue_id,
            app_id: open.app_id.clone(),
            state: TaskState::Ready,
            rank: rank(0, context.tasks.next_rank(at), ageing),
            wake_at: None,
            priority: 0,
            attempts: 0,
            abandons: 0,
            max_attempts: queue.settings.attempts().into(),
            claim: None,
            worker: None,
            claimed_at: None,
            flag: None,
            watch_id: Some(open.watch_id.clone()),
            cursor_id: Some(next.cursor.clone()),
            round: Some(next.round),
            position: Some(position),
            origin_kind: OriginKind::Commit,
            origin: format!("{}/{}", next.cursor, next.round),
            parent_id: None,
            depth: 0,
            key_hash: None,
            request_hash: None,
            callback: None,
            error: None,
            bytes,
            created_at: at.0,
            updated_at: at.0,
            ended_at: None,
        });
        self.bodies.push(task_body::Model {
            task_id: change.task.clone(),
            payload: payload.to_owned(),
            result: None,
            progress: None,
        });
        self.changes.push(settles::to_row(change));
    }
}

impl Ended {
    /// The end of a change that becomes no task, because its content cannot be had.
    fn unavailable((next, position): (&HandOver, i64), change: &HandedChange, reason: &str) -> Self {
        Self {
            task: change.task.clone(),
            cursor: next.cursor.clone(),
            round: next.round,
            position,
            end: End::Unavailable(reason.to_owned()),
            change: Some(settles::to_row(change)),
        }
    }
}
