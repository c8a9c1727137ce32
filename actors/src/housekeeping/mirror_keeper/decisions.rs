//! The decisions of upkeep: when a mirror is rebuilt, which mirror drops its contents, and which share of
//! files is read again.

use std::time::Duration;

use tidings_entity::id::RepositoryId;

use crate::{
    context::policy::Policy,
    ports::{MirrorFacts, Share, Storage},
    time::Timestamp,
};

/// Places on the circle of [`Share`].
const PLACES: u128 = 65_536;

/// Whether a mirror is rebuilt: it has nearly as many packs as allowed, or nearly that many more shallow
/// commits than the `needed` commits explain. A fifth of `most` is left for the fetches that come before the
/// rebuilding.
#[must_use]
pub fn is_due(facts: &MirrorFacts, needed: usize, most: u64) -> bool {
    let due = most.saturating_sub(most / 5).max(1);
    facts.packs >= due || facts.shallow >= due.max(2 * needed as u64)
}

/// Whether a mirror is larger than a single mirror may be.
pub(super) fn is_over(facts: &MirrorFacts, policy: &Policy) -> bool {
    policy.mirror_max_bytes > 0 && facts.bytes > policy.mirror_max_bytes
}

/// Whether some mirror must give up its contents.
pub(super) fn is_short(storage: &Storage, policy: &Policy) -> bool {
    let is_over = policy.mirrors_max_bytes > 0 && storage.mirror_bytes > policy.mirrors_max_bytes;
    is_over || storage.fetches_stopped.is_some()
}

/// The mirrors that drop their contents while room is short, the least recently changed first. Mirrors
/// without contents are left out.
pub(super) fn victims(mirrors: &[(MirrorFacts, Timestamp)]) -> Vec<RepositoryId> {
    let mut full: Vec<_> =
        mirrors.iter().filter(|(facts, _)| facts.evicted_to.is_none_or(|left| facts.bytes > left)).collect();
    full.sort_by_key(|(facts, last_change)| (*last_change, std::cmp::Reverse(facts.bytes)));
    full.iter().map(|(facts, _)| facts.repository.clone()).collect()
}

/// The share to read at `now`, if the last one was read at `before` and all files are read once in `every`.
pub(super) fn share(before: Timestamp, now: Timestamp, every: Duration) -> Share {
    if now.since(before) >= every {
        return Share::Whole;
    }
    let place = |moment: Timestamp| {
        let cycle = every.as_millis().max(1);
        let into = u128::try_from(moment.0).unwrap_or(0) % cycle;
        u16::try_from(into * PLACES / cycle).expect("less than all places")
    };
    Share::Arc { from: place(before), to: place(now) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;

    fn facts(number: u128, bytes: u64, evicted_to: Option<u64>) -> MirrorFacts {
        let repository = RepositoryId::new(Ulid::from(number));
        MirrorFacts { repository, bytes, packs: 1, shallow: 1, evicted_to }
    }

    #[test]
    fn a_mirror_is_rebuilt_before_it_has_too_much_and_not_for_what_it_needs() {
        for (packs, shallow, needed, due) in [
            (39, 39, 1, false),
            (40, 1, 1, true),
            (1, 40, 1, true),
            // A watch of two hundred branches has as many commits without parents for good.
            (1, 200, 200, false),
            (1, 400, 200, true),
        ] {
            let facts = MirrorFacts { packs, shallow, ..facts(1, 1, None) };
            assert_eq!(is_due(&facts, needed, 50), due, "{packs} {shallow} {needed}");
        }
        assert!(is_due(&MirrorFacts { packs: 4, ..facts(1, 1, None) }, 0, 5));
    }

    #[test]
    fn the_least_recently_changed_gives_first_and_nobody_gives_twice() {
        let mirrors = [
            (facts(1, 10, None), Timestamp(30)),
            (facts(2, 10, None), Timestamp(10)),
            (facts(3, 20, None), Timestamp(10)),
            (facts(4, 10, Some(10)), Timestamp(1)),
            (facts(5, 11, Some(10)), Timestamp(2)),
        ];
        let expected: Vec<_> = [5, 3, 2, 1].map(|number| facts(number, 0, None).repository).into();
        assert_eq!(victims(&mirrors), expected);
    }

    #[test]
    fn room_is_short_above_the_quota_and_while_fetches_are_stopped() {
        let policy = Policy { mirrors_max_bytes: 100, mirror_max_bytes: 10, ..Policy::default() };
        let storage = |mirror_bytes, stopped: Option<&str>| Storage {
            mirror_bytes,
            fetches_stopped: stopped.map(str::to_owned),
            ..Storage::default()
        };
        assert!(!is_short(&storage(100, None), &policy));
        assert!(is_short(&storage(101, None), &policy));
        assert!(is_short(&storage(0, Some("the disk is full")), &policy));
        assert!(!is_short(&storage(u64::MAX, None), &Policy { mirrors_max_bytes: 0, ..Policy::default() }));
        assert!(is_over(&facts(1, 11, None), &policy) && !is_over(&facts(1, 10, None), &policy));
        assert!(!is_over(&facts(1, 11, None), &Policy { mirror_max_bytes: 0, ..policy }));
    }

    proptest! {
        #[test]
        fn looks_in_a_row_read_every_place_once_in_a_cycle(
            start in 0_i64..10_000_000_000_000,
            steps in prop::collection::vec(1_i64..40_000_000, 1..60),
            place: u16,
        ) {
            let every = Duration::from_secs(30 * 86_400);
            let (mut covered, mut now) = (0, Timestamp(start));
            for step in &steps {
                let next = Timestamp(now.0 + step);
                covered += u32::from(share(now, next, every).covers(place));
                now = next;
            }
            // What is left of the cycle in one step.
            let end = Timestamp(start + i64::try_from(every.as_millis()).expect("fits"));
            if now.since(Timestamp(start)) < every {
                let rest = share(now, end, every);
                covered += u32::from(rest.covers(place));
                prop_assert_eq!(covered, 1);
            } else {
                prop_assert!(covered >= 1);
            }
        }
    }

    #[test]
    fn after_a_whole_cycle_everything_is_read() {
        assert_eq!(share(Timestamp(5), Timestamp(1_005), Duration::from_secs(1)), Share::Whole);
        // A clock that went back reads nothing twice for it.
        let back = share(Timestamp(500), Timestamp(400), Duration::from_secs(1));
        assert!(back.covers(0) && !back.covers(30_000));
    }
}
