//! Secrets at rest and the tokens of apps.
//!
//! - [`Keyring`]: the keys in `data_dir/keyring`, one of them primary, and their operations: sealing with
//!   AES-256-GCM and fingerprints with HMAC-SHA256. Each purpose has its own subkey.
//! - [`AuditKeys`]: the keys of the audit log, derived from the keyring's present and retired keys.
//! - [`export`]: a keyring sealed with a passphrase, the only form in which it leaves the data directory
//!   unless the operator asks for the plain keys.
//! - [`Token`]: the token with which an app authenticates. Only its SHA-256 is stored.
//! - [`generate_signing_key`], [`shown_signing_secret`]: the keys that sign deliveries.
//!
//! An envelope is `version (1) | key id (4) | nonce (12) | ciphertext and tag`. Table, column and row id are
//! authenticated with it, so that a ciphertext opens in its own place only.

mod audit_keys;
mod envelope;
pub mod export;
mod keyring;
pub mod private_file;
mod signing;
mod token;

pub use audit_keys::{AuditKeyring, AuditKeys};
pub use envelope::SealedField;
pub use keyring::HandedKey;
pub use keyring::{Keyring, KeyringStatus};
pub use signing::{KEY_CHARACTERS, generate_signing_key, shown_signing_secret};
pub use token::{InvalidToken, TOKEN_PREFIX, Token};

use std::path::PathBuf;

use thiserror::Error;

/// Why a keyring or a sealed secret cannot be used. Texts never hold key or secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The file cannot be read or written.
    #[error("the keyring {path} cannot be used: {source}")]
    File {
        /// The path of the keyring file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// A keyring may be readable by its owner only.
    #[error("the keyring {path} has mode {mode:o}, but only its owner may read it (600)")]
    Permissions {
        /// The path of the keyring file.
        path: PathBuf,
        /// The mode that the file has.
        mode: u32,
    },
    /// The file is no keyring, or a key in it is too weak.
    #[error("the keyring {path} is not usable: {reason}")]
    Invalid {
        /// The path of the keyring file.
        path: PathBuf,
        /// The fault of the keyring, in words.
        reason: &'static str,
    },
    /// A key that another replica handed on is malformed, or too weak.
    #[error("a key that another replica handed on is not usable: {0}")]
    Handed(&'static str),
    /// The envelope names a key that this keyring does not have.
    #[error("sealed with the key {0}, which is not in the keyring")]
    UnknownKey(String),
    /// The keyring was read from elsewhere, so there is no file to change.
    #[error("this keyring has no file of its own")]
    NoFile,
    /// The key is the primary key: another key must become primary first.
    #[error("the primary key cannot be retired: rotate first")]
    PrimaryKey,
    /// The envelope is damaged, or was sealed for another place or with another key.
    #[error("the sealed value does not open")]
    DoesNotOpen,
}

#[cfg(test)]
mod tests;
