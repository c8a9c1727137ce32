//! The end of a block by refusals: a receiver that refused everything accepted a test delivery, or a person
//! resumed its watch.

use sea_orm::ConnectionTrait;
use tidings_actors::ports::{REFUSALS_MAX, SelfRedrive, SinkKey, StoreError};
use tidings_entity::{cursor, id::WatchId, kind::CursorState};

use crate::{Context, ledger::told, letters::redrive, rows, statuses, watches::resync};

/// Every letter of a cursor.
const ALL: SelfRedrive = SelfRedrive { from: (0, 0), before: (i64::MAX, 0), counted: false };

/// A sink accepted a test delivery: its refused changes are sent again, each letter by itself once.
pub(crate) async fn of_sink(
    connection: &impl ConnectionTrait,
    context: &Context,
    sink: &SinkKey,
) -> Result<(), StoreError> {
    let is_of_sink = match sink.sink {
        Some(_) => "w.sink_id = $1",
        None => "w.app_id = $1 and w.sink_id is null",
    };
    let text = format!(
        "select c.* from cursor c join watch w on w.id = c.watch_id
         where {is_of_sink} and c.refused >= $2 and not c.acknowledged order by c.id"
    );
    let values = vec![sink.id().into(), i64::from(REFUSALS_MAX).into()];
    let blocked: Vec<cursor::Model> = rows::all(connection, "cursor", &text, values).await?;
    for cursor in blocked {
        redrive::of_cursor(connection, &cursor.id, &ALL).await?;
        end(connection, context, cursor).await?;
    }
    Ok(())
}

/// Ends the blocks of cursors of a watch whose app had refused everything, after the watch was resumed.
pub(crate) async fn of_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<(), StoreError> {
    let text = "select * from cursor where watch_id = $1 and refused >= $2 and not acknowledged";
    let values = vec![watch.clone().into(), i64::from(REFUSALS_MAX).into()];
    let blocked: Vec<cursor::Model> = rows::all(connection, "cursor", text, values).await?;
    for cursor in blocked {
        end(connection, context, cursor).await?;
    }
    Ok(())
}

async fn end(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: cursor::Model,
) -> Result<(), StoreError> {
    let (state, reason) = match cursor.state {
        CursorState::Blocked => (resync::at_rest(connection, &cursor).await?, None),
        state => (state, cursor.reason.clone()),
    };
    if cursor.state == CursorState::Blocked {
        told::now(connection, context, told::recovered(connection, &cursor).await?).await?;
    }
    let text = "update cursor set refused = 0, state = $1, reason = $2 where id = $3";
    let values = vec![state.into(), reason.into(), cursor.id.clone().into()];
    rows::execute(connection, "cursor", text, values).await?;
    statuses::refresh(connection, context, &cursor.id, None).await
}
