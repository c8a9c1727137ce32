//! The numbers of the last hour for each queue, in memory, to show a rise or a fall. A minute has at most one
//! sample of a queue, and minutes without work have none: a queue that rests costs nothing, and one that
//! works all the time a little over a kilobyte.
//!
//! At most [`QUEUES_MAX`] queues have samples. Beyond that, queues that did nothing for [`REST`] minutes make
//! room; if there is none, a further queue has no samples until there is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use tidings_actors::{model::queue_name::QueueName, ports::QueueTally, time::Timestamp};
use tidings_entity::kind::TaskState;

use super::app_samples::{MINUTE_MS, MINUTES, REST, minute_of, small};

/// Most queues with samples.
const QUEUES_MAX: usize = 10_000;

/// The numbers of a queue in a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueSample {
    /// The begin of the minute.
    pub at: Timestamp,
    /// How much of the minute was measured, in seconds.
    pub seconds: f64,
    /// Tasks that this process made: of producers, schedules and changes of watches.
    pub created: u64,
    /// Tasks that this process handed out to workers.
    pub claimed: u64,
    /// Tasks that succeeded by a word to this process.
    pub succeeded: u64,
    /// Tasks that failed or died in this process.
    pub failed: u64,
}

/// The samples of all queues.
#[derive(Debug, Default)]
pub(super) struct QueueSamples(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    queues: HashMap<QueueName, Series>,
    /// The minutes with surveys, and how much of each they cover, in milliseconds.
    minutes: BTreeMap<u32, u32>,
    last: Option<Timestamp>,
    /// Whether a queue found no room.
    is_full: bool,
}

/// The numbers are small, because there are many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    created: u32,
    claimed: u32,
    succeeded: u32,
    failed: u32,
}

impl Counts {
    fn of(tally: &QueueTally) -> Self {
        let ended = |states: &[TaskState]| {
            small(tally.ended.iter().filter(|(state, _)| states.contains(state)).count() as u64)
        };
        Self {
            created: small(tally.created.saturating_add(tally.handed_over)),
            claimed: small(tally.queued.len() as u64),
            succeeded: ended(&[TaskState::Succeeded]),
            failed: ended(&[TaskState::Failed, TaskState::Dead]),
        }
    }

    fn add(&mut self, more: Self) {
        self.created = self.created.saturating_add(more.created);
        self.claimed = self.claimed.saturating_add(more.claimed);
        self.succeeded = self.succeeded.saturating_add(more.succeeded);
        self.failed = self.failed.saturating_add(more.failed);
    }
}

#[derive(Debug, Default)]
struct Series {
    /// Since the last survey.
    since: Counts,
    /// The minutes with work, each by its number.
    minutes: VecDeque<(u32, Counts)>,
}

impl Series {
    /// Adds to the minute of this number, which is the newest.
    fn add(&mut self, number: u32, counts: Counts) {
        match self.minutes.back_mut() {
            Some((newest, sum)) if *newest == number => sum.add(counts),
            _ => self.minutes.push_back((number, counts)),
        }
    }
}

impl Kept {
    /// The series of a queue, if there is room for it.
    fn series(&mut self, queue: &QueueName) -> Option<&mut Series> {
        if self.queues.len() >= QUEUES_MAX && !self.queues.contains_key(queue) {
            if self.is_full {
                return None;
            }
            let newest = self.minutes.keys().next_back().copied().unwrap_or(0);
            self.queues.retain(|_, series| {
                let last = series.minutes.back().map_or(0, |(number, _)| *number);
                series.since != Counts::default() || last.saturating_add(REST) >= newest
            });
            // Looked at once between two surveys: queues without room cost no search each.
            self.is_full = self.queues.len() >= QUEUES_MAX;
            if self.is_full {
                return None;
            }
        }
        if !self.queues.contains_key(queue) {
            self.queues.insert(queue.clone(), Series::default());
        }
        self.queues.get_mut(queue)
    }
}

impl QueueSamples {
    /// Counts what a transaction did with the tasks of a queue.
    pub(super) fn count(&self, queue: &QueueName, tally: &QueueTally) {
        let counts = Counts::of(tally);
        if counts == Counts::default() {
            return;
        }
        if let Some(series) = self.0.lock().series(queue) {
            series.since.add(counts);
        }
    }

    /// Takes a sample at the moment of a survey.
    pub(super) fn take(&self, at: Timestamp) {
        let mut kept = self.0.lock();
        let kept = &mut *kept;
        if kept.last.is_some_and(|last| at < last) {
            // A clock that was set back: samples ahead of it would come out of order.
            *kept = Kept::default();
        }
        let number = minute_of(at);
        let since = kept.last.map_or(0, |last| (at.0 - last.0).min(MINUTE_MS));
        (kept.last, kept.is_full) = (Some(at), false);
        *kept.minutes.entry(number).or_default() += u32::try_from(since).unwrap_or(0);
        let first = number.saturating_sub(MINUTES - 1);
        kept.minutes = kept.minutes.split_off(&first);
        kept.queues.retain(|_, series| {
            let since = std::mem::take(&mut series.since);
            if since != Counts::default() {
                series.add(number, since);
            }
            while series.minutes.front().is_some_and(|(oldest, _)| *oldest < first) {
                series.minutes.pop_front();
            }
            !series.minutes.is_empty()
        });
    }

