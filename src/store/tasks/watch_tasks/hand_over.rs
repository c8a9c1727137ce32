//! Changes of an open round become tasks: the room for them, and the rows.
//!
//! A cursor has at most its window of unfinished tasks. Below that, what nobody has claimed yet stays small
//! beside what workers have, so that a newer commit makes little work pointless; and the watches of an app
//! make no more tasks while the app has half of the tasks, or of their bytes, that it may have. The tasks of
//! producers count there as well: a queue counts its tasks together. A bound makes a lane wait and never
//! refuses it: a cursor without any task may always hand one over.
//!
//! The change of a redrive becomes the task that its dead letter names: the same id again, with no attempt
//! counted. The row of that task went when the letter was written, so an id never has two rows.
//! The `event.id` of its change is new, as at every redrive, because an `event.id` never names two changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::{
        settlement::{RoundSize, Settlements},
        task::rank,
    },
    ports::{
        DeliverySettings, HandOver, HandOverRoom, HandedChange, OPEN_BYTES_MAX, OPEN_TASKS_MAX, StoreError,
        TaskNews, WINDOW_MAX,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, QueueId, TaskId, WatchId},
    kind::{Operation, OriginKind, RoundKind, TaskState},
    task, task_body, task_change,
};

use super::settles::{self, End, Ended};
use crate::{
    Context,
    apps::{self, sinks::SERVED},
    database::rows,
    lanes::settle,
    ledger,
    tasks::queues::Queues,
};

/// Ready tasks of a queue that do not make a lane wait, whatever workers have.
pub(in crate::tasks) const AHEAD: i64 = 100;
/// Further ready tasks that do not make a lane wait, for each task that a worker has.
pub(in crate::tasks) const AHEAD_PER_CLAIM: i64 = 4;
/// Open tasks of an app, those of producers included, from which on its watches make no more: the rest is for
/// producers.
pub(in crate::tasks) const TASKS_OF_WATCHES: i64 = (OPEN_TASKS_MAX / 2).cast_signed();
/// The same for the bytes of their payloads.
pub(in crate::tasks) const BYTES_OF_WATCHES: i64 = (OPEN_BYTES_MAX / 2).cast_signed();

#[derive(FromQueryResult)]
struct Open {
    app_id: AppId,
    watch_id: WatchId,
    is_blocked: i32,
    kind: RoundKind,
    command: String,
    delivery: String,
    position: i64,
    skip: Option<i64>,
    deletes: i64,
    total: i64,
    unfinished: i64,
    last: i64,
}

#[derive(FromQueryResult)]
struct TasksOfQueue {
    ready: i64,
    claimed: i64,
}

/// What all queues of an app have.
#[derive(FromQueryResult)]
struct OpenOfApp {
    tasks: i64,
    bytes: i64,
}

impl OpenOfApp {
    /// How many tasks more watches may make. The last of them may pass the bound of bytes by its payload.
    fn quota(&self) -> i64 {
        if self.bytes >= BYTES_OF_WATCHES { 0 } else { TASKS_OF_WATCHES - self.tasks }
    }
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
        "select w.app_id, w.id as watch_id, k.address as command, k.delivery, r.kind, r.position, r.deletes,
           r.total, case when c.skip_round = r.number then c.skip_position end as skip,
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
    let settings = apps::settings("sink", &open.delivery)?;
    let free = free(connection, &open, &settings).await?;
    let size = RoundSize { deletes: place(open.deletes)?, total: place(open.total)? };
    let is_settled = settlements.position == size.total;
    let size = if settings.per_round { RoundSize::ONE_TASK } else { size };
    let positions = settlements.may_hand_over(size, settlements.next(last), free);
    let room = HandOverRoom { positions, is_settled, per_round: settings.per_round };
    Ok(Some(Seen { open, room }))
}

