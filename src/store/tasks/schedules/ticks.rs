//! Schedules that create tasks, in a turn: those whose moment has come, held to its end. Their tasks are
//! created, and the ticks up to which everything is decided are raised, in one transaction.
//!
//! Rows that another replica holds are passed over, here and in [`wake_after`]: a turn waits for nobody while
//! it holds schedules. A word that is lost so is repaired by the next look ([`OVERLAP_LOOK`]).
//!
//! Ticks that were missed may be many, with a large payload each. One turn creates tasks of at most
//! [`TURN_BYTES`]; schedules without room stay due, and the next turn begins with them.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::schedule::{Calendar, Firing, OVERLAP_LOOK, fire},
    ports::{CALLBACKS_MAX, CreateRefusal, NewTask, Origin, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId, TaskId, WatchId},
    kind::{EntryType, OriginKind, TaskState},
    schedule,
};

use crate::{
    Context,
    apps::sinks::STOPPED,
    database::rows::{self, LISTED_MAX, list},
    ledger::Note,
    tasks::{
        Operation,
        creates::Creates,
        for_update, moment,
        queues::{Queues, is_open},
        text,
    },
};

/// Schedules that one turn looks at.
pub(in crate::tasks) const DUE_MAX: i64 = 100;
/// The bytes of the payloads of tasks that one turn creates (8 MiB).
const TURN_BYTES: usize = 8 << 20;
/// How long after a try that failed the task or the resync of a tick is tried again.
pub(in crate::tasks) const TRY_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// The schedules of a turn.
#[derive(Default)]
pub(in crate::tasks) struct Ticks {
    rows: Vec<schedule::Model>,
    notes: Vec<Note>,
    count: u64,
    /// The bytes of the payloads of the tasks that it created.
    bytes: usize,
}

/// The task that a schedule created last.
#[derive(sea_orm::FromQueryResult)]
struct LastTask {
    id: TaskId,
    state: TaskState,
}

impl Ticks {
    /// Reads and holds the schedules whose moment has come, where the clock asks. Those of a disabled app
    /// rest.
    pub(in crate::tasks) async fn load(
        connection: &impl ConnectionTrait,
        operations: &[Operation],
        at: Timestamp,
    ) -> Result<Self, StoreError> {
        if !operations.iter().any(|operation| matches!(operation, Operation::Wake)) {
            return Ok(Self::default());
        }
        let text = format!(
            "select s.* from schedule s join app a on a.id = s.app_id
             where s.wake_at <= $1 and s.watch_id is null and not {STOPPED}
             order by s.wake_at, s.app_id, s.name limit $2{}",
            for_update(connection, "s", true)
        );
        let rows = rows::all(connection, "schedule", &text, vec![at.0.into(), DUE_MAX.into()]).await?;
        Ok(Self { rows, ..Self::default() })
    }

