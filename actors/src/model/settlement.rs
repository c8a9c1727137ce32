//! How the ends of the tasks of a watch settle its open round, pure. The store decides by these rules inside
//! its transactions, and the model in `actors/tests/task_model.rs` checks them in every interleaving.
//!
//! Tasks end in any order. The position of a round passes a change only when every change before it has
//! ended, so ends above the position are kept as ranges, which are joined with their neighbours.

use std::ops::Range;

/// How far a round is settled by the ends of its tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settlements {
    /// Every change before this position has ended.
    pub position: u64,
    /// Ranges above the position that have ended, in order; no two of them touch.
    pub above: Vec<Range<u64>>,
}

/// The number of changes in a round, and how many of them are deletes, which come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoundSize {
    /// The number of deletes, which are the first changes of the round.
    pub deletes: u64,
    /// The number of all changes of the round.
    pub total: u64,
}

impl RoundSize {
    /// The size of a round that became one task, as its tasks are counted.
    pub const ONE_TASK: Self = Self { deletes: 0, total: 1 };
}

impl Settlements {
    /// The settlements that rows say: the position of the round, and its ranges in their order.
    #[must_use]
    pub fn of_rows(position: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut settlements = Self { position, above: Vec::new() };
        for range in ranges {
            settlements.add(range);
        }
        settlements
    }

    /// Whether the change at this position has ended.
    #[must_use]
    pub fn holds(&self, position: u64) -> bool {
        position < self.position || self.above.iter().any(|range| range.contains(&position))
    }

    /// Settles the change at this position. `false`: the change was settled before.
    pub fn settle(&mut self, position: u64) -> bool {
        let is_new = !self.holds(position);
        self.add(position..position + 1);
        is_new
    }

    /// Settles every change of a round that became one task. `false`: they were settled before.
    pub fn settle_all(&mut self, total: u64) -> bool {
        let is_new = self.position < total;
        self.add(0..total);
        is_new
    }

    /// The first position that was never handed over, where `last` is the greatest position of a task of the
    /// round: changes are handed over in order, and each of them is a task or has ended.
    #[must_use]
    pub fn next(&self, last: Option<u64>) -> u64 {
        let ended = self.above.last().map_or(self.position, |range| range.end);
        ended.max(last.map_or(0, |last| last + 1))
    }

    /// The changes that may be handed over now: from `next` on, at most `room`. Creates and updates wait
    /// until every delete has ended.
    #[must_use]
    pub fn may_hand_over(&self, size: RoundSize, next: u64, room: u64) -> Range<u64> {
        let end = if self.position < size.deletes { size.deletes } else { size.total };
        next..end.min(next.saturating_add(room)).max(next)
    }

    fn add(&mut self, range: Range<u64>) {
        if range.start <= self.position {
            self.position = self.position.max(range.end);
        } else {
            self.above.push(range);
            self.above.sort_by_key(|range| range.start);
        }
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(self.above.len());
        for range in self.above.drain(..) {
            match joined.last_mut() {
                _ if range.start <= self.position => self.position = self.position.max(range.end),
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        self.above = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_any_order_move_the_position_only_over_what_has_ended() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let mut settlements = Settlements::default();
            let mut ended = [false; 4];
            for position in order {
                assert!(settlements.settle(position), "{order:?}: {position} ends for the first time");
                assert!(!settlements.settle(position), "{order:?}: {position} ends once");
                ended[usize::try_from(position).expect("small")] = true;
                let prefix = ended.iter().take_while(|ended| **ended).count() as u64;
                assert_eq!(settlements.position, prefix, "{order:?} after {position}");
                for (place, ended) in (0..).zip(ended) {
                    assert_eq!(settlements.holds(place), ended, "{order:?}: {place} after {position}");
                }
                let touching = settlements.above.windows(2).any(|two| two[0].end >= two[1].start);
                assert!(!touching, "{order:?}: {:?} are not joined", settlements.above);
            }
            assert_eq!(settlements, Settlements { position: 4, above: Vec::new() });
        }
    }

    #[test]
    fn the_one_task_of_a_round_settles_all_of_it_or_nothing() {
        let mut settlements = Settlements::default();
        assert_eq!(settlements.may_hand_over(RoundSize::ONE_TASK, settlements.next(None), 10), 0..1);
        assert_eq!(settlements.may_hand_over(RoundSize::ONE_TASK, settlements.next(Some(0)), 10), 1..1);
        assert!(settlements.settle_all(7) && !settlements.settle_all(7));
        assert_eq!(settlements, Settlements { position: 7, above: Vec::new() });
    }

    #[test]
    fn creates_wait_until_every_delete_has_ended() {
        let size = RoundSize { deletes: 2, total: 5 };
        let mut settlements = Settlements::default();
        assert_eq!(settlements.may_hand_over(size, 0, 10), 0..2);
        settlements.settle(1);
        assert_eq!(settlements.may_hand_over(size, settlements.next(Some(0)), 10), 2..2);
        settlements.settle(0);
        assert_eq!(settlements.may_hand_over(size, settlements.next(None), 2), 2..4);
        assert_eq!(settlements.may_hand_over(size, settlements.next(Some(3)), 10), 4..5);
        assert_eq!(settlements.may_hand_over(size, settlements.next(Some(4)), 10), 5..5);
    }
}
