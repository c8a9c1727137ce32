//! One request to a Git host and its answer as packets, under deadlines: a connection within
//! `connect_timeout`, never silent for longer than `read_timeout`, never longer in all than the deadline of
//! the request, never more bytes than its cap. A pack begins to arrive within `fetch_begin_timeout`, even if
//! progress is reported until then, and then never arrives slower than the least rate, to which progress
//! reports do not count. Redirects are an error, an answer of another content type is one too.
//!
//! A credential is sent only to the host of the request, and only over https (see
//! [`Egress::may_carry_secrets`]). An installation token that is refused is created again, once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use tidings_actors::{
    limits::hosts::{HostPolicy, Hosts, RequestPermit},
    model::secret::Secret,
    ports::{Clock, GitError, Remote},
};
use tidings_entity::id::AppId;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::packet::{Decoder, Packet, Section};
use crate::{
    credential::{
        AppKey, Credential, InvalidCredential, TokenType, authorization,
        github_app::{Apps, Grant},
    },
    failure,
};
use tidings_egress::Egress;

use crate::settings::GitSettings;

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
/// The name of this client, as hosts see it.
const AGENT: &str = concat!("git/tidings-", env!("CARGO_PKG_VERSION"));
/// How long the end of a body may lag behind its last packet.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// For whom a host is asked.
#[derive(Clone, Copy)]
pub(crate) struct Requester<'a> {
    /// The credential that is sent; `None`: the request is anonymous.
    pub(crate) credential: Option<&'a Secret>,
    /// The apps that the answer serves: the request takes the turn of one of them at the host.
    pub(crate) apps: &'a [AppId],
}

impl<'a> Requester<'a> {
    /// The credential and the apps of a repository.
    pub(crate) fn of(remote: &'a Remote) -> Self {
        Self { credential: remote.credential.as_ref(), apps: &remote.apps }
    }
}

/// One request to a host.
pub(crate) struct Question<'a> {
    /// The repository's address; a path of the protocol is appended.
    pub(crate) base: &'a Url,
    /// For whom the host is asked.
    pub(crate) requester: Requester<'a>,
    /// The request: capabilities, or packets for `git-upload-pack`.
    pub(crate) body: Body,
    /// Whether to ask for protocol version 2.
    pub(crate) version_2: bool,
    /// Whether the answer may take long: a pack, not a listing.
    pub(crate) takes_long: bool,
    /// Most bytes of the answer.
    pub(crate) max_bytes: u64,
    /// Longest duration of the answer.
    pub(crate) deadline: Duration,
}

/// The two requests of the protocol.
pub(crate) enum Body {
    /// `GET info/refs`: the capabilities of the host, and its refs unless it speaks version 2.
    Advertisement,
    /// `POST git-upload-pack` with these packets.
    UploadPack(Vec<u8>),
}

/// Sends requests to Git hosts, with credentials, deadlines and limits.
pub(crate) struct Client {
    pub(super) egress: Egress,
    pub(super) settings: Arc<GitSettings>,
    pub(super) hosts: Hosts,
    pub(super) apps: Apps,
    pub(super) clock: Arc<dyn Clock>,
}

impl Client {
    pub(crate) fn new(egress: Egress, settings: Arc<GitSettings>, clock: Arc<dyn Clock>) -> Self {
        let policy = HostPolicy {
            interval: settings.host_rate.interval(),
            burst: settings.host_rate.burst(),
            concurrency: settings.host_concurrency as usize,
        };
        let apps = Apps::new(egress.clone(), Arc::clone(&clock));
        Self { egress, hosts: Hosts::new(policy), apps, settings, clock }
    }

