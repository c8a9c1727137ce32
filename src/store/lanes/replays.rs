//! Replays: the trees that a cursor once held, and the request to replay from one of them. Deliveries do not
//! change here: the lane begins the round when it reads its rows again.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{model::round::TreeEnd, ports::StoreError, time::Timestamp};
use tidings_entity::{
    cursor,
    id::{CursorId, ObjectId, ViewId, WatchId},
};

use super::rounds;
use crate::{
    database::rows,
    lanes::letters,
    watching::watches::{resync, views},
};

#[derive(FromQueryResult)]
struct HeldCommitRow {
    cursor_id: CursorId,
    text: String,
}

/// The trees that a cursor held: both ends of rounds as far as it reached them, and the present one. Only
/// rounds that are kept as history count.
const HELD: &str = "with t(cursor_id, view_id, number) as (
      select c.id, r.held_view, r.number from cursor c join round r on r.cursor_id = c.id
        where c.watch_id = $1 and r.held = $2
      union all
      select c.id, r.target_view, r.number from cursor c join round r on r.cursor_id = c.id
        where c.watch_id = $1 and r.target = $2 and r.ended_at is not null and r.position = r.total
      union all
      select c.id, c.held_view, c.last_round + 1 from cursor c where c.watch_id = $1 and c.held = $2)
    select t.cursor_id, v.text from t join view v on v.id = t.view_id
    where cast($3 as text) is null or t.cursor_id = $3 order by t.cursor_id, t.number desc";

/// The tree of a commit as a cursor of this watch held it last.
pub(crate) async fn was_held(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    cursor: Option<&CursorId>,
    commit: ObjectId,
) -> Result<(CursorId, TreeEnd), StoreError> {
    let values = vec![watch.clone().into(), commit.into(), cursor.map(CursorId::to_string).into()];
    let mut found: Vec<HeldCommitRow> = rows::all(connection, "round", HELD, values).await?;
    found.dedup_by(|later, first| later.cursor_id == first.cursor_id);
    let [held] = found.as_slice() else {
        return Err(StoreError::Conflict(match found.len() {
            0 => format!("{commit} is no commit that was held here, as far as history is kept"),
            many => format!("{many} branches held {commit}; name one with `cursor`"),
        }));
    };
    Ok((held.cursor_id.clone(), TreeEnd { commit, view: views::view(&held.text)? }))
}

/// Stores the request for a replay.
pub(crate) async fn request(
    connection: &impl ConnectionTrait,
    id: &CursorId,
    from: (ObjectId, ViewId),
) -> Result<(), StoreError> {
    let cursor = rounds::row(connection, id).await?;
    if cursor.resync.is_some() {
        // The resync sends every file anyway; the tree of the replay becomes one of its bases, for the
        // deletes.
        return resync::keep(connection, &cursor, vec![from]).await;
    }
    if cursor.held.is_none() {
        return Err(StoreError::Conflict("nothing is held, so there is nothing to deliver once more".into()));
    }
    let text = "update cursor set replay = $1, replay_view = $2 where id = $3";
    rows::execute(connection, "cursor", text, vec![from.0.into(), from.1.into(), id.clone().into()]).await?;
    Ok(())
}

/// Removes the request, unless it was replaced by another one.
pub(crate) async fn forget(
    connection: &impl ConnectionTrait,
    id: &CursorId,
    from: ObjectId,
    at: Timestamp,
) -> Result<(), StoreError> {
    letters::close_round(connection, id, at).await?;
    let text = "update cursor set replay = null, replay_view = null where id = $1 and replay = $2";
    rows::execute(connection, "cursor", text, vec![id.clone().into(), from.into()]).await?;
    Ok(())
}

/// Whether a replay round is the requested one.
pub(crate) fn is_asked_for(cursor: &cursor::Model, held: Option<(ObjectId, ViewId)>) -> bool {
    held.is_some() && held == cursor.replay.zip(cursor.replay_view)
}
