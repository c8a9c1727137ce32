//! How each source was looked at last and when it is looked at next: a board that the watchers of this
//! process write on and the front door reads. A poll that finds nothing writes no row, so all this is in
//! memory only: after a restart it is unknown until the next poll, and another replica knows its own.

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
    /// The scan that ended last, well or not; `None`: none did since this process began.
    pub last: Option<Arc<Scanned>>,
    /// When the next one is due; `None`: it waits for the probe of its breaker.
    pub next: Option<Timestamp>,
    /// Scans that failed in a row. One that the host put off did not fail.
    pub failures: u32,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
}

impl Polled {
    /// Which refs of a watch were too many to be listed, and why, where some were.
    #[must_use]
    pub fn unseen_of(&self, watch: &Watch) -> Option<(RefPatterns, &str)> {
        let unseen = self.last.as_ref()?.unseen.as_ref()?;
        let mut refs = watch.patterns();
        refs.retain(|pattern| unseen.refs.contains(pattern));
        (!refs.is_empty()).then_some((refs, unseen.reason.as_str()))
    }
}

/// A scan that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The end of the scan.
    pub at: Timestamp,
    /// From its turn at the host to the heads on disk.
    pub took: Duration,
    /// Bytes of the objects that it fetched, 0 where nothing moved; `None`: it failed.
    pub bytes: Option<u64>,
    /// `ok`, or the code of the error.
    pub outcome: &'static str,
    /// Why it failed, for people.
    pub reason: Option<String>,
    /// What it could not list.
    pub unseen: Option<Unseen>,
}

/// Refs that a listing left out because they are too many. Nothing is known of them: they count neither as
/// there nor as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Full names, and prefixes that end in `/`, of all apps that watch through the source.
    pub refs: RefPatterns,
    /// Why, for people.
    pub reason: String,
}

/// The board. Clones share it; it holds one small entry for each source that is watched here.
#[derive(Clone, Debug, Default)]
pub struct Polls(Arc<Mutex<HashMap<SourceId, Polled>>>);

impl Polls {
    /// How a source is polled, as far as this process knows.
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
