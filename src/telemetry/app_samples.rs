//! The numbers of the last hour for each app, in memory, to show a rise or a fall. A minute has at most one
//! sample of an app, and minutes without work have none: an app that rests costs nothing, and one that
//! works all the time a little over a kilobyte.
//!
//! At most [`APPS_MAX`] apps have samples. Beyond that, apps that did nothing for [`REST`] make room; if
//! there is none, a further app has no samples until there is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use tidings_actors::{
    ports::{APPS_LATE_MAX, Survey},
    time::Timestamp,
};
use tidings_entity::id::AppId;

use crate::samples::told;

/// Minutes that are kept.
pub(super) const MINUTES: u32 = 60;
/// The milliseconds of a minute.
pub(super) const MINUTE_MS: i64 = 60_000;
/// Most apps with samples.
const APPS_MAX: usize = 10_000;
/// Minutes without work after which an app, or a queue, makes room for another one.
pub(super) const REST: u32 = 10;

/// The numbers of an app in a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSample {
    /// The begin of the minute.
    pub at: Timestamp,
    /// How much of the minute was measured, in seconds.
    pub seconds: f64,
    /// Changes that this process saw acknowledged.
    pub acknowledged: u64,
    /// Attempts of this process that no 2xx ended.
    pub failed: u64,
    /// The longest age of an unsettled change in the surveys of the minute, in milliseconds; `None`: another
    /// replica measures it, or more apps were behind than a survey tells of.
    pub lag_ms: Option<u64>,
    /// Branches that were behind then; `None` as above.
    pub behind: Option<u64>,
}

/// The samples of all apps.
#[derive(Debug, Default)]
pub(super) struct AppSamples(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    apps: HashMap<AppId, Series>,
    /// The minutes with surveys.
    minutes: BTreeMap<u32, Surveyed>,
    last: Option<Timestamp>,
    /// Whether an app found no room.
    is_full: bool,
}

/// The surveys of a minute.
#[derive(Debug)]
struct Surveyed {
    /// How much of the minute they cover, in milliseconds.
    covered_ms: u32,
    /// Whether the surveys measured how far apps are behind.
    tells_lag: bool,
    /// Whether the surveys covered all apps.
    tells_all: bool,
}

#[derive(Debug, Default)]
struct Series {
    /// Since the last survey.
    acknowledged: u32,
    failed: u32,
    minutes: VecDeque<Minute>,
}

/// A minute with work. The numbers are small, because there are many minutes.
#[derive(Debug)]
struct Minute {
    number: u32,
    acknowledged: u32,
    failed: u32,
    lag_ms: u32,
    behind: u32,
}

impl Series {
    fn rests(&self) -> bool {
        self.acknowledged == 0 && self.failed == 0
    }

    /// The minute of this number, which is the newest.
    fn minute(&mut self, number: u32) -> &mut Minute {
        if self.minutes.back().is_none_or(|newest| newest.number != number) {
            self.minutes.push_back(Minute { number, acknowledged: 0, failed: 0, lag_ms: 0, behind: 0 });
        }
        self.minutes.back_mut().expect("it was pushed")
    }
}

pub(super) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The number of the minute of a moment.
pub(super) fn minute_of(at: Timestamp) -> u32 {
    u32::try_from(at.0.div_euclid(MINUTE_MS)).unwrap_or(0)
}

impl Kept {
    /// The series of an app, if there is room for it.
    fn series(&mut self, app: &AppId) -> Option<&mut Series> {
        if self.apps.len() >= APPS_MAX && !self.apps.contains_key(app) {
            if self.is_full {
                return None;
            }
            let newest = self.minutes.keys().next_back().copied().unwrap_or(0);
            self.apps.retain(|_, series| {
                let last = series.minutes.back().map_or(0, |minute| minute.number);
                !series.rests() || last.saturating_add(REST) >= newest
            });
            // Looked at once between two surveys: apps without room cost no search each.
            self.is_full = self.apps.len() >= APPS_MAX;
            if self.is_full {
                return None;
            }
        }
        if !self.apps.contains_key(app) {
            self.apps.insert(app.clone(), Series::default());
        }
        self.apps.get_mut(app)
    }
}

