//! How many of an app's attempts may be retries, pure: a receiver that fails on half of its deliveries must
//! not get twice as many requests. A retry costs one unit; each first attempt earns [`SHARE`] of a unit, each
//! second [`A_SECOND`] units. A lane without enough units waits; nothing is dropped.
//!
//! So in `s` seconds at most `MOST + A_SECOND * s + SHARE * first attempts` attempts are retries. Probes are
//! not counted: their breaker spaces them.

use std::time::Duration;

use tokio::time::Instant;

/// The most that is saved up.
const MOST: f64 = 10.0;
/// Units earned per second: a receiver with a single failing lane gets its retries without a wait.
const A_SECOND: f64 = 5.0;
/// Units earned per first attempt.
const SHARE: f64 = 0.2;

/// The retries that an app may still make, as a number that grows with time and first attempts.
#[derive(Clone, Copy, Debug)]
pub(in crate::deliverer) struct RetryBudget {
    saved: f64,
    at: Instant,
}

impl RetryBudget {
    /// Creates a budget with all of its [`MOST`] retries.
    #[must_use]
    pub(in crate::deliverer) fn new(now: Instant) -> Self {
        Self { saved: MOST, at: now }
    }

    /// A change is tried for the first time.
    pub(in crate::deliverer) fn on_first_try(&mut self) {
        self.saved = (self.saved + SHARE).min(MOST);
    }

    /// Pays for a retry, if there is enough.
    pub(in crate::deliverer) fn pay(&mut self, now: Instant) -> bool {
        self.earn(now);
        let enough = self.saved >= 1.0;
        if enough {
            self.saved -= 1.0;
        }
        enough
    }

    /// The longest wait until the budget suffices for a retry.
    #[must_use]
    pub(in crate::deliverer) fn wait(&mut self, now: Instant) -> Duration {
        self.earn(now);
        // Timers are whole milliseconds.
        Duration::from_secs_f64((1.0 - self.saved).max(0.0) / A_SECOND) + Duration::from_millis(1)
    }

    fn earn(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.saved = (self.saved + since * A_SECOND).min(MOST);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_share_of_retries_is_bounded(
            steps in proptest::collection::vec((0_u64..300, any::<bool>()), 1..2_000),
        ) {
            let began = Instant::now();
            let (mut now, mut budget) = (began, RetryBudget::new(began));
            let (mut first, mut retries) = (0_u32, 0_u32);
            for (wait, is_retry) in steps {
                now += Duration::from_millis(wait);
                if is_retry {
                    retries += u32::from(budget.pay(now));
                } else {
                    budget.on_first_try();
                    first += 1;
                }
                let most = MOST + A_SECOND * (now - began).as_secs_f64() + SHARE * f64::from(first);
                prop_assert!(f64::from(retries) <= most + 0.001, "{retries} retries, {first} first tries");
            }
        }

        #[test]
        fn who_waits_as_long_as_it_was_told_can_pay(spent in 0_u32..40, passed in 0_u64..3_000) {
            let now = Instant::now();
            let mut budget = RetryBudget::new(now);
            for _ in 0..spent {
                budget.pay(now);
            }
            let later = now + Duration::from_millis(passed);
            let due = later + budget.wait(later);
            prop_assert!(budget.pay(due));
        }
    }
}
