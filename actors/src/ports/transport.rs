//! [`Transport`]: turning a change into a signed body and bringing it to an endpoint.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tidings_entity::{
    id::{AppId, ObjectId, SubscriptionId, WatchId},
    kind::{Operation, PayloadFormat},
};

use super::{
    App, CommitFacts, EndpointAccess, Gap, GitError, LedgerEntry, Remote, SinkKey, StoreError, Subscription,
};
use crate::{
    budget::Held,
    crowds::Crowd,
    pace::Pace,
    round::{Change, DeliveryId, Round, RoundSpec},
    secret::Secret,
    shards::Hold,
    sink::{Outlet, SinkAddress},
    time::Timestamp,
};

/// Where an app receives, and how it checks what it receives.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The app.
    pub app: AppId,
    /// Which of its sinks: clients, connections and access tokens are kept by it.
    pub sink: SinkKey,
    /// Where attempts go; never [`SinkAddress::Pull`].
    pub address: SinkAddress,
    /// Since when the app has it ([`App::endpoint_since`]).
    pub since: Timestamp,
    /// Signing keys, the current one first; more than one during a rotation's overlap. The key is
    /// the UTF-8 bytes of the secret.
    pub keys: Vec<Secret>,
    /// What goes with each request beyond the signatures, and whom TLS trusts.
    pub access: Arc<EndpointAccess>,
    /// One deadline over connect, headers and body; the transport adds 1 s per 256 KiB sent
    /// beyond 1 MiB.
    pub timeout: Duration,
    /// How fast it takes requests, where that is limited. Whoever asks for an attempt has waited
    /// for its turn; the transport waits for one before each further request of it.
    pub pace: Option<Pace>,
    /// How many attempts at once the app takes over all its sinks, where that is bounded here: an attempt
    /// of a lane has a place among them.
    pub crowd: Option<Crowd>,
    /// What notices outside of rounds look like; those of a round look like its changes.
    pub format: PayloadFormat,
}

impl Endpoint {
    /// The endpoint of an app, where its sink is one that attempts go to: with its keys and its choices.
    #[must_use]
    pub fn of(app: &App, timeout: Duration, pace: Option<Pace>) -> Option<Self> {
        if app.receives_at.outlet() != Outlet::Attempt {
            return None;
        }
        Some(Self {
            app: app.id.clone(),
            sink: app.sink_key(),
            address: app.receives_at.clone(),
            since: app.endpoint_since,
            keys: app.keys.clone(),
            access: Arc::clone(&app.access),
            timeout,
            pace,
            crowd: None,
            format: app.delivery.format,
        })
    }
}

impl Endpoint {
    /// Whether requests to both look the same, but for how long and how fast they go.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let keys =
            |endpoint: &Self| endpoint.keys.iter().map(|key| key.expose().to_owned()).collect::<Vec<_>>();
        self.since == other.since
            && self.address == other.address
            && self.format == other.format
            && keys(self) == keys(other)
            && self.access.is_like(&other.access)
    }
}

/// The `repository` object of a body.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RepositoryFacts {
    /// The watch's id.
    pub repository_id: WatchId,
    /// The address as the app first gave it.
    pub github_url: String,
    /// The owner (everything before the last path component).
    pub owner: String,
    /// The name (the last path component without `.git`).
    pub name: String,
}

/// What all deliveries of one lane share.
#[derive(Clone, Debug)]
pub struct LaneFacts {
    /// Where content is read.
    pub remote: Remote,
    /// The `repository` object.
    pub repository: RepositoryFacts,
    /// The round.
    pub round: Arc<Round>,
    /// The target commit's facts.
    pub commit: Option<Arc<CommitFacts>>,
}

/// One change to be delivered, with all that its body shows.
#[derive(Clone, Debug)]
pub struct DeliveryOrder {
    /// Its id.
    pub id: DeliveryId,
    /// The lane it belongs to.
    pub lane: Arc<LaneFacts>,
    /// The change.
    pub change: Change,
    /// In a create: the path of a delete of the same round with the same blob.
    pub renamed_from: Option<Vec<u8>>,
    /// Its place in the round, from 0.
    pub position: u64,
    /// Blobs that can be had nowhere: hashes that would need them are left out of the body.
    pub unobtainable: Vec<ObjectId>,
}

