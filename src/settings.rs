//! Settings: one struct a section, each in its own file below this one. Parsed once; all faults
//! are reported together.

pub mod git;

/// Durations as people write them (`45s`, `5m`, `1h 30m`), for `#[serde(with = ...)]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads `45s`.
    ///
    /// # Errors
    /// A text that `humantime` does not read, a bare number among them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?} is no duration: {error}")))
    }

    /// Writes `45s`.
    ///
    /// # Errors
    /// None of its own.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, `section.name`.
    pub key: String,
    /// What is wrong with its value, the value included unless it is a secret.
    pub message: String,
}
