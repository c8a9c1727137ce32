//! A cron line: which minutes of which days, on the clock of the wall.
//!
//! Five fields: minute, hour, day of the month, month, day of the week. A field is a list of numbers, ranges
//! (`1-5`) and steps (`*/15`, `8-18/2`, `5/20`); months and days of the week also have names. As in cron, a
//! day must match both day fields, unless both are restricted (neither begins with `*`): then one is enough.

use std::str::FromStr;

use jiff::civil::Date;
use thiserror::Error;

/// Most characters of a cron line.
pub const CRON_MAX: usize = 200;
/// The names that stand for five fields.
const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The days of each month in a leap year.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// One of the five fields.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// The names of its numbers, from `least` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of the month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS },
];

/// What is wrong with a cron line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CronFault {
    /// It has another number of fields.
    #[error(
        "must have five fields (minute, hour, day of the month, month, day of the week) or be one of \
         @hourly, @daily, @weekly, @monthly and @yearly"
    )]
    Fields,
    /// A part of a field is not understood.
    #[error("has {part:?} as {field}: numbers from {least} to {most}, a-b, a-b/n, */n, and lists of these")]
    Part {
        /// The field in words.
        field: &'static str,
        /// The part that was given.
        part: String,
        /// The smallest number of the field.
        least: u32,
        /// The largest number of the field.
        most: u32,
    },
    /// No date matches it, such as the 30th of February.
    #[error("means a day that no year has")]
    Never,
}

/// A cron line. Each field is the set of its numbers, one bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronLine {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day that matches one of the two day fields is enough.
    is_either_day: bool,
}

impl CronLine {
    /// Whether the line has ticks on this date.
    #[must_use]
    pub fn is_on(&self, date: Date) -> bool {
        let has = |set: u64, number: i8| u32::try_from(number).is_ok_and(|number| set & (1 << number) != 0);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is_day = if self.is_either_day { day || weekday } else { day && weekday };
        has(self.months, date.month()) && is_day
    }

    /// The hours and minutes of its ticks, in their order.
    pub fn times(&self) -> impl DoubleEndedIterator<Item = (i8, i8)> + '_ {
        let hours = (0_i8..24).filter(|hour| self.hours & (1 << *hour) != 0);
        hours
            .flat_map(|hour| (0_i8..60).map(move |minute| (hour, minute)))
            .filter(|(_, minute)| self.minutes & (1 << *minute) != 0)
    }

    /// Whether some year has a day that matches.
    fn has_days(&self) -> bool {
        let is_month = |month: usize| self.months & (1 << (month + 1)) != 0;
        let of_month = |days: u32| self.days & ((1_u64 << (days + 1)) - 2) != 0;
        let has_day = (0..12).any(|month| is_month(month) && of_month(MONTH_DAYS[month]));
        has_day || (self.is_either_day && self.months != 0 && self.weekdays != 0)
    }
}

impl FromStr for CronLine {
    type Err = CronFault;

    fn from_str(text: &str) -> Result<Self, CronFault> {
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        let text = named.map_or(text, |(_, fields)| *fields);
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else { return Err(CronFault::Fields) };
        let [minute, hour, day, month, weekday] = &FIELDS;
        let weekday_set = set(weekday, weekdays)?;
        let line = Self {
            minutes: set(minute, minutes)?,
            hours: set(hour, hours)?,
            days: set(day, days)?,
            months: set(month, months)?,
            // 7 is Sunday as well.
            weekdays: (weekday_set | (weekday_set >> 7)) & 0x7f,
            is_either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        if line.has_days() { Ok(line) } else { Err(CronFault::Never) }
    }
}

/// The numbers that a field means, one bit for each.
fn set(field: &Field, text: &str) -> Result<u64, CronFault> {
    let fault = |part: &str| CronFault::Part {
        field: field.name,
        part: part.chars().take(40).collect(),
        least: field.least,
        most: field.most,
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, Some(number(step).filter(|step| *step > 0).ok_or_else(|| fault(part))?))
            }
            None => (part, None),
        };
        let value = |text: &str| value(field, text).ok_or_else(|| fault(part));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (field.least, field.most.min(if field.most == 7 { 6 } else { field.most })),
            Some((from, to)) => (value(from)?, value(to)?),
            // `5/20` begins at 5 and goes on to the end.
            None if step.is_some() => (value(range)?, field.most),
            None => (value(range)?, value(range)?),
        };
        if from > to {
            return Err(fault(part));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        set = (from..=to).step_by(step).fold(set, |set, number| set | (1_u64 << number));
    }
    Ok(set)
}

fn value(field: &Field, text: &str) -> Option<u32> {
    let named = field.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let named = named.and_then(|place| u32::try_from(place).ok()).map(|place| place + field.least);
    named.or_else(|| number(text)).filter(|number| (field.least..=field.most).contains(number))
}

/// A number of digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
