//! Messages to the sinks of subscriptions.

use tidings_entity::{
    id::{AppId, LedgerId, SubscriptionId},
    kind::EntryType,
};

use crate::{
    model::{codeq, round::DeliveryId},
    ports::{Digest, Gap, LedgerEntry, Subscription},
    time::Timestamp,
};

/// A message to the sink of a subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionMessage {
    /// The id of the message (`webhook-id`): that of the entry. A repeated attempt has the same id.
    pub id: DeliveryId,
    /// The app whose ledger the message is about.
    pub app: AppId,
    /// The subscription that the message is for.
    pub subscription: SubscriptionId,
    /// The name of the subscription.
    pub name: String,
    /// The entry, the gap or the test that the message reports.
    pub content: SubscriptionContent,
    /// The moment of the message.
    pub timestamp: Timestamp,
    /// Whether the end of a task is told in codeQ's form.
    pub is_codeq: bool,
}

/// The content of a message to the sink of a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionContent {
    /// An entry of the ledger.
    Entry(LedgerEntry),
    /// Entries were gone before they were sent.
    Gap(Gap),
    /// Several entries of the ledger; only for sinks that send mails.
    Digest(Digest),
    /// A test of the sink, asked for by a person.
    Test,
}

impl SubscriptionMessage {
    /// The entry about the end of a task, if this message tells it in codeQ's form.
    #[must_use]
    pub fn end_for_codeq(&self) -> Option<&LedgerEntry> {
        match &self.content {
            SubscriptionContent::Entry(entry)
                if self.is_codeq && entry.entry_type == EntryType::TaskEnded =>
            {
                Some(entry)
            }
            SubscriptionContent::Entry(_)
            | SubscriptionContent::Gap(_)
            | SubscriptionContent::Digest(_)
            | SubscriptionContent::Test => None,
        }
    }

    /// The message of an entry.
    #[must_use]
    pub fn of_entry(subscription: &Subscription, entry: LedgerEntry) -> Self {
        let (id, timestamp) = (DeliveryId::from_stored(entry.id.to_string()), entry.at);
        Self::of(subscription, id, SubscriptionContent::Entry(entry), timestamp)
    }

    /// The message about a gap in this ledger; every attempt to send it has the same id. A restore renames
    /// the ledger, so a gap of the same numbers after the restore has another id.
    #[must_use]
    pub fn of_gap(subscription: &Subscription, ledger: &LedgerId, gap: Gap, at: Timestamp) -> Self {
        let (of, ledger) = (subscription.id.ulid(), ledger.ulid());
        let id = format!("gap_{of}_{ledger}_{}_{}", gap.first, gap.last);
        Self::of(subscription, DeliveryId::from_stored(id), SubscriptionContent::Gap(gap), at)
    }

    /// The mail of a range of entries of this ledger.
    #[must_use]
    pub fn of_digest(subscription: &Subscription, ledger: &LedgerId, digest: Digest, at: Timestamp) -> Self {
        let id = digest.id(&subscription.id, ledger);
        Self::of(subscription, id, SubscriptionContent::Digest(digest), at)
    }

    /// A message that tests the sink of a subscription. Its id is derived from the app and `salt`.
    #[must_use]
    pub fn of_test(subscription: &Subscription, salt: &[u8], at: Timestamp) -> Self {
        let id = DeliveryId::of_test(&subscription.app, salt);
        Self::of(subscription, id, SubscriptionContent::Test, at)
    }

    fn of(
        subscription: &Subscription,
        id: DeliveryId,
        content: SubscriptionContent,
        timestamp: Timestamp,
    ) -> Self {
        let Subscription { id: of, app, name, callback, .. } = subscription;
        let is_codeq = callback.as_deref().is_some_and(codeq::is_meant);
        let (app, name) = (app.clone(), name.clone());
        Self { id, app, subscription: of.clone(), name, content, timestamp, is_codeq }
    }
}
