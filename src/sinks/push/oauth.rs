//! Access tokens for endpoints that ask for OAuth 2.0 client credentials (RFC 6749, 4.4).
//!
//! A token is requested when the first attempt needs it, by one of the waiting attempts, and kept until
//! shortly before it expires. A failure is shared for a second, so that many attempts cause few requests.
//! Tokens are in memory only. The client authenticates with HTTP basic, which every token server must
//! support.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use parking_lot::Mutex;
use reqwest::Method;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tidings_actors::{
    model::secret::Secret,
    ports::{OauthClient, SinkKey},
};
use tidings_egress::Egress;
use tokio::time::{Instant, timeout};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::access::{basic, sensitive};

/// The longest wait for a token, from the first byte of the request to the last byte of the answer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most characters of a token: it has to fit in a header.
const TOKEN_CHARACTERS_MAX: usize = 16 << 10;
/// A token is renewed this long before it ends, or after three quarters of its life if that is
/// later.
const RENEW_BEFORE: Duration = Duration::from_secs(30);
/// How long a token is used if its server does not state a lifetime.
const LIFE_UNKNOWN: Duration = Duration::from_mins(5);
/// No token is used for longer.
const LIFE_MAX: Duration = Duration::from_hours(24);
/// How long a failure is returned to all callers without another request.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Above this number of clients, those without waiting attempts are forgotten.
const CLIENTS_KEPT: usize = 4_096;
/// The errors of RFC 6749, 5.2: the words of an answer that may be repeated.
const ERRORS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// The reason why there is no access token. Texts contain nothing from the server but a word of the standard.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum TokenFault {
    /// The token server did not answer in time.
    #[error("no access token: the token server did not answer in time")]
    Timeout,
    /// The token server could not be reached.
    #[error("no access token: the token server could not be reached")]
    Unreachable,
    /// The egress rules refuse the address of the token server.
    #[error("no access token: the address of the token server is refused")]
    Address,
    /// The token server refused the client.
    #[error("no access token: the token server answered with status {status}{}", shown(.error))]
    Refused {
        /// The status code of the answer.
        status: u16,
        /// The `error` that the server named, if RFC 6749 defines it.
        error: Option<&'static str>,
    },
    /// The answer of the server contains no token.
    #[error("no access token: the answer of the token server holds no usable access token")]
    NoToken,
}

