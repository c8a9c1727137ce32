//! Bodies of notices: messages that are not changes.
//!
//! `sync_failed` keeps the form that Docora's clients read (nested `error`) and repeats its class and text at
//! the top level, where other clients of Docora read them; the class of refused credentials contains `auth`.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tidings_actors::{
    model::round::{DeliveryId, Round},
    ports::{Action, Notice, RepositoryFacts, WorkCall},
    time::Timestamp,
};
use tidings_egress::redaction::redact;
use tidings_entity::{
    id::{AppId, CursorId, WatchId, WorkerSubscriptionId},
    kind::PayloadFormat,
};

use super::{body::iso, cloud_event, codeq, entry};

/// The deadline of `sync_failed` and `sync_recovered`, regardless of the endpoint's settings.
const OUTSIDE_LANES: Duration = Duration::from_secs(10);

/// A notice ready to be sent.
pub(crate) struct Letter {
    pub(crate) id: DeliveryId,
    pub(crate) action: Action,
    /// The watch that the notice is about; `None`: the app as a whole.
    pub(crate) watch: Option<WatchId>,
    pub(crate) body: Bytes,
    pub(crate) format: PayloadFormat,
    /// The deadline of the notice, where it differs from that of the endpoint.
    pub(crate) timeout: Option<Duration>,
}

#[derive(Serialize)]
struct EventBody<'a> {
    event: Event<'a>,
    repository: &'a RepositoryFacts,
    timestamp: String,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a CursorId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

#[derive(Serialize)]
struct TestBody<'a> {
    event: TestEvent<'a>,
    app: TestedApp<'a>,
    timestamp: String,
}

#[derive(Serialize)]
struct TestEvent<'a> {
    id: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct TestedApp<'a> {
    app_id: &'a AppId,
}

#[derive(Serialize)]
struct WorkBody<'a> {
    r#type: &'static str,
    command: &'a str,
    ready: u64,
    sent_at: String,
    subscription_id: &'a WorkerSubscriptionId,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    event: &'static str,
    repository: &'a RepositoryFacts,
    error: FailureError<'a>,
    circuit_breaker: CircuitBreaker,
    retry_count: u32,
    timestamp: String,
    error_type: &'static str,
    error_message: &'a str,
}

#[derive(Serialize)]
struct FailureError<'a> {
    r#type: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct CircuitBreaker {
    status: &'static str,
    consecutive_failures: u32,
    threshold: u32,
    cooldown_until: String,
}

/// The message to a worker subscription, which has one format, or codeQ's form.
fn of_work(call: &WorkCall) -> Letter {
    if call.is_codeq {
        return of_codeq(&call.id, codeq::of_work(call));
    }
    let body = WorkBody {
        r#type: "work.available",
        command: &call.command,
        ready: call.ready,
        sent_at: iso(call.sent_at),
        subscription_id: &call.subscription,
    };
    Letter {
        id: call.id.clone(),
        action: Action::Entry,
        watch: None,
        body: serde_json::to_vec(&body).unwrap_or_default().into(),
        format: PayloadFormat::Docora,
        timeout: None,
    }
}

/// A message in codeQ's form.
fn of_codeq(id: &DeliveryId, body: Bytes) -> Letter {
    let (id, format) = (id.clone(), PayloadFormat::Docora);
    Letter { id, action: Action::Codeq, watch: None, body, format, timeout: None }
}