    /// The queues that their tasks go to.
    pub(in crate::tasks) fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.rows.iter().map(|row| QueueId::of(&row.app_id, &row.command))
    }

    /// The apps that they belong to.
    pub(in crate::tasks) fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.rows.iter().map(|row| &row.app_id)
    }

    /// The addresses that are told of the ends of their tasks.
    pub(in crate::tasks) fn callbacks(&self) -> impl Iterator<Item = (AppId, String)> {
        self.rows.iter().filter_map(|row| Some((row.app_id.clone(), row.callback.clone()?)))
    }

    /// Decides about their ticks, and creates the tasks. What this turn ended is written already.
    pub(in crate::tasks) async fn fire(
        &mut self,
        connection: &impl ConnectionTrait,
        context: &Context,
        queues: &mut Queues,
        creates: &mut Creates,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let busy = busy(connection, &self.rows).await?;
        let mut rows = std::mem::take(&mut self.rows);
        for row in &mut rows {
            let is_busy = row.last_task.as_ref().is_some_and(|task| busy.contains(task));
            self.fire_one(context, row, is_busy, queues, creates, at);
        }
        self.rows = rows;
        Ok(())
    }

    fn fire_one(
        &mut self,
        context: &Context,
        row: &mut schedule::Model,
        is_busy: bool,
        queues: &mut Queues,
        creates: &mut Creates,
        at: Timestamp,
    ) {
        let calendar = match Calendar::of(&row.cron, &row.zone) {
            Ok(calendar) => calendar,
            // A zone that a later version of the database of zones does not know any more.
            Err(fault) => return fail(row, fault.to_string(), at),
        };
        let firing = fire(&calendar, (row.missed, row.overlap), is_busy, Timestamp(row.last_tick), at);
        let (made_up, room) = (firing.ticks.len(), self.room(row.payload.len()));
        if made_up > 0 && room == 0 {
            return;
        }
        let firing = firing.first(room, at);
        let tasks: Vec<NewTask> = firing.ticks.iter().map(|tick| task(context, row, *tick, at)).collect();
        if !tasks.is_empty() {
            match creates.create(&row.app_id, &tasks, None, queues) {
                Ok(created) => row.last_task = created.last().map(|task| task.id.clone()),
                Err(refusal) => return fail(row, refused(&refusal), at),
            }
        }
        self.count += tasks.len() as u64;
        self.bytes += tasks.len() * row.payload.len();
        self.notes.extend(decided(row, &firing, made_up));
    }

    /// How many tasks with payloads of this size the turn has room for; one, whatever its size, where it has
    /// created none.
    fn room(&self, payload: usize) -> usize {
        let room = TURN_BYTES.saturating_sub(self.bytes) / payload.max(1);
        room.max(usize::from(self.bytes == 0))
    }

    /// Writes where the schedules stand; what ledgers are told, and how many tasks were created.
    pub(in crate::tasks) async fn write(
        self,
        connection: &impl ConnectionTrait,
    ) -> Result<(Vec<Note>, u64), StoreError> {
        write(connection, &self.rows).await?;
        Ok((self.notes, self.count))
    }
}

/// Writes where these schedules stand.
pub(in crate::tasks) async fn write(
    connection: &impl ConnectionTrait,
    schedules: &[schedule::Model],
) -> Result<(), StoreError> {
    const TYPES: [&str; 8] = ["text", "text", "bigint", "bigint", "text", "bigint", "bigint", "text"];
    let written: Vec<Vec<Value>> = schedules.iter().map(written).collect();
    for some in written.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &TYPES, some);
        let text = format!(
            "with v(app_id, name, last_tick, wake_at, last_task, missed, skipped, error) as ({values})
             update schedule set last_tick = v.last_tick, wake_at = nullif(v.wake_at, -1),
               last_task = nullif(v.last_task, ''), missed_ticks = v.missed, skipped_ticks = v.skipped,
               error = nullif(v.error, '')
             from v where schedule.app_id = v.app_id and schedule.name = v.name"
        );
        rows::execute(connection, "schedule", &text, bound).await?;
    }
    Ok(())
}

/// Those of their last tasks that have not ended.
async fn busy(
    connection: &impl ConnectionTrait,
    schedules: &[schedule::Model],
) -> Result<BTreeSet<TaskId>, StoreError> {
    let ids: BTreeSet<&TaskId> = schedules.iter().filter_map(|row| row.last_task.as_ref()).collect();
    let ids: Vec<Vec<Value>> = ids.into_iter().map(|id| vec![id.clone().into()]).collect();
    let mut busy = BTreeSet::new();
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text =
            format!("with v(id) as ({values}) select id, state from task where id in (select id from v)");
        let found: Vec<LastTask> = rows::all(connection, "task", &text, bound).await?;
        busy.extend(found.into_iter().filter(|task| is_open(task.state)).map(|task| task.id));
    }
    Ok(busy)
}

