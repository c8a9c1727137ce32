//! A keyring sealed with a passphrase: the form in which it leaves the data directory.
//!
//! The file is JSON: the parameters for deriving the key from the passphrase (Argon2id, RFC 9106), a salt, a
//! nonce, and the keyring file sealed with AES-256-GCM. All other fields are authenticated together with the
//! ciphertext. An attacker with the file can try passphrases, at a cost of 64 MiB and some tenths of a second
//! each; therefore passphrases have a least length.

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidings_actors::{model::secret::Secret, ports::Random};
use zeroize::Zeroizing;

use super::Keyring;

/// Shortest passphrase, in characters.
pub const PASSPHRASE_MIN: usize = 12;
const FORMAT: &str = "tidings keyring export";
const VERSION: u32 = 1;
const KDF: &str = "argon2id";
/// The recommendation of RFC 9106 for little memory: 64 MiB, three passes.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// A file that asks for more memory than this is refused.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// Why an export cannot be created or read. Texts never contain passphrase or key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExportError {
    /// The passphrase is too short.
    #[error("the passphrase is shorter than {PASSPHRASE_MIN} characters")]
    Weak,
    /// The text is no exported keyring, or has an unknown version.
    #[error("this is no exported keyring: {0}")]
    Unreadable(&'static str),
    /// The passphrase is wrong, or the file is damaged.
    #[error("the exported keyring does not open: the passphrase is wrong, or the file was changed")]
    DoesNotOpen,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

impl File {
    /// The bytes that are authenticated: everything that decides how the rest is read.
    fn head(&self) -> Vec<u8> {
        let Self { format, version, kdf, memory_kib, passes, lanes, salt, .. } = self;
        format!("{format}\n{version}\n{kdf}\n{memory_kib}\n{passes}\n{lanes}\n{salt}").into_bytes()
    }

    fn cipher(&self, passphrase: &Secret) -> Result<Aes256Gcm, ExportError> {
        let bounds =
            self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX;
        if !bounds {
            return Err(ExportError::Unreadable("it asks for more memory or time than any honest one"));
        }
        let unusable = |_| ExportError::Unreadable("its parameters are not usable");
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(unusable)?;
        let salt = BASE64.decode(&self.salt).map_err(|_| ExportError::Unreadable("its salt is no base64"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut *key)
            .map_err(unusable)?;
        Ok(Aes256Gcm::new_from_slice(&*key).expect("a key has 32 bytes"))
    }
}

/// Refuses a passphrase that is too short.
///
/// # Errors
/// [`ExportError::Weak`].
pub fn check(passphrase: &Secret) -> Result<(), ExportError> {
    let is_long = passphrase.expose().chars().count() >= PASSPHRASE_MIN;
    if is_long { Ok(()) } else { Err(ExportError::Weak) }
}

/// The keyring as a file that opens with `passphrase` only.
///
/// # Errors
/// [`ExportError::Weak`].
pub fn export(keyring: &Keyring, passphrase: &Secret, random: &dyn Random) -> Result<String, ExportError> {
    check(passphrase)?;
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    random.fill(&mut salt);
    random.fill(&mut nonce);
    let mut file = File {
        format: FORMAT.to_owned(),
        version: VERSION,
        kdf: KDF.to_owned(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: BASE64.encode(salt),
        nonce: BASE64.encode(nonce),
        sealed: String::new(),
    };
    let text = keyring.text().expect("keys are plain data");
    let payload = Payload { msg: &text, aad: &file.head() };
    let sealed = file.cipher(passphrase)?.encrypt(&Nonce::from(nonce), payload);
    file.sealed = BASE64.encode(sealed.expect("a keyring is far below 64 GiB"));
    Ok(serde_json::to_string_pretty(&file).expect("texts and numbers") + "\n")
}

/// Whether a text looks like an export rather than like a keyring file.
#[must_use]
pub fn is_exported(text: &[u8]) -> bool {
    serde_json::from_slice::<File>(text).is_ok_and(|file| file.format == FORMAT)
}

/// Reads an export of [`export`].
///
/// # Errors
/// [`ExportError::Unreadable`]; [`ExportError::DoesNotOpen`] for a wrong passphrase.
pub fn import(text: &[u8], passphrase: &Secret) -> Result<Keyring, ExportError> {
    let file: File =
        serde_json::from_slice(text).map_err(|_| ExportError::Unreadable("it does not look like one"))?;
    if file.format != FORMAT || file.version != VERSION || file.kdf != KDF {
        return Err(ExportError::Unreadable("it has a form that this version does not know"));
    }
    let nonce = BASE64.decode(&file.nonce).ok().and_then(|nonce| <[u8; 12]>::try_from(nonce).ok());
    let nonce = nonce.ok_or(ExportError::Unreadable("its nonce has not 12 bytes"))?;
    let sealed =
        BASE64.decode(&file.sealed).map_err(|_| ExportError::Unreadable("what it seals is no base64"))?;
    let payload = Payload { msg: &sealed, aad: &file.head() };
    let text = file.cipher(passphrase)?.decrypt(&Nonce::from(nonce), payload);
    let text = text.map(Zeroizing::new).map_err(|_| ExportError::DoesNotOpen)?;
    Keyring::parse(&text).map_err(ExportError::Unreadable)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tidings_actors::testing::SeededRandom;

    use super::*;

    fn exported() -> (Keyring, Secret, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let random = SeededRandom::new(7);
        let path = folder.path().join("keyring");
        let keyring = Keyring::create(&path, &random).expect("made");
        keyring.rotate(&random).expect("rotated");
        let passphrase = Secret::new("correct horse battery".into());
        let text = export(&keyring, &passphrase, &random).expect("exported");
        (keyring, passphrase, text)
    }

    #[test]
    fn what_was_exported_opens_with_its_passphrase_only_and_shows_no_key() {
        let (keyring, passphrase, text) = exported();
        let again = import(text.as_bytes(), &passphrase).expect("imported");
        assert_eq!(again.status(), keyring.status());
        assert_eq!(*again.text().expect("text"), *keyring.text().expect("text"));
        let wrong = Secret::new("correct horse batterz".into());
        assert_eq!(import(text.as_bytes(), &wrong).err(), Some(ExportError::DoesNotOpen));
        let plain: Value = serde_json::from_slice(&keyring.text().expect("text")).expect("JSON");
        for key in plain["keys"].as_array().expect("keys") {
            assert!(!text.contains(key["key"].as_str().expect("a key")));
        }
        assert!(is_exported(text.as_bytes()) && !is_exported(&keyring.text().expect("text")));
    }

    #[test]
    fn what_was_changed_is_refused_and_costs_little() {
        let (_, passphrase, text) = exported();
        let file: Value = serde_json::from_str(&text).expect("JSON");
        for (field, value) in [
            ("salt", "AAAAAAAAAAAAAAAAAAAAAA==".into()),
            ("nonce", "AAAAAAAAAAAAAAAA".into()),
            ("nonce", "AAAA".into()),
            ("sealed", "AAAA".into()),
            ("passes", 2.into()),
            ("memory_kib", 4_000_000_000_u32.into()),
            ("passes", 1_000_000.into()),
            ("lanes", 0.into()),
            ("version", 2.into()),
            ("kdf", "md5".into()),
            ("format", "something".into()),
        ] {
            let mut changed = file.clone();
            changed[field] = value;
            assert!(import(changed.to_string().as_bytes(), &passphrase).is_err(), "{field}");
        }
        assert!(import(b"", &passphrase).is_err());
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        let (keyring, ..) = exported();
        let random = SeededRandom::new(8);
        assert_eq!(
            export(&keyring, &Secret::new("elevenchars".into()), &random).err(),
            Some(ExportError::Weak)
        );
    }
}
