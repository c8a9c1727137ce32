//! Words about a change whose task is gone, or is sent again at another place. A worker that did not hear
//! the answer to its last word says the word again. For a task of a watch, the settled ranges and the dead
//! letters tell the answer.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::task::{ClaimProof, TaskMove, TaskPlace},
    ports::{StoreError, TaskWord},
};
use tidings_entity::{
    id::{AppId, CursorId},
    kind::{ParkReason, TaskState},
};

use crate::database::rows::{self, LISTED_MAX, list, signed, unsigned};

#[derive(FromQueryResult)]
struct SettledRow {
    app_id: AppId,
    cursor_id: CursorId,
    round: i64,
    position: i64,
    reason: Option<ParkReason>,
}

/// How the changes that these words are about ended: by a completion, or by a worker that gave the change up.
/// Changes that have not ended, and dead letters of other reasons, are left out.
pub(in crate::tasks) async fn ends(
    connection: &impl ConnectionTrait,
    words: &[&TaskWord],
) -> Result<BTreeMap<(AppId, TaskPlace), TaskState>, StoreError> {
    let asked = words.iter().filter_map(|word| match (&word.proof, &word.step) {
        (Some(ClaimProof::OfWatch(_, place)), TaskMove::Complete | TaskMove::Fail(_)) => Some(vec![
            word.app.clone().into(),
            place.cursor.clone().into(),
            place.round.into(),
            signed(place.position).into(),
        ]),
        _ => None,
    });
    let asked: Vec<Vec<Value>> = asked.collect();
    let mut ends = BTreeMap::new();
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "text", "bigint", "bigint"], some);
        let text = format!(
            "with v(app_id, cursor_id, round, position) as ({values})
             select distinct v.app_id, v.cursor_id, v.round, v.position,
               (select max(d.reason) from dead_letter d where d.cursor_id = v.cursor_id
                  and d.round = v.round and d.position = v.position) as reason
             from v join cursor c on c.id = v.cursor_id
             join watch w on w.id = c.watch_id and w.app_id = v.app_id
             join settled s on s.cursor_id = v.cursor_id and s.round = v.round
               and s.from_position <= v.position and s.to_position > v.position"
        );
        for row in rows::all::<SettledRow>(connection, "settled", &text, bound).await? {
            let state = match row.reason {
                None => TaskState::Succeeded,
                Some(ParkReason::Rejected) => TaskState::Failed,
                Some(_) => continue,
            };
            let position = unsigned("settled", row.position)?;
            let place = TaskPlace { cursor: row.cursor_id, round: row.round, position };
            ends.insert((row.app_id, place), state);
        }
    }
    Ok(ends)
}
