//! Whether a body is genuine: GitHub and Gitea send an HMAC-SHA256 of it, GitLab the secret itself or a
//! signature after Standard Webhooks. Every comparison takes the same time, regardless of where the texts
//! differ and of their lengths.

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tidings_actors::model::secret::Secret;
use tidings_entity::kind::ReceiptReason;

use crate::sinks::signature::{SignatureFault, SigningKey, check};

/// The proof in a request.
pub(super) enum Proof {
    /// HMAC-SHA256 of the body, with a secret as key.
    Mac([u8; 32]),
    /// The secret itself, as GitLab sends it.
    Token(Secret),
    /// The headers of Standard Webhooks.
    Standard(HeaderMap),
}

/// The 32 bytes that 64 hexadecimal digits name.
pub(super) fn mac(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

impl Proof {
    /// The index of the secret that proves the body. `now` is in Unix seconds.
    pub(super) fn holds(&self, secrets: &[Secret], body: &[u8], now: i64) -> Result<usize, ReceiptReason> {
        let found = match self {
            Self::Mac(given) => secrets.iter().position(|secret| {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
                    .expect("HMAC takes keys of every length");
                mac.update(body);
                mac.verify_slice(given).is_ok()
            }),
            Self::Token(given) => {
                // Hashes are compared, so that the time does not reveal the length of the secret.
                let hash = |secret: &Secret| Sha256::digest(secret.expose().as_bytes());
                let given = hash(given);
                secrets.iter().position(|secret| hash(secret).as_slice().ct_eq(given.as_slice()).into())
            }
            Self::Standard(headers) => return signed(headers, secrets, body, now),
        };
        found.ok_or(ReceiptReason::WrongSignature)
    }
}

fn signed(headers: &HeaderMap, secrets: &[Secret], body: &[u8], now: i64) -> Result<usize, ReceiptReason> {
    let mut refusal = ReceiptReason::WrongSignature;
    for (number, secret) in secrets.iter().enumerate() {
        let verdict = check(&SigningKey::readings(secret.expose()), headers, body, Some(now));
        refusal = match verdict.standard.unwrap_or(Err(SignatureFault::Mismatch)) {
            Ok(()) => return Ok(number),
            Err(SignatureFault::Timestamp(_) | SignatureFault::TooOld(_) | SignatureFault::TooNew(_)) => {
                ReceiptReason::WrongTime
            }
            Err(SignatureFault::Header(_) | SignatureFault::Form(_) | SignatureFault::Mismatch) => {
                ReceiptReason::WrongSignature
            }
        };
    }
    Err(refusal)
}
