//! The keys that seal secrets at rest, over the rows that they seal: rotating, sealing anew, retiring.

use async_trait::async_trait;
use serde::Serialize;

use super::StoreError;

/// Most values that one step seals anew.
pub const RESEAL_STEP_MAX: u64 = 500;

/// A key of the keyring and what it seals; never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SealingKey {
    /// Eight hexadecimal digits.
    pub id: String,
    /// Whether it seals what is written now.
    pub is_primary: bool,
    /// Values in the database that only this key opens.
    pub sealed: u64,
}

/// What one step of sealing anew did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resealed {
    /// Values that the primary key seals now.
    pub resealed: u64,
    /// Values that another key still seals.
    pub left: u64,
    /// Of these, values that do not open: their key is missing, or they are damaged.
    pub unreadable: u64,
}

/// What may be done with the keyring of a running server.
#[async_trait]
pub trait SealingKeys: Send + Sync + 'static {
    /// The keys, oldest first; a key that the keyring lacks comes last.
    async fn keys(&self) -> Result<Vec<SealingKey>, StoreError>;

    /// Adds a key, which seals from now on; its id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where a replica did not take the key; the next call goes on with the same
    /// key.
    async fn rotate_key(&self) -> Result<String, StoreError>;

    /// Seals at most `most` values anew with the primary key, and at most [`RESEAL_STEP_MAX`].
    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError>;

    /// Takes a key out of the keyring.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while anything needs the key; [`StoreError::NotFound`] where there is none.
    async fn retire_key(&self, id: &str) -> Result<(), StoreError>;
}
