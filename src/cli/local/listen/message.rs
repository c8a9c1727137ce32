//! A received message as data. Unknown fields are ignored, so that later versions may add fields.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// The kind of a request, by the last component of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `/create` and `/update`: the path has this content now.
    Put,
    /// `/delete`: the path is gone.
    Delete,
    /// `/batch`: many changes in one request.
    Batch,
    /// `/resync`: every file is about to be sent again.
    Resync,
    /// `/synced`: the round is finished.
    Synced,
    /// `/sync_failed` and `/sync_recovered`: news of the Git source.
    News,
    /// `/test`: a test of the endpoint, about no repository.
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

/// The body of a delivery or notice, as far as this program reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// The watch that the message is about.
    pub repository: Repository,
    /// The changed file; only in a change.
    pub file: Option<File>,
    /// The `event` object of Tidings; of `sync_failed`, and of other senders, something else or nothing.
    #[serde(default, deserialize_with = "lenient")]
    pub event: Option<Event>,
    /// The text of the failure, in `sync_failed`.
    pub error_message: Option<String>,
}

/// The `repository` object of a body.
#[derive(Clone, Debug, Deserialize)]
pub struct Repository {
    /// Id of the watch, `repo_...`.
    pub repository_id: String,
    /// The address as it was registered.
    pub github_url: String,
}

/// The `file` object of a body.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    /// The path as text.
    pub path: String,
    /// The raw bytes of the path in base64, where they are not UTF-8.
    pub path_base64: Option<String>,
    /// SHA-256 of the whole content.
    pub sha: Option<String>,
    /// The size of the whole content in bytes.
    pub size: Option<u64>,
    /// The content or a chunk of its base64 text.
    pub content: Option<String>,
    /// `base64`; missing where `content` is text.
    pub content_encoding: Option<String>,
    /// The part of the base64 text that this message carries.
    pub chunk: Option<Chunk>,
    /// The mode in Git, such as `100644`.
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

/// The `chunk` object of a body.
#[derive(Clone, Debug, Deserialize)]
pub struct Chunk {
    /// Id of the attempt that the chunk belongs to.
    pub id: String,
    /// The number of the chunk within the file, from 0.
    pub index: u64,
    /// The number of chunks of the file.
    pub total: u64,
    /// The number of the file's bytes before the chunk; missing from older senders.
    pub offset: Option<u64>,
}

/// The `event` object of a body.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// The delivery id: the same at every attempt.
    pub id: String,
    /// The branch of the watch, `cur_...`; missing in `sync_recovered`.
    pub cursor: Option<String>,
    /// The name of the branch or tag.
    pub branch: Option<String>,
    /// The number of the round.
    pub round: Option<i64>,
    /// The position of the change in the round, from 0; missing in notices.
    pub position: Option<u64>,
    /// The number of changes in the round.
    pub total: Option<u64>,
    /// In a notice: whether each file that the round does not name is to be deleted.
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
