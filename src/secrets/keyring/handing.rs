//! Keys that replicas hand on to each other: one replica creates a key, all replicas take it, and only then
//! it seals.

use std::sync::atomic::Ordering;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;
use tidings_actors::{model::secret::Secret, ports::Random};

use super::{FileKey, Keyring, Ring, SealingKey};
use crate::SecretsError;

/// A key that one replica hands on to the keyrings of others.
pub struct HandedKey {
    /// Id of the key: eight hexadecimal digits.
    pub id: String,
    /// The key itself, as keyring files hold it.
    pub key: Secret,
}

impl HandedKey {
    /// Creates a new key, which no keyring has yet.
    pub fn generate(random: &dyn Random) -> Self {
        let SealingKey { id, bytes } = SealingKey::generate(random);
        Self { id: HEXLOWER.encode(&id), key: Secret::new(BASE64.encode(bytes.as_slice())) }
    }

    fn parse(&self) -> Result<SealingKey, SecretsError> {
        let stored = FileKey { id: self.id.clone(), key: self.key.expose().to_owned() };
        SealingKey::parse(&stored).map_err(SecretsError::Handed)
    }
}

impl Keyring {
    /// A copy in memory that also opens with these keys.
    ///
    /// # Errors
    /// [`SecretsError::Handed`] for a malformed key.
    pub fn with(&self, keys: &[HandedKey]) -> Result<Self, SecretsError> {
        self.ring().with(keys).map(Self::of)
    }

    /// Adds these keys, which open from then on, and seals with `primary` if it is given; the file is written
    /// first. Keys that are already present stay as they are.
    ///
    /// # Errors
    /// [`SecretsError::Handed`], [`SecretsError::UnknownKey`], [`SecretsError::File`]; then the file and the
    /// keys in use are unchanged.
    pub fn follow(&self, keys: &[HandedKey], primary: Option<&str>) -> Result<(), SecretsError> {
        self.change(|ring| {
            let mut next = ring.with(keys)?;
            if let Some(id) = primary {
                next.primary = next.place(id).ok_or_else(|| SecretsError::UnknownKey(id.to_owned()))?;
            }
            Ok(next)
        })
    }

    /// Whether it has this key.
    pub fn has(&self, id: &str) -> bool {
        self.ring().place(id).is_some()
    }

    /// How often something was sealed with it since it was opened.
    pub fn sealings(&self) -> u64 {
        self.sealings.load(Ordering::SeqCst)
    }
}

impl Ring {
    fn with(&self, handed: &[HandedKey]) -> Result<Self, SecretsError> {
        let mut keys = self.keys.clone();
        for handed in handed {
            if self.place(&handed.id).is_none() {
                keys.push(handed.parse()?);
            }
        }
        Ok(Self { keys, primary: self.primary, retired: self.retired.clone() })
    }
}
