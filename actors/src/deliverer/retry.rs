//! The meaning of an answer, and when the change is tried again, pure.
//!
//! An endpoint failure means that the receiver as a whole does not work: it counts for the breaker and never
//! parks a change. A redirect is an endpoint failure: it is never followed, and the address is wrong, not the
//! change. All other failures are answers to this one change. A refusal parks the change and does not count.
//! A doubtful answer or a failure of the receiver parks the change after a few tries and counts: several
//! parked changes in a row mean that the receiver is misconfigured or broken.

pub(super) mod retry_budget;

use std::{ops::RangeInclusive, time::Duration};

use tidings_entity::kind::{ParkReason, RetryPolicy};

use crate::{
    context::policy::Policy,
    ports::{DeliverySettings, Random, SendFailure},
};

/// Attempts of a change whose answer may differ a moment later (401, 403, 404, 405, 409, 423).
pub const QUICK_TRIES: u32 = 3;
/// The wait between those attempts: all of them lie within 5 s.
pub const QUICK_WAIT: Duration = Duration::from_millis(2_400);
/// Tries of a change on which the receiver fails (5xx).
pub const FAILING_TRIES: u32 = 8;
/// For this long after its first delivery was due, a new watch waits on answers that come from a client
/// which has not saved its registration yet, until its first 2xx.
pub const REGISTRATION_GRACE: Duration = Duration::from_secs(120);
/// The answers that it waits on.
const EARLY: [u16; 5] = [400, 401, 403, 404, 409];
/// The longest wait between attempts during the grace of a new watch.
const REGISTRATION_WAIT_LAST: Duration = Duration::from_secs(10);
/// The longest wait between two probes of a cursor that the answers of its receiver blocked.
pub const PROBE_WAIT_LAST: Duration = Duration::from_secs(300);
/// The longest wait between tries of a change on which the receiver fails.
pub const FAILING_WAIT_LAST: Duration = Duration::from_secs(60);

/// The meaning of an answer for the change and the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took the change (2xx).
    Acknowledged,
    /// 410: the app is gone for good, and nothing is sent to it any more.
    Gone,
    /// The endpoint as a whole fails.
    Endpoint,
    /// The receiver refuses this change for good.
    Refused,
    /// The receiver's present state does not allow this change (409, 423).
    Contested,
    /// The receiver does not know the request or the caller (401, 403, 404, 405): either this change or the
    /// receiver's configuration is wrong.
    Doubtful,
    /// The receiver fails on this change.
    Failing,
}

impl Verdict {
    /// Whether the verdict is about the change, and not about the endpoint.
    #[must_use]
    pub fn is_of_the_item(self) -> bool {
        matches!(self, Self::Refused | Self::Contested | Self::Doubtful | Self::Failing)
    }
}

/// Maps a status code, or the failure of an attempt, to its meaning.
#[must_use]
pub fn verdict(result: Result<u16, SendFailure>) -> Verdict {
    match result {
        Ok(200..=299) => Verdict::Acknowledged,
        Ok(410) => Verdict::Gone,
        Ok(408 | 425 | 429 | 502..=504) | Err(_) => Verdict::Endpoint,
        Ok(409 | 423) => Verdict::Contested,
        Ok(401 | 403..=405) => Verdict::Doubtful,
        Ok(400..=499) => Verdict::Refused,
        Ok(500..=599) => Verdict::Failing,
        Ok(_) => Verdict::Endpoint,
    }
}

/// The waits between the attempts of one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// How the wait grows with each failed attempt.
    pub policy: RetryPolicy,
    /// The wait after the first failed attempt.
    pub base: Duration,
    /// The longest wait; a longer `Retry-After` is cut to it.
    pub cap: Duration,
    /// How long endpoint failures are retried before the cursor is blocked.
    pub window: Duration,
}

