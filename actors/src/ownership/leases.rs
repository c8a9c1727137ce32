//! The number of shards that each replica should hold, pure: every replica decides for itself, from the same
//! rows, without messages. Each holds no more than its share; free shards are taken by replicas that have
//! less.

use std::time::Duration;

use crate::ports::{LeaseStanding, SHARDS};

/// A lease is not trusted in the last part of its life: one part in this number.
const MARGIN: u32 = 5;

/// How long a lease of this life is trusted, from the moment of the request for it. Trust ends before the
/// lease does, so that a slow answer shortens it and no two clocks are compared.
#[must_use]
pub fn trusted_for(life: Duration) -> Duration {
    life - life / MARGIN
}

/// The next step of a replica towards its share of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The replica has its share: it takes and gives nothing.
    Stay,
    /// The replica takes at most this number of free shards.
    Claim(usize),
    /// The replica gives away this number of shards.
    Release(usize),
}

/// Decides the next step of a replica. `held`: the shards that it holds and does not give away. A replica
/// that takes no shards gives away all.
#[must_use]
pub fn step(standing: &LeaseStanding, held: usize, works: bool) -> Step {
    let share = if works { SHARDS.div_ceil(standing.workers.max(1)) } else { 0 };
    if held > share {
        Step::Release(held - share)
    } else if held < share && standing.free > 0 {
        Step::Claim(standing.free.min(share - held))
    } else {
        Step::Stay
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(workers: usize, free: usize) -> LeaseStanding {
        LeaseStanding { workers, free, ..LeaseStanding::default() }
    }

    #[test]
    fn a_replica_takes_its_share_and_gives_away_what_is_more() {
        assert_eq!(step(&standing(1, 256), 0, true), Step::Claim(256));
        assert_eq!(step(&standing(2, 0), 256, true), Step::Release(128));
        assert_eq!(step(&standing(3, 10), 80, true), Step::Claim(6));
        assert_eq!(step(&standing(3, 2), 80, true), Step::Claim(2));
        assert_eq!(step(&standing(3, 0), 86, true), Step::Stay);
        assert_eq!(step(&standing(2, 0), 7, false), Step::Release(7));
    }

    proptest! {
        /// However shards lie at first, replicas that decide one after another reach shares that
        /// differ by no more than rounding, hold everything, and rest.
        #[test]
        fn replicas_come_to_rest_with_equal_shares(
            workers in 1_usize..9,
            cuts in proptest::collection::vec(0_usize..=SHARDS, 9),
        ) {
            let mut held = vec![0; workers];
            let mut free = SHARDS;
            for (own, cut) in held.iter_mut().zip(cuts) {
                *own = cut.min(free);
                free -= *own;
            }
            for _ in 0..3 {
                for own in &mut held {
                    match step(&standing(workers, free), *own, true) {
                        Step::Stay => {}
                        Step::Claim(count) => {
                            *own += count;
                            free -= count;
                        }
                        Step::Release(count) => {
                            *own -= count;
                            free += count;
                        }
                    }
                }
            }
            prop_assert_eq!(free, 0);
            prop_assert!(held.iter().all(|own| *own <= SHARDS.div_ceil(workers)), "{:?}", held);
            for own in &held {
                prop_assert_eq!(step(&standing(workers, 0), *own, true), Step::Stay);
            }
        }
    }
}
