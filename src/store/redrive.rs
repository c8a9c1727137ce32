//! Asking that dead letters be sent again. Nothing moves here: the next redrive round takes them.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::StoreError;
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId},
    kind::LetterStatus,
};

use super::rows;

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

async fn all(connection: &impl ConnectionTrait, app: &AppId) -> Result<(u64, Vec<CursorId>), StoreError> {
    let text = "select distinct cursor_id from dead_letter where app_id = $1 and status = 'open'
                order by cursor_id";
    let holders: Vec<Holder> = rows::all(connection, "dead_letter", text, vec![app.clone().into()]).await?;
    let text = "update dead_letter set status = 'redrive_requested' where app_id = $1 and status = 'open'";
    let count = rows::execute(connection, "dead_letter", text, vec![app.clone().into()]).await?;
    Ok((count, holders.into_iter().map(|holder| holder.cursor_id).collect()))
}
