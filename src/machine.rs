//! [`Clock`] and [`Random`] of the machine that this runs on: the only place that asks for the
//! wall clock.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use tidings_actors::{
    ports::{Clock, Random},
    time::Timestamp,
};
use tokio::time::Instant;
use tracing::warn;

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

/// The wall clock of this machine until another one is told, then that one: the moments that replicas
/// write and sign are those of one clock, however their own ones differ or are moved. Between two looks at
/// it, the time that passes is counted by a clock that nobody sets.
#[derive(Debug)]
pub struct SharedClock {
    start: Instant,
    /// What the followed clock said at `start`, in unix milliseconds; [`UNKNOWN`]: none is followed.
    base: AtomicI64,
}

/// No moment.
const UNKNOWN: i64 = i64::MIN;
/// A step that is smaller is none: answers travel.
const STEP_MIN: Duration = Duration::from_millis(50);
/// A step that is larger is worth a line in the log.
const STEP_TOLD: Duration = Duration::from_secs(2);

impl Default for SharedClock {
    fn default() -> Self {
        Self { start: Instant::now(), base: AtomicI64::new(UNKNOWN) }
    }
}

impl SharedClock {
    fn since_start(&self, at: Instant) -> i64 {
        let since = at.checked_duration_since(self.start).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        match self.base.load(Ordering::Relaxed) {
            UNKNOWN => MachineClock.now(),
            base => Timestamp(base.saturating_add(self.since_start(Instant::now()))),
        }
    }

    fn follow(&self, told: Timestamp, at: Instant, error: Duration) {
        let base = told.0.saturating_sub(self.since_start(at));
        let known = match self.base.load(Ordering::Relaxed) {
            UNKNOWN => MachineClock.now().0 - self.since_start(Instant::now()),
            known => {
                let step = Duration::from_millis(base.abs_diff(known));
                if step <= STEP_MIN.max(error) {
                    return;
                }
                known
            }
        };
        let step = Duration::from_millis(base.abs_diff(known));
        if step > STEP_TOLD {
            warn!(
                "the clock of the database differs from the one used so far by {step:?}: it is followed from now on"
            );
        }
        self.base.store(base, Ordering::Relaxed);
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

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_all_replicas_goes_on_whatever_the_machine_says() {
        let clock = SharedClock::default();
        assert!(clock.now() > Timestamp(1_700_000_000_000), "before anything is told, that of the machine");
        let (hour, far) = (Duration::from_secs(3_600), Timestamp(4_000_000_000_000));
        clock.follow(far, Instant::now(), Duration::ZERO);
        tokio::time::advance(hour).await;
        assert_eq!(clock.now(), Timestamp(far.0 + 3_600_000));
        // An answer that travelled for long says little.
        clock.follow(Timestamp(far.0 + 3_601_000), Instant::now(), Duration::from_secs(2));
        clock.follow(Timestamp(far.0 + 3_600_020), Instant::now(), Duration::ZERO);
        assert_eq!(clock.now(), Timestamp(far.0 + 3_600_000));
        clock.follow(Timestamp(far.0 + 3_601_000), Instant::now(), Duration::from_millis(5));
        assert_eq!(clock.now(), Timestamp(far.0 + 3_601_000));
        // Set back as well.
        clock.follow(far, Instant::now(), Duration::ZERO);
        assert_eq!(clock.now(), far);
    }

    #[test]
    fn the_clock_counts_milliseconds_and_randomness_differs() {
        assert!(MachineClock.now() > Timestamp(1_700_000_000_000));
        let (mut one, mut other) = ([0; 32], [0; 32]);
        MachineRandom.fill(&mut one);
        MachineRandom.fill(&mut other);
        assert_ne!(one, other);
    }
}
