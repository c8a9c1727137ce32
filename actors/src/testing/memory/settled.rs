//! Settled ranges of the in-memory store.

use std::{collections::HashMap, ops::Range, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::CursorId;

use crate::ports::SettledRange;

/// Settled ranges of each round, shared by all copies of the state: a copy of them for each write would be
/// dear.
#[derive(Clone, Default)]
pub(super) struct Settled(Arc<Mutex<Ranges>>);

type Ranges = HashMap<(CursorId, i64), Vec<SettledRange>>;

impl Settled {
    pub(super) fn add(&self, cursor: &CursorId, round: i64, range: SettledRange) {
        self.ranges().entry((cursor.clone(), round)).or_default().push(range);
    }

    /// Joins ranges that were settled above the prefix with the prefix that has reached them.
    pub(super) fn absorb(&self, cursor: &CursorId, round: i64, prefix: Range<u64>) {
        if let Some(own) = self.ranges().get_mut(&(cursor.clone(), round)) {
            for range in own.iter_mut().filter(|range| prefix.contains(&range.from)) {
                range.from = prefix.end;
            }
            own.retain(|range| range.from < range.to);
        }
    }

    pub(super) fn of(&self, cursor: &CursorId, round: i64, range: &Range<u64>) -> Vec<SettledRange> {
        let ranges = self.ranges();
        let own = ranges.get(&(cursor.clone(), round)).into_iter().flatten().copied();
        let mut touching: Vec<_> = own.filter(|one| one.from < range.end && one.to > range.start).collect();
        touching.sort_by_key(|one| one.from);
        touching
    }

    pub(super) fn count(&self, cursor: &CursorId, round: i64) -> u64 {
        self.ranges().get(&(cursor.clone(), round)).map_or(0, |own| own.len() as u64)
    }

    /// Removes at most `limit` ranges of a round; how many.
    pub(super) fn remove(&self, cursor: &CursorId, round: i64, limit: u64) -> u64 {
        let mut ranges = self.ranges();
        let Some(own) = ranges.get_mut(&(cursor.clone(), round)) else { return 0 };
        let gone = own.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        own.drain(..gone);
        gone as u64
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.0.lock()
    }
}
