//! The keys of the audit log: one follows from each key of the keyring, also from those that were taken
//! out of it, so that a rotation leaves every row checkable.

use std::{collections::BTreeMap, fmt};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidings_entity::id::Sha256Hash;
use zeroize::Zeroizing;

/// Writes rows with one key, checks them with any.
#[derive(Clone, Default)]
pub struct AuditKeys {
    primary: String,
    keys: BTreeMap<String, Zeroizing<[u8; 32]>>,
}

/// What holds the keys of the audit log now.
pub trait AuditKeyring: Send + Sync + 'static {
    /// What rows of the audit log are checked with.
    fn audit_keys(&self) -> AuditKeys;
}

impl AuditKeys {
    pub(super) fn new(primary: [u8; 4], keys: impl Iterator<Item = ([u8; 4], Zeroizing<[u8; 32]>)>) -> Self {
        let keys = keys.map(|(id, key)| (HEXLOWER.encode(&id), key)).collect();
        Self { primary: HEXLOWER.encode(&primary), keys }
    }

    /// A key that everybody knows.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of_a_test() -> Self {
        Self::new([1; 4], std::iter::once(([1; 4], Zeroizing::new([7; 32]))))
    }

    /// The id of the key that writes; it is that of the key that it follows from.
    #[must_use]
    pub fn primary(&self) -> &str {
        &self.primary
    }

    /// HMAC-SHA-256 of a text with the key of this id; `None`: it is not here.
    #[must_use]
    pub fn authenticate(&self, id: &str, text: &[u8]) -> Option<Sha256Hash> {
        let key = self.keys.get(id)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&**key).expect("HMAC takes keys of any length");
        mac.update(text);
        Some(Sha256Hash::new(mac.finalize().into_bytes().into()))
    }
}

/// Without the keys.
impl fmt::Debug for AuditKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.keys.keys()).finish()
    }
}