    /// How hard each host may be pressed.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Asks, and waits for the head of the answer.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Result<Answer, GitError> {
        let unusable = |error: InvalidCredential| GitError::Credential(error.to_string());
        let key = match question.requester.credential.map(Credential::of).transpose().map_err(unusable)? {
            None => return self.ask_as(&question, None).await,
            Some(_) if !self.egress.may_carry_secrets(question.base) => {
                return Err(unusable(InvalidCredential::Insecure));
            }
            Some(Credential::Token { kind, secret }) => {
                let shown = authorization(kind, &secret, question.base).map_err(unusable)?;
                return self.ask_as(&question, Some(shown)).await;
            }
            Some(Credential::App(key)) => key,
        };
        // In boxes: few credentials are apps, and every request would have room for one.
        let (first, token) = Box::pin(self.ask_as_app(&question, &key)).await?;
        match first {
            Err(GitError::Unauthorized) => {
                self.apps.refused(&key, question.base, &token, Grant::Contents).await;
                Box::pin(self.ask_as_app(&question, &key)).await?.0
            }
            other => other,
        }
    }

    /// Sends the request with the token of an installation, and returns which token that was.
    async fn ask_as_app(
        &self,
        question: &Question<'_>,
        key: &AppKey,
    ) -> Result<(Result<Answer, GitError>, Secret), GitError> {
        let token = self.apps.token(key, question.base, Grant::Contents).await?;
        let shown = authorization(TokenType::Github, &token, question.base)
            .map_err(|error| GitError::Credential(error.to_string()))?;
        Ok((self.ask_as(question, Some(shown)).await, token))
    }

    async fn ask_as(
        &self,
        question: &Question<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, GitError> {
        let (base, Requester { credential, apps }) = (question.base, question.requester);
        let permit = self.hosts.request(base, credential, apps, question.takes_long).await?;
        let (request, expected) = self.request(question, authorization)?;
        let deadline = Instant::now() + question.deadline;
        let longest = self.settings.connect_timeout + self.settings.read_timeout;
        let response = timeout(longest.min(question.deadline), request.send())
            .await
            .map_err(|_| GitError::Timeout("no answer came".to_owned()))?
            .map_err(|error| failure::of_request(&self.egress, error))?;
        let wait = failure::wait_asked(&response, self.clock.now());
        let granted = wait.map(|asked| self.hosts.grant_patience(base, credential, asked));
        if granted.is_none() {
            self.hosts.answered(base, credential);
        }
        if let Some(error) = failure::of_status(&response, granted) {
            return Err(error);
        }
        let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if content_type != expected.as_bytes() {
            let is_advertisement = matches!(question.body, Body::Advertisement);
            return Err(failure::of_content_type(content_type, is_advertisement));
        }
        Ok(Answer {
            response,
            decoder: Decoder::default(),
            settings: Arc::clone(&self.settings),
            deadline,
            max_bytes: question.max_bytes,
            received: 0,
            begin: None,
            rate: None,
            _permit: permit,
        })
    }

    fn request(
        &self,
        question: &Question<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<(reqwest::RequestBuilder, &'static str), GitError> {
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
        // Static values are neither copied nor parsed at each poll.
        request = request.header(USER_AGENT, HeaderValue::from_static(AGENT));
        request = request.header(ACCEPT, HeaderValue::from_static(expected));
        if question.version_2 {
            request = request.header(GIT_PROTOCOL, HeaderValue::from_static("version=2"));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Body::UploadPack(body) = &question.body {
            let commands = HeaderValue::from_static("application/x-git-upload-pack-request");
            request = request.header(CONTENT_TYPE, commands).body(body.clone());
        }
        Ok((request, expected))
    }
}

/// The body of an answer, packet by packet.
pub(crate) struct Answer {
    response: reqwest::Response,
    decoder: Decoder,
    settings: Arc<GitSettings>,
    deadline: Instant,
    max_bytes: u64,
    received: u64,
    /// The moment by which an awaited pack must begin to arrive.
    begin: Option<Instant>,
    rate: Option<Rate>,
    _permit: RequestPermit,
}

/// The bytes received during the time spent waiting for them.
#[derive(Default)]
struct Rate {
    waited: Duration,
    /// Below zero if bytes that do not count were counted when they arrived.
    bytes: i64,
}

impl Answer {
    /// The next packet; `None` at the end of the body.
    pub(crate) async fn packet(&mut self) -> Result<Option<Packet>, GitError> {
        loop {
            if let Some(packet) = self.decoder.packet()? {
                return Ok(Some(packet));
            }
            if !self.more(!self.decoder.is_empty()).await? {
                return match self.decoder.is_empty() {
                    true => Ok(None),
                    false => Err(GitError::Unreachable("the answer was cut off".to_owned())),
                };
            }
        }
    }

    /// Waits until the next section of packets with data is here whole, and returns its bytes. They stay to
    /// be read as packets, or to be skipped. `None`: the section has more than `most` bytes, or its packets
    /// say what is wrong.
    pub(crate) async fn section(&mut self, most: usize) -> Result<Option<&[u8]>, GitError> {
        let mut at = 0;
        loop {
            match self.decoder.section(at) {
                Section::Whole(length) if length <= most => return Ok(self.decoder.bytes().get(..length)),
                Section::Part(reached) if self.decoder.bytes().len() <= most => at = reached,
                _ => return Ok(None),
            }
            let is_within_packet = at < self.decoder.bytes().len();
            if !self.more(is_within_packet).await? {
                return Ok(None);
            }
        }
    }

    /// Leaves out bytes that [`Answer::section`] returned.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.decoder.skip(bytes);
    }

    /// Waits for more bytes; `false`: the body has ended.
    async fn more(&mut self, is_within_packet: bool) -> Result<bool, GitError> {
        // A host may pause between packets and before a pack; within a packet there is no reason to be slow.
        if is_within_packet && self.begin.is_none() {
            self.rate.get_or_insert_default();
        }
        let chunk = self.chunk().await?;
        if let Some(chunk) = &chunk {
            self.decoder.push(chunk);
        }
        Ok(chunk.is_some())
    }

    /// Everything that matters was read: reads the end of the body, so that the connection serves
    /// again. A host that says more than that loses it.
    pub(crate) async fn end(mut self) {
        if self.decoder.is_empty() {
            // The answer is already complete, so the result does not matter.
            drop(timeout(END_PATIENCE, self.response.chunk()).await);
        }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Sets the deadline for the beginning of a pack. Until then the host may compute, and report its
    /// progress.
    pub(crate) fn await_pack(&mut self, longest: Duration) {
        self.begin = Some(Instant::now() + longest);
    }

    /// A piece of a pack arrived: from now on the least rate is required.
    pub(crate) fn pack_came(&mut self) {
        self.begin = None;
        self.rate.get_or_insert_default();
    }

    /// Leaves the bytes of a packet without pack data out of the least rate.
    pub(crate) fn discount(&mut self, bytes: usize) {
        if let Some(rate) = &mut self.rate {
            rate.bytes = rate.bytes.saturating_sub_unsigned(bytes as u64);
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, GitError> {
        // All packets that are here whole were looked at.
        self.check_rate()?;
        let began = Instant::now();
        let silence = began + self.settings.read_timeout;
        let until = self.begin.unwrap_or(self.deadline).min(self.deadline);
        let late = |what: &str| GitError::Timeout(what.to_owned());
        let too_long = || match until < self.deadline {
            true => late("the pack did not begin to arrive within git.fetch_begin_timeout"),
            false => late("the deadline passed"),
        };
        // Where the next bytes are always here already, nothing else would notice.
        if began >= until {
            return Err(too_long());
        }
        let chunk = timeout_at(silence.min(until), self.response.chunk())
            .await
            .map_err(|_| if silence < until { late("the host stopped sending") } else { too_long() })?
            .map_err(failure::of_exchange)?;
        let bytes = chunk.as_ref().map_or(0, Bytes::len) as u64;
        self.received += bytes;
        if self.received > self.max_bytes {
            return Err(GitError::TooLarge(format!("the answer has more than {} bytes", self.max_bytes)));
        }
        if let Some(rate) = &mut self.rate {
            rate.waited += began.elapsed();
            rate.bytes = rate.bytes.saturating_add_unsigned(bytes);
        }
        Ok(chunk)
    }

    fn check_rate(&mut self) -> Result<(), GitError> {
        let Some(rate) = self.rate.as_mut().filter(|rate| rate.waited >= self.settings.least_rate_window)
        else {
            return Ok(());
        };
        let due = u128::from(self.settings.least_rate_bytes) * rate.waited.as_millis() / 1_000;
        let came = u64::try_from(rate.bytes).unwrap_or(0);
        if u128::from(came) < due {
            return Err(GitError::Timeout(format!("only {came} bytes came in {:?}", rate.waited)));
        }
        *rate = Rate::default();
        Ok(())
    }
}
