//! Bodies of requests, read as codeQ reads them: unknown fields are ignored, a field of another type makes
//! the body invalid, and `null` is a missing field.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use crate::http::{
    apps::receiver::read_web_address,
    bodies::{
        decoding::in_words,
        fields::Fields,
        problem::{Kind, Problem},
    },
    front::Front,
    tasks::words::REASON_MAX,
};

/// Most items of a batch of tasks or results.
pub(super) const BATCH_MAX: usize = 100;

/// Reads the JSON of a request. Unknown fields are ignored.
///
/// # Errors
/// 400 `invalid body`, with the reason as detail.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = match error.is_data() {
            true => format!("the body, or a field of it, {}", in_words(&error)),
            false => format!("the body is not valid JSON (line {}, column {})", error.line(), error.column()),
        };
        Problem::malformed(detail).saying("invalid body")
    })
}

/// Reads a body that may be missing.
///
/// # Errors
/// Those of [`read`].
pub(super) fn read_optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { read(body) }
}

/// 400 with this text.
pub(super) fn invalid(error: impl Into<String>) -> Problem {
    Problem::new(Kind::MALFORMED).saying(error)
}

/// A number of seconds within bounds; 0, a negative number or no number is the default.
pub(super) fn seconds(asked: Option<i64>, default: Duration, most: Duration) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    asked.map_or(default, Duration::from_secs).min(most)
}

