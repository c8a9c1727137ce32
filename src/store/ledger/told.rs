//! The notes about a cursor, a watch, a source or a sink for the ledger.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::{BreakerRow, Park, Settlement, SinkKey, StoreError};
use tidings_entity::{
    cursor,
    id::{AppId, CursorId, SinkId, WatchId},
    kind::{BreakerKind, EntryType},
    round,
};

use super::{Note, caller, commit, outside, write};
use crate::{Context, database::rows};

/// The app and the name of a watch, for texts of entries.
#[derive(FromQueryResult)]
struct Named {
    app_id: AppId,
    watch_id: WatchId,
    owner: String,
    name: String,
}

impl Named {
    async fn of_watch(connection: &impl ConnectionTrait, watch: &WatchId) -> Result<Self, StoreError> {
        let text = "select w.app_id, w.id as watch_id, w.owner, w.name from watch w where w.id = $1";
        let values = vec![watch.clone().into()];
        rows::one(connection, "watch", text, values).await?.ok_or(StoreError::NotFound)
    }

    async fn of_cursor(
        connection: &impl ConnectionTrait,
        cursor: &CursorId,
    ) -> Result<(Self, String), StoreError> {
        #[derive(FromQueryResult)]
        struct Branch {
            watch_id: WatchId,
            branch: String,
        }
        let text = "select watch_id, branch from cursor where id = $1";
        let values = vec![cursor.clone().into()];
        let found: Option<Branch> = rows::one(connection, "cursor", text, values).await?;
        let Branch { watch_id, branch } = found.ok_or(StoreError::NotFound)?;
        Ok((Self::of_watch(connection, &watch_id).await?, branch))
    }

    fn repository(&self) -> String {
        match &*self.owner {
            "" => self.name.clone(),
            owner => format!("{owner}/{}", self.name),
        }
    }
}

/// Writes an event with the present moment.
pub(crate) async fn now(
    connection: &impl ConnectionTrait,
    context: &Context,
    note: Note,
) -> Result<(), StoreError> {
    write(connection, context, vec![note], context.clock.now()).await
}

async fn of_cursor(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
    entry_type: EntryType,
) -> Result<Note, StoreError> {
    let named = Named::of_watch(connection, &cursor.watch_id).await?;
    let origin = match cursor.open_round {
        Some(round) => commit(&cursor.id, round),
        None => caller("git"),
    };
    let repository = named.repository();
    let note = Note::new(named.app_id, cursor.id.as_str(), entry_type, origin).of_watch(named.watch_id);
    Ok(note.with("repository", repository).with("branch", cursor.branch.clone()))
}

/// The entry for a blocked branch.
pub(crate) async fn blocked(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
    reason: Option<String>,
) -> Result<Note, StoreError> {
    Ok(of_cursor(connection, cursor, EntryType::WatchBlocked).await?.with("reason", reason))
}

/// A branch that was blocked moves again.
pub(crate) async fn recovered(
    connection: &impl ConnectionTrait,
    cursor: &cursor::Model,
) -> Result<Note, StoreError> {
    of_cursor(connection, cursor, EntryType::WatchRecovered).await
}

/// A watch was paused, or resumed.
pub(crate) async fn paused(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    entry_type: EntryType,
    reason: Option<&str>,
) -> Result<Note, StoreError> {
    let named = Named::of_watch(connection, watch).await?;
    let repository = named.repository();
    let note = Note::new(named.app_id, watch.as_str(), entry_type, caller("guard")).of_watch(named.watch_id);
    Ok(note.with("repository", repository).with("reason", reason))
}

/// Notes that changes of a round were parked, for each reason.
pub(crate) async fn parked(
    connection: &impl ConnectionTrait,
    settlement: &Settlement,
    parks: &[&Park],
) -> Result<Vec<Note>, StoreError> {
    if parks.is_empty() {
        return Ok(Vec::new());
    }
    let (cursor, round) = (&settlement.cursor, settlement.round);
    let (named, branch) = Named::of_cursor(connection, cursor).await?;
    let note = |park: &&Park| {
        let app = named.app_id.clone();
        let note = Note::new(app, cursor.as_str(), EntryType::LetterParked, commit(cursor, round));
        note.of_watch(named.watch_id.clone())
            .apart(format!(" {round} {}", park.reason))
            .with("repository", named.repository())
            .with("branch", branch.clone())
            .with("round", round)
            .with("reason", park.reason.as_str())
            .with("path", String::from_utf8_lossy(&park.change.path))
            .with("dead_letter_id", park.id.as_str())
            .with("http_status", park.status)
    };
    Ok(parks.iter().map(note).collect())
}

