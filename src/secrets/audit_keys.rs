//! The keys of the audit log: one is derived from each key of the keyring, also from retired keys, so that
//! every row can be checked after a rotation.

use std::{collections::BTreeMap, fmt};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidings_entity::id::Sha256Hash;
use zeroize::Zeroizing;

/// Writes rows with the primary key, and checks rows with any key.
#[derive(Clone, Default)]
pub struct AuditKeys {
    primary: String,
    keys: BTreeMap<String, Zeroizing<[u8; 32]>>,
}

/// The holder of the present keys of the audit log.
pub trait AuditKeyring: Send + Sync + 'static {
    /// The keys that check rows of the audit log.
    fn audit_keys(&self) -> AuditKeys;
}

impl AuditKeys {
    pub(super) fn new(primary: [u8; 4], keys: impl Iterator<Item = ([u8; 4], Zeroizing<[u8; 32]>)>) -> Self {
        let keys = keys.map(|(id, key)| (HEXLOWER.encode(&id), key)).collect();
        Self { primary: HEXLOWER.encode(&primary), keys }
    }

    /// A fixed key for tests, which is not secret.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of_a_test() -> Self {
        Self::new([1; 4], std::iter::once(([1; 4], Zeroizing::new([7; 32]))))
    }

    /// The id of the key that writes, which is the id of the keyring's key that it is derived from.
    #[must_use]
    pub fn primary(&self) -> &str {
        &self.primary
    }

    /// HMAC-SHA-256 of a text with the key of this id; `None`: the key is unknown.
    #[must_use]
    pub fn authenticate(&self, id: &str, text: &[u8]) -> Option<Sha256Hash> {
        let key = self.keys.get(id)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&**key).expect("HMAC takes keys of any length");
        mac.update(text);
        Some(Sha256Hash::new(mac.finalize().into_bytes().into()))
    }
}

/// Prints the ids of the keys only.
impl fmt::Debug for AuditKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.keys.keys()).finish()
    }
}
