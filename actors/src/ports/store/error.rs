//! [`StoreError`]: why a call of the store failed, and whether the call changed anything. Every port that
//! stores data returns this error, so this file imports none of the ports.

use thiserror::Error;

/// The reason why a call of the store failed. Nothing was changed, except after [`StoreError::Unavailable`]:
/// then the outcome is unknown and the caller reads again before it decides.
#[derive(Debug, Error, Clone)]
pub enum StoreError {
    /// The database is locked, full, read-only, gone, or this process is stopping.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row holds something that this binary cannot read.
    #[error("a row of {table} cannot be read: {reason}")]
    Undecodable {
        /// The table that holds the row.
        table: &'static str,
        /// The fault of the row, in words.
        reason: String,
    },
    /// Another process took over the database: this process must stop.
    #[error("another process owns this work now")]
    Fenced,
    /// Another replica took over the shard under whose lease the work was begun: drop the work.
    #[error("another replica works on this repository now")]
    Lost,
    /// The thing does not exist, or does not exist any more.
    #[error("not found")]
    NotFound,
    /// The thing exists already, under this public id, and the call may not replace it.
    #[error("{0} exists already")]
    Exists(String),
    /// The present state does not allow the call; the text is public.
    #[error("{0}")]
    Conflict(String),
}
