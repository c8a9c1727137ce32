//! Whether attempts may go to an app's endpoint now, and how many at once: the state of the endpoint's
//! breaker, the wait that the endpoint asked for, and the ramp after a recovery. An app whose endpoint
//! changes gets a new gate, and answers of the old endpoint do not change it. Pure.

use tokio::time::Instant;

use crate::time::Timestamp;

/// Attempts at once to an endpoint that has not answered yet: few, because the endpoint may never answer.
const BEGIN: usize = 4;

/// Whether the gate is open, closed, or slowly opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Flowing { limit: usize },
    Open,
    Probing,
}

/// Names the endpoint of an attempt, by the moment when the app got that endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(Timestamp);

/// Whether attempts may go to the endpoint of one sink, and how many at once.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// When the app got the endpoint that this gate is for.
    since: Timestamp,
    mode: Mode,
    most: usize,
    hold_until: Option<Instant>,
    in_flight: usize,
}

impl Gate {
    /// An open way with room for `most` attempts at once, once the endpoint has acknowledged some.
    #[must_use]
    pub fn new(since: Timestamp, most: usize) -> Self {
        let most = most.max(1);
        Self { since, mode: Mode::Flowing { limit: most.min(BEGIN) }, most, hold_until: None, in_flight: 0 }
    }

    /// Allows at most `most` attempts at once from now on.
    pub fn resize(&mut self, most: usize) {
        self.most = most.max(1);
        if let Mode::Flowing { limit } = &mut self.mode {
            *limit = (*limit).min(self.most);
        }
    }

    /// Whether another attempt may start now.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        match self.mode {
            Mode::Flowing { limit } => {
                self.in_flight < limit && self.hold_until.is_none_or(|until| until <= now)
            }
            Mode::Open | Mode::Probing => false,
        }
    }

    /// Records the start of an attempt; the pass belongs to the attempt's end.
    pub fn enter(&mut self) -> Pass {
        self.in_flight += 1;
        Pass(self.since)
    }

    /// Records the end of an attempt; a pass of an earlier endpoint changes nothing.
    pub fn leave(&mut self, pass: Pass) {
        if self.is_of(pass) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// Whether an attempt went to the endpoint of this gate, not to an earlier endpoint of the app.
    #[must_use]
    pub fn is_of(&self, pass: Pass) -> bool {
        pass == Pass(self.since)
    }

    /// When the app got the endpoint of this gate.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The endpoint acknowledged something: the ramp widens.
    pub fn widen(&mut self) {
        if let Mode::Flowing { limit } = &mut self.mode {
            *limit = (*limit * 2).min(self.most);
        }
    }

    /// After a failure of the endpoint: allows one attempt at a time until the endpoint works again, so that
    /// an outage costs only what was in flight when it began.
    pub fn narrow(&mut self) {
        if let Mode::Flowing { limit } = &mut self.mode {
            *limit = 1;
        }
    }

    /// The endpoint asked for patience.
    pub fn hold(&mut self, until: Instant) {
        self.hold_until = Some(self.hold_until.map_or(until, |held| held.max(until)));
    }

    /// The moment until which the endpoint asked for no requests; `None`: it did not ask.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Whether only a probe may go now: the breaker is open, or the endpoint asked to wait.
    #[must_use]
    pub fn is_closed(&self, now: Instant) -> bool {
        self.is_open() || self.hold_until.is_some_and(|until| until > now)
    }

    /// Records that the breaker of the endpoint opened.
    pub fn open(&mut self) {
        self.mode = Mode::Open;
    }

    /// The breaker permits one probe; it stays permitted until one starts.
    pub fn permit_probe(&mut self) {
        self.mode = Mode::Probing;
    }

    /// Whether a probe is permitted and not taken.
    #[must_use]
    pub fn permits_probe(&self) -> bool {
        self.mode == Mode::Probing
    }

    /// Takes the probe, if one is permitted.
    pub fn take_probe(&mut self) -> bool {
        let permitted = self.permits_probe();
        if permitted {
            self.mode = Mode::Open;
        }
        permitted
    }

    /// Whether the breaker is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.mode == Mode::Open || self.mode == Mode::Probing
    }

    /// The breaker closed: begin with one attempt and double with each success.
    pub fn ramp(&mut self) {
        if self.is_open() {
            self.mode = Mode::Flowing { limit: 1 };
            self.hold_until = None;
        }
    }

    /// The most that it will ever take at once.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// The number of attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SINCE: Timestamp = Timestamp(7);
    const PASS: Pass = Pass(SINCE);

    fn of(most: usize) -> Gate {
        Gate::new(SINCE, most)
    }

    #[test]
    fn an_open_gate_admits_only_its_probe_and_then_ramps() {
        let now = Instant::now();
        let mut gate = of(4);
        gate.open();
        assert!(!gate.admits(now) && !gate.take_probe());
        gate.permit_probe();
        assert!(gate.take_probe() && !gate.take_probe(), "one probe a permit");
        gate.ramp();
        let mut widths = Vec::new();
        for _ in 0..4 {
            let mut width = 0;
            while gate.admits(now) {
                assert_eq!(gate.enter(), PASS);
                width += 1;
            }
            widths.push(width);
            for _ in 0..width {
                gate.leave(PASS);
                gate.widen();
            }
        }
        assert_eq!(widths, [1, 2, 4, 4]);
    }

    #[test]
    fn an_endpoint_that_never_answered_gets_few_at_once_and_nobody_more_than_it_takes() {
        let now = Instant::now();
        let fill = |gate: &mut Gate| {
            while gate.admits(now) {
                assert_eq!(gate.enter(), PASS);
            }
            gate.in_flight()
        };
        let mut gate = of(32);
        assert_eq!(fill(&mut gate), BEGIN);
        (0..5).for_each(|_| gate.widen());
        assert_eq!(fill(&mut gate), 32);
        gate.resize(3);
        (0..29).for_each(|_| gate.leave(PASS));
        gate.widen();
        assert!(!gate.admits(now), "three are on their way");
        gate.leave(PASS);
        assert_eq!(fill(&mut gate), 3);
        assert_eq!(fill(&mut of(0)), 1, "nobody takes nothing");
    }

    #[test]
    fn a_failure_narrows_the_way_to_one() {
        let now = Instant::now();
        let mut gate = of(4);
        assert_eq!(BEGIN, 4);
        (0..4).for_each(|_| assert_eq!(gate.enter(), PASS));
        gate.leave(PASS);
        gate.narrow();
        assert!(!gate.admits(now), "three are still on their way");
        (0..3).for_each(|_| gate.leave(PASS));
        assert!(gate.admits(now));
        assert_eq!(gate.enter(), PASS);
        assert!(!gate.admits(now));
    }

    #[test]
    fn an_endpoint_that_asks_for_patience_is_left_alone() {
        let now = Instant::now();
        let mut gate = of(1);
        gate.hold(now + Duration::from_secs(7));
        gate.hold(now + Duration::from_secs(3));
        assert!(!gate.admits(now + Duration::from_secs(6)) && gate.admits(now + Duration::from_secs(7)));
    }

    #[test]
    fn an_attempt_at_an_endpoint_of_before_neither_fills_nor_empties_the_gate() {
        let mut old = of(1);
        let of_before = old.enter();
        let mut gate = Gate::new(Timestamp(8), 1);
        assert!(gate.admits(Instant::now()) && !gate.is_of(of_before));
        let pass = gate.enter();
        gate.leave(of_before);
        assert_eq!(gate.in_flight(), 1);
        gate.leave(pass);
        assert_eq!(gate.in_flight(), 0);
    }
}
