//! A database that was restored from a backup: its apps may be ahead of it.
//!
//! A complete resync is requested for every cursor, which tells the app to drop files that are not named,
//! because the changes since the backup are unknown. The heads are forgotten, so that no app is brought back
//! to an old commit before its source was listed again. A branch that appears later, for a pattern that was
//! watched before, may have been delivered as well, and begins the same way.

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{Random, StoreError},
    time::Timestamp,
};
use tidings_entity::{cursor, id::WatchId};

use crate::{
    database::rows,
    ledger, tasks,
    watching::{statuses, watches::resync},
};

/// Shown at every cursor until its resync has begun.
const REASON: &str = "the database was restored from a backup";

/// Marks everything; how many cursors there are.
pub(crate) async fn mark(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    taken_at: Timestamp,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let cursors: Vec<cursor::Model> =
        rows::all(connection, "cursor", "select * from cursor order by id", vec![]).await?;
    let count = cursors.len() as u64;
    for cursor in cursors {
        resync::request(connection, random, cursor, true, Some(REASON.to_owned()), at).await?;
    }
    rows::execute(connection, "head", "delete from head", vec![]).await?;
    let text = "insert into restoration (restored_at, taken_at) values ($1, $2)";
    rows::execute(connection, "restoration", text, vec![at.0.into(), taken_at.0.into()]).await?;
    rows::execute(connection, "lease", "update lease set epoch = epoch + 1", vec![]).await?;
    ledger::restored(connection, random, taken_at, at).await?;
    statuses::doubt_all(connection, at).await?;
    tasks::of_restored(connection, random, at).await?;
    tasks::of_restored_schedules(connection, at).await?;
    Ok(count)
}

/// Whether a watch is older than the last restoration.
pub(crate) async fn is_older(connection: &impl ConnectionTrait, watch: &WatchId) -> Result<bool, StoreError> {
    let text = "select count(*) from watch where id = $1
                and created_at <= (select coalesce(max(restored_at), 0) from restoration)";
    Ok(rows::number(connection, "restoration", text, vec![watch.clone().into()]).await? > 0)
}