    /// The samples of a queue, the oldest first: one for each minute of the last hour in which this process
    /// made surveys. None where there was no room for the queue.
    pub(super) fn of(&self, queue: &QueueName) -> Vec<QueueSample> {
        let kept = self.0.lock();
        let series = kept.queues.get(queue);
        if series.is_none() && kept.queues.len() >= QUEUES_MAX {
            return Vec::new();
        }
        let sample = |(number, covered_ms): (&u32, &u32)| {
            let minute = series.and_then(|series| series.minutes.iter().find(|(minute, _)| minute == number));
            let counts = minute.map(|(_, counts)| *counts).unwrap_or_default();
            QueueSample {
                at: Timestamp(i64::from(*number) * MINUTE_MS),
                seconds: f64::from(*covered_ms) / 1_000.0,
                created: counts.created.into(),
                claimed: counts.claimed.into(),
                succeeded: counts.succeeded.into(),
                failed: counts.failed.into(),
            }
        };
        kept.minutes.iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue(number: u64) -> QueueName {
        format!("app_{number:026}/work").parse().unwrap_or_else(|_| panic!("a name"))
    }

    fn created(count: u64) -> QueueTally {
        QueueTally { created: count, ..QueueTally::default() }
    }

    /// A moment in a second after the beginning, which is not that of a minute.
    fn at(second: i64) -> Timestamp {
        Timestamp(600_000_000 + 30_000 + second * 1_000)
    }

    #[test]
    fn a_minute_has_what_became_of_the_tasks_of_one_queue() {
        let samples = QueueSamples::default();
        samples.take(at(0));
        let all = [TaskState::Succeeded, TaskState::Failed, TaskState::Dead, TaskState::Cancelled];
        let tally = QueueTally {
            created: 4,
            handed_over: 3,
            queued: vec![Duration::ZERO; 5],
            ended: all.map(|state| (state, Duration::ZERO)).into(),
            run_out: 1,
        };
        samples.count(&queue(1), &tally);
        samples.take(at(10));
        samples.count(&queue(1), &created(2));
        samples.take(at(20));
        samples.take(at(40));
        let shown = |number| -> Vec<_> {
            let of = samples.of(&queue(number)).into_iter();
            of.map(|one| (one.seconds, one.created, one.claimed, one.succeeded, one.failed)).collect()
        };
        assert_eq!(shown(1), [(20.0, 9, 5, 1, 2), (20.0, 0, 0, 0, 0)]);
        assert_eq!(shown(2), [(20.0, 0, 0, 0, 0), (20.0, 0, 0, 0, 0)], "nothing of another queue");
    }

    #[test]
    fn samples_are_those_of_an_hour_and_a_queue_that_rests_costs_nothing() {
        let samples = QueueSamples::default();
        for minute in 0..200 {
            samples.count(&queue(1), &created(1));
            samples.take(at(minute * 60));
        }
        assert_eq!(samples.of(&queue(1)).len(), 60);
        assert!(samples.0.lock().queues[&queue(1)].minutes.len() <= 60);
        for minute in 200..260 {
            samples.take(at(minute * 60));
        }
        assert!(samples.0.lock().queues.is_empty());
        samples.count(&queue(1), &created(1));
        samples.take(at(0));
        assert_eq!(samples.of(&queue(1)).len(), 1, "the clock was set back");
    }

    #[test]
    fn more_queues_than_there_is_room_for_have_no_samples_until_others_rest() {
        let samples = QueueSamples::default();
        samples.take(at(0));
        (0..30_000).for_each(|number| samples.count(&queue(number), &created(1)));
        assert_eq!(samples.0.lock().queues.len(), QUEUES_MAX);
        samples.take(at(10));
        assert_eq!(samples.of(&queue(9_999)).last().map(|one| one.created), Some(1));
        assert!(samples.of(&queue(10_000)).is_empty(), "nothing is known of it, not even zeros");
        for minute in 1..=12 {
            samples.take(at(minute * 60));
        }
        samples.count(&queue(10_000), &created(3));
        samples.take(at(13 * 60));
        assert_eq!(samples.of(&queue(10_000)).last().map(|one| one.created), Some(3));
        let worst = std::mem::size_of::<(u32, Counts)>() * 60 * QUEUES_MAX;
        assert!(worst <= 16 << 20, "{worst} bytes");
    }
}
