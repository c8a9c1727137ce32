//! Asking that the change at the head of a cursor be given up by hand. Nothing moves here: the lane
//! parks it when it reads its rows again.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::{Head, StoreError};
use tidings_entity::id::{CursorId, WatchId};

use crate::rows;

#[derive(FromQueryResult)]
struct Stuck {
    branch: String,
    reason: String,
}

#[derive(FromQueryResult)]
struct Unsettled {
    id: CursorId,
    number: Option<i64>,
    position: Option<i64>,
}

/// Notes the change that is to be skipped.
pub(crate) async fn request(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    cursor: Option<&CursorId>,
    expected: Option<(i64, u64)>,
) -> Result<Head, StoreError> {
    let text = "select c.id, r.number, r.position from cursor c
                left join round r on r.cursor_id = c.id and r.number = c.open_round and r.position < r.total
                where c.watch_id = $1 and (cast($2 as text) is null or c.id = $2) order by c.id";
    let values = vec![watch.clone().into(), cursor.map(CursorId::to_string).into()];
    let cursors: Vec<Unsettled> = rows::all(connection, "cursor", text, values).await?;
    if cursor.is_some() && cursors.is_empty() {
        return Err(StoreError::NotFound);
    }
    let heads: Vec<(CursorId, i64, i64)> =
        cursors.into_iter().filter_map(|row| Some((row.id, row.number?, row.position?))).collect();
    let [(cursor, round, position)] = heads.as_slice() else {
        return Err(StoreError::Conflict(match heads.len() {
            0 => {
                let stuck = stuck(connection, watch).await?;
                format!("nothing is being delivered, so there is no change to skip{stuck}")
            }
            many => format!("{many} branches have a change at their head; name one with `cursor`"),
        }));
    };
    let text = "select count(*) from watch w join sink k on k.id = w.sink_id
                where w.id = $1 and k.kind = 'tasks'";
    if rows::number(connection, "watch", text, vec![watch.clone().into()]).await? > 0 {
        return Err(StoreError::Conflict(
            "the changes of the watch are tasks: cancel the task of the change to give it up".to_owned(),
        ));
    }
    let head = Head { cursor: cursor.clone(), round: *round, position: rows::unsigned("round", *position)? };
    if expected.is_some_and(|expected| expected != (head.round, head.position)) {
        return Err(StoreError::Conflict(format!(
            "the head is position {} of round {} now",
            head.position, head.round
        )));
    }
    let text = "update cursor set skip_round = $1, skip_position = $2 where id = $3";
    let values = vec![(*round).into(), (*position).into(), cursor.clone().into()];
    rows::execute(connection, "cursor", text, values).await?;
    Ok(head)
}

/// The obstacle of a branch without a round; empty if there is none.
async fn stuck(connection: &impl ConnectionTrait, watch: &WatchId) -> Result<String, StoreError> {
    let text = "select branch, reason from cursor
                where watch_id = $1 and state = 'blocked' and reason is not null order by id limit 1";
    let stuck: Vec<Stuck> = rows::all(connection, "cursor", text, vec![watch.clone().into()]).await?;
    let named = |Stuck { branch, reason }: &Stuck| format!("; what is in the way of {branch}: {reason}");
    Ok(stuck.first().map(named).unwrap_or_default())
}
