//! Requests redrives of dead letters, and cancels them. Deliveries do not change here: the next redrive round
//! takes the letters, and a redrive that must end does so at its present place.
//!
//! One transaction touches at most some thousand letters, so that deliveries never wait for it: the rest of
//! the marking is a row, and continues after a kill.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    ports::{LetterFilter, REDRIVE_STEP, Redrive, RedriveStep, SelfRedrive, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
    redrive,
};

use super::letter_search::{self, LetterRange};
use crate::{
    Context,
    database::{error::undecodable, rows},
    lanes::{letters, rounds},
    tasks,
};

/// The most letters in one statement.
const LIST: usize = 256;

#[derive(FromQueryResult)]
struct Holder {
    cursor_id: CursorId,
}

/// In SQL: a cancelled redrive still sends the letter, until its lane has read the cancel.
const IS_ENDING: &str = "exists (select 1 from cursor c where c.id = dead_letter.cursor_id
               and c.open_round = dead_letter.bound_round and c.cancel_round = c.open_round)";

/// A letter that a redrive did not reach.
#[derive(FromQueryResult)]
struct Unreached {
    id: DeadLetterId,
}

/// Marks the named letters as one redrive. Returns their number and their cursors.
pub(crate) async fn request(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    ids: &[DeadLetterId],
) -> Result<(u64, Vec<CursorId>), StoreError> {
    let (mut cursors, mut fresh) = (BTreeSet::new(), Vec::new());
    let distinct: BTreeSet<_> = ids.iter().collect();
    for id in &distinct {
        let letter = letters::row(connection, app, id).await?;
        match letter.status {
            LetterStatus::Open => fresh.push((*id).clone()),
            LetterStatus::RedriveRequested => {}
            LetterStatus::Superseded => {
                return Err(StoreError::Conflict(format!(
                    "{id} is closed: its path changed since, or was sent again and has another letter"
                )));
            }
            LetterStatus::Redriven => {
                return Err(StoreError::Conflict(format!("{id} was sent again already")));
            }
            LetterStatus::Dismissed => return Err(StoreError::Conflict(format!("{id} was dismissed"))),
        }
        cursors.insert(letter.cursor_id);
    }
    if let Some(through) = fresh.iter().max().cloned() {
        let row = new_row(context, app, None, through);
        let asked = mark(connection, &row.id, &fresh).await?;
        if asked > 0 {
            let row = redrive::Model { is_marking: false, asked: rows::signed(asked), ..row };
            rows::insert(connection, "redrive", vec![row]).await?;
        }
    }
    Ok((distinct.len() as u64, cursors.into_iter().collect()))
}

/// Stores a redrive by a filter. It ends with the dead letter that is the newest now.
pub(crate) async fn begin(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    filter: &LetterFilter,
) -> Result<RedriveId, StoreError> {
    let text = "select * from dead_letter where app_id = $1 order by id desc limit 1";
    let newest: Option<dead_letter::Model> =
        rows::one(connection, "dead_letter", text, vec![app.clone().into()]).await?;
    let is_marking = newest.is_some();
    let through = newest.map_or_else(|| DeadLetterId::new(ulid::Ulid::nil()), |letter| letter.id);
    let row = redrive::Model { is_marking, ..new_row(context, app, Some(filter), through) };
    let id = row.id.clone();
    rows::insert(connection, "redrive", vec![row]).await?;
    Ok(id)
}

fn new_row(
    context: &Context,
    app: &AppId,
    filter: Option<&LetterFilter>,
    through: DeadLetterId,
) -> redrive::Model {
    let now = context.clock.now();
    redrive::Model {
        id: RedriveId::new(context.random.ulid(now)),
        app_id: app.clone(),
        filter: serde_json::to_string(&filter).expect("a filter is plain data"),
        marked_to: None,
        through,
        is_marking: true,
        asked: 0,
        cancelled: 0,
        created_at: now.0,
    }
}

