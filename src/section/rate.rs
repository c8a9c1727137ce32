//! How often something may happen, as people write it: `15/s`, `900/m`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Requests per second, minute or hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    requests: u32,
    per: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
}

/// A text that is no rate.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{text:?} is no rate: write a number of requests from 1 to 1000000 and /s, /m or /h")]
pub struct InvalidRate {
    text: String,
}

impl Rate {
    /// This many requests per second.
    #[must_use]
    pub const fn per_second(requests: u32) -> Self {
        Self { requests, per: Period::Second }
    }

    /// The time between two requests when they are evenly spaced.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.period() / self.requests
    }

    /// How many requests may come at once: a second's worth, at least one.
    #[must_use]
    pub fn burst(self) -> u32 {
        (self.requests / u32::try_from(self.period().as_secs()).unwrap_or(u32::MAX)).max(1)
    }

    fn period(self) -> Duration {
        match self.per {
            Period::Second => Duration::from_secs(1),
            Period::Minute => Duration::from_mins(1),
            Period::Hour => Duration::from_hours(1),
        }
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let invalid = || InvalidRate { text: text.to_owned() };
        let (requests, per) = text.split_once('/').ok_or_else(invalid)?;
        let per = match per.trim() {
            "s" => Period::Second,
            "m" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(invalid()),
        };
        match requests.trim().parse() {
            Ok(requests @ 1..=1_000_000) => Ok(Self { requests, per }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => 's',
            Period::Minute => 'm',
            Period::Hour => 'h',
        };
        write!(formatter, "{}/{per}", self.requests)
    }
}

impl TryFrom<String> for Rate {
    type Error = InvalidRate;

    fn try_from(text: String) -> Result<Self, InvalidRate> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_over_a_span() {
        for (text, interval, burst) in
            [("15/s", 66_666_666, 15), ("900/m", 66_666_666, 15), ("1/h", 3_600_000_000_000, 1)]
        {
            let rate: Rate = text.parse().expect("valid");
            assert_eq!((rate.interval().as_nanos(), rate.burst()), (interval, burst), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for text in ["15", "0/s", "-1/s", "15/d", "", "/s", "1000001/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