/// A text for people: cut to the length that is kept, without NUL, which PostgreSQL does not store.
pub(super) fn reason(text: &str) -> String {
    text.chars().take(REASON_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

/// A web address that may be called.
///
/// # Errors
/// 400 with the reason.
pub(super) fn address(front: &Front, name: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let mut fields = Fields::of_object([(name.to_owned(), Value::from(text))].into_iter().collect());
    let address = read_web_address(front, &mut fields, name);
    fields.finish()?;
    Ok(address)
}

/// A task to create.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqTaskToCreate)]
pub(super) struct TaskToCreate {
    /// Command, which names the queue.
    #[serde(default)]
    pub(super) command: String,
    /// Payload for the worker: any JSON but null.
    #[schema(value_type = serde_json::Value)]
    pub(super) payload: Option<Box<RawValue>>,
    /// Priority; 9 is claimed first. Cut to 0 to 9.
    pub(super) priority: Option<i64>,
    /// Web address that receives a message when the task ends.
    pub(super) webhook: Option<String>,
    /// Number of attempts after which the task is dead. Missing or 0: the setting of the queue.
    pub(super) max_attempts: Option<i64>,
    /// Key: a second request with the same key for the same command creates no second task.
    pub(super) idempotency_key: Option<String>,
    /// When the task is due (RFC 3339). Takes precedence over `delaySeconds`.
    pub(super) run_at: Option<String>,
    /// Seconds until the task is due.
    pub(super) delay_seconds: Option<i64>,
}

/// Several tasks to create with one request.
#[derive(Deserialize, ToSchema)]
#[schema(as = CodeqTasksToCreate)]
pub(super) struct TasksToCreate {
    /// The tasks, 1 to 100, each as in `POST /v1/codeq/tasks`. Each is answered by itself, also if its values
    /// are refused.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub(super) tasks: Vec<TaskToCreate>,
}

/// A request of a worker for tasks.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqClaim)]
pub(super) struct ClaimToMake {
    /// Commands of the tasks. Missing: the commands of the token.
    pub(super) commands: Option<Vec<String>>,
    /// Seconds until the claim ends, at most 3,600. Missing or 0: 300.
    pub(super) lease_seconds: Option<i64>,
    /// Seconds to wait for a task, at most 30.
    pub(super) wait_seconds: Option<i64>,
}

/// A request of a worker for several tasks.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqClaimOfMany)]
pub(super) struct ClaimOfMany {
    /// Commands of the tasks. Missing: the commands of the token.
    pub(super) commands: Option<Vec<String>>,
    /// Seconds until the claims end, at most 3,600. Missing or 0: 300.
    pub(super) lease_seconds: Option<i64>,
    /// Most tasks to claim, 1 to 10.
    pub(super) count: i64,
}

/// Extends the claim on a task.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqHeartbeat)]
pub(super) struct Heartbeat {
    /// Seconds until the claim ends, counted from now, at most 3,600. Missing or 0: 300.
    pub(super) extend_seconds: Option<i64>,
}

/// Gives a task back after a failed attempt.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqNack)]
pub(super) struct Nack {
    /// Seconds until the next attempt, at most the longest wait of the queue. Missing or 0: the policy
    /// decides.
    pub(super) delay_seconds: Option<i64>,
    /// Reason that people are shown, cut to 2,000 characters.
    pub(super) reason: Option<String>,
}

/// A file that comes with a result.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqArtifact)]
pub(super) struct ArtifactToKeep {
    /// Name of the artifact.
    #[serde(default)]
    pub(super) name: String,
    /// Address of a file that is kept elsewhere.
    pub(super) url: Option<String>,
    /// The bytes, as base64.
    pub(super) content_base64: Option<String>,
    /// Media type of the bytes.
    pub(super) content_type: Option<String>,
}

/// The end of a task.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqResult)]
pub(super) struct ResultToKeep {
    /// How the task ended: `COMPLETED` or `FAILED`.
    #[serde(default)]
    pub(super) status: String,
    /// Result, an object; required with `COMPLETED`.
    #[schema(value_type = Option<Object>)]
    pub(super) result: Option<Box<RawValue>>,
    /// Error, for people; required with `FAILED`.
    pub(super) error: Option<String>,
    /// Files that come with the result.
    pub(super) artifacts: Option<Vec<ArtifactToKeep>>,
}

/// The end of one of several tasks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultOfTask {
    /// Id of the task.
    #[serde(default)]
    pub(super) task_id: String,
    /// How the task ended: `COMPLETED` or `FAILED`.
    #[serde(default)]
    pub(super) status: String,
    /// Result, an object; required with `COMPLETED`.
    pub(super) result: Option<Box<RawValue>>,
    /// Error, for people; required with `FAILED`.
    pub(super) error: Option<String>,
    /// Files that come with the result.
    pub(super) artifacts: Option<Vec<ArtifactToKeep>>,
}

/// The ends of several tasks.
#[derive(Deserialize, ToSchema)]
#[schema(as = CodeqResults)]
pub(super) struct ResultsToKeep {
    /// The results, 1 to 100: `taskId` and the fields of `POST /v1/codeq/tasks/{id}/result`. Each is answered
    /// by itself, also if its values are refused.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub(super) results: Vec<ResultOfTask>,
}

/// A worker subscription to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqSubscription)]
pub(super) struct WorkerToSubscribe {
    /// Web address that is told of work.
    pub(super) callback_url: Option<String>,
    /// Commands of the queues. Missing: the commands of the token.
    pub(super) event_types: Option<Vec<String>>,
    /// How long it lasts unless a heartbeat extends it, in seconds. Missing or 0: 300.
    pub(super) ttl_seconds: Option<i64>,
    /// `fanout`, `group` or `hash`. Missing: `fanout`.
    pub(super) delivery_mode: Option<String>,
    /// Name of the group; required with `group`.
    pub(super) group_id: Option<String>,
    /// Shortest time between two messages about one command, in seconds. Missing: 5.
    pub(super) min_interval_seconds: Option<i64>,
}

/// How long a worker subscription is to last.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqRenewal)]
pub(super) struct Renewal {
    /// In seconds from now on. Missing or 0: the time that it was made for.
    pub(super) ttl_seconds: Option<i64>,
}

/// Which tasks a cleanup removes.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = CodeqCleanup)]
pub(super) struct Cleanup {
    /// Most tasks, at most 10,000. Missing or 0: 1,000.
    pub(super) limit: Option<i64>,
    /// Only tasks that were to be removed before this moment (RFC 3339). Missing: now.
    pub(super) before: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cut_to_their_bounds_and_nothing_is_the_default() {
        let (default, most) = (Duration::from_secs(300), Duration::from_secs(3_600));
        for (asked, want) in [
            (None, 300),
            (Some(0), 300),
            (Some(-5), 300),
            (Some(i64::MIN), 300),
            (Some(1), 1),
            (Some(3_600), 3_600),
            (Some(i64::MAX), 3_600),
        ] {
            assert_eq!(seconds(asked, default, most), Duration::from_secs(want), "{asked:?}");
        }
    }

    #[test]
    fn reasons_are_cut_and_hold_no_nul() {
        assert_eq!(reason("a\0b"), "a\u{fffd}b");
        assert_eq!(reason(&"ä".repeat(REASON_MAX + 7)).chars().count(), REASON_MAX);
    }
}
