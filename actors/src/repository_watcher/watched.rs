//! What a watcher remembers of each of its sources, and of the one scan that is on its way. A cache: a
//! crash loses it, and each source is polled soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidings_entity::id::{SourceId, WatchId};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use crate::{
    polls::Scanned,
    ports::{Cause, RefPatterns, Source},
    scan_worker::Calm,
};

/// Whether the breaker of a source lets scans through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The source is due at this moment.
    Due { at: Instant },
    /// The breaker is open; only a permitted probe goes, as soon as no other scan is on its way.
    Rejecting { probe: bool },
}

/// A place in line at the host, given up when dropped.
pub(super) struct InLine {
    pub(super) _place: oneshot::Sender<()>,
}

/// The one scan of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanning {
    /// No scan is on its way.
    None,
    /// This source is being scanned.
    Running(SourceId),
    /// This source is being scanned, and a poke came after the scan began: all sources are due when it ends.
    RunningThenPoke(SourceId),
}

impl Scanning {
    /// The source that is being scanned.
    pub(super) fn source(&self) -> Option<&SourceId> {
        match self {
            Self::None => None,
            Self::Running(source) | Self::RunningThenPoke(source) => Some(source),
        }
    }

    /// Keeps a poke until the scan ends. `false`: no scan is on its way.
    pub(super) fn poke_after(&mut self) -> bool {
        match std::mem::replace(self, Self::None) {
            Self::None => false,
            Self::Running(source) | Self::RunningThenPoke(source) => {
                *self = Self::RunningThenPoke(source);
                true
            }
        }
    }

    /// The scan ended. `true`: a poke came after it began.
    pub(super) fn end(&mut self) -> bool {
        matches!(std::mem::replace(self, Self::None), Self::RunningThenPoke(_))
    }
}

/// A source and what is known of its scans.
pub(super) struct Watched {
    pub(super) source: Arc<Source>,
    pub(super) mode: Mode,
    /// Somebody waits for it: a poke, or a new watch.
    pub(super) urgent: bool,
    pub(super) in_line: Option<InLine>,
    pub(super) failures: u32,
    /// Refs that are absent, and since when each of them is.
    pub(super) missing: BTreeMap<String, Instant>,
    /// What its apps followed together when that was more than one listing may say.
    pub(super) wide: Option<Vec<RefPatterns>>,
    /// The last listing, where it left nobody anything to do; forgotten with each look at the rows.
    pub(super) calm: Option<Calm>,
    /// The rows of the source were read since its last scan began.
    pub(super) is_read_anew: bool,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub(super) left_out: BTreeMap<WatchId, u64>,
    /// The public text of the failure that the rows may name; `None`: its last scan succeeded.
    pub(super) failing: Option<String>,
    /// Where the last scan stands in its trace: notices follow from it.
    pub(super) last_scan: Option<Cause>,
    /// What came of it, for people.
    pub(super) scanned: Option<Arc<Scanned>>,
}

impl Watched {
    /// Remembers what a scan said beside heads.
    pub(super) fn take(
        &mut self,
        missing: BTreeSet<String>,
        wide: Option<Vec<RefPatterns>>,
        left_out: BTreeMap<WatchId, u64>,
    ) {
        self.take_missing(missing);
        self.wide = wide;
        for (watch, count) in left_out.iter().filter(|(watch, _)| !self.left_out.contains_key(*watch)) {
            warn!(
                watch.id = %watch,
                count,
                "{count} refs that the pattern of {watch} matches are not followed: \
                 git.pattern_refs_max binds"
            );
        }
        self.left_out = left_out;
    }

    /// Remembers what is absent. Each ref has a clock of its own: whatever else comes and goes, it was absent
    /// in two listings that far apart.
    fn take_missing(&mut self, absent: BTreeSet<String>) {
        let (before, now) = (std::mem::take(&mut self.missing), Instant::now());
        let since = |name: &String| before.get(name).copied().unwrap_or(now);
        self.missing = absent.into_iter().map(|name| (name.clone(), since(&name))).collect();
    }
}
