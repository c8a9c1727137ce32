//! Sources: repositories through a credential, and the heads of their refs.

use async_trait::async_trait;
use tidings_entity::id::{RepositoryId, SourceId};

use crate::{
    ports::{Moved, Reach, RefListing, Source, StoreError, Watch},
    time::Timestamp,
};

/// Sources and their heads.
#[async_trait]
pub trait SourceStore: Send + Sync + 'static {
    /// Every repository of these shards with its sources (bulk, at start).
    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError>;
    /// The sources of one repository; empty when nothing watches it any more.
    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError>;
    /// Writes the differences between a listing and the rows: moves heads, follows a renamed default branch,
    /// marks and unmarks missing branches and empty repositories. An equal listing writes nothing.
    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError>;
    /// Stores (or with `None` removes) the error of a source's last scan.
    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError>;
    /// The watches that see through a source, for notices.
    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError>;
}
