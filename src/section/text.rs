//! How values that are more than a number or a word are written as text, for
//! `#[serde(with = ...)]`.

/// Durations as people write them (`45s`, `5m`, `1h 30m`).
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads `45s`.
    ///
    /// # Errors
    /// If `humantime` cannot parse the text; a number without a unit is refused.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?} is no duration: {error}")))
    }

    /// Writes `45s`.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, Visitor, value},
};
use url::Url;

/// Reads one of a few words; the error names them all.
///
/// # Errors
/// For any other word.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = T::deserialize(text.into_deserializer());
    known.map_err(|error: value::Error| D::Error::custom(error.to_string().replace("variant", "value")))
}

/// Reads a text, or a number as its text: for settings that people write either way.
///
/// # Errors
/// For a value of another type.
pub fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(TextOrNumber)
}

struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// An address without its password.
#[must_use]
pub fn masked(url: &Url) -> String {
    let mut shown = url.clone();
    if url.password().is_some() && shown.set_password(Some("redacted")).is_err() {
        return secret::REDACTED.to_owned();
    }
    shown.set_query(None);
    shown.into()
}

/// A value that may be left out, written as an empty text.
pub mod optional {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Reads a text; empty is `None`.
    ///
    /// # Errors
    /// The error of the type for an invalid text.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?} is not valid: {error}")))
    }

    /// Writes the value, or an empty text.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

/// A secret that may be left out. It is read, and never written.
pub mod secret {
    use serde::{Deserialize, Deserializer, Serializer};
    use tidings_actors::model::secret::Secret;

    /// The text that replaces a secret.
    pub const REDACTED: &str = "[redacted]";

    /// Reads a secret; empty is `None`.
    ///
    /// # Errors
    /// If the value is no text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok((!text.is_empty()).then(|| Secret::new(text)))
    }

    /// Writes [`REDACTED`], or an empty text if there is no secret.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if secret.is_some() { REDACTED } else { "" })
    }
}

/// A list of secrets, which may be empty. They are read, and never written.
pub mod secrets {
    use serde::{Deserialize, Deserializer, Serializer};
    use tidings_actors::model::secret::Secret;

    use super::secret::REDACTED;

    /// Reads a list of secrets.
    ///
    /// # Errors
    /// A value that is no list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Ok(texts.into_iter().filter(|text| !text.is_empty()).map(Secret::new).collect())
    }

    /// Writes [`REDACTED`] for each secret.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(secrets.iter().map(|_| REDACTED))
    }
}
