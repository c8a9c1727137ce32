//! This store shows nothing at hosts.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    ports::{Reach, StatusClaims, StatusKey, StatusRoom, StatusStore, StatusVerdict, StoreError},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl StatusStore for MemoryStore {
    fn statuses_written(&self) -> watch::Receiver<u64> {
        self.statuses.subscribe()
    }

    async fn claim_statuses(
        &self,
        _reach: &Reach,
        _room: &StatusRoom,
        now: Timestamp,
        _until: Timestamp,
    ) -> Result<StatusClaims, StoreError> {
        self.meet("claim_statuses").await?;
        let next = self.state().next_status.filter(|next| *next > now);
        Ok(StatusClaims { tasks: Vec::new(), next })
    }

    async fn release_statuses(&self, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn note_status(
        &self,
        _key: &StatusKey,
        _verdict: &StatusVerdict,
        _at: Timestamp,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn sweep_statuses(&self, _at: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }
}
