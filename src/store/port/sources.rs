//! Sources: repositories through a credential, and the heads of their refs.

use async_trait::async_trait;
use tidings_actors::{
    model::follow::{Following, Scope, follow},
    ports::{Moved, Reach, RefListing, Source, SourceStore, StoreError, Watch},
    time::Timestamp,
};
use tidings_entity::id::{RepositoryId, SourceId};

use super::transact;
use crate::{
    SqlStore,
    watching::{
        sources::{self, heads, known},
        watches,
    },
};

#[async_trait]
impl SourceStore for SqlStore {
    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        sources::list(&self.snapshot().await?, &self.context, reach).await
    }

    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        sources::of(&self.snapshot().await?, &self.context, repository).await
    }

    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError> {
        // Most polls find no change: they end here, with one statement and no transaction.
        let asked = known::Asked::of(listing);
        let known = known::known_of(&self.readers, source, asked.as_ref()).await?;
        let following = follow(&known, listing, Scope::Source, at);
        if following.is_empty() {
            let Following { absent, left_out, .. } = following;
            return Ok(Moved { changed: false, absent, left_out, cursors: known.waiting() });
        }
        let (source, listing) = (source.clone(), listing.clone());
        transact!(self, |transaction, context| {
            heads::move_heads(transaction, context, &source, &listing, at).await
        })
    }

    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError> {
        if sources::has_error(&self.readers, source, error).await? {
            return Ok(());
        }
        let (source, error) = (source.clone(), error.map(str::to_owned));
        transact!(self, |transaction, _context| sources::record_error(transaction, source, error).await)
    }

    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError> {
        let values = vec![source.clone().into()];
        watches::list(&self.snapshot().await?, "w.source_id = $1", values, u64::MAX).await
    }
}