/// Records that a round began or ended, if a subscription of its app reads such entries.
pub(crate) async fn round(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: &round::Model,
    entry_type: EntryType,
) -> Result<Option<Note>, StoreError> {
    let text = "select count(*) from cursor c join watch w on w.id = c.watch_id
                join subscription s on s.app_id = w.app_id and s.reads_rounds
                where c.id = $1 and s.state <> 'expired'";
    if rows::number(connection, "subscription", text, vec![cursor.clone().into()]).await? == 0 {
        return Ok(None);
    }
    let (named, branch) = Named::of_cursor(connection, cursor).await?;
    let origin = commit(cursor, round.number);
    let note = Note::new(named.app_id.clone(), cursor.as_str(), entry_type, origin);
    let note = note
        .of_watch(named.watch_id.clone())
        .with("repository", named.repository())
        .with("branch", branch)
        .with("round", round.number)
        .with("kind", round.kind.as_str())
        .with("commit", round.target.map(|commit| commit.to_string()))
        .with("total", round.total);
    Ok(Some(note))
}

/// A sink was disabled, or is used again. The sink of a subscription is named by that subscription as well.
pub(crate) async fn sink_used(
    connection: &impl ConnectionTrait,
    app: &AppId,
    sink: Option<&SinkId>,
    entry_type: EntryType,
    reason: Option<&str>,
) -> Result<Note, StoreError> {
    #[derive(FromQueryResult)]
    struct Reader {
        name: String,
    }
    let subject = sink.map_or(app.as_str(), SinkId::as_str);
    let note = Note::new(app.clone(), subject, entry_type, caller("endpoint")).with("reason", reason);
    let Some(sink) = sink else { return Ok(note) };
    let text = "select name from subscription where sink_id = $1";
    let reader: Option<Reader> =
        rows::one(connection, "subscription", text, vec![sink.clone().into()]).await?;
    Ok(note.with("subscription", reader.map(|reader| reader.name)))
}

/// Notes that the sink of a delivery key was disabled because its receiver is gone.
pub(crate) async fn gone(
    connection: &impl ConnectionTrait,
    key: &SinkKey,
    reason: &str,
) -> Result<Note, StoreError> {
    sink_used(connection, &key.app, key.sink.as_ref(), EntryType::SinkDisabled, Some(reason)).await
}

#[derive(FromQueryResult)]
struct Watcher {
    app_id: AppId,
    url: String,
}

/// Notes that a breaker opened or closed; for a source in the ledger of every app that watches through it.
pub(crate) async fn breaker(
    connection: &impl ConnectionTrait,
    row: &BreakerRow,
) -> Result<Vec<Note>, StoreError> {
    let is_open = row.opened_at.is_some();
    let reason = is_open.then_some(&*row.last_error);
    match row.kind {
        BreakerKind::Endpoint => {
            let entry_type = if is_open { EntryType::SinkOpened } else { EntryType::SinkClosed };
            // A failing sink of a subscription is reported as `subscription.blocked`, which is sent to no
            // subscription: an entry of this type would cause a message to each failing sink.
            let text = "select a.id as app_id from app a where a.id = $1
                        union all select k.app_id from sink k where k.id = $1
                          and not exists (select 1 from subscription s where s.sink_id = k.id)";
            #[derive(FromQueryResult)]
            struct Owner {
                app_id: AppId,
            }
            let owner: Option<Owner> =
                rows::one(connection, "sink", text, vec![row.id.clone().into()]).await?;
            let note = |owner: Owner| {
                Note::new(owner.app_id, &row.id, entry_type, outside("endpoint")).with("reason", reason)
            };
            Ok(owner.map(note).into_iter().collect())
        }
        BreakerKind::Source => {
            let entry_type = if is_open { EntryType::SourceFailing } else { EntryType::SourceRecovered };
            let text = "select distinct w.app_id, r.url from watch w
                        join repository r on r.id = w.repository_id where w.source_id = $1";
            let watchers: Vec<Watcher> =
                rows::all(connection, "watch", text, vec![row.id.clone().into()]).await?;
            let note = |watcher: Watcher| {
                let note = Note::new(watcher.app_id, &row.id, entry_type, outside("git"));
                note.with("url", watcher.url).with("reason", reason)
            };
            Ok(watchers.into_iter().map(note).collect())
        }
    }
}
