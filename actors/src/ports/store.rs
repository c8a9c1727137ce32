//! [`Store`]: all data that must survive a restart. Each method is one transaction; when it returns `Ok`, the
//! data is synced to disk.

mod apps;
mod error;
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
use tidings_entity::id::Sha256Hash;
use tidings_entity::kind::BreakerKind;

pub use apps::AppStore;
pub use error::StoreError;
pub use history::HistoryStore;
pub use lanes::LaneStore;
pub use letters::LetterStore;
pub use receipts::ReceiptStore;
pub use requests::RequestStore;
pub use sources::SourceStore;
pub use subscribers::SubscriberStore;
pub use upkeep::UpkeepStore;
pub use watches::WatchStore;

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
