//! The results of a survey: the numbers of the whole database, of all Git hosts, and of the actors of this
//! process.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::kind::BreakerKind;

use super::Backlog;
use crate::{ports::Storage, time::Timestamp};

/// Counts over the whole database, for the overview of the staff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// The number of registered apps.
    pub apps: u64,
    /// Apps that are disabled: nothing is sent to them.
    pub apps_disabled: u64,
    /// Sinks of watches and of subscriptions, callbacks left out, that are disabled: nothing is sent to them.
    pub sinks_disabled: u64,
    /// Repositories with a watch.
    pub repositories: u64,
    /// The number of watches, paused ones included.
    pub watches: u64,
    /// Cursors that are behind their head.
    pub behind: u64,
    /// Cursors that are blocked.
    pub blocked: u64,
    /// The number of open rounds.
    pub open_rounds: u64,
    /// The number of open dead letters.
    pub dead_letters: u64,
    /// Breakers that are open.
    pub open_breakers: u64,
    /// Subscriptions that are blocked.
    pub subscriptions_blocked: u64,
    /// Worker subscriptions that have not ended.
    pub worker_subscriptions: u64,
    /// Age of the oldest unsettled change in milliseconds.
    pub lag_ms: u64,
}

/// The numbers of all Git hosts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostsSurvey {
    /// Scans that wait for their turn.
    pub waiting: u64,
    /// Scans that have their turn now.
    pub scanning: u64,
    /// Hosts at which scans wait longer than they should: `git.host_rate` or
    /// `git.host_concurrency` binds, intervals stretch.
    pub stretched: u64,
    /// Hosts that asked for patience.
    pub patient: u64,
    /// Hosts that gave no answer to the last scan.
    pub silent: u64,
}

/// The actors of one role, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSurvey {
    /// The number of actors that run.
    pub running: u64,
    /// The number of actors that wait for their restart.
    pub waiting: u64,
    /// The number of messages in all their mailboxes.
    pub mailbox: u64,
    /// The number of messages in the fullest mailbox.
    pub mailbox_max: u64,
    /// Restarts since the process began.
    pub restarts: u64,
}

/// The state of a breaker, in a word.
pub type BreakerWord = &'static str;

/// The supervision tree in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeSurvey {
    /// The actors of each role, in numbers.
    pub roles: BTreeMap<&'static str, RoleSurvey>,
    /// The number of breakers with failures, by what they guard and by their state.
    pub breakers: BTreeMap<(BreakerKind, BreakerWord), u64>,
    /// The number of lanes in memory.
    pub lanes: u64,
    /// The number of pipelines of attempts in flight.
    pub in_flight: u64,
}

/// The results of one survey, from which gauges are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// When the survey was made.
    pub at: Timestamp,
    /// How long the survey took.
    pub took: Duration,
    /// The numbers of the overview.
    pub totals: Totals,
    /// Branches that are behind, and dead letters.
    pub backlog: Backlog,
    /// Disk space of the mirrors.
    pub storage: Storage,
    /// Requests to Git hosts, and scans that wait for them.
    pub hosts: HostsSurvey,
    /// Actors, breakers and lanes of this process.
    pub tree: TreeSurvey,
}