/// A rendered delivery, ready to be sent as often as needed. Every attempt sends the same bytes,
/// but for the id of chunks.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The delivery's id, sent as `webhook-id`.
    pub id: DeliveryId,
    /// The last component of the address.
    pub action: Action,
    /// Whose change it is.
    pub watch: WatchId,
    /// What its body looks like; its round says so.
    pub format: PayloadFormat,
    /// The body or its parts.
    pub body: ParcelBody,
    /// Its share of the bytes that all lanes may hold, together with its neighbours; nothing for a
    /// small one.
    pub held: Option<Arc<Held>>,
}

/// What a parcel carries.
#[derive(Clone, Debug)]
pub enum ParcelBody {
    /// One request with these bytes.
    Whole(Bytes),
    /// A large binary file: one request per slice of its base64 text, in order.
    Chunked {
        /// The JSON up to and including `"content":"`.
        before: Bytes,
        /// The base64 text of the whole file.
        content: Bytes,
        /// The JSON after the chunk object.
        after: Bytes,
    },
}

impl Parcel {
    /// Whether it may share a request with others: the chunks of a large file go by themselves.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.body, ParcelBody::Whole(_))
    }

    /// Bytes this parcel holds in memory.
    #[must_use]
    pub fn size(&self) -> u64 {
        let bytes = match &self.body {
            ParcelBody::Whole(body) => body.len(),
            ParcelBody::Chunked { before, content, after } => before.len() + content.len() + after.len(),
        };
        bytes as u64
    }
}

/// The last component of the address a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `/create`
    Create,
    /// `/update`
    Update,
    /// `/delete`
    Delete,
    /// `/batch`
    Batch,
    /// `/sync_failed`
    SyncFailed,
    /// `/sync_recovered`
    SyncRecovered,
    /// `/synced`
    Synced,
    /// `/resync`
    Resync,
    /// `/test`
    Test,
    /// A message of a subscription. It goes to the address itself: nothing is appended.
    Entry,
}

impl Action {
    /// The component, without its slash.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Batch => "batch",
            Self::SyncFailed => "sync_failed",
            Self::SyncRecovered => "sync_recovered",
            Self::Synced => "synced",
            Self::Resync => "resync",
            Self::Test => "test",
            Self::Entry => "entry",
        }
    }
}

impl From<Operation> for Action {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Delete => Self::Delete,
            Operation::Create => Self::Create,
            Operation::Update => Self::Update,
        }
    }
}

/// A message that is not a change.
#[derive(Clone, Debug)]
pub enum Notice {
    /// `/resync` before and `/synced` after a round's changes.
    OfRound {
        /// [`Action::Resync`] or [`Action::Synced`].
        action: Action,
        /// The round.
        round: Arc<Round>,
        /// The `repository` object.
        repository: RepositoryFacts,
    },
    /// `/sync_failed`: the Git breaker of the watch's source opened.
    SyncFailed {
        /// The delivery id of this notice.
        id: DeliveryId,
        /// The `repository` object.
        repository: RepositoryFacts,
        /// What failed; its text and code are public.
        error: GitError,
        /// Failures in a row.
        consecutive_failures: u32,
        /// Failures at which the breaker opens.
        threshold: u32,
        /// When the next probe is due.
        cooldown_until: Timestamp,
        /// The moment of the notice.
        timestamp: Timestamp,
    },
    /// `/sync_recovered`: the Git breaker closed again.
    SyncRecovered {
        /// The delivery id of this notice.
        id: DeliveryId,
        /// The `repository` object.
        repository: RepositoryFacts,
        /// The moment of the notice.
        timestamp: Timestamp,
    },
    /// An entry of a ledger, or what else a subscription is told.
    OfSubscription(Arc<SubscriptionMessage>),
    /// `/test`: asked for by the app, to see whether its endpoint takes what is sent. About no
    /// repository.
    Test {
        /// The delivery id of this notice.
        id: DeliveryId,
        /// The app.
        app: AppId,
        /// The moment of the notice.
        timestamp: Timestamp,
    },
}

/// A message to the sink of a subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionMessage {
    /// What it is sent as (`webhook-id`): the id of the entry. Sent again it has the same.
    pub id: DeliveryId,
    /// The app whose ledger it is about.
    pub app: AppId,
    /// The subscription that the message is for.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: String,
    /// What it says.
    pub content: SubscriptionContent,
    /// The moment of the message.
    pub timestamp: Timestamp,
}

/// What a message to the sink of a subscription says.
#[derive(Clone, Debug)]
pub enum SubscriptionContent {
    /// This was written to the ledger.
    Entry(LedgerEntry),
    /// Entries were gone before they were sent.
    Gap(Gap),
    /// Nothing: somebody wants to see whether the sink takes it.
    Test,
}

