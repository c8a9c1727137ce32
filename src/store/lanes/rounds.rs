//! Begins and ends rounds. `begin` writes the rows that decide a round's list; they do not change until the
//! round ends.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::round::{Round, TreeEnd},
    ports::{NewRound, Standing, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    cursor,
    id::{CursorId, ObjectId, ViewId},
    kind::{CursorState, EntryType, LetterStatus, RoundKind, WatchState},
    round,
};

use super::replays;
use crate::{
    Context,
    database::rows,
    lanes::letters,
    ledger::{self, Note, told},
    tasks,
    watching::{
        statuses,
        watches::{resync, views},
    },
};

#[derive(FromQueryResult)]
struct ShownCursor {
    #[sea_orm(nested)]
    cursor: cursor::Model,
    is_shown: bool,
}

#[derive(FromQueryResult)]
struct OpenRound {
    #[sea_orm(nested)]
    round: round::Model,
    is_shown: bool,
}

/// Begins a round, if the cursor is still as it was when the round was planned.
pub(crate) async fn begin(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: &NewRound,
) -> Result<(), StoreError> {
    let round = &new.round;
    let (cursor, is_shown) = shown_row(connection, &round.cursor).await?;
    check(connection, &cursor, new).await?;
    let ends = [&round.spec.held, &round.spec.target];
    let views = ends.into_iter().flatten().chain(&round.spec.bases).map(|tree| (tree.view.id(), &tree.view));
    for (id, view) in views.collect::<BTreeMap<_, _>>() {
        // Under which the tree is held has a row.
        if cursor.held_view != Some(id) {
            views::keep(connection, view, round.began_at).await?;
        }
    }
    rows::insert(connection, "round", vec![to_row(round)]).await?;
    tell(connection, context, &to_row(round), EntryType::RoundBegan).await?;
    if round.spec.kind == RoundKind::Resync {
        let text = "delete from round_base where cursor_id = $1 and round = $2";
        let values = vec![round.cursor.clone().into(), resync::TO_COME.into()];
        rows::execute(connection, "round_base", text, values).await?;
    }
    let bases = round.spec.bases.iter().enumerate();
    let bases = bases.map(|(index, tree)| {
        resync::base(&round.cursor, round.number, index + 1, tree.commit, tree.view.id())
    });
    rows::insert(connection, "round_base", bases.collect()).await?;
    bind(connection, round).await?;
    if matches!(round.spec.kind, RoundKind::Replay | RoundKind::Resync) {
        letters::bind_round(connection, round).await?;
    }
    let resync = cursor.resync.filter(|_| round.spec.kind != RoundKind::Resync);
    let text = "update cursor set last_round = $1, open_round = $1, last_was_redrive = $2,
                behind_since = coalesce(behind_since, $7),
                guard_waived = (guard_waived and $2), resync = $3,
                replay = case when $6 then null else replay end,
                replay_view = case when $6 then null else replay_view end,
                deletes_unknown = (deletes_unknown or $5),
                reason = case when state = 'blocked' then reason else null end where id = $4";
    let values = vec![
        round.number.into(),
        (round.spec.kind == RoundKind::Redrive).into(),
        resync.into(),
        round.cursor.clone().into(),
        round.complete.into(),
        matches!(round.spec.kind, RoundKind::Replay | RoundKind::Resync).into(),
        round.began_at.0.into(),
    ];
    rows::execute(connection, "cursor", text, values).await?;
    if is_shown { statuses::refresh(connection, context, &round.cursor, None).await } else { Ok(()) }
}

