//! Moments and spans as numbers. Wall-clock moments are unix milliseconds and come from
//! [`crate::ports::Clock`]; waits are measured on tokio's clock, which tests can pause.
//!
//! The wall clock may be set back. Then a stored moment lies further ahead than intended: code that waits for
//! a stored moment reads it through [`Timestamp::bounded`], and code that needs its age uses
//! [`Timestamp::is_within`].

use serde::{Deserialize, Serialize};
use std::time::Duration;

use ::time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};
use tokio::time::{Instant, sleep_until};

/// The clocks of replicas differ by less than this.
pub const CLOCKS_APART: Duration = Duration::from_secs(2);

/// ISO 8601 in UTC with milliseconds, as JavaScript writes moments.
const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Sleeps until a moment. Returns at once if it has come: a timer of the runtime fires at the next
/// millisecond, even if its moment has passed.
pub(crate) async fn reached(moment: Instant) {
    if Instant::now() < moment {
        sleep_until(moment).await;
    }
}

/// A wall-clock moment in unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `wait` after this one.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// `2026-01-01T00:00:00.000Z`; the first moment of 1970 for a number that is no moment.
    #[must_use]
    pub fn iso(self) -> String {
        let nanoseconds = i128::from(self.0) * 1_000_000;
        let moment =
            OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        moment.format(ISO).expect("the format has no part that can fail")
    }

    /// A moment of RFC 3339 (`2026-01-01T00:00:00Z`), any offset.
    #[must_use]
    pub fn parsed(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// The span from `earlier` to this moment; zero when the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment, but no later than `longest` after `now`: a moment further ahead was written before the
    /// clock was set back, and no wait may exceed its rule.
    #[must_use]
    pub fn bounded(self, now: Self, longest: Duration) -> Self {
        self.min(now.after(longest))
    }

    /// Whether this moment lies less than `span` before `now`. A moment further in the future than the clocks
    /// of replicas differ was written before the clock was set back: its age is unknown, so the answer is
    /// `false`.
    #[must_use]
    pub fn is_within(self, span: Duration, now: Self) -> bool {
        self <= now.after(CLOCKS_APART) && now.since(self) < span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_longer_than_the_rule_for_a_moment_of_a_clock_that_was_ahead() {
        let now = Timestamp(1_000_000);
        for (moment, expected) in [(900_000, 900_000), (1_059_999, 1_059_999), (90_000_000, 1_060_000)] {
            assert_eq!(Timestamp(moment).bounded(now, MINUTE), Timestamp(expected));
        }
    }

    #[test]
    fn a_moment_to_come_is_not_recent() {
        let now = Timestamp(1_000_000);
        for (moment, expected) in [(940_000, false), (940_001, true), (1_002_000, true), (1_002_001, false)] {
            assert_eq!(Timestamp(moment).is_within(MINUTE, now), expected, "{moment}");
        }
    }
}
