//! [`Objects`]: large values by id, outside of the database. An object is written once, as a whole, and never
//! changed; a reader sees all of it or nothing.

use std::{ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use thiserror::Error;
use tidings_entity::id::ArtifactId;

use crate::time::Timestamp;

/// How long an object without a row is kept. The row is written after the object, so an upload must end
/// within this time ([`UPLOAD_MAX`]).
pub const ORPHAN_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// The longest time from the first byte of an object to its row.
pub const UPLOAD_MAX: Duration = Duration::from_secs(12 * 3_600);

const _: () = assert!(UPLOAD_MAX.as_secs() < ORPHAN_KEPT.as_secs(), "an upload is no orphan");

/// Why a call of the object store failed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ObjectError {
    /// There is no such object, or it is shorter than it should be.
    #[error("the object is not there")]
    Missing,
    /// There is not enough room: the bytes that are free, and those that must stay free.
    #[error("{free} bytes are free, and {least} bytes must stay free")]
    Full {
        /// The bytes that are free.
        free: u64,
        /// The bytes that must stay free.
        least: u64,
    },
    /// The store does not answer, or refuses the call.
    #[error("the object store is unavailable: {0}")]
    Unavailable(String),
}

/// An object that is being written. Dropped before [`ObjectWriter::finish`], it leaves nothing that a reader
/// could see.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Adds bytes at the end.
    async fn write(&mut self, part: Bytes) -> Result<(), ObjectError>;
    /// Makes the object visible. When it returns `Ok`, the object is synced to disk.
    async fn finish(self: Box<Self>) -> Result<(), ObjectError>;
}

/// A part of an object as it is read.
pub type ObjectBody = BoxStream<'static, Result<Bytes, ObjectError>>;

/// The store of large values, which keeps each under its id.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Begins an object of this size.
    async fn begin(&self, id: &ArtifactId, bytes: u64) -> Result<Box<dyn ObjectWriter>, ObjectError>;
    /// Reads these bytes of an object. A reader that began keeps its object, also if it is removed meanwhile.
    async fn open(&self, id: &ArtifactId, range: Range<u64>) -> Result<ObjectBody, ObjectError>;
    /// Removes an object; one that is not there is no error.
    async fn remove(&self, id: &ArtifactId) -> Result<(), ObjectError>;
    /// At most `limit` objects after this one, in an order of the store's own; none: the list ends.
    async fn list(&self, after: Option<&ArtifactId>, limit: usize) -> Result<Vec<ArtifactId>, ObjectError>;
    /// Removes at most `limit` objects that were begun before `before` and never finished. Returns how many.
    async fn drop_unfinished(&self, before: Timestamp, limit: usize) -> Result<usize, ObjectError>;
}
