//! The two signatures that every request carries, and how a receiver checks them.
//!
//! Docora: `X-Docora-Signature: sha256=<hex>`, HMAC-SHA256 over `"{timestamp}." + body`. Standard Webhooks:
//! `webhook-signature: v1,<base64>` over `"{id}.{timestamp}." + body`, one for each key, separated by spaces.
//! Timestamps are unix seconds; both sides admit [`TOLERANCE`]. Comparisons take the same time regardless of
//! where the texts differ.

use base64::{Engine, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// How far a timestamp may lie from the receiver's clock, either way, in seconds.
pub const TOLERANCE: u64 = 300;

/// The prefix of a Standard Webhooks secret; base64 follows.
const SECRET_PREFIX: &str = "whsec_";
/// Prefix of the base64 of a Standard Webhooks signature.
const STANDARD_PREFIX: &str = "v1,";
/// Prefix of the digits of a Docora signature.
const DOCORA_PREFIX: &str = "sha256=";

/// Header names of the Standard Webhooks scheme.
pub const STANDARD_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
/// Header names of the codeQ scheme, in messages of codeQ's form.
pub const CODEQ_HEADERS: [&str; 2] = ["x-codeq-timestamp", "x-codeq-signature"];
/// Header names of the Docora scheme.
pub const DOCORA_HEADERS: [&str; 2] = ["x-docora-timestamp", "x-docora-signature"];

/// A key as bytes, wiped when dropped.
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// The key that signs: the UTF-8 bytes of the text, of any form.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(Zeroizing::new(text.as_bytes().to_vec()))
    }

    /// The keys that a pasted `text` may mean: a `whsec_` secret means the bytes that its base64 encodes, but
    /// could also be a plain key of that form.
    #[must_use]
    pub fn readings(text: &str) -> Vec<Self> {
        let mut keys = Vec::new();
        let encoded = text.strip_prefix(SECRET_PREFIX);
        if let Some(bytes) = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok()) {
            keys.push(Self(Zeroizing::new(bytes)));
        }
        keys.push(Self::of_text(text));
        keys.retain(|key| !key.0.is_empty());
        keys
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The key as a Standard Webhooks secret.
    #[must_use]
    pub fn standard_secret(&self) -> String {
        format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(&*self.0))
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The value of `X-Docora-Signature`. The timestamp is in unix seconds.
#[must_use]
pub fn docora(key: &SigningKey, timestamp: i64, body: &[u8]) -> String {
    let mut value = String::with_capacity(DOCORA_PREFIX.len() + 64);
    value.push_str(DOCORA_PREFIX);
    HEXLOWER.encode_append(&key.sign(&[timestamp.to_string().as_bytes(), b".", body]), &mut value);
    value
}

/// The value of `X-CodeQ-Signature`: that of `X-Docora-Signature` without its prefix.
#[must_use]
pub fn codeq(docora: &str) -> &str {
    docora.strip_prefix(DOCORA_PREFIX).unwrap_or(docora)
}

/// The value of `webhook-signature`: one signature for each key, in their order. The timestamp is in
/// unix seconds.
#[must_use]
pub fn standard(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let mut value = String::with_capacity(keys.len() * 48);
    for key in keys {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(STANDARD_PREFIX);
        let mac = key.sign(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
        BASE64_STANDARD.encode_string(mac, &mut value);
    }
    value
}

/// Why a signature is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignatureFault {
    /// A header that the scheme needs is missing, repeated or not text.
    #[error("the header {0} is missing, repeated or not text")]
    Header(&'static str),
    /// The timestamp is not a whole number of unix seconds.
    #[error("the timestamp {0:?} is not a whole number of unix seconds")]
    Timestamp(String),
    /// The timestamp is too far in the past.
    #[error("the timestamp is {0} s old; at most {TOLERANCE} s are admitted")]
    TooOld(u64),
    /// The timestamp is too far in the future.
    #[error("the timestamp lies {0} s in the future; at most {TOLERANCE} s are admitted")]
    TooNew(u64),
    /// The header has no signature of a version that this program supports.
    #[error("the header {0} holds no signature of a known form")]
    Form(&'static str),
    /// No key makes this signature over these bytes.
    #[error("the signature does not match: another secret, or the body was changed on its way")]
    Mismatch,
}

/// The result of checking a request, per scheme; `None`: the request has no header of the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The result for the signature of Standard Webhooks.
    pub standard: Option<Result<(), SignatureFault>>,
    /// The result for the signature of Docora.
    pub docora: Option<Result<(), SignatureFault>>,
}

impl Verdict {
    /// Whether at least one scheme is present and no present scheme fails.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let present: Vec<_> = self.standard.iter().chain(&self.docora).collect();
        !present.is_empty() && present.iter().all(|result| result.is_ok())
    }
}

