//! Dead letters: as rounds see them, and as people do.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    ports::{DeadLetter, StoreError},
    round::{DeliveryId, Entry, Letter, LetterState},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId},
    kind::{LetterStateKind, LetterStatus},
};

use super::{error::undecodable, rows};

/// The letters of one round of a cursor.
pub(super) struct Bound<'c> {
    /// The cursor.
    pub(super) cursor: &'c CursorId,
    /// The round.
    pub(super) round: i64,
}

/// The letters bound to a round, whatever became of them since, sorted by path.
pub(super) async fn bound(
    connection: &impl ConnectionTrait,
    bound: &Bound<'_>,
) -> Result<Vec<Letter>, StoreError> {
    let text = "select * from dead_letter where cursor_id = $1 and bound_round = $2 order by path";
    let values = vec![bound.cursor.clone().into(), bound.round.into()];
    let found: Vec<dead_letter::Model> = rows::all(connection, "dead_letter", text, values).await?;
    found.into_iter().map(letter).collect()
}

/// The open letters of a cursor, sorted by path.
pub(super) async fn open(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
    let text = "select * from dead_letter
                where cursor_id = $1 and status in ('open', 'redrive_requested') order by path";
    let found: Vec<dead_letter::Model> =
        rows::all(connection, "dead_letter", text, vec![cursor.clone().into()]).await?;
    let with_status = |row: dead_letter::Model| {
        let status = row.status;
        Ok((letter(row)?, status))
    };
    found.into_iter().map(with_status).collect()
}

/// The letters of the last `streak` parks that count towards it, as far as they are open.
pub(super) async fn of_streak(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    streak: i32,
) -> Result<Vec<DeadLetterId>, StoreError> {
    if streak <= 0 {
        return Ok(Vec::new());
    }
    let text = "select * from dead_letter where cursor_id = $1 and reason in ('rejected', 'failing')
                order by round desc, position desc limit $2";
    let values = vec![cursor.clone().into(), streak.into()];
    let found: Vec<dead_letter::Model> = rows::all(connection, "dead_letter", text, values).await?;
    let is_open =
        |row: &dead_letter::Model| matches!(row.status, LetterStatus::Open | LetterStatus::RedriveRequested);
    Ok(found.into_iter().filter(is_open).map(|row| row.id).collect())
}

#[derive(FromQueryResult)]
struct Unavailable {
    app_id: AppId,
    cursor_id: CursorId,
    id: DeadLetterId,
}

/// Open letters whose content could be had nowhere, oldest first.
pub(super) async fn unavailable(
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

/// Letters of an app, newest first.
pub(super) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    status: Option<LetterStatus>,
    before: Option<&DeadLetterId>,
    limit: u64,
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut values: Vec<Value> = vec![app.clone().into(), rows::signed(limit).into()];
    let mut text = String::from("select * from dead_letter where app_id = $1");
    if let Some(status) = status {
        values.push(status.into());
        text.push_str(&format!(" and status = ${}", values.len()));
    }
    if let Some(before) = before {
        values.push(before.clone().into());
        text.push_str(&format!(" and id < ${}", values.len()));
    }
    text.push_str(" order by id desc limit $2");
    let found: Vec<dead_letter::Model> = rows::readable(connection, "dead_letter", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

fn letter(row: dead_letter::Model) -> Result<Letter, StoreError> {
    let entry = match (row.state_mode, row.state_blob) {
        (Some(mode), Some(blob)) => Some(Entry {
            mode: u32::try_from(mode).map_err(|error| undecodable("dead_letter", error))?,
            blob,
        }),
        _ => None,
    };
    let state = match (row.state_kind, entry) {
        (LetterStateKind::Has, Some(entry)) => LetterState::Has(entry),
        (LetterStateKind::Has, None) => return Err(undecodable("dead_letter", "it lacks what the app has")),
        (LetterStateKind::Nothing, _) => LetterState::Nothing,
        (LetterStateKind::Unknown, before) => LetterState::Unknown { before },
    };
    Ok(Letter { id: row.id, path: row.path, state, delivery: DeliveryId::from_stored(row.delivery_id) })
}

fn shown(row: dead_letter::Model) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        id: row.id,
        watch: row.watch_id,
        cursor: row.cursor_id,
        round: row.round,
        position: rows::unsigned("dead_letter", row.position)?,
        path: row.path,
        operation: row.operation,
        delivery: DeliveryId::from_stored(row.delivery_id),
        reason: row.reason,
        status: row.status,
        http_status: row.http_status.and_then(|status| u16::try_from(status).ok()),
        excerpt: row.excerpt,
        created_at: Timestamp(row.created_at),
    })
}
