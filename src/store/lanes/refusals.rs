//! An accepted test delivery, or a person who resumes the watch, ends two kinds of blocks: of a receiver that
//! refused everything, and of a streak whose last park was the last change of its round. The cursor of such a
//! streak has no change to probe with, and would stay blocked until the next commit.

use sea_orm::ConnectionTrait;
use tidings_actors::ports::{REFUSALS_MAX, STREAK_MAX, SelfRedrive, SinkKey, StoreError, Streak};
use tidings_entity::{cursor, id::WatchId, kind::CursorState};

use crate::{
    Context,
    database::rows,
    lanes::letters::redrive,
    ledger::told,
    watching::{statuses, watches::resync},
};

/// The cursors `c` that are meant.
fn is_blocked() -> String {
    format!(
        "((c.refused >= {REFUSALS_MAX} and not c.acknowledged)
          or (c.streak >= {STREAK_MAX} and c.open_round is null))"
    )
}

/// Whether the app refused everything.
fn refuses_everything(cursor: &cursor::Model) -> bool {
    let refused = u32::try_from(cursor.refused).unwrap_or(0);
    Streak { refused, ..Streak::default() }.refuses_everything(cursor.acknowledged)
}

/// The letters that led to the block.
fn letters_of(cursor: &cursor::Model) -> SelfRedrive {
    let refuses = refuses_everything(cursor);
    let place = |(round, position): (i64, i64)| (round, u64::try_from(position).unwrap_or(0));
    let from = cursor.streak_round.zip(cursor.streak_position).filter(|_| !refuses);
    SelfRedrive { from: from.map_or((0, 0), place), before: (i64::MAX, 0), counted: !refuses }
}

/// A sink accepted a test delivery: the changes that led to a block are sent again, each letter by itself
/// once.
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
         where {is_of_sink} and {} order by c.id",
        is_blocked()
    );
    let blocked: Vec<cursor::Model> = rows::all(connection, "cursor", &text, vec![sink.id().into()]).await?;
    for cursor in blocked {
        redrive::of_cursor(connection, &cursor.id, &letters_of(&cursor)).await?;
        end(connection, context, cursor).await?;
    }
    Ok(())
}

/// Ends the blocks of cursors of a watch that was resumed. The changes of a streak are sent again; those that
/// an app refused wait for a redrive.
pub(crate) async fn of_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<(), StoreError> {
    let text = format!("select c.* from cursor c where c.watch_id = $1 and {} order by c.id", is_blocked());
    let blocked: Vec<cursor::Model> =
        rows::all(connection, "cursor", &text, vec![watch.clone().into()]).await?;
    for cursor in blocked {
        if !refuses_everything(&cursor) {
            redrive::of_cursor(connection, &cursor.id, &letters_of(&cursor)).await?;
        }
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
    let text = "update cursor set refused = 0, state = $1, reason = $2,
                streak = case when open_round is null then 0 else streak end,
                streak_round = case when open_round is null then null else streak_round end,
                streak_position = case when open_round is null then null else streak_position end
                where id = $3";
    let values = vec![state.into(), reason.into(), cursor.id.clone().into()];
    rows::execute(connection, "cursor", text, values).await?;
    statuses::refresh(connection, context, &cursor.id, None).await
}
