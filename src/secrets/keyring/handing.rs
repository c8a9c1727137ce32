//! Keys that replicas hand on to each other: made by one, taken by all, and only then sealed with.

use std::sync::atomic::Ordering;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;
use tidings_actors::{ports::Random, secret::Secret};

use super::{FileKey, Key, Keyring, Ring};
use crate::SecretsError;

/// A key on its way into a keyring.
pub struct HandedKey {
    /// Its id.
    pub id: String,
    /// The key itself, as keyring files hold it.
    pub key: Secret,
}

impl HandedKey {
    /// A new one, which no keyring has.
    pub fn generate(random: &dyn Random) -> Self {
        let Key { id, bytes } = Key::generate(random);
        Self { id: HEXLOWER.encode(&id), key: Secret::new(BASE64.encode(bytes.as_slice())) }
    }

    fn parse(&self) -> Result<Key, SecretsError> {
        let stored = FileKey { id: self.id.clone(), key: self.key.expose().to_owned() };
        Key::parse(&stored).map_err(SecretsError::Handed)
    }
}

impl Keyring {
    /// A copy in memory that opens with these keys as well.
    ///
    /// # Errors
    /// [`SecretsError::Handed`].
    pub fn with(&self, keys: &[HandedKey]) -> Result<Self, SecretsError> {
        self.ring().with(keys).map(Self::of)
    }

    /// Takes these keys in, which open from then on, and seals with `primary` where that is given; the file
    /// first. What it has or does already stays as it is.
    ///
    /// # Errors
    /// [`SecretsError::Handed`], [`SecretsError::UnknownKey`], [`SecretsError::File`]; the old file stands
    /// then, and so does what is in force.
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
