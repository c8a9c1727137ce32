//! [`Transport`]: turning a change into a signed body and bringing it to an endpoint.

mod outcome;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tidings_entity::{
    id::{AppId, ObjectId, WatchId},
    kind::{Operation, PayloadFormat},
};

pub use outcome::{AttemptOutcome, ItemOutcome, KeptAnswer, SendFailure};

use super::{
    App, CommitFacts, EndpointAccess, GitError, MailOutcome, Remote, RepositoryFacts, SinkKey, StoreError,
    SubscriptionMessage, WorkCall,
};
use crate::{
    limits::budget::MemoryPermit,
    limits::in_flight::InFlightLimit,
    limits::pace::Pace,
    model::round::{Change, DeliveryId, Round, RoundSpec},
    model::secret::Secret,
    model::sink::{Outlet, SinkAddress},
    ownership::shards::ShardHold,
    time::Timestamp,
};

/// The endpoint of an app, with the keys and settings for requests to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The app that receives.
    pub app: AppId,
    /// Which sink of the app: clients, connections and access tokens are cached by this key.
    pub sink: SinkKey,
    /// Where attempts go; never [`SinkAddress::Pull`].
    pub address: SinkAddress,
    /// When the app got this endpoint ([`App::endpoint_since`]).
    pub since: Timestamp,
    /// Signing keys, the current one first; more than one during a rotation's overlap. The key is
    /// the UTF-8 bytes of the secret.
    pub keys: Vec<Secret>,
    /// The access data sent with each request, and the certificate authorities that TLS trusts.
    pub access: Arc<EndpointAccess>,
    /// One deadline over connect, headers and body; the transport adds 1 s per 256 KiB sent
    /// beyond 1 MiB.
    pub timeout: Duration,
    /// The rate of the endpoint's requests, if it has one. The caller of an attempt has waited for its turn;
    /// the transport waits for a turn before each further request of the attempt.
    pub pace: Option<Pace>,
    /// How many attempts at once the app takes over all its sinks, if that is limited here: an attempt of a
    /// lane holds one of these places.
    pub in_flight: Option<InFlightLimit>,
    /// The format of notices outside of rounds; notices of a round have the format of its changes.
    pub format: PayloadFormat,
    /// The mail address that the app gave at registration; empty if none, or if anyone could register the
    /// app.
    pub contact: String,
}

impl Endpoint {
    /// The endpoint of an app, with its keys and settings; `None`: its sink has no endpoint for attempts.
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
            in_flight: None,
            format: app.format(),
            contact: app.contact().to_owned(),
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

/// The repository, round and commit that all deliveries of a lane share.
#[derive(Clone, Debug)]
pub struct LaneFacts {
    /// The repository that content is read from.
    pub remote: Remote,
    /// The `repository` object of bodies.
    pub repository: RepositoryFacts,
    /// The round that the lane delivers.
    pub round: Arc<Round>,
    /// Author, time and subject of the target commit; `None`: the round has no target.
    pub commit: Option<Arc<CommitFacts>>,
    /// The most bytes of a content that bodies show, for tasks; `None`: the view decides alone, and large
    /// files may be sent in chunks.
    pub inline_max: Option<u64>,
}

/// One change to deliver, with all data that its body needs.
#[derive(Clone, Debug)]
pub struct DeliveryOrder {
    /// The id of the delivery (`event.id`, `webhook-id`).
    pub id: DeliveryId,
    /// The lane it belongs to.
    pub lane: Arc<LaneFacts>,
    /// The change that is delivered.
    pub change: Change,
    /// In a create: the path of a delete of the same round with the same blob.
    pub renamed_from: Option<Vec<u8>>,
    /// The position of the change in the round, from 0.
    pub position: u64,
    /// Blobs that cannot be fetched from the host: hashes that would need them are left out of the body.
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
    /// The watch that the change belongs to.
    pub watch: WatchId,
    /// The format of its body, which the round decides.
    pub format: PayloadFormat,
    /// The body or its parts.
    pub body: ParcelBody,
    /// The part of the memory budget that the delivery and the deliveries rendered with it hold; `None` for a
    /// small one.
    pub held: Option<Arc<MemoryPermit>>,
}

/// The body or bodies of a parcel.
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
    /// Whether the change may share a request with others: each chunk of a large file has a request of its
    /// own.
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
    /// `/create`: a file that the app did not have.
    Create,
    /// `/update`: a file of which the content or mode changed.
    Update,
    /// `/delete`: a file that the app must drop.
    Delete,
    /// `/batch`: many changes in one request.
    Batch,
    /// `/sync_failed`: scans of the source fail repeatedly.
    SyncFailed,
    /// `/sync_recovered`: a source that failed can be scanned again.
    SyncRecovered,
    /// `/synced`: a round is finished.
    Synced,
    /// `/resync`: every file is about to be sent again.
    Resync,
    /// `/test`: a message that tests the endpoint.
    Test,
    /// A message of a subscription, or to a worker. It is sent to the address itself; no action is appended.
    Entry,
    /// The same in codeQ's form, with codeQ's signature beside ours.
    Codeq,
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
            Self::Codeq => "codeq",
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
        /// Either [`Action::Resync`] or [`Action::Synced`].
        action: Action,
        /// The round that begins or is finished.
        round: Arc<Round>,
        /// The `repository` object of the body.
        repository: RepositoryFacts,
    },
    /// `/sync_failed`: the Git breaker of the watch's source opened.
    SyncFailed {
        /// The delivery id of this notice.
        id: DeliveryId,
        /// The `repository` object of the body.
        repository: RepositoryFacts,
        /// The failure; its text and code are public.
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
        /// The `repository` object of the body.
        repository: RepositoryFacts,
        /// The moment of the notice.
        timestamp: Timestamp,
    },
    /// An entry of a ledger, a gap or a test, for a subscription.
    OfSubscription(Arc<SubscriptionMessage>),
    /// A queue has work: for a worker subscription.
    WorkAvailable(Arc<WorkCall>),
    /// `/test`: requested by the app to check its endpoint. Concerns no repository.
    Test {
        /// The delivery id of this notice.
        id: DeliveryId,
        /// The app that requested the test.
        app: AppId,
        /// The moment of the notice.
        timestamp: Timestamp,
    },
}

