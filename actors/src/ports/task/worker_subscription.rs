//! Worker subscriptions: addresses that are told that a queue has work. A message is a hint, sent once; the
//! worker claims as always.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use tidings_entity::id::{AppId, QueueId, WorkerSubscriptionId};

use crate::{
    model::round::DeliveryId,
    ports::{App, StoreError},
    time::Timestamp,
};

/// Most worker subscriptions of an app that have not ended.
pub const WORKER_SUBSCRIPTIONS_MAX: u64 = 100;
/// How long a worker subscription lasts unless its request says otherwise.
pub const WORKER_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// The shortest time between two messages about one command unless the request says otherwise.
pub const WORKER_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// An address that is told that a queue has work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSubscription {
    /// Id of the worker subscription, `wsb_` and a ULID.
    pub id: WorkerSubscriptionId,
    /// The app whose queues it is told of.
    pub app: AppId,
    /// The address that is told.
    pub url: String,
    /// The commands of the queues.
    pub commands: Vec<String>,
    /// The group of which one subscription is told of work, in turn; `None`: it is told of all work.
    pub group: Option<String>,
    /// The shortest time between two messages about one command.
    pub min_interval: Duration,
    /// How long it lasts after it is made or extended.
    pub ttl: Duration,
    /// When the worker subscription ends by itself.
    pub expires_at: Timestamp,
    /// When the subscription was created.
    pub created_at: Timestamp,
}

/// Queues that may have work which they did not have before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkWords {
    /// Queues that are named one by one.
    pub queues: BTreeSet<(AppId, QueueId)>,
    /// All queues of all apps.
    pub all: bool,
}

impl WorkWords {
    /// Whether no queue has new work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.queues.is_empty()
    }

    /// Whether a queue is one of them.
    #[must_use]
    pub fn has(&self, app: &AppId, queue: &QueueId) -> bool {
        self.all || self.queues.contains(&(app.clone(), queue.clone()))
    }
}

/// A queue with tasks that may be claimed now or once its rate allows that, and who is to be told.
#[derive(Clone, Debug)]
pub struct QueueWork {
    /// The app of the queue, with its keys.
    pub app: App,
    /// Id of the queue.
    pub queue: QueueId,
    /// The command of its tasks.
    pub command: String,
    /// How many of its tasks are ready.
    pub ready: u64,
    /// When its rate allows a claim again; `None`: a task may be claimed now.
    pub free_at: Option<Timestamp>,
    /// The worker subscriptions of its command, oldest first.
    pub subscriptions: Vec<WorkerSubscription>,
}

/// A message to a worker subscription: a queue has work.
#[derive(Clone, Debug)]
pub struct WorkCall {
    /// The id of the message (`webhook-id`); each message has its own.
    pub id: DeliveryId,
    /// The worker subscription that is told.
    pub subscription: WorkerSubscriptionId,
    /// The command of the queue.
    pub command: String,
    /// How many of its tasks were ready.
    pub ready: u64,
    /// The moment of the message.
    pub sent_at: Timestamp,
    /// Whether the message has codeQ's form.
    pub is_codeq: bool,
}

/// The calls of the HTTP handlers about worker subscriptions. Those that have ended are not there.
#[async_trait]
pub trait WorkerSubscriptions: Send + Sync + 'static {
    /// Makes a worker subscription. `false`: the app has [`WORKER_SUBSCRIPTIONS_MAX`].
    async fn create_worker_subscription(&self, new: &WorkerSubscription) -> Result<bool, StoreError>;
    /// The worker subscriptions of an app, oldest first, after `after`, at most `limit`.
    async fn worker_subscriptions(
        &self,
        app: &AppId,
        after: Option<&WorkerSubscriptionId>,
        limit: u64,
    ) -> Result<Vec<WorkerSubscription>, StoreError>;
    /// One worker subscription of an app.
    async fn worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
    ) -> Result<WorkerSubscription, StoreError>;
    /// Lets a worker subscription last for this time from now on; `None`: for its own time.
    async fn extend_worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
        ttl: Option<Duration>,
    ) -> Result<WorkerSubscription, StoreError>;
    /// Removes a worker subscription.
    async fn remove_worker_subscription(
        &self,
        app: &AppId,
        id: &WorkerSubscriptionId,
    ) -> Result<(), StoreError>;
}
