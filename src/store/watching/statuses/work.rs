//! The calls of the status keeper: claims, their ends, and the removal of old statuses.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::secret::Secret,
    ports::{Reach, StatusKey, StatusRoom, StatusTask, StatusVerdict, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    commit_status,
    id::{CursorId, ObjectId, WatchId},
    kind::StatusWord,
};
use url::Url;

use super::{UNDECIDED, end, farewell, is_shown, put, refresh, row, write};
use crate::{
    Context,
    database::{error::undecodable, rows},
    leases::reach,
};

/// The rows that are read for one claim.
const LOOKED_AT: u64 = 512;
/// Finished statuses are kept for this time, so that no status is told twice: a day, in milliseconds.
const KEPT_MS: i64 = 86_400_000;
/// Statuses that no host accepted are given up after this time: 30 days, in milliseconds.
const GIVEN_UP_MS: i64 = 30 * 86_400_000;
/// Undecided statuses are checked again after this time: a minute, in milliseconds.
const LOOK_AGAIN_MS: i64 = 60_000;
/// How long a host may work on a request after its answer was given up, in milliseconds: a minute.
const DOUBT_MS: i64 = 60_000;
/// The rows that one sweep checks again.
const SWEPT: u64 = 100;
/// The rows of each kind that one sweep removes.
const REMOVED: u64 = 1_000;

/// A row that is due.
#[derive(FromQueryResult)]
pub(crate) struct Due {
    watch_id: WatchId,
    commit_id: ObjectId,
    host: String,
}

/// Due rows, as far as there is room: app by app, host by host.
pub(crate) async fn due(
    connection: &impl ConnectionTrait,
    within: &Reach,
    room: &StatusRoom,
    now: Timestamp,
) -> Result<Vec<Due>, StoreError> {
    let mut values: Vec<Value> =
        vec![now.0.into(), rows::signed(room.per_host).into(), rows::signed(LOOKED_AT).into()];
    let mine = mine(connection, within, &mut values);
    let text = format!(
        "with d as (select watch_id, commit_id, host, next_at,
           row_number() over (partition by host, app_id order by next_at, watch_id, commit_id) as turn
           from commit_status where next_at is not null and next_at <= $1 and {mine}),
         p as (select d.*, row_number() over (partition by host order by turn, next_at, watch_id, commit_id)
           as place from d)
         select watch_id, commit_id, host from p where place <= $2 order by place, next_at limit $3"
    );
    let mut found: Vec<Due> = rows::readable(connection, "commit_status", &text, values).await?;
    let mut room = room.clone();
    found.retain(|due| {
        let is_free = room.most > 0 && room.of(&due.host) > 0;
        if is_free {
            room.most -= 1;
            *room.busy.entry(due.host.clone()).or_default() += 1;
        }
        is_free
    });
    Ok(found)
}

/// The nearest moment after `now` at which a status is due.
pub(crate) async fn next(
    connection: &impl ConnectionTrait,
    within: &Reach,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut values: Vec<Value> = vec![now.0.into()];
    let mine = mine(connection, within, &mut values);
    let text = format!(
        "select next_at from commit_status where next_at is not null and next_at > $1 and {mine}
         order by next_at limit 1"
    );
    // Every moment lies after `now`; 0: there is none.
    let next = rows::number(connection, "commit_status", &text, values).await?;
    Ok(Some(Timestamp(next)).filter(|next| *next > now))
}

/// The condition on rows of the repositories in reach; its value comes after these.
fn mine(connection: &impl ConnectionTrait, within: &Reach, values: &mut Vec<Value>) -> String {
    match reach::within(connection, "repository_id", values.len() + 1, within) {
        None => "1 = 1".to_owned(),
        Some((condition, value)) => {
            values.push(value);
            condition
        }
    }
}

