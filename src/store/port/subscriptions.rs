//! Subscriptions, for the HTTP handlers and for their actors.

use async_trait::async_trait;
use tidings_actors::{
    model::filter::Filter,
    ports::{
        LedgerEntry, LedgerFilter, NewSubscription, Reach, SentFrom, StoreError, SubscriberStore,
        Subscription, SubscriptionAttempt, SubscriptionEvent, SubscriptionName, SubscriptionPatch,
        SubscriptionWork, Subscriptions,
    },
    time::Timestamp,
};
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::sync::watch;

use super::transact;
use crate::{
    SqlStore,
    ledger::{
        self,
        subscriptions::{self, attempts, mails, work},
    },
};

#[async_trait]
impl Subscriptions for SqlStore {
    async fn create_subscription(&self, new: &NewSubscription) -> Result<Subscription, StoreError> {
        let new = new.clone();
        transact!(self, |transaction, context| subscriptions::create(transaction, context, new).await)
    }

    async fn subscription(&self, app: &AppId, name: &SubscriptionName) -> Result<Subscription, StoreError> {
        subscriptions::find(&self.readers, app, name).await
    }

    async fn subscriptions(
        &self,
        app: &AppId,
        filter: Option<&Filter>,
        after: Option<&SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Subscription>, StoreError> {
        subscriptions::list(&self.readers, app, filter, after, limit).await
    }

    async fn change_subscription(
        &self,
        app: &AppId,
        id: &SubscriptionId,
        patch: &SubscriptionPatch,
        now: Timestamp,
    ) -> Result<Subscription, StoreError> {
        let (app, id, patch) = (app.clone(), id.clone(), patch.clone());
        transact!(self, |transaction, context| {
            subscriptions::change(transaction, context, &app, &id, patch, now).await
        })
    }

    async fn remove_subscription(&self, app: &AppId, id: &SubscriptionId) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction| subscriptions::remove(transaction, &app, &id).await)
    }

    async fn subscription_attempts(
        &self,
        id: &SubscriptionId,
        entry: Option<i64>,
        before: Option<(Timestamp, i64, u32)>,
        limit: u64,
    ) -> Result<Vec<SubscriptionAttempt>, StoreError> {
        attempts::list(&self.readers, id, entry, before, limit).await
    }

    async fn sendable_entry(&self, app: &AppId, number: i64) -> Result<Option<LedgerEntry>, StoreError> {
        let filter = LedgerFilter { is_for_sending: true, ..LedgerFilter::default() };
        let found = ledger::between(&self.readers, app, &filter, (number - 1, number), 0, 1).await?;
        Ok(found.found.into_iter().next())
    }

    async fn record_subscription_attempt(
        &self,
        id: &SubscriptionId,
        attempt: &SubscriptionAttempt,
    ) -> Result<(), StoreError> {
        let (id, attempt) = (id.clone(), attempt.clone());
        transact!(self, |transaction, context| {
            mails::record_by_hand(transaction, context, &id, &attempt).await
        })
    }
}

#[async_trait]
impl SubscriberStore for SqlStore {
    fn entries_written(&self) -> watch::Receiver<u64> {
        self.context.news.listen()
    }

    async fn subscriptions_behind(
        &self,
        reach: &Reach,
        now: Timestamp,
    ) -> Result<Vec<(SubscriptionId, AppId)>, StoreError> {
        work::behind(&self.readers, reach, now).await
    }

    async fn subscription_work(
        &self,
        id: &SubscriptionId,
        now: Timestamp,
        limit: u64,
    ) -> Result<Option<SubscriptionWork>, StoreError> {
        let Some(app) = subscriptions::app_of(&self.readers, id).await? else { return Ok(None) };
        let _turn = self.followers.turn(Some(&app)).await;
        work::read(&self.snapshot().await?, &self.context, id, now, limit).await
    }

    async fn note_subscription(
        &self,
        id: &SubscriptionId,
        from: SentFrom,
        event: &SubscriptionEvent,
    ) -> Result<bool, StoreError> {
        let (id, event) = (id.clone(), event.clone());
        transact!(self, |transaction, context| work::note(transaction, context, &id, from, event).await)
    }

    async fn expire_subscriptions(&self, now: Timestamp) -> Result<u64, StoreError> {
        transact!(self, |transaction| work::expire(transaction, now).await)
    }
}
