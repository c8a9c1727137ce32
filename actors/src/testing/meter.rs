//! A meter that remembers, and a tracer that traces nothing.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::{id::AppId, kind::ParkReason};
use tracing::Span;

use crate::ports::{
    AttemptKind, AttemptOutcome, Cause, FetchReport, Fetched, Meter, Survey, TaskTally, Tracer,
    attempt_outcome,
};

/// The measurements that a meter was given, in order.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The outcome of each poll.
    pub polls: Vec<&'static str>,
    /// The outcome of each fetch.
    pub fetches: Vec<Result<FetchReport, &'static str>>,
    /// The outcome of each scan.
    pub scans: Vec<&'static str>,
    /// How long each scan waited for its turn.
    pub waits: Vec<Duration>,
    /// The outcome of each attempt.
    pub attempts: Vec<&'static str>,
    /// The number of changes that were acknowledged and are settled.
    pub acknowledged: u64,
    /// The reason of each change that was parked.
    pub parked: Vec<ParkReason>,
    /// Transactions of the store: whether each was committed, and its verbs.
    pub commits: Vec<(bool, usize)>,
    /// What transactions did with tasks, added up.
    pub tasks: TaskTally,
    /// The last survey that was reported; `None` before the first.
    pub survey: Option<Survey>,
    /// The number of surveys that were reported.
    pub surveys: u64,
}

/// A meter that remembers.
#[derive(Debug, Default)]
pub struct MemoryMeter(Mutex<Measured>);

impl MemoryMeter {
    /// The measurements so far.
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

    fn attempted(&self, _app: &AppId, _kind: AttemptKind, outcome: &AttemptOutcome) {
        self.told().attempts.push(attempt_outcome(outcome));
    }

    fn settled(&self, _app: &AppId, acknowledged: u64, parked: &[ParkReason]) {
        let mut told = self.told();
        told.acknowledged += acknowledged;
        told.parked.extend(parked);
    }

    fn committed(&self, is_written: bool, verbs: usize, _took: Duration) {
        self.told().commits.push((is_written, verbs));
    }

    fn tasks_moved(&self, tally: &TaskTally) {
        let tasks = &mut self.told().tasks;
        for (name, queue) in &tally.queues {
            let sum = tasks.queues.entry(name.clone()).or_default();
            sum.created += queue.created;
            sum.handed_over += queue.handed_over;
            sum.queued.extend(&queue.queued);
            sum.ended.extend(&queue.ended);
            sum.run_out += queue.run_out;
        }
        tasks.of_watches.extend(tally.of_watches.iter().cloned());
    }

    fn surveyed(&self, survey: Survey) {
        let mut told = self.told();
        told.survey = Some(survey);
        told.surveys += 1;
    }
}

/// A tracer that records no span.
#[derive(Debug)]
pub struct NoTracer;

impl Tracer for NoTracer {
    fn place(&self, _span: &Span) -> Option<Cause> {
        None
    }

    fn follow(&self, _span: &Span, _cause: Cause) {}

    fn link(&self, _span: &Span, _cause: Cause) {}
}
