//! A watch is removed while its host shows an undecided state: the host is told the end after the rows of the
//! watch are removed. The status row keeps a copy of the credential for [`FAREWELL_MS`], sealed, and is
//! removed as soon as the host accepted the status or the time is over.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{model::secret::Secret, ports::StoreError, time::Timestamp};
use tidings_entity::{
    commit_status,
    id::{AppId, CredentialId, ObjectId, WatchId},
    kind::StatusWord,
};
use tidings_secrets::SealedField;

use super::{Spot, is_shown, is_undecided, is_unheard, tell_end, write};
use crate::{
    Context,
    database::{error::undecodable, rows},
    watching::sources,
};

/// How long a host is told the end of a removed watch: 15 minutes, in milliseconds.
pub(super) const FAREWELL_MS: i64 = 900_000;
/// The reason why the host is told nothing more after that time.
pub(super) const OVER: &str = "the watch is gone, and the host took no word of that for 15 minutes";

/// Before a watch is removed.
pub(crate) async fn of_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "select * from commit_status where watch_id = $1 order by commit_id";
    let left: Vec<commit_status::Model> =
        rows::all(connection, "commit_status", text, vec![watch.clone().into()]).await?;
    if left.is_empty() {
        return Ok(());
    }
    let credential = credential(connection, context, watch).await?;
    for row in left {
        leave(connection, context, row, credential.as_ref(), at).await?;
    }
    Ok(())
}

/// Before the watches of an app are removed.
pub(crate) async fn of_app(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    at: Timestamp,
) -> Result<(), StoreError> {
    #[derive(FromQueryResult)]
    struct Shown {
        watch_id: WatchId,
    }
    let text = "select distinct w.id as watch_id from watch w
                join commit_status c on c.watch_id = w.id where w.app_id = $1 order by w.id";
    let shown: Vec<Shown> = rows::all(connection, "watch", text, vec![app.clone().into()]).await?;
    for Shown { watch_id } in shown {
        of_watch(connection, context, &watch_id, at).await?;
    }
    Ok(())
}

async fn leave(
    connection: &impl ConnectionTrait,
    context: &Context,
    mut row: commit_status::Model,
    credential: Option<&Secret>,
    at: Timestamp,
) -> Result<(), StoreError> {
    if is_undecided(row.wanted) {
        row.wanted = StatusWord::Cancelled;
        row.description = "no longer watched".to_owned();
    }
    let is_shown = row.doubt_until.is_none() && is_shown(&row);
    let is_over = is_shown || is_unheard(&row) || row.ended.is_some();
    let Some(credential) = credential.filter(|_| !is_over) else {
        return remove(connection, &row).await;
    };
    let name = name(&row);
    row.secret = Some(context.keyring.seal(&place(&name), credential, &*context.random));
    row.until_at = Some(at.0 + FAREWELL_MS);
    row.next_at = row.next_at.filter(|next| Some(*next) != row.doubt_until).or(Some(at.0));
    row.updated_at = at.0;
    context.statuses.mark();
    write(connection, row).await
}

/// A new watch shows a status for the same commit under the same name: the final status of the old watch is
/// not needed. Returns when a request under way for it ends, until when a request without an answer may
/// still be under way, and the number of such statuses.
pub(super) async fn replaced(
    connection: &impl ConnectionTrait,
    spot: &Spot,
    name: &str,
    commit: ObjectId,
) -> Result<(Option<i64>, Option<i64>, i64), StoreError> {
    let text = "select * from commit_status where commit_id = $1 and context = $2 and url = $3
                and until_at is not null";
    let values = vec![commit.into(), name.into(), spot.url.clone().into()];
    let before: Vec<commit_status::Model> = rows::all(connection, "commit_status", text, values).await?;
    for row in &before {
        remove(connection, row).await?;
    }
    let under_way = before.iter().filter(|row| row.next_at != row.doubt_until);
    let next_at = under_way.filter_map(|row| row.next_at).max();
    let doubt_until = before.iter().filter_map(|row| row.doubt_until).max();
    Ok((next_at, doubt_until, before.iter().map(|row| row.count).sum()))
}

/// Gives up telling the host the end of the watch: the app is told which state the host may go on showing.
pub(super) async fn give_up(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &commit_status::Model,
    reason: &str,
    status: Option<u16>,
) -> Result<(), StoreError> {
    tell_end(connection, context, row, reason, status).await?;
    remove(connection, row).await
}

/// The last statuses of removed watches whose time is over.
pub(crate) const OVERDUE: &str = "select * from commit_status where until_at < $1 order by until_at limit $2";

/// Gives up statuses that no host accepted within [`FAREWELL_MS`]. Returns their number.
pub(super) async fn sweep(
    connection: &impl ConnectionTrait,
    context: &Context,
    at: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    let values = vec![at.0.into(), rows::signed(limit).into()];
    let over: Vec<commit_status::Model> = rows::all(connection, "commit_status", OVERDUE, values).await?;
    for row in &over {
        give_up(connection, context, row, OVER, None).await?;
    }
    Ok(over.len() as u64)
}

pub(super) async fn remove(
    connection: &impl ConnectionTrait,
    row: &commit_status::Model,
) -> Result<(), StoreError> {
    let text = "delete from commit_status where watch_id = $1 and commit_id = $2";
    let values = vec![row.watch_id.clone().into(), row.commit_id.into()];
    rows::execute(connection, "commit_status", text, values).await.map(drop)
}

/// The credential of a watch's source; `None`: the watch was removed, or has no credential.
pub(super) async fn credential(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<Option<Secret>, StoreError> {
    #[derive(FromQueryResult)]
    struct Sealed {
        id: CredentialId,
        secret: Vec<u8>,
    }
    let text = "select k.id, k.secret from watch w join source s on s.id = w.source_id
                join credential k on k.id = s.credential_id where w.id = $1";
    let found: Option<Sealed> = rows::one(connection, "credential", text, vec![watch.clone().into()]).await?;
    found.map(|found| sources::opened(context, &found.id, &found.secret)).transpose()
}

/// The credential that the status row itself keeps.
pub(super) fn kept(context: &Context, row: &commit_status::Model) -> Result<Option<Secret>, StoreError> {
    let Some(sealed) = &row.secret else { return Ok(None) };
    let name = name(row);
    let opened = context.keyring.open_sealed(&place(&name), sealed);
    opened.map(Some).map_err(|error| undecodable("commit_status", error))
}

fn name(row: &commit_status::Model) -> String {
    format!("{}/{}", row.watch_id, row.commit_id)
}

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "commit_status", column: "secret", row }
}