/// The ticks of a schedule up to now are decided. Returns the entry about those that were missed; `made_up`
/// counts what began in their place.
pub(in crate::tasks) fn decided(row: &mut schedule::Model, firing: &Firing, made_up: usize) -> Option<Note> {
    row.last_tick = firing.last_tick.0;
    row.wake_at = firing.wake_at.map(|wake_at| wake_at.0);
    row.missed_ticks += i64::try_from(firing.missed).unwrap_or(0);
    row.skipped_ticks += i64::try_from(firing.skipped).unwrap_or(0);
    row.error = None;
    if firing.missed == 0 {
        return None;
    }
    let command = row.watch_id.is_none().then_some(row.command.as_str());
    let origin = origin(row, firing.last_tick);
    let note = Note::new(row.app_id.clone(), &row.name, EntryType::ScheduleMissed, origin);
    let note =
        note.with("command", command).with("repository_id", row.watch_id.as_ref().map(WatchId::as_str));
    Some(note.with("count", firing.missed).with("made_up", made_up))
}

/// Nothing of its ticks is decided; it is tried again.
pub(in crate::tasks) fn fail(row: &mut schedule::Model, reason: String, at: Timestamp) {
    row.wake_at = Some(at.after(TRY_AGAIN).0);
    row.error = Some(reason);
}

fn refused(refusal: &CreateRefusal) -> String {
    match refusal {
        CreateRefusal::PayloadTooLarge(_, limit) => {
            format!("the payload is larger than its queue allows ({limit} bytes)")
        }
        CreateRefusal::Queues => "the app has as many queues as it may have".to_owned(),
        CreateRefusal::OpenTasks => "the app has as many open tasks as it may have".to_owned(),
        CreateRefusal::OpenBytes => {
            "the payloads of the app's open tasks are as large as they may be".to_owned()
        }
        CreateRefusal::Callbacks => {
            format!("the app's tasks have as many webhook addresses as they may have ({CALLBACKS_MAX})")
        }
        CreateRefusal::KeyReused(_) | CreateRefusal::Depth => "the task was refused".to_owned(),
    }
}

fn origin(row: &schedule::Model, tick: Timestamp) -> Origin {
    Origin { kind: OriginKind::Tick, name: format!("{}/{}", row.name, tick.iso()) }
}

fn task(context: &Context, row: &schedule::Model, tick: Timestamp, at: Timestamp) -> NewTask {
    NewTask {
        id: TaskId::new(context.random.ulid(at)),
        command: row.command.clone(),
        payload: row.payload.clone(),
        priority: u8::try_from(row.priority).unwrap_or(0),
        max_attempts: row.max_attempts.and_then(|most| u32::try_from(most).ok()),
        run_at: None,
        delay: None,
        key: None,
        origin: origin(row, tick),
        callback: row.callback.clone(),
    }
}

fn written(row: &schedule::Model) -> Vec<Value> {
    vec![
        row.app_id.clone().into(),
        row.name.clone().into(),
        row.last_tick.into(),
        moment(row.wake_at.map(Timestamp)),
        text(row.last_task.as_ref().map(TaskId::as_str)),
        row.missed_ticks.into(),
        row.skipped_ticks.into(),
        text(row.error.as_deref()),
    ]
}

/// Lets schedules go on now that wait for the end of these tasks. Whether there are some.
pub(in crate::tasks) async fn wake_after(
    connection: &impl ConnectionTrait,
    ended: &[TaskId],
    at: Timestamp,
) -> Result<bool, StoreError> {
    let ids: Vec<Vec<Value>> = ended.iter().map(|id| vec![id.clone().into()]).collect();
    let mut woken = 0;
    for some in ids.chunks(LISTED_MAX) {
        let (values, mut bound) = list(connection, &["text"], some);
        let place = bound.len() + 1;
        bound.extend([at.0.into(), at.after(OVERLAP_LOOK).0.into()]);
        let text = format!(
            "with v(id) as ({values}) update schedule set wake_at = ${place}
             where (app_id, name) in (select s.app_id, s.name from schedule s
               where s.last_task in (select id from v) and s.overlap = 'wait' and s.wake_at > ${place}
                 and s.wake_at <= ${}{})",
            place + 1,
            for_update(connection, "s", true)
        );
        woken += rows::execute(connection, "schedule", &text, bound).await?;
    }
    Ok(woken > 0)
}
