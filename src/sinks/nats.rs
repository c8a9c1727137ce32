//! Deliveries as messages of a stream: NATS JetStream.
//!
//! Each message is one request to the stream that takes its subject, and the stream's acknowledgement is its
//! answer (`ADR-1`, `ADR-22` of nats-architecture-and-design): a refusal has a code like those of HTTP.
//! `Nats-Msg-Id` is the delivery's id, so that a stream drops repeated messages within its
//! `duplicate_window`; consumers that need more store the ids themselves.
//!
//! Connections follow the rules of requests: names are resolved here, every address is judged, and the client
//! gets the address itself. The client ignores further servers that a server announces. It reads messages of
//! any size, so `egress.streams` must name the servers that are trusted.

mod connections;
pub mod target;

use std::{panic::AssertUnwindSafe, time::Duration};

use async_nats::{HeaderMap, HeaderValue, RequestErrorKind, client::Request, subject::ToSubject};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Deserialize;
use tidings_actors::ports::{Endpoint, SendFailure};
use tidings_egress::{Egress, EgressError};
use tokio::time::{Instant, timeout_at};

use connections::{Connection, Connections, Unconnected};
use target::Target;

/// The header by which a stream recognises repeated messages.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// A message that is larger than the server takes: the code that HTTP has for it.
const TOO_LARGE: u16 = 413;
const BROKEN: &str = "the connection to the server ended";
/// The account or the server has no room (`JSAccountResourcesExceededErr`, `JSInsufficientResourcesErr`,
/// `JSMemoryResourcesExceededErr`, `JSStorageResourcesExceededErr`): the message is not at fault, regardless
/// of the code.
const NO_ROOM: [u32; 4] = [10002, 10023, 10028, 10047];
/// The code for trouble of the stream's own.
const UNAVAILABLE: u16 = 503;

/// The parts of a message other than its body.
pub(crate) struct Message<'a> {
    /// The subject that the message is published to.
    pub(crate) subject: String,
    /// The value of `Nats-Msg-Id`, by which the stream recognises a repetition.
    pub(crate) id: &'a str,
    /// Further fields of its header; none holds a line break.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body of the delivery.
    pub(crate) body: Bytes,
}

/// The result of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// 200 where the stream acknowledged the message, the code of its refusal, or why there is no answer.
    pub(crate) result: Result<u16, SendFailure>,
    /// The text for the outcome.
    pub(crate) text: String,
}

impl Published {
    fn failed(failure: SendFailure, text: impl Into<String>) -> Self {
        Self { result: Err(failure), text: text.into() }
    }
}

/// Messages to the servers of all apps.
pub(crate) struct Nats {
    connections: Connections,
}

/// The acknowledgement of a stream.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

impl Nats {
    /// Creates the pool of connections, empty.
    #[must_use]
    pub(crate) fn new(egress: Egress) -> Self {
        Self { connections: Connections::new(egress) }
    }

    /// Publishes one message; waits at most `limit` for a connection and the acknowledgement.
    pub(crate) async fn publish(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        message: Message<'_>,
        limit: Duration,
    ) -> Published {
        let until = Instant::now() + limit;
        let late = || {
            let text = format!("no acknowledgement within {} s", limit.as_secs_f32());
            Published::failed(SendFailure::Timeout, text)
        };
        // The library panics at lines that no server says.
        let connecting = AssertUnwindSafe(self.connections.of(endpoint, target)).catch_unwind();
        let connection = match timeout_at(until, connecting).await {
            Ok(Ok(Ok(connection))) => connection,
            Ok(Ok(Err(unconnected))) => return refused(&unconnected),
            Ok(Err(_)) => return Published::failed(SendFailure::Connection, "the peer does not speak NATS"),
            Err(_) => return late(),
        };
        let Ok(published) = timeout_at(until, Self::publish_on(&connection, target, message)).await else {
            // The next message must not wait on a connection that has gone silent.
            connection.retire();
            return late();
        };
        published
    }

