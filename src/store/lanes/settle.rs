//! Settling many lanes at once: one read, then one statement per table, for any number of lanes. Several
//! settlements of one lane become one range. Parked changes, effects on the cursor and redrives, which are
//! rare, are written one by one.

use std::{collections::BTreeMap, ops::Range};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    ports::{Park, Settlement, Standing, StoreError, Streak},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{CursorId, TaskId},
    kind::LetterStatus,
};

use super::rounds;
use crate::{
    Context,
    database::rows::{self, list, signed},
    lanes::letters::redrive,
    ledger::{self, told},
    watching::statuses,
};

#[derive(FromQueryResult)]
struct OpenRound {
    cursor_id: CursorId,
    number: i64,
    position: i64,
    total: i64,
    streak: i64,
    streak_round: Option<i64>,
    streak_position: Option<i64>,
    refused: i64,
    acknowledged: bool,
}

impl OpenRound {
    /// Whether the row of the cursor has another streak.
    fn differs(&self, streak: &Streak) -> bool {
        let from = self.streak_round.zip(self.streak_position);
        (i64::from(streak.count), i64::from(streak.refused)) != (self.streak, self.refused)
            || streak.from.map(|(round, position)| (round, signed(position))) != from
    }
}

/// The settlements of one lane, combined.
struct Lane<'s> {
    from: i64,
    to: i64,
    last: &'s Settlement,
    acknowledged: bool,
    /// Whether the prefix passes ranges that were settled above its position before.
    absorbs: bool,
    /// Whether the row of the cursor must change as well.
    is_news: bool,
}

/// Records settled prefixes. `false` for each whose round is not open, or whose position is not new or lies
/// beyond the end.
pub(crate) async fn settle(
    connection: &impl ConnectionTrait,
    context: &Context,
    settlements: &[Settlement],
) -> Result<Vec<bool>, StoreError> {
    let open = open_rounds(connection, settlements).await?;
    let mut order: Vec<usize> = (0..settlements.len()).collect();
    order.sort_by_key(|index| settlements[*index].position);
    let mut fresh = vec![false; settlements.len()];
    let mut lanes: BTreeMap<&CursorId, Lane<'_>> = BTreeMap::new();
    for index in order {
        let settlement = &settlements[index];
        let to = signed(settlement.position);
        let Some(round) = open.get(&settlement.cursor).filter(|round| round.number == settlement.round)
        else {
            continue;
        };
        let lane = lanes.get(&settlement.cursor);
        // The settlement of a lane that ends may have only ranges above its position.
        let least = lane.map_or(round.position, |lane| lane.to) + i64::from(settlement.above.is_empty());
        if to < least || to > round.total {
            continue;
        }
        let acknowledged = settlement.acknowledged || lane.is_some_and(|lane| lane.acknowledged);
        fresh[index] = true;
        let is_news = round.differs(&settlement.streak) || (acknowledged && !round.acknowledged);
        let absorbs = settlement.absorbs || lane.is_some_and(|lane| lane.absorbs);
        let lane = Lane { from: round.position, to, last: settlement, acknowledged, absorbs, is_news };
        lanes.insert(&settlement.cursor, lane);
    }
    if !lanes.is_empty() {
        record(connection, &lanes).await?;
    }
    let mut recorded: Vec<&Settlement> = settlements
        .iter()
        .zip(&fresh)
        .filter(|(_, fresh)| **fresh)
        .map(|(settlement, _)| settlement)
        .collect();
    recorded.sort_by_key(|settlement| settlement.position);
    let (mut notes, mut at) = (Vec::new(), Timestamp(0));
    for settlement in recorded {
        let mut buried = Vec::new();
        for park in &settlement.parked {
            if bury(connection, settlement, park, None).await? {
                buried.push(park);
            }
        }
        notes.extend(told::parked(connection, settlement, &buried).await?);
        notes.extend(rounds::stand(connection, &settlement.cursor, &settlement.standing).await?);
        if settlement.standing != Standing::Unchanged {
            statuses::refresh(connection, context, &settlement.cursor, None).await?;
        }
        at = at.max(settlement.at);
        for letters in &settlement.redrive {
            redrive::of_cursor(connection, &settlement.cursor, letters).await?;
        }
    }
    // All ledgers of a turn are locked at its end, in one order, because other replicas settle at the same
    // time.
    ledger::write(connection, context, notes, at).await?;
    Ok(fresh)
}

