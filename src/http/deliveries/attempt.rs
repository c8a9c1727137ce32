//! One attempt of a delivery, as the API shows it.

use serde::Serialize;
use tidings_actors::ports::{AttemptRecord, KeptAnswer, SubscriptionAttempt};
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// One try of a delivery.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptShown {
    number: u32,
    /// The receiver's status code; null where there was no answer.
    http_status: Option<u16>,
    /// The beginning of its answer, or why there was none.
    excerpt: String,
    /// The headers and the body of the answer. In a batch the first change has them; attempts from before
    /// they were stored have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerShown>,
    took_ms: u64,
    ended_at: String,
}

/// What a receiver answered, credentials replaced by `[redacted]`, control characters escaped.
#[derive(Serialize, ToSchema)]
struct AnswerShown {
    /// The header fields in the order they came, at most 4 KiB in all.
    headers: Vec<HeaderShown>,
    /// The beginning of the body, at most 4 KiB.
    body: String,
}

/// One header field of an answer.
#[derive(Serialize, ToSchema)]
struct HeaderShown {
    /// The name of the header field, in lower case.
    name: String,
    value: String,
}

impl AttemptShown {
    pub(crate) fn of_subscription(attempt: &SubscriptionAttempt) -> Self {
        let outcome = &attempt.outcome;
        Self {
            number: attempt.number,
            http_status: outcome.result.ok(),
            excerpt: outcome.excerpt.clone(),
            answer: outcome.answer.as_deref().map(AnswerShown::of),
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            ended_at: iso(attempt.at),
        }
    }

    pub(crate) fn of(attempt: &AttemptRecord) -> Self {
        Self {
            number: attempt.number,
            http_status: attempt.status,
            excerpt: attempt.excerpt.clone(),
            answer: attempt.answer.as_deref().map(AnswerShown::of),
            took_ms: attempt.took_ms,
            ended_at: iso(attempt.at),
        }
    }
}

impl AnswerShown {
    fn of(answer: &KeptAnswer) -> Self {
        let header =
            |(name, value): &(String, String)| HeaderShown { name: name.clone(), value: value.clone() };
        Self { headers: answer.headers.iter().map(header).collect(), body: answer.body.clone() }
    }
}
