//! Which wants share a request. All wants of a repository share one as long as the host sends each of them.
//! If the host refuses some and does not name them, a group is divided until the refused ones are known.
//! Commits that could not be fetched before are requested last, never together with new ones.

use std::collections::{BTreeSet, VecDeque};

use tidings_entity::id::ObjectId;

/// Most requests of one fetch. The remaining wants are requested by the next poll, without those that were
/// found to be bad.
const ASKED_MAX: usize = 40;
/// Most requests of one fetch for commits that could not be fetched before.
const ASKED_AGAIN_MAX: usize = 8;

/// The groups that are still to be asked for.
#[derive(Debug)]
pub(crate) struct Groups {
    waiting: VecDeque<Group>,
    asked: usize,
    asked_again: usize,
}

/// The wants of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) wants: Vec<ObjectId>,
    /// Whether these commits could not be fetched before.
    again: bool,
}

impl Groups {
    /// Groups of at most `together` new wants, and a group of one for each want in `again`.
    pub(crate) fn of(wants: Vec<ObjectId>, again: &BTreeSet<ObjectId>, together: usize) -> Self {
        let (again, fresh): (Vec<_>, Vec<_>) = wants.into_iter().partition(|want| again.contains(want));
        let fresh = fresh.chunks(together.max(1)).map(|wants| Group { wants: wants.to_vec(), again: false });
        let again = Some(again).filter(|wants| !wants.is_empty());
        let waiting = fresh.chain(again.map(|wants| Group { wants, again: true })).collect();
        Self { waiting, asked: 0, asked_again: 0 }
    }

    /// The next group to request; `None`: no group is left, or the limit of requests is reached.
    pub(crate) fn next(&mut self) -> Option<Group> {
        let group = self.waiting.front()?;
        if self.asked == ASKED_MAX || group.again && self.asked_again == ASKED_AGAIN_MAX {
            return None;
        }
        self.asked += 1;
        self.asked_again += usize::from(group.again);
        self.waiting.pop_front()
    }

    /// Asks for both halves of a group.
    pub(crate) fn divide(&mut self, mut group: Group) {
        let rest = group.wants.split_off(group.wants.len() / 2);
        self.waiting.push_front(Group { wants: rest, again: group.again });
        self.put_back(group);
    }

    /// Puts a group, or the rest of it, back, to be requested again.
    pub(crate) fn put_back(&mut self, group: Group) {
        if !group.wants.is_empty() {
            self.waiting.push_front(group);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The wants that were not requested.
    pub(crate) fn untried(self) -> Vec<ObjectId> {
        self.waiting.into_iter().flat_map(|group| group.wants).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u8>) -> Vec<ObjectId> {
        range.map(|byte| ObjectId::new([byte; 20])).collect()
    }

    #[test]
    fn fresh_wants_come_first_and_never_share_a_request_with_bad_ones() {
        let bad: BTreeSet<_> = ids(0..2).into_iter().collect();
        let mut groups = Groups::of(ids(0..7), &bad, 3);
        let asked: Vec<_> = std::iter::from_fn(|| groups.next()).map(|group| group.wants).collect();
        assert_eq!(asked, [ids(2..5), ids(5..7), ids(0..2)]);
        assert_eq!(groups.untried(), []);
    }

    #[test]
    fn one_bad_want_among_many_is_found_by_dividing() {
        let bad = ids(77..78)[0];
        let (mut groups, mut had, mut alone) = (Groups::of(ids(0..200), &BTreeSet::new(), 1_000), 0, None);
        while let Some(group) = groups.next() {
            if !group.wants.contains(&bad) {
                had += group.wants.len();
            } else if group.wants.len() == 1 {
                alone = Some(group.wants[0]);
            } else {
                groups.divide(group);
            }
        }
        assert_eq!((had, alone, groups.untried().len()), (199, Some(bad), 0));
    }

    #[test]
    fn what_is_bad_costs_a_bounded_number_of_requests_and_the_rest_is_said_to_be_untried() {
        let asked = |again: &BTreeSet<ObjectId>| {
            let (mut groups, mut asked, mut found) = (Groups::of(ids(0..100), again, 1_000), 0, 0);
            while let Some(group) = groups.next() {
                asked += 1;
                if group.wants.len() == 1 { found += 1 } else { groups.divide(group) }
            }
            assert_eq!(found + groups.untried().len(), 100);
            asked
        };
        assert_eq!(asked(&BTreeSet::new()), ASKED_MAX);
        assert_eq!(asked(&ids(0..100).into_iter().collect()), ASKED_AGAIN_MAX);
    }
}
