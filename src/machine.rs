//! [`Clock`] and [`Random`] of the machine that this runs on: the only place that asks for the
//! wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use tidings_actors::{
    ports::{Clock, Random},
    time::Timestamp,
};

/// The wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineClock;

impl Clock for MachineClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everyone else takes as a parameter"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The secure random numbers of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineRandom;

impl Random for MachineRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_milliseconds_and_randomness_differs() {
        assert!(MachineClock.now() > Timestamp(1_700_000_000_000));
        let (mut one, mut other) = ([0; 32], [0; 32]);
        MachineRandom.fill(&mut one);
        MachineRandom.fill(&mut other);
        assert_ne!(one, other);
    }
}
