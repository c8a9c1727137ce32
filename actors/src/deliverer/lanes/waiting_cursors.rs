//! Cursors of one app that have something to do but no lane, pure: cursors that wait for room, and cursors
//! that rest because they can do nothing for a while. Each costs an id and a moment: an app may have a
//! hundred thousand. Waiting cursors are taken in the order of their ids, round and round, so that none is
//! forgotten because others become pending again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use tidings_entity::id::CursorId;
use tokio::time::Instant;

/// Cursors with pending changes and no lane in memory.
#[derive(Debug, Default)]
pub(in crate::deliverer) struct WaitingCursors {
    waiting: BTreeSet<CursorId>,
    resting: BTreeMap<CursorId, Rest>,
    last: Option<CursorId>,
}

/// The rest of a cursor.
#[derive(Debug)]
struct Rest {
    until: Instant,
    /// Whether the cursor waits for tasks that are claimed or end, which may happen before.
    is_for_tasks: bool,
}

impl WaitingCursors {
    /// Notes that a cursor waits for room.
    pub(in crate::deliverer) fn put(&mut self, cursor: CursorId) {
        self.resting.remove(&cursor);
        self.waiting.insert(cursor);
    }

    /// Notes that a cursor rests until a moment; `is_for_tasks`: or until tasks are claimed or end.
    pub(in crate::deliverer) fn rest(&mut self, cursor: CursorId, until: Instant, is_for_tasks: bool) {
        self.resting.insert(cursor, Rest { until, is_for_tasks });
    }

    /// How many cursors rest.
    pub(in crate::deliverer) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Lets the rests of cursors that wait for tasks end at this moment at the latest. Returns those whose
    /// rest was longer.
    pub(in crate::deliverer) fn shorten(&mut self, latest: Instant) -> Vec<CursorId> {
        let longer = self.resting.iter_mut().filter(|(_, rest)| rest.is_for_tasks && rest.until > latest);
        let shortened = longer.map(|(cursor, rest)| {
            rest.until = latest;
            cursor.clone()
        });
        shortened.collect()
    }

    /// Whether this cursor rests until a later moment.
    pub(in crate::deliverer) fn rests(&self, cursor: &CursorId) -> bool {
        self.resting.contains_key(cursor)
    }

    /// Takes the next cursor that waits for room.
    pub(in crate::deliverer) fn take(&mut self) -> Option<CursorId> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((after, Bound::Unbounded)).next().or_else(|| self.waiting.first());
        let next = next.cloned()?;
        self.waiting.remove(&next);
        self.last = Some(next.clone());
        Some(next)
    }

    /// Moves the cursor to those that wait for room if its rest is over. Returns whether it is.
    pub(in crate::deliverer) fn wake(&mut self, cursor: &CursorId, now: Instant) -> bool {
        let is_over = self.resting.get(cursor).is_some_and(|rest| rest.until <= now);
        if is_over {
            self.put(cursor.clone());
        }
        is_over
    }

    /// Ends all rests: every resting cursor waits for room.
    pub(in crate::deliverer) fn wake_all(&mut self) {
        self.waiting.extend(std::mem::take(&mut self.resting).into_keys());
    }

    /// Whether no cursor waits for room.
    pub(in crate::deliverer) fn nobody_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no cursor waits or rests.
    pub(in crate::deliverer) fn is_empty(&self) -> bool {
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
        let mut waiting_cursors = WaitingCursors::default();
        (1..=4).for_each(|number| waiting_cursors.put(cursor(number)));
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(waiting_cursors.take().expect("one waits"));
            waiting_cursors.put(cursor(1));
        }
        assert_eq!(taken, [cursor(1), cursor(2), cursor(3), cursor(4)]);
        assert_eq!((waiting_cursors.take(), waiting_cursors.take()), (Some(cursor(1)), None));
    }

    #[test]
    fn who_rests_is_not_taken_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut waiting_cursors = WaitingCursors::default();
        waiting_cursors.rest(cursor(1), later, false);
        assert!(
            waiting_cursors.nobody_waits()
                && !waiting_cursors.is_empty()
                && waiting_cursors.rests(&cursor(1))
        );
        assert!(!waiting_cursors.wake(&cursor(1), now) && waiting_cursors.take().is_none());
        assert!(waiting_cursors.wake(&cursor(1), later) && !waiting_cursors.rests(&cursor(1)));
        assert_eq!(waiting_cursors.take(), Some(cursor(1)));
        waiting_cursors.rest(cursor(2), later, false);
        waiting_cursors.wake_all();
        assert_eq!((waiting_cursors.take(), waiting_cursors.is_empty()), (Some(cursor(2)), true));
    }

    #[test]
    fn a_rest_ends_sooner_where_the_cursor_waits_for_tasks() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(60));
        let mut waiting_cursors = WaitingCursors::default();
        waiting_cursors.rest(cursor(1), later, true);
        waiting_cursors.rest(cursor(2), later, false);
        assert_eq!((waiting_cursors.resting(), waiting_cursors.shorten(soon)), (2, vec![cursor(1)]));
        let shorter = now + Duration::from_secs(2);
        assert!(waiting_cursors.shorten(shorter).is_empty(), "a second word makes no rest longer");
        assert!(waiting_cursors.wake(&cursor(1), soon) && !waiting_cursors.wake(&cursor(2), soon));
        assert_eq!(waiting_cursors.take(), Some(cursor(1)));
    }
}