async fn open_rounds(
    connection: &impl ConnectionTrait,
    settlements: &[Settlement],
) -> Result<BTreeMap<CursorId, OpenRound>, StoreError> {
    let asked: Vec<_> = settlements.iter().map(|settlement| vec![settlement.cursor.clone().into()]).collect();
    let (list, values) = list(connection, &["text"], &asked);
    let text = format!(
        "with v(cursor_id) as ({list})
         select r.cursor_id, r.number, r.position, r.total, cast(c.streak as bigint) as streak,
           c.streak_round, c.streak_position,
           cast(c.refused as bigint) as refused, c.acknowledged
         from (select distinct cursor_id from v) v
         join cursor c on c.id = v.cursor_id
         join round r on r.cursor_id = c.id and r.number = c.open_round"
    );
    let rounds: Vec<OpenRound> = rows::all(connection, "round", &text, values).await?;
    Ok(rounds.into_iter().map(|round| (round.cursor_id.clone(), round)).collect())
}

/// The most ranges in one statement.
const LIST: usize = 256;
/// The columns of a settled range.
pub(crate) const RANGE: [&str; 5] = ["text", "bigint", "bigint", "bigint", "bigint"];

/// The statement that inserts a list of settled ranges.
pub(crate) fn insert(values: &str) -> String {
    format!(
        "with v(cursor_id, round, start, finish, at) as ({values})
         insert into settled (cursor_id, round, from_position, to_position, settled_at)
         select cursor_id, round, start, finish, at from v where true on conflict do nothing"
    )
}

/// Removes or shortens the ranges above the position that the prefix has reached.
async fn absorb(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    lane: &Lane<'_>,
) -> Result<(), StoreError> {
    let values = || vec![cursor.clone().into(), lane.last.round.into(), lane.from.into(), lane.to.into()];
    let text = "update settled set from_position = $4 where cursor_id = $1 and round = $2
                and from_position >= $3 and from_position < $4 and to_position > $4";
    rows::execute(connection, "settled", text, values()).await?;
    let text = "delete from settled where cursor_id = $1 and round = $2
                and from_position >= $3 and from_position < $4";
    rows::execute(connection, "settled", text, values()).await.map(drop)
}

#[derive(FromQueryResult)]
struct Above {
    from_position: i64,
    to_position: i64,
}

/// The ranges of a round that are settled above its position.
pub(crate) async fn above(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
    position: u64,
) -> Result<Vec<Range<u64>>, StoreError> {
    let text = "select from_position, to_position from settled
                where cursor_id = $1 and round = $2 and from_position >= $3 order by from_position";
    let values = vec![cursor.clone().into(), round.into(), signed(position).into()];
    let found: Vec<Above> = rows::all(connection, "settled", text, values).await?;
    let place = |position| rows::unsigned("settled", position);
    found.into_iter().map(|row| Ok(place(row.from_position)?..place(row.to_position)?)).collect()
}

async fn record(
    connection: &impl ConnectionTrait,
    lanes: &BTreeMap<&CursorId, Lane<'_>>,
) -> Result<(), StoreError> {
    for (cursor, lane) in lanes.iter().filter(|(_, lane)| lane.absorbs) {
        absorb(connection, cursor, lane).await?;
    }
    let range = |cursor: &CursorId, last: &Settlement, from: i64, to: i64| {
        vec![cursor.clone().into(), last.round.into(), from.into(), to.into(), last.at.0.into()]
    };
    let above: Vec<_> = lanes
        .iter()
        .flat_map(|(cursor, lane)| {
            let ranges = lane.last.above.iter();
            ranges.map(|above| range(cursor, lane.last, signed(above.start), signed(above.end)))
        })
        .collect();
    let ranges: Vec<_> = lanes
        .iter()
        .filter(|(_, lane)| lane.from < lane.to)
        .map(|(cursor, lane)| range(cursor, lane.last, lane.from, lane.to))
        .collect();
    for some in above.chunks(LIST) {
        let (values, bound) = list(connection, &RANGE, some);
        rows::execute(connection, "settled", &insert(&values), bound).await?;
    }
    if !ranges.is_empty() {
        let (values, bound) = list(connection, &RANGE, &ranges);
        rows::execute(connection, "settled", &insert(&values), bound.clone()).await?;
        let text = format!(
            "with v(cursor_id, round, start, finish, at) as ({values}) update round set position = v.finish \
             from v
             where round.cursor_id = v.cursor_id and round.number = v.round and round.position < v.finish"
        );
        rows::execute(connection, "round", &text, bound).await?;
    }
    let news: Vec<_> = lanes
        .iter()
        .filter(|(_, lane)| lane.is_news)
        .map(|(cursor, lane)| streak_row(cursor, &lane.last.streak, lane.acknowledged))
        .collect();
    if news.is_empty() { Ok(()) } else { write_streaks(connection, &news).await }
}

