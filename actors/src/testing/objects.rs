//! An object store in memory, for tests.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tidings_entity::id::ArtifactId;

use crate::{
    ports::{ObjectBody, ObjectError, ObjectWriter, Objects},
    time::Timestamp,
};

type Kept = Arc<Mutex<BTreeMap<ArtifactId, Bytes>>>;

/// An object store without a disk.
#[derive(Default)]
pub struct MemoryObjects {
    kept: Kept,
}

impl MemoryObjects {
    /// The ids of all objects.
    #[must_use]
    pub fn ids(&self) -> Vec<ArtifactId> {
        self.kept.lock().keys().cloned().collect()
    }
}

struct Writing {
    id: ArtifactId,
    bytes: Vec<u8>,
    kept: Kept,
}

#[async_trait]
impl ObjectWriter for Writing {
    async fn write(&mut self, part: Bytes) -> Result<(), ObjectError> {
        self.bytes.extend_from_slice(&part);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), ObjectError> {
        self.kept.lock().insert(self.id, self.bytes.into());
        Ok(())
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn begin(&self, id: &ArtifactId, _bytes: u64) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        Ok(Box::new(Writing { id: id.clone(), bytes: Vec::new(), kept: self.kept.clone() }))
    }

    async fn open(&self, id: &ArtifactId, range: Range<u64>) -> Result<ObjectBody, ObjectError> {
        let bytes = self.kept.lock().get(id).cloned().ok_or(ObjectError::Missing)?;
        let of = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        let (start, end) = (of(range.start), of(range.end));
        if end > bytes.len() {
            return Err(ObjectError::Missing);
        }
        Ok(stream::iter([Ok(bytes.slice(start..end))]).boxed())
    }

    async fn remove(&self, id: &ArtifactId) -> Result<(), ObjectError> {
        self.kept.lock().remove(id);
        Ok(())
    }

    async fn list(&self, after: Option<&ArtifactId>, limit: usize) -> Result<Vec<ArtifactId>, ObjectError> {
        let kept = self.kept.lock();
        let later = kept.keys().filter(|id| after.is_none_or(|after| *id > after));
        Ok(later.take(limit).cloned().collect())
    }

    async fn drop_unfinished(&self, _before: Timestamp, _limit: usize) -> Result<usize, ObjectError> {
        Ok(0)
    }
}