impl AppSamples {
    /// Counts work of an app.
    pub(super) fn count(&self, app: &AppId, acknowledged: u64, failed: u64) {
        if acknowledged == 0 && failed == 0 {
            return;
        }
        let mut kept = self.0.lock();
        if let Some(series) = kept.series(app) {
            series.acknowledged = series.acknowledged.saturating_add(small(acknowledged));
            series.failed = series.failed.saturating_add(small(failed));
        }
    }

    /// Takes a sample of a survey.
    pub(super) fn take(&self, survey: &Survey) {
        let mut kept = self.0.lock();
        let kept = &mut *kept;
        let number = minute_of(survey.at);
        let is_set_back = kept.last.is_some_and(|last| survey.at < last);
        if is_set_back {
            // A clock that was set back: samples ahead of it would come out of order.
            (kept.minutes, kept.apps, kept.last) = (BTreeMap::new(), HashMap::new(), None);
        }
        let since = kept.last.map_or(0, |last| (survey.at.0 - last.0).min(MINUTE_MS));
        kept.last = Some(survey.at);
        kept.is_full = false;
        let tells_lag = told(survey).is_some();
        let tells_all = survey.backlog.apps_late.len() < APPS_LATE_MAX;
        let minute = kept.minutes.entry(number).or_insert(Surveyed { covered_ms: 0, tells_lag, tells_all });
        minute.covered_ms += u32::try_from(since).unwrap_or(0);
        minute.tells_lag |= tells_lag;
        minute.tells_all &= tells_all;
        kept.minutes = kept.minutes.split_off(&number.saturating_sub(MINUTES - 1));
        for late in &survey.backlog.apps_late {
            let Some(series) = kept.series(&late.app) else { continue };
            let minute = series.minute(number);
            minute.lag_ms = minute.lag_ms.max(small(late.lag_ms));
            minute.behind = minute.behind.max(small(late.behind));
        }
        kept.apps.retain(|_, series| {
            if !series.rests() {
                let (acknowledged, failed) = (series.acknowledged, series.failed);
                (series.acknowledged, series.failed) = (0, 0);
                let minute = series.minute(number);
                minute.acknowledged = minute.acknowledged.saturating_add(acknowledged);
                minute.failed = minute.failed.saturating_add(failed);
            }
            let first = number.saturating_sub(MINUTES - 1);
            while series.minutes.front().is_some_and(|oldest| oldest.number < first) {
                series.minutes.pop_front();
            }
            !series.minutes.is_empty()
        });
    }

