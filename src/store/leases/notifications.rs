//! Notifications among the replicas that share a PostgreSQL database: who tells what, and the database's
//! clock.

use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use tidings_actors::ports::{Signal, StoreError};
use tidings_entity::id::ReplicaId;

use crate::rows;

/// The database's clock in unix milliseconds: not of when a transaction began, which may have waited.
pub(crate) const NOW: &str = "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
/// What notifications are sent under.
pub(crate) const CHANNEL: &str = "tidings";

/// What is sent.
#[derive(Serialize, Deserialize)]
struct Notification {
    by: ReplicaId,
    signal: Signal,
}

/// Tells every replica but this one; as a part of a transaction, when that is committed.
pub(crate) async fn notify(
    connection: &impl ConnectionTrait,
    by: &ReplicaId,
    signal: Signal,
) -> Result<(), StoreError> {
    let told = Notification { by: by.clone(), signal };
    let text = serde_json::to_string(&told).map_err(|error| StoreError::Conflict(error.to_string()))?;
    let values = vec![CHANNEL.into(), text.into()];
    rows::execute(connection, "lease", "select pg_notify($1, $2)", values).await.map(drop)
}

/// What another replica told; `None` for what the replica `id` told itself.
pub(crate) fn understood(text: &str, id: &ReplicaId) -> Option<Signal> {
    // One of a newer version says what this one does not know: it looks at everything.
    let Ok(told) = serde_json::from_str::<Notification>(text) else { return Some(Signal::Missed) };
    (told.by != *id).then_some(told.signal)
}
