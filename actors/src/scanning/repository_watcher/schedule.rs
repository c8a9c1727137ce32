//! When a source is polled next, pure: half the time since its last change, between the bounds,
//! doubled with each failure in a row, with 10 % of jitter so that sources of one host spread out.

use std::time::Duration;

use crate::ports::Random;

/// The bounds of the interval between two scans of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest interval between two scans.
    pub min: Duration,
    /// The longest interval between two scans.
    pub max: Duration,
}

/// The wait before the next poll.
#[must_use]
pub fn next_wait(unchanged_for: Duration, failures: u32, bounds: Bounds, random: &dyn Random) -> Duration {
    let calm = (unchanged_for / 2).clamp(bounds.min.min(bounds.max), bounds.max);
    let patient = calm.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(bounds.max.max(bounds.min));
    let jitter = u64::try_from(patient.as_millis() / 5).unwrap_or(u64::MAX);
    patient.mul_f64(0.9) + Duration::from_millis(random.below(jitter.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed(u64);
    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
        fn below(&self, bound: u64) -> u64 {
            self.0.min(bound.saturating_sub(1))
        }
    }

    const BOUNDS: Bounds = Bounds { min: Duration::from_secs(45), max: Duration::from_secs(300) };

    #[test]
    fn the_interval_is_half_the_calm_between_its_bounds() {
        let middle = |unchanged, failures| {
            let least = next_wait(Duration::from_secs(unchanged), failures, BOUNDS, &Fixed(0));
            least.div_f64(0.9).as_secs_f64().round()
        };
        for (unchanged, failures, expected) in [
            (0, 0, 45.0),
            (90, 0, 45.0),
            (200, 0, 100.0),
            (10_000, 0, 300.0),
            (0, 1, 90.0),
            (0, 2, 180.0),
            (0, 9, 300.0),
        ] {
            assert!(
                (middle(unchanged, failures) - expected).abs() < 0.5,
                "{unchanged} s, {failures} failures"
            );
        }
    }

    proptest! {
        #[test]
        fn jitter_is_ten_percent_and_no_more(
            unchanged in 0_u64..1_000_000,
            failures in 0_u32..100,
            roll in any::<u64>(),
        ) {
            let wait = next_wait(Duration::from_secs(unchanged), failures, BOUNDS, &Fixed(roll));
            prop_assert!(wait >= BOUNDS.min.mul_f64(0.9) && wait <= BOUNDS.max.mul_f64(1.101));
        }
    }
}
