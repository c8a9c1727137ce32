//! Asking that dead letters be sent again, and taking that back. Nothing moves here: the next
//! redrive round takes them, and a redrive that is to end does so where it stands.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    ports::{Cancelled, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId, WatchId},
    kind::LetterStatus,
};

use super::{rounds, rows};

#[derive(FromQueryResult)]
struct Holder {
    cursor_id: CursorId,
}

/// Marks letters; all of the app that are open where `ids` is empty. How many, and whose cursors.
pub(super) async fn request(
    connection: &impl ConnectionTrait,
    app: &AppId,
    ids: &[DeadLetterId],
) -> Result<(u64, Vec<CursorId>), StoreError> {
    if ids.is_empty() {
        return all(connection, app).await;
    }
    let mut cursors = BTreeSet::new();
    let distinct: BTreeSet<_> = ids.iter().collect();
    for id in &distinct {
        let text = "select * from dead_letter where id = $1 and app_id = $2";
        let values = vec![(*id).clone().into(), app.clone().into()];
        let found: Option<dead_letter::Model> = rows::one(connection, "dead_letter", text, values).await?;
        let letter = found.ok_or(StoreError::NotFound)?;
        match letter.status {
            LetterStatus::Open | LetterStatus::RedriveRequested => {}
            LetterStatus::Superseded => {
                return Err(StoreError::Conflict(format!(
                    "{id} is superseded by a later change of its path"
                )));
            }
            LetterStatus::Redriven => {
                return Err(StoreError::Conflict(format!("{id} was sent again already")));
            }
        }
        let text = "update dead_letter set status = 'redrive_requested' where id = $1";
        rows::execute(connection, "dead_letter", text, vec![(*id).clone().into()]).await?;
        cursors.insert(letter.cursor_id);
    }
    Ok((distinct.len() as u64, cursors.into_iter().collect()))
}

/// Marks letters of a cursor that are open; others are left alone.
pub(super) async fn of_cursor(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    ids: &[DeadLetterId],
) -> Result<(), StoreError> {
    for id in ids {
        let text = "update dead_letter set status = 'redrive_requested'
                    where id = $1 and cursor_id = $2 and status = 'open'";
        let values = vec![id.clone().into(), cursor.clone().into()];
        rows::execute(connection, "dead_letter", text, values).await?;
    }
    Ok(())
}

/// Takes back every request of an app, or of one watch of it.
pub(super) async fn cancel(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: Option<&WatchId>,
) -> Result<Cancelled, StoreError> {
    let values = || vec![app.clone().into(), watch.map(WatchId::to_string).into()];
    let text = "update dead_letter set status = 'open'
                where app_id = $1 and (cast($2 as text) is null or watch_id = $2) and status = 'redrive_requested'";
    let reopened = rows::execute(connection, "dead_letter", text, values()).await?;
    let text = "select c.id as cursor_id from cursor c
                join watch w on w.id = c.watch_id
                join round r on r.cursor_id = c.id and r.number = c.open_round
                where w.app_id = $1 and (cast($2 as text) is null or w.id = $2) and r.kind = 'redrive' order by c.id";
    let holders: Vec<Holder> = rows::all(connection, "cursor", text, values()).await?;
    for holder in &holders {
        let text = "update cursor set cancel_round = open_round where id = $1";
        rows::execute(connection, "cursor", text, vec![holder.cursor_id.clone().into()]).await?;
    }
    Ok(Cancelled { reopened, ending: holders.into_iter().map(|holder| holder.cursor_id).collect() })
}

/// Ends an open redrive early. False if it is not the open round.
pub(super) async fn end(
    connection: &impl ConnectionTrait,
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
    let text = "update round set ended_at = $3 where cursor_id = $1 and number = $2";
    rows::execute(connection, "round", text, [this(), vec![at.0.into()]].concat()).await?;
    for letter in reached {
        let text = "update dead_letter set status = 'redriven', closed_at = $3
                    where cursor_id = $1 and bound_round = $2 and id = $4
                    and status in ('open', 'redrive_requested')";
        let values = [this(), vec![at.0.into(), letter.clone().into()]].concat();
        rows::execute(connection, "dead_letter", text, values).await?;
    }
    let text = "update dead_letter set bound_round = null where cursor_id = $1 and bound_round = $2
                and status in ('open', 'redrive_requested')";
    rows::execute(connection, "dead_letter", text, this()).await?;
    Ok(true)
}

async fn all(connection: &impl ConnectionTrait, app: &AppId) -> Result<(u64, Vec<CursorId>), StoreError> {
    let text = "select distinct cursor_id from dead_letter where app_id = $1 and status = 'open'
                order by cursor_id";
    let holders: Vec<Holder> = rows::all(connection, "dead_letter", text, vec![app.clone().into()]).await?;
    let text = "update dead_letter set status = 'redrive_requested' where app_id = $1 and status = 'open'";
    let count = rows::execute(connection, "dead_letter", text, vec![app.clone().into()]).await?;
    Ok((count, holders.into_iter().map(|holder| holder.cursor_id).collect()))
}
