//! The keys that seal secrets at rest, and the rows that they seal: rotating a key, sealing again, retiring a
//! key.

use async_trait::async_trait;
use serde::Serialize;

use super::StoreError;

/// The most values that one step seals again.
pub const RESEAL_STEP_MAX: u64 = 500;

/// A key of the keyring and the number of rows that it seals; never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SealingKey {
    /// Id of the key: eight hexadecimal digits.
    pub id: String,
    /// Whether the key seals new values.
    pub is_primary: bool,
    /// The number of values in the database that only this key opens.
    pub sealed: u64,
}

/// The result of one step of sealing again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resealed {
    /// Values that the primary key seals now.
    pub resealed: u64,
    /// Values that another key still seals.
    pub left: u64,
    /// The number of these values that cannot be opened: their key is missing, or they are damaged.
    pub unreadable: u64,
}

/// The operations on the keyring of a running server.
#[async_trait]
pub trait SealingKeys: Send + Sync + 'static {
    /// The keys, oldest first; a key that is used but missing from the keyring comes last.
    async fn keys(&self) -> Result<Vec<SealingKey>, StoreError>;

    /// Adds a key that seals from now on. Returns its id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where a replica did not take the key; the next call continues with the same
    /// key.
    async fn rotate_key(&self) -> Result<String, StoreError>;

    /// Seals at most `most` values again with the primary key, and at most [`RESEAL_STEP_MAX`].
    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError>;

    /// Removes a key from the keyring.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while a row needs the key; [`StoreError::NotFound`] for an unknown key.
    async fn retire_key(&self, id: &str) -> Result<(), StoreError>;
}
