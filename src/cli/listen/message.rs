//! What arrives, as data. Fields that this program does not know are passed over, so that bodies
//! may grow.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// The last component of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `/create` and `/update`: the path has this content now.
    Put,
    /// `/delete`: the path is gone.
    Delete,
    /// `/batch`: many changes.
    Batch,
    /// `/resync`: everything comes anew.
    Resync,
    /// `/synced`: the round is over.
    Synced,
    /// `/sync_failed` and `/sync_recovered`.
    News,
    /// `/test`: about no repository.
    Test,
}

impl Verb {
    /// The verb of a path.
    #[must_use]
    pub fn of(path: &str) -> Option<(Self, &str)> {
        let word = path.rsplit('/').next()?;
        let verb = match word {
            "create" | "update" => Self::Put,
            "delete" => Self::Delete,
            "batch" => Self::Batch,
            "resync" => Self::Resync,
            "synced" => Self::Synced,
            "sync_failed" | "sync_recovered" => Self::News,
            "test" => Self::Test,
            _ => return None,
        };
        Some((verb, word))
    }
}

/// A body.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// The watch.
    pub repository: Repository,
    /// The file, in a change.
    pub file: Option<File>,
    /// Our event object; of `sync_failed`, and of other senders, something else or nothing.
    #[serde(default, deserialize_with = "lenient")]
    pub event: Option<Event>,
    /// What failed, in `sync_failed`.
    pub error_message: Option<String>,
}

/// The `repository` object.
#[derive(Clone, Debug, Deserialize)]
pub struct Repository {
    /// The watch's id.
    pub repository_id: String,
    /// The address as it was registered.
    pub github_url: String,
}

/// The `file` object.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    /// The path as text.
    pub path: String,
    /// The path's bytes, where they are not UTF-8.
    pub path_base64: Option<String>,
    /// SHA-256 of the whole content.
    pub sha: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// The content or a chunk of its base64 text.
    pub content: Option<String>,
    /// `base64` or nothing.
    pub content_encoding: Option<String>,
    /// Which part of the base64 text this is.
    pub chunk: Option<Chunk>,
    /// The Git mode.
    pub mode: Option<String>,
}

impl File {
    /// The path's bytes.
    ///
    /// # Errors
    /// When `path_base64` is no base64.
    pub fn path_bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        match &self.path_base64 {
            None => Ok(self.path.clone().into_bytes()),
            Some(encoded) => BASE64_STANDARD.decode(encoded),
        }
    }
}

/// The `chunk` object.
#[derive(Clone, Debug, Deserialize)]
pub struct Chunk {
    /// Names the attempt that the chunk belongs to.
    pub id: String,
    /// Its place, from 0.
    pub index: u64,
    /// How many there are.
    pub total: u64,
    /// Bytes of the file before it; senders of before do not say.
    pub offset: Option<u64>,
}

/// The `event` object.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// The delivery id: the same at every attempt.
    pub id: String,
    /// The cursor; missing in `sync_recovered`.
    pub cursor: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// The round.
    pub round: Option<i64>,
    /// The place in the round, from 0; missing in notices.
    pub position: Option<u64>,
    /// How many changes the round has.
    pub total: Option<u64>,
    /// Of a notice: what the round does not name is to be dropped.
    #[serde(default)]
    pub complete: bool,
}

/// An event object, or nothing if it is something else (`"sync_failed"`).
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Event>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    if value.is_object() {
        return serde_json::from_value(value).map(Some).map_err(serde::de::Error::custom);
    }
    Ok(None)
}
