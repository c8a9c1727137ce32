//! This store keeps no ledgers: nobody reads them.

use async_trait::async_trait;
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::sync::watch;

use crate::{
    ports::{Reach, SentFrom, StoreError, SubscriberStore, SubscriptionEvent, SubscriptionWork},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl SubscriberStore for MemoryStore {
    fn entries_written(&self) -> watch::Receiver<u64> {
        watch::Sender::default().subscribe()
    }

    async fn subscriptions_behind(
        &self,
        _reach: &Reach,
        _now: Timestamp,
    ) -> Result<Vec<(SubscriptionId, AppId)>, StoreError> {
        Ok(Vec::new())
    }

    async fn subscription_work(
        &self,
        _id: &SubscriptionId,
        _now: Timestamp,
        _limit: u64,
    ) -> Result<Option<SubscriptionWork>, StoreError> {
        Ok(None)
    }

    async fn note_subscription(
        &self,
        _id: &SubscriptionId,
        _from: SentFrom,
        _event: &SubscriptionEvent,
    ) -> Result<bool, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn expire_subscriptions(&self, _now: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}
