//! A meter that remembers, and a tracer that traces nothing.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::kind::ParkReason;
use tracing::Span;

use crate::ports::{
    AttemptKind, AttemptOutcome, Cause, FetchReport, Fetched, Meter, Survey, Tracer, attempt_outcome,
};

/// What a meter was told.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Outcomes of polls.
    pub polls: Vec<&'static str>,
    /// Outcomes of fetches.
    pub fetches: Vec<Result<FetchReport, &'static str>>,
    /// Outcomes of scans.
    pub scans: Vec<&'static str>,
    /// Waits for turns.
    pub waits: Vec<Duration>,
    /// Outcomes of attempts.
    pub attempts: Vec<&'static str>,
    /// Changes that were acknowledged and are settled.
    pub acknowledged: u64,
    /// Changes that were given up.
    pub parked: Vec<ParkReason>,
    /// Transactions of the store: whether each was committed, and its verbs.
    pub commits: Vec<(bool, usize)>,
    /// The last survey.
    pub survey: Option<Survey>,
    /// How many there were.
    pub surveys: u64,
}

/// A meter that remembers.
#[derive(Debug, Default)]
pub struct MemoryMeter(Mutex<Measured>);

impl MemoryMeter {
    /// What it was told so far.
    #[must_use]
    pub fn measured(&self) -> Measured {
        self.told().clone()
    }

    fn told(&self) -> MutexGuard<'_, Measured> {
        self.0.lock()
    }
}

impl Meter for MemoryMeter {
    fn polled(&self, outcome: &'static str, _took: Duration) {
        self.told().polls.push(outcome);
    }

    fn fetched(&self, _what: Fetched, fetched: Result<FetchReport, &'static str>, _took: Duration) {
        self.told().fetches.push(fetched);
    }

    fn scanned(&self, outcome: &'static str, _took: Duration) {
        self.told().scans.push(outcome);
    }

    fn waited(&self, took: Duration) {
        self.told().waits.push(took);
    }

    fn attempted(&self, _kind: AttemptKind, outcome: &AttemptOutcome) {
        self.told().attempts.push(attempt_outcome(outcome));
    }

    fn settled(&self, acknowledged: u64, parked: &[ParkReason]) {
        let mut told = self.told();
        told.acknowledged += acknowledged;
        told.parked.extend(parked);
    }

    fn committed(&self, is_written: bool, verbs: usize, _took: Duration) {
        self.told().commits.push((is_written, verbs));
    }

    fn surveyed(&self, survey: Survey) {
        let mut told = self.told();
        told.survey = Some(survey);
        told.surveys += 1;
    }
}

/// Traces nothing.
#[derive(Debug)]
pub struct NoTracer;

impl Tracer for NoTracer {
    fn place(&self, _span: &Span) -> Option<Cause> {
        None
    }

    fn follow(&self, _span: &Span, _cause: Cause) {}

    fn link(&self, _span: &Span, _cause: Cause) {}
}