    async fn publish_on(connection: &Connection, target: &Target, message: Message<'_>) -> Published {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, message.id);
        for (name, value) in message.headers {
            let Ok(value) = value.parse::<HeaderValue>() else {
                return Published::failed(SendFailure::Refused, "a header of the message cannot be sent");
            };
            headers.insert(name, value);
        }
        let request = Request::new().payload(message.body).headers(headers).timeout(None);
        let answered = tokio::select! {
            answered = connection.client().send_request(message.subject.to_subject(), request) => answered,
            // The client would wait for a word that no connection can bring any more.
            () = connection.broken() => {
                return Published::failed(SendFailure::Cut, BROKEN);
            }
        };
        match answered {
            Ok(answer) => acknowledged(&answer.payload),
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => Published::failed(
                    SendFailure::Connection,
                    format!(
                        "no stream takes the subject {}: one must be made for {}.>",
                        message.subject, target.prefix
                    ),
                ),
                RequestErrorKind::MaxPayloadExceeded => Published {
                    result: Ok(TOO_LARGE),
                    text: "the message is larger than the server's max_payload".to_owned(),
                },
                RequestErrorKind::TimedOut => {
                    Published::failed(SendFailure::Timeout, "the stream did not answer")
                }
                RequestErrorKind::InvalidSubject => {
                    Published::failed(SendFailure::InvalidUrl, "the subject cannot be used")
                }
                RequestErrorKind::Other => Published::failed(SendFailure::Cut, BROKEN),
            },
        }
    }
}

/// Reads the acknowledgement of a stream.
fn acknowledged(payload: &[u8]) -> Published {
    match serde_json::from_slice(payload) {
        Ok(Acknowledgement { error: Some(Refusal { code, err_code, description }), .. }) => Published {
            result: match code {
                _ if NO_ROOM.contains(&err_code) => Ok(UNAVAILABLE),
                500..=599 => Ok(UNAVAILABLE),
                400..=499 => Ok(code),
                // An error with a code of success does not confirm the message.
                _ => Err(SendFailure::Connection),
            },
            text: format!("JetStream refused it: {description} ({err_code})"),
        },
        Ok(Acknowledgement { stream, seq, duplicate, .. }) if !stream.is_empty() => {
            let again = if duplicate { ", which had it already" } else { "" };
            Published { result: Ok(200), text: format!("stream {stream}{again}, sequence {seq}") }
        }
        // A service that answers is no stream: nothing is known of the message.
        _ => Published::failed(SendFailure::Connection, "who took the message is no stream of JetStream"),
    }
}

fn refused(unconnected: &Unconnected) -> Published {
    let failure = match unconnected {
        Unconnected::Egress(EgressError::Refused(_) | EgressError::PlainHttp) => SendFailure::Refused,
        Unconnected::Egress(EgressError::InvalidUrl(_)) | Unconnected::Unusable(_) => SendFailure::InvalidUrl,
        Unconnected::Egress(_) | Unconnected::Server(_) => SendFailure::Connection,
    };
    Published::failed(failure, unconnected.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_a_stream_settles_a_message() {
        let of = |text: &str| acknowledged(text.as_bytes());
        assert_eq!(of(r#"{"stream":"GIT","seq":7}"#).result, Ok(200));
        let again = of(r#"{"stream":"GIT","seq":7,"duplicate":true,"domain":"x"}"#);
        assert_eq!((again.result, again.text.contains("already")), (Ok(200), true));
        let error = r#"{"code":503,"err_code":10077,"description":"maximum messages exceeded"}"#;
        let full = of(&format!(r#"{{"error":{error},"stream":"GIT","seq":0}}"#));
        assert_eq!((full.result, full.text.contains("10077")), (Ok(503), true));
        let room = |code: u16, err_code: u32| {
            of(&format!(r#"{{"error":{{"code":{code},"err_code":{err_code}}}}}"#)).result
        };
        assert_eq!([room(400, 10002), room(500, 10047), room(500, 1)], [Ok(503); 3]);
        assert_eq!([room(400, 10054), room(404, 1)], [Ok(400), Ok(404)]);
        assert_eq!(of(r#"{"error":{"code":200}}"#).result, Err(SendFailure::Connection));
        for odd in ["", "{}", "[]", "+OK", r#"{"stream":""}"#, r#"{"seq":7}"#, r#"{"error":{}}"#, "\u{0}"] {
            assert_eq!(of(odd).result, Err(SendFailure::Connection), "{odd}");
        }
    }
}
