//! The causes of coming work: the hook or the request that asked for a scan, the scan that found changes for
//! a cursor. The actor that knows a cause stores it here, and the actor that does the work takes it, so that
//! one trace goes from the hook or the poll to the receiver's answer, although a sleeping actor and its rows
//! lie in between.
//!
//! In memory only and bounded: beyond `KEPT` entries, and after a restart, work has a trace of its own.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tidings_entity::id::{CursorId, RepositoryId};

use crate::ports::Cause;

/// Most causes that wait of each kind; about 60 bytes each.
const KEPT: usize = 16_384;

/// The causes that were not taken yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    scans: Arc<Mutex<HashMap<RepositoryId, Cause>>>,
    lanes: Arc<Mutex<HashMap<CursorId, Cause>>>,
}

impl Causes {
    /// Why this repository is to be scanned soon. Of several causes the first counts.
    pub fn of_scan(&self, repository: &RepositoryId, cause: Option<Cause>) {
        leave(&self.scans, repository, cause);
    }

    /// Takes the cause of a scan that begins.
    #[must_use]
    pub fn scan_begins(&self, repository: &RepositoryId) -> Option<Cause> {
        take(&self.scans, repository)
    }

    /// Why this cursor has something to do.
    pub fn of_lane(&self, cursor: &CursorId, cause: Option<Cause>) {
        leave(&self.lanes, cursor, cause);
    }

    /// Takes the cause of a lane that opens.
    #[must_use]
    pub fn lane_opens(&self, cursor: &CursorId) -> Option<Cause> {
        take(&self.lanes, cursor)
    }
}

fn leave<K: Clone + Eq + Hash>(causes: &Mutex<HashMap<K, Cause>>, key: &K, cause: Option<Cause>) {
    let Some(cause) = cause else { return };
    let mut causes = causes.lock();
    if causes.len() < KEPT && !causes.contains_key(key) {
        causes.insert(key.clone(), cause);
    }
}

fn take<K: Eq + Hash>(causes: &Mutex<HashMap<K, Cause>>, key: &K) -> Option<Cause> {
    causes.lock().remove(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(number: u8) -> Cause {
        Cause { trace: [number; 16], span: [number; 8], is_sampled: true }
    }

    fn repository(number: u64) -> RepositoryId {
        RepositoryId::new(ulid::Ulid::from_parts(number, 1))
    }

    #[test]
    fn the_first_cause_counts_and_is_taken_once() {
        let causes = Causes::default();
        causes.of_scan(&repository(1), None);
        causes.of_scan(&repository(1), Some(cause(1)));
        causes.of_scan(&repository(1), Some(cause(2)));
        assert_eq!(causes.scan_begins(&repository(2)), None);
        assert_eq!(causes.scan_begins(&repository(1)), Some(cause(1)));
        assert_eq!(causes.scan_begins(&repository(1)), None);
    }

    #[test]
    fn causes_that_nobody_takes_are_bounded() {
        let causes = Causes::default();
        for number in 0..2 * KEPT as u64 {
            causes.of_scan(&repository(number), Some(cause(1)));
        }
        assert_eq!(causes.scans.lock().len(), KEPT);
    }
}
