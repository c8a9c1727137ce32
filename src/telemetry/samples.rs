//! The numbers of the last hour: a sample of each survey, in memory, to show a rise or a fall. For more than
//! an hour, or more than this process, there are metrics collectors.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tidings_actors::{
    ports::{Survey, Totals},
    time::Timestamp,
};

/// For how long samples are kept.
const KEPT: Duration = Duration::from_hours(1);
/// Most samples that are kept, however often surveys are made.
const SAMPLES_MAX: usize = 720;

/// The results of a survey, and the work since the previous one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When the survey was made.
    pub at: Timestamp,
    /// Since the sample before; zero in the first.
    pub over: Duration,
    /// The numbers from rows; `None`: another replica reports them.
    pub totals: Option<Totals>,
    /// Changes that receivers acknowledged and this process settled since the previous sample.
    pub acknowledged: u64,
    /// Changes that this process parked since the previous sample.
    pub parked: u64,
    /// Attempts of this process meanwhile that no 2xx ended.
    pub failed: u64,
    /// Scans of this process meanwhile.
    pub scans: u64,
}

/// The samples of a process, the oldest first, and the counts since the last one.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: Mutex<VecDeque<Sample>>,
    pub(super) counted: Counted,
}

/// The work since the last sample.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) acknowledged: AtomicU64,
    pub(super) parked: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) scans: AtomicU64,
}

impl Samples {
    /// Takes a sample of a survey.
    pub(super) fn take(&self, survey: &Survey) {
        let counted = |number: &AtomicU64| number.swap(0, Relaxed);
        let mut kept = self.kept.lock();
        let over = kept.back().map_or(Duration::ZERO, |last| survey.at.since(last.at));
        kept.push_back(Sample {
            at: survey.at,
            over,
            totals: told(survey),
            acknowledged: counted(&self.counted.acknowledged),
            parked: counted(&self.counted.parked),
            failed: counted(&self.counted.failed),
            scans: counted(&self.counted.scans),
        });
        while kept.len() > SAMPLES_MAX || kept.front().is_some_and(|first| survey.at.since(first.at) > KEPT) {
            kept.pop_front();
        }
    }

    pub(super) fn all(&self) -> Vec<Sample> {
        self.kept.lock().iter().cloned().collect()
    }
}

/// The numbers from rows in a survey. Only one of all replicas reports them.
pub(super) fn told(survey: &Survey) -> Option<Totals> {
    Some(survey.totals).filter(|totals| *totals != Totals::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(at: i64, behind: u64) -> Survey {
        let totals = Totals { apps: 1, behind, ..Totals::default() };
        Survey {
            at: Timestamp(at),
            took: Duration::ZERO,
            totals,
            backlog: Default::default(),
            storage: Default::default(),
            hosts: Default::default(),
            tree: Default::default(),
        }
    }

    #[test]
    fn a_sample_has_what_was_counted_since_the_one_before() {
        let samples = Samples::default();
        samples.take(&survey(1_000, 3));
        samples.counted.acknowledged.fetch_add(40, Relaxed);
        samples.counted.failed.fetch_add(1, Relaxed);
        samples.take(&survey(11_000, 2));
        samples.take(&survey(21_000, 0));
        let shown: Vec<_> = samples
            .all()
            .iter()
            .map(|one| (one.over.as_secs(), one.acknowledged, one.failed, one.totals.map(|all| all.behind)))
            .collect();
        assert_eq!(shown, [(0, 0, 0, Some(3)), (10, 40, 1, Some(2)), (10, 0, 0, Some(0))]);
    }

    #[test]
    fn samples_are_those_of_an_hour_and_not_too_many() {
        let samples = Samples::default();
        for at in 0..2_000 {
            samples.take(&survey(at * 1_000, 0));
        }
        assert_eq!((samples.all().len(), samples.all()[0].at), (SAMPLES_MAX, Timestamp(1_280_000)));
        samples.take(&survey(1_999_000 + 3_600_001, 0));
        assert_eq!(samples.all().len(), 1, "the earlier samples are older than an hour");
    }

    #[test]
    fn a_survey_of_a_replica_that_does_not_lead_says_nothing_of_rows() {
        let samples = Samples::default();
        samples.take(&Survey { totals: Totals::default(), ..survey(1, 0) });
        assert_eq!(samples.all()[0].totals, None);
    }
}
