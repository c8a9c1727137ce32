//! Guards of each watch.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::Fault;

/// Guards of each watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSettings {
    /// A round that deletes more than this share of the files that the app has pauses the watch;
    /// `None` (`off`): no round does.
    #[serde(deserialize_with = "percent", serialize_with = "percent_or_off")]
    pub max_delete_percent: Option<u8>,
    /// In `every` mode: how many commits behind the head are walked to find the held one.
    pub every_max: u32,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { max_delete_percent: None, every_max: 1000 }
    }
}

impl WatchSettings {
    pub(super) fn validate(&self) -> Option<Fault> {
        Fault::of_range("watch.every_max", self.every_max.into(), 1..=100_000)
    }
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
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
