//! Tokens (JWT) of external issuers: their subjects, and what they allow.
//!
//! The claims of a token are trusted only after its signature was checked with a key of the issuer that it
//! names, by an algorithm that both the settings and the key allow. Keys, addresses of keys and certificates
//! in a token are ignored. Its subject is stored as a hash of issuer and subject.
//!
//! An issuer is for the staff or for apps. The route decides which of the two is accepted, before the token
//! is read: an issuer for apps never gives a role, and an issuer for the staff never gives access as an app.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidings_actors::{
    model::permission::{Permission, PermissionSet, commands::Commands, narrowing::Powers},
    time::Timestamp,
};
use tidings_entity::{id::AppId, kind::Role};
use tokio::time::Instant;
use ulid::Ulid;

use super::{
    keys::Keys,
    login::Login,
    pem,
    refusal::{Refusal, TokenFault},
    signature,
};
use crate::{
    egress::Egress,
    settings::{IdentitySettings, IssuerSettings, Opens},
};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The kinds that tokens may say they are of (`typ`).
const KINDS: [&str; 2] = ["jwt", "at+jwt"];

/// The powers that the claims of a token give.
#[derive(Clone, Debug)]
pub enum Grant {
    /// Roles of the staff; at least one.
    Staff(Vec<String>),
    /// Permissions and commands of one app.
    App(AppId, Powers),
}

/// The person or program that a token was issued for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `jwt:` and half a SHA-256 of issuer and subject.
    pub id: String,
    /// The owner id of the subject's `Idempotency-Key`s.
    pub keys: Ulid,
    /// The powers of the subject.
    pub grant: Grant,
    /// When the token ends.
    pub ends_at: Timestamp,
}

/// Every issuer of the settings.
#[derive(Default)]
pub struct Issuers(Vec<Issuer>);

impl Issuers {
    /// The issuers of the settings.
    #[must_use]
    pub fn of(settings: &IdentitySettings, egress: &Egress) -> Self {
        let all = settings.all();
        Self(all.iter().filter_map(|(name, settings)| Issuer::of(name, settings, egress)).collect())
    }

