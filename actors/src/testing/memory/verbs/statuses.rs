//! This store shows nothing at hosts.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    ports::{Reach, StatusKey, StatusRoom, StatusStore, StatusTask, StatusVerdict, StoreError},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl StatusStore for MemoryStore {
    fn statuses_written(&self) -> watch::Receiver<u64> {
        watch::Sender::default().subscribe()
    }

    async fn claim_statuses(
        &self,
        _reach: &Reach,
        _room: &StatusRoom,
        _now: Timestamp,
        _until: Timestamp,
    ) -> Result<Vec<StatusTask>, StoreError> {
        Ok(Vec::new())
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