/// How many tasks more a cursor may have now.
async fn free(
    connection: &impl ConnectionTrait,
    open: &Open,
    settings: &DeliverySettings,
) -> Result<u64, StoreError> {
    let window = i64::from(settings.window.unwrap_or(WINDOW_MAX)) - open.unfinished;
    // Tasks that wait for their moment are left out: no worker could have them.
    let text = "select ready, claimed from queue where id = $1";
    let queue = QueueId::of(&open.app_id, &open.command);
    let crowd: Option<TasksOfQueue> = rows::one(connection, "queue", text, vec![queue.into()]).await?;
    let ahead = crowd.map_or(AHEAD, |crowd| AHEAD + AHEAD_PER_CLAIM * crowd.claimed - crowd.ready);
    let text = "select cast(coalesce(sum(waiting + ready + claimed + aside), 0) as bigint) as tasks,
                  cast(coalesce(sum(bytes), 0) as bigint) as bytes from queue where app_id = $1";
    let values = vec![open.app_id.clone().into()];
    let of_app: Option<OpenOfApp> = rows::one(connection, "queue", text, values).await?;
    let quota = of_app.map_or(0, |of_app| of_app.quota());
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
    let letters = redriven(connection, next, &open).await?;
    for (position, change) in (start..end).zip(&next.changes) {
        let place = NewTask {
            cursor: &next.cursor,
            round: next.round,
            position: rows::signed(position),
            task: letters.get(&key(change)).unwrap_or(&change.task),
        };
        match &change.payload {
            _ if open.skip == Some(place.position) => handed.end(&place, change, End::Cancelled),
            Ok(payload) => handed.add(context, &open, &place, change, payload, &mut queues, at),
            Err(reason) => handed.end(&place, change, End::Unavailable(reason.clone())),
        }
    }
    rows::insert(connection, "task", handed.tasks).await?;
    rows::insert(connection, "task_body", handed.bodies).await?;
    rows::insert(connection, "task_change", handed.changes).await?;
    let notes = settles::settle(connection, context, handed.ended, &mut queues, at).await?;
    if open.is_blocked == 1 {
        super::aside::arrange(connection, &mut queues, &next.cursor, (false, true), at).await?;
    }
    queues.write(connection).await?;
    ledger::write(connection, context, notes, at).await?;
    let mut news = queues.news();
    news.tally.queues = queues.take_tallies();
    Ok(Some(news))
}

/// What a change is known by among the dead letters of a round. A path has one letter, also where a file
/// became a link: a delete and a create of one path.
type LetterKey = (Vec<u8>, Operation);

fn key(change: &HandedChange) -> LetterKey {
    (change.change.path.clone(), change.change.operation)
}

/// The tasks of the dead letters that a redrive sends again.
async fn redriven(
    connection: &impl ConnectionTrait,
    next: &HandOver,
    open: &Open,
) -> Result<BTreeMap<LetterKey, TaskId>, StoreError> {
    #[derive(FromQueryResult)]
    struct Letter {
        path: Vec<u8>,
        operation: Operation,
        task_id: TaskId,
    }
    // The letter of a round is sent again by a replay, or by a resync where the app held nothing.
    if open.kind == RoundKind::Sync {
        return Ok(BTreeMap::new());
    }
    let text = "select path, operation, task_id from dead_letter
                where cursor_id = $1 and bound_round = $2 and task_id is not null
                  and ($3 = 1 or length(path) = 0)";
    let is_redrive = i32::from(open.kind == RoundKind::Redrive);
    let values = vec![next.cursor.clone().into(), next.round.into(), is_redrive.into()];
    let letters: Vec<Letter> = rows::all(connection, "dead_letter", text, values).await?;
    Ok(letters.into_iter().map(|letter| ((letter.path, letter.operation), letter.task_id)).collect())
}

/// The place of a change, and the task that it becomes.
struct NewTask<'h> {
    cursor: &'h CursorId,
    round: i64,
    position: i64,
    task: &'h TaskId,
}

/// The rows of changes that are handed over.
#[derive(Default)]
struct Handed {
    tasks: Vec<task::Model>,
    bodies: Vec<task_body::Model>,
    changes: Vec<task_change::Model>,
    /// Changes that become no tasks.
    ended: Vec<Ended>,
}

impl Handed {
    #[expect(clippy::too_many_arguments, reason = "what a row is made of")]
    fn add(
        &mut self,
        context: &Context,
        open: &Open,
        place: &NewTask<'_>,
        change: &HandedChange,
        payload: &str,
        queues: &mut Queues,
        at: Timestamp,
    ) {
        let queue_id = QueueId::of(&open.app_id, &open.command);
        let Some(queue) = queues.get_mut(&queue_id) else { return };
        let bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
        queue.moved(None, TaskState::Ready, bytes);
        queue.tally.handed_over += 1;
        let ageing = queue.settings.ageing_ms.map(std::time::Duration::from_millis);
        self.tasks.push(task::Model {
            id: place.task.clone(),
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
            cursor_id: Some(place.cursor.clone()),
            round: Some(place.round),
            position: Some(place.position),
            origin_kind: OriginKind::Commit,
            origin: format!("{}/{}", place.cursor, place.round),
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
            task_id: place.task.clone(),
            payload: payload.to_owned(),
            result: None,
            progress: None,
        });
        self.changes.push(settles::to_row(place.task, change));
    }

    /// A change becomes no task: it was skipped by hand, or its content is not available.
    fn end(&mut self, place: &NewTask<'_>, change: &HandedChange, end: End) {
        self.ended.push(Ended {
            task: place.task.clone(),
            cursor: place.cursor.clone(),
            round: place.round,
            position: place.position,
            end,
            change: Some(settles::to_row(place.task, change)),
        });
    }
}
