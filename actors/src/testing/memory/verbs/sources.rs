//! Sources: repositories through a credential, and the heads of their refs.

use async_trait::async_trait;
use tidings_entity::id::{RepositoryId, SourceId};

use crate::{
    ports::{Moved, Reach, RefListing, Source, SourceStore, StoreError, Watch},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl SourceStore for MemoryStore {
    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        self.meet("repositories").await?;
        let state = self.state();
        let mine = state.repositories.keys().filter(|id| reach.covers(id));
        Ok(mine.map(|id| (id.clone(), state.sources_of(id))).collect())
    }

    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        self.meet("sources").await?;
        Ok(self.state().sources_of(repository))
    }

    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError> {
        self.meet("move_heads").await?;
        self.write_checked(|state| state.move_heads(&*self.random, source, listing, at))
    }

    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError> {
        self.meet("record_scan_error").await?;
        self.write(|state| {
            let source = state.sources.get_mut(source).ok_or(StoreError::NotFound)?;
            source.last_error = error.map(str::to_owned);
            Ok(())
        })
    }

    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError> {
        let state = self.state();
        let through = state.watches.values().filter(|watch| watch.source == *source);
        Ok(through.map(|watch| state.shown_watch(watch)).collect())
    }
}
