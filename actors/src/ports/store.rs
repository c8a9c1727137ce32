//! [`Store`]: everything that must survive. Each verb is one transaction; a verb that returned
//! `Ok` is synced to disk.

mod apps;
mod history;
mod lanes;
mod letters;
mod receipts;
mod requests;
mod sources;
mod subscribers;
mod upkeep;
mod watches;

use super::Fence;
use crate::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tidings_entity::id::Sha256Hash;
use tidings_entity::kind::BreakerKind;

pub use apps::AppStore;
pub use history::HistoryStore;
pub use lanes::LaneStore;
pub use letters::LetterStore;
pub use receipts::ReceiptStore;
pub use requests::RequestStore;
pub use sources::SourceStore;
pub use subscribers::SubscriberStore;
pub use upkeep::UpkeepStore;
pub use watches::WatchStore;

/// Why the store did not do it. Nothing was changed, except after [`StoreError::Unavailable`]:
/// then the outcome is unknown and the caller reads again before it decides.
#[derive(Debug, Error, Clone)]
pub enum StoreError {
    /// The database is locked, full, read-only, gone, or this process is stopping.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row holds something that this binary cannot read.
    #[error("a row of {table} cannot be read: {reason}")]
    Undecodable {
        /// The table.
        table: &'static str,
        /// The fault of the row, in words.
        reason: String,
    },
    /// Another process took over the work of this one: reload nothing, stop.
    #[error("another process owns this work now")]
    Fenced,
    /// Another replica took over the shard under whose lease this was begun: drop that work.
    #[error("another replica works on this repository now")]
    Lost,
    /// The thing does not exist (any more).
    #[error("not found")]
    NotFound,
    /// The state does not allow it; the text is public.
    #[error("{0}")]
    Conflict(String),
}

/// No honest promise of [`AppStore::take_permits`] ends later than so long after now.
pub const PERMITS_AHEAD_MAX: Duration = Duration::from_secs(30);

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// SHA-256 of its content.
    pub sha256: Sha256Hash,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it goes as text (valid UTF-8 without NUL).
    pub text: bool,
}

/// A breaker that is not closed, or has counted failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRow {
    /// What it guards.
    pub kind: BreakerKind,
    /// The id of the source, of the app for its own sink, or of a sink that a watch has for itself.
    pub id: String,
    /// Failures in a row.
    pub failures: u32,
    /// When it opened; `None` while it is closed.
    pub opened_at: Option<Timestamp>,
    /// When the next probe is due.
    pub probe_at: Option<Timestamp>,
    /// The public text of the last failure.
    pub last_error: String,
}

/// Numbers for the overview.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Registered apps.
    pub apps: u64,
    /// Apps that are disabled: nothing is sent to them.
    pub apps_disabled: u64,
    /// Repositories with a watch.
    pub repositories: u64,
    /// Watches.
    pub watches: u64,
    /// Cursors that are behind their head.
    pub behind: u64,
    /// Cursors that are blocked.
    pub blocked: u64,
    /// Open rounds.
    pub open_rounds: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Breakers that are open.
    pub open_breakers: u64,
    /// Age of the oldest unsettled change in milliseconds.
    pub lag_ms: u64,
}

/// Everything that must survive, but for keyed requests ([`RequestStore`]), which only the front door knows.
pub trait Store:
    AppStore
    + WatchStore
    + SourceStore
    + LaneStore
    + LetterStore
    + HistoryStore
    + ReceiptStore
    + SubscriberStore
    + UpkeepStore
{
    /// This store for work that was begun under a lease: once that does not stand any more, a verb
    /// that writes changes nothing and is a [`StoreError::Lost`].
    fn under(&self, fence: Fence) -> Arc<dyn Store>;
}
