//! The outcome of one attempt: the answer of the receiver, or why there was none.

use std::{sync::Arc, time::Duration};

/// Why an attempt got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The deadline of the attempt passed.
    Timeout,
    /// No connection was made: resolution, connection or TLS failed. Of sinks other than an endpoint and
    /// a stream also: the connection broke.
    Connection,
    /// The connection was made, and broke before a whole answer came: the receiver may have read the request.
    Cut,
    /// The address is refused by the egress rules; trying again soon is useless.
    Refused,
    /// The base address cannot be used.
    InvalidUrl,
}

/// The outcome of one attempt. A chunked file is one attempt over all its requests: the first answer that is
/// not 2xx, or the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptOutcome {
    /// The status code, or why there was no answer.
    pub result: Result<u16, SendFailure>,
    /// The wait that `Retry-After` asks for, from now; both forms of the header are read.
    pub retry_after: Option<Duration>,
    /// At most 1,024 characters of the answer's body or of the failure, control characters
    /// escaped.
    pub excerpt: String,
    /// The duration of the attempt.
    pub took: Duration,
    /// More of the answer, for people. Of a request that was acknowledged only where every attempt is
    /// recorded.
    pub answer: Option<Arc<KeptAnswer>>,
}

/// The stored part of an endpoint's answer: credentials replaced, control characters escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Names in lower case and values, in the order they came; at most 4 KiB in all.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, at most 4 KiB.
    pub body: String,
}

impl AttemptOutcome {
    /// Whether the receiver acknowledged the request.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.result, Ok(200..=299))
    }
}

/// The answer of the receiver for one change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// The receiver acknowledged the change.
    Accepted,
    /// The receiver refused the change for good, with a reason of at most 1,024 characters, control
    /// characters escaped.
    Refused(String),
    /// The receiver wants the change again later, or did not report it; with the reason.
    Retry(String),
    /// The change was not tried: the endpoint failed at an earlier change, or a claim ended.
    Untaken,
}
