//! Worker subscriptions, for the HTTP handlers.

use std::time::Duration;

use async_trait::async_trait;
use tidings_actors::ports::{StoreError, WorkerSubscription, WorkerSubscriptions};
use tidings_entity::id::{AppId, WorkerSubscriptionId};

use super::transact;
use crate::{SqlStore, tasks::worker_subscriptions};

#[async_trait]
impl WorkerSubscriptions for SqlStore {
    async fn create_worker_subscription(&self, new: &WorkerSubscription) -> Result<bool, StoreError> {
        let new = new.clone();
        transact!(self, |transaction, context| {
            worker_subscriptions::create(transaction, &new, context.clock.now()).await
        })
    }

    async fn worker_subscriptions(
        &self,
        app: &AppId,
        after: Option<&WorkerSubscriptionId>,
        limit: u64,
    ) -> Result<Vec<WorkerSubscription>, StoreError> {
        worker_subscriptions::list(&self.readers, app, after, limit, self.context.clock.now()).await
    }

    async fn worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
    ) -> Result<WorkerSubscription, StoreError> {
        worker_subscriptions::find(&self.readers, app, id, self.context.clock.now()).await
    }

    async fn extend_worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
        ttl: Option<Duration>,
    ) -> Result<WorkerSubscription, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction, context| {
            worker_subscriptions::extend(transaction, &app, &id, ttl, context.clock.now()).await
        })
    }

    async fn remove_worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
    ) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction, context| {
            worker_subscriptions::remove(transaction, &app, &id, context.clock.now()).await
        })
    }
}
