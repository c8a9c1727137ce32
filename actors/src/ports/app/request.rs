//! Requests that carry an `Idempotency-Key`, and their stored answers.

use std::time::Duration;

use tidings_entity::id::{AppId, Sha256Hash};

use crate::model::secret::Secret;

/// How long the stored answer to a request is given again, from the beginning of the request.
pub const ANSWERS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Stored answers of one owner at most; beyond that, the oldest are removed before their time.
pub const ANSWERS_MAX: u64 = 10_000;

/// A request with an idempotency key.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// The owner of the key: equal keys of different owners are different keys.
    pub owner: AppId,
    /// The key, 1 to 255 visible ASCII characters. Stored as SHA-256 only.
    pub key: String,
    /// The SHA-256 over everything that distinguishes this request from others.
    pub hash: Sha256Hash,
}

/// The stored answer to a request; it may hold tokens, so it is sealed in the database.
#[derive(Clone, Debug)]
pub struct StoredAnswer {
    /// The status code of the answer.
    pub status: u16,
    /// The `Content-Type`, in one line.
    pub content_type: Option<String>,
    /// The body of the answer.
    pub body: Secret,
}

/// The state of a keyed request that is about to begin.
#[derive(Clone, Debug)]
pub enum Begun {
    /// The key is new, or its first request was cut off by a crash: the request runs now.
    New,
    /// The first request with the key still runs.
    Running,
    /// The first request with the key got this answer.
    Answered(StoredAnswer),
    /// The key was used for another request.
    Other,
}
