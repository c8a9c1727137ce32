//! Signing in at an issuer: the authorization code flow of OpenID Connect, with PKCE, state and nonce.
//!
//! State, nonce and verifier are derived from one secret, which the browser holds as a cookie: only a hash of
//! it is stored, and a state does not match the cookie of another browser. The code is sent to the token
//! endpoint through the guarded client, and the identity token in the answer is checked like any token of the
//! issuer, with this server's client id as its audience.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::{Method, header};
use jsonwebtoken::Validation;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidings_actors::time::Timestamp;
use tidings_entity::id::Sha256Hash;
use tokio::time::{Instant, timeout};
use tracing::warn;
use url::{Url, form_urlencoded};

use super::{
    issuer::{Issuer, Subject},
    refusal::Refusal,
};
use crate::egress::Egress;

/// The deadline of one request to the issuer, from its beginning to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the addresses of an issuer are used before they are asked for again.
const ADDRESSES_FRESH: Duration = Duration::from_mins(10);
/// Longest code that an issuer may give, in bytes.
const CODE_BYTES_MAX: usize = 4 << 10;

/// The reason why a sign-in failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The issuer does not answer, or its answer does not follow the standard.
    Unavailable,
    /// The issuer refused the code, or its identity token is not genuine or not of this sign-in.
    Refused,
    /// The person is known, and no claim gives a role here.
    NoRole,
}

/// The secret of one sign-in, which the browser holds.
pub struct LoginSecret<'s>(&'s str);

impl<'s> LoginSecret<'s> {
    /// The secret with this text.
    #[must_use]
    pub fn of(text: &'s str) -> Self {
        Self(text)
    }

    /// The state, which the issuer returns with the browser.
    #[must_use]
    pub fn state(&self) -> String {
        self.derived("state")
    }

    /// The hash of the state, by which a sign-in is remembered.
    #[must_use]
    pub fn state_hash(&self) -> Sha256Hash {
        Sha256Hash::of(self.state().as_bytes())
    }

    /// The nonce, which the identity token must repeat.
    fn nonce(&self) -> String {
        self.derived("nonce")
    }

    /// The verifier, which proves to the issuer that the sender of the code began the sign-in (RFC 7636).
    fn verifier(&self) -> String {
        self.derived("verifier")
    }

    fn challenge(&self) -> String {
        BASE64URL_NOPAD.encode(&Sha256::digest(self.verifier().as_bytes()))
    }

    fn derived(&self, purpose: &str) -> String {
        let mut hash = Sha256::new();
        for part in ["tidings sign-in", purpose, self.0] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        BASE64URL_NOPAD.encode(&hash.finalize())
    }
}

/// The addresses of an issuer, from its own description.
#[derive(Clone, Deserialize)]
struct Addresses {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
}

/// The data for signing in at an issuer, besides its keys.
pub(super) struct Login {
    pub(super) client_id: String,
    pub(super) redirect_url: Url,
    pub(super) egress: Egress,
    known: Mutex<Option<(Instant, Addresses)>>,
}

impl Login {
    pub(super) fn new(client_id: String, redirect_url: Url, egress: Egress) -> Self {
        Self { client_id, redirect_url, egress, known: Mutex::new(None) }
    }

    /// The form for the token endpoint; a client without a secret includes its id.
    fn form(&self, code: &str, secret: &LoginSecret<'_>, is_public: bool) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", self.redirect_url.as_str())
            .append_pair("code_verifier", &secret.verifier());
        if is_public {
            form.append_pair("client_id", &self.client_id);
        }
        form.finish()
    }

    /// The addresses of an issuer: the cached ones, or those of its description.
    async fn addresses(&self, issuer: &str) -> Result<Addresses, String> {
        let fresh = |(at, _): &&(Instant, Addresses)| at.elapsed() < ADDRESSES_FRESH;
        if let Some((_, addresses)) = self.known.lock().as_ref().filter(fresh) {
            return Ok(addresses.clone());
        }
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let place = Url::parse(&place).map_err(|error| error.to_string())?;
        let request = self.egress.request(Method::GET, &place).map_err(|error| error.to_string())?;
        let (status, body) = answer(request).await?;
        if status != 200 {
            return Err(format!("its description is answered with status {status}"));
        }
        let addresses: Addresses =
            serde_json::from_slice(&body).map_err(|_| "its description names no addresses".to_owned())?;
        if addresses.issuer != issuer {
            return Err("its description is that of another issuer".to_owned());
        }
        // A browser is redirected only to an address that this server itself may call.
        let place = &addresses.authorization_endpoint;
        drop(self.egress.request(Method::GET, place).map_err(|error| error.to_string())?);
        *self.known.lock() = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let whole = async {
        let mut answer = request.send().await.map_err(|_| "it does not answer".to_owned())?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|_| "its answer broke off".to_owned())? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err("its answer is too large".to_owned());
            }
            body.extend_from_slice(&part);
        }
        Ok((answer.status().as_u16(), body))
    };
    timeout(DEADLINE, whole).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}

