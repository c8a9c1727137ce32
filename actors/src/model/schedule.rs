//! When schedules fire, pure: the ticks of a cron line in a time zone, and what is to be done about those
//! that are over.
//!
//! **Ticks.** A tick is a moment at which the wall clock of the zone shows what the line names. Where clocks
//! are set forward, a time that does not exist is the end of the gap, and several such times are one tick.
//! Where clocks are set back, a time that comes twice is the first of the two. So ticks are in the order of
//! their local times, and none comes twice.
//!
//! **Once.** A schedule has one position: its last tick, up to which everything is decided. The position
//! rises in the transaction that creates the tasks, and never falls by the clock: no restart, no replica
//! and no clock that is set back makes a tick fire twice.

mod cron;

use std::time::Duration;

use jiff::{
    Timestamp as Moment,
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, TimeZone},
};
use thiserror::Error;
use tidings_entity::kind::{MissedTicks, TickOverlap};

pub use cron::{CRON_MAX, CronFault, CronLine};

use crate::time::Timestamp;

/// Most missed ticks that are made up with a task each.
pub const EACH_MAX: usize = 100;
/// Ticks that are counted; of more it is only known that there are as many.
pub const COUNTED_MAX: usize = 1_000;
/// The wait between two looks at a tick that waits for the end of the task before it: that end is told, but a
/// word may be lost.
pub const OVERLAP_LOOK: Duration = Duration::from_secs(10);
/// A position further ahead than this was written by a clock that was wrong.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Days that are looked through for the next tick: the 29th of February comes after eight years at most.
const DAYS_MAX: usize = 9 * 366;

/// What is wrong with the times of a schedule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CalendarFault {
    /// The cron line is not understood.
    #[error(transparent)]
    Cron(#[from] CronFault),
    /// No such time zone.
    #[error("{0:?} is no time zone of the IANA database, such as Europe/Rome or UTC")]
    Zone(String),
}

/// The ticks of a cron line in a time zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    line: CronLine,
    zone: TimeZone,
}

