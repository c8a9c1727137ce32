//! Tokens of GitHub App installations: created with the app's key, kept only in memory, renewed before they
//! expire. Requests that need a token while it is being created wait for it. A failure is shared as well, for
//! a few seconds, so that a thousand polls send no more requests to the API than one.
//!
//! A dropped future creates no token and blocks no other: the next waiting request starts again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tidings_actors::{
    model::secret::Secret,
    ports::{Clock, GitError},
    time::Timestamp,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, timeout};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    credential::{AppKey, Credential, InvalidCredential},
    failure,
};
use tidings_egress::Egress;

/// Longest mint, from its first byte to its last.
const MINT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A token is renewed this long before it expires, or after half of its life if that is later.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// No token is believed to live longer.
const LIFE_MAX: Duration = Duration::from_hours(1);
/// How long a failure of minting is returned to all callers without another request.
const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// A signed claim is valid this long; GitHub admits ten minutes.
const CLAIM_SECONDS: i64 = 540;
/// How far a signed claim is dated back, in seconds, because clocks differ.
const CLOCK_SKEW_SECONDS: i64 = 60;
/// Above this number, installations without waiting requests are forgotten.
const INSTALLATIONS_KEPT: usize = 4_096;

/// The permissions that a token is created for; it has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The permission to read contents.
    Contents,
    /// Writing the statuses of commits.
    Statuses,
}

impl Grant {
    fn body(self) -> &'static str {
        match self {
            Self::Contents => r#"{"permissions":{"contents":"read"}}"#,
            Self::Statuses => r#"{"permissions":{"statuses":"write"}}"#,
        }
    }
}

/// The tokens of all installations, a grant each.
pub(crate) struct Apps {
    egress: Egress,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

/// One installation; the lock is held while its token is created.
type Slot = tokio::sync::Mutex<State>;

#[derive(Default)]
struct State {
    minted: Option<Minted>,
    failed: Option<(Instant, GitError)>,
}

struct Minted {
    token: Secret,
    renew_at: Instant,
    expires_at: Instant,
}

/// The answer of the API.
#[derive(Deserialize)]
struct Issued {
    token: String,
    expires_at: String,
}

impl Apps {
    pub(crate) fn new(egress: Egress, clock: Arc<dyn Clock>) -> Self {
        Self { egress, clock, slots: Mutex::default() }
    }

