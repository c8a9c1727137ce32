//! The last and the next poll of each source: the watchers of this process write here, and the HTTP handlers
//! read. A poll without a change writes no row, so this is in memory only: after a restart a source is
//! unknown until its next poll, and each replica knows only its own sources.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidings_entity::id::{SourceId, WatchId};

use crate::{
    ports::{RefPatterns, Watch},
    time::Timestamp,
};

/// The polls of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// The scan that ended last, successful or not; `None`: none has ended since this process started.
    pub last: Option<Arc<Scanned>>,
    /// When the next poll is due; `None`: the source waits for the probe of its breaker.
    pub next: Option<Timestamp>,
    /// The pause that keeps this source from being polled; `None`: the host asked for none.
    pub pause: Option<HostPause>,
    /// Scans that failed in a row. A scan that the host postponed did not fail.
    pub failures: u32,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
}

impl Polled {
    /// The refs of a watch that could not be listed or read, and the reason; `None`: all refs are known.
    #[must_use]
    pub fn unseen_of(&self, watch: &Watch) -> Option<(RefPatterns, &str)> {
        let unseen = self.last.as_ref()?.unseen.as_ref()?;
        let patterns = watch.patterns();
        let is_followed = |name: &String| {
            let is_below = |pattern: &String| pattern.ends_with('/') && name.starts_with(pattern.as_str());
            patterns.iter().any(|pattern| pattern == name || is_below(pattern))
        };
        let refs: RefPatterns = unseen.refs.iter().filter(|name| is_followed(name)).cloned().collect();
        (!refs.is_empty()).then_some((refs, unseen.reason.as_str()))
    }
}

/// A Git host asked one credential to wait. All sources with that credential wait, also those whose own
/// requests were answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPause {
    /// The end of the pause.
    pub until: Timestamp,
    /// Whether requests without a credential wait.
    pub is_anonymous: bool,
}

/// A scan that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The end of the scan.
    pub at: Timestamp,
    /// The time from the turn at the host to the heads on disk.
    pub took: Duration,
    /// Bytes of the objects that the scan fetched, 0 if no ref moved; `None`: the scan failed.
    pub bytes: Option<u64>,
    /// `ok`, or the code of the error.
    pub outcome: &'static str,
    /// The reason for the failure, in words for people; `None`: the scan succeeded.
    pub reason: Option<String>,
    /// The refs that the scan could not list.
    pub unseen: Option<Unseen>,
}

/// Refs that a listing left out because there are too many. They count neither as present nor as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Full names, and prefixes that end in `/`, of all apps that watch through the source.
    pub refs: RefPatterns,
    /// Why the refs were left out, as a sentence for people.
    pub reason: String,
}

/// The polls of all sources. Clones share them; there is one small entry for each source that is watched
/// here.
#[derive(Clone, Debug, Default)]
pub struct Polls(Arc<Mutex<HashMap<SourceId, Polled>>>);

impl Polls {
    /// The polls of a source, as far as this process knows.
    #[must_use]
    pub fn of(&self, source: &SourceId) -> Option<Polled> {
        self.0.lock().get(source).cloned()
    }

    /// Notes how a source is polled.
    pub(crate) fn note(&self, source: &SourceId, polled: Polled) {
        self.0.lock().insert(source.clone(), polled);
    }

    /// A source is not watched here any more.
    pub(crate) fn forget(&self, source: &SourceId) {
        self.0.lock().remove(source);
    }
}
