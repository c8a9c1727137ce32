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

/// The clock of this process: the wall clock of this machine, until a shared clock is followed. Then all
/// replicas write and sign moments of one clock, even if their machines' clocks differ or are set. Between
/// two readings of the shared clock, time is counted by a monotonic clock. If no clock is followed, the
/// machine's clock is used even after it was set back, and the log says so.
#[derive(Debug)]
pub struct SharedClock {
    start: Instant,
    /// The machine's last wall clock reading, less the time since `start`; [`UNKNOWN`]: not read yet.
    own: AtomicI64,
    /// The followed clock's reading at `start`, in unix milliseconds; [`UNKNOWN`]: no clock is followed.
    base: AtomicI64,
}

/// The value of a moment that is not known.
const UNKNOWN: i64 = i64::MIN;
/// Smaller differences are ignored, because readings take time to travel.
const STEP_MIN: Duration = Duration::from_millis(50);
/// A step that is larger is worth a line in the log.
const STEP_TOLD: Duration = Duration::from_secs(2);

impl Default for SharedClock {
    fn default() -> Self {
        Self { start: Instant::now(), own: AtomicI64::new(UNKNOWN), base: AtomicI64::new(UNKNOWN) }
    }
}

impl SharedClock {
    fn since_start(&self, at: Instant) -> i64 {
        let since = at.checked_duration_since(self.start).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// The machine's clock says so; by how much it was set back since it was asked last, if by much.
    fn heed(&self, said: Timestamp, at: Instant) -> Option<Duration> {
        let base = said.0.saturating_sub(self.since_start(at));
        let known = self.own.load(Ordering::Relaxed);
        if known != UNKNOWN && Duration::from_millis(base.abs_diff(known)) <= STEP_MIN {
            return None;
        }
        self.own.store(base, Ordering::Relaxed);
        let back = Duration::from_millis(u64::try_from(known.saturating_sub(base)).unwrap_or(0));
        (known != UNKNOWN && back > STEP_TOLD).then_some(back)
    }

    fn machine(&self) -> Timestamp {
        let said = MachineClock.now();
        if let Some(back) = self.heed(said, Instant::now()) {
            warn!(
                "the clock of this machine was set back by {back:?}; what waits for a moment waits no longer \
                 than it may"
            );
        }
        said
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        match self.base.load(Ordering::Relaxed) {
            UNKNOWN => self.machine(),
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
                "the clock of the database differs from the one used so far by {step:?}: it is followed from \
                 now on"
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
    async fn the_clock_of_all_replicas_follows_the_database_and_not_the_machine() {
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

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_is_told_of_once_and_one_that_drifts_is_not() {
        let clock = SharedClock::default();
        let start = Timestamp(1_800_000_000_000);
        let heed = |milliseconds: i64| clock.heed(Timestamp(start.0 + milliseconds), Instant::now());
        assert_eq!(heed(0), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((heed(59_900), heed(60_100)), (None, None), "it drifts");
        assert_eq!(heed(-39_900), Some(Duration::from_secs(100)));
        assert_eq!(heed(-39_900), None);
        assert_eq!(heed(3_600_000), None, "set forward");
        assert_eq!(heed(60_000), Some(Duration::from_secs(3_540)));
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
