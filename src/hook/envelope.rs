//! The headers of a hook: who says to have sent it, which delivery it is, and what proves it. They
//! are claims until [`Envelope::prove`] has seen the body; of a GitHub or Gitea hook even then, for
//! only its body is signed.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tidings_actors::secret::Secret;
use tidings_entity::kind::{HookProvider, ReceiptReason};

use super::proof::{self, Proof};
use crate::sinks::signature::STANDARD_HEADERS;

/// Longest delivery id that is remembered, in bytes; those of all hosts have 36.
const DELIVERY_BYTES_MAX: usize = 128;
/// Longest event name that is remembered, in bytes.
const EVENT_BYTES_MAX: usize = 64;

/// What the headers of a hook say.
pub struct Envelope {
    /// The kind of host whose route it came to.
    pub provider: HookProvider,
    /// The host's id of this delivery; `None` where it gave none that can be remembered.
    pub delivery: Option<String>,
    /// The event as the host names it; empty where it does not.
    pub event: String,
    /// Whether the body is a form with the JSON in its field `payload`.
    pub form: bool,
    proofs: Vec<Proof>,
}

impl Envelope {
    /// Reads the headers of a request to this provider's route. `None`: the body is neither JSON nor
    /// a form by its own account.
    #[must_use]
    pub fn of(provider: HookProvider, headers: &HeaderMap) -> Option<Self> {
        let (deliveries, events): (&[&str], &[&str]) = match provider {
            HookProvider::Github => (&["x-github-delivery"], &["x-github-event"]),
            // The event's UUID stays the same for all hooks of one event, the key for one of them.
            HookProvider::Gitlab => {
                (&["webhook-id", "idempotency-key", "x-gitlab-event-uuid"], &["x-gitlab-event"])
            }
            HookProvider::Gitea => (
                &["x-forgejo-delivery", "x-gitea-delivery", "x-gogs-delivery", "x-github-delivery"],
                &["x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-github-event"],
            ),
        };
        let first = |names: &[&str], most: usize| {
            let mut found = names.iter().filter_map(|name| single(headers, name));
            found.find(|text| !text.is_empty() && text.len() <= most).map(str::to_owned)
        };
        Some(Self {
            provider,
            delivery: first(deliveries, DELIVERY_BYTES_MAX),
            event: first(events, EVENT_BYTES_MAX).unwrap_or_default(),
            form: is_form(headers)?,
            proofs: proofs(provider, headers),
        })
    }

    /// Whether anything says who sent it; without, its body need not even be read.
    #[must_use]
    pub fn has_proof(&self) -> bool {
        !self.proofs.is_empty()
    }

    /// Which of `secrets` proves this body. `now` is in unix seconds. Takes as long as a signature over
    /// the body takes, times the number of secrets.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn prove(&self, secrets: &[Secret], body: &[u8], now: i64) -> Result<usize, ReceiptReason> {
        // Gitea signs the JSON whatever it is sent in; GitHub signs what it sends.
        let payload = match self.provider {
            HookProvider::Gitea => super::payload::unwrapped(self.form, body).ok(),
            HookProvider::Github | HookProvider::Gitlab => None,
        };
        let mut refusal = ReceiptReason::NoSignature;
        for proof in &self.proofs {
            match proof.holds(secrets, body, now) {
                Ok(secret) => return Ok(secret),
                Err(reason) => refusal = reason,
            }
            let inner = payload.as_deref().filter(|payload| *payload != body);
            if let Some(Ok(secret)) = inner.map(|payload| proof.holds(secrets, payload, now)) {
                return Ok(secret);
            }
        }
        Err(refusal)
    }
}

fn proofs(provider: HookProvider, headers: &HeaderMap) -> Vec<Proof> {
    let mac = |name: &str, prefix: &str| {
        let text = single(headers, name)?.strip_prefix(prefix)?;
        proof::mac(text).map(Proof::Mac)
    };
    let found = match provider {
        HookProvider::Github => vec![mac("x-hub-signature-256", "sha256=")],
        HookProvider::Gitea => vec![
            mac("x-forgejo-signature", ""),
            mac("x-gitea-signature", ""),
            mac("x-gogs-signature", ""),
            mac("x-hub-signature-256", "sha256="),
        ],
        HookProvider::Gitlab => {
            let token = single(headers, "x-gitlab-token").filter(|token| !token.is_empty());
            vec![standard(headers), token.map(|token| Proof::Token(Secret::new(token.to_owned())))]
        }
    };
    found.into_iter().flatten().collect()
}

/// The three headers of Standard Webhooks, with which GitLab signs.
fn standard(headers: &HeaderMap) -> Option<Proof> {
    let mut kept = HeaderMap::new();
    for name in STANDARD_HEADERS {
        kept.insert(HeaderName::from_static(name), HeaderValue::from_str(single(headers, name)?).ok()?);
    }
    Some(Proof::Standard(kept))
}

/// Whether the body is a form; `None` for a body that is neither form nor JSON.
fn is_form(headers: &HeaderMap) -> Option<bool> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return None;
    }
    let essence = single(headers, "content-type")?.split(';').next()?.trim();
    match essence {
        essence if essence.eq_ignore_ascii_case("application/json") => Some(false),
        essence if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Some(true),
        _ => None,
    }
}

/// A header that is there once, as text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
