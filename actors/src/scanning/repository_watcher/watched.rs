//! The state that a watcher keeps for each of its sources, and for the scan under way. A cache: after a crash
//! each source is polled soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidings_entity::id::{SourceId, WatchId};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use super::hooks::Gap;
use crate::{
    ports::{Cause, Source},
    scanning::{listing::Wide, scan_worker::Calm},
    signals::polls::{HostPause, Scanned},
};

/// Whether the breaker of a source lets scans through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The source is due at this moment.
    Due { at: Instant },
    /// The breaker is open; only a permitted probe is scanned, as soon as no other scan is running.
    Rejecting { probe: bool },
}

/// A place in the line of the host, which is left when the value is dropped.
pub(super) struct InLine {
    pub(super) _place: oneshot::Sender<()>,
}

/// Whether a scan of the repository is running.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanning {
    /// No scan is running.
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

    /// Remembers a poke until the scan ends. `false`: no scan is running.
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

/// A source and the knowledge from its scans.
pub(super) struct Watched {
    pub(super) source: Arc<Source>,
    pub(super) mode: Mode,
    /// Whether an app, an operator or a new watch waits for the scan.
    pub(super) urgent: bool,
    pub(super) in_line: Option<InLine>,
    pub(super) failures: u32,
    /// The pause that the host asked for, until the next scan begins.
    pub(super) pause: Option<HostPause>,
    /// Absent refs, and the moment since when each of them is absent.
    pub(super) missing: BTreeMap<String, Instant>,
    /// How the next scan lists the refs, if they are many.
    pub(super) wide: Option<Box<Wide>>,
    /// The last listing, if it left nothing to do; forgotten with each reading of the rows.
    pub(super) calm: Option<Calm>,
    /// The rows of the source were read since its last scan began.
    pub(super) is_read_anew: bool,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub(super) left_out: BTreeMap<WatchId, u64>,
    /// The public text of the failure that the rows may name; `None`: its last scan succeeded.
    pub(super) failing: Option<String>,
    /// The span of the last scan: notices belong to its trace.
    pub(super) last_scan: Option<Cause>,
    /// The result of the last scan, for people.
    pub(super) scanned: Option<Arc<Scanned>>,
    /// Keeps the pokes apart that hooks of its apps lead to.
    pub(super) gap: Gap,
    /// Whether a poke came during the scan of this source: the source is due again when that scan ends.
    pub(super) is_poked: bool,
}

impl Watched {
    /// Makes the source due `soon`, before sources that were not poked.
    pub(super) fn poke(&mut self, soon: Instant) {
        if let Mode::Due { at } = &mut self.mode {
            *at = soon.min(*at);
            if !std::mem::replace(&mut self.urgent, true) {
                // Its place in line is among sources that were not poked: it lines up again.
                self.in_line = None;
            }
        }
    }

    /// Forgets what would spare the next scan a look at the rows or at some refs.
    pub(super) fn look_at_all(&mut self) {
        (self.calm, self.is_read_anew) = (None, true);
        self.wide = self.wide.take().filter(|wide| !wide.rests());
    }

    /// Stores the results of a scan other than heads. A scan that `is_partial` said nothing about the refs
    /// that `wide` leaves out.
    pub(super) fn take(
        &mut self,
        missing: BTreeSet<String>,
        (wide, is_partial): (Option<Box<Wide>>, bool),
        left_out: Option<BTreeMap<WatchId, u64>>,
    ) {
        self.wide = wide;
        self.take_missing(missing, is_partial);
        let Some(left_out) = left_out else { return };
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

    /// Stores the absent refs. Each ref has its own clock: it was absent in two listings that far apart,
    /// whatever other refs appear and vanish. The clock of a ref that a scan left out goes on.
    fn take_missing(&mut self, absent: BTreeSet<String>, is_partial: bool) {
        let (mut before, now) = (std::mem::take(&mut self.missing), Instant::now());
        let since = |name: &String| before.get(name).copied().unwrap_or(now);
        self.missing = absent.into_iter().map(|name| (name.clone(), since(&name))).collect();
        if let Some(wide) = self.wide.as_ref().filter(|_| is_partial) {
            before.retain(|name, _| wide.leaves_out(name));
            self.missing.extend(before);
        }
    }
}
