//! One attempt: signed anew, one deadline over connect, headers and body, and whatever comes of it
//! as a value.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use reqwest::Method;
use tidings_actors::{
    ports::{Action, AttemptOutcome, Clock, Endpoint, Parcel, ParcelBody, Random, SendFailure},
    round::DeliveryId,
};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    answer,
    body::{chunk_body, chunks},
    material::off_thread,
    redaction::redact,
    signature::{self, SigningKey},
};
use crate::egress::{Egress, EgressError};

/// Bytes that the endpoint's own deadline covers.
const COVERED: u64 = 1 << 20;
/// Bytes beyond that earn a second more.
const EXTRA_PER_SECOND: u64 = 256 << 10;

/// What an attempt needs of its surroundings.
pub(super) struct Sender<'a> {
    pub(super) egress: &'a Egress,
    pub(super) clock: &'a dyn Clock,
    pub(super) random: &'a dyn Random,
    pub(super) endpoint: &'a Endpoint,
    pub(super) traceparent: Option<String>,
}

/// An answer, or why there is none.
struct Reply {
    result: Result<u16, SendFailure>,
    retry_after: Option<Duration>,
    excerpt: String,
}

impl Reply {
    fn failed(failure: SendFailure, text: &str) -> Self {
        let excerpt = answer::excerpt(redact(text).as_bytes());
        Self { result: Err(failure), retry_after: None, excerpt }
    }

    fn is_success(&self) -> bool {
        matches!(self.result, Ok(200..=299))
    }
}

