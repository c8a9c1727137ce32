//! The present terms of lanes: one statement for many cursors, by the keys of their rows.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use tidings_actors::ports::{LaneTerms, REFUSALS_MAX, StoreError};
use tidings_entity::{
    id::{CursorId, SinkId, SourceId},
    kind::WatchState,
};

use crate::database::rows;

#[derive(FromQueryResult)]
struct TermsRow {
    id: CursorId,
    state: WatchState,
    source_id: SourceId,
    sink_id: Option<SinkId>,
    open_round: Option<i64>,
    skip_position: Option<i64>,
    cancelled: i32,
    refuses: i32,
}

/// The terms of these cursors; deleted cursors are left out.
pub(crate) async fn of_lanes(
    connection: &impl ConnectionTrait,
    cursors: &[CursorId],
) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
    // On PostgreSQL a list of any length is one value.
    let at_once = match connection.get_database_backend() {
        DbBackend::Postgres => cursors.len().max(1),
        _ => rows::LISTED_MAX,
    };
    let mut terms = Vec::with_capacity(cursors.len());
    for some in cursors.chunks(at_once) {
        let ids: Vec<_> = some.iter().map(|cursor| vec![cursor.clone().into()]).collect();
        let (list, values) = rows::list(connection, &["text"], &ids);
        let text = format!(
            "with v(id) as ({list}) select c.id, w.state, w.source_id, w.sink_id, c.open_round,
               case when c.skip_round = r.number and c.skip_position >= r.position then c.skip_position end
                 as skip_position,
               case when c.cancel_round = c.open_round then 1 else 0 end as cancelled,
               case when c.refused >= {REFUSALS_MAX} and not c.acknowledged then 1 else 0 end as refuses
             from cursor c join watch w on w.id = c.watch_id
             left join round r on r.cursor_id = c.id and r.number = c.open_round
             where c.id in (select id from v)"
        );
        let found: Vec<TermsRow> = rows::all(connection, "cursor", &text, values).await?;
        for row in found {
            let skip = row.skip_position.map(|position| rows::unsigned("cursor", position)).transpose()?;
            let of_lane = LaneTerms {
                is_paused: row.state == WatchState::Paused,
                source: row.source_id,
                sink: row.sink_id,
                round: row.open_round,
                skip,
                is_cancelled: row.cancelled == 1,
                refuses_everything: row.refuses == 1,
            };
            terms.push((row.id, of_lane));
        }
    }
    Ok(terms)
}