/// The target of log lines about failed attempts at the sinks of watches. `tidings watch` without `--to`
/// leaves these lines out: there an attempt is a printed line or a run of a program, which has a message of
/// its own.
pub const ATTEMPTS_LOG: &str = "tidings_actors::attempts";

/// Why a delivery could not be rendered.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// Reading its content failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Reading or writing the stored facts about its blob failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first delivery needs a budget of this many bytes, more than may be read now: a content of it is as
    /// long, or its body twice as long.
    #[error("its content needs a budget of {0} bytes, more than there is")]
    OverBudget(u64),
}

/// Renders bodies and sends them, through the one guarded HTTP client.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Announces changes of a round that will be rendered soon: a transport may look up and fetch the
    /// contents that they need. Errors are reported when the changes are rendered.
    async fn prefetch(&self, _remote: &Remote, _spec: &RoundSpec, _changes: &[Change]) {}

    /// Renders deliveries of one lane, in their order: the first, and as many after it as can be rendered,
    /// together read at most `budget` bytes and have bodies of at most twice as many. Reads contents, and
    /// hashes and stores the hash of each content that has none yet. Takes memory of at most three times
    /// `budget`.
    ///
    /// A failure is about the first delivery. [`GitError::Missing`] names a blob that a fetch may bring; the
    /// caller fetches it by id and asks again, with the blob among `unobtainable` if the host definitively
    /// refuses it. If the new content itself is unobtainable the answer is [`GitError::Unobtainable`].
    /// [`PrepareError::OverBudget`] asks for a larger budget.
    async fn prepare(&self, orders: &Arc<[DeliveryOrder]>, budget: u64) -> Result<Vec<Parcel>, PrepareError>;

    /// Renders the payload of the one task that a round becomes: the facts of the round and, where `changes`
    /// has all of them, the list. A list that is too long for a payload is left out.
    fn round_body(&self, _lane: &LaneFacts, _id: &DeliveryId, _changes: &[Change]) -> String {
        String::new()
    }

    /// One attempt. It never fails: a failure is part of the outcome. An attempt of several requests stops
    /// when the right to send ends ([`ShardHold::lasts`]): another replica may be sending the same by then.
    /// `None`: the attempt stopped for that reason, which says nothing about the endpoint.
    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel, hold: &ShardHold) -> Option<AttemptOutcome>;

    /// One attempt at several deliveries of one round in one request, at least one, in their order. The
    /// outcome is that of the request. If the request was acknowledged, there is one result for each
    /// delivery, in the same order. A sink that sends each delivery by itself reports those after the end of
    /// the right to send as [`ItemOutcome::Untaken`].
    async fn send_batch(
        &self,
        endpoint: &Endpoint,
        parcels: Vec<Parcel>,
        hold: &ShardHold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>);

    /// One attempt at a message to the sink of a subscription that sends mails. `is_last`: a recipient that
    /// the server does not accept now is left out, and does not delay the mail for the others any more. The
    /// mail waits for its turn among the mails of all apps; the deadline of the attempt begins after that.
    /// `None`: the right to send ended during the wait, and nothing was sent.
    async fn mail(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        is_last: bool,
        hold: &ShardHold,
    ) -> Option<MailOutcome>;

    /// One attempt at a notice; `sync_failed` and `sync_recovered` have a deadline of 10 s.
    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome;
}
