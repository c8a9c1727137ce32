//! Public keys of issuers as PEM. Other content is refused with the reason: a private key in the settings of
//! a server that only checks signatures is a mistake.

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::{
    alg_id,
    pem::{PemObject, SectionKind},
};

/// Most keys of one text.
const KEYS_MAX: usize = 100;
/// Bytes of an uncompressed point of P-256.
const P256_BYTES: usize = 65;
/// Bytes of an uncompressed point of P-384.
const P384_BYTES: usize = 97;
/// Bytes of a key of Ed25519.
const ED25519_BYTES: usize = 32;
/// DER: a list of values.
const SEQUENCE: u8 = 0x30;
/// DER: bits, after a byte that says how many of the last byte are unused.
const BIT_STRING: u8 = 0x03;

/// A key, and the algorithms that it checks.
pub(crate) type PublicKey = (&'static [Algorithm], DecodingKey);

/// Parses the keys of a text.
///
/// # Errors
/// The fault of the text, as a sentence without a subject.
pub(crate) fn keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let blocks = text.matches("-----BEGIN ").count();
    if blocks == 0 {
        return Err("holds no PEM: it begins with -----BEGIN PUBLIC KEY-----".to_owned());
    }
    if blocks > KEYS_MAX {
        return Err(format!("holds more than {KEYS_MAX} keys"));
    }
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section.map_err(|_| "holds a block that is no PEM".to_owned())? {
            (SectionKind::PublicKey, der) => keys.push(key(&der)?),
            (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                let message = "holds a private key: give the public one, and treat that key as leaked";
                return Err(message.to_owned());
            }
            _ => return Err("holds something other than -----BEGIN PUBLIC KEY-----".to_owned()),
        }
    }
    // The reader skips blocks with an unknown label.
    if keys.len() == blocks {
        Ok(keys)
    } else {
        Err("holds something other than -----BEGIN PUBLIC KEY-----".to_owned())
    }
}

/// The key of a `SubjectPublicKeyInfo` (RFC 5280, 4.1).
fn key(der: &[u8]) -> Result<PublicKey, String> {
    let unknown = || "holds a key that is not RSA, P-256, P-384 or Ed25519".to_owned();
    let (algorithm, key) = parts(der).ok_or_else(unknown)?;
    let is = |known: &[u8], length: usize| algorithm == known && key.len() == length;
    if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
        let algorithms = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
        return Ok((algorithms, DecodingKey::from_rsa_der(key)));
    }
    if is(alg_id::ECDSA_P256.as_ref(), P256_BYTES) {
        return Ok((&[Algorithm::ES256], DecodingKey::from_ec_der(key)));
    }
    if is(alg_id::ECDSA_P384.as_ref(), P384_BYTES) {
        return Ok((&[Algorithm::ES384], DecodingKey::from_ec_der(key)));
    }
    if is(alg_id::ED25519.as_ref(), ED25519_BYTES) {
        return Ok((&[Algorithm::EdDSA], DecodingKey::from_ed_der(key)));
    }
    Err(unknown())
}

/// The algorithm identifier of a key, and its bytes.
fn parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, []) = value(der, SEQUENCE)? else { return None };
    let (algorithm, rest) = value(info, SEQUENCE)?;
    let (bits, []) = value(rest, BIT_STRING)? else { return None };
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm, key))
}

/// The content of the first DER value, which must have this tag, and the bytes after it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match head[1] {
        short @ ..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (head[0] == tag).then(|| rest.split_at_checked(length)).flatten()
}
