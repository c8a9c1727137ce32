//! The headers of a hook: its provider, delivery id, event and proof. They are unproved until
//! [`Envelope::prove`] has checked the body. For GitHub and Gitea they stay unproved even then, because only
//! the body is signed.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tidings_actors::model::secret::Secret;
use tidings_entity::kind::{HookProvider, ReceiptReason};

use super::proof::{self, Proof};
use crate::sinks::signature::STANDARD_HEADERS;

/// The longest delivery id that is stored, in bytes; the ids of all hosts have 36.
const DELIVERY_BYTES_MAX: usize = 128;
/// Longest event name that is remembered, in bytes.
const EVENT_BYTES_MAX: usize = 64;

/// The facts in the headers of a hook.
pub struct Envelope {
    /// The provider whose route the request came to.
    pub provider: HookProvider,
    /// The host's id of this delivery; `None` if there is none that can be stored.
    pub delivery: Option<String>,
    /// The event as the host names it; empty if the host does not name it.
    pub event: String,
    /// Whether the body is a form with the JSON in its field `payload`.
    pub form: bool,
    proofs: Vec<Proof>,
}

impl Envelope {
    /// Reads the headers of a request to this provider's route. `None`: by its content type the body is
    /// neither JSON nor a form.
    #[must_use]
    pub fn of(provider: HookProvider, headers: &HeaderMap) -> Option<Self> {
        let (deliveries, events): (&[&str], &[&str]) = match provider {
            HookProvider::Github => (&["x-github-delivery"], &["x-github-event"]),
            // The event's UUID is the same for all hooks of one event; the key is unique per hook.
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

    /// Whether the request has a proof of its sender; without one its body need not be read.
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
        // Gitea always signs the JSON, even inside a form; GitHub signs the body as sent.
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
    form_of(single(headers, "content-type")?)
}

/// Whether a body with this `Content-Type` is a form; `None` for a type that is neither form nor JSON.
pub(super) fn form_of(content_type: &str) -> Option<bool> {
    match content_type.split(';').next()?.trim() {
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
