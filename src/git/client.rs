//! One request to a Git host and its answer as packets, under deadlines: a connection within
//! `connect_timeout`, never silent for longer than `read_timeout`, never longer in all than the
//! deadline of the request, never more bytes than its cap, and a pack never slower than the least
//! rate. Redirects are an error, an answer of another content type is one too.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use tidings_actors::{
    ports::{Clock, GitError},
    secret::Secret,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    failure,
    hosts::Hosts,
    packet::{Decoder, Packet},
};
use crate::{egress::Egress, settings::git::GitSettings};

/// What to ask a host.
pub(super) struct Question<'a> {
    /// The repository's address; a path of the protocol is appended.
    pub(super) base: &'a Url,
    /// Sent as basic authentication.
    pub(super) credential: Option<&'a Secret>,
    /// Which of the two requests of the protocol it is.
    pub(super) body: Body,
    /// Whether to ask for protocol version 2.
    pub(super) version_2: bool,
    /// Most bytes of the answer.
    pub(super) max_bytes: u64,
    /// Longest duration of the answer.
    pub(super) deadline: Duration,
}

/// The two requests of the protocol.
pub(super) enum Body {
    /// `GET info/refs`: what the host can do, and its refs unless it speaks version 2.
    Advertisement,
    /// `POST git-upload-pack` with these packets.
    UploadPack(Vec<u8>),
}

/// Asks Git hosts.
pub(super) struct Client {
    egress: Egress,
    settings: Arc<GitSettings>,
    hosts: Hosts,
    clock: Arc<dyn Clock>,
}

impl Client {
    pub(super) fn new(egress: Egress, settings: Arc<GitSettings>, clock: Arc<dyn Clock>) -> Self {
        Self { egress, hosts: Hosts::new(&settings), settings, clock }
    }

    /// Asks, and waits for the head of the answer.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, GitError> {
        let permit = self.hosts.enter(question.base).await?;
        let (request, expected) = self.request(&question)?;
        let deadline = Instant::now() + question.deadline;
        let patience = self.settings.connect_timeout + self.settings.read_timeout;
        let response = timeout(patience.min(question.deadline), request.send())
            .await
            .map_err(|_| GitError::Timeout("no answer came".to_owned()))?
            .map_err(failure::of_request)?;
        if let Some(error) = failure::of_status(&response, self.clock.now()) {
            return Err(error);
        }
        let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if content_type != expected.as_bytes() {
            let shown = failure::shown(content_type);
            return Err(GitError::Protocol(format!("the content type of the answer is {shown:?}")));
        }
        Ok(Answer {
            response,
            decoder: Decoder::default(),
            settings: Arc::clone(&self.settings),
            deadline,
            max_bytes: question.max_bytes,
            received: 0,
            rate: None,
            _permit: permit,
        })
    }

    fn request(&self, question: &Question<'_>) -> Result<(reqwest::RequestBuilder, &'static str), GitError> {
        let mut url = question.base.clone();
        let path = question.base.path().trim_end_matches('/');
        let (method, expected) = match question.body {
            Body::Advertisement => {
                url.set_path(&format!("{path}/info/refs"));
                url.set_query(Some("service=git-upload-pack"));
                (Method::GET, "application/x-git-upload-pack-advertisement")
            }
            Body::UploadPack(_) => {
                url.set_path(&format!("{path}/git-upload-pack"));
                (Method::POST, "application/x-git-upload-pack-result")
            }
        };
        let mut request = self.egress.request(method, &url).map_err(|error| failure::of_egress(&error))?;
        request = request.header("User-Agent", concat!("git/tidings-", env!("CARGO_PKG_VERSION")));
        request = request.header(ACCEPT, expected);
        if question.version_2 {
            request = request.header("Git-Protocol", "version=2");
        }
        if let Some(credential) = question.credential {
            request = request.header(AUTHORIZATION, basic(credential)?);
        }
        if let Body::UploadPack(body) = &question.body {
            request =
                request.header(CONTENT_TYPE, "application/x-git-upload-pack-request").body(body.clone());
        }
        Ok((request, expected))
    }
}

/// `user:password`, or a bare token under the name that every big host accepts beside a token.
fn basic(credential: &Secret) -> Result<HeaderValue, GitError> {
    let exposed = credential.expose();
    let pair = Zeroizing::new(if exposed.contains(':') {
        exposed.to_owned()
    } else {
        format!("x-access-token:{exposed}")
    });
    let header = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&header).map_err(|_| GitError::Unauthorized)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The body of an answer, packet by packet.
pub(super) struct Answer {
    response: reqwest::Response,
    decoder: Decoder,
    settings: Arc<GitSettings>,
    deadline: Instant,
    max_bytes: u64,
    received: u64,
    rate: Option<Rate>,
    _permit: OwnedSemaphorePermit,
}

/// How much came during the time that was spent waiting for it.
#[derive(Default)]
struct Rate {
    waited: Duration,
    bytes: u64,
}

impl Answer {
    /// The next packet; `None` at the end of the body.
    pub(super) async fn packet(&mut self) -> Result<Option<Packet>, GitError> {
        loop {
            if let Some(packet) = self.decoder.packet()? {
                return Ok(Some(packet));
            }
            // Between packets a host may think; within one it has no reason to be slow.
            if !self.decoder.is_empty() {
                self.demand_least_rate();
            }
            match self.chunk().await? {
                Some(chunk) => self.decoder.push(&chunk),
                None if self.decoder.is_empty() => return Ok(None),
                None => return Err(GitError::Unreachable("the answer was cut off".to_owned())),
            }
        }
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// From here on the least rate is demanded.
    pub(super) fn demand_least_rate(&mut self) {
        self.rate.get_or_insert_default();
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, GitError> {
        let began = Instant::now();
        let silence = began + self.settings.read_timeout;
        let chunk = timeout_at(silence.min(self.deadline), self.response.chunk())
            .await
            .map_err(|_| {
                let what =
                    if silence < self.deadline { "the host fell silent" } else { "the deadline passed" };
                GitError::Timeout(what.to_owned())
            })?
            .map_err(failure::of_request)?;
        let bytes = chunk.as_ref().map_or(0, Bytes::len) as u64;
        self.received += bytes;
        if self.received > self.max_bytes {
            return Err(GitError::TooLarge(format!("the answer has more than {} bytes", self.max_bytes)));
        }
        self.check_rate(began.elapsed(), bytes)?;
        Ok(chunk)
    }

    fn check_rate(&mut self, waited: Duration, bytes: u64) -> Result<(), GitError> {
        let Some(rate) = &mut self.rate else { return Ok(()) };
        rate.waited += waited;
        rate.bytes += bytes;
        let window = self.settings.least_rate_window;
        if rate.waited < window {
            return Ok(());
        }
        let due = u128::from(self.settings.least_rate_bytes) * rate.waited.as_millis() / 1_000;
        if u128::from(rate.bytes) < due {
            return Err(GitError::Timeout(format!("only {} bytes came in {:?}", rate.bytes, rate.waited)));
        }
        *rate = Rate::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_token_gets_the_name_that_hosts_expect() {
        for (credential, header) in
            [("tok", "Basic eC1hY2Nlc3MtdG9rZW46dG9r"), ("me:pa:ss", "Basic bWU6cGE6c3M=")]
        {
            let value = basic(&Secret::new(credential.to_owned())).expect("valid");
            assert!(value.is_sensitive());
            assert_eq!(value.to_str().expect("text"), header);
        }
    }
}