/// Checks a request under every scheme with a header in it. `now` is in unix seconds; `None` skips the check
/// of the age.
#[must_use]
pub fn check(keys: &[SigningKey], headers: &HeaderMap, body: &[u8], now: Option<i64>) -> Verdict {
    let has = |names: &[&str]| names.iter().any(|name| headers.contains_key(*name));
    Verdict {
        standard: has(&STANDARD_HEADERS).then(|| check_standard(keys, headers, body, now)),
        docora: has(&DOCORA_HEADERS).then(|| check_docora(keys, headers, body, now)),
    }
}

/// Checks a request before its body is read: at least one scheme must have all its headers and a timestamp
/// within the tolerance.
///
/// # Errors
/// The first fault of the present scheme, or of Standard Webhooks if no scheme is present.
pub fn check_freshness(headers: &HeaderMap, now: i64) -> Result<(), SignatureFault> {
    let standard = || {
        for name in STANDARD_HEADERS {
            text(headers, name)?;
        }
        timestamp(headers, STANDARD_HEADERS[1], Some(now)).map(drop)
    };
    let docora = || {
        text(headers, DOCORA_HEADERS[1])?;
        timestamp(headers, DOCORA_HEADERS[0], Some(now)).map(drop)
    };
    standard().or_else(|fault| docora().map_err(|_| fault))
}

fn check_standard(
    keys: &[SigningKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Option<i64>,
) -> Result<(), SignatureFault> {
    let [id, at, signatures] = STANDARD_HEADERS;
    let id = text(headers, id)?;
    let at = timestamp(headers, at, now)?;
    let given: Vec<Vec<u8>> = text(headers, signatures)?
        .split(' ')
        .filter_map(|signature| signature.strip_prefix(STANDARD_PREFIX))
        .filter_map(|encoded| BASE64_STANDARD.decode(encoded).ok())
        .collect();
    if given.iter().all(Vec::is_empty) {
        return Err(SignatureFault::Form(signatures));
    }
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", at.as_bytes(), b".", body];
    matches(keys, &given, &parts)
}

fn check_docora(
    keys: &[SigningKey],
    headers: &HeaderMap,
    body: &[u8],
    now: Option<i64>,
) -> Result<(), SignatureFault> {
    let [at, signature] = DOCORA_HEADERS;
    let at = timestamp(headers, at, now)?;
    let given = text(headers, signature)?
        .strip_prefix(DOCORA_PREFIX)
        .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
        .ok_or(SignatureFault::Form(signature))?;
    matches(keys, &[given], &[at.as_bytes(), b".", body])
}

fn matches(keys: &[SigningKey], given: &[Vec<u8>], parts: &[&[u8]]) -> Result<(), SignatureFault> {
    for key in keys.iter().filter(|key| !key.0.is_empty()) {
        let expected = key.sign(parts);
        if given.iter().any(|given| bool::from(given.as_slice().ct_eq(&expected))) {
            return Ok(());
        }
    }
    Err(SignatureFault::Mismatch)
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SignatureFault> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(text)), None) if !text.is_empty() => Ok(text),
        _ => Err(SignatureFault::Header(name)),
    }
}

/// The timestamp as it was signed, word for word.
fn timestamp<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
    now: Option<i64>,
) -> Result<&'a str, SignatureFault> {
    let given = text(headers, name)?;
    let at: i64 = given.parse().map_err(|_| SignatureFault::Timestamp(given.to_owned()))?;
    let Some(now) = now else { return Ok(given) };
    match now.abs_diff(at) {
        distance if distance <= TOLERANCE => Ok(given),
        distance if at < now => Err(SignatureFault::TooOld(distance)),
        distance => Err(SignatureFault::TooNew(distance)),
    }
}

#[cfg(test)]
mod tests;