fn shown(error: &Option<&'static str>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

/// The tokens of all clients.
#[derive(Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

/// One client; the lock is held while its token is requested.
type Slot = tokio::sync::Mutex<State>;

#[derive(Default)]
struct State {
    issued: Option<Issued>,
    failed: Option<(Instant, TokenFault)>,
}

struct Issued {
    token: Secret,
    renew_at: Instant,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

/// A number, which some servers write as a text.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

impl Tokens {
    /// A token for a sink, within `limit`.
    pub(super) async fn token(
        &self,
        sink: &SinkKey,
        client: &OauthClient,
        egress: &Egress,
        limit: Duration,
    ) -> Result<Secret, TokenFault> {
        let limit = limit.min(TOKEN_TIMEOUT);
        let slot = self.slot(sink, client);
        let mut state = timeout(limit, slot.lock()).await.map_err(|_| TokenFault::Timeout)?;
        let now = Instant::now();
        if let Some(issued) = state.issued.as_ref().filter(|issued| now < issued.renew_at) {
            return Ok(issued.token.clone());
        }
        if let Some((until, fault)) = &state.failed
            && now < *until
        {
            return Err(fault.clone());
        }
        let asked = timeout(limit, ask(client, egress)).await.unwrap_or(Err(TokenFault::Timeout));
        match asked {
            Ok(issued) => {
                let token = issued.token.clone();
                *state = State { issued: Some(issued), failed: None };
                Ok(token)
            }
            Err(fault) => {
                *state = State { issued: None, failed: Some((Instant::now() + FAILURE_KEPT, fault.clone())) };
                Err(fault)
            }
        }
    }

    /// Forgets a token that an endpoint refused, unless there is a newer one.
    pub(super) async fn refused(&self, sink: &SinkKey, client: &OauthClient, token: &Secret) {
        let slot = self.slot(sink, client);
        let mut state = slot.lock().await;
        if state.issued.as_ref().is_some_and(|issued| issued.token.expose() == token.expose()) {
            state.issued = None;
        }
    }

    /// A changed client is another client: its slot does not share the old state.
    fn slot(&self, sink: &SinkKey, client: &OauthClient) -> Arc<Slot> {
        let mut hasher = Sha256::new();
        for part in [
            Some(sink.id()),
            Some(&client.token_url),
            Some(&client.client_id),
            Some(client.client_secret.expose()),
            client.scope.as_deref(),
            client.audience.as_deref(),
        ] {
            hasher.update([u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let name: [u8; 32] = hasher.finalize().into();
        let mut slots = self.slots.lock();
        if slots.len() >= CLIENTS_KEPT {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(name).or_default())
    }
}

async fn ask(client: &OauthClient, egress: &Egress) -> Result<Issued, TokenFault> {
    let url = Url::parse(&client.token_url).map_err(|_| TokenFault::Address)?;
    if !egress.may_carry_secrets(&url) {
        return Err(TokenFault::Address);
    }
    let request = egress.request(Method::POST, &url).map_err(|_| TokenFault::Address)?;
    // RFC 6749, 2.3.1: both are form-encoded before they are joined.
    let encoded =
        |text: &str| Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    let proof = basic(&encoded(&client.client_id), &encoded(client.client_secret.expose()));
    let proof = Zeroizing::new(format!("Basic {}", *proof));
    let request = request
        .header(AUTHORIZATION, sensitive(&proof).map_err(|_| TokenFault::NoToken)?)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("User-Agent", concat!("Tidings/", env!("CARGO_PKG_VERSION")))
        .body(form(client));
    let of_request = |error: reqwest::Error| match error {
        error if Egress::is_refused(&error) => TokenFault::Address,
        error if error.is_timeout() => TokenFault::Timeout,
        _ => TokenFault::Unreachable,
    };
    let asked_at = Instant::now();
    let mut response = request.send().await.map_err(of_request)?;
    let status = response.status();
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(chunk) = response.chunk().await.map_err(of_request)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(TokenFault::NoToken);
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        return Err(TokenFault::Refused { status: status.as_u16(), error: named(&body) });
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| TokenFault::NoToken)?;
    issued(answer, asked_at)
}

fn form(client: &OauthClient) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", &client.scope), ("audience", &client.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    form.finish()
}

/// The error of the standard that an answer names.
fn named(body: &[u8]) -> Option<&'static str> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let error = answer["error"].as_str()?;
    ERRORS.into_iter().find(|known| *known == error)
}

fn issued(answer: Answer, asked_at: Instant) -> Result<Issued, TokenFault> {
    let token = Secret::new(answer.access_token);
    let is_sendable = (1..=TOKEN_CHARACTERS_MAX).contains(&token.expose().len())
        && token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !is_sendable || !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(TokenFault::NoToken);
    }
    let life = answer.expires_in.map_or(LIFE_UNKNOWN, Duration::from_secs).min(LIFE_MAX);
    let margin = RENEW_BEFORE.min(life / 4);
    Ok(Issued { token, renew_at: asked_at + (life - margin) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(body: &str) -> Result<(String, Duration), TokenFault> {
        let start = Instant::now();
        let answer: Answer = serde_json::from_str(body).map_err(|_| TokenFault::NoToken)?;
        issued(answer, start).map(|issued| (issued.token.expose().to_owned(), issued.renew_at - start))
    }

    #[test]
    fn a_token_is_renewed_shortly_before_it_ends() {
        for (life, seconds) in [
            (r#","expires_in":3600"#, 3570),
            (r#","expires_in":"3600""#, 3570),
            (r#","expires_in":40"#, 30),
            (r#","expires_in":0"#, 0),
            (r#","expires_in":null"#, 270),
            ("", 270),
            (r#","expires_in":99999999999"#, 24 * 3600 - 30),
        ] {
            let body = format!(r#"{{"access_token":"a-token","token_type":"bearer"{life}}}"#);
            assert_eq!(answered(&body), Ok(("a-token".to_owned(), Duration::from_secs(seconds))), "{body}");
        }
    }

    #[test]
    fn what_is_no_bearer_token_is_refused() {
        for body in [
            "{}",
            "no JSON",
            r#"{"access_token":"a-token"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a token","token_type":"Bearer"}"#,
            r#"{"access_token":"a\r\nx: y","token_type":"Bearer"}"#,
            r#"{"access_token":"a-token","token_type":"mac"}"#,
            r#"{"access_token":5,"token_type":"Bearer"}"#,
        ] {
            assert_eq!(answered(body), Err(TokenFault::NoToken), "{body}");
        }
    }

    #[test]
    fn only_words_of_the_standard_are_repeated() {
        assert_eq!(
            named(br#"{"error":"invalid_client","error_description":"secret"}"#),
            Some("invalid_client")
        );
        for body in [&br#"{"error":"your secret"}"#[..], b"{}", b"<html>", b""] {
            assert_eq!(named(body), None);
        }
        let fault = TokenFault::Refused { status: 401, error: Some("invalid_client") };
        assert!(fault.to_string().ends_with("status 401 (invalid_client)"), "{fault}");
    }
}
