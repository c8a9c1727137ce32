//! The state machine of a circuit breaker, pure: closed flows, open rejects, half-open lets one
//! probe through. It opens after `threshold` failures in a row, probes after `first_wait`, doubled
//! with each failed probe up to `last_wait`, and closes at the first success.

use std::time::Duration;

use crate::{
    context::policy::BreakerPolicy,
    time::{CLOCKS_APART, Timestamp},
};

/// The state of a breaker, with its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests flow; failures are counted.
    Closed,
    /// Requests wait until the next probe is due.
    Open {
        /// When the breaker left the closed state.
        opened_at: Timestamp,
        /// When the next probe is due.
        probe_at: Timestamp,
    },
    /// One probe is in flight; other requests wait.
    HalfOpen {
        /// When the breaker left the closed state.
        opened_at: Timestamp,
        /// When the probe counts as lost, and another probe may go.
        lost_at: Timestamp,
    },
}

/// The effect of an input on the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The input changed nothing that other actors need to know.
    None,
    /// The breaker was closed and opened now.
    Opened,
    /// A probe failed: the breaker stays open, with a longer wait.
    StillOpen,
    /// The breaker was open and closed now.
    Closed,
}

/// A breaker: its policy, its state and the number of failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: BreakerState,
    failures: u32,
    /// The longest time until the next deadline, also where the wall clock is set back meanwhile.
    wait: Duration,
}