/// The streak of a cursor, for [`write_streaks`].
pub(crate) fn streak_row(cursor: &CursorId, streak: &Streak, acknowledged: bool) -> Vec<Value> {
    vec![
        cursor.clone().into(),
        i64::from(streak.count).into(),
        // An array of a statement holds no null.
        streak.from.map_or(-1, |(round, _)| round).into(),
        streak.from.map_or(-1, |(_, position)| signed(position)).into(),
        i64::from(streak.refused).into(),
        i64::from(acknowledged).into(),
    ]
}

/// Writes the streaks of some cursors, at least one.
pub(crate) async fn write_streaks(
    connection: &impl ConnectionTrait,
    streaks: &[Vec<Value>],
) -> Result<(), StoreError> {
    let columns = ["text", "bigint", "bigint", "bigint", "bigint", "bigint"];
    let (values, bound) = list(connection, &columns, streaks);
    let text = format!(
        "with v(cursor_id, streak, round, position, refused, acknowledged) as ({values})
         update cursor set streak = v.streak, streak_round = nullif(v.round, -1),
         streak_position = nullif(v.position, -1),
           refused = v.refused, acknowledged = (cursor.acknowledged or v.acknowledged > 0)
         from v where cursor.id = v.cursor_id"
    );
    rows::execute(connection, "cursor", &text, bound).await?;
    Ok(())
}

/// Whether the round of a settlement names every file.
async fn names_every_file(
    connection: &impl ConnectionTrait,
    settlement: &Settlement,
) -> Result<bool, StoreError> {
    let text = "select count(*) from round where cursor_id = $1 and number = $2 and kind = 'resync'";
    let values = vec![settlement.cursor.clone().into(), settlement.round.into()];
    Ok(rows::number(connection, "round", text, values).await? > 0)
}

/// Writes a dead letter, if it is not written already: a lane that ends may write the same outcomes again. An
/// older open letter of the path is superseded, and its `before` is taken over; a round that binds the older
/// letter keeps it in its list. `task` is the task that the change was. Returns whether the letter was
/// written now.
pub(crate) async fn bury(
    connection: &impl ConnectionTrait,
    settlement: &Settlement,
    park: &Park,
    task: Option<&TaskId>,
) -> Result<bool, StoreError> {
    let text = "select count(*) from dead_letter where id = $1";
    if rows::number(connection, "dead_letter", text, vec![park.id.clone().into()]).await? > 0 {
        return Ok(false);
    }
    let text = "select * from dead_letter
                where cursor_id = $1 and path = $2 and status in ('open', 'redrive_requested')";
    let values = vec![settlement.cursor.clone().into(), park.change.path.clone().into()];
    let older: Option<dead_letter::Model> = rows::one(connection, "dead_letter", text, values).await?;
    let old = park.change.old;
    let mut before_mode = old.and_then(|entry| i32::try_from(entry.mode).ok());
    let mut before_blob = old.map(|entry| entry.blob);
    let mut self_redriven = false;
    let mut is_covered = false;
    if let Some(older) = &older
        && park.change.path.is_empty()
        && !names_every_file(connection, settlement).await?
    {
        // The redrive of the older letter of a round does the work of this round as well.
        is_covered = true;
        let text = "update dead_letter set bound_round = null where id = $1";
        rows::execute(connection, "dead_letter", text, vec![older.id.clone().into()]).await?;
    } else if let Some(older) = older {
        (before_mode, before_blob) = (older.before_mode, older.before_blob);
        self_redriven = older.self_redriven;
        let text = "update dead_letter set status = $1, closed_at = $2 where id = $3";
        let values = vec![LetterStatus::Superseded.into(), settlement.at.0.into(), older.id.into()];
        rows::execute(connection, "dead_letter", text, values).await?;
    }
    let status = if is_covered { LetterStatus::Superseded } else { LetterStatus::Open };
    let text = "insert into dead_letter (id, app_id, watch_id, cursor_id, round, position, path, operation,
                delivery_id, reason, status, before_mode, before_blob, http_status, excerpt, created_at,
                counted, self_redriven, task_id, closed_at)
                select $1, w.app_id, w.id, c.id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                $16, $17 from cursor c join watch w on w.id = c.watch_id where c.id = $18";
    let values = vec![
        park.id.clone().into(),
        settlement.round.into(),
        signed(park.position).into(),
        park.change.path.clone().into(),
        park.change.operation.into(),
        park.delivery.as_str().into(),
        park.reason.into(),
        status.into(),
        before_mode.into(),
        before_blob.into(),
        park.status.map(i32::from).into(),
        park.excerpt.clone().into(),
        settlement.at.0.into(),
        park.counted.into(),
        self_redriven.into(),
        task.cloned().into(),
        is_covered.then_some(settlement.at.0).into(),
        settlement.cursor.clone().into(),
    ];
    rows::execute(connection, "dead_letter", text, values).await?;
    Ok(true)
}
