//! Whether a body is genuine: GitHub and Gitea send an HMAC-SHA256 of it, GitLab the secret itself
//! or a signature after Standard Webhooks. Every comparison takes the same time wherever the texts
//! differ, and however long they are.

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tidings_actors::secret::Secret;
use tidings_entity::kind::ReceiptReason;

use crate::webhook::signature::{SignatureFault, SigningKey, check};

/// What a request offers as proof.
pub(super) enum Proof {
    /// HMAC-SHA256 of the body, with a secret as key.
    Mac([u8; 32]),
    /// A secret as it is.
    Token(Secret),
    /// The headers of Standard Webhooks.
    Standard(HeaderMap),
}

/// The 32 bytes that 64 hexadecimal digits name.
pub(super) fn mac(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

impl Proof {
    /// Whether one of the secrets proves the body. `now` is in unix seconds.
    pub(super) fn holds(&self, secrets: &[Secret], body: &[u8], now: i64) -> Result<(), ReceiptReason> {
        let holds = match self {
            Self::Mac(given) => secrets.iter().any(|secret| {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
                    .expect("HMAC takes keys of every length");
                mac.update(body);
                mac.verify_slice(given).is_ok()
            }),
            Self::Token(given) => {
                // Compared as hashes: how long a secret is must not be told either.
                let hash = |secret: &Secret| Sha256::digest(secret.expose().as_bytes());
                let given = hash(given);
                secrets.iter().any(|secret| bool::from(hash(secret).as_slice().ct_eq(given.as_slice())))
            }
            Self::Standard(headers) => return signed(headers, secrets, body, now),
        };
        if holds { Ok(()) } else { Err(ReceiptReason::WrongSignature) }
    }
}

fn signed(headers: &HeaderMap, secrets: &[Secret], body: &[u8], now: i64) -> Result<(), ReceiptReason> {
    let keys: Vec<_> = secrets.iter().flat_map(|secret| SigningKey::readings(secret.expose())).collect();
    let verdict = check(&keys, headers, body, Some(now));
    verdict.standard.unwrap_or(Err(SignatureFault::Mismatch)).map_err(|fault| match fault {
        SignatureFault::Timestamp(_) | SignatureFault::TooOld(_) | SignatureFault::TooNew(_) => {
            ReceiptReason::WrongTime
        }
        SignatureFault::Header(_) | SignatureFault::Form(_) | SignatureFault::Mismatch => {
            ReceiptReason::WrongSignature
        }
    })
}
