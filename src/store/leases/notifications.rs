//! Notifications among the replicas that share a PostgreSQL database: the sender and the signal, and the
//! database's clock.

use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use tidings_actors::ports::{Signal, StoreError};
use tidings_entity::id::ReplicaId;

use crate::database::rows;

/// The database's clock in unix milliseconds: not of when a transaction began, which may have waited.
pub(crate) const NOW: &str = "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
/// The channel of notifications.
pub(crate) const CHANNEL: &str = "tidings";

/// The payload of a notification, as JSON.
#[derive(Serialize, Deserialize)]
struct Notification {
    by: ReplicaId,
    signal: Signal,
}

/// Notifies every other replica; inside a transaction, when it commits.
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

/// The signal of another replica; `None` for a signal of the replica `id` itself.
pub(crate) fn understood(text: &str, id: &ReplicaId) -> Option<Signal> {
    // A signal of a newer version that this one does not know: everything is read again.
    let Ok(told) = serde_json::from_str::<Notification>(text) else { return Some(Signal::Missed) };
    (told.by != *id).then_some(told.signal)
}
