//! Requests that carry an `Idempotency-Key`, and what they were answered.

use std::time::Duration;

use tidings_entity::id::{AppId, Sha256Hash};

use crate::secret::Secret;

/// How long an answer can be had again, counted from the beginning of its request.
pub const ANSWERS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Answers of one owner that are kept at most; beyond, the oldest go before their time.
pub const ANSWERS_MAX: u64 = 10_000;

/// A request that names itself.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// Whose key it is: keys of different owners never meet.
    pub owner: AppId,
    /// The key, 1 to 255 visible ASCII characters. Stored as SHA-256 only.
    pub key: String,
    /// SHA-256 over all that makes it this request and no other.
    pub hash: Sha256Hash,
}

/// What a request was answered; it may hold tokens, so it is sealed at rest.
#[derive(Clone, Debug)]
pub struct StoredAnswer {
    /// The status code.
    pub status: u16,
    /// The `Content-Type`, in one line.
    pub content_type: Option<String>,
    /// The body.
    pub body: Secret,
}

/// What is known of a keyed request that wants to begin.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is the first, or its first was cut off by a crash: it runs now.
    New,
    /// Its first runs still.
    Running,
    /// Its first was answered so.
    Answered(StoredAnswer),
    /// The key was used for another request.
    Other,
}
