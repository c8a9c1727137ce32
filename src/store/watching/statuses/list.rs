//! The statuses of a watch, for people: the state to show at each commit, and the state that its host was
//! told.

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{StatusPlace, StatusRow, StoreError},
    time::Timestamp,
};
use tidings_entity::{commit_status, id::WatchId};

use crate::database::rows::{self, signed};

/// Statuses of a watch behind a place, the most recently changed first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    place: Option<&StatusPlace>,
    limit: u64,
) -> Result<Vec<StatusRow>, StoreError> {
    let mut values = vec![watch.clone().into(), signed(limit).into()];
    let behind = match place {
        None => "1 = 1",
        Some(StatusPlace { at, commit }) => {
            values.extend([at.0.into(), (*commit).into()]);
            "(updated_at < $3 or (updated_at = $3 and commit_id > $4))"
        }
    };
    let text = format!(
        "select * from commit_status where watch_id = $1 and {behind}
         order by updated_at desc, commit_id limit $2"
    );
    let found: Vec<commit_status::Model> = rows::all(connection, "commit_status", &text, values).await?;
    Ok(found.into_iter().map(shown).collect())
}

fn shown(row: commit_status::Model) -> StatusRow {
    StatusRow {
        commit: row.commit_id,
        host: row.host,
        context: row.context,
        wanted: row.wanted,
        description: row.description,
        told: row.told,
        tries: u32::try_from(row.tries).unwrap_or(u32::MAX),
        next_at: row.next_at.map(Timestamp),
        ended: row.ended,
        updated_at: Timestamp(row.updated_at),
    }
}