    /// The token of an installation, for the repository at `git`.
    ///
    /// # Errors
    /// [`GitError::Credential`] where the API refuses the key or the installation; else the failure of the
    /// request.
    pub(crate) async fn token(&self, key: &AppKey, git: &Url, grant: Grant) -> Result<Secret, GitError> {
        let api = key.api(git).map_err(unusable)?;
        let slot = self.slot(key, &api, grant);
        let mut state = slot.lock().await;
        let now = Instant::now();
        if let Some(minted) = state.minted.as_ref().filter(|minted| now < minted.renew_at) {
            return Ok(minted.token.clone());
        }
        let failed = match &state.failed {
            Some((until, error)) if now < *until => error.clone(),
            _ => match self.mint(key, &api, grant).await {
                Ok(minted) => {
                    let token = minted.token.clone();
                    *state = State { minted: Some(minted), failed: None };
                    return Ok(token);
                }
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "no token of a GitHub App was issued");
                    let wait = match &error {
                        GitError::RateLimited { retry_after: Some(wait) } => *wait,
                        _ => FAILURE_KEPT,
                    };
                    state.failed = Some((Instant::now() + wait.max(FAILURE_KEPT), error.clone()));
                    error
                }
            },
        };
        // The token was to be renewed early, so the old one is still valid for a while.
        let left = state.minted.as_ref().filter(|minted| Instant::now() < minted.expires_at);
        left.map(|minted| minted.token.clone()).ok_or(failed)
    }

    /// Forgets a token that the host refused, unless there is a newer one.
    pub(crate) async fn refused(&self, key: &AppKey, git: &Url, token: &Secret, grant: Grant) {
        let Ok(api) = key.api(git) else { return };
        let slot = self.slot(key, &api, grant);
        let mut state = slot.lock().await;
        if state.minted.as_ref().is_some_and(|minted| minted.token.expose() == token.expose()) {
            state.minted = None;
        }
    }

    fn slot(&self, key: &AppKey, api: &Url, grant: Grant) -> Arc<Slot> {
        let text = Credential::App(AppKey { api_url: Some(api.clone()), ..key.clone() }).text();
        let hash = Sha256::new().chain_update(grant.body()).chain_update(text.expose());
        let name = hash.finalize().into();
        let mut slots = self.slots.lock();
        if slots.len() >= INSTALLATIONS_KEPT {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(name).or_default())
    }

    async fn mint(&self, key: &AppKey, api: &Url, grant: Grant) -> Result<Minted, GitError> {
        if !self.egress.may_carry_secrets(api) {
            return Err(unusable(InvalidCredential::Insecure));
        }
        let now = self.clock.now();
        let mut url = api.clone();
        let path = api.path().trim_end_matches('/');
        url.set_path(&format!("{path}/app/installations/{}/access_tokens", key.installation_id));
        let bearer = Zeroizing::new(format!("Bearer {}", claim(key, now).map_err(unusable)?.expose()));
        let mut bearer =
            HeaderValue::from_str(&bearer).map_err(|_| unusable(InvalidCredential::Characters))?;
        bearer.set_sensitive(true);
        let request = self.egress.request(Method::POST, &url).map_err(|error| failure::of_egress(&error))?;
        let request = request
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header("User-Agent", concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(grant.body());
        let asked = async {
            let response = request.send().await.map_err(|error| failure::of_request(&self.egress, error))?;
            self.issued(response, now).await
        };
        timeout(MINT_TIMEOUT, asked)
            .await
            .map_err(|_| GitError::Timeout("the API did not answer in time".to_owned()))?
    }

    async fn issued(&self, mut response: reqwest::Response, now: Timestamp) -> Result<Minted, GitError> {
        let status = response.status();
        if status != StatusCode::CREATED {
            let wait = failure::wait_asked(&response, self.clock.now());
            return Err(match failure::of_status(&response, wait.map(Option::unwrap_or_default)) {
                Some(
                    GitError::Unauthorized
                    | GitError::NotFound
                    | GitError::Status(422)
                    | GitError::Status(400),
                ) => GitError::Credential(format!(
                    "the API refuses the GitHub App's key or installation with status {}",
                    status.as_u16()
                )),
                Some(error) => error,
                None => not_a_token(),
            });
        }
        let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
        while let Some(chunk) = response.chunk().await.map_err(failure::of_exchange)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(not_a_token());
            }
            body.extend_from_slice(&chunk);
        }
        let issued: Issued = serde_json::from_slice(&body).map_err(|_| not_a_token())?;
        let token = Secret::new(issued.token);
        let expires = OffsetDateTime::parse(&issued.expires_at, &Rfc3339).map_err(|_| not_a_token())?;
        let expires = Timestamp(expires.unix_timestamp().saturating_mul(1_000));
        let life = expires.since(now).min(LIFE_MAX);
        let minted_at = Instant::now();
        Ok(Minted {
            token,
            renew_at: minted_at + life.saturating_sub(RENEW_BEFORE).max(life / 2),
            expires_at: minted_at + life,
        })
    }
}

fn unusable(error: InvalidCredential) -> GitError {
    GitError::Credential(error.to_string())
}

fn not_a_token() -> GitError {
    GitError::Protocol("the API did not answer with a token".to_owned())
}

/// A claim to be the app, signed: a JSON Web Token with RS256, RFC 7519.
fn claim(key: &AppKey, now: Timestamp) -> Result<Secret, InvalidCredential> {
    let seconds = now.0 / 1_000;
    let claims = serde_json::json!({
        "iat": seconds - CLOCK_SKEW_SECONDS, "exp": seconds + CLAIM_SECONDS, "iss": key.app_id,
    });
    signed(key, r#"{"alg":"RS256","typ":"JWT"}"#, &claims.to_string())
}

/// A signature in the compact form of RFC 7515.
fn signed(key: &AppKey, header: &str, payload: &str) -> Result<Secret, InvalidCredential> {
    let mut text = BASE64URL_NOPAD.encode(header.as_bytes());
    text.push('.');
    text.push_str(&BASE64URL_NOPAD.encode(payload.as_bytes()));
    let signature = key.signer()?.sign(text.as_bytes()).map_err(|_| InvalidCredential::Key)?;
    text.push('.');
    text.push_str(&BASE64URL_NOPAD.encode(&signature));
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7515, appendix A.2: known to everybody.
    const KEY: &str = include_str!("../../../tests/keys/rfc7515-a2.pkcs8.pem");

    #[test]
    fn a_signature_is_that_of_rfc_7515() {
        let key = AppKey {
            app_id: String::new(),
            installation_id: 0,
            api_url: None,
            private_key: Secret::new(KEY.to_owned()),
        };
        let payload = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        let text = signed(&key, r#"{"alg":"RS256"}"#, payload).expect("a key");
        let expected = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
            cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7\
            AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK\
            5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
            hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        assert_eq!(text.expose(), expected);
    }
}
