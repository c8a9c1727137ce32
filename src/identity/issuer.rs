//! Tokens (JWT) of an external issuer: who they are of, and what they allow.
//!
//! What a token says is believed only after its signature was checked with a key of the issuer, by an
//! algorithm of the settings that is also the key's. Keys, addresses of keys and certificates that a
//! token brings along are not looked at. Who it is of is written down as a hash of issuer and subject.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidings_actors::time::Timestamp;
use tidings_entity::kind::Role;
use tokio::time::Instant;
use ulid::Ulid;

use super::{keys::Keys, signature};
use crate::{egress::Egress, settings::IdentitySettings};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The kinds that tokens may say they are of (`typ`).
const KINDS: [&str; 2] = ["jwt", "at+jwt"];

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not what it says, or not any more.
    Invalid,
    /// It is genuine, and nothing in it makes a role.
    NoRole,
}

/// Whom a token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `jwt:` and half a SHA-256 of issuer and subject.
    pub id: String,
    /// The same as the owner of keyed requests.
    pub keys: Ulid,
    /// What it may do.
    pub role: Role,
}

/// An issuer of tokens.
pub struct Issuer {
    settings: IdentitySettings,
    validation: Validation,
    algorithms: Vec<Algorithm>,
    keys: Arc<Keys>,
}

impl Issuer {
    /// The issuer of the settings, where there is one.
    #[must_use]
    pub fn of(settings: &IdentitySettings, egress: &Egress) -> Option<Self> {
        let (issuer, audience) = (settings.issuer.as_ref()?, settings.audience.as_ref()?);
        let url = settings.jwks_url.clone()?;
        signature::install();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Moments are compared below, by the clock that everything here goes by.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let algorithms = settings.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
        let keys = Arc::new(Keys::new(url, egress.clone(), settings.keys_fresh));
        Some(Self { settings: settings.clone(), validation, algorithms, keys })
    }

    /// Whether a text has the form of such a token.
    #[must_use]
    pub fn is_token(text: &str) -> bool {
        text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3
    }

    /// Whom a token is of.
    ///
    /// # Errors
    /// [`Refusal`]; the reason is not told apart any further.
    pub async fn subject(&self, token: &str, now: Timestamp) -> Result<Subject, Refusal> {
        self.subject_at(token, now, Instant::now()).await
    }

    /// The same, at a moment by which the keys are fetched.
    async fn subject_at(&self, token: &str, now: Timestamp, moment: Instant) -> Result<Subject, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Invalid)?;
        let is_kind = |kind: &String| KINDS.contains(&kind.to_ascii_lowercase().as_str());
        let is_plain =
            header.typ.as_ref().is_none_or(is_kind) && header.crit.is_none() && header.enc.is_none();
        if !is_plain || !self.algorithms.contains(&header.alg) {
            return Err(Refusal::Invalid);
        }
        let found = self.keys.find(header.kid.as_deref(), header.alg, moment).await;
        let (keys, place) = found.ok_or(Refusal::Invalid)?;
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let claims = decode::<Value>(token, &keys[place].decoding, &validation);
        let claims = claims.map_err(|_| Refusal::Invalid)?.claims;
        self.check_moments(&claims, now)?;
        let issuer = self.settings.issuer.as_deref().unwrap_or_default();
        // The library lets a list of issuers pass that holds ours; the standard knows one.
        if claims["iss"] != issuer {
            return Err(Refusal::Invalid);
        }
        let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty()).ok_or(Refusal::Invalid)?;
        let role = self.role(&claims).ok_or(Refusal::NoRole)?;
        let mut hash = Sha256::new();
        for part in [issuer, subject] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        let id = format!("jwt:{}", data_encoding::HEXLOWER.encode(&half));
        Ok(Subject { id, keys: Ulid::from(u128::from_be_bytes(half)), role })
    }

    /// It is not over, and has begun; seconds since 1970, as numbers.
    fn check_moments(&self, claims: &Value, now: Timestamp) -> Result<(), Refusal> {
        let (now, leeway) = (now.0 as f64 / 1_000.0, self.settings.leeway.as_secs_f64());
        let ends = claims["exp"].as_f64().ok_or(Refusal::Invalid)?;
        let begins = match &claims["nbf"] {
            Value::Null => None,
            moment => Some(moment.as_f64().ok_or(Refusal::Invalid)?),
        };
        let is_live = now < ends + leeway && begins.is_none_or(|begins| begins - leeway <= now);
        if is_live { Ok(()) } else { Err(Refusal::Invalid) }
    }

    /// The highest role that a word of the claim makes.
    fn role(&self, claims: &Value) -> Option<Role> {
        let mut claim = claims;
        for name in self.settings.role_claim.split('.') {
            claim = claim.get(name)?;
        }
        let words: Vec<&str> = match claim {
            Value::String(text) => text.split_ascii_whitespace().collect(),
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let IdentitySettings { viewers, operators, admins, .. } = &self.settings;
        let has = |made: &[String]| made.iter().any(|word| words.contains(&word.as_str()));
        [(Role::Admin, admins), (Role::Operator, operators), (Role::Viewer, viewers)]
            .into_iter()
            .find_map(|(role, made)| has(made).then_some(role))
    }
}

#[cfg(test)]
pub(crate) mod tests;
