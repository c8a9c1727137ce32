//! The envelope around one secret: AES-256-GCM under a subkey, bound to the place of the row and column.

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use tidings_actors::{model::secret::Secret, ports::Random};
use zeroize::Zeroizing;

use super::SecretsError;

const VERSION: u8 = 1;
const NONCE: std::ops::Range<usize> = 5..17;
/// Version, key id, nonce and the 16 bytes of the tag.
const OVERHEAD: usize = 1 + 4 + 12 + 16;

/// The place of a sealed value: a value that is moved to another place cannot be opened.
#[derive(Clone, Copy, Debug)]
pub struct SealedField<'a> {
    /// The table that the value is stored in.
    pub table: &'static str,
    /// The column that the value is stored in.
    pub column: &'static str,
    /// The primary key of the row, its parts joined by `/`.
    pub row: &'a str,
}

impl SealedField<'_> {
    /// The bytes that are authenticated with the ciphertext; each part carries its length, so that
    /// no two places give the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for part in [self.table, self.column, self.row] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

/// Seals `secret` for `place`.
pub(super) fn seal(
    key_id: [u8; 4],
    subkey: &[u8; 32],
    place: &SealedField<'_>,
    secret: &Secret,
    random: &dyn Random,
) -> Vec<u8> {
    let mut nonce = [0; 12];
    random.fill(&mut nonce);
    let payload = Payload { msg: secret.expose().as_bytes(), aad: &place.bytes() };
    let ciphertext =
        cipher(subkey).encrypt(&Nonce::from(nonce), payload).expect("a secret is far below 64 GiB");
    let mut sealed = Vec::with_capacity(OVERHEAD + secret.expose().len());
    sealed.push(VERSION);
    sealed.extend(key_id);
    sealed.extend(nonce);
    sealed.extend(ciphertext);
    sealed
}

/// The id of the key that `sealed` was sealed with.
pub(super) fn key_id(sealed: &[u8]) -> Result<[u8; 4], SecretsError> {
    if sealed.len() < OVERHEAD || sealed[0] != VERSION {
        return Err(SecretsError::DoesNotOpen);
    }
    sealed[1..5].try_into().map_err(|_| SecretsError::DoesNotOpen)
}

/// Opens an envelope of [`seal`] for the same place with the same subkey.
pub(super) fn open(
    subkey: &[u8; 32],
    place: &SealedField<'_>,
    sealed: &[u8],
) -> Result<Secret, SecretsError> {
    let nonce: [u8; 12] =
        sealed.get(NONCE).and_then(|nonce| nonce.try_into().ok()).ok_or(SecretsError::DoesNotOpen)?;
    let payload = Payload { msg: &sealed[NONCE.end..], aad: &place.bytes() };
    let plain = cipher(subkey)
        .decrypt(&Nonce::from(nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| SecretsError::DoesNotOpen)?;
    let text = std::str::from_utf8(&plain).map_err(|_| SecretsError::DoesNotOpen)?;
    Ok(Secret::new(text.to_owned()))
}

fn cipher(subkey: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(subkey).expect("a subkey has 32 bytes")
}