/// Marks the open letters among the next letters of a redrive that match its filter.
pub(crate) async fn step(
    connection: &impl ConnectionTrait,
    id: Option<&RedriveId>,
) -> Result<Option<RedriveStep>, StoreError> {
    let text = "select * from redrive where is_marking and (cast($1 as text) is null or id = $1) order by id \
        limit 1";
    let values = vec![id.map(RedriveId::to_string).into()];
    let Some(row) = rows::one::<redrive::Model>(connection, "redrive", text, values).await? else {
        return Ok(None);
    };
    let filter = LetterFilter { status: Some(LetterStatus::Open), ..filter(&row)?.unwrap_or_default() };
    let matcher = filter.matcher().map_err(|error| undecodable("redrive", error))?;
    let after = row.marked_to.as_ref().map_or_else(String::new, DeadLetterId::to_string);
    let range = LetterRange {
        condition: "d.app_id = $1 and d.id > $2 and d.id <= $3".to_owned(),
        values: vec![row.app_id.clone().into(), after.into(), row.through.clone().into()],
        order: "asc",
        limit: rows::filter::bounded(REDRIVE_STEP, filter.q.as_ref()),
        filter: filter.q.as_ref(),
    };
    let looked = letter_search::look(connection, range).await?;
    let more = looked.last.as_ref().is_some_and(|last| *last < row.through);
    let last = looked.last.or(row.marked_to);
    let (mut cursors, mut meant) = (BTreeSet::new(), Vec::new());
    for letter in looked.found.into_iter().filter_map(|found| found.meant(&matcher)) {
        meant.push(letter.id);
        cursors.insert(letter.cursor);
    }
    let marked = mark(connection, &row.id, &meant).await?;
    let text = "update redrive set marked_to = $1, is_marking = $2, asked = asked + $3 where id = $4";
    let values = vec![last.into(), more.into(), rows::signed(marked).into(), row.id.clone().into()];
    rows::execute(connection, "redrive", text, values).await?;
    let cursors = cursors.into_iter().collect();
    Ok(Some(RedriveStep { redrive: row.id, app: row.app_id, marked, cursors, more }))
}

/// Marks letters for a redrive. Returns their number: letters that an open redrive is sending already belong
/// to that one, unless it was cancelled. Such letters wait for the end of the cancelled redrive, which may be
/// far away (a paused watch, a receiver that hangs), and belong to the new one from now on.
async fn mark(
    connection: &impl ConnectionTrait,
    redrive: &RedriveId,
    ids: &[DeadLetterId],
) -> Result<u64, StoreError> {
    let mut marked = 0;
    for some in ids.chunks(LIST) {
        let listed: Vec<Vec<Value>> =
            some.iter().map(|id| vec![id.clone().into(), redrive.clone().into()]).collect();
        let (list, values) = rows::list(connection, &["text", "text"], &listed);
        let text = format!(
            "with v(id, redrive) as ({list}), t(id, n) as (select redrive_id, count(*) from dead_letter
               where id in (select id from v) and redrive_id is not null and {IS_ENDING} group by redrive_id)
             update redrive set cancelled = cancelled + t.n from t where redrive.id = t.id"
        );
        rows::execute(connection, "redrive", &text, values.clone()).await?;
        let text = format!(
            "with v(id, redrive) as ({list}) update dead_letter set status = 'redrive_requested',
             redrive_id = (select redrive from v limit 1) where id in (select id from v)
             and not exists (select 1 from cursor c
               join round r on r.cursor_id = c.id and r.number = c.open_round
               where c.id = dead_letter.cursor_id and r.number = dead_letter.bound_round
               and r.kind = 'redrive' and (c.cancel_round is null or c.cancel_round <> r.number))"
        );
        marked += rows::execute(connection, "dead_letter", &text, values).await?;
    }
    Ok(marked)
}

#[derive(FromQueryResult)]
struct Counts {
    sent: i64,
    refused: i64,
    waiting: i64,
}

/// Redrives of an app, newest first; only one if `only` names it.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    only: Option<&RedriveId>,
    before: Option<&RedriveId>,
    limit: u64,
) -> Result<Vec<Redrive>, StoreError> {
    let text = "select * from redrive where app_id = $1 and (cast($2 as text) is null or id = $2)
                and (cast($3 as text) is null or id < $3) order by id desc limit $4";
    let values = vec![
        app.clone().into(),
        only.map(RedriveId::to_string).into(),
        before.map(RedriveId::to_string).into(),
        rows::signed(limit).into(),
    ];
    let found: Vec<redrive::Model> = rows::readable(connection, "redrive", text, values).await?;
    let mut redrives = Vec::with_capacity(found.len());
    for row in found {
        redrives.push(shown(connection, row).await?);
    }
    Ok(redrives)
}

