//! Subscriptions: readers of an app's ledger. Each has a filter, its own sink and one position: the number of
//! the last entry that is sent or passed over.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, SinkId, SubscriptionId},
    kind::SubscriptionState,
};

use crate::{
    model::{filter::Filter, secret::Secret},
    ports::{
        App, AttemptOutcome, LedgerEnds, LedgerEntry, MailRange, NewSink, RefusedRecipient, StoreError,
        WatchSink,
    },
    time::Timestamp,
};

/// Most subscriptions of an app, without callbacks.
pub const SUBSCRIPTIONS_MAX: u64 = 100;
/// Most addresses that the callbacks of an app's tasks go to.
pub const CALLBACKS_MAX: u64 = 100;
/// A callback without open tasks and entries is removed after this time since its last entry.
pub const CALLBACK_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// The id of a subscription's sink: both ids end with the same ULID.
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
    /// Id of the subscription, `sub_` and a ULID.
    pub id: SubscriptionId,
    /// The app whose ledger the subscription reads.
    pub app: AppId,
    /// The name of the subscription, unique within the app.
    pub name: String,
    /// The filter that selects entries, as text; empty: all entries.
    pub filter: String,
    /// Whether the filter may mean entries about rounds.
    pub reads_rounds: bool,
    /// The sink that the entries are sent to.
    pub sink: WatchSink,
    /// The number of the last entry that is sent or passed over.
    pub position: i64,
    /// The number of the newest entry of the ledger, of a callback of the newest entry for it; 0 where there
    /// is none.
    pub last: i64,
    /// Whether messages are sent to the subscription, or why not.
    pub state: SubscriptionState,
    /// The reason for the block.
    pub reason: Option<String>,
    /// Failed tries of the next message.
    pub tries: u32,
    /// Entries that were skipped in a row.
    pub skips: u32,
    /// When the next message is tried again; `None`: at once.
    pub next_at: Option<Timestamp>,
    /// The entries of the mail that is being sent; `None`: no mail is being sent.
    pub mail: Option<MailRange>,
    /// No mail is sent before this moment; `None`: the next mail may be sent at once.
    pub quiet_until: Option<Timestamp>,
    /// When the subscription ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When the subscription was created.
    pub created_at: Timestamp,
    /// The address in `webhook` of the tasks that made the subscription, which is sent the ends of these
    /// tasks and nothing else; `None`: a person made it.
    pub callback: Option<String>,
}

impl Subscription {
    /// The state at `now`: a subscription whose end has passed is expired, also if its row does not say so
    /// yet. A pause outlives the end, so that only a person resumes what a person paused.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> SubscriptionState {
        match self.expires_at {
            Some(at) if at <= now && self.state != SubscriptionState::Paused => SubscriptionState::Expired,
            _ => self.state,
        }
    }
}

/// Where a subscription begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Begins with the next entry that is written.
    Now,
    /// Begins with the entry of this number.
    Number(i64),
}

/// A subscription to create.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Id of the subscription, `sub_` and a ULID.
    pub id: SubscriptionId,
    /// The app whose ledger the subscription reads.
    pub app: AppId,
    /// The name, unique among the subscriptions of the app.
    pub name: String,
    /// The text of its filter.
    pub filter: String,
    /// Whether the filter may mean entries about rounds.
    pub reads_rounds: bool,
    /// The sink of the subscription, with the id that [`sink_of`] gives.
    pub sink: NewSink,
    /// The first entry that is sent.
    pub start: ReadFrom,
    /// When the subscription ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When the subscription was made.
    pub created_at: Timestamp,
}

/// A change of a subscription; a field that is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionPatch {
    /// The new name; `None`: the name stays.
    pub name: Option<String>,
    /// The text of another filter, and whether it may mean entries about rounds.
    pub filter: Option<(String, bool)>,
    /// A new sink, which is served at once; the signing key stays.
    pub sink: Option<NewSink>,
    /// The entry that the subscription continues with; `None`: its position stays.
    pub start: Option<ReadFrom>,
    /// A new end, or (`Some(None)`) no end.
    pub expires_at: Option<Option<Timestamp>>,
    /// Whether the subscription is paused (`true`) or resumed (`false`: its next message is tried at once,
    /// and its sink is enabled); `None`: neither.
    pub is_paused: Option<bool>,
    /// A new signing key, and the moment until which the previous key signs as well.
    pub key: Option<(Secret, Timestamp)>,
}

/// Selects one subscription of an app.
#[derive(Clone, Debug)]
pub enum SubscriptionName {
    /// The subscription of this id.
    Id(SubscriptionId),
    /// The subscription of this name.
    Name(String),
}

/// One attempt to send one message of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionAttempt {
    /// The id of the message, which is the id of its entry.
    pub message: String,
    /// The number of the entry.
    pub entry: i64,
    /// The moment of the entry.
    pub entry_at: Timestamp,
    /// The number of the attempt, from 1; the store counts.
    pub number: u32,
    /// The outcome of the attempt.
    pub outcome: AttemptOutcome,
    /// Whether the answer was about this message, not about the endpoint.
    pub is_of_message: bool,
    /// When the attempt ended.
    pub at: Timestamp,
    /// When the same is tried again.
    pub next_at: Option<Timestamp>,
}

