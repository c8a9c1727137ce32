//! What the receiver in memory answers, and whether it keeps the change before it does.

use std::time::Duration;

use crate::ports::SendFailure;

/// How the receiver answers: to one path, or to the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answers with this status.
    Status(u16),
    /// Gives no answer: the attempt fails like this.
    Failure(SendFailure),
    /// Answers with this status and a `Retry-After` of this span.
    RetryAfter(u16, Duration),
    /// Answers with this status after this span.
    Slow(u16, Duration),
    /// Answers each of several requests of one attempt with this status, each after this span.
    Sliced(u16, u32, Duration),
    /// Gives no answer; the attempt fails after this span.
    Late(Duration),
    /// The change is applied as soon as it arrives, whatever is answered then; of a batch, every
    /// change of it.
    Applied(Reply),
    /// Never; the attempt hangs until its task ends.
    Hang,
    /// The code that sends it panics.
    Panic,
}

/// The answer after a change was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answers with this status.
    Status(u16),
    /// Gives no answer: the attempt fails like this.
    Failure(SendFailure),
    /// Answers with this status after this span.
    Slow(u16, Duration),
    /// Gives no answer; the attempt fails after this span.
    Late(Duration),
    /// Never answers; the attempt hangs until its task ends.
    Hang,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Status(status) => Self::Status(status),
            Reply::Failure(failure) => Self::Failure(failure),
            Reply::Slow(status, wait) => Self::Slow(status, wait),
            Reply::Late(wait) => Self::Late(wait),
            Reply::Hang => Self::Hang,
        }
    }
}