/// The results are counted from the letters, so that they are right after any kill.
async fn shown(connection: &impl ConnectionTrait, row: redrive::Model) -> Result<Redrive, StoreError> {
    let text = "select
        (select count(*) from dead_letter where redrive_id = $1 and status = 'redriven') as sent,
        (select count(*) from dead_letter d join round r on r.cursor_id = d.cursor_id
           and r.number = d.bound_round and r.kind = 'redrive'
           where d.redrive_id = $1 and d.status = 'superseded') as refused,
        (select count(*) from dead_letter
           where redrive_id = $1 and status in ('open', 'redrive_requested')) as waiting";
    let counts: Option<Counts> =
        rows::one(connection, "dead_letter", text, vec![row.id.clone().into()]).await?;
    let counts = counts.unwrap_or(Counts { sent: 0, refused: 0, waiting: 0 });
    let count = |number| rows::unsigned("redrive", number);
    let gone = row.asked - row.cancelled - counts.sent - counts.refused - counts.waiting;
    Ok(Redrive {
        filter: filter(&row)?,
        is_marking: row.is_marking,
        asked: count(row.asked)?,
        sent: count(counts.sent)?,
        refused: count(counts.refused)?,
        superseded: count(gone.max(0))?,
        cancelled: count(row.cancelled)?,
        left: count(counts.waiting)?,
        created_at: Timestamp(row.created_at),
        id: row.id,
    })
}

fn filter(row: &redrive::Model) -> Result<Option<LetterFilter>, StoreError> {
    serde_json::from_str(&row.filter).map_err(|error| undecodable("redrive", error))
}

/// Marks letters of a cursor that are sent again automatically, except those of a path that was sent so once,
/// and those whose path the open round sends anyway.
pub(crate) async fn of_cursor(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    letters: &SelfRedrive,
) -> Result<(), StoreError> {
    let text = "update dead_letter set status = 'redrive_requested', self_redriven = $7
                where cursor_id = $1 and status in ('open', 'redrive_requested') and status = 'open'
                and not self_redriven and (counted or (not $6 and reason in ('rejected', 'failing')))
                and (round > $2 or (round = $2 and position >= $3))
                and (round < $4 or (round = $4 and position < $5))
                and not exists (select 1 from cursor c
                  where c.id = dead_letter.cursor_id and c.open_round = dead_letter.bound_round)";
    let values = vec![
        cursor.clone().into(),
        letters.from.0.into(),
        rows::signed(letters.from.1).into(),
        letters.before.0.into(),
        rows::signed(letters.before.1).into(),
        letters.counted.into(),
        true.into(),
    ];
    rows::execute(connection, "dead_letter", text, values).await.map(drop)
}

/// Ends the marking of an app's redrives, for all letters or for those of one watch.
pub(crate) async fn stop_marking(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: Option<&WatchId>,
) -> Result<(), StoreError> {
    let Some(watch) = watch else {
        let text = "update redrive set is_marking = $2 where app_id = $1 and is_marking";
        return rows::execute(connection, "redrive", text, vec![app.clone().into(), false.into()])
            .await
            .map(drop);
    };
    let text = "select * from redrive where app_id = $1 and is_marking";
    let marking: Vec<redrive::Model> =
        rows::all(connection, "redrive", text, vec![app.clone().into()]).await?;
    for row in marking {
        let mut filter = filter(&row)?.unwrap_or_default();
        filter.except.push(watch.clone());
        let filter = serde_json::to_string(&Some(filter)).expect("a filter is plain data");
        let text = "update redrive set filter = $1 where id = $2";
        rows::execute(connection, "redrive", text, vec![filter.into(), row.id.into()]).await?;
    }
    Ok(())
}

/// Reopens some letters that wait for a redrive. Returns their number; fewer than [`REDRIVE_STEP`] means that
/// all are reopened.
pub(crate) async fn reopen(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: Option<&WatchId>,
) -> Result<u64, StoreError> {
    let text = "select * from dead_letter where app_id = $1 and status = 'redrive_requested'
                and (cast($2 as text) is null or cursor_id in (select id from cursor where watch_id = $2))
                order by cursor_id, path limit $3";
    let values =
        vec![app.clone().into(), watch.map(WatchId::to_string).into(), rows::signed(REDRIVE_STEP).into()];
    let waiting: Vec<dead_letter::Model> = rows::all(connection, "dead_letter", text, values).await?;
    let ids: Vec<DeadLetterId> = waiting.iter().map(|letter| letter.id.clone()).collect();
    take_back(connection, &ids).await?;
    Ok(ids.len() as u64)
}