impl RetryRules {
    /// The rules of a sink: its own settings, and the server's policy where they are not set.
    #[must_use]
    pub fn of(delivery: &DeliverySettings, policy: &Policy) -> Self {
        let or = |milliseconds: Option<u64>, default| milliseconds.map_or(default, Duration::from_millis);
        Self {
            policy: delivery.retry_policy,
            base: or(delivery.retry_base_ms, policy.retry_base),
            cap: or(delivery.retry_cap_ms, policy.retry_cap),
            window: or(delivery.retry_window_ms, policy.retry_window),
        }
    }

    /// The wait after `tries` failures (at least 1).
    #[must_use]
    pub fn wait(&self, tries: u32, asked: Option<Duration>, random: &dyn Random) -> Duration {
        self.wait_within(Duration::ZERO..=self.cap, tries, asked, random)
    }

    /// The wait where the app's own policy must lie within a span; a requested wait may exceed the span.
    #[must_use]
    pub fn wait_within(
        &self,
        span: RangeInclusive<Duration>,
        tries: u32,
        asked: Option<Duration>,
        random: &dyn Random,
    ) -> Duration {
        let doubled =
            self.base.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(31))).min(self.cap);
        let some_of = |span: Duration| {
            let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(random.below(milliseconds.saturating_add(1)))
        };
        let wait = match self.policy {
            RetryPolicy::Fixed => self.base,
            RetryPolicy::Linear => self.base.saturating_mul(tries),
            RetryPolicy::Exponential => doubled,
            RetryPolicy::ExpFullJitter => some_of(doubled),
            RetryPolicy::ExpEqualJitter => doubled / 2 + some_of(doubled / 2),
        };
        let own = wait.min(self.cap).max(*span.start()).min(*span.end());
        own.max(asked.unwrap_or_default().min(self.cap))
    }
}

/// Failed attempts of one change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// The number of all failed attempts.
    pub all: u32,
    /// The number of attempts that failed because of the change, not of the endpoint.
    pub item: u32,
    /// The time since the first failed attempt.
    pub since_first: Duration,
}

/// The decision after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait.
    Retry(Duration),
    /// Park the change: no further attempt is made.
    Park {
        /// The reason that the dead letter shows.
        reason: ParkReason,
        /// Whether the park counts among the parks in a row that block a cursor.
        counted: bool,
    },
    /// Block the cursor, and try again after this wait.
    Block(Duration),
}

/// The reason why only the head of a cursor is sent, as a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The endpoint failed for the whole retry window, or does not accept `/resync`.
    Endpoint,
    /// Too many counted parks in a row.
    Streak,
    /// The app refused too many changes and has never acknowledged a change.
    Refusals,
}

/// The facts that decide what follows a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The meaning of the answer. An endpoint failure that counts as a failure of the change is
    /// [`Verdict::Failing`].
    pub verdict: Verdict,
    /// Failed attempts, including this one.
    pub tries: Tries,
    /// The status code of the answer; `None` if no answer came.
    pub status: Option<u16>,
    /// Whether the watch is new, so that its receiver may not be ready yet.
    pub in_grace: bool,
    /// The present block of the cursor.
    pub block: Option<Block>,
    /// The wait that the `Retry-After` header asked for.
    pub retry_after: Option<Duration>,
}

