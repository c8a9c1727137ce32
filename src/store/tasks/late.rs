//! Completions that come after the row of their task is gone: those of tasks of watches are answered from
//! the settled ranges.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::task::{ClaimProof, TaskMove},
    ports::{StoreError, TaskWord},
};
use tidings_entity::id::TaskId;

use crate::rows::{self, LISTED_MAX, list, signed};

/// Those of these words that complete a task of a watch which is gone, and whose change is settled.
pub(super) async fn completions(
    connection: &impl ConnectionTrait,
    words: &[&TaskWord],
) -> Result<BTreeSet<TaskId>, StoreError> {
    #[derive(FromQueryResult)]
    struct Settled {
        id: TaskId,
    }
    let asked = words.iter().filter_map(|word| match (&word.proof, &word.step) {
        (Some(ClaimProof::OfWatch(_, place)), TaskMove::Complete) => Some(vec![
            word.id.clone().into(),
            word.app.clone().into(),
            place.cursor.clone().into(),
            place.round.into(),
            signed(place.position).into(),
        ]),
        _ => None,
    });
    let asked: Vec<Vec<Value>> = asked.collect();
    let mut settled = BTreeSet::new();
    for some in asked.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "text", "text", "bigint", "bigint"], some);
        let text = format!(
            "with v(id, app_id, cursor_id, round, position) as ({values})
             select distinct v.id from v join cursor c on c.id = v.cursor_id
             join watch w on w.id = c.watch_id and w.app_id = v.app_id
             join settled s on s.cursor_id = v.cursor_id and s.round = v.round
               and s.from_position <= v.position and s.to_position > v.position"
        );
        let found: Vec<Settled> = rows::all(connection, "settled", &text, bound).await?;
        settled.extend(found.into_iter().map(|row| row.id));
    }
    Ok(settled)
}