/// The data that the actor of a subscription works on, as of one moment.
#[derive(Clone, Debug)]
pub struct SubscriptionWork {
    /// The subscription as its row says.
    pub subscription: Subscription,
    /// The app as it is served at the sink of the subscription.
    pub app: App,
    /// The first and last number of the ledger; `None`: the ledger never had an entry.
    pub ends: Option<LedgerEnds>,
    /// The next entries that match the filter, in their order.
    pub entries: Vec<LedgerEntry>,
    /// Up to this number, no entry other than `entries` matches. The ledger may go on behind it: one read
    /// looks at a bounded number of entries.
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

/// The state from which the outcome of a message was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentFrom {
    /// The position of the subscription when the message was sent.
    pub position: i64,
    /// The moment when the sink got the address that the message went to.
    pub since: Timestamp,
}

/// The outcome of the next message of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum SubscriptionEvent {
    /// The filter matches none of the entries up to this number.
    Passed {
        /// The number of the last entry that is passed over.
        to: i64,
    },
    /// The sink acknowledged the entry of this number.
    Sent {
        /// The number of the entry.
        number: i64,
        /// The attempt that the sink acknowledged.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The sink acknowledged a message about a gap.
    GapTold {
        /// The entries that are missing from the ledger.
        gap: Gap,
        /// Why the sink refused the message; `None`: the sink took it.
        refused: Option<String>,
        /// The attempt that the sink acknowledged.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The sink refused the message, or failed on it and took a later one: the message is passed over.
    Skipped {
        /// The number of the entry; of a gap that of its last entry.
        number: i64,
        /// Why the message is passed over, in a few words.
        reason: String,
        /// The attempt that the sink refused.
        attempt: Box<SubscriptionAttempt>,
    },
    /// An entry behind the next message was sent ahead of its turn. The position stays, also if the sink took
    /// the entry; that ends a streak of skipped entries.
    TriedBehind {
        /// The attempt to send that entry.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The next mail reports these entries. It is not sent yet.
    Frozen {
        /// The first and the last number of the entries.
        range: MailRange,
    },
    /// The mail server took the mail, or refused it for good: the entries are passed over.
    Mailed {
        /// The entries that the mail reported.
        range: MailRange,
        /// How many entries that are.
        entries: u64,
        /// Entries that were gone before they were sent.
        gap: Option<Gap>,
        /// Recipients that were sent nothing.
        refused: Vec<RefusedRecipient>,
        /// The recipients that the server accepted; empty: the mail was refused as a whole.
        taken_by: Vec<String>,
        /// No further mail is sent before this moment.
        quiet_until: Timestamp,
        /// The attempt that ended so.
        attempt: Box<SubscriptionAttempt>,
    },
    /// The message is tried again later.
    Failed {
        /// The reason why the subscription is blocked now; `None`: it is not blocked.
        blocked: Option<String>,
        /// Of a mail: the server does not have the mail, so the next attempt may report later entries as
        /// well.
        thaws: bool,
        /// The failed attempt, with the time of the next one.
        attempt: Box<SubscriptionAttempt>,
    },
}

/// The calls of the HTTP handlers about subscriptions.
#[async_trait]
pub trait Subscriptions: Send + Sync + 'static {
    /// Creates a subscription. A [`StoreError::Conflict`] where the name is taken or the app has
    /// [`SUBSCRIPTIONS_MAX`].
    async fn create_subscription(&self, new: &NewSubscription) -> Result<Subscription, StoreError>;
    /// Reads one subscription of an app by its id or name.
    async fn subscription(&self, app: &AppId, name: &SubscriptionName) -> Result<Subscription, StoreError>;
    /// Subscriptions of an app that match a filter, oldest first, after `after`, at most `limit`.
    async fn subscriptions(
        &self,
        app: &AppId,
        filter: Option<&Filter>,
        after: Option<&SubscriptionId>,
        limit: u64,
    ) -> Result<Vec<Subscription>, StoreError>;
    /// Changes the fields of a subscription that the patch names.
    async fn change_subscription(
        &self,
        app: &AppId,
        id: &SubscriptionId,
        patch: &SubscriptionPatch,
        now: Timestamp,
    ) -> Result<Subscription, StoreError>;
    /// Removes a subscription, with its sink and its attempts.
    async fn remove_subscription(&self, app: &AppId, id: &SubscriptionId) -> Result<(), StoreError>;
    /// The attempts of a subscription, newest first, that ended before `before` (the moment, and the numbers
    /// of the entry and of the attempt), at most `limit`.
    async fn subscription_attempts(
        &self,
        id: &SubscriptionId,
        entry: Option<i64>,
        before: Option<(Timestamp, i64, u32)>,
        limit: u64,
    ) -> Result<Vec<SubscriptionAttempt>, StoreError>;
    /// One entry that may be sent to subscriptions; `None`: there is no entry with this number, or it is
    /// about sending.
    async fn sendable_entry(&self, app: &AppId, number: i64) -> Result<Option<LedgerEntry>, StoreError>;
    /// Stores an attempt that a person asked for; the position stays. A mail is also recorded in the ledger.
    async fn record_subscription_attempt(
        &self,
        id: &SubscriptionId,
        attempt: &SubscriptionAttempt,
    ) -> Result<(), StoreError>;
}
