//! The end of a task of a watch settles its change, in the transaction of the end: it writes the settled
//! range or the dead letter, joins neighbouring ranges, moves the position of the round over what meets it,
//! and removes the row.
//!
//! The row of the round is locked first. A task whose round is not open settles nothing and only goes.
//!
//! Ten dead tasks of a cursor, in the order of their ends and without a success between, block the cursor:
//! only its oldest task may be claimed. A success ends the block, and the letters of that streak are sent
//! again by themselves, each once.
//!
//! Where a round is one task (`per: round`), its dead letter has an empty path and is in no list of letters:
//! a replay sends the round again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::{
        round::{Change, DeliveryId, Entry},
        settlement::Settlements,
    },
    ports::{HandedChange, Park, STREAK_MAX, SelfRedrive, Settlement, Standing, StoreError, Streak},
    time::Timestamp,
};
use tidings_entity::{
    id::{CursorId, DeadLetterId, TaskId},
    kind::ParkReason,
    task_change,
};

use super::aside;
use crate::{
    Context, apps,
    database::rows::{self, LISTED_MAX, list, signed},
    lanes::{letters::redrive, rounds, settle},
    ledger::{Note, told},
    tasks::{for_update, queues::Queues},
    watching::statuses,
};

/// How a task of a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tasks) enum End {
    Success,
    /// The worker gave it up, for this reason: a letter that never counts.
    Failed(String),
    /// Its attempts are used up: a letter that counts.
    Dead(String),
    /// A person cancelled it, or skipped its change.
    Cancelled,
    /// It was never a task: its content is not available, for this reason.
    Unavailable(String),
}

/// A task of a watch that ended.
pub(in crate::tasks) struct Ended {
    pub(in crate::tasks) task: TaskId,
    pub(in crate::tasks) cursor: CursorId,
    pub(in crate::tasks) round: i64,
    pub(in crate::tasks) position: i64,
    pub(in crate::tasks) end: End,
    /// The change, where no row has it.
    pub(in crate::tasks) change: Option<task_change::Model>,
}

/// The row that says which change a task is about.
pub(in crate::tasks) fn to_row(task: &TaskId, change: &HandedChange) -> task_change::Model {
    let old = change.change.old;
    task_change::Model {
        task_id: task.clone(),
        delivery_id: change.delivery.as_str().to_owned(),
        path: change.change.path.clone(),
        operation: change.change.operation,
        before_mode: old.and_then(|entry| i32::try_from(entry.mode).ok()),
        before_blob: old.map(|entry| entry.blob),
    }
}

#[derive(FromQueryResult)]
struct RoundRow {
    cursor_id: CursorId,
    number: i64,
    position: i64,
    total: i64,
    streak: i32,
    streak_round: Option<i64>,
    streak_position: Option<i64>,
    refused: i32,
    acknowledged: bool,
    is_blocked: i32,
    is_paused: i32,
    /// The settings of its sink.
    delivery: String,
}

#[derive(FromQueryResult)]
struct RangeRow {
    cursor_id: CursorId,
    from_position: i64,
    to_position: i64,
}

/// An open round whose tasks ended in this turn.
struct OpenRound {
    row: RoundRow,
    settlements: Settlements,
    /// Whether the round became one task.
    per_round: bool,
    /// The ranges of rows that touch or lie above the position.
    ranges: BTreeMap<i64, i64>,
    streak: Streak,
    is_blocked: bool,
    was_redriven: Option<SelfRedrive>,
    acknowledged: bool,
    parks: Vec<(TaskId, Park)>,
}

