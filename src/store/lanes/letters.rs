//! Dead letters, for rounds and for people.
//!
//! The letter of a round that became one task has an empty path. It is in no list of changes: its redrive is
//! a replay from what the app held before that round, or a resync where the app held nothing.

pub(crate) mod attempts;
pub(crate) mod dismiss;
pub(crate) mod letter_search;
pub(crate) mod letters_of_all;
pub(crate) mod redrive;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::round::{DeliveryId, Entry, Letter, Round},
    ports::{DeadLetter, LANE_LETTERS, LetterFilter, LetterPage, LetterPick, SEARCH_STEP, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId, ObjectId, ViewId},
    kind::LetterStatus,
};

use crate::{
    database::{error::undecodable, rows},
    lanes::letters::letter_search::{LetterRange, Looked},
};

/// The letters that one statement of a search reads.
const PAGE: u64 = 500;
/// The letters that a filtered search looks at in one statement: the database evaluates the filter, so most
/// of them are not read.
const FILTERED_PAGE: u64 = 2_500;

/// The letters of one round of a cursor.
pub(crate) struct Bound<'c> {
    /// The cursor that the round belongs to.
    pub(crate) cursor: &'c CursorId,
    /// The number of the round.
    pub(crate) round: i64,
}

/// The letters bound to a round, in any state, sorted by path.
pub(crate) async fn bound(
    connection: &impl ConnectionTrait,
    bound: &Bound<'_>,
) -> Result<Vec<Letter>, StoreError> {
    let text = "select * from dead_letter where cursor_id = $1 and bound_round = $2
                and length(path) > 0 order by path";
    let values = vec![bound.cursor.clone().into(), bound.round.into()];
    let found: Vec<dead_letter::Model> = rows::all(connection, "dead_letter", text, values).await?;
    found.into_iter().map(letter).collect()
}

/// Open letters of a cursor by path, those of a redrive first, and whether there are more than these.
pub(crate) async fn open(
    connection: &impl ConnectionTrait,
    app: &AppId,
    cursor: &CursorId,
) -> Result<(Vec<(Letter, LetterStatus)>, bool), StoreError> {
    // One statement over two indexes.
    let text = "select * from (select * from dead_letter where app_id = $1 and cursor_id = $2
                  and status = 'redrive_requested' and length(path) > 0 order by path limit $3) as asked
                union all
                select * from (select * from dead_letter where cursor_id = $2
                  and status in ('open', 'redrive_requested') and status = 'open' and length(path) > 0
                  order by path limit $3) as others";
    let values =
        vec![app.clone().into(), cursor.clone().into(), rows::signed(LANE_LETTERS as u64 + 1).into()];
    let mut found: Vec<dead_letter::Model> = rows::all(connection, "dead_letter", text, values).await?;
    // Letters of a redrive come first; the others only as far as there is room.
    found.sort_by_key(|letter| letter.status != LetterStatus::RedriveRequested);
    let more = found.len() > LANE_LETTERS;
    found.truncate(LANE_LETTERS);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((with_status(found)?, more))
}

/// Open letters of a cursor that are asked for, sorted by path.
pub(crate) async fn picked(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    pick: &LetterPick,
) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
    const OPEN: &str = "cursor_id = $1 and status in ('open', 'redrive_requested') and length(path) > 0";
    let mut found: Vec<dead_letter::Model> = Vec::new();
    let listed: Vec<(&str, Value)> = match pick {
        LetterPick::After(after) => {
            let text = format!("select * from dead_letter where {OPEN} and path > $2 order by path limit $3");
            let after = after.clone().unwrap_or_default();
            let values = vec![cursor.clone().into(), after.into(), rows::signed(LANE_LETTERS as u64).into()];
            found = rows::all(connection, "dead_letter", &text, values).await?;
            Vec::new()
        }
        LetterPick::Ids(ids) => ids.iter().map(|id| ("id", id.clone().into())).collect(),
        LetterPick::Paths(paths) => paths.iter().map(|path| ("path", path.clone().into())).collect(),
    };
    for (column, value) in listed.into_iter().take(LANE_LETTERS) {
        let text = format!("select * from dead_letter where {OPEN} and {column} = $2");
        let values = vec![cursor.clone().into(), value];
        found.extend(rows::all::<dead_letter::Model>(connection, "dead_letter", &text, values).await?);
    }
    found.sort_by(|one: &dead_letter::Model, other| one.path.cmp(&other.path));
    with_status(found)
}

fn with_status(found: Vec<dead_letter::Model>) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
    let with_status = |row: dead_letter::Model| {
        let status = row.status;
        Ok((letter(row)?, status))
    };
    found.into_iter().map(with_status).collect()
}

/// The tree that the app held before the round whose letter is to be sent again; `Some(None)`: it held
/// nothing, or the round named every file.
pub(crate) async fn round_to_redrive(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
) -> Result<Option<Option<(ObjectId, ViewId)>>, StoreError> {
    #[derive(FromQueryResult)]
    struct HeldBefore {
        held: Option<ObjectId>,
        held_view: Option<ViewId>,
    }
    let text = "select case when r.kind = 'resync' then null else r.held end as held, r.held_view
                from dead_letter d join round r on r.cursor_id = d.cursor_id and r.number = d.round
                where d.cursor_id = $1 and d.status = 'redrive_requested' and length(d.path) = 0";
    let found: Option<HeldBefore> =
        rows::one(connection, "dead_letter", text, vec![cursor.clone().into()]).await?;
    Ok(found.map(|before| before.held.zip(before.held_view)))
}

