//! A fault of the settings.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// One fault of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key of the setting, `section.name`.
    pub key: String,
    /// The fault of the value, including the value unless it is a secret, and where the value came from.
    pub message: String,
}

impl Fault {
    /// A fault of the setting `key`, with a message for people.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// A duration that must not be zero, but is.
    #[must_use]
    pub fn of_zero(key: &str, duration: Duration) -> Option<Self> {
        duration.is_zero().then(|| Self::new(key, "\"0s\" is too short: it must be longer than nothing"))
    }

    /// A number outside its bounds.
    #[must_use]
    pub fn of_range(key: &str, number: u64, bounds: RangeInclusive<u64>) -> Option<Self> {
        let (least, most) = (bounds.start(), bounds.end());
        (!bounds.contains(&number))
            .then(|| Self::new(key, format!("{number} does not lie between {least} and {most}")))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)
    }
}
