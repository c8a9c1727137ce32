//! One attempt: signed anew, one deadline over connect, headers and body, and whatever comes of it
//! as a value.

mod stream;

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use reqwest::Method;
use tidings_actors::{
    ports::{
        Action, AttemptOutcome, Clock, Endpoint, EndpointAuth, ItemOutcome, KeptAnswer, OauthClient, Parcel,
        ParcelBody, Random, SendFailure,
    },
    round::DeliveryId,
    secret::Secret,
    shards::Hold,
};
use tidings_entity::{id::WatchId, kind::PayloadFormat};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    access::{self, Unsendable},
    addresses::{Addresses, below},
    answer, batch,
    body::{chunk_body, chunks},
    cloud_event, kept,
    material::off_thread,
    notice::Letter,
    oauth::{TokenFault, Tokens},
    redaction::redact,
    signature::{self, DOCORA_HEADERS, STANDARD_HEADERS, SigningKey},
};
use crate::{
    egress::{Egress, EgressError, of_apps::AppEgress},
    nats::{Nats, target::Target},
};

/// Bytes that the endpoint's own deadline covers.
const COVERED: u64 = 1 << 20;
/// Bytes beyond that earn a second more.
const EXTRA_PER_SECOND: u64 = 256 << 10;
/// Fields of most requests.
const HEADERS: usize = 16;
const WEBHOOK_ID: HeaderName = HeaderName::from_static(STANDARD_HEADERS[0]);
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static(STANDARD_HEADERS[1]);
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(STANDARD_HEADERS[2]);
const DOCORA_APP_ID: HeaderName = HeaderName::from_static("x-docora-app-id");
const DOCORA_TIMESTAMP: HeaderName = HeaderName::from_static(DOCORA_HEADERS[0]);
const DOCORA_SIGNATURE: HeaderName = HeaderName::from_static(DOCORA_HEADERS[1]);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What an endpoint answers to a token that it does not take.
const UNAUTHORIZED: u16 = 401;

/// What an attempt needs of its surroundings.
pub(super) struct Sender<'a> {
    pub(super) egress: &'a AppEgress,
    pub(super) tokens: &'a Tokens,
    pub(super) addresses: &'a Addresses,
    pub(super) nats: &'a Nats,
    pub(super) clock: &'a dyn Clock,
    pub(super) random: &'a dyn Random,
    pub(super) endpoint: &'a Endpoint,
    pub(super) traceparent: Option<String>,
    /// What is kept of answers is kept of acknowledgements, too.
    pub(super) keeps_all: bool,
}

/// An answer, or why there is none.
struct Reply {
    result: Result<u16, SendFailure>,
    retry_after: Option<Duration>,
    excerpt: String,
    kept: Option<Arc<KeptAnswer>>,
    /// The answer as far as it was wanted, and whether that is all of it.
    answer: (Vec<u8>, bool),
}

/// One request to be made.
#[derive(Clone)]
struct Post<'a> {
    action: Action,
    id: &'a str,
    /// Whose message it is, where it is not the app's as a whole.
    watch: Option<&'a WatchId>,
    content_type: &'static str,
    body: Bytes,
    /// Bytes of the answer that are wanted; a short beginning where `None`.
    answer_max: Option<usize>,
    /// What an acknowledgement says is shown to somebody.
    shows: bool,
}

impl Reply {
    fn failed(failure: SendFailure, text: &str) -> Self {
        let excerpt = answer::excerpt(redact(text).as_bytes());
        Self { result: Err(failure), retry_after: None, excerpt, kept: None, answer: (Vec::new(), false) }
    }

    fn into_outcome(self, started: Instant) -> AttemptOutcome {
        let Self { result, retry_after, excerpt, kept, .. } = self;
        AttemptOutcome { result, retry_after, excerpt, took: started.elapsed(), answer: kept }
    }

    fn is_success(&self) -> bool {
        matches!(self.result, Ok(200..=299))
    }
}