impl SubscriptionMessage {
    /// The message of an entry.
    #[must_use]
    pub fn of_entry(subscription: &Subscription, entry: LedgerEntry) -> Self {
        let (id, timestamp) = (DeliveryId::from_stored(entry.id.to_string()), entry.at);
        Self::of(subscription, id, SubscriptionContent::Entry(entry), timestamp)
    }

    /// The message of a gap, which has one id however often it is sent.
    #[must_use]
    pub fn of_gap(subscription: &Subscription, gap: Gap, at: Timestamp) -> Self {
        let id = format!("gap_{}_{}_{}", subscription.id.ulid(), gap.first, gap.last);
        Self::of(subscription, DeliveryId::from_stored(id), SubscriptionContent::Gap(gap), at)
    }

    /// A test.
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
        let Subscription { id: of, app, name, .. } = subscription;
        Self { id, app: app.clone(), subscription: of.clone(), name: name.clone(), content, timestamp }
    }
}

/// Why an attempt got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The deadline passed.
    Timeout,
    /// Resolution, connection or TLS failed, or the connection broke.
    Connection,
    /// The address is refused by the egress rules; trying again soon is useless.
    Refused,
    /// The base address cannot be used.
    InvalidUrl,
}

/// What came of one attempt. A chunked file is one attempt over all its requests: the first
/// answer that is not 2xx, or the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptOutcome {
    /// The status code, or why there is none.
    pub result: Result<u16, SendFailure>,
    /// What `Retry-After` asks for, from now; both forms.
    pub retry_after: Option<Duration>,
    /// At most 1,024 characters of the answer's body or of the failure, control characters
    /// escaped.
    pub excerpt: String,
    /// How long it took.
    pub took: Duration,
    /// More of the answer, for people. Of a request that was acknowledged only where every attempt is
    /// recorded.
    pub answer: Option<Arc<KeptAnswer>>,
}

/// What is kept of an endpoint's answer: credentials replaced, control characters escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Names in lower case and values, in the order they came; at most 4 KiB in all.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, at most 4 KiB.
    pub body: String,
}

impl AttemptOutcome {
    /// Whether the receiver acknowledged.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.result, Ok(200..=299))
    }
}

/// What the receiver says of one change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It took it.
    Accepted,
    /// It will never take it, and perhaps why: at most 1,024 characters, control characters escaped.
    Refused(String),
    /// It wants it again later, or did not say what became of it.
    Retry(String),
    /// It was not tried: one before it found trouble of the endpoint's own, or the right to it ended.
    Untaken,
}

/// Why a delivery could not be rendered.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// Reading its content failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Reading or writing what is known of its blob failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content of the first delivery alone has so many bytes, more than it may have now.
    #[error("its content has {0} bytes, more than are free")]
    Heavy(u64),
}

/// Bodies and the one guarded way out.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// These changes of a round will be rendered soon: a transport may look up, and fetch, at once
    /// what it would look up and fetch one by one. What goes wrong shows when they are rendered.
    async fn foresee(&self, _remote: &Remote, _spec: &RoundSpec, _changes: &[Change]) {}

    /// Renders deliveries of one lane, in their order: the first, and as many after it as can be
    /// rendered and together read at most `budget` bytes. Reads content, hashes what was never
    /// hashed, remembers the hashes.
    ///
    /// A failure is that of the first. [`GitError::Missing`] names a blob that a fetch may bring;
    /// the caller fetches it by id and asks again, with the blob among `unobtainable` if the host
    /// definitively refuses it. If the new content itself is unobtainable the answer is
    /// [`GitError::Unobtainable`]. [`PrepareError::Heavy`] asks for a larger budget.
    async fn prepare(&self, orders: &Arc<[DeliveryOrder]>, budget: u64) -> Result<Vec<Parcel>, PrepareError>;

    /// One attempt. Never fails: what went wrong is the outcome. One of several requests makes no further
    /// one when its right does not last ([`Hold::lasts`]): another replica may send the same by then.
    /// `None`: it was left for that reason, and says nothing of the endpoint.
    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel, hold: &Hold) -> Option<AttemptOutcome>;

    /// One attempt at many deliveries of one round in one request, at least one, in their order. The
    /// outcome is that of the request; of a request that was acknowledged there is one word for each
    /// delivery, in the same order. Where each goes by itself, those after the end of the right are
    /// [`ItemOutcome::Untaken`].
    async fn send_batch(
        &self,
        endpoint: &Endpoint,
        parcels: Vec<Parcel>,
        hold: &Hold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>);

    /// One attempt at a notice; `sync_failed` and `sync_recovered` have 10 s.
    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome;
}