    /// The samples of an app, the oldest first: one for each minute of the last hour in which this process
    /// made surveys. None where there was no room for the app.
    pub(super) fn of(&self, app: &AppId) -> Vec<AppSample> {
        let kept = self.0.lock();
        let series = kept.apps.get(app);
        if series.is_none() && kept.apps.len() >= APPS_MAX {
            return Vec::new();
        }
        let worked = |number: u32| series?.minutes.iter().find(|minute| minute.number == number);
        let sample = |(number, surveyed): (&u32, &Surveyed)| {
            let minute = worked(*number);
            let is_known =
                surveyed.tells_lag && (surveyed.tells_all || minute.is_some_and(|one| one.behind > 0));
            AppSample {
                at: Timestamp(i64::from(*number) * MINUTE_MS),
                seconds: f64::from(surveyed.covered_ms) / 1_000.0,
                acknowledged: minute.map_or(0, |minute| minute.acknowledged.into()),
                failed: minute.map_or(0, |minute| minute.failed.into()),
                lag_ms: is_known.then(|| minute.map_or(0, |minute| minute.lag_ms.into())),
                behind: is_known.then(|| minute.map_or(0, |minute| minute.behind.into())),
            }
        };
        kept.minutes.iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_actors::ports::{AppLate, Backlog, Totals};

    use super::*;

    fn app(number: u64) -> AppId {
        format!("app_{number:026}").parse().unwrap_or_else(|_| panic!("an id"))
    }

    fn late(number: u64, lag_ms: u64) -> AppLate {
        AppLate { app: app(number), lag_ms, behind: 2 }
    }

    /// A survey in a second after the beginning, which is not that of a minute.
    fn survey(second: i64, apps_late: Vec<AppLate>) -> Survey {
        Survey {
            at: Timestamp(600_000_000 + 30_000 + second * 1_000),
            took: Duration::ZERO,
            totals: Totals { apps: 1, ..Totals::default() },
            backlog: Backlog { apps_late, ..Backlog::default() },
            storage: Default::default(),
            hosts: Default::default(),
            tree: Default::default(),
        }
    }

    #[test]
    fn a_minute_has_the_work_and_the_longest_lag_of_its_surveys() {
        let samples = AppSamples::default();
        samples.take(&survey(0, vec![]));
        samples.count(&app(1), 10, 1);
        samples.count(&app(2), 7, 0);
        samples.take(&survey(10, vec![late(1, 4_000)]));
        samples.count(&app(1), 5, 0);
        samples.take(&survey(20, vec![late(1, 9_000)]));
        samples.take(&survey(40, vec![]));
        let shown = |number| -> Vec<_> {
            let of = samples.of(&app(number));
            of.iter().map(|one| (one.seconds, one.acknowledged, one.failed, one.lag_ms, one.behind)).collect()
        };
        assert_eq!(shown(1), [(20.0, 15, 1, Some(9_000), Some(2)), (20.0, 0, 0, Some(0), Some(0))]);
        assert_eq!(shown(2)[0], (20.0, 7, 0, Some(0), Some(0)), "nothing of another app");
        assert_eq!(shown(3)[0], (20.0, 0, 0, Some(0), Some(0)), "an app that rests has its zeros");
        samples.take(&Survey { totals: Totals::default(), ..survey(100, vec![]) });
        assert_eq!(
            samples.of(&app(1)).last().map(|one| one.lag_ms),
            Some(None),
            "another replica measures it"
        );
    }

    #[test]
    fn samples_are_those_of_an_hour_and_an_app_that_rests_costs_nothing() {
        let samples = AppSamples::default();
        for minute in 0..200 {
            samples.count(&app(1), 1, 0);
            samples.take(&survey(minute * 60, vec![]));
        }
        assert_eq!(samples.of(&app(1)).len(), 60);
        assert!(samples.0.lock().apps[&app(1)].minutes.len() <= 60);
        for minute in 200..260 {
            samples.take(&survey(minute * 60, vec![]));
        }
        assert!(samples.0.lock().apps.is_empty());
        samples.count(&app(1), 1, 0);
        samples.take(&survey(0, vec![]));
        assert_eq!(samples.of(&app(1)).len(), 1, "the clock was set back");
    }

    #[test]
    fn more_apps_than_there_is_room_for_have_no_samples_until_others_rest() {
        let samples = AppSamples::default();
        samples.take(&survey(0, vec![]));
        (0..30_000).for_each(|number| samples.count(&app(number), 1, 0));
        assert_eq!(samples.0.lock().apps.len(), APPS_MAX);
        samples.take(&survey(10, vec![]));
        assert_eq!(samples.of(&app(9_999)).last().map(|one| one.acknowledged), Some(1));
        assert!(samples.of(&app(10_000)).is_empty(), "nothing is known of it, not even zeros");
        for minute in 1..=12 {
            samples.take(&survey(minute * 60, vec![]));
        }
        samples.count(&app(10_000), 3, 0);
        samples.take(&survey(13 * 60, vec![]));
        assert_eq!(samples.of(&app(10_000)).last().map(|one| one.acknowledged), Some(3));
        let worst = std::mem::size_of::<Minute>() * 60 * APPS_MAX;
        assert!(worst <= 16 << 20, "{worst} bytes");
    }

    #[test]
    fn an_app_that_a_survey_leaves_out_has_no_lag_of_zero() {
        let samples = AppSamples::default();
        let all = (0..APPS_LATE_MAX as u64).map(|number| late(number, 1_000)).collect();
        samples.take(&survey(0, all));
        assert_eq!(samples.of(&app(3))[0].lag_ms, Some(1_000));
        samples.count(&app(5_000), 1, 0);
        samples.take(&survey(1, vec![]));
        assert_eq!(samples.of(&app(5_000))[0].lag_ms, None);
    }
}
