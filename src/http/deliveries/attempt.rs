//! One attempt of a delivery, as the API shows it.

use serde::Serialize;
use tidings_actors::ports::{AttemptRecord, KeptAnswer, SubscriptionAttempt};
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// One attempt of a delivery.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptShown {
    number: u32,
    /// Status code of the receiver. Null: there was no answer.
    http_status: Option<u16>,
    /// Beginning of the answer, or the reason why there was none.
    excerpt: String,
    /// Headers and body of the answer. In a batch only the first change has them. Missing in attempts from
    /// before answers were stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerShown>,
    took_ms: u64,
    ended_at: String,
}

/// Answer of a receiver. Credentials are replaced by `[redacted]`, control characters are escaped.
#[derive(Serialize, ToSchema)]
struct AnswerShown {
    /// Header fields in the order of their arrival, at most 4 KiB in all.
    headers: Vec<HeaderShown>,
    /// Beginning of the body, at most 4 KiB.
    body: String,
}

/// One header field of an answer.
#[derive(Serialize, ToSchema)]
struct HeaderShown {
    /// Name of the header field, in lower case.
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