/// Refuses a round that was planned from rows that changed meanwhile.
async fn check(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
    new: &NewRound,
) -> Result<(), StoreError> {
    let round = &new.round;
    let refuse = |reason: &str| Err(StoreError::Conflict(reason.to_owned()));
    if cursor.open_round.is_some() {
        return refuse("a round of this cursor is open");
    }
    if tasks::has_tasks(connection, &cursor.id).await? {
        return refuse("workers still have tasks of the round before");
    }
    if cursor.last_round != new.planned_after || round.number <= cursor.last_round {
        return refuse("another round was begun since this one was planned");
    }
    if round.position != 0 {
        return refuse("a round begins at position 0");
    }
    let spec = &round.spec;
    if spec.kind == RoundKind::Resync {
        let planned: Vec<_> = spec.bases.iter().map(|tree| (tree.commit, tree.view.id())).collect();
        let held = cursor.held.zip(cursor.held_view);
        let needed = resync::bases(connection, &cursor.id, resync::TO_COME).await?;
        // A complete resync needs no bases: its app drops files that are not created.
        if !round.complete && !needed.iter().chain(&held).all(|base| planned.contains(base)) {
            return refuse("the resync lacks a tree that the app may hold");
        }
        if cursor.resync == Some(true) && !round.complete {
            return refuse("a complete resync was asked for since this one was planned");
        }
    } else {
        if cursor.resync.is_some() {
            return refuse("a resync was asked for since this round was planned");
        }
        let held = cursor.held.zip(cursor.held_view);
        let from = end(spec.held.as_ref());
        let goes_on = match spec.kind {
            RoundKind::Replay => {
                let is_meant = replays::is_asked_for(cursor, from)
                    || letters::round_to_redrive(connection, &cursor.id).await? == Some(from);
                is_meant && from.is_some() && end(spec.target.as_ref()) == held
            }
            _ => from == held,
        };
        if !goes_on {
            return refuse("the held commit moved since this round was planned");
        }
    }
    Ok(())
}

/// Binds the letters of a round; each must still be open.
async fn bind(connection: &impl ConnectionTrait, round: &Round) -> Result<(), StoreError> {
    for letter in &round.spec.letters {
        let text = "update dead_letter set bound_round = $1, status = $2
                    where id = $3 and cursor_id = $4 and status in ('open', 'redrive_requested')";
        let values = vec![
            round.number.into(),
            LetterStatus::Open.into(),
            letter.id.clone().into(),
            round.cursor.clone().into(),
        ];
        if rows::execute(connection, "dead_letter", text, values).await? == 0 {
            return Err(StoreError::Conflict("a dead letter of this round is no longer open".into()));
        }
    }
    Ok(())
}

/// Moves `held` without a round.
pub(crate) async fn advance(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &CursorId,
    planned_after: i64,
    held: Option<(ObjectId, ViewId)>,
) -> Result<(), StoreError> {
    let text = "update cursor set held = $1, held_view = $2, guard_waived = false
                where id = $3 and last_round = $4 and open_round is null and resync is null
                returning (select cast(case when w.status_host is null then 1 else 2 end as bigint)
                  from watch w where w.id = cursor.watch_id)";
    let values = vec![
        held.map(|(commit, _)| commit).into(),
        held.map(|(_, view)| view).into(),
        id.clone().into(),
        planned_after.into(),
    ];
    let shown = rows::number(connection, "cursor", text, values).await?;
    if shown == 0 {
        row(connection, id).await?;
        return Err(StoreError::Conflict("the cursor moved since this was planned".into()));
    }
    caught_up(connection, id).await?;
    match held {
        Some((commit, _)) if shown > 1 => statuses::refresh(connection, context, id, Some(commit)).await,
        _ => Ok(()),
    }
}

