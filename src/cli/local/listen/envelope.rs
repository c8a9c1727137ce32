//! The envelope of a body: none, a CloudEvents event, or a batch of either.

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::{Deserialize, de::Error};
use serde_json::Value;

use super::message::{Message, Verb};

/// One change of a batch.
pub struct Change {
    /// The kind of request that the change would be by itself.
    pub verb: Verb,
    /// The word that the address of that request would end with.
    pub word: &'static str,
    /// The body of the change, parsed.
    pub message: Message,
    /// The body of the change as one line of text.
    pub text: String,
}

/// An event in structured mode, as far as it matters here.
#[derive(Deserialize)]
struct Event<T> {
    data: T,
}

/// A batch as Docora's form has it.
#[derive(Deserialize)]
struct Batch {
    changes: Vec<Value>,
}

/// Whether the body is an event, or a batch of events.
#[must_use]
pub fn is_event(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("application/cloudevents")
}

/// Reads the body of a single message.
///
/// # Errors
/// When the body is no such message.
pub fn message(body: &[u8], is_event: bool) -> serde_json::Result<Message> {
    if is_event {
        return serde_json::from_slice::<Event<Message>>(body).map(|event| event.data);
    }
    serde_json::from_slice(body)
}

/// Reads the changes of a batch, in their order.
///
/// # Errors
/// When the body is no batch, or an element of it is no change.
pub fn changes(body: &[u8], is_event: bool) -> serde_json::Result<Vec<Change>> {
    let bodies = if is_event {
        serde_json::from_slice::<Vec<Event<Value>>>(body)?.into_iter().map(|event| event.data).collect()
    } else {
        serde_json::from_slice::<Batch>(body)?.changes
    };
    bodies.into_iter().map(change).collect()
}

fn change(body: Value) -> serde_json::Result<Change> {
    let (verb, word) = match body["event"]["type"].as_str() {
        Some("file.created") => (Verb::Put, "create"),
        Some("file.updated") => (Verb::Put, "update"),
        Some("file.deleted") => (Verb::Delete, "delete"),
        _ => return Err(serde_json::Error::custom("a change of the batch has no known type")),
    };
    let text = body.to_string();
    Ok(Change { verb, word, message: serde_json::from_value(body)?, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: &str = concat!(
        r#"{"repository":{"repository_id":"r","github_url":"u"},"file":{"path":"a"},"#,
        r#""event":{"id":"dlv_1","type":"file.deleted"}}"#
    );

    #[test]
    fn changes_are_found_in_both_forms_of_a_batch() {
        let docora = format!(r#"{{"batch":{{"id":"b"}},"changes":[{CHANGE}]}}"#);
        let events = format!(r#"[{{"specversion":"1.0","data":{CHANGE}}}]"#);
        for (body, is_event) in [(docora, false), (events, true)] {
            let found = changes(body.as_bytes(), is_event).expect("a batch");
            assert_eq!((found.len(), found[0].verb, found[0].word), (1, Verb::Delete, "delete"));
            assert!(changes(body.as_bytes(), !is_event).is_err());
        }
        assert!(changes(br#"{"changes":[{"event":{"type":"file.moved"}}]}"#, false).is_err());
    }
}
