//! [`Meter`]: counters and timings of the work, and the results of surveys. Labels are words of fixed sets,
//! and queues that the settings name: the admin API and traces answer which app or repository is concerned.

mod survey;

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::{
    id::{AppId, CursorId, WatchId},
    kind::{CursorState, ParkReason, TaskState},
};

use super::{AttemptOutcome, FetchReport, HandOverWait, ScanTrouble, SendFailure};
use crate::{model::queue_name::QueueName, time::Timestamp};

pub use survey::{BreakerWord, HostsSurvey, RoleSurvey, Survey, Totals, TreeSurvey};

/// Bounds of the distribution of lag, in seconds; lags beyond the last bound are counted as well.
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
    /// A scan has waited this long for its turn at its host.
    fn waited(&self, took: Duration);
    /// A Git host was told the status of a commit. `outcome`: `taken`, `refused`, `not_taken` or `doubtful`.
    fn status_told(&self, _outcome: &'static str) {}
    /// A callback of tasks was sent an entry. `outcome`: `taken`, `refused`, `not_taken` or `gone`.
    fn called_back(&self, _outcome: &'static str) {}
    /// A worker subscription was told of work, or it was not because too many were being told. `outcome`:
    /// `taken`, `not_taken` or `left_out`.
    fn work_told(&self, _outcome: &'static str) {}
    /// A request went to a receiver of this app.
    fn attempted(&self, app: &AppId, kind: AttemptKind, outcome: &AttemptOutcome);
    /// Changes of this app are settled on disk: the number of acknowledged ones, and the reason of each
    /// parked one.
    fn settled(&self, app: &AppId, acknowledged: u64, parked: &[ParkReason]);
    /// The store has ended a transaction with this number of verbs, by a commit or a failure.
    fn committed(&self, is_written: bool, verbs: usize, took: Duration);
    /// The store has moved tasks; their rows are on disk.
    fn tasks_moved(&self, _tally: &TaskTally) {}
    /// A survey ended: its numbers are to be shown.
    fn surveyed(&self, survey: Survey);
}

/// The purpose of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Commits that moved, with their trees and, unless the watches are narrow, their contents.
    Commits,
    /// Contents that a narrow round needs.
    Contents,
}

impl Fetched {
    /// The value of the label `what`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commits => "commits",
            Self::Contents => "contents",
        }
    }
}

/// The kind of request that an attempt sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// One change; a file in chunks counts once.
    Change,
    /// Many changes in one request.
    Batch,
    /// A message that is not a change.
    Notice,
    /// A mail of a subscription.
    Mail,
}

impl AttemptKind {
    /// The value of the label `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Batch => "batch",
            Self::Notice => "notice",
            Self::Mail => "mail",
        }
    }
}

/// The label for the outcome of an attempt.
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
        Err(SendFailure::Connection | SendFailure::Cut) => "connection",
        Err(SendFailure::Refused) => "refused",
        Err(SendFailure::InvalidUrl) => "invalid_url",
    }
}

/// What one transaction did with tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskTally {
    /// What it did with the tasks of each queue.
    pub queues: BTreeMap<QueueName, QueueTally>,
    /// How each of the ended tasks that a watch made ended.
    pub of_watches: Vec<(AppId, WatchTaskEnd)>,
}

/// What one transaction did with the tasks of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTally {
    /// How many tasks producers, follow-ups and schedules created.
    pub created: u64,
    /// How many tasks changes of watches became.
    pub handed_over: u64,
    /// Of each task that it handed out: how long the task was ready.
    pub queued: Vec<Duration>,
    /// Of each task that it ended: where the task stands, and the time since its creation.
    pub ended: Vec<(TaskState, Duration)>,
    /// How many claims ran out.
    pub run_out: u64,
}

/// How a task of a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchTaskEnd {
    /// Its worker completed it: its change is acknowledged.
    Succeeded,
    /// Its worker gave it up: its change is a dead letter.
    Failed,
    /// No attempt was left: its change is a dead letter.
    Dead,
    /// A person cancelled it: its change is a dead letter.
    Cancelled,
    /// Its round had ended early, so its end settled nothing.
    Overtaken,
}

impl WatchTaskEnd {
    /// All ends of tasks of watches, in the order of the label's values.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::Dead, Self::Cancelled, Self::Overtaken];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Overtaken => "overtaken",
        }
    }

    /// The reason of the dead letter that its change became.
    #[must_use]
    pub fn parks(self) -> Option<ParkReason> {
        match self {
            Self::Failed => Some(ParkReason::Rejected),
            Self::Dead => Some(ParkReason::Failing),
            Self::Cancelled => Some(ParkReason::Skipped),
            Self::Succeeded | Self::Overtaken => None,
        }
    }
}

/// How far watches are behind, and how many dead letters are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Served watches that are behind, by the first of [`LAG_BOUNDS`] that their lag does not pass;
    /// the last number is of those beyond all.
    pub behind: [u64; LAG_BOUNDS.len() + 1],
    /// The lags of all of them together, in milliseconds.
    pub lag_sum_ms: u64,
    /// The longest lag of a watch, in milliseconds.
    pub lag_max_ms: u64,
    /// Open dead letters by their reason.
    pub letters: BTreeMap<ParkReason, u64>,
    /// Apps with an endpoint and a watch that is behind for more than [`LATE`] although no branch of it is
    /// blocked and no breaker of its endpoint is open: the receiver is not the cause.
    pub apps_behind: u64,
    /// Watched sources whose last scan failed, by the kind of failure.
    pub sources_failing: BTreeMap<ScanTrouble, u64>,
    /// Tasks of all queues by where they stand.
    pub tasks: BTreeMap<TaskState, u64>,
    /// The same of each queue that the settings name.
    pub tasks_of: BTreeMap<QueueName, BTreeMap<TaskState, u64>>,
    /// Unfinished tasks that watches made, by where they stand.
    pub watch_tasks: BTreeMap<TaskState, u64>,
    /// Branches with an open round of which no further change becomes a task now, by the reason.
    pub hand_overs_waiting: BTreeMap<HandOverWait, u64>,
    /// When the task was created that is next in line in its queue, of the queues that are not paused the
    /// oldest such task; `None`: no task is ready.
    pub task_ready_since: Option<Timestamp>,
    /// The apps that are behind, those with the longest lag first; at most [`APPS_LATE_MAX`].
    pub apps_late: Vec<AppLate>,
}

/// Most apps that a survey tells the lag of.
pub const APPS_LATE_MAX: usize = 1_000;

/// How far a served app is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLate {
    /// The app that is behind.
    pub app: AppId,
    /// The age of its oldest unsettled change, in milliseconds.
    pub lag_ms: u64,
    /// Branches of it that are behind.
    pub behind: u64,
}

/// A branch of a watch whose app has been behind for a long time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// The app that is behind.
    pub app: AppId,
    /// The watch of the branch.
    pub watch: WatchId,
    /// The cursor of the branch.
    pub cursor: CursorId,
    /// The owner shown in bodies.
    pub owner: String,
    /// The name shown in bodies.
    pub name: String,
    /// The full name of the branch.
    pub branch: String,
    /// Whether rounds of the cursor are delivered, or why not.
    pub state: CursorState,
    /// Why the cursor is not active; `None` while it is.
    pub reason: Option<String>,
    /// The number of the open round; `None` while no round is open.
    pub open_round: Option<i64>,
    /// The moment of the oldest change that is not settled.
    pub since: Timestamp,
}