/// Ends a round whose every change is settled. `false` if the round is not open, or not settled.
pub(crate) async fn finish(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &CursorId,
    number: i64,
    at: Timestamp,
    end_told: bool,
) -> Result<bool, StoreError> {
    let text = "select r.*, w.status_host is not null as is_shown
                from round r join cursor c on c.id = r.cursor_id and c.open_round = r.number
                join watch w on w.id = c.watch_id
                where r.cursor_id = $1 and r.number = $2 and r.position = r.total";
    let values = vec![id.clone().into(), number.into()];
    let round: Option<OpenRound> = rows::one(connection, "round", text, values).await?;
    let Some(OpenRound { round, is_shown }) = round else {
        row(connection, id).await?;
        return Ok(false);
    };
    let text = "update round set ended_at = $1 where cursor_id = $2 and number = $3";
    rows::execute(connection, "round", text, vec![at.0.into(), id.clone().into(), number.into()]).await?;
    let closed = if round.kind == RoundKind::Redrive {
        let text = "update cursor set open_round = null where id = $1";
        rows::execute(connection, "cursor", text, vec![id.clone().into()]).await?;
        LetterStatus::Redriven
    } else {
        let text = "update cursor set open_round = null, held = $1, held_view = $2,
                    deletes_unknown = (deletes_unknown and not $4) where id = $3";
        let view: Value = round.target.and(round.target_view).into();
        let told = round.complete && round.announced && end_told;
        let values = vec![round.target.into(), view, id.clone().into(), told.into()];
        rows::execute(connection, "cursor", text, values).await?;
        LetterStatus::Superseded
    };
    let text = "update dead_letter set closed_at = $2, status = case
                  when length(path) = 0 and redrive_id is not null then 'redriven' else $1 end
                where cursor_id = $3 and bound_round = $4 and status in ('open', 'redrive_requested')";
    let values = vec![closed.into(), at.0.into(), id.clone().into(), number.into()];
    rows::execute(connection, "dead_letter", text, values).await?;
    caught_up(connection, id).await?;
    if round.kind == RoundKind::Resync {
        tasks::resync_ended(connection, context, id, context.clock.now()).await?;
    }
    tell(connection, context, &round, EntryType::RoundEnded).await?;
    if is_shown {
        statuses::refresh(connection, context, id, round.target).await?;
    }
    Ok(true)
}

/// Writes that a round began or ended, where a subscription reads that.
async fn tell(
    connection: &impl ConnectionTrait,
    context: &Context,
    round: &round::Model,
    entry_type: EntryType,
) -> Result<(), StoreError> {
    match told::round(connection, &round.cursor_id, round, entry_type).await? {
        Some(note) => told::now(connection, context, note).await,
        None => Ok(()),
    }
}

/// Records that the app was told of the beginning of the open round.
pub(crate) async fn note_announced(
    connection: &impl ConnectionTrait,
    id: &CursorId,
    number: i64,
) -> Result<(), StoreError> {
    let text = "update round set announced = $3 where cursor_id = $1 and number = $2
                and exists (select 1 from cursor c where c.id = $1 and c.open_round = $2)";
    let values = vec![id.clone().into(), number.into(), true.into()];
    rows::execute(connection, "round", text, values).await.map(drop)
}

/// Blocks or unblocks a cursor.
pub(crate) async fn set_blocked(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &CursorId,
    reason: Option<String>,
) -> Result<(), StoreError> {
    if reason.is_none() {
        let text = "update cursor set streak = 0, streak_round = null, streak_position = null, refused = 0
                    where id = $1 and state = 'blocked'";
        rows::execute(connection, "cursor", text, vec![id.clone().into()]).await?;
    }
    let standing = reason.map_or(Standing::Unblocked, Standing::Blocked);
    let notes = stand(connection, id, &standing).await?.into_iter().collect();
    tasks::arrange_cursor(connection, context, id).await?;
    statuses::refresh(connection, context, id, None).await?;
    ledger::write(connection, context, notes, context.clock.now()).await
}

/// Applies the effects of a settled prefix, or of a request, on the cursor as a whole. Returns the notes for
/// the ledger.
pub(crate) async fn stand(
    connection: &impl ConnectionTrait,
    id: &CursorId,
    standing: &Standing,
) -> Result<Option<Note>, StoreError> {
    if *standing == Standing::Unchanged {
        return Ok(None);
    }
    let cursor = row(connection, id).await?;
    let was_blocked = cursor.state == CursorState::Blocked;
    let (state, reason) = match standing {
        Standing::Blocked(reason) => (CursorState::Blocked, Some(reason.clone())),
        _ if was_blocked => (resync::at_rest(connection, &cursor).await?, None),
        _ => return Ok(None),
    };
    let text = "update cursor set state = $1, reason = $2 where id = $3";
    let values = vec![state.into(), reason.clone().into(), id.clone().into()];
    rows::execute(connection, "cursor", text, values).await?;
    match (was_blocked, state) {
        (false, CursorState::Blocked) => told::blocked(connection, &cursor, reason).await.map(Some),
        (true, CursorState::Blocked) => Ok(None),
        _ => told::recovered(connection, &cursor).await.map(Some),
    }
}

