//! The calls of the actors of subscriptions to the store.

use async_trait::async_trait;
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::sync::watch;

use crate::{
    ports::{Reach, SentFrom, StoreError, SubscriptionEvent, SubscriptionWork},
    time::Timestamp,
};

/// Reads ledgers, to send their entries to subscriptions.
#[async_trait]
pub trait SubscriberStore: Send + Sync + 'static {
    /// Changes after each transaction of this process that wrote entries, once it is on disk.
    fn entries_written(&self) -> watch::Receiver<u64>;
    /// The subscriptions of apps within reach that have entries to send now: they are not paused, their sinks
    /// are served, and they do not wait for a moment.
    async fn subscriptions_behind(
        &self,
        reach: &Reach,
        now: Timestamp,
    ) -> Result<Vec<(SubscriptionId, AppId)>, StoreError>;
    /// The work of a subscription, with at most `limit` entries; `None`: the subscription was removed.
    async fn subscription_work(
        &self,
        id: &SubscriptionId,
        now: Timestamp,
        limit: u64,
    ) -> Result<Option<SubscriptionWork>, StoreError>;
    /// Writes the outcome of the next message, with the attempt. `false`: only the attempt was written,
    /// because the position was moved meanwhile, or because the sink got a new address and the message to the
    /// old address was not accepted.
    async fn note_subscription(
        &self,
        id: &SubscriptionId,
        from: SentFrom,
        event: &SubscriptionEvent,
    ) -> Result<bool, StoreError>;
    /// Writes down which subscriptions ended by themselves. How many.
    async fn expire_subscriptions(&self, now: Timestamp) -> Result<u64, StoreError>;
}