impl Sender<'_> {
    /// Sends a parcel; `None`: its right ended in the middle.
    pub(super) async fn deliver(&self, parcel: &Parcel, hold: &Hold) -> Option<AttemptOutcome> {
        let limit = allowance(self.endpoint.timeout, parcel.size());
        match &parcel.body {
            ParcelBody::Whole(body) => {
                let content_type = cloud_event::content_type(parcel.format, false);
                let (id, watch, body) = (parcel.id.as_str(), Some(&parcel.watch), body.clone());
                let action = parcel.action;
                let post = Post { action, id, watch, content_type, body, answer_max: None, shows: false };
                Some(within(limit, self.post(post)).await)
            }
            ParcelBody::Chunked { before, content, after } => {
                let started = Instant::now();
                let chunked = self.chunked(parcel, (before, content, after), limit, hold);
                let reply = Box::pin(chunked).await?;
                Some(reply.into_outcome(started))
            }
        }
    }

    /// Sends many parcels in one request, and reads what is said of each.
    pub(super) async fn deliver_together(
        &self,
        parcels: Vec<Parcel>,
        hold: &Hold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>) {
        if Target::is_meant(&self.endpoint.base_url) {
            return self.publish_each(&parcels, hold).await;
        }
        let format = parcels.first().map_or(PayloadFormat::Docora, |parcel| parcel.format);
        let size: u64 = parcels.iter().map(Parcel::size).sum();
        let (mut ids, mut held, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for parcel in parcels {
            if let ParcelBody::Whole(body) = parcel.body {
                ids.push(parcel.id);
                bodies.push(body);
            }
            held.extend(parcel.held);
        }
        let id = DeliveryId::of_batch(&ids);
        // The bytes are held once: the single bodies go as soon as they are joined.
        let body = off_thread(usize::try_from(size).unwrap_or(usize::MAX), {
            let id = id.clone();
            move || batch::render(format, &id, &bodies)
        })
        .await;
        let post = Post {
            action: Action::Batch,
            id: id.as_str(),
            watch: None,
            content_type: cloud_event::content_type(format, true),
            body,
            answer_max: Some(batch::answer_max(ids.len())),
            shows: false,
        };
        let limit = allowance(self.endpoint.timeout, size);
        let started = Instant::now();
        let reply = timeout(limit, self.post(post)).await.unwrap_or_else(|_| late(limit));
        drop(held);
        let mut words =
            if reply.is_success() { batch::words(&reply.answer.0, reply.answer.1, &ids) } else { Vec::new() };
        let secrets = self.secrets(None);
        for word in &mut words {
            if let ItemOutcome::Refused(reason) | ItemOutcome::Retry(reason) = word {
                *reason = kept::clean(reason, &secrets);
            }
        }
        (reply.into_outcome(started), words)
    }

    /// Sends a notice within its own limit.
    pub(super) async fn notify(&self, letter: Letter) -> AttemptOutcome {
        let limit = letter.timeout.unwrap_or(self.endpoint.timeout);
        let content_type = cloud_event::content_type(letter.format, false);
        let Letter { id, action, watch, body, .. } = letter;
        let (id, watch) = (id.as_str(), watch.as_ref());
        let post = Post { action, id, watch, content_type, body, answer_max: None, shows: true };
        within(limit, self.post(post)).await
    }

    /// One request for each slice, the next only after a 2xx and when the endpoint's pace allows it.
    /// No single request holds the attempt for longer than the endpoint's own deadline, all together
    /// for no longer than `limit`; waits for the pace do not count. `None`: the right to send it ended
    /// between two of them.
    async fn chunked(
        &self,
        parcel: &Parcel,
        (before, content, after): (&Bytes, &Bytes, &Bytes),
        limit: Duration,
        hold: &Hold,
    ) -> Option<Reply> {
        let mut left = limit;
        let chunk_id = self.chunk_id();
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
                && let Some(pace) = &self.endpoint.pace
            {
                pace.turn().await;
            }
            if index > 0 && !hold.lasts() {
                return None;
            }
            let (began, patience) = (Instant::now(), self.endpoint.timeout.min(left));
            let post = Post { action, id, watch, content_type, body, answer_max: None, shows: false };
            last = timeout(patience, self.post(post)).await.unwrap_or_else(|_| late(patience));
            left = left.saturating_sub(began.elapsed());
            if !last.is_success() {
                break;
            }
        }
        Some(last)
    }

    fn chunk_id(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// One signed request. What few endpoints ask for lies in a box of its own: the others would carry its
    /// room through each of their attempts.
    async fn post(&self, post: Post<'_>) -> Reply {
        if Target::is_meant(&self.endpoint.base_url) {
            return Box::pin(self.publish(post)).await;
        }
        let address = below(&self.endpoint.base_url, post.action.as_str());
        let url = match self.addresses.of(address) {
            Ok(url) => url,
            Err(error) => return Reply::failed(SendFailure::InvalidUrl, &format!("base address: {error}")),
        };
        let own = &self.endpoint.access;
        let egress = match self.egress.of(&self.endpoint.app, own.tls.as_ref()) {
            Ok(egress) => egress,
            Err(error) => return Reply::failed(SendFailure::Connection, &error.to_string()),
        };
        match &own.auth {
            Some(EndpointAuth::Oauth2(client)) => {
                Box::pin(self.request_with_token(&egress, &url, &post, client)).await
            }
            _ => self.request(&egress, &url, &post, None).await,
        }
    }

    /// One request, and where the endpoint refuses its access token, a second one with a new token: the
    /// old one may have been withdrawn.
    async fn request_with_token(
        &self,
        egress: &Egress,
        url: &Url,
        post: &Post<'_>,
        client: &OauthClient,
    ) -> Reply {
        let mut token = self.token(egress, client).await;
        if let Ok(first) = &token {
            let reply = self.request(egress, url, post, Some(first)).await;
            if reply.result != Ok(UNAUTHORIZED) {
                return reply;
            }
            self.tokens.refused(&self.endpoint.app, client, first).await;
            if let Some(pace) = &self.endpoint.pace {
                pace.turn().await;
            }
            token = self.token(egress, client).await;
        }
        match token {
            Ok(token) => self.request(egress, url, post, Some(&token)).await,
            Err(fault) => Reply::failed(SendFailure::Connection, &fault.to_string()),
        }
    }

    /// Within half of the deadline, so that there is something to say when nobody answers.
    async fn token(&self, egress: &Egress, client: &OauthClient) -> Result<Secret, TokenFault> {
        self.tokens.token(&self.endpoint.app, client, egress, self.endpoint.timeout / 2).await
    }

    async fn request(&self, egress: &Egress, url: &Url, post: &Post<'_>, token: Option<&Secret>) -> Reply {
        let Post { id, content_type, ref body, .. } = *post;
        let request = match egress.request(Method::POST, url) {
            Ok(request) => request,
            Err(error) => return Reply::failed(refusal(&error), &error.to_string()),
        };
        let own = &*self.endpoint.access;
        if own.has_secrets() && !egress.may_carry_secrets(url) {
            let text = "the app's headers and credentials go over https only";
            return Reply::failed(SendFailure::Refused, text);
        }
        let Some(signed) = self.sign(id, body).await else {
            return Reply::failed(SendFailure::Refused, "the app has no signing key");
        };
        let Ok(headers) = self.headers(id, content_type, &signed, token) else {
            return Reply::failed(SendFailure::Refused, "a header of the app cannot be sent");
        };
        match self.exchange(request.body(body.clone()), headers, post, token).await {
            Ok(reply) => reply,
            Err(error) => Reply::failed(failure(&error), &chain(error.without_url())),
        }
    }

    /// The header of a request: the app's own fields, then ours. What differs from request to request
    /// lies in one piece of memory, which the client's copies share.
    fn headers(
        &self,
        id: &str,
        content_type: &'static str,
        signed: &Signed,
        token: Option<&Secret>,
    ) -> Result<HeaderMap, Unsendable> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        access::put(&mut headers, &self.endpoint.access, token)?;
        let ours = [
            (WEBHOOK_ID, Some(id)),
            (WEBHOOK_TIMESTAMP, Some(signed.timestamp.as_str())),
            (WEBHOOK_SIGNATURE, Some(&signed.standard)),
            (DOCORA_APP_ID, Some(self.endpoint.app.as_str())),
            (DOCORA_TIMESTAMP, Some(&signed.timestamp)),
            (DOCORA_SIGNATURE, Some(&signed.docora)),
            (TRACEPARENT, self.traceparent.as_deref()),
        ];
        let room = ours.iter().filter_map(|(_, value)| value.map(str::len)).sum();
        let mut values = BytesMut::with_capacity(room);
        headers.append(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.append(USER_AGENT, HeaderValue::from_static(concat!("Tidings/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in ours {
            let Some(value) = value else { continue };
            values.extend_from_slice(value.as_bytes());
            let value = HeaderValue::from_maybe_shared(values.split().freeze()).map_err(|_| Unsendable)?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
        headers: HeaderMap,
        post: &Post<'_>,
        token: Option<&Secret>,
    ) -> Result<Reply, reqwest::Error> {
        let (client, request) = request.build_split();
        let mut request = request?;
        *request.headers_mut() = headers;
        let response = client.execute(request).await?;
        let status = response.status().as_u16();
        let retry_after = answer::retry_after(response.headers(), self.clock.now());
        let is_kept = self.keeps_all || !matches!(status, 200..=299);
        if !is_kept && !post.shows {
            // An acknowledgement among many: nobody looks at what it says.
            let answer = answer::read(response, post.answer_max).await?;
            return Ok(Reply { result: Ok(status), retry_after, excerpt: String::new(), kept: None, answer });
        }
        let secrets = self.secrets(token);
        let headers = is_kept.then(|| kept::headers(response.headers(), &secrets));
        let (read, is_whole) = answer::read(response, post.answer_max).await?;
        // What is shown is a copy: the receiver's words on a batch are read as they came.
        let shown = match read.len() {
            0 => Vec::new(),
            length => {
                let beginning = read[..length.min(kept::BODY_BYTES_MAX)].to_vec();
                access::scrubbed(beginning, &secrets)
            }
        };
        let body = kept::body(&shown, is_whole && read.len() <= kept::BODY_BYTES_MAX, &secrets);
        let excerpt = answer::excerpt(body.as_bytes());
        let kept = headers.map(|headers| Arc::new(kept::answer(headers, &body)));
        Ok(Reply { result: Ok(status), retry_after, excerpt, kept, answer: (read, is_whole) })
    }

    /// What of this app must not stand in what is kept.
    fn secrets(&self, token: Option<&Secret>) -> Vec<Secret> {
        let own = access::secrets(&self.endpoint.access, token);
        let mut all = [own.as_slice(), &self.endpoint.keys].concat();
        // A shorter one would take a part of a longer one away, and leave the rest of it.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        all
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
            let standard = signature::standard(&keys, &id, timestamp, &body);
            Some(Signed { timestamp: timestamp.to_string(), standard, docora })
        })
        .await
    }
}

/// An attempt with one deadline over all of it. No `async fn`: that would hold the attempt twice.
fn within(limit: Duration, attempt: impl Future<Output = Reply>) -> impl Future<Output = AttemptOutcome> {
    let started = Instant::now();
    timeout(limit, attempt).map(move |reply| reply.unwrap_or_else(|_| late(limit)).into_outcome(started))
}

/// The headers that prove a request.
struct Signed {
    /// In unix seconds.
    timestamp: String,
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
        EgressError::Refused(_) | EgressError::PlainHttp => SendFailure::Refused,
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
