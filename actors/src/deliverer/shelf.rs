//! Cursors of one app that have something to do and no lane, pure: those that wait for room, and
//! those that rest because they can do nothing for a while. An id and a moment each: an app may
//! have a hundred thousand of them. Those that wait are taken in turn, from one end of the ids to the
//! other and again, so that none is forgotten because others are pending again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use tidings_entity::id::CursorId;
use tokio::time::Instant;

/// The shelf.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    waiting: BTreeSet<CursorId>,
    resting: BTreeMap<CursorId, Instant>,
    last: Option<CursorId>,
}

impl Shelf {
    /// It waits for room.
    pub(super) fn put(&mut self, cursor: CursorId) {
        self.resting.remove(&cursor);
        self.waiting.insert(cursor);
    }

    /// It rests until then.
    pub(super) fn rest(&mut self, cursor: CursorId, until: Instant) {
        self.resting.insert(cursor, until);
    }

    /// Whether it rests.
    pub(super) fn rests(&self, cursor: &CursorId) -> bool {
        self.resting.contains_key(cursor)
    }

    /// The next one that waits for room.
    pub(super) fn take(&mut self) -> Option<CursorId> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((after, Bound::Unbounded)).next().or_else(|| self.waiting.first());
        let next = next.cloned()?;
        self.waiting.remove(&next);
        self.last = Some(next.clone());
        Some(next)
    }

    /// Whether its rest is over; then it waits for room.
    pub(super) fn wake(&mut self, cursor: &CursorId, now: Instant) -> bool {
        let is_over = self.resting.get(cursor).is_some_and(|until| *until <= now);
        if is_over {
            self.put(cursor.clone());
        }
        is_over
    }

    /// All rests are over.
    pub(super) fn wake_all(&mut self) {
        self.waiting.extend(std::mem::take(&mut self.resting).into_keys());
    }

    /// Whether nobody waits for room.
    pub(super) fn nobody_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing is on it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.resting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cursor(number: u128) -> CursorId {
        CursorId::new(ulid::Ulid::from_parts(1, number))
    }

    #[test]
    fn who_waits_is_taken_in_turn_however_often_others_come_back() {
        let mut shelf = Shelf::default();
        (1..=4).for_each(|number| shelf.put(cursor(number)));
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(shelf.take().expect("one waits"));
            shelf.put(cursor(1));
        }
        assert_eq!(taken, [cursor(1), cursor(2), cursor(3), cursor(4)]);
        assert_eq!((shelf.take(), shelf.take()), (Some(cursor(1)), None));
    }

    #[test]
    fn who_rests_is_not_taken_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut shelf = Shelf::default();
        shelf.rest(cursor(1), later);
        assert!(shelf.nobody_waits() && !shelf.is_empty() && shelf.rests(&cursor(1)));
        assert!(!shelf.wake(&cursor(1), now) && shelf.take().is_none());
        assert!(shelf.wake(&cursor(1), later) && !shelf.rests(&cursor(1)));
        assert_eq!(shelf.take(), Some(cursor(1)));
        shelf.rest(cursor(2), later);
        shelf.wake_all();
        assert_eq!((shelf.take(), shelf.is_empty()), (Some(cursor(2)), true));
    }
}