impl Calendar {
    /// Reads a cron line and the name of a zone.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn of(cron: &str, zone: &str) -> Result<Self, CalendarFault> {
        let line = cron.parse()?;
        let unknown = || CalendarFault::Zone(zone.chars().take(64).collect());
        // The database also takes other spellings, and a name for "unknown".
        let is_it = |found: &TimeZone| found.iana_name() == Some(zone) && !found.is_unknown();
        let zone = TimeZone::get(zone).ok().filter(is_it).ok_or_else(unknown)?;
        Ok(Self { line, zone })
    }

    /// The first tick after a moment; `None`: there is none within nine years.
    #[must_use]
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let local = self.local(at)?;
        let mut date = local.date();
        for _ in 0..DAYS_MAX {
            let is_past = |hour: i8, minute: i8| {
                date == local.date() && (hour, minute) < (local.hour(), local.minute())
            };
            if self.line.is_on(date) {
                let times = self.line.times().filter(|(hour, minute)| !is_past(*hour, *minute));
                let mut ticks = times.filter_map(|(hour, minute)| self.tick(date, hour, minute));
                if let Some(tick) = ticks.find(|tick| *tick > at) {
                    return Some(tick);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The ticks after a moment up to another one, newest first, at most `most`.
    #[must_use]
    pub fn between(&self, after: Timestamp, until: Timestamp, most: usize) -> Vec<Timestamp> {
        let mut ticks = Vec::new();
        let (Some(first), Some(last)) = (self.local(after), self.local(until)) else { return ticks };
        // Just after clocks were set back over midnight, ticks of the day ahead are over.
        let mut day = last.date().tomorrow().ok();
        while let Some(date) = day.filter(|date| *date >= first.date() && ticks.len() < most) {
            if self.line.is_on(date) {
                for (hour, minute) in self.line.times().rev() {
                    let Some(tick) = self.tick(date, hour, minute) else { continue };
                    if tick > after && tick <= until && ticks.last() != Some(&tick) && ticks.len() < most {
                        ticks.push(tick);
                    }
                }
            }
            day = date.yesterday().ok();
        }
        ticks
    }

    fn local(&self, at: Timestamp) -> Option<DateTime> {
        Some(self.zone.to_datetime(Moment::from_millisecond(at.0).ok()?))
    }

    /// The moment at which the wall clock shows this.
    fn tick(&self, date: Date, hour: i8, minute: i8) -> Option<Timestamp> {
        let local = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        let moment = match ambiguous.offset() {
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset of after the gap the time lies before the gap.
                let before = after.to_timestamp(local).ok()?;
                self.zone.following(before).next()?.timestamp()
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
        };
        Some(Timestamp(moment.as_millisecond()))
    }
}

/// What is to be done about the ticks of a schedule that are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The ticks for which a task is created, oldest first.
    pub ticks: Vec<Timestamp>,
    /// The last tick that is decided.
    pub last_tick: Timestamp,
    /// Ticks for which no task is created because no server ran at their time.
    pub missed: u64,
    /// Ticks for which no task is created because the one before was under way.
    pub skipped: u64,
    /// When the schedule is looked at next.
    pub wake_at: Option<Timestamp>,
}

impl Firing {
    /// The same with a task for the first `most` ticks alone, at least one. The others stay undecided, and
    /// the schedule is looked at again at once.
    #[must_use]
    pub fn first(mut self, most: usize, now: Timestamp) -> Self {
        if self.ticks.len() > most.max(1) {
            self.ticks.truncate(most.max(1));
            self.last_tick = self.ticks.last().copied().unwrap_or(self.last_tick);
            self.wake_at = Some(now);
        }
        self
    }
}

/// Decides about the ticks after `last_tick` up to now. `is_busy`: the task of an earlier tick has not ended.
#[must_use]
pub fn fire(
    calendar: &Calendar,
    (missed_ticks, overlap): (MissedTicks, TickOverlap),
    is_busy: bool,
    last_tick: Timestamp,
    now: Timestamp,
) -> Firing {
    let mut due = calendar.between(last_tick, now, COUNTED_MAX);
    due.reverse();
    let none = Firing { ticks: Vec::new(), last_tick, missed: 0, skipped: 0, wake_at: None };
    let Some(newest) = due.last().copied() else {
        return Firing { wake_at: calendar.after(last_tick.max(now)), ..none };
    };
    match overlap {
        TickOverlap::Wait if is_busy => {
            return Firing { wake_at: Some(now.after(OVERLAP_LOOK)), ..none };
        }
        TickOverlap::Skip if is_busy => {
            let skipped = due.len() as u64;
            return Firing { last_tick: newest, skipped, wake_at: calendar.after(now), ..none };
        }
        TickOverlap::Allow | TickOverlap::Wait | TickOverlap::Skip => {}
    }
    let most = match missed_ticks {
        MissedTicks::One => 1,
        MissedTicks::Each => EACH_MAX,
    };
    let missed = due.len().saturating_sub(most);
    let mut ticks = due.split_off(missed);
    let (missed, mut skipped, mut wake_at) = (missed as u64, 0, calendar.after(now));
    match overlap {
        TickOverlap::Allow => {}
        TickOverlap::Skip => {
            skipped = ticks.len() as u64 - 1;
            ticks.drain(..ticks.len() - 1);
        }
        TickOverlap::Wait => {
            // The others follow, each once the task before it has ended.
            if ticks.len() > 1 {
                wake_at = Some(now.after(OVERLAP_LOOK));
            }
            ticks.truncate(1);
        }
    }
    let last_tick = ticks.last().copied().unwrap_or(newest);
    Firing { ticks, last_tick, missed, skipped, wake_at }
}

/// Where a schedule begins that a person changed or resumed: no tick before now is owed. A position that lies
/// far ahead was written by a clock that was wrong, and is forgotten.
#[must_use]
pub fn begins_anew(last_tick: Timestamp, now: Timestamp) -> Timestamp {
    if last_tick > now.after(AHEAD_MAX) { now } else { last_tick.max(now) }
}

#[cfg(test)]
mod tests;
