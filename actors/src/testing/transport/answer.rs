//! What the receiver in memory answers, and whether it keeps the change before it does.

use std::time::Duration;

use crate::ports::SendFailure;

/// How to answer: by path, or whatever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Nothing.
    Failure(SendFailure),
    /// This status, with a `Retry-After`.
    Patience(u16, Duration),
    /// This status, after so long.
    Slow(u16, Duration),
    /// This status to each of so many requests of one attempt, each after so long.
    Sliced(u16, u32, Duration),
    /// Nothing, which is found out after so long.
    Late(Duration),
    /// The change is applied as soon as it arrives, whatever is answered then; of a batch, every
    /// change of it.
    Applied(Reply),
    /// Never; the attempt hangs until its task ends.
    Hang,
    /// The code that sends it panics.
    Panic,
}

/// What follows a change that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This status.
    Status(u16),
    /// No answer.
    Failure(SendFailure),
    /// This status, after so long.
    Slow(u16, Duration),
    /// No answer, which is found out after so long.
    Late(Duration),
    /// Never; the attempt hangs until its task ends.
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