/// Claims rows, if they are still due.
pub(crate) async fn claim(
    connection: &impl ConnectionTrait,
    context: &Context,
    due: Vec<Due>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<StatusTask>, StoreError> {
    let mut claimed = Vec::with_capacity(due.len());
    for due in due {
        let Some(mut found) = row(connection, &due.watch_id, due.commit_id).await? else { continue };
        if found.next_at.is_none_or(|next_at| next_at > now.0) {
            continue;
        }
        if found.until_at.is_some_and(|until| until <= now.0) {
            farewell::give_up(connection, context, &found, farewell::OVER, None).await?;
            continue;
        }
        let credential = match found.until_at {
            Some(_) => farewell::kept(context, &found)?,
            None => farewell::credential(connection, context, &found.watch_id).await?,
        };
        let task = task(&found, credential)?;
        if found.is_claimed {
            // The process that claimed the row before is gone, and its request may be under way.
            found.doubt_until = Some(now.0 + DOUBT_MS);
        } else if found.doubt_until.is_some_and(|until| until <= now.0) {
            found.doubt_until = None;
        }
        // From here on it is unknown what the host shows.
        found.told = None;
        found.count += 1;
        found.next_at = Some(until.0);
        found.is_claimed = true;
        write(connection, found).await?;
        claimed.push(task);
    }
    Ok(claimed)
}

fn task(row: &commit_status::Model, credential: Option<Secret>) -> Result<StatusTask, StoreError> {
    Ok(StatusTask {
        key: StatusKey { watch: row.watch_id.clone(), commit: row.commit_id },
        app: row.app_id.clone(),
        repository: row.repository_id.clone(),
        kind: row.kind,
        host: row.host.clone(),
        url: Url::parse(&row.url).map_err(|error| undecodable("commit_status", error))?,
        credential,
        context: row.context.clone(),
        word: row.wanted,
        description: row.description.clone(),
        told: row.told,
        tries: u32::try_from(row.tries).unwrap_or(u32::MAX),
    })
}

/// Gives back the claims of a process that is gone.
pub(crate) async fn release(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), StoreError> {
    // Statuses that wait because their host asked for it go on waiting.
    let text = "update commit_status set next_at = $1, is_claimed = false, doubt_until = $2
                where next_at > $1 and is_claimed";
    let values = vec![now.0.into(), (now.0 + DOUBT_MS).into()];
    rows::execute(connection, "commit_status", text, values).await.map(drop)
}

/// Marks what hosts show as unknown: the database was restored from a backup.
pub(crate) async fn doubt_all(connection: &impl ConnectionTrait, at: Timestamp) -> Result<(), StoreError> {
    let text = "update commit_status set told = null, next_at = $1 where ended is null";
    rows::execute(connection, "commit_status", text, vec![at.0.into()]).await.map(drop)
}

/// Writes the result of a claim.
pub(crate) async fn note(
    connection: &impl ConnectionTrait,
    context: &Context,
    key: &StatusKey,
    verdict: StatusVerdict,
    at: Timestamp,
) -> Result<(), StoreError> {
    let Some(mut found) = row(connection, &key.watch, key.commit).await? else { return Ok(()) };
    found.next_at = None;
    found.is_claimed = false;
    found.updated_at = at.0;
    match verdict {
        StatusVerdict::Told(word, line) => {
            (found.told, found.told_line) = (Some(word), Some(line));
            found.tries = 0;
            recovered(connection, &found, at).await?;
        }
        StatusVerdict::Again { at: next, shows, is_doubtful } => {
            found.told = shows;
            found.tries += 1;
            found.count -= i64::from(!is_doubtful);
            if is_doubtful {
                found.doubt_until = Some(at.0 + DOUBT_MS);
            }
            found.next_at = Some(next.0);
            hold_back(connection, &found, next).await?;
        }
        StatusVerdict::Ended { reason, status, shows } => {
            found.told = shows;
            found.count -= 1;
            if found.until_at.is_some() {
                return farewell::give_up(connection, context, &found, &reason, status).await;
            }
            return end(connection, context, found, reason, status, at).await;
        }
    }
    if found.until_at.is_some() && found.doubt_until.is_none() && is_shown(&found) {
        return farewell::remove(connection, &found).await;
    }
    put(connection, context, found, at).await
}

/// Other statuses of the same app at the same host wait equally long, because they would fail the same way.
async fn hold_back(
    connection: &impl ConnectionTrait,
    row: &commit_status::Model,
    until: Timestamp,
) -> Result<(), StoreError> {
    let text = "update commit_status set next_at = $3 where next_at < $3 and host = $1 and app_id = $2";
    let values = vec![row.host.clone().into(), row.app_id.clone().into(), until.0.into()];
    rows::execute(connection, "commit_status", text, values).await.map(drop)
}

/// The host accepts statuses again after failures: those of the same app that wait, and are not claimed, are
/// told now.
async fn recovered(
    connection: &impl ConnectionTrait,
    row: &commit_status::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update commit_status set next_at = $3, tries = 0
                where next_at > $3 and host = $1 and app_id = $2 and tries > 0
                and not is_claimed";
    let values = vec![row.host.clone().into(), row.app_id.clone().into(), at.0.into()];
    rows::execute(connection, "commit_status", text, values).await.map(drop)
}

#[derive(FromQueryResult)]
struct Undecided {
    cursor_id: CursorId,
    watch_id: WatchId,
    commit_id: ObjectId,
}

/// Removes finished old statuses, and checks long undecided ones again. Returns whether there is more to do.
pub(crate) async fn sweep(
    connection: &impl ConnectionTrait,
    context: &Context,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let keys = |condition: &str| {
        format!(
            "delete from commit_status where (watch_id, commit_id) in
             (select watch_id, commit_id from commit_status where {condition} limit {REMOVED})"
        )
    };
    let mut removed = farewell::sweep(connection, context, at, REMOVED).await?;
    for (condition, age) in [
        (format!("updated_at < $1 and next_at is null and wanted not in {UNDECIDED}"), KEPT_MS),
        ("updated_at < $1 and ended is not null".to_owned(), KEPT_MS),
        ("updated_at < $1 and until_at is null".to_owned(), GIVEN_UP_MS),
    ] {
        let values = vec![(at.0 - age).into()];
        removed += rows::execute(connection, "commit_status", &keys(&condition), values).await?;
    }
    let text = format!(
        "select cursor_id, watch_id, commit_id from commit_status
         where updated_at < $1 and wanted in {UNDECIDED} and until_at is null and ended is null
         order by updated_at limit $2"
    );
    let values = vec![(at.0 - LOOK_AGAIN_MS).into(), rows::signed(SWEPT).into()];
    let old: Vec<Undecided> = rows::readable(connection, "commit_status", &text, values).await?;
    let swept = old.len() as u64;
    for Undecided { cursor_id, watch_id, commit_id } in old {
        refresh(connection, context, &cursor_id, None).await?;
        let Some(mut row) = row(connection, &watch_id, commit_id).await? else { continue };
        if row.updated_at < at.0 - LOOK_AGAIN_MS {
            // The cursor of the status was removed.
            (row.wanted, row.updated_at) = (StatusWord::Cancelled, at.0);
            "cancelled".clone_into(&mut row.description);
            put(connection, context, row, at).await?;
        }
    }
    Ok(removed >= REMOVED || swept >= SWEPT)
}
