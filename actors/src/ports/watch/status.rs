//! Statuses of commits: the state of watches, shown at the Git host. The store writes a due status in the
//! transaction of its cause; the status keeper tells the hosts.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, ObjectId, RepositoryId, WatchId},
    kind::{StatusHost, StatusWord},
};
use tokio::sync::watch;
use url::Url;

use crate::{
    model::secret::Secret,
    ports::{Reach, StoreError},
    time::Timestamp,
};

/// After this many statuses of one commit its host is told nothing more: GitHub accepts 1,000 for each
/// context.
pub const STATUSES_MAX: i64 = 900;

/// The status that a host shows: fewer values than [`StatusWord`], and the same at every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusColor {
    /// The work is under way.
    Pending,
    /// The app holds the commit and every change was delivered.
    Success,
    /// Changes were parked, or the branch is blocked.
    Failure,
    /// The work failed, so the app does not hold the commit.
    Error,
}

impl StatusColor {
    /// How a word is shown.
    #[must_use]
    pub fn of(word: StatusWord) -> Self {
        match word {
            StatusWord::Pending => Self::Pending,
            StatusWord::Success => Self::Success,
            StatusWord::Parked | StatusWord::Blocked => Self::Failure,
            StatusWord::Paused | StatusWord::Superseded | StatusWord::Cancelled => Self::Error,
        }
    }
}

/// The settings and state of a watch's statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownStatus {
    /// The kind of Git host whose API is called.
    pub host: StatusHost,
    /// The name (context) of the watch's statuses at the host.
    pub context: String,
}

/// Identifies a status: one watch and one commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusKey {
    /// The watch whose cursor the status shows.
    pub watch: WatchId,
    /// The commit that the status belongs to.
    pub commit: ObjectId,
}

/// A status to tell now. Only the process that claimed it tells it, until the claim ends.
#[derive(Clone, Debug)]
pub struct StatusTask {
    /// The watch and the commit of the status.
    pub key: StatusKey,
    /// The app of the watch.
    pub app: AppId,
    /// The repository of the watch.
    pub repository: RepositoryId,
    /// The kind of Git host whose API is called.
    pub kind: StatusHost,
    /// The host of the repository, without its port.
    pub host: String,
    /// The address of the repository.
    pub url: Url,
    /// The credential of the watch's own source; `None`: it has none any more.
    pub credential: Option<Secret>,
    /// The name (context) of the status at the host.
    pub context: String,
    /// The state to tell the host.
    pub word: StatusWord,
    /// The description beside the state.
    pub description: String,
    /// The state that the host showed before, if known.
    pub told: Option<StatusWord>,
    /// Requests in a row without success.
    pub tries: u32,
}

/// The answer of a host to a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusAnswer {
    /// The host accepted the status and shows it.
    Taken,
    /// The host refuses the status for good.
    Refused {
        /// The status code of the host; `None`: it did not answer.
        status: Option<u16>,
        /// The reason, in public words.
        reason: String,
    },
    /// The host did not accept the status now, and may accept it later.
    NotTaken {
        /// The reason, in public words.
        reason: String,
        /// The wait that the host asked for before the next request.
        wait: Option<Duration>,
    },
    /// It is unknown whether the host shows the status.
    Doubtful {
        /// The reason, in public words.
        reason: String,
        /// The wait that the host asked for before the next request.
        wait: Option<Duration>,
    },
}

/// The consequence of an answer, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusVerdict {
    /// The host shows this state and this description.
    Told(StatusWord, String),
    /// The host is asked again.
    Again {
        /// The moment of the next request.
        at: Timestamp,
        /// The state that the host shows, if known.
        shows: Option<StatusWord>,
        /// Whether the host may have accepted the request although no answer came.
        is_doubtful: bool,
    },
    /// The host is not told of this commit any more.
    Ended {
        /// The reason, in public words.
        reason: String,
        /// The status code of the host; `None`: it did not answer.
        status: Option<u16>,
        /// The state that the host shows, if known.
        shows: Option<StatusWord>,
    },
}

/// A status as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRow {
    /// The commit that the status belongs to.
    pub commit: ObjectId,
    /// The host of the repository, without its port.
    pub host: String,
    /// The name (context) of the status at the host.
    pub context: String,
    /// The word that the host is to show.
    pub wanted: StatusWord,
    /// The description beside the state.
    pub description: String,
    /// The state that the host was told last; `None`: none, or it is unknown whether the host accepted it.
    pub told: Option<StatusWord>,
    /// Requests in a row without success.
    pub tries: u32,
    /// When the host is told next; `None`: nothing is to be told.
    pub next_at: Option<Timestamp>,
    /// The reason why the host is not told of this commit any more; `None`: it is told.
    pub ended: Option<String>,
    /// When the status changed last.
    pub updated_at: Timestamp,
}

/// A position in the list of statuses: behind the status of this moment and commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPlace {
    /// When that status changed last.
    pub at: Timestamp,
    /// The commit of that status.
    pub commit: ObjectId,
}

/// How many statuses are claimed at a time.
#[derive(Clone, Debug, Default)]
pub struct StatusRoom {
    /// At most this many statuses.
    pub most: u64,
    /// At most this many statuses of one host, less its requests in `busy`.
    pub per_host: u64,
    /// The requests that are under way, by host.
    pub busy: BTreeMap<String, u64>,
}

impl StatusRoom {
    /// How many more of this host may be claimed.
    #[must_use]
    pub fn of(&self, host: &str) -> u64 {
        self.per_host.saturating_sub(self.busy.get(host).copied().unwrap_or(0))
    }
}

/// What a look for due statuses found.
#[derive(Clone, Debug, Default)]
pub struct StatusClaims {
    /// The statuses that were claimed.
    pub tasks: Vec<StatusTask>,
    /// The nearest moment in the future at which a status is due; `None`: there is none. A status that is due
    /// and was not claimed, because its host is busy, has none.
    pub next: Option<Timestamp>,
}

/// The calls by which the status keeper reads and writes statuses.
#[async_trait]
pub trait StatusStore: Send + Sync + 'static {
    /// Changes whenever this process wrote statuses to tell.
    fn statuses_written(&self) -> watch::Receiver<u64>;
    /// Claims statuses that are due, app by app, until `until`; says when the next one is due.
    async fn claim_statuses(
        &self,
        reach: &Reach,
        room: &StatusRoom,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<StatusClaims, StoreError>;
    /// Releases claims of a process that ended; for a process that has its database to itself.
    async fn release_statuses(&self, now: Timestamp) -> Result<(), StoreError>;
    /// Writes the result of a claimed status; a status that was removed is no error.
    async fn note_status(
        &self,
        key: &StatusKey,
        verdict: &StatusVerdict,
        at: Timestamp,
    ) -> Result<(), StoreError>;
    /// Removes finished statuses that are old, and makes statuses that have been under way for long due
    /// again. Returns whether there is more to do.
    async fn sweep_statuses(&self, at: Timestamp) -> Result<bool, StoreError>;
}

/// The APIs of Git hosts that take statuses.
#[async_trait]
pub trait StatusBoard: Send + Sync + 'static {
    /// Tells the host one status, within a bounded time.
    async fn tell(&self, task: &StatusTask) -> StatusAnswer;
}
