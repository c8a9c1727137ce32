//! Messages in codeQ's form: the end of a task, and work for a worker subscription. Their fields are those
//! that codeQ's clients read.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tidings_actors::{
    model::codeq,
    ports::{LedgerEntry, WorkCall},
};
use tidings_entity::kind::TaskState;

use super::body::iso;

/// The route at which a worker claims tasks.
const CLAIM_URL: &str = "/v1/codeq/tasks/claim";

/// The end of a task.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndedShown<'a> {
    task_id: &'a str,
    event_type: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Value::is_null")]
    result: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<ArtifactShown<'a>>,
    completed_at: String,
}

/// A file that came with the result.
#[derive(Serialize)]
struct ArtifactShown<'a> {
    name: &'a str,
    /// The path of this server at which the bytes are.
    url: String,
}

/// Work for a worker subscription.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AvailableShown<'a> {
    event_type: &'a str,
    available: bool,
    queue_depth: u64,
    claim_url: &'static str,
    sent_at: String,
    notification_id: String,
}

/// The body of the entry about the end of a task.
pub(super) fn of_end(entry: &LedgerEntry) -> Bytes {
    let mut data: Value = serde_json::from_str(&entry.data).unwrap_or_default();
    let (result, artifacts) = (data["result"].take(), data["artifacts"].take());
    let state = data["state"].as_str().and_then(|word| word.parse().ok()).unwrap_or(TaskState::Failed);
    let names = artifacts.as_array().into_iter().flatten().filter_map(Value::as_str);
    let url = |name: &str| format!("/api/tasks/{}/artifacts/{name}", entry.subject);
    let shown = EndedShown {
        task_id: &entry.subject,
        event_type: data["command"].as_str().unwrap_or_default(),
        status: codeq::status(state),
        result,
        error: codeq::error(state, data["error"].as_str()),
        artifacts: names.map(|name| ArtifactShown { name, url: url(name) }).collect(),
        completed_at: iso(entry.at),
    };
    serde_json::to_vec(&shown).unwrap_or_default().into()
}

/// The body of the message to a worker subscription.
pub(super) fn of_work(call: &WorkCall) -> Bytes {
    let shown = AvailableShown {
        event_type: &call.command,
        available: true,
        queue_depth: call.ready,
        claim_url: CLAIM_URL,
        sent_at: iso(call.sent_at),
        notification_id: format!("ntf-{}", call.subscription),
    };
    serde_json::to_vec(&shown).unwrap_or_default().into()
}
