//! Asking that the change at the head of a cursor be given up by hand. Nothing moves here: the lane
//! parks it when it reads its rows again. A change that is a task is given up by the cancel of that task, and
//! one that is to become a task when it is handed over.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::{Head, StoreError};
use tidings_entity::id::{CursorId, TaskId, WatchId};

use crate::database::rows;

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

#[derive(FromQueryResult)]
struct HeadTask {
    id: TaskId,
}

/// Notes the change that is to be skipped; of a change that is a task, finds the task.
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
    let text = "select id from task where cursor_id = $1 and round = $2 and position = $3";
    let values = || vec![cursor.clone().into(), (*round).into(), (*position).into()];
    let task: Option<HeadTask> = rows::one(connection, "task", text, values()).await?;
    let task = task.map(|task| task.id);
    let position = rows::unsigned("round", *position)?;
    let head = Head { cursor: cursor.clone(), round: *round, position, task };
    if expected.is_some_and(|expected| expected != (head.round, head.position)) {
        return Err(StoreError::Conflict(format!(
            "the head is position {} of round {} now",
            head.position, head.round
        )));
    }
    if head.task.is_none() {
        let text = "update cursor set skip_round = $2, skip_position = $3 where id = $1";
        rows::execute(connection, "cursor", text, values()).await?;
    }
    Ok(head)
}

/// The obstacle of a branch without a round; empty if there is none.
async fn stuck(connection: &impl ConnectionTrait, watch: &WatchId) -> Result<String, StoreError> {
    let text = "select branch, reason from cursor
                where watch_id = $1 and state = 'blocked' and reason is not null order by id limit 1";
    let stuck: Vec<Stuck> = rows::all(connection, "cursor", text, vec![watch.clone().into()]).await?;
    let named = |Stuck { branch, reason }: &Stuck| format!("; {branch} is blocked: {reason}");
    Ok(stuck.first().map(named).unwrap_or_default())
}
