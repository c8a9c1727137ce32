//! What the actors of subscriptions ask the store for.

use async_trait::async_trait;
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::sync::watch;

use crate::{
    ports::{Reach, StoreError, SubscriptionEvent, SubscriptionWork},
    time::Timestamp,
};

/// Reading ledgers for those who are sent their entries.
#[async_trait]
pub trait SubscriberStore: Send + Sync + 'static {
    /// Changes after each transaction of this process that wrote entries, once it is on disk.
    fn entries_written(&self) -> watch::Receiver<u64>;
    /// The subscriptions of apps within reach for which entries wait, and nothing keeps them: they are not
    /// paused, their sinks are served, and no wait of theirs is going on.
    async fn subscriptions_behind(
        &self,
        reach: &Reach,
        now: Timestamp,
    ) -> Result<Vec<(SubscriptionId, AppId)>, StoreError>;
    /// What is to be done for a subscription, with at most `limit` entries; `None`: it is gone.
    async fn subscription_work(
        &self,
        id: &SubscriptionId,
        now: Timestamp,
        limit: u64,
    ) -> Result<Option<SubscriptionWork>, StoreError>;
    /// Writes what became of the next message, with the try. The position rises from `from` only: `false` if
    /// somebody moved it meanwhile, and then only the try is remembered.
    async fn note_subscription(
        &self,
        id: &SubscriptionId,
        from: i64,
        event: &SubscriptionEvent,
    ) -> Result<bool, StoreError>;
    /// Writes down which subscriptions ended by themselves. How many.
    async fn expire_subscriptions(&self, now: Timestamp) -> Result<u64, StoreError>;
}