impl Sender<'_> {
    /// Sends a parcel.
    pub(super) async fn deliver(&self, parcel: &Parcel) -> AttemptOutcome {
        let limit = allowance(self.endpoint.timeout, parcel.size());
        match &parcel.body {
            ParcelBody::Whole(body) => {
                self.within(limit, self.post(parcel.action, parcel.id.as_str(), body.clone())).await
            }
            ParcelBody::Chunked { before, content, after } => {
                let started = Instant::now();
                let reply = self.chunked(parcel.action, &parcel.id, (before, content, after), limit).await;
                outcome(reply, started)
            }
        }
    }

    /// Sends one body within its own limit.
    pub(super) async fn notify(
        &self,
        id: &DeliveryId,
        action: Action,
        body: Bytes,
        limit: Option<Duration>,
    ) -> AttemptOutcome {
        let limit = limit.unwrap_or(self.endpoint.timeout);
        self.within(limit, self.post(action, id.as_str(), body)).await
    }

    async fn within(&self, limit: Duration, attempt: impl Future<Output = Reply>) -> AttemptOutcome {
        let started = Instant::now();
        let reply = timeout(limit, attempt).await.unwrap_or_else(|_| late(limit));
        outcome(reply, started)
    }

    /// One request for each slice, the next only after a 2xx and when the endpoint's pace allows it.
    /// No single request holds the attempt for longer than the endpoint's own deadline, all together
    /// for no longer than `limit`; waits for the pace do not count.
    async fn chunked(
        &self,
        action: Action,
        id: &DeliveryId,
        (before, content, after): (&Bytes, &Bytes, &Bytes),
        limit: Duration,
    ) -> Reply {
        let mut left = limit;
        let chunk_id = self.chunk_id();
        let slices = chunks(content);
        let total = slices.len();
        let mut last = Reply::failed(SendFailure::Connection, "the file has no chunks");
        for (index, slice) in slices.enumerate() {
            let body = chunk_body(before, slice, after, &chunk_id, index, total);
            let request_id = format!("{id}.{chunk_id}.{index}");
            if index > 0
                && let Some(pace) = &self.endpoint.pace
            {
                pace.turn().await;
            }
            let (began, patience) = (Instant::now(), self.endpoint.timeout.min(left));
            let request = timeout(patience, self.post(action, &request_id, body));
            last = request.await.unwrap_or_else(|_| late(patience));
            left = left.saturating_sub(began.elapsed());
            if !last.is_success() {
                break;
            }
        }
        last
    }

    fn chunk_id(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// One signed request.
    async fn post(&self, action: Action, id: &str, body: Bytes) -> Reply {
        // Plain concatenation is the contract: a base address that ends in a slash gets two.
        let address = format!("{}/{}", self.endpoint.base_url, action.as_str());
        let url = match Url::parse(&address) {
            Ok(url) => url,
            Err(error) => return Reply::failed(SendFailure::InvalidUrl, &format!("base address: {error}")),
        };
        let request = match self.egress.request(Method::POST, &url) {
            Ok(request) => request,
            Err(error) => return Reply::failed(refusal(&error), &error.to_string()),
        };
        let Some(signed) = self.sign(id, &body).await else {
            return Reply::failed(SendFailure::Refused, "the app has no signing key");
        };
        let mut request = request
            .header("Content-Type", "application/json")
            .header("User-Agent", concat!("Tidings/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", signed.timestamp)
            .header("webhook-signature", signed.standard)
            .header("X-Docora-App-Id", self.endpoint.app.as_str())
            .header("X-Docora-Timestamp", signed.timestamp)
            .header("X-Docora-Signature", signed.docora);
        if let Some(traceparent) = &self.traceparent {
            request = request.header("traceparent", traceparent);
        }
        match self.exchange(request.body(body)).await {
            Ok(reply) => reply,
            Err(error) => Reply::failed(failure(&error), &chain(error.without_url())),
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let retry_after = answer::retry_after(response.headers(), self.clock.now());
        let excerpt = answer::excerpt(&answer::read(response).await?);
        Ok(Reply { result: Ok(status), retry_after, excerpt })
    }

    async fn sign(&self, id: &str, body: &Bytes) -> Option<Signed> {
        let keys: Vec<SigningKey> =
            self.endpoint.keys.iter().map(|key| SigningKey::of_text(key.expose())).collect();
        if keys.is_empty() {
            return None;
        }
        let timestamp = self.clock.now().0.div_euclid(1000);
        let (id, body) = (id.to_owned(), body.clone());
        off_thread(body.len(), move || {
            // Docora's clients know one key: during a rotation's overlap the old one.
            let docora = keys.last().map(|key| signature::docora(key, timestamp, &body))?;
            Some(Signed { timestamp, standard: signature::standard(&keys, &id, timestamp, &body), docora })
        })
        .await
    }
}

fn outcome(reply: Reply, started: Instant) -> AttemptOutcome {
    AttemptOutcome {
        result: reply.result,
        retry_after: reply.retry_after,
        excerpt: reply.excerpt,
        took: started.elapsed(),
    }
}

/// The headers that prove a request.
struct Signed {
    timestamp: i64,
    standard: String,
    docora: String,
}

fn late(limit: Duration) -> Reply {
    Reply::failed(SendFailure::Timeout, &format!("no whole answer within {} s", limit.as_secs_f32()))
}

/// The deadline of an attempt that sends so many bytes.
fn allowance(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_secs(bytes.saturating_sub(COVERED).div_ceil(EXTRA_PER_SECOND))
}

fn refusal(error: &EgressError) -> SendFailure {
    match error {
        EgressError::Refused | EgressError::PlainHttp => SendFailure::Refused,
        _ => SendFailure::InvalidUrl,
    }
}

fn failure(error: &reqwest::Error) -> SendFailure {
    if Egress::is_refused(error) {
        SendFailure::Refused
    } else if error.is_builder() {
        SendFailure::InvalidUrl
    } else if error.is_timeout() {
        SendFailure::Timeout
    } else {
        SendFailure::Connection
    }
}

/// The error and its causes in one line.
fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_beyond_a_mebibyte_earns_time() {
        let base = Duration::from_secs(30);
        for (bytes, seconds) in [
            (0, 30),
            (1 << 20, 30),
            ((1 << 20) + 1, 31),
            ((1 << 20) + (256 << 10), 31),
            (64 << 20, 30 + 63 * 4),
            (u64::MAX, 30 + (u64::MAX - (1 << 20)).div_ceil(256 << 10)),
        ] {
            assert_eq!(allowance(base, bytes), Duration::from_secs(seconds), "{bytes}");
        }
    }
}
