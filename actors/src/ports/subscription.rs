//! Subscriptions: readers of an app's ledger. Each has a filter, a sink of its own and one position, which is
//! the number of the last entry that it is done with.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, SinkId, SubscriptionId},
    kind::SubscriptionState,
};

use super::{App, AttemptOutcome, LedgerEnds, LedgerEntry, NewSink, StoreError, WatchSink};
use crate::{filter::Filter, secret::Secret, time::Timestamp};

/// Most subscriptions of an app.
pub const SUBSCRIPTIONS_MAX: u64 = 100;

/// The sink of a subscription: both ids end in the same letters, so that whoever knows one knows the other.
#[must_use]
pub fn sink_of(subscription: &SubscriptionId) -> SinkId {
    SinkId::new(subscription.ulid())
}

/// The subscription that has this sink, if a subscription has it.
#[must_use]
pub fn subscription_of(sink: &SinkId) -> SubscriptionId {
    SubscriptionId::new(sink.ulid())
}

/// A subscription, without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The app whose ledger it reads.
    pub app: AppId,
    /// Its name, unique among those of the app.
    pub name: String,
    /// Which entries it wants, as the text of a filter; empty: all.
    pub filter: String,
    /// Whether the filter may mean entries about rounds.
    pub reads_rounds: bool,
    /// Where the entries go.
    pub sink: WatchSink,
    /// The number of the last entry that it is done with.
    pub position: i64,
    /// The number of the newest entry of the ledger; 0 where there is none.
    pub last: i64,
    /// Whether it is sent anything.
    pub state: SubscriptionState,
    /// Why it is blocked.
    pub reason: Option<String>,
    /// Failed tries of the next message.
    pub tries: u32,
    /// Entries that were skipped in a row.
    pub skips: u32,
    /// When the next message is tried again; `None`: at once.
    pub next_at: Option<Timestamp>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Subscription {
    /// How it stands now: one whose time is over has expired, whether or not anybody wrote that down.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> SubscriptionState {
        match self.expires_at {
            Some(at) if at <= now => SubscriptionState::Expired,
            _ => self.state,
        }
    }
}

/// Where a subscription begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the next entry that is written.
    Now,
    /// With the entry of this number.
    Number(i64),
}

/// A subscription to be made.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The app whose ledger it reads.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// The text of its filter.
    pub filter: String,
    /// Whether the filter may mean entries about rounds.
    pub reads_rounds: bool,
    /// Its sink, of the id that [`sink_of`] says.
    pub sink: NewSink,
    /// The first entry that is sent.
    pub start: ReadFrom,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When the subscription was made.
    pub created_at: Timestamp,
}

/// What is to be changed of a subscription; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionPatch {
    /// The new name; `None`: the name stays.
    pub name: Option<String>,
    /// The text of another filter, and whether it may mean entries about rounds.
    pub filter: Option<(String, bool)>,
    /// Another sink; the key that deliveries are signed with stays. It is served again.
    pub sink: Option<NewSink>,
    /// Where it goes on.
    pub start: Option<ReadFrom>,
    /// Another end, or none.
    pub expires_at: Option<Option<Timestamp>>,
    /// Whether it is held still, or goes on: then its next message is tried at once, and its sink is served
    /// again.
    pub is_paused: Option<bool>,
    /// Another key to sign with, and until when the one before signs beside it.
    pub key: Option<(Secret, Timestamp)>,
}

/// Which subscriptions are asked for.
#[derive(Clone, Debug)]
pub enum SubscriptionName {
    /// The one of this id.
    Id(SubscriptionId),
    /// The one of this name.
    Name(String),
}

/// One try to send one message of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionAttempt {
    /// The id of the message: that of its entry.
    pub message: String,
    /// The number of the entry.
    pub entry: i64,
    /// The moment of the entry.
    pub entry_at: Timestamp,
    /// Which try, from 1; the store counts.
    pub number: u32,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// Whether the answer was about this message, not about the endpoint.
    pub is_of_message: bool,
    /// When the try ended.
    pub at: Timestamp,
    /// When the same is tried again.
    pub next_at: Option<Timestamp>,
}

/// What the actor of a subscription works on, as of one moment.
#[derive(Clone, Debug)]
pub struct SubscriptionWork {
    /// The subscription as its row says.
    pub subscription: Subscription,
    /// The app as it is served at the sink of the subscription.
    pub app: App,
    /// The ledger; `None`: nothing was ever written there.
    pub ends: Option<LedgerEnds>,
    /// The next entries that it wants, in their order.
    pub entries: Vec<LedgerEntry>,
    /// Up to this number there are no others that it wants.
    pub to: i64,
}

/// Entries that were gone before they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number of the first of them.
    pub first: i64,
    /// The number of the last of them.
    pub last: i64,
}

/// What became of the next message of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum SubscriptionEvent {
    /// The filter means none of the entries up to this number.
    Passed {
        /// The number of the last entry that is passed over.
        to: i64,
    },
    /// The sink took the entry of this number.
    Sent {
        /// The number of the entry.
        number: i64,
        /// The try.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The sink was told of a gap.
    GapTold {
        /// What is missing.
        gap: Gap,
        /// The try.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The sink refused the message, which is passed over.
    Skipped {
        /// The number of the entry; of a gap that of its last entry.
        number: i64,
        /// Why, in a few words.
        reason: String,
        /// The try.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The message is tried again later.
    Failed {
        /// Why the subscription is blocked now, where it is.
        blocked: Option<String>,
        /// The try, which says when.
        attempt: Box<SubscriptionAttempt>,
    },
}

/// A list of subscriptions as the front door asks for it, and what it changes.
#[async_trait]
pub trait Subscriptions: Send + Sync + 'static {
    /// Makes one. A [`StoreError::Conflict`] where the name is taken or the app has [`SUBSCRIPTIONS_MAX`].
    async fn create_subscription(&self, new: &NewSubscription) -> Result<Subscription, StoreError>;
    /// One subscription of an app.
    async fn subscription(&self, app: &AppId, name: &SubscriptionName) -> Result<Subscription, StoreError>;
    /// Subscriptions of an app that a filter means, oldest first, after `after`, at most `limit`.
    async fn subscriptions(
        &self,
        app: &AppId,
        filter: Option<&Filter>,
        after: Option<&SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Subscription>, StoreError>;
    /// Changes one.
    async fn change_subscription(
        &self,
        app: &AppId,
        id: &SubscriptionId,
        patch: &SubscriptionPatch,
        now: Timestamp,
    ) -> Result<Subscription, StoreError>;
    /// Removes one, with its sink and its attempts.
    async fn remove_subscription(&self, app: &AppId, id: &SubscriptionId) -> Result<(), StoreError>;
    /// The tries of a subscription, newest first, those that ended before `before` (the moment and the number
    /// of the entry and of the try), at most `limit`.
    async fn subscription_attempts(
        &self,
        id: &SubscriptionId,
        entry: Option<i64>,
        before: Option<(Timestamp, i64, u32)>,
        limit: u64,
    ) -> Result<Vec<SubscriptionAttempt>, StoreError>;
    /// One entry that subscriptions may be sent; `None`: there is none of this number, or it is about
    /// sending.
    async fn sendable_entry(&self, app: &AppId, number: i64) -> Result<Option<LedgerEntry>, StoreError>;
    /// Remembers a try that somebody asked for; nothing else changes.
    async fn record_subscription_attempt(
        &self,
        id: &SubscriptionId,
        attempt: &SubscriptionAttempt,
    ) -> Result<(), StoreError>;
}
