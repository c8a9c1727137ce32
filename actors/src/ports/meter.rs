//! [`Meter`]: what is counted and timed of the work, and what is found by looking around. Labels are
//! words of fixed sets, never ids: which app or which repository it was is asked of the admin API
//! and of traces.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::{
    id::{AppId, CursorId, WatchId},
    kind::{BreakerKind, CursorState, ParkReason},
};

use super::{AttemptOutcome, FetchReport, ScanTrouble, SendFailure, Storage, Totals};
use crate::time::Timestamp;

/// Bounds of the distribution of lag, in seconds; what is beyond the last is counted as well.
pub const LAG_BOUNDS: [u64; 12] =
    [0, 1, 5, 15, 60, 300, 900, 3_600, 4 * 3_600, 24 * 3_600, 3 * 86_400, 7 * 86_400];

/// A watch that is behind for longer is late.
pub const LATE: Duration = Duration::from_secs(300);

/// Takes measurements. No method waits, fails or allocates for each call.
pub trait Meter: Send + Sync + 'static {
    /// A host was asked for refs. `outcome`: `ok` or a [`GitError::code`](super::GitError::code).
    fn polled(&self, outcome: &'static str, took: Duration);
    /// Objects or contents were fetched.
    fn fetched(&self, what: Fetched, fetched: Result<FetchReport, &'static str>, took: Duration);
    /// A scan ended, from its first request to the heads on disk.
    fn scanned(&self, outcome: &'static str, took: Duration);
    /// A scan waited so long for its turn at its host.
    fn waited(&self, took: Duration);
    /// A request went to a receiver.
    fn attempted(&self, kind: AttemptKind, outcome: &AttemptOutcome);
    /// So many changes are settled on disk, of which some were given up.
    fn settled(&self, acknowledged: u64, parked: &[ParkReason]);
    /// The store ended a transaction of so many verbs, by a commit or in failure.
    fn committed(&self, is_written: bool, verbs: usize, took: Duration);
    /// What was found by looking around.
    fn surveyed(&self, survey: Survey);
}

/// What a fetch was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Commits that moved, with their trees and, unless the watches are narrow, their contents.
    Commits,
    /// Contents that a narrow round needs.
    Contents,
}

impl Fetched {
    /// The word of its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commits => "commits",
            Self::Contents => "contents",
        }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// One change; a file in chunks counts once.
    Change,
    /// Many changes in one request.
    Batch,
    /// A message that is not a change.
    Notice,
}

impl AttemptKind {
    /// The word of its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Batch => "batch",
            Self::Notice => "notice",
        }
    }
}

/// The word for what came of an attempt.
#[must_use]
pub fn attempt_outcome(outcome: &AttemptOutcome) -> &'static str {
    match outcome.result {
        Ok(200..=299) => "2xx",
        Ok(300..=399) => "3xx",
        Ok(429) => "429",
        Ok(400..=499) => "4xx",
        Ok(500..=599) => "5xx",
        Ok(_) => "other",
        Err(SendFailure::Timeout) => "timeout",
        Err(SendFailure::Connection) => "connection",
        Err(SendFailure::Refused) => "refused",
        Err(SendFailure::InvalidUrl) => "invalid_url",
    }
}

/// How far watches are behind, and what was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Served watches that are behind, by the first of [`LAG_BOUNDS`] that their lag does not pass;
    /// the last number is of those beyond all.
    pub behind: [u64; LAG_BOUNDS.len() + 1],
    /// The lags of all of them together, in milliseconds.
    pub lag_sum_ms: u64,
    /// The longest of them, in milliseconds.
    pub lag_max_ms: u64,
    /// Open dead letters by their reason.
    pub letters: BTreeMap<ParkReason, u64>,
    /// Apps with an endpoint and a watch that is behind for more than [`LATE`] although no branch of it is
    /// blocked and no breaker of its endpoint is open: what holds it up is not its receiver.
    pub apps_behind: u64,
    /// Watched sources whose last scan failed, by why.
    pub sources_failing: BTreeMap<ScanTrouble, u64>,
}

/// A branch of a watch whose app lacks something for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// The app.
    pub app: AppId,
    /// The watch.
    pub watch: WatchId,
    /// The cursor.
    pub cursor: CursorId,
    /// The owner shown in bodies.
    pub owner: String,
    /// The name shown in bodies.
    pub name: String,
    /// The full name of the branch.
    pub branch: String,
    /// Whether it moves.
    pub state: CursorState,
    /// Why not, where it does not.
    pub reason: Option<String>,
    /// The number of its open round.
    pub open_round: Option<i64>,
    /// The oldest change that is not settled is of this moment.
    pub since: Timestamp,
}

/// What all hosts together look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostsSurvey {
    /// Scans that wait for their turn.
    pub waiting: u64,
    /// Scans that have it.
    pub scanning: u64,
    /// Hosts at which scans wait longer than they should: `git.host_rate` or
    /// `git.host_concurrency` binds, intervals stretch.
    pub stretched: u64,
    /// Hosts that asked for patience.
    pub patient: u64,
    /// Hosts that gave no answer to the last scan.
    pub silent: u64,
}

/// All actors of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSurvey {
    /// Those that run.
    pub running: u64,
    /// Those that wait for their restart.
    pub waiting: u64,
    /// Messages in all their mailboxes.
    pub mailbox: u64,
    /// Messages in the fullest of them.
    pub mailbox_max: u64,
    /// Restarts since the process began.
    pub restarts: u64,
}

/// The state of a breaker, in a word.
pub type BreakerWord = &'static str;

/// The supervision tree in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeSurvey {
    /// By role.
    pub roles: BTreeMap<&'static str, RoleSurvey>,
    /// Breakers that have failures, by what they guard and how they stand.
    pub breakers: BTreeMap<(BreakerKind, BreakerWord), u64>,
    /// Lanes in memory.
    pub lanes: u64,
    /// Stretches of attempts on their way.
    pub in_flight: u64,
}

/// What was found by looking around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// When the survey was made.
    pub at: Timestamp,
    /// How long the looking took.
    pub took: Duration,
    /// The numbers of the overview.
    pub totals: Totals,
    /// Lag and letters.
    pub backlog: Backlog,
    /// What mirrors take.
    pub storage: Storage,
    /// Git hosts.
    pub hosts: HostsSurvey,
    /// Actors.
    pub tree: TreeSurvey,
}