/// Settles the changes of these tasks, in the order of their ends, and removes the tasks. Returns the notes
/// for ledgers.
pub(in crate::tasks) async fn settle(
    connection: &impl ConnectionTrait,
    context: &Context,
    ended: Vec<Ended>,
    queues: &mut Queues,
    at: Timestamp,
) -> Result<Vec<Note>, StoreError> {
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let mut rounds = load(connection, &ended).await?;
    let mut changes = changes(connection, &ended).await?;
    for one in &ended {
        let Some(round) = rounds.get_mut(&one.cursor).filter(|round| round.row.number == one.round) else {
            continue;
        };
        let change = one.change.clone().or_else(|| changes.remove(&one.task));
        let letter = DeadLetterId::new(context.random.ulid(at));
        round.end(one, change, letter)?;
    }
    write(connection, &rounds, at).await?;
    let gone: Vec<Vec<Value>> = ended.iter().map(|one| vec![one.task.clone().into()]).collect();
    for some in gone.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!("with v(id) as ({values}) delete from task where id in (select id from v)");
        rows::execute(connection, "task", &text, bound).await?;
    }
    let mut notes = Vec::new();
    for round in rounds.values_mut() {
        notes.extend(consequences(connection, context, round, queues, at).await?);
    }
    Ok(notes)
}

async fn load(
    connection: &impl ConnectionTrait,
    ended: &[Ended],
) -> Result<BTreeMap<CursorId, OpenRound>, StoreError> {
    let cursors: BTreeSet<&CursorId> = ended.iter().map(|one| &one.cursor).collect();
    let cursors: Vec<Vec<Value>> = cursors.into_iter().map(|cursor| vec![cursor.clone().into()]).collect();
    let lock = for_update(connection, "r, c", false);
    let mut rounds = BTreeMap::new();
    for some in cursors.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values})
             select r.cursor_id, r.number, r.position, r.total, c.streak, c.streak_round, c.streak_position,
               c.refused, c.acknowledged,
               case when c.state = 'blocked' then 1 else 0 end as is_blocked,
               case when w.state = 'paused' then 1 else 0 end as is_paused, k.delivery
             from cursor c join round r on r.cursor_id = c.id and r.number = c.open_round
             join watch w on w.id = c.watch_id join sink k on k.id = w.sink_id
             where c.id in (select id from v) order by r.cursor_id{lock}"
        );
        for row in rows::all::<RoundRow>(connection, "round", &text, bound).await? {
            rounds.insert(row.cursor_id.clone(), OpenRound::of(row)?);
        }
    }
    let places: Vec<Vec<Value>> = rounds
        .values()
        .map(|round| {
            vec![round.row.cursor_id.clone().into(), round.row.number.into(), round.row.position.into()]
        })
        .collect();
    for some in places.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "bigint", "bigint"], some);
        let text = format!(
            "with v(cursor_id, round, position) as ({values})
             select distinct s.cursor_id, s.from_position, s.to_position from v
             join settled s on s.cursor_id = v.cursor_id and s.round = v.round
               and s.to_position >= v.position"
        );
        for found in rows::all::<RangeRow>(connection, "settled", &text, bound).await? {
            if let Some(round) = rounds.get_mut(&found.cursor_id) {
                round.ranges.insert(found.from_position, found.to_position);
            }
        }
    }
    for round in rounds.values_mut() {
        let ranges = round.ranges.iter().map(|(from, to)| Ok(place(*from)?..place(*to)?));
        let ranges: Vec<Range<u64>> = ranges.collect::<Result<_, StoreError>>()?;
        round.settlements = Settlements::of_rows(place(round.row.position)?, ranges);
    }
    Ok(rounds)
}

fn place(number: i64) -> Result<u64, StoreError> {
    rows::unsigned("settled", number)
}

/// The changes of tasks that become dead letters.
async fn changes(
    connection: &impl ConnectionTrait,
    ended: &[Ended],
) -> Result<BTreeMap<TaskId, task_change::Model>, StoreError> {
    let asked = ended.iter().filter(|one| one.end != End::Success && one.change.is_none());
    let asked: Vec<Vec<Value>> = asked.map(|one| vec![one.task.clone().into()]).collect();
    let mut changes = BTreeMap::new();
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text =
            format!("with v(id) as ({values}) select * from task_change where task_id in (select id from v)");
        for change in rows::all::<task_change::Model>(connection, "task_change", &text, bound).await? {
            changes.insert(change.task_id.clone(), change);
        }
    }
    Ok(changes)
}

