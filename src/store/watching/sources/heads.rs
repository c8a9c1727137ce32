//! Heads: writes the decisions of `actors::follow` about a listing.

use std::collections::{BTreeMap, btree_map::Entry};

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::follow::{Following, MovedHead, Scope, follow},
    ports::{Moved, RefListing, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    cursor, head,
    id::{CursorId, ObjectId, SourceId, ViewId, WatchId},
    kind::CursorState,
};

use super::known::{Asked, known, known_of};
use crate::{
    Context,
    database::rows,
    lanes::rounds,
    ledger::{self, told},
    upkeep::{backlog::OWES, restored},
    watching::statuses,
};

/// The names of refs in one statement.
const NAMES_AT_ONCE: usize = 200;

/// Writes the result of a poll.
pub(crate) async fn move_heads(
    connection: &impl ConnectionTrait,
    context: &Context,
    source: &SourceId,
    listing: &RefListing,
    at: Timestamp,
) -> Result<Moved, StoreError> {
    let asked = Asked::of(listing);
    let mut known_now = known_of(connection, source, asked.as_ref()).await?;
    let following = follow(&known_now, listing, Scope::Source, at);
    if !following.is_empty() {
        write(connection, context, source, &following, None, at).await?;
        note_lag_of(connection, source, asked.as_ref(), at).await?;
        known_now = known_of(connection, source, asked.as_ref()).await?;
    }
    let changed = !following.moved.is_empty() || !following.gone.is_empty() || following.moved_to.is_some();
    let Following { absent, left_out, .. } = following;
    Ok(Moved { changed, absent, left_out, cursors: known_now.waiting() })
}

/// Writes the result of a proof of access for one watch; new cursors start at `start`.
pub(crate) async fn prove(
    connection: &impl ConnectionTrait,
    context: &Context,
    source: &SourceId,
    watch: &WatchId,
    listing: &RefListing,
    start: Option<(ObjectId, ViewId)>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let following = follow(&known(connection, source).await?, listing, Scope::Watch(watch), at);
    write(connection, context, source, &following, start, at).await?;
    // New cursors need the moment of their lag, even if no head moved.
    note_lag(connection, source, at).await
}

async fn write(
    connection: &impl ConnectionTrait,
    context: &Context,
    source: &SourceId,
    following: &Following,
    start: Option<(ObjectId, ViewId)>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let names: Vec<&String> =
        following.gone.iter().chain(following.moved.iter().map(|head| &head.name)).collect();
    for some in names.chunks(NAMES_AT_ONCE) {
        let places: Vec<String> = (2..some.len() + 2).map(|place| format!("${place}")).collect();
        let text = format!("delete from head where source_id = $1 and ref_name in ({})", places.join(", "));
        let mut values = vec![source.clone().into()];
        values.extend(some.iter().map(|name| (*name).clone().into()));
        rows::execute(connection, "head", &text, values).await?;
    }
    let head = |moved: &MovedHead| head::Model {
        source_id: source.clone(),
        ref_name: moved.name.clone(),
        commit_id: moved.commit,
        moved_at: at.0,
        fault: moved.fault.clone(),
    };
    rows::insert(connection, "head", following.moved.iter().map(head).collect()).await?;
    if let Some(name) = &following.head_ref {
        let text = "update source set head_ref = $1 where id = $2";
        rows::execute(connection, "source", text, vec![name.clone().into(), source.clone().into()]).await?;
    }
    if let Some(moved_to) = &following.moved_to {
        let text = "update source set moved_to =
                      nullif($1, (select r.url from repository r where r.id = source.repository_id))
                    where id = $2";
        rows::execute(connection, "source", text, vec![moved_to.clone().into(), source.clone().into()])
            .await?;
    }
    if !following.moved.is_empty() || !following.gone.is_empty() {
        let text = "update source set last_change = $1 where id = $2";
        rows::execute(connection, "source", text, vec![at.0.into(), source.clone().into()]).await?;
    }
    let mut notes = Vec::new();
    for (cursor, branch, state) in &following.edits {
        // A branch that is gone waits at no change any more.
        let was = rounds::row(connection, cursor).await?;
        if was.state == CursorState::Blocked && *state != CursorState::Blocked {
            notes.push(told::recovered(connection, &was).await?);
        }
        // The reason of an earlier state does not apply to the new state.
        let text = "update cursor set branch = $1, reason = case when state = $2 then reason end, state = $2
                    where id = $3";
        let values = vec![branch.clone().into(), (*state).into(), cursor.clone().into()];
        rows::execute(connection, "cursor", text, values).await?;
        statuses::refresh(connection, context, cursor, None).await?;
    }
    ledger::write(connection, context, notes, at).await?;
    // After a restore from a backup, the app may have had such a branch already.
    let mut resyncs = BTreeMap::new();
    for (watch, _) in &following.births {
        if let Entry::Vacant(entry) = resyncs.entry(watch) {
            entry.insert(restored::is_older(connection, watch).await?.then_some(true));
        }
    }
    let born = following.births.iter().map(|(watch, name)| {
        let cursor = new_cursor(CursorId::new(context.random.ulid(at)), watch, name, start, at);
        cursor::Model { slot: name.clone(), resync: resyncs[watch], ..cursor }
    });
    rows::insert(connection, "cursor", born.collect()).await
}

/// A cursor that never moved: of a single branch (slot: empty).
pub(crate) fn new_cursor(
    id: CursorId,
    watch: &WatchId,
    branch: &str,
    start: Option<(ObjectId, ViewId)>,
    at: Timestamp,
) -> cursor::Model {
    cursor::Model {
        id,
        watch_id: watch.clone(),
        slot: String::new(),
        branch: branch.to_owned(),
        held: start.map(|(commit, _)| commit),
        held_view: start.map(|(_, view)| view),
        last_round: 0,
        open_round: None,
        state: CursorState::Active,
        reason: None,
        streak: 0,
        streak_round: None,
        streak_position: None,
        refused: 0,
        acknowledged: false,
        last_was_redrive: false,
        replay: None,
        replay_view: None,
        guard_waived: false,
        skip_round: None,
        skip_position: None,
        cancel_round: None,
        resync: None,
        deletes_unknown: false,
        behind_since: None,
        created_at: at.0,
    }
}

/// Stores for the cursors of a source since when their apps lack changes.
pub(crate) async fn note_lag(
    connection: &impl ConnectionTrait,
    source: &SourceId,
    at: Timestamp,
) -> Result<(), StoreError> {
    note_lag_of(connection, source, None, at).await
}

/// Stores the same for the cursors that were asked for.
async fn note_lag_of(
    connection: &impl ConnectionTrait,
    source: &SourceId,
    asked: Option<&Asked>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let all = || ("1 = 1".to_owned(), Vec::new());
    let (condition, own) = asked.map_or_else(all, |asked| asked.condition(3));
    let text = format!(
        "update cursor set behind_since = case when {OWES} then coalesce(c.behind_since, $1) else null end
         from cursor c join watch w on w.id = c.watch_id
         left join head h on h.source_id = w.source_id and h.ref_name = c.branch
         where cursor.id = c.id and w.source_id = $2 and {condition} and (c.behind_since is null) = {OWES}"
    );
    let mut values: Vec<Value> = vec![at.0.into(), source.clone().into()];
    values.extend(own);
    rows::execute(connection, "cursor", &text, values).await?;
    Ok(())
}