/// Binds the letter of a round to the round that does its work again.
pub(crate) async fn bind_round(connection: &impl ConnectionTrait, round: &Round) -> Result<(), StoreError> {
    let text = "update dead_letter set bound_round = $1, status = 'open' where cursor_id = $2
                and status in ('open', 'redrive_requested') and length(path) = 0";
    let values = vec![round.number.into(), round.cursor.clone().into()];
    rows::execute(connection, "dead_letter", text, values).await.map(drop)
}

/// Closes the letter of a round whose redrive has nothing to do.
pub(crate) async fn close_round(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update dead_letter set status = 'redriven', closed_at = $2 where cursor_id = $1
                and status = 'redrive_requested' and length(path) = 0";
    rows::execute(connection, "dead_letter", text, vec![cursor.clone().into(), at.0.into()]).await.map(drop)
}

/// Whether every settled change of a round was parked.
pub(crate) async fn fill(connection: &impl ConnectionTrait, round: &Round) -> Result<bool, StoreError> {
    let text = "select count(*) from dead_letter where cursor_id = $1 and round = $2 and position < $3";
    let position = rows::signed(round.position);
    let values = vec![round.cursor.clone().into(), round.number.into(), position.into()];
    let given_up = async || rows::number(connection, "dead_letter", text, values).await;
    Ok(position == 0 || given_up().await? == position)
}

#[derive(FromQueryResult)]
struct Unavailable {
    app_id: AppId,
    cursor_id: CursorId,
    id: DeadLetterId,
}

/// Open letters whose content could not be fetched, oldest first.
pub(crate) async fn unavailable(
    connection: &impl ConnectionTrait,
    after: Option<DeadLetterId>,
    limit: u64,
) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError> {
    let text = "select app_id, cursor_id, id from dead_letter
                where status = 'open' and reason = 'content_unavailable' and id > $1 order by id limit $2";
    let after = after.map_or_else(String::new, |id| id.to_string());
    let values = vec![after.into(), rows::signed(limit).into()];
    let found: Vec<Unavailable> = rows::readable(connection, "dead_letter", text, values).await?;
    Ok(found.into_iter().map(|row| (row.app_id, row.cursor_id, row.id)).collect())
}

/// One letter of an app.
pub(crate) async fn row(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &DeadLetterId,
) -> Result<dead_letter::Model, StoreError> {
    let text = "select * from dead_letter where id = $1 and app_id = $2";
    let values = vec![id.clone().into(), app.clone().into()];
    rows::one(connection, "dead_letter", text, values).await?.ok_or(StoreError::NotFound)
}

/// Letters of an app, newest first. The statement has the conditions that an index supports; one page limits
/// the rows for the other conditions.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &LetterFilter,
    before: Option<&DeadLetterId>,
    limit: u64,
) -> Result<LetterPage, StoreError> {
    let matcher = filter.matcher().map_err(|error| undecodable("dead_letter", error))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut letters, mut looked, mut next) = (Vec::new(), 0, before.cloned());
    let most = rows::filter::bounded(SEARCH_STEP, filter.q.as_ref());
    let page = if filter.q.is_some() { FILTERED_PAGE } else { PAGE };
    while letters.len() < limit && looked < most {
        let some = (most - looked).min(page);
        let range = LetterRange { filter: filter.q.as_ref(), ..older(app, filter, next.as_ref(), some) };
        let Looked { found, count, last } = letter_search::look(connection, range).await?;
        looked += count;
        for found in found {
            next = Some(found.row.id.clone());
            letters.extend(found.meant(&matcher));
            if letters.len() == limit {
                let rest = letter_search::look(connection, older(app, filter, next.as_ref(), 1)).await?;
                return Ok(LetterPage { letters, next: next.filter(|_| rest.count > 0) });
            }
        }
        if count < some {
            return Ok(LetterPage { letters, next: None });
        }
        next = last;
    }
    Ok(LetterPage { letters, next })
}

/// The letters of an app before one of them, or the newest. A filter that means open letters alone reads no
/// closed ones.
pub(crate) fn older(
    app: &AppId,
    filter: &LetterFilter,
    before: Option<&DeadLetterId>,
    limit: u64,
) -> LetterRange<'static> {
    let mut values: Vec<Value> = vec![app.clone().into()];
    let mut condition = String::from("d.app_id = $1");
    if let Some(before) = before {
        values.push(before.clone().into());
        condition.push_str(" and d.id < $2");
    }
    if let Some(open) = letter_search::of_open(filter, &mut values) {
        condition.push_str(&format!(" and {open}"));
    }
    LetterRange { condition, values, order: "desc", limit, filter: None }
}

fn letter(row: dead_letter::Model) -> Result<Letter, StoreError> {
    let before = match (row.before_mode, row.before_blob) {
        (Some(mode), Some(blob)) => Some(Entry {
            mode: u32::try_from(mode).map_err(|error| undecodable("dead_letter", error))?,
            blob,
        }),
        _ => None,
    };
    Ok(Letter { id: row.id, path: row.path, before, delivery: DeliveryId::from_stored(row.delivery_id) })
}

/// A letter as people see it.
pub(crate) fn shown(row: dead_letter::Model) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        id: row.id,
        watch: row.watch_id,
        cursor: row.cursor_id,
        round: row.round,
        position: rows::unsigned("dead_letter", row.position)?,
        path: row.path,
        operation: row.operation,
        delivery: DeliveryId::from_stored(row.delivery_id),
        task: row.task_id,
        reason: row.reason,
        status: row.status,
        http_status: row.http_status.and_then(|status| u16::try_from(status).ok()),
        excerpt: row.excerpt,
        redrive: row.redrive_id,
        created_at: Timestamp(row.created_at),
    })
}