impl OpenRound {
    fn of(row: RoundRow) -> Result<Self, StoreError> {
        let from = match row.streak_round.zip(row.streak_position) {
            Some((round, position)) => Some((round, place(position)?)),
            None => None,
        };
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        Ok(Self {
            streak: Streak { count: count(row.streak), from, refused: count(row.refused) },
            is_blocked: row.is_blocked == 1,
            acknowledged: row.acknowledged,
            settlements: Settlements::default(),
            per_round: apps::settings("sink", &row.delivery)?.per_round,
            ranges: BTreeMap::new(),
            was_redriven: None,
            parks: Vec::new(),
            row,
        })
    }

    /// The task of one change ended.
    fn end(
        &mut self,
        one: &Ended,
        change: Option<task_change::Model>,
        letter: DeadLetterId,
    ) -> Result<(), StoreError> {
        let position = place(one.position)?;
        let is_new = if self.per_round {
            self.settlements.settle_all(place(self.row.total)?)
        } else {
            self.settlements.settle(position)
        };
        if !is_new {
            return Ok(());
        }
        let (reason, excerpt, counted) = match &one.end {
            End::Success => {
                self.succeed()?;
                return Ok(());
            }
            End::Failed(reason) => (ParkReason::Rejected, reason.clone(), false),
            End::Dead(reason) => (ParkReason::Failing, reason.clone(), true),
            End::Cancelled => (ParkReason::Skipped, "skipped by hand".to_owned(), false),
            End::Unavailable(reason) => (ParkReason::ContentUnavailable, reason.clone(), false),
        };
        if counted {
            self.streak.count += 1;
            let here = (self.row.number, position);
            self.streak.from = Some(self.streak.from.map_or(here, |from| from.min(here)));
            self.is_blocked |= self.streak.count >= STREAK_MAX;
        }
        let Some(change) = change else {
            return Err(crate::database::error::undecodable(
                "task_change",
                format!("{} has no row", one.task),
            ));
        };
        let old = change.before_mode.zip(change.before_blob);
        let park = Park {
            id: letter,
            position,
            change: Change {
                operation: change.operation,
                path: change.path,
                old: old.map(|(mode, blob)| Entry { mode: u32::try_from(mode).unwrap_or(0), blob }),
                new: None,
                replay_of: None,
            },
            delivery: DeliveryId::from_stored(change.delivery_id),
            reason,
            counted,
            status: None,
            excerpt: excerpt.chars().take(EXCERPT_MAX).collect(),
        };
        self.parks.push((one.task.clone(), park));
        Ok(())
    }

    /// A success ends a streak, and a block that the streak led to.
    fn succeed(&mut self) -> Result<(), StoreError> {
        self.acknowledged = true;
        if self.is_blocked
            && let Some(from) = self.streak.from
        {
            let before = (self.row.number, place(self.row.total)?);
            self.was_redriven = Some(SelfRedrive { from, before, counted: true });
        }
        self.is_blocked = false;
        self.streak = Streak::default();
        Ok(())
    }

    /// The ranges that rows should say now: the prefix, where it changed, and those above it.
    fn wanted(&self) -> BTreeMap<i64, i64> {
        let position = signed(self.settlements.position);
        let mut wanted: BTreeMap<i64, i64> =
            self.settlements.above.iter().map(|range| (signed(range.start), signed(range.end))).collect();
        // The range that ends at the position grows with it.
        let touching =
            self.ranges.iter().find(|(from, to)| **from < self.row.position && **to >= self.row.position);
        let from = touching.map_or(self.row.position, |(from, _)| *from);
        if from < position {
            wanted.insert(from, position);
        }
        wanted
    }

    fn has_other_streak(&self) -> bool {
        let from = self.row.streak_round.zip(self.row.streak_position);
        let now = self.streak.from.map(|(round, position)| (round, signed(position)));
        (i64::from(self.streak.count), now) != (i64::from(self.row.streak), from)
            || self.acknowledged != self.row.acknowledged
            || i64::from(self.streak.refused) != i64::from(self.row.refused)
    }
}

