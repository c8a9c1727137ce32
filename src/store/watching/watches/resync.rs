//! Asking for a resync: the open round ends, and every tree of which the app may hold files is
//! noted as a base of the resync to come (round 0 of `round_base`).

use sea_orm::ConnectionTrait;
use tidings_actors::{
    model::follow::unblocked,
    ports::{Random, StoreError, TaskNews},
    time::Timestamp,
};
use tidings_entity::{
    cursor, head,
    id::{CursorId, ObjectId, ViewId, WatchId},
    kind::CursorState,
    round, round_base,
};

use crate::{
    Context,
    database::rows,
    ledger::{self, told},
    tasks,
    watching::statuses,
};

/// The bases of a resync that has not begun have this round number; rounds count from 1.
pub(crate) const TO_COME: i64 = 0;

/// Asks for a resync of every cursor of a watch. A paused watch stays paused: its resync begins when it is
/// resumed.
pub(crate) async fn of_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
    complete: bool,
    at: Timestamp,
) -> Result<(), StoreError> {
    context.news.mark();
    let text = "select * from cursor where watch_id = $1";
    let cursors: Vec<cursor::Model> =
        rows::all(connection, "cursor", text, vec![watch.clone().into()]).await?;
    for cursor in cursors {
        let news = request(connection, &*context.random, cursor, complete, None, at).await?;
        context.tasks.mark(news);
    }
    statuses::refresh_watch(connection, context, watch).await
}

/// Requests a resync of one cursor.
pub(crate) async fn of_cursor(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: CursorId,
    complete: bool,
    reason: String,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "select * from cursor where id = $1";
    let values = vec![id.clone().into()];
    let cursor: Option<cursor::Model> = rows::one(connection, "cursor", text, values).await?;
    let cursor = cursor.ok_or(StoreError::NotFound)?;
    let news = request(connection, &*context.random, cursor, complete, Some(reason), at).await?;
    context.tasks.mark(news);
    statuses::refresh(connection, context, &id, None).await
}

/// Requests a resync of the branch of this row. Returns what is to be told of the tasks that go by that.
pub(crate) async fn request(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    cursor: cursor::Model,
    complete: bool,
    reason: Option<String>,
    at: Timestamp,
) -> Result<TaskNews, StoreError> {
    // The reason for an open complete resync remains until that resync has ended.
    let EndedEarly { was_complete, mut trees, news } = match cursor.open_round {
        Some(open) => end(connection, &cursor, open, at).await?,
        None => EndedEarly::default(),
    };
    let complete = complete || was_complete;
    // An app that requested a replay may hold the files of that earlier tree.
    trees.extend(cursor.replay.zip(cursor.replay_view));
    keep(connection, &cursor, trees).await?;
    let state = match cursor.state {
        CursorState::Blocked => {
            let note = told::recovered(connection, &cursor).await?;
            ledger::write_unheard(connection, random, vec![note], at).await?;
            at_rest(connection, &cursor).await?
        }
        state => state,
    };
    let text = "update cursor set open_round = null, resync = $1, streak = 0, streak_round = null,
                streak_position = null, refused = 0, state = $2, reason = $3,
                replay = null, replay_view = null, behind_since = coalesce(behind_since, $5)
                where id = $4";
    let complete = complete || cursor.resync == Some(true);
    let values = vec![complete.into(), state.into(), reason.into(), cursor.id.into(), at.0.into()];
    rows::execute(connection, "cursor", text, values).await?;
    Ok(news)
}

/// An open round that ended early.
#[derive(Default)]
struct EndedEarly {
    /// Whether the round was a complete resync.
    was_complete: bool,
    /// The trees of which its app may hold files.
    trees: Vec<(ObjectId, ViewId)>,
    /// What is to be told of its tasks.
    news: TaskNews,
}

/// Ends an open round early.
async fn end(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
    number: i64,
    at: Timestamp,
) -> Result<EndedEarly, StoreError> {
    let this = || vec![cursor.id.clone().into(), number.into()];
    let text = "select * from round where cursor_id = $1 and number = $2";
    let round: Option<round::Model> = rows::one(connection, "round", text, this()).await?;
    let mut trees: Vec<(ObjectId, ViewId)> = Vec::new();
    let was_complete = round.as_ref().is_some_and(|round| round.complete);
    if let Some(round) = round {
        trees.extend(round.target.zip(round.target_view));
        trees.extend(round.held.zip(round.held_view));
    }
    trees.extend(bases(connection, &cursor.id, number).await?);
    let text = "update round set ended_at = $1 where cursor_id = $2 and number = $3";
    let values = vec![at.0.into(), cursor.id.clone().into(), number.into()];
    rows::execute(connection, "round", text, values).await?;
    let news = tasks::overtake(connection, &cursor.id, at).await?;
    Ok(EndedEarly { was_complete, trees, news })
}

/// Notes trees as bases of the resync to come.
pub(crate) async fn keep(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
    trees: Vec<(ObjectId, ViewId)>,
) -> Result<(), StoreError> {
    let known = bases(connection, &cursor.id, TO_COME).await?;
    let held = cursor.held.zip(cursor.held_view);
    let mut ordinal = known.len();
    let mut fresh: Vec<round_base::Model> = Vec::new();
    for (commit_id, view_id) in trees {
        let twice = fresh.iter().any(|base| base.commit_id == commit_id && base.view_id == view_id);
        if twice || Some((commit_id, view_id)) == held || known.contains(&(commit_id, view_id)) {
            continue;
        }
        ordinal += 1;
        fresh.push(base(&cursor.id, TO_COME, ordinal, commit_id, view_id));
    }
    rows::insert(connection, "round_base", fresh).await?;
    Ok(())
}

/// The bases of a round in their order.
pub(crate) async fn bases(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
) -> Result<Vec<(ObjectId, ViewId)>, StoreError> {
    let text = "select * from round_base where cursor_id = $1 and round = $2 order by ordinal";
    let values = vec![cursor.clone().into(), round.into()];
    let found: Vec<round_base::Model> = rows::all(connection, "round_base", text, values).await?;
    Ok(found.into_iter().map(|base| (base.commit_id, base.view_id)).collect())
}

/// A row of `round_base`.
pub(crate) fn base(
    cursor: &CursorId,
    round: i64,
    ordinal: usize,
    commit_id: ObjectId,
    view_id: ViewId,
) -> round_base::Model {
    let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
    round_base::Model { cursor_id: cursor.clone(), round, ordinal, commit_id, view_id }
}

/// The state of a cursor that is no longer blocked.
pub(crate) async fn at_rest(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
) -> Result<CursorState, StoreError> {
    let text = "select h.* from head h join watch w on w.source_id = h.source_id
                where w.id = $1 and h.ref_name = $2";
    let values = vec![cursor.watch_id.clone().into(), cursor.branch.clone().into()];
    let head: Option<head::Model> = rows::one(connection, "head", text, values).await?;
    Ok(unblocked(head.map(|head| head.commit_id), &cursor.slot))
}
