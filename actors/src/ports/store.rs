//! [`Store`]: all data that must survive a restart. Each method is one transaction; when it returns `Ok`, the
//! data is synced to disk.

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

use super::{ClaimStore, Fence, StatusStore};
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

/// No promise of [`AppStore::take_permits`] ends later than this after now, unless the clock was set back.
pub const PERMITS_AHEAD_MAX: Duration = Duration::from_secs(30);

/// The known facts about a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// SHA-256 of its content.
    pub sha256: Sha256Hash,
    /// The size of the content in bytes.
    pub size: u64,
    /// Whether the content is sent as text (valid UTF-8 without NUL).
    pub text: bool,
}

/// A breaker that is not closed, or has counted failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRow {
    /// Whether the breaker guards a source or an endpoint.
    pub kind: BreakerKind,
    /// The id of the source, of the app for its own sink, or of the sink of a watch or a subscription.
    pub id: String,
    /// Failures in a row.
    pub failures: u32,
    /// When the breaker opened; `None` while it is closed.
    pub opened_at: Option<Timestamp>,
    /// When the next probe is due.
    pub probe_at: Option<Timestamp>,
    /// The public text of the last failure.
    pub last_error: String,
}

/// Counts over the whole database, for the overview of the staff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// The number of registered apps.
    pub apps: u64,
    /// Apps that are disabled: nothing is sent to them.
    pub apps_disabled: u64,
    /// Sinks of watches and of subscriptions, callbacks left out, that are disabled: nothing is sent to them.
    pub sinks_disabled: u64,
    /// Repositories with a watch.
    pub repositories: u64,
    /// The number of watches, paused ones included.
    pub watches: u64,
    /// Cursors that are behind their head.
    pub behind: u64,
    /// Cursors that are blocked.
    pub blocked: u64,
    /// The number of open rounds.
    pub open_rounds: u64,
    /// The number of open dead letters.
    pub dead_letters: u64,
    /// Breakers that are open.
    pub open_breakers: u64,
    /// Subscriptions that are blocked.
    pub subscriptions_blocked: u64,
    /// Worker subscriptions that have not ended.
    pub worker_subscriptions: u64,
    /// Age of the oldest unsettled change in milliseconds.
    pub lag_ms: u64,
}

/// All data that must survive a restart, except keyed requests ([`RequestStore`]), which only the HTTP
/// handlers use.
pub trait Store:
    AppStore
    + WatchStore
    + SourceStore
    + LaneStore
    + LetterStore
    + HistoryStore
    + ReceiptStore
    + StatusStore
    + ClaimStore
    + SubscriberStore
    + UpkeepStore
{
    /// This store for work that was begun under a lease. Once another replica has the lease, a method that
    /// writes changes nothing and returns [`StoreError::Lost`].
    fn under(&self, fence: Fence) -> Arc<dyn Store>;
}