/// Most characters of a reason in a dead letter.
const EXCERPT_MAX: usize = 1_024;

/// Writes ranges, positions and streaks.
async fn write(
    connection: &impl ConnectionTrait,
    rounds: &BTreeMap<CursorId, OpenRound>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (mut gone, mut new, mut moved, mut streaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (cursor, round) in rounds {
        let number = round.row.number;
        let wanted = round.wanted();
        for (from, _) in round.ranges.iter().filter(|(from, to)| wanted.get(*from) != Some(*to)) {
            gone.push(vec![Value::from(cursor.clone()), number.into(), (*from).into()]);
        }
        for (from, to) in wanted.iter().filter(|(from, to)| round.ranges.get(*from) != Some(*to)) {
            new.push(vec![cursor.clone().into(), number.into(), (*from).into(), (*to).into(), at.0.into()]);
        }
        if signed(round.settlements.position) > round.row.position {
            let position = signed(round.settlements.position);
            moved.push(vec![Value::from(cursor.clone()), number.into(), position.into()]);
        }
        if round.has_other_streak() {
            streaks.push(settle::streak_row(cursor, &round.streak, round.acknowledged));
        }
    }
    for some in gone.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "bigint", "bigint"], some);
        let text = format!(
            "with v(cursor_id, round, start) as ({values}) delete from settled
             where (cursor_id, round, from_position) in (select cursor_id, round, start from v)"
        );
        rows::execute(connection, "settled", &text, bound).await?;
    }
    for some in new.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &settle::RANGE, some);
        rows::execute(connection, "settled", &settle::insert(&values), bound).await?;
    }
    for some in moved.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "bigint", "bigint"], some);
        let text = format!(
            "with v(cursor_id, round, position) as ({values}) update round set position = v.position from v
             where round.cursor_id = v.cursor_id and round.number = v.round and round.position < v.position"
        );
        rows::execute(connection, "round", &text, bound).await?;
    }
    for some in streaks.chunks(LISTED_MAX) {
        settle::write_streaks(connection, some).await?;
    }
    Ok(())
}

/// What follows from ends for the cursor as a whole, rarely: letters, a block or its end.
async fn consequences(
    connection: &impl ConnectionTrait,
    context: &Context,
    round: &mut OpenRound,
    queues: &mut Queues,
    at: Timestamp,
) -> Result<Vec<Note>, StoreError> {
    let cursor = round.row.cursor_id.clone();
    let was_blocked = round.row.is_blocked == 1;
    let parks = std::mem::take(&mut round.parks);
    let settlement = Settlement {
        cursor: cursor.clone(),
        round: round.row.number,
        position: round.settlements.position,
        above: Vec::new(),
        absorbs: false,
        parked: Vec::new(),
        streak: round.streak,
        acknowledged: round.acknowledged,
        standing: Standing::Unchanged,
        redrive: Vec::new(),
        at,
    };
    let mut buried = Vec::new();
    for (task, park) in &parks {
        if settle::bury(connection, &settlement, park, Some(task)).await? {
            buried.push(park);
        }
    }
    let mut notes = told::parked(connection, &settlement, &buried).await?;
    if round.is_blocked != was_blocked {
        let standing = if round.is_blocked {
            let count = round.streak.count;
            Standing::Blocked(format!("{count} tasks in a row are dead: only the oldest is tried"))
        } else {
            Standing::Unblocked
        };
        notes.extend(rounds::stand(connection, &cursor, &standing).await?);
        statuses::refresh(connection, context, &cursor, None).await?;
    }
    if let Some(letters) = &round.was_redriven {
        redrive::of_cursor(connection, &cursor, letters).await?;
    }
    // In a blocked cursor the next task is the oldest now.
    if round.is_blocked || was_blocked {
        let stands = (round.row.is_paused == 1, round.is_blocked);
        aside::arrange(connection, queues, &cursor, stands, at).await?;
    }
    Ok(notes)
}