impl Issuer {
    /// Whether people sign in at this issuer.
    #[must_use]
    pub fn takes_sign_ins(&self) -> bool {
        self.login.is_some()
    }

    /// How long a session lasts that begins at this issuer.
    #[must_use]
    pub fn session_lasts(&self) -> Duration {
        self.settings.session
    }

    /// The address that a browser is sent to.
    ///
    /// # Errors
    /// [`LoginFault::Unavailable`].
    pub async fn sign_in_url(&self, secret: &LoginSecret<'_>) -> Result<Url, LoginFault> {
        let login = self.login.as_ref().ok_or(LoginFault::Unavailable)?;
        let addresses = self.addresses(login).await?;
        let mut url = addresses.authorization_endpoint;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &login.client_id)
            .append_pair("redirect_uri", login.redirect_url.as_str())
            .append_pair("scope", &self.settings.scopes.join(" "))
            .append_pair("state", &secret.state())
            .append_pair("nonce", &secret.nonce())
            .append_pair("code_challenge", &secret.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// The person for whom a code was issued.
    ///
    /// # Errors
    /// [`LoginFault`] with the reason.
    pub async fn signed_in(
        &self,
        code: &str,
        secret: &LoginSecret<'_>,
        now: Timestamp,
    ) -> Result<Subject, LoginFault> {
        let login = self.login.as_ref().ok_or(LoginFault::Unavailable)?;
        if code.is_empty() || code.len() > CODE_BYTES_MAX {
            return Err(LoginFault::Refused);
        }
        let addresses = self.addresses(login).await?;
        let token = self.exchanged(login, &addresses.token_endpoint, code, secret).await?;
        let mut validation: Validation = self.validation.clone();
        validation.set_audience(&[&login.client_id]);
        let claims = self.proved(&token, &validation, now, Instant::now()).await;
        let claims = claims.map_err(|refusal| self.refused(refusal))?;
        // By OpenID Connect Core 3.1.3.7, a token for several audiences names the client that it was made
        // for.
        let is_ours = claims.get("azp").is_none_or(|azp| azp == login.client_id.as_str());
        let is_of_this = claims["nonce"] == secret.nonce().as_str();
        if !is_ours || !is_of_this {
            return Err(LoginFault::Refused);
        }
        self.subject_of(&claims).map_err(|refusal| self.refused(refusal))
    }

    /// The fault of a login whose token is refused. The log has the reason for the operator.
    fn refused(&self, refusal: Refusal) -> LoginFault {
        match refusal {
            Refusal::NoRole => LoginFault::NoRole,
            Refusal::Invalid(fault) => {
                let (name, reason) = (&self.name, fault.as_str());
                warn!(issuer = name, "the identity token of the issuer {name} is refused: {reason}");
                LoginFault::Refused
            }
        }
    }

    async fn addresses(&self, login: &Login) -> Result<Addresses, LoginFault> {
        login.addresses(&self.issuer).await.map_err(|reason| {
            warn!(issuer = self.name, "nobody can sign in at the issuer {}: {reason}", self.name);
            LoginFault::Unavailable
        })
    }

    /// The identity token that the issuer gives for a code.
    async fn exchanged(
        &self,
        login: &Login,
        endpoint: &Url,
        code: &str,
        secret: &LoginSecret<'_>,
    ) -> Result<String, LoginFault> {
        let unavailable = |reason: String| {
            warn!(issuer = self.name, "the issuer {} takes no code: {reason}", self.name);
            LoginFault::Unavailable
        };
        let client_secret = self.settings.client_secret.as_ref();
        let request = login.egress.request(Method::POST, endpoint);
        let mut request = request
            .map_err(|error| unavailable(error.to_string()))?
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(login.form(code, secret, client_secret.is_none()));
        if let Some(client_secret) = client_secret {
            // RFC 6749, 2.3.1: both are form-encoded before they are joined.
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let proof = format!("{}:{}", encoded(&login.client_id), encoded(client_secret.expose()));
            let proof = format!("Basic {}", data_encoding::BASE64.encode(proof.as_bytes()));
            request = request.header(header::AUTHORIZATION, proof);
        }
        let (status, body) = answer(request).await.map_err(unavailable)?;
        match status {
            200 => {
                let answer: Value = serde_json::from_slice(&body).map_err(|_| LoginFault::Refused)?;
                answer["id_token"].as_str().map(str::to_owned).ok_or(LoginFault::Refused)
            }
            400..=499 => {
                warn!(issuer = self.name, "the issuer {} refuses a code with status {status}", self.name);
                Err(LoginFault::Refused)
            }
            status => Err(unavailable(format!("it answers with status {status}"))),
        }
    }
}