impl Breaker {
    /// Creates a closed breaker without failures.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerState::Closed, failures: 0, wait: Duration::ZERO }
    }

    /// Restores a breaker from its row. The wait for its next probe may be as long as `longest_wait`, which a
    /// peer can ask for; if the clock was set back since the breaker opened, only the wait of the policy
    /// counts.
    #[must_use]
    pub fn restored(
        policy: BreakerPolicy,
        failures: u32,
        opened_at: Option<Timestamp>,
        probe_at: Option<Timestamp>,
        longest_wait: Duration,
        now: Timestamp,
    ) -> Self {
        let (state, wait) = match opened_at {
            None => (BreakerState::Closed, Duration::ZERO),
            Some(opened_at) => {
                let was_set_back = opened_at > now.after(CLOCKS_APART);
                let wait = if was_set_back { policy.wait(failures) } else { longest_wait };
                (BreakerState::Open { opened_at, probe_at: probe_at.unwrap_or(opened_at) }, wait)
            }
        };
        Self { policy, state, failures, wait }
    }

    /// Keeps deadlines within their wait after the clock was set back. Returns whether the next deadline
    /// moved.
    pub fn bound(&mut self, now: Timestamp) -> bool {
        let due = match &mut self.state {
            BreakerState::Closed => return false,
            BreakerState::Open { probe_at, .. } => probe_at,
            BreakerState::HalfOpen { lost_at, .. } => lost_at,
        };
        let bounded = due.bounded(now, self.wait);
        std::mem::replace(due, bounded) != bounded
    }

    /// The present state of the breaker.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A permitted try failed; the peer may ask for a longer wait.
    pub fn on_failure(&mut self, now: Timestamp, asked_wait: Option<Duration>) -> Transition {
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.policy.threshold {
            return Transition::None;
        }
        let wait = self.policy.wait(self.failures).max(asked_wait.unwrap_or_default());
        let probe_at = now.after(wait);
        let (opened_at, transition) = match self.state {
            BreakerState::Closed => (now, Transition::Opened),
            // Failures of attempts that were in flight when the breaker opened change nothing.
            BreakerState::Open { opened_at, .. } => (opened_at, Transition::None),
            BreakerState::HalfOpen { opened_at, .. } => (opened_at, Transition::StillOpen),
        };
        if transition == Transition::None {
            self.failures -= 1;
            return transition;
        }
        (self.state, self.wait) = (BreakerState::Open { opened_at, probe_at }, wait);
        transition
    }

    /// Records that a permitted attempt or scan succeeded: the breaker closes.
    pub fn on_success(&mut self) -> Transition {
        self.failures = 0;
        match std::mem::replace(&mut self.state, BreakerState::Closed) {
            BreakerState::Closed => Transition::None,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => Transition::Closed,
        }
    }

    /// Whether a probe may go now; if so it is in flight, and counts as lost after `deadline`.
    pub fn try_probe(&mut self, now: Timestamp, deadline: Duration) -> bool {
        let opened_at = match self.state {
            BreakerState::Open { opened_at, probe_at } if now >= probe_at => opened_at,
            BreakerState::HalfOpen { opened_at, lost_at } if now >= lost_at => opened_at,
            _ => return false,
        };
        self.state = BreakerState::HalfOpen { opened_at, lost_at: now.after(deadline) };
        self.wait = deadline;
        true
    }

    /// Takes back a probe that was not sent, so that another may go now. Returns whether one was in flight.
    pub fn give_probe_back(&mut self, now: Timestamp) -> bool {
        let BreakerState::HalfOpen { opened_at, .. } = self.state else { return false };
        (self.state, self.wait) = (BreakerState::Open { opened_at, probe_at: now }, Duration::ZERO);
        true
    }

    /// Makes the next probe due now. Returns whether the probe was due later.
    pub fn hasten(&mut self, now: Timestamp) -> bool {
        match &mut self.state {
            BreakerState::Open { probe_at, .. } if *probe_at > now => *probe_at = now,
            _ => return false,
        }
        self.wait = Duration::ZERO;
        true
    }

    /// When something may happen next; `None` while it is closed.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        match self.state {
            BreakerState::Closed => None,
            BreakerState::Open { probe_at, .. } => Some(probe_at),
            BreakerState::HalfOpen { lost_at, .. } => Some(lost_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const POLICY: BreakerPolicy = BreakerPolicy {
        threshold: 3,
        first_wait: Duration::from_secs(5),
        last_wait: Duration::from_secs(60),
    };

    /// Plays `fail`, `ok`, `wait 5s`, `probe` and writes down what each led to.
    fn check(script: &str, expected: Expect) {
        let mut breaker = Breaker::new(POLICY);
        let mut now = Timestamp(0);
        let mut seen = Vec::new();
        for step in script.split_whitespace() {
            let word = match step.split_once(':').unwrap_or((step, "")) {
                ("fail", _) => format!("{:?}", breaker.on_failure(now, None)),
                ("busy", wait) => {
                    format!(
                        "{:?}",
                        breaker.on_failure(now, Some(Duration::from_secs(wait.parse().expect("seconds"))))
                    )
                }
                ("ok", _) => format!("{:?}", breaker.on_success()),
                ("asked", _) => format!("{}", breaker.hasten(now)),
                ("back", _) => format!("{}", breaker.give_probe_back(now)),
                ("probe", _) => format!("{}", breaker.try_probe(now, Duration::from_secs(30))),
                ("bound", _) => format!("{}", breaker.bound(now)),
                ("set", seconds) => {
                    now = Timestamp(now.0 - 1_000 * seconds.parse::<i64>().expect("seconds"));
                    continue;
                }
                ("wait", seconds) => {
                    now = now.after(Duration::from_secs(seconds.parse().expect("seconds")));
                    continue;
                }
                _ => panic!("{step}"),
            };
            seen.push(word);
        }
        expected.assert_eq(&seen.join(" "));
    }

    #[test]
    fn it_opens_at_the_threshold_and_closes_at_the_first_success() {
        check(
            "fail fail fail probe wait:5 probe probe ok",
            expect!["None None Opened false true false Closed"],
        );
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        check("fail fail ok fail fail", expect!["None None None None None"]);
    }

    #[test]
    fn waits_between_probes_double_up_to_the_longest() {
        check(
            "fail fail fail wait:5 probe fail wait:9 probe wait:1 probe fail wait:20 probe fail wait:40 \
             probe fail wait:59 probe wait:1 probe",
            expect![
                "None None Opened true StillOpen false true StillOpen true StillOpen true StillOpen false \
                 true"
            ],
        );
    }

    #[test]
    fn failures_that_were_on_their_way_do_not_lengthen_the_wait() {
        check("fail fail fail fail fail fail wait:5 probe", expect!["None None Opened None None None true"]);
    }

    #[test]
    fn a_lost_probe_frees_its_place() {
        check(
            "fail fail fail wait:5 probe wait:29 probe wait:1 probe",
            expect!["None None Opened true false true"],
        );
    }

    #[test]
    fn a_probe_that_did_not_go_leaves_its_place_to_another() {
        check(
            "back fail fail fail back wait:5 probe back probe fail back wait:9 probe wait:1 probe",
            expect!["false None None Opened false true true true StillOpen false false true"],
        );
    }

    #[test]
    fn whoever_asks_by_hand_gets_the_next_probe_now_and_no_second_one() {
        check(
            "asked fail fail fail asked probe asked probe fail wait:9 probe asked probe",
            expect!["false None None Opened true true false false StillOpen false true true"],
        );
    }

    #[test]
    fn a_clock_that_is_set_back_lengthens_no_wait_by_more_than_itself() {
        check(
            "fail fail fail bound set:86400 probe bound bound wait:4 probe wait:1 probe",
            expect!["None None Opened false false true false false true"],
        );
        check(
            "fail fail busy:40 wait:39 set:100 bound wait:39 probe wait:1 probe set:100 bound wait:29 probe \
             wait:1 probe",
            expect!["None None Opened true false true true false true"],
        );
        check(
            "fail fail fail wait:5 probe back set:100 bound probe",
            expect!["None None Opened true true true true"],
        );
    }

    #[test]
    fn a_row_of_a_clock_that_went_backwards_keeps_nobody_waiting_for_it() {
        let (now, longest_wait) = (Timestamp(1_000_000), Duration::from_secs(3_600));
        let restored = |failures, opened_at, probe_at| {
            let moments = (Some(Timestamp(opened_at)), Some(Timestamp(probe_at)));
            let mut breaker = Breaker::restored(POLICY, failures, moments.0, moments.1, longest_wait, now);
            (breaker.bound(now), breaker.due().expect("open").0 - now.0)
        };
        assert_eq!(restored(3, 0, 1_059_000), (false, 59_000));
        assert_eq!(restored(3, 0, 3_000_000), (false, 2_000_000), "a peer may have asked for it");
        assert_eq!(restored(3, 0, 90_000_000), (true, 3_600_000));
        assert_eq!(restored(3, 1_001_000, 1_041_000), (false, 41_000), "another replica opened it just now");
        assert_eq!(restored(3, 87_400_000, 87_405_000), (true, 5_000), "it opened tomorrow");
        assert_eq!(restored(5, 87_400_000, 87_405_000), (true, 20_000));
    }

    #[test]
    fn a_peer_that_asks_for_patience_gets_it() {
        check("fail fail busy:40 wait:39 probe wait:1 probe", expect!["None None Opened false true"]);
    }
}
