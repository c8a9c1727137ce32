//! CloudEvents 1.0 (github.com/cloudevents/spec, JSON format): the same bodies as the `data` of an event.
//!
//! `id` is the delivery's id (for a chunk the id of the request), `source` the address of the watch on this
//! server, `subject` the path as text. Two documented extensions order events: `partitionkey` is the cursor,
//! and `sequence` rises as text with round and position. `id` comes last, because only it differs between the
//! chunks of a file.
//!
//! The `OPTIONS` handshake of the web hook specification is not sent: its purpose is the consent of a
//! receiver to a stranger, and here the receiver's own token sets the address; a 410 of the receiver ends
//! deliveries.

use bytes::Bytes;
use serde::Serialize;
use tidings_actors::{
    model::round::Round,
    ports::{DeliveryOrder, RepositoryFacts},
    time::Timestamp,
};
use tidings_entity::kind::PayloadFormat;

use super::body::iso;

/// Prefix of the `type` of every CloudEvent.
const TYPE_PREFIX: &str = "dev.tidings.";

/// The attributes of an event and its data, in the order in which they are written.
#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    r#type: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitionkey: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    data: D,
    id: &'a str,
}

/// The `Content-Type` of a body, or with `together` of a batch.
pub(crate) fn content_type(format: PayloadFormat, together: bool) -> &'static str {
    match (format, together) {
        (PayloadFormat::Docora, _) => "application/json",
        (PayloadFormat::Cloudevents, false) => "application/cloudevents+json",
        (PayloadFormat::Cloudevents, true) => "application/cloudevents-batch+json",
    }
}

/// Writes a change as an event.
pub(crate) fn of_change(to: &mut Vec<u8>, order: &DeliveryOrder, kind: &str, data: impl Serialize) {
    let round: &Round = &order.lane.round;
    let event = CloudEvent {
        specversion: "1.0",
        r#type: format!("{TYPE_PREFIX}{kind}"),
        source: source(&order.lane.repository),
        subject: Some(lawful(&String::from_utf8_lossy(&order.change.path))),
        time: iso(round.began_at),
        datacontenttype: "application/json",
        partitionkey: Some(round.cursor.as_str()),
        sequence: Some(format!("{:020}.{:020}", round.number, order.position)),
        data,
        id: order.id.as_str(),
    };
    serde_json::to_writer(to, &event).expect("an event is plain data");
}

/// A notice as an event; `round` is set for notices of a round.
pub(crate) fn of_notice(
    (id, kind): (&str, &str),
    repository: &RepositoryFacts,
    round: Option<&Round>,
    time: Timestamp,
    data: impl Serialize,
) -> Bytes {
    json(&CloudEvent {
        specversion: "1.0",
        r#type: format!("{TYPE_PREFIX}{kind}"),
        source: source(repository),
        subject: None,
        time: iso(time),
        datacontenttype: "application/json",
        partitionkey: round.map(|round| round.cursor.as_str()),
        sequence: None,
        data,
        id,
    })
    .into()
}

/// A test delivery as an event.
pub(crate) fn of_test(id: &str, time: Timestamp, data: impl Serialize) -> Bytes {
    json(&CloudEvent {
        specversion: "1.0",
        r#type: format!("{TYPE_PREFIX}test"),
        source: "/api/app".to_owned(),
        subject: None,
        time: iso(time),
        datacontenttype: "application/json",
        partitionkey: None,
        sequence: None,
        data,
        id,
    })
    .into()
}

/// A message of a subscription as an event: the messages of one app are ordered by the number of the entry.
pub(crate) fn of_entry(
    (id, kind): (&str, &str),
    (app, number, subject): (&str, Option<i64>, Option<&str>),
    time: Timestamp,
    data: impl Serialize,
) -> Bytes {
    json(&CloudEvent {
        specversion: "1.0",
        r#type: format!("{TYPE_PREFIX}{kind}"),
        source: "/api/ledger".to_owned(),
        subject: subject.map(lawful),
        time: iso(time),
        datacontenttype: "application/json",
        partitionkey: number.is_some().then_some(app),
        sequence: number.map(|number| format!("{number:020}")),
        data,
        id,
    })
    .into()
}

/// The end of a chunk's event: its `id` is the id of the request.
pub(crate) fn end_of_chunk(after: &[u8], chunk: &str, index: usize) -> Vec<u8> {
    let before = after.strip_suffix(b"\"}").unwrap_or(after);
    [before, format!(".{chunk}.{index}\"}}").as_bytes()].concat()
}

fn source(repository: &RepositoryFacts) -> String {
    format!("/api/repositories/{}", repository.repository_id)
}

/// A text as the specification allows it: without control characters and noncharacters. The path's
/// own bytes are in the data.
fn lawful(text: &str) -> String {
    let is_lawful = |character: char| {
        let code = u32::from(character);
        !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
    };
    text.chars().map(|character| if is_lawful(character) { character } else { '\u{fffd}' }).collect()
}

fn json(event: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(event).expect("an event is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_lawful_text() {
        assert_eq!(lawful("a\nb\u{7f}\u{fdd0}\u{1ffff}ä"), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}ä");
    }

    #[test]
    fn the_id_of_a_chunk_is_that_of_its_request() {
        let end = end_of_chunk(br#""}},"id":"dlv_a"}"#, "c-1", 2);
        assert_eq!(end, br#""}},"id":"dlv_a.c-1.2"}"#);
    }
}