/// Pauses the watch of a cursor; the next round of the cursor that is no redrive passes the guard.
pub(crate) async fn pause_by_guard(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &CursorId,
    reason: String,
) -> Result<(), StoreError> {
    let cursor = row(connection, id).await?;
    let text = "update cursor set guard_waived = true where id = $1";
    rows::execute(connection, "cursor", text, vec![id.clone().into()]).await?;
    let note = told::paused(connection, &cursor.watch_id, EntryType::WatchPaused, Some(&reason)).await?;
    let text = "update watch set state = $1, reason = $2 where id = $3";
    let values = vec![WatchState::Paused.into(), reason.into(), cursor.watch_id.clone().into()];
    rows::execute(connection, "watch", text, values).await?;
    tasks::arrange_watch(connection, context, &cursor.watch_id).await?;
    statuses::refresh_watch(connection, context, &cursor.watch_id).await?;
    ledger::write(connection, context, vec![note], context.clock.now()).await
}

/// The row of a cursor.
pub(crate) async fn row(
    connection: &impl ConnectionTrait,
    id: &CursorId,
) -> Result<cursor::Model, StoreError> {
    let text = "select * from cursor where id = $1";
    rows::one(connection, "cursor", text, vec![id.clone().into()]).await?.ok_or(StoreError::NotFound)
}

/// The row of a cursor, and whether its watch shows statuses at its Git host.
async fn shown_row(
    connection: &impl ConnectionTrait,
    id: &CursorId,
) -> Result<(cursor::Model, bool), StoreError> {
    let text = "select c.*, w.status_host is not null as is_shown
                from cursor c join watch w on w.id = c.watch_id where c.id = $1";
    let found: Option<ShownCursor> = rows::one(connection, "cursor", text, vec![id.clone().into()]).await?;
    found.map(|found| (found.cursor, found.is_shown)).ok_or(StoreError::NotFound)
}

/// After `held` moved or a round ended: since when the cursor is behind, if it still is. If the branch is
/// gone and its files are still to be deleted, the moment stays.
pub(crate) async fn caught_up(connection: &impl ConnectionTrait, id: &CursorId) -> Result<(), StoreError> {
    let text = "update cursor set behind_since = (select case when h.commit_id is null then
                    case when cursor.held is not null and cursor.state = 'branch_missing'
                      and w.on_branch_gone = 'delete' then cursor.behind_since end
                    when cursor.held is null or h.commit_id <> cursor.held then h.moved_at end
                  from watch w
                  left join head h on h.source_id = w.source_id and h.ref_name = cursor.branch
                  where w.id = cursor.watch_id)
                where id = $1";
    rows::execute(connection, "cursor", text, vec![id.clone().into()]).await?;
    Ok(())
}

fn end(tree: Option<&TreeEnd>) -> Option<(ObjectId, ViewId)> {
    tree.map(|tree| (tree.commit, tree.view.id()))
}

fn to_row(round: &Round) -> round::Model {
    let (held, target) = (end(round.spec.held.as_ref()), end(round.spec.target.as_ref()));
    round::Model {
        cursor_id: round.cursor.clone(),
        number: round.number,
        kind: round.spec.kind,
        held: held.map(|(commit, _)| commit),
        held_view: held.map(|(_, view)| view),
        target: target.map(|(commit, _)| commit),
        target_view: target.map(|(_, view)| view),
        rules: round.rules,
        deletes: rows::signed(round.summary.deletes),
        creates: rows::signed(round.summary.creates),
        updates: rows::signed(round.summary.updates),
        total: rows::signed(round.summary.total()),
        digest: round.summary.digest,
        branch: round.branch.clone(),
        url: round.url.clone(),
        format: round.format,
        history_rewritten: round.history_rewritten,
        skipped_commits: round.skipped_commits,
        complete: round.complete,
        announced: false,
        position: 0,
        began_at: round.began_at.0,
        ended_at: None,
    }
}
