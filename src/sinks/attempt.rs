//! The parts that every attempt has for any sink: its own signature, one deadline, and its outcome as a
//! value.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use tidings_actors::{
    model::secret::Secret,
    ownership::shards::ShardHold,
    ports::{Action, AttemptOutcome, Clock, Endpoint, KeptAnswer, Parcel, ParcelBody, Random, SendFailure},
};
use tidings_egress::redaction::redact;
use tidings_entity::{id::WatchId, kind::PayloadFormat};
use tokio::time::{Instant, timeout};

use super::{
    access, answer,
    rendering::{
        body::{chunk_body, chunks},
        cloud_event,
        material::off_thread,
        notice::Letter,
    },
    signature::{self, SigningKey},
};

/// Bytes that the endpoint's own deadline covers.
const COVERED: u64 = 1 << 20;
/// Bytes beyond that earn a second more.
const EXTRA_PER_SECOND: u64 = 256 << 10;

/// The settings and ports that an attempt needs.
pub(super) struct Attempt<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) random: &'a dyn Random,
    pub(super) endpoint: &'a Endpoint,
    pub(super) traceparent: Option<String>,
    /// Whether the answers of acknowledgements are stored, too.
    pub(super) keeps_all: bool,
}

/// The way to one sink: sends one message and returns the reply.
pub(super) trait WayOut: Sync {
    /// The attempt that this way out belongs to.
    fn attempt(&self) -> &Attempt<'_>;
    /// Sends one signed message and returns the reply of the sink.
    fn post(&self, post: OutgoingMessage<'_>) -> impl Future<Output = Reply> + Send;
}

/// An answer, or why there is none.
pub(super) struct Reply {
    pub(super) result: Result<u16, SendFailure>,
    pub(super) retry_after: Option<Duration>,
    pub(super) excerpt: String,
    pub(super) kept: Option<Arc<KeptAnswer>>,
    /// The answer as far as it was wanted, and whether that is all of it.
    pub(super) answer: (Vec<u8>, bool),
}

/// One request to be made.
#[derive(Clone)]
pub(super) struct OutgoingMessage<'a> {
    pub(super) action: Action,
    pub(super) id: &'a str,
    /// The watch that the message is about; `None`: the app as a whole.
    pub(super) watch: Option<&'a WatchId>,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// The bytes of the answer that are needed; `None`: a short beginning.
    pub(super) answer_max: Option<usize>,
    /// Whether a person is shown the text of an acknowledgement.
    pub(super) shows: bool,
}

impl Reply {
    pub(super) fn failed(failure: SendFailure, text: &str) -> Self {
        let excerpt = answer::excerpt(redact(text).as_bytes());
        Self { result: Err(failure), retry_after: None, excerpt, kept: None, answer: (Vec::new(), false) }
    }

    pub(super) fn into_outcome(self, started: Instant) -> AttemptOutcome {
        let Self { result, retry_after, excerpt, kept, .. } = self;
        AttemptOutcome { result, retry_after, excerpt, took: started.elapsed(), answer: kept }
    }

    pub(super) fn is_success(&self) -> bool {
        matches!(self.result, Ok(200..=299))
    }
}

/// Sends a parcel; `None`: the right to send ended in the middle.
pub(super) async fn deliver<W: WayOut>(way: &W, parcel: &Parcel, hold: &ShardHold) -> Option<AttemptOutcome> {
    let limit = allowance(way.attempt().endpoint.timeout, parcel.size());
    match &parcel.body {
        ParcelBody::Whole(body) => {
            let content_type = cloud_event::content_type(parcel.format, false);
            let (id, watch, body) = (parcel.id.as_str(), Some(&parcel.watch), body.clone());
            let action = parcel.action;
            let post =
                OutgoingMessage { action, id, watch, content_type, body, answer_max: None, shows: false };
            Some(within(limit, way.post(post)).await)
        }
        ParcelBody::Chunked { before, content, after } => {
            let started = Instant::now();
            let chunked = chunked(way, parcel, (before, content, after), limit, hold);
            let reply = Box::pin(chunked).await?;
            Some(reply.into_outcome(started))
        }
    }
}