/// Reopened letters belong to no redrive; the redrive counts them as cancelled. A round that has bound
/// letters still sends them, because the list of an open round never changes.
async fn take_back(connection: &impl ConnectionTrait, ids: &[DeadLetterId]) -> Result<(), StoreError> {
    for some in ids.chunks(LIST) {
        let listed: Vec<Vec<Value>> = some.iter().map(|id| vec![id.clone().into()]).collect();
        let (list, values) = rows::list(connection, &["text"], &listed);
        let text = format!(
            "with v(id) as ({list}), t(id, n) as (select redrive_id, count(*) from dead_letter
               where id in (select id from v) and redrive_id is not null group by redrive_id)
             update redrive set cancelled = cancelled + t.n from t where redrive.id = t.id"
        );
        rows::execute(connection, "redrive", &text, values.clone()).await?;
        let text = format!(
            "with v(id) as ({list}) update dead_letter set status = 'open', redrive_id = null
             where id in (select id from v)"
        );
        rows::execute(connection, "dead_letter", &text, values).await?;
    }
    Ok(())
}

/// Asks the open redrives of an app, or of one watch of it, to end. Returns their cursors.
pub(crate) async fn ask_to_end(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: Option<&WatchId>,
) -> Result<Vec<CursorId>, StoreError> {
    let values = vec![app.clone().into(), watch.map(WatchId::to_string).into()];
    let text = "select c.id as cursor_id from cursor c
                join watch w on w.id = c.watch_id
                join round r on r.cursor_id = c.id and r.number = c.open_round
                where w.app_id = $1 and (cast($2 as text) is null or w.id = $2)
                and r.kind = 'redrive' order by c.id";
    let holders: Vec<Holder> = rows::all(connection, "cursor", text, values).await?;
    for holder in &holders {
        let text = "update cursor set cancel_round = open_round where id = $1";
        rows::execute(connection, "cursor", text, vec![holder.cursor_id.clone().into()]).await?;
    }
    Ok(holders.into_iter().map(|holder| holder.cursor_id).collect())
}

/// Ends an open redrive early. False if it is not the open round. A redrive binds at most
/// [`LANE_LETTERS`](tidings_actors::ports::LANE_LETTERS) letters, so one transaction is enough.
pub(crate) async fn end(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: &CursorId,
    round: i64,
    reached: &[DeadLetterId],
    at: Timestamp,
) -> Result<bool, StoreError> {
    let this = || vec![cursor.clone().into(), round.into()];
    let text = "update cursor set open_round = null where id = $1 and open_round = $2
                and exists (select 1 from round r
                  where r.cursor_id = cursor.id and r.number = cursor.open_round and r.kind = 'redrive')";
    if rows::execute(connection, "cursor", text, this()).await? == 0 {
        rounds::row(connection, cursor).await?;
        return Ok(false);
    }
    rounds::caught_up(connection, cursor).await?;
    context.tasks.mark(tasks::overtake(connection, cursor, at).await?);
    let text = "update round set ended_at = $3 where cursor_id = $1 and number = $2";
    rows::execute(connection, "round", text, [this(), vec![at.0.into()]].concat()).await?;
    for some in reached.chunks(LIST) {
        let listed: Vec<Vec<Value>> = some.iter().map(|id| vec![id.clone().into()]).collect();
        let (list, mut values) = rows::list(connection, &["text"], &listed);
        let place = values.len() + 1;
        values.extend([at.0.into(), cursor.clone().into(), round.into()]);
        let text = format!(
            "with v(id) as ({list}) update dead_letter set status = 'redriven', closed_at = ${place}
             where id in (select id from v) and cursor_id = ${} and bound_round = ${}
             and status in ('open', 'redrive_requested')",
            place + 1,
            place + 2
        );
        rows::execute(connection, "dead_letter", &text, values).await?;
    }
    // A letter that another redrive asked for since the cancel keeps that mark.
    let text = "select id from dead_letter where cursor_id = $1 and bound_round = $2 and status = 'open'";
    let unreached: Vec<Unreached> = rows::all(connection, "dead_letter", text, this()).await?;
    let ids: Vec<DeadLetterId> = unreached.into_iter().map(|letter| letter.id).collect();
    take_back(connection, &ids).await?;
    Ok(true)
}