/// Renders a notice; `format` is used for a notice outside of rounds.
pub(crate) fn render(notice: &Notice, format: PayloadFormat) -> Letter {
    match notice {
        Notice::OfRound { action, round, repository } => of_round(*action, round, repository),
        Notice::SyncRecovered { id, repository, timestamp } => {
            let event = Event {
                id: id.as_str(),
                r#type: "sync_recovered",
                cursor: None,
                branch: None,
                round: None,
                total: None,
                complete: None,
            };
            let data = EventBody { event, repository, timestamp: iso(*timestamp) };
            let named = (id.as_str(), Action::SyncRecovered.as_str());
            let body = json(format, named, repository, None, *timestamp, &data);
            let timeout = Some(OUTSIDE_LANES);
            let watch = Some(repository.repository_id.clone());
            Letter { id: id.clone(), action: Action::SyncRecovered, watch, body, format, timeout }
        }
        Notice::OfSubscription(message) => {
            if let Some(entry) = message.end_for_codeq() {
                return of_codeq(&message.id, codeq::of_end(entry));
            }
            let (id, body) = entry::render(message, format);
            Letter { id, action: Action::Entry, watch: None, body, format, timeout: None }
        }
        Notice::WorkAvailable(call) => of_work(call),
        Notice::Test { id, app, timestamp } => of_test(id, app, *timestamp, format),
        Notice::SyncFailed {
            id,
            repository,
            error,
            consecutive_failures,
            threshold,
            cooldown_until,
            timestamp,
        } => {
            let message = redact(&error.to_string());
            let data = FailureBody {
                event: "sync_failed",
                repository,
                error: FailureError { r#type: "git_failure", message: &message },
                circuit_breaker: CircuitBreaker {
                    status: "open",
                    consecutive_failures: *consecutive_failures,
                    threshold: *threshold,
                    cooldown_until: iso(*cooldown_until),
                },
                // Retries before this failure, as Docora counts.
                retry_count: consecutive_failures.saturating_sub(1),
                timestamp: iso(*timestamp),
                error_type: error.code(),
                error_message: &message,
            };
            let named = (id.as_str(), Action::SyncFailed.as_str());
            let body = json(format, named, repository, None, *timestamp, &data);
            let timeout = Some(OUTSIDE_LANES);
            let watch = Some(repository.repository_id.clone());
            Letter { id: id.clone(), action: Action::SyncFailed, watch, body, format, timeout }
        }
    }
}

/// A test names no repository, so that no receiver takes it for a change.
fn of_test(id: &DeliveryId, app: &AppId, timestamp: Timestamp, format: PayloadFormat) -> Letter {
    let action = Action::Test;
    let data = TestBody {
        event: TestEvent { id: id.as_str(), r#type: action.as_str() },
        app: TestedApp { app_id: app },
        timestamp: iso(timestamp),
    };
    let body = match format {
        PayloadFormat::Docora => serde_json::to_vec(&data).expect("a notice is plain data").into(),
        PayloadFormat::Cloudevents => cloud_event::of_test(id.as_str(), timestamp, data),
    };
    Letter { id: id.clone(), action, watch: None, body, format, timeout: None }
}

fn of_round(action: Action, round: &Round, repository: &RepositoryFacts) -> Letter {
    let id = DeliveryId::of_notice(&round.cursor, round.number, action.as_str());
    let event = Event {
        id: id.as_str(),
        r#type: action.as_str(),
        cursor: Some(&round.cursor),
        branch: Some(round.branch_name()),
        round: Some(round.number),
        total: Some(round.summary.total()),
        complete: round.complete.then_some(true),
    };
    let (format, at) = (round.format, round.began_at);
    let data = EventBody { event, repository, timestamp: iso(at) };
    let body = json(format, (id.as_str(), action.as_str()), repository, Some(round), at, &data);
    let watch = Some(repository.repository_id.clone());
    Letter { id, action, watch, body, format, timeout: None }
}

fn json(
    format: PayloadFormat,
    named: (&str, &str),
    repository: &RepositoryFacts,
    round: Option<&Round>,
    at: Timestamp,
    data: &impl Serialize,
) -> Bytes {
    match format {
        PayloadFormat::Docora => serde_json::to_vec(data).expect("a notice is plain data").into(),
        PayloadFormat::Cloudevents => cloud_event::of_notice(named, repository, round, at, data),
    }
}

#[cfg(test)]
mod tests;
