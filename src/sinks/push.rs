//! The sink `endpoint`: signed requests to a web address through the guarded client.

mod addresses;
mod batch;
mod oauth;

use std::{error::Error, sync::Arc};

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use reqwest::Method;
use tidings_actors::{
    model::round::DeliveryId,
    model::secret::Secret,
    ports::{
        Action, AttemptOutcome, EndpointAuth, ItemOutcome, OauthClient, Parcel, ParcelBody, SendFailure,
    },
};
use tidings_egress::{Egress, EgressError, of_apps::AppEgress};
use tidings_entity::kind::PayloadFormat;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    access::{self, Unsendable},
    answer,
    attempt::{Attempt, OutgoingMessage, Reply, Signed, WayOut, allowance, late},
    kept,
    rendering::{cloud_event, material::off_thread},
    signature::{self, CODEQ_HEADERS, DOCORA_HEADERS, STANDARD_HEADERS},
};
use addresses::{Addresses, below};
use oauth::{TokenFault, Tokens};

/// The number of header fields that most requests have.
const HEADERS: usize = 16;
const WEBHOOK_ID: HeaderName = HeaderName::from_static(STANDARD_HEADERS[0]);
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static(STANDARD_HEADERS[1]);
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(STANDARD_HEADERS[2]);
const DOCORA_APP_ID: HeaderName = HeaderName::from_static("x-docora-app-id");
const DOCORA_TIMESTAMP: HeaderName = HeaderName::from_static(DOCORA_HEADERS[0]);
const DOCORA_SIGNATURE: HeaderName = HeaderName::from_static(DOCORA_HEADERS[1]);
const CODEQ_TIMESTAMP: HeaderName = HeaderName::from_static(CODEQ_HEADERS[0]);
const CODEQ_SIGNATURE: HeaderName = HeaderName::from_static(CODEQ_HEADERS[1]);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The status of an endpoint that does not accept an access token.
const UNAUTHORIZED: u16 = 401;

/// The parts that requests to all endpoints share: clients, access tokens, parsed addresses.
pub(super) struct Push {
    egress: AppEgress,
    tokens: Tokens,
    addresses: Addresses,
}

impl Push {
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress: AppEgress::new(egress), tokens: Tokens::default(), addresses: Addresses::default() }
    }

    /// The way to one endpoint.
    pub(super) fn to<'a>(&'a self, base_url: &'a str, attempt: Attempt<'a>) -> Pushing<'a> {
        Pushing { push: self, base_url, attempt }
    }
}

/// The way to one endpoint.
pub(super) struct Pushing<'a> {
    push: &'a Push,
    base_url: &'a str,
    attempt: Attempt<'a>,
}

