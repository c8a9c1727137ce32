//! The payload of the one task that a round becomes: the facts of the round, where its changes are listed,
//! and the list itself where it is small. Contents are not part of it.

use std::{borrow::Cow, fmt::Write as _};

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_actors::{
    model::round::{Change, DeliveryId},
    ports::LaneFacts,
};
use tidings_entity::{
    id::{CursorId, ObjectId},
    kind::PayloadFormat,
};

use super::{
    body::{Shared, in_base64, mode},
    cloud_event,
};

/// The most bytes of a list in a payload (64 KiB); a longer one is read from `changes_url`.
const LIST_MAX: usize = 64 << 10;
/// The `type` of the event.
const KIND: &str = "round";

#[derive(Serialize)]
struct Body<'a> {
    repository: &'a RawValue,
    commit_sha: Option<ObjectId>,
    timestamp: &'a str,
    event: Event<'a>,
    deletes: u64,
    creates: u64,
    updates: u64,
    changes_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    r#type: &'static str,
    cursor: &'a CursorId,
    branch: &'a str,
    previous_commit_sha: Option<ObjectId>,
    round: i64,
    kind: &'static str,
    total: u64,
    commit: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    history_rewritten: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped_commits: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    complete: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    position: usize,
    operation: &'static str,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<ObjectId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_mode: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_blob: Option<ObjectId>,
}

/// Renders the payload. The list is part of it if `changes` has every change of the round.
///
/// # Panics
/// Never: plain data always serialises.
pub(crate) fn render(lane: &LaneFacts, id: &DeliveryId, changes: &[Change]) -> String {
    let (round, shared) = (&lane.round, Shared::of(lane));
    let watch = &lane.repository.repository_id;
    let total = round.summary.total();
    let list = (changes.len() as u64 == total).then(|| {
        let listed = |(position, change)| listed(lane, position, change);
        serde_json::value::to_raw_value(&changes.iter().enumerate().map(listed).collect::<Vec<_>>())
            .expect("changes are plain data")
    });
    let body = Body {
        repository: &shared.repository,
        commit_sha: round.spec.target.as_ref().map(|end| end.commit),
        timestamp: &shared.began_at,
        event: Event {
            id: id.as_str(),
            r#type: KIND,
            cursor: &round.cursor,
            branch: round.branch_name(),
            previous_commit_sha: round.spec.held.as_ref().map(|end| end.commit),
            round: round.number,
            kind: round.spec.kind.as_str(),
            total,
            commit: shared.commit.as_deref(),
            history_rewritten: round.history_rewritten,
            skipped_commits: round.skipped_commits,
            complete: round.complete,
        },
        deletes: round.summary.deletes,
        creates: round.summary.creates,
        updates: round.summary.updates,
        changes_url: format!(
            "/api/repositories/{watch}/changes?round={}&branch={}",
            round.number,
            in_query(&round.branch)
        ),
        changes: list.filter(|list| list.get().len() <= LIST_MAX),
    };
    let bytes = match round.format {
        PayloadFormat::Docora => serde_json::to_vec(&body).expect("a payload is plain data"),
        PayloadFormat::Cloudevents => {
            let named = (id.as_str(), KIND);
            cloud_event::of_notice(named, &lane.repository, Some(round), round.began_at, &body).into()
        }
    };
    String::from_utf8(bytes).expect("JSON is text")
}

fn listed<'a>(lane: &LaneFacts, position: usize, change: &'a Change) -> Listed<'a> {
    let watch = &lane.repository.repository_id;
    Listed {
        position,
        operation: change.operation.as_str(),
        path: String::from_utf8_lossy(&change.path),
        path_base64: in_base64(&change.path),
        mode: change.new.map(|new| mode(new.mode)),
        blob: change.new.map(|new| new.blob),
        content_url: change.new.map(|new| format!("/api/repositories/{watch}/blobs/{}", new.blob)),
        previous_mode: change.old.map(|old| mode(old.mode)),
        previous_blob: change.old.map(|old| old.blob),
    }
}

/// A text as the value of a parameter in a query.
fn in_query(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            written.push(char::from(byte));
        } else {
            write!(written, "%{byte:02X}").expect("a text grows");
        }
    }
    written
}
