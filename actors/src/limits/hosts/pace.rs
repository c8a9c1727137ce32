//! The number of events per second at a host, pure: a burst may come at once, the rest evenly (the generic
//! cell rate algorithm: one moment is the whole state).

use std::time::Duration;

use tokio::time::Instant;

/// Evenly spaced events with a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// How far before its place something may come: the length of the row that may come at once.
    ahead: Duration,
    /// When the next event would be due if all came evenly.
    due: Instant,
}

impl Pace {
    /// Allows one event each `interval`, and at most `burst` events at once.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, ahead: interval.saturating_mul(burst.saturating_sub(1)), due: now }
    }

    /// When the next event may come.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        self.due.checked_sub(self.ahead).unwrap_or(now).max(now)
    }

    /// Takes the next place and returns its moment. Where `sharers` processes share the rate, places lie that
    /// many times as far apart.
    pub(super) fn reserve(&mut self, now: Instant, sharers: u32) -> Instant {
        let free = self.free_at(now);
        self.due = self.due.max(now) + self.interval.saturating_mul(sharers);
        free
    }

    /// Whether earlier events do not limit new ones any more.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.due <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_comes_at_once_and_the_rest_evenly() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), 10, now);
        let waits: Vec<_> = (0..13).map(|_| (pace.reserve(now, 1) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300]);
        assert_eq!((pace.free_at(now) - now).as_millis(), 400);
        let later = now + Duration::from_secs(60);
        assert!(pace.is_idle(later) && pace.free_at(later) == later);
    }

    #[tokio::test(start_paused = true)]
    async fn of_five_processes_each_takes_a_fifth_of_the_burst_and_of_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), 10, now);
        let waits: Vec<_> = (0..5).map(|_| (pace.reserve(now, 5) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 600, 1_100]);
    }
}