/// Sends a notice within its own limit.
pub(super) async fn notify<W: WayOut>(way: &W, letter: Letter) -> AttemptOutcome {
    let limit = letter.timeout.unwrap_or(way.attempt().endpoint.timeout);
    let content_type = cloud_event::content_type(letter.format, false);
    let Letter { id, action, watch, body, .. } = letter;
    let (id, watch) = (id.as_str(), watch.as_ref());
    let post = OutgoingMessage { action, id, watch, content_type, body, answer_max: None, shows: true };
    within(limit, way.post(post)).await
}

/// One request for each slice, the next only after a 2xx and when the endpoint's pace allows it. A single
/// request takes no longer than the endpoint's own deadline, all together no longer than `limit`; waits for
/// the pace do not count. `None`: the right to send ended between two requests.
async fn chunked<W: WayOut>(
    way: &W,
    parcel: &Parcel,
    (before, content, after): (&Bytes, &Bytes, &Bytes),
    limit: Duration,
    hold: &ShardHold,
) -> Option<Reply> {
    let mut left = limit;
    let attempt = way.attempt();
    let chunk_id = attempt.chunk_id();
    let slices = chunks(content);
    let total = slices.len();
    let mut last = Reply::failed(SendFailure::Connection, "the file has no chunks");
    for (index, slice) in slices.enumerate() {
        let after = match parcel.format {
            PayloadFormat::Docora => after.clone(),
            PayloadFormat::Cloudevents => cloud_event::end_of_chunk(after, &chunk_id, index).into(),
        };
        let body = chunk_body(before, slice, &after, &chunk_id, index, total);
        let request_id = format!("{}.{chunk_id}.{index}", parcel.id);
        let content_type = cloud_event::content_type(parcel.format, false);
        let (action, id, watch) = (parcel.action, request_id.as_str(), Some(&parcel.watch));
        if index > 0
            && let Some(pace) = &attempt.endpoint.pace
        {
            pace.turn().await;
        }
        if index > 0 && !hold.lasts() {
            return None;
        }
        let (began, longest) = (Instant::now(), attempt.endpoint.timeout.min(left));
        let post = OutgoingMessage { action, id, watch, content_type, body, answer_max: None, shows: false };
        last = timeout(longest, way.post(post)).await.unwrap_or_else(|_| late(longest));
        left = left.saturating_sub(began.elapsed());
        if !last.is_success() {
            break;
        }
    }
    Some(last)
}

impl Attempt<'_> {
    fn chunk_id(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// The secrets of the app that must not appear in stored texts.
    pub(super) fn secrets(&self, token: Option<&Secret>) -> Vec<Secret> {
        let own = access::secrets(&self.endpoint.access, token);
        let mut all = [own.as_slice(), &self.endpoint.keys].concat();
        // The longest come first: replacing a shorter one first could leave the rest of a longer one.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        all
    }

    pub(super) async fn sign(&self, id: &str, body: &Bytes) -> Option<Signed> {
        let keys: Vec<SigningKey> =
            self.endpoint.keys.iter().map(|key| SigningKey::of_text(key.expose())).collect();
        if keys.is_empty() {
            return None;
        }
        let timestamp = self.clock.now().0.div_euclid(1000);
        let (id, body) = (id.to_owned(), body.clone());
        off_thread(body.len(), move || {
            // Docora's clients know one key: during a rotation's overlap that is the old key.
            let docora = keys.last().map(|key| signature::docora(key, timestamp, &body))?;
            let standard = signature::standard(&keys, &id, timestamp, &body);
            Some(Signed { timestamp: timestamp.to_string(), standard, docora })
        })
        .await
    }
}

/// An attempt with one deadline over all of it. Not an `async fn`, whose future would contain the attempt
/// twice.
fn within(limit: Duration, attempt: impl Future<Output = Reply>) -> impl Future<Output = AttemptOutcome> {
    let started = Instant::now();
    timeout(limit, attempt).map(move |reply| reply.unwrap_or_else(|_| late(limit)).into_outcome(started))
}

/// The header fields that prove the sender of a request.
pub(super) struct Signed {
    /// The moment of signing, in Unix seconds.
    pub(super) timestamp: String,
    pub(super) standard: String,
    pub(super) docora: String,
}

pub(super) fn late(limit: Duration) -> Reply {
    Reply::failed(SendFailure::Timeout, &format!("no whole answer within {} s", limit.as_secs_f32()))
}

/// The deadline of an attempt that sends this many bytes.
pub(super) fn allowance(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_secs(bytes.saturating_sub(COVERED).div_ceil(EXTRA_PER_SECOND))
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