    /// The subject of a token, and its powers by an issuer of this kind.
    ///
    /// # Errors
    /// [`Refusal`], with a reason for the operator.
    pub async fn subject(&self, opens: Opens, token: &str, now: Timestamp) -> Result<Subject, Refusal> {
        let named = unproved_issuer(token).ok_or(TokenFault::Malformed)?;
        let mut refusal = Refusal::Invalid(TokenFault::UnknownIssuer);
        for issuer in self.0.iter().filter(|issuer| issuer.opens == opens && issuer.issuer == named) {
            match issuer.subject_at(token, now, Instant::now()).await {
                Ok(subject) => return Ok(subject),
                Err(of_this) if refusal != Refusal::NoRole => refusal = of_this,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// The issuer of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Issuer> {
        self.0.iter().find(|issuer| issuer.name == name)
    }

    /// The issuers at which people sign in to the dashboard.
    pub fn of_sign_ins(&self) -> impl Iterator<Item = &Issuer> {
        self.0.iter().filter(|issuer| issuer.takes_sign_ins())
    }

    /// Whether sessions are valid that began at what [`Issuer::session_origin`] names.
    #[must_use]
    pub fn has_sessions_of(&self, origin: &str) -> bool {
        self.of_sign_ins().any(|issuer| issuer.session_origin() == origin)
    }

    /// Whether a text has the form of a JWT.
    #[must_use]
    pub fn is_token(text: &str) -> bool {
        text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3
    }
}

/// The issuer that a token names. It only selects the keys for the check.
fn unproved_issuer(token: &str) -> Option<String> {
    let claims = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

/// An issuer of tokens.
pub struct Issuer {
    pub(super) name: String,
    opens: Opens,
    pub(super) issuer: String,
    pub(super) settings: IssuerSettings,
    pub(super) validation: Validation,
    algorithms: Vec<Algorithm>,
    keys: Arc<Keys>,
    /// The data for signing in there; `None`: people cannot sign in there.
    pub(super) login: Option<Login>,
}

impl Issuer {
    /// The issuer of these settings; `None`: the settings name no issuer.
    #[must_use]
    pub fn of(name: &str, settings: &IssuerSettings, egress: &Egress) -> Option<Self> {
        let (issuer, audience) = (settings.issuer.clone()?, settings.audience.as_ref()?);
        let keys = match (&settings.jwks_url, &settings.keys) {
            (Some(url), _) => Keys::new(url.clone(), egress.clone(), settings.keys_fresh),
            (None, Some(text)) => Keys::fixed(pem::keys(text).ok()?),
            (None, None) => return None,
        };
        signature::install();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared below, with the shared clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let algorithms = settings.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
        let client = settings.client_id.clone().zip(settings.redirect_url.clone());
        let login = client.map(|(client, redirect)| Login::new(client, redirect, egress.clone()));
        let (name, opens, settings) = (name.to_owned(), settings.opens?, settings.clone());
        Some(Self { name, opens, issuer, settings, validation, algorithms, keys: Arc::new(keys), login })
    }

    /// The name of the issuer in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a session began that begins here: the name in the settings, the issuer and the client. Another
    /// issuer under the same name is another origin, so it does not take over the sessions of this one.
    #[must_use]
    pub fn session_origin(&self) -> String {
        let client = self.settings.client_id.as_deref().unwrap_or_default();
        format!("{} {} {client}", self.name, self.issuer)
    }

    /// The name of the issuer for people.
    #[must_use]
    pub fn label(&self) -> &str {
        self.settings.label.as_deref().unwrap_or(&self.name)
    }

    /// The subject of a token, checked with the keys of a moment.
    async fn subject_at(&self, token: &str, now: Timestamp, moment: Instant) -> Result<Subject, Refusal> {
        let claims = self.proved(token, &self.validation, now, moment).await?;
        self.subject_of(&claims)
    }

    /// The claims of a token that is genuine and valid now.
    pub(super) async fn proved(
        &self,
        token: &str,
        validation: &Validation,
        now: Timestamp,
        moment: Instant,
    ) -> Result<Value, Refusal> {
        let header = decode_header(token).map_err(|error| TokenFault::of(&error))?;
        let is_kind = |kind: &String| KINDS.contains(&kind.to_ascii_lowercase().as_str());
        let is_plain =
            header.typ.as_ref().is_none_or(is_kind) && header.crit.is_none() && header.enc.is_none();
        if !is_plain {
            return Err(TokenFault::Kind.into());
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(TokenFault::Algorithm.into());
        }
        let found = self.keys.find(header.kid.as_deref(), header.alg, moment).await;
        let (keys, place) = found.ok_or(TokenFault::NoKey)?;
        let validation = Validation { algorithms: vec![header.alg], ..validation.clone() };
        let claims = decode::<Value>(token, &keys[place].decoding, &validation);
        let claims = claims.map_err(|error| TokenFault::of(&error))?.claims;
        self.check_moments(&claims, now)?;
        // The library accepts a list of issuers that contains ours; the standard allows only one.
        if claims["iss"] != *self.issuer {
            return Err(TokenFault::Claims.into());
        }
        Ok(claims)
    }

    /// The subject of checked claims.
    pub(super) fn subject_of(&self, claims: &Value) -> Result<Subject, Refusal> {
        let subject =
            claims["sub"].as_str().filter(|subject| !subject.is_empty()).ok_or(TokenFault::Claims)?;
        let grant = match self.opens {
            Opens::Staff => Grant::Staff(self.roles(claims).ok_or(Refusal::NoRole)?),
            Opens::Apps => self.app(claims).ok_or(TokenFault::NoApp)?,
        };
        let mut hash = Sha256::new();
        for part in [self.issuer.as_str(), subject] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        let id = format!("jwt:{}", data_encoding::HEXLOWER.encode(&half));
        #[expect(clippy::cast_possible_truncation, reason = "a fraction of a millisecond is nothing")]
        let ends_at = Timestamp((claims["exp"].as_f64().ok_or(TokenFault::Claims)? * 1_000.0) as i64);
        Ok(Subject { id, keys: Ulid::from(u128::from_be_bytes(half)), grant, ends_at })
    }

    /// Checks that the token is valid at `now`: claims are seconds since 1970, as numbers.
    fn check_moments(&self, claims: &Value, now: Timestamp) -> Result<(), TokenFault> {
        let (now, leeway) = (now.0 as f64 / 1_000.0, self.settings.leeway.as_secs_f64());
        let ends = claims["exp"].as_f64().ok_or(TokenFault::Claims)?;
        let begins = match &claims["nbf"] {
            Value::Null => None,
            moment => Some(moment.as_f64().ok_or(TokenFault::Claims)?),
        };
        match now < ends + leeway {
            false => Err(TokenFault::Expired),
            true if begins.is_some_and(|begins| begins - leeway > now) => Err(TokenFault::NotYetValid),
            true => Ok(()),
        }
    }

    /// The roles in the values of the claim: the highest built-in one, and those of the settings; `None`: the
    /// values name no role.
    fn roles(&self, claims: &Value) -> Option<Vec<String>> {
        let IssuerSettings { role_claim, .. } = &self.settings;
        let words = match claim(claims, role_claim)? {
            // The name of a group may have spaces. Only `scope` separates words by them (RFC 8693, 4.2).
            Value::String(text) if role_claim != "scope" => vec![text.as_str()],
            listed => words(listed)?,
        };
        let is_given = |(_, values): &(&String, &Vec<String>)| {
            values.iter().any(|value| words.contains(&value.as_str()))
        };
        let given: Vec<&String> = self.settings.roles.iter().filter(is_given).map(|(role, _)| role).collect();
        let highest = given.iter().filter_map(|role| role.parse::<Role>().ok()).max();
        let own = given.iter().filter(|role| role.parse::<Role>().is_err()).map(|role| (*role).clone());
        let roles: Vec<String> = highest.map(|role| role.to_string()).into_iter().chain(own).collect();
        (!roles.is_empty()).then_some(roles)
    }

    /// The app that a claim names, with the permissions and commands of other claims; `None`: the claim holds
    /// no id of an app.
    fn app(&self, claims: &Value) -> Option<Grant> {
        let IssuerSettings { app_claim, permissions_claim, commands_claim, most, .. } = &self.settings;
        let app = claim(claims, app_claim)?.as_str()?.parse().ok()?;
        let listed = |name: &str| claim(claims, name).and_then(words).unwrap_or_default();
        let asked = listed(permissions_claim).into_iter().filter_map(permissions_of);
        let most = PermissionSet::of_patterns(most.iter().map(String::as_str)).unwrap_or_default();
        let permissions = asked.fold(PermissionSet::NONE, PermissionSet::with);
        let permissions = permissions.both(most).both(PermissionSet::of_apps());
        let commands: Vec<String> = listed(commands_claim).into_iter().map(str::to_owned).collect();
        let commands = Commands::only(&commands).unwrap_or_else(|_| Commands::none());
        Some(Grant::App(app, Powers { permissions, commands }))
    }
}

/// The permissions that a word means; `None`: the word says nothing to this server. Words of the older
/// contract (docs/codeq.md) mean permissions of this one; its words about claimed tasks say nothing without
/// `codeq:claim`.
fn permissions_of(word: &str) -> Option<PermissionSet> {
    use Permission::{QueuesPurge, QueuesRead, QueuesUpdate, TasksClaim, TasksRead, WorkersSubscribe};
    match word {
        "codeq:claim" => Some(PermissionSet::of([TasksClaim, TasksRead])),
        "codeq:subscribe" => Some(PermissionSet::of([WorkersSubscribe])),
        "codeq:admin" => Some(PermissionSet::of([QueuesRead, QueuesPurge, QueuesUpdate])),
        _ => PermissionSet::of_pattern(word).ok(),
    }
}

/// The value of a claim; a dot in the name leads into an object.
fn claim<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    // A claim with this literal name, including its dots, comes first: `https://example.org/roles`.
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |claims, part| claims.get(part)))
}

/// The words of a claim: a text with spaces, or a list of texts.
fn words(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(text) => Some(text.split_ascii_whitespace().collect()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
