//! `watch`: guards that pause a watch before a round does harm.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Guards of each watch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSettings {
    /// A round that deletes more than this share of the files that the app has pauses the watch; `None`
    /// (`off`): no round does. A vanished branch of a pattern deletes all of its files and counts as 100 %,
    /// because a host that loses its refs looks the same. Watches that keep the files of vanished branches
    /// have no such round.
    #[serde(deserialize_with = "percent", serialize_with = "percent_or_off")]
    pub max_delete_percent: Option<u8>,
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let text = tidings_section::text_or_number(deserializer)?;
    if text == "off" {
        return Ok(None);
    }
    match text.parse() {
        Ok(percent @ 1..=100) => Ok(Some(percent)),
        _ => Err(D::Error::custom(format!("{text:?} is neither \"off\" nor a number from 1 to 100"))),
    }
}

fn percent_or_off<S: Serializer>(percent: &Option<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    match percent {
        Some(percent) => serializer.serialize_u8(*percent),
        None => serializer.serialize_str("off"),
    }
}