impl WayOut for Pushing<'_> {
    fn attempt(&self) -> &Attempt<'_> {
        &self.attempt
    }

    /// One signed request. Data that few endpoints need is boxed: otherwise each attempt would have its size.
    async fn post(&self, post: OutgoingMessage<'_>) -> Reply {
        // Plain concatenation is the contract: a base address that ends in a slash gets two.
        let address = match post.action {
            Action::Entry | Action::Codeq => self.base_url.to_owned(),
            action => below(self.base_url, action.as_str()),
        };
        let url = match self.push.addresses.of(address) {
            Ok(url) => url,
            Err(error) => return Reply::failed(SendFailure::InvalidUrl, &format!("base address: {error}")),
        };
        let own = &self.attempt.endpoint.access;
        let egress = match self.push.egress.of(&self.attempt.endpoint.sink, own.tls.as_ref()) {
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
}

impl Pushing<'_> {
    /// Sends several parcels in one request, and reads the result of each.
    pub(super) async fn deliver_together(&self, parcels: Vec<Parcel>) -> (AttemptOutcome, Vec<ItemOutcome>) {
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
        let post = OutgoingMessage {
            action: Action::Batch,
            id: id.as_str(),
            watch: None,
            content_type: cloud_event::content_type(format, true),
            body,
            answer_max: Some(batch::answer_max(ids.len())),
            shows: false,
        };
        let limit = allowance(self.attempt.endpoint.timeout, size);
        let started = Instant::now();
        let reply = timeout(limit, self.post(post)).await.unwrap_or_else(|_| late(limit));
        drop(held);
        let mut words =
            if reply.is_success() { batch::words(&reply.answer.0, reply.answer.1, &ids) } else { Vec::new() };
        let secrets = self.attempt.secrets(None);
        for word in &mut words {
            if let ItemOutcome::Refused(reason) | ItemOutcome::Retry(reason) = word {
                *reason = kept::clean(reason, &secrets);
            }
        }
        (reply.into_outcome(started), words)
    }

    /// One request, and if the endpoint refuses its access token, a second one with a new token, because the
    /// old one may have been revoked.
    async fn request_with_token(
        &self,
        egress: &Egress,
        url: &Url,
        post: &OutgoingMessage<'_>,
        client: &OauthClient,
    ) -> Reply {
        let mut token = self.token(egress, client).await;
        if let Ok(first) = &token {
            let reply = self.request(egress, url, post, Some(first)).await;
            if reply.result != Ok(UNAUTHORIZED) {
                return reply;
            }
            self.push.tokens.refused(&self.attempt.endpoint.sink, client, first).await;
            if let Some(pace) = &self.attempt.endpoint.pace {
                pace.turn().await;
            }
            token = self.token(egress, client).await;
        }
        match token {
            Ok(token) => self.request(egress, url, post, Some(&token)).await,
            Err(fault) => Reply::failed(SendFailure::Connection, &fault.to_string()),
        }
    }

    /// Gets an access token within half of the deadline, so that a failure can still be reported.
    async fn token(&self, egress: &Egress, client: &OauthClient) -> Result<Secret, TokenFault> {
        self.push
            .tokens
            .token(&self.attempt.endpoint.sink, client, egress, self.attempt.endpoint.timeout / 2)
            .await
    }

    async fn request(
        &self,
        egress: &Egress,
        url: &Url,
        post: &OutgoingMessage<'_>,
        token: Option<&Secret>,
    ) -> Reply {
        let OutgoingMessage { id, ref body, .. } = *post;
        let request = match egress.request(Method::POST, url) {
            Ok(request) => request,
            Err(error) => return Reply::failed(refusal(&error), &error.to_string()),
        };
        let own = &*self.attempt.endpoint.access;
        if own.has_secrets() && !egress.may_carry_secrets(url) {
            let text = "the app's headers and credentials go over https only";
            return Reply::failed(SendFailure::Refused, text);
        }
        let Some(signed) = self.attempt.sign(id, body).await else {
            return Reply::failed(SendFailure::Refused, "the app has no signing key");
        };
        let Ok(headers) = self.headers(post, &signed, token) else {
            return Reply::failed(SendFailure::Refused, "a header of the app cannot be sent");
        };
        match self.exchange(request.body(body.clone()), headers, post, token).await {
            Ok(reply) => reply,
            Err(error) => {
                let refused = egress.connection_refused(&error);
                Reply::failed(failure(&error), &refused.unwrap_or_else(|| chain(error.without_url())))
            }
        }
    }

    /// The headers of a request: the app's own fields, then those of Tidings. The values that differ between
    /// requests share one allocation with the client's copies.
    fn headers(
        &self,
        post: &OutgoingMessage<'_>,
        signed: &Signed,
        token: Option<&Secret>,
    ) -> Result<HeaderMap, Unsendable> {
        let is_codeq = post.action == Action::Codeq;
        let mut headers = HeaderMap::with_capacity(HEADERS);
        access::put(&mut headers, &self.attempt.endpoint.access, token)?;
        let ours = [
            (WEBHOOK_ID, Some(post.id)),
            (WEBHOOK_TIMESTAMP, Some(signed.timestamp.as_str())),
            (WEBHOOK_SIGNATURE, Some(&signed.standard)),
            (DOCORA_APP_ID, Some(self.attempt.endpoint.app.as_str())),
            (DOCORA_TIMESTAMP, Some(&signed.timestamp)),
            (DOCORA_SIGNATURE, Some(&signed.docora)),
            (CODEQ_TIMESTAMP, is_codeq.then_some(signed.timestamp.as_str())),
            (CODEQ_SIGNATURE, is_codeq.then_some(signature::codeq(&signed.docora))),
            (TRACEPARENT, self.attempt.traceparent.as_deref()),
        ];
        let room = ours.iter().filter_map(|(_, value)| value.map(str::len)).sum();
        let mut values = BytesMut::with_capacity(room);
        headers.append(CONTENT_TYPE, HeaderValue::from_static(post.content_type));
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
        post: &OutgoingMessage<'_>,
        token: Option<&Secret>,
    ) -> Result<Reply, reqwest::Error> {
        let (client, request) = request.build_split();
        let mut request = request?;
        *request.headers_mut() = headers;
        let response = client.execute(request).await?;
        let status = response.status().as_u16();
        let retry_after = answer::retry_after(response.headers(), self.attempt.clock.now());
        let is_kept = self.attempt.keeps_all || !matches!(status, 200..=299);
        if !is_kept && !post.shows {
            // The text of most acknowledgements is never shown.
            let answer = answer::read(response, post.answer_max).await?;
            return Ok(Reply { result: Ok(status), retry_after, excerpt: String::new(), kept: None, answer });
        }
        let secrets = self.attempt.secrets(token);
        let headers = is_kept.then(|| kept::headers(response.headers(), &secrets));
        let (read, is_whole) = answer::read(response, post.answer_max).await?;
        // The stored text is a cleaned copy: results of a batch are read from the original answer.
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
    } else if error.is_connect() {
        SendFailure::Connection
    } else {
        SendFailure::Cut
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