/// Decides what follows a failed attempt.
#[must_use]
pub fn decide(now: Circumstances, rules: &RetryRules, random: &dyn Random) -> Decision {
    let wait = |span| Decision::Retry(rules.wait_within(span, now.tries.all, now.retry_after, random));
    let quick = Decision::Retry(QUICK_WAIT.max(now.retry_after.unwrap_or_default().min(rules.cap)));
    let park = |reason, counted| Decision::Park { reason, counted };
    let is_early = now.in_grace && now.status.is_some_and(|status| EARLY.contains(&status));
    let refusal_ends_it = now.block != Some(Block::Refusals);
    match now.verdict {
        Verdict::Endpoint if now.block.is_none() && now.tries.since_first >= rules.window => {
            Decision::Block(rules.cap)
        }
        Verdict::Endpoint | Verdict::Gone | Verdict::Acknowledged => wait(Duration::ZERO..=rules.cap),
        _ if is_early => wait(rules.base.min(REGISTRATION_WAIT_LAST)..=REGISTRATION_WAIT_LAST),
        Verdict::Refused if refusal_ends_it => park(ParkReason::Rejected, false),
        Verdict::Contested if refusal_ends_it && now.tries.item < QUICK_TRIES => quick,
        Verdict::Contested if refusal_ends_it => park(ParkReason::Rejected, false),
        _ if now.block.is_some() => wait(Duration::ZERO..=PROBE_WAIT_LAST),
        Verdict::Doubtful if now.tries.item < QUICK_TRIES => quick,
        Verdict::Doubtful | Verdict::Refused | Verdict::Contested => park(ParkReason::Rejected, true),
        Verdict::Failing if now.tries.item < FAILING_TRIES => wait(Duration::ZERO..=FAILING_WAIT_LAST),
        Verdict::Failing => park(ParkReason::Failing, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SendFailure;
    use proptest::prelude::*;

    struct Most;
    impl Random for Most {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
        fn below(&self, bound: u64) -> u64 {
            bound.saturating_sub(1)
        }
    }

    const RULES: RetryRules = RetryRules {
        policy: RetryPolicy::ExpFullJitter,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(3600),
        window: Duration::from_secs(72 * 3600),
    };

    #[test]
    fn every_answer_has_its_meaning() {
        for (status, expected) in [
            (200, Verdict::Acknowledged),
            (204, Verdict::Acknowledged),
            (299, Verdict::Acknowledged),
            (100, Verdict::Endpoint),
            (302, Verdict::Endpoint),
            (400, Verdict::Refused),
            (401, Verdict::Doubtful),
            (402, Verdict::Refused),
            (403, Verdict::Doubtful),
            (404, Verdict::Doubtful),
            (405, Verdict::Doubtful),
            (406, Verdict::Refused),
            (407, Verdict::Refused),
            (408, Verdict::Endpoint),
            (409, Verdict::Contested),
            (410, Verdict::Gone),
            (411, Verdict::Refused),
            (413, Verdict::Refused),
            (415, Verdict::Refused),
            (422, Verdict::Refused),
            (423, Verdict::Contested),
            (424, Verdict::Refused),
            (425, Verdict::Endpoint),
            (429, Verdict::Endpoint),
            (431, Verdict::Refused),
            (451, Verdict::Refused),
            (500, Verdict::Failing),
            (501, Verdict::Failing),
            (502, Verdict::Endpoint),
            (503, Verdict::Endpoint),
            (504, Verdict::Endpoint),
            (505, Verdict::Failing),
            (999, Verdict::Endpoint),
        ] {
            assert_eq!(verdict(Ok(status)), expected, "{status}");
        }
        assert_eq!(verdict(Err(SendFailure::Timeout)), Verdict::Endpoint);
    }

    fn circumstances(verdict: Verdict, item: u32, since_first: u64) -> Circumstances {
        Circumstances {
            verdict,
            tries: Tries { all: item.max(1), item, since_first: Duration::from_secs(since_first) },
            status: Some(418),
            in_grace: false,
            block: None,
            retry_after: None,
        }
    }

    fn parked(reason: ParkReason, counted: bool) -> Decision {
        Decision::Park { reason, counted }
    }

    #[test]
    fn a_refusal_parks_at_once_and_does_not_count() {
        let decision = decide(circumstances(Verdict::Refused, 1, 0), &RULES, &Most);
        assert_eq!(decision, parked(ParkReason::Rejected, false));
    }

    #[test]
    fn answers_that_may_change_are_asked_for_three_times_within_five_seconds() {
        for (verdict, counted) in [(Verdict::Contested, false), (Verdict::Doubtful, true)] {
            let mut waited = Duration::ZERO;
            for tries in 1..QUICK_TRIES {
                match decide(circumstances(verdict, tries, 0), &RULES, &Most) {
                    Decision::Retry(wait) => waited += wait,
                    other => panic!("{other:?}"),
                }
            }
            assert!(waited <= Duration::from_secs(5), "{waited:?}");
            let last = decide(circumstances(verdict, QUICK_TRIES, 4), &RULES, &Most);
            assert_eq!(last, parked(ParkReason::Rejected, counted));
        }
    }

    #[test]
    fn in_the_grace_of_a_new_watch_early_answers_wait_and_others_do_not() {
        for status in 400..600 {
            let mut early = circumstances(verdict(Ok(status)), 50, 119);
            (early.in_grace, early.status) = (true, Some(status));
            let waits = matches!(decide(early, &RULES, &Most), Decision::Retry(_));
            let expected = match early.verdict {
                Verdict::Endpoint | Verdict::Gone => true,
                _ => EARLY.contains(&status),
            };
            assert_eq!(waits, expected, "{status}");
        }
    }

    #[test]
    fn an_endpoint_failure_never_parks_and_blocks_after_the_window() {
        let soon = decide(circumstances(Verdict::Endpoint, 10_000, 72 * 3600 - 1), &RULES, &Most);
        assert!(matches!(soon, Decision::Retry(_)));
        let late = decide(circumstances(Verdict::Endpoint, 0, 72 * 3600), &RULES, &Most);
        assert_eq!(late, Decision::Block(RULES.cap));
    }

    #[test]
    fn a_blocked_cursor_is_probed_every_five_minutes_and_a_refusal_parks_unless_it_is_what_blocks() {
        for block in [Block::Streak, Block::Refusals] {
            for verdict in [Verdict::Doubtful, Verdict::Failing, Verdict::Refused, Verdict::Contested] {
                let mut blocked = circumstances(verdict, 1_000, 100 * 3600);
                blocked.block = Some(block);
                let refuses = matches!(verdict, Verdict::Refused | Verdict::Contested);
                match decide(blocked, &RULES, &Most) {
                    Decision::Retry(wait) => {
                        assert!(!refuses || block == Block::Refusals, "{block:?}, {verdict:?}");
                        assert!(wait <= PROBE_WAIT_LAST);
                    }
                    decision => {
                        assert!(refuses && block == Block::Streak, "{block:?}, {verdict:?}");
                        assert_eq!(decision, parked(ParkReason::Rejected, false));
                    }
                }
            }
        }
        let mut endpoint = circumstances(Verdict::Endpoint, 1_000, 100 * 3600);
        endpoint.block = Some(Block::Endpoint);
        assert_eq!(decide(endpoint, &RULES, &Most), Decision::Retry(RULES.cap));
    }

    /// Draws the middle of what is asked for.
    struct Middle;
    impl Random for Middle {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x80);
        }
        fn below(&self, bound: u64) -> u64 {
            bound / 2
        }
    }

    /// The waits after each of the first ten failures and after very many, in milliseconds.
    fn waits(policy: RetryPolicy, random: &dyn Random) -> Vec<u128> {
        let rules = RetryRules { policy, cap: Duration::from_secs(60), ..RULES };
        let tries = (1..=10).chain([1_000, u32::MAX]);
        tries.map(|tries| rules.wait(tries, None, random).as_millis()).collect()
    }

    #[test]
    fn each_policy_has_its_waits() {
        use RetryPolicy::{ExpEqualJitter, ExpFullJitter, Exponential, Fixed, Linear};
        const CAP: u128 = 60_000;
        let doubling = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, CAP, CAP, CAP, CAP, CAP, CAP];
        let rising = [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000, CAP, CAP];
        let (quarters, halves) = (doubling.map(|wait| wait * 3 / 4), doubling.map(|wait| wait / 2));
        for (policy, random, expected) in [
            (Fixed, &Middle as &dyn Random, [1_000; 12]),
            (Linear, &Middle, rising),
            (Exponential, &Middle, doubling),
            (ExpFullJitter, &Middle, halves),
            (ExpEqualJitter, &Middle, quarters),
            // The bounds of what is drawn.
            (ExpFullJitter, &Least, [0; 12]),
            (ExpFullJitter, &Most, doubling),
            (ExpEqualJitter, &Least, halves),
            (ExpEqualJitter, &Most, doubling),
            // Without jitter nothing is drawn.
            (Fixed, &Most, [1_000; 12]),
            (Linear, &Least, rising),
            (Exponential, &Most, doubling),
        ] {
            assert_eq!(waits(policy, random), expected, "{policy:?}");
        }
        assert_eq!(RetryPolicy::ALL, [Fixed, Linear, Exponential, ExpFullJitter, ExpEqualJitter]);
    }

    struct Least;
    impl Random for Least {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
        fn below(&self, _bound: u64) -> u64 {
            0
        }
    }

    #[test]
    fn what_was_asked_for_is_waited_for_under_every_policy_up_to_the_cap() {
        let second = Duration::from_secs(1);
        for &policy in RetryPolicy::ALL {
            let rules = RetryRules { policy, cap: 60 * second, ..RULES };
            for (asked, least) in [
                (Duration::ZERO, Duration::ZERO),
                (Duration::from_millis(1), Duration::from_millis(1)),
                (second * 17, second * 17),
                (second * 60, second * 60),
                (second * 61, second * 60),
                (Duration::MAX, second * 60),
            ] {
                for random in [&Least as &dyn Random, &Middle, &Most] {
                    let own = rules.wait(1, None, random);
                    assert_eq!(rules.wait(1, Some(asked), random), own.max(least), "{policy:?}, {asked:?}");
                }
            }
        }
    }

    /// What follows an endpoint failure, by the seconds since the first one, under each policy.
    #[test]
    fn every_policy_goes_on_to_the_end_of_its_window() {
        let window = Duration::from_secs(600);
        for &policy in RetryPolicy::ALL {
            let rules = RetryRules { policy, window, cap: Duration::from_secs(60), ..RULES };
            for (since, item, blocks) in [(0, 0, false), (599, 0, false), (600, 0, true), (601, 3, true)] {
                let mut failure = circumstances(Verdict::Endpoint, item, since);
                failure.retry_after = Some(Duration::from_secs(3_600));
                let decision = decide(failure, &rules, &Least);
                let expected = if blocks { Decision::Block(rules.cap) } else { Decision::Retry(rules.cap) };
                assert_eq!(decision, expected, "{policy:?}, {since} s");
            }
        }
    }

    #[test]
    fn a_refused_or_failing_change_is_not_tried_before_what_it_asked_for() {
        for (verdict, asked, waited) in [
            (Verdict::Contested, 1, 2_400),
            (Verdict::Contested, 30, 30_000),
            (Verdict::Doubtful, 30, 30_000),
            (Verdict::Failing, 1, 1_000),
            (Verdict::Failing, 30, 30_000),
            (Verdict::Failing, 3_000, 3_000_000),
            (Verdict::Failing, 4_000, 3_600_000),
        ] {
            let mut failure = circumstances(verdict, 1, 0);
            failure.retry_after = Some(Duration::from_secs(asked));
            let decision = decide(failure, &RULES, &Least);
            assert_eq!(decision, Decision::Retry(Duration::from_millis(waited)), "{verdict:?}, {asked} s");
        }
        let mut early = circumstances(Verdict::Refused, 1, 0);
        (early.in_grace, early.status, early.retry_after) = (true, Some(400), Some(Duration::from_secs(300)));
        assert_eq!(decide(early, &RULES, &Least), Decision::Retry(Duration::from_secs(300)));
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_nothing_and_the_cap(
            tries in 1_u32..100_000, policy in 0_usize..5, asked in 0_u64..100_000,
        ) {
            let rules = RetryRules { policy: RetryPolicy::ALL[policy], ..RULES };
            let wait = rules.wait(tries, Some(Duration::from_secs(asked)), &Most);
            prop_assert!(wait <= rules.cap);
            prop_assert!(wait >= Duration::from_secs(asked).min(rules.cap));
        }
    }
}
