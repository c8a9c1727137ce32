//! A store that knows blobs and nothing else: what a transport needs of one.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidings_actors::{ports::*, secret::Secret, time::Timestamp};
use tidings_entity::{
    id::*,
    kind::{BreakerKind, LetterStatus},
};

/// Facts of blobs in memory. Every other verb answers that there is no such thing.
#[derive(Default)]
pub(crate) struct BlobStore {
    facts: Mutex<HashMap<ObjectId, BlobFacts>>,
    writes: AtomicUsize,
}

impl BlobStore {
    /// Knows a blob beforehand.
    pub(crate) fn know(&self, blob: ObjectId, facts: BlobFacts) {
        self.facts.lock().expect("unpoisoned").insert(blob, facts);
    }

    /// How often facts were written, and how many blobs are known.
    pub(crate) fn written(&self) -> (usize, usize) {
        (self.writes.load(Ordering::SeqCst), self.facts.lock().expect("unpoisoned").len())
    }
}

#[async_trait]
impl Store for BlobStore {
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        let facts = self.facts.lock().expect("unpoisoned");
        Ok(blobs.iter().map(|blob| facts.get(blob).copied()).collect())
    }

    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], _: Timestamp) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.facts.lock().expect("unpoisoned").extend(blobs.iter().copied());
        Ok(())
    }

    async fn create_app(&self, _: &NewApp) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn app_by_token(&self, _: &str) -> Result<Option<App>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn app(&self, _: &AppId) -> Result<Option<App>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn apps(&self, _: Option<&AppId>, _: u64) -> Result<Vec<App>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn set_app_disabled(&self, _: &AppId, _: Option<&str>) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn erase_app(&self, _: &AppId) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn register_watch(&self, _: &NewWatch) -> Result<Watch, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn watches(&self, _: &AppId, _: Option<&WatchId>, _: u64) -> Result<Vec<Watch>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn watch(&self, _: &AppId, _: &WatchId) -> Result<Watch, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn patch_watch(&self, _: &AppId, _: &WatchId, _: &WatchPatch) -> Result<Watch, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn replace_credential(
        &self,
        _: &AppId,
        _: &WatchId,
        _: Option<&Secret>,
        _: &RefListing,
        _: Timestamp,
    ) -> Result<Watch, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn request_resync(&self, _: &AppId, _: &WatchId, _: bool) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn request_cursor_resync(&self, _: &CursorId, _: bool, _: &str) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn unwatch(&self, _: &AppId, _: &WatchId) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn repositories(&self) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn sources(&self, _: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn move_heads(&self, _: &SourceId, _: &RefListing, _: Timestamp) -> Result<Moved, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn record_scan_error(&self, _: &SourceId, _: Option<&str>) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn watches_of_source(&self, _: &SourceId) -> Result<Vec<Watch>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn pending(&self, _: Option<&AppId>) -> Result<Vec<(AppId, CursorId)>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn lane(&self, _: &CursorId) -> Result<LaneSnapshot, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn begin_round(&self, _: &NewRound) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn advance(&self, _: &CursorId, _: i64, _: Option<(ObjectId, ViewId)>) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn settle(&self, _: Settlement) -> Result<bool, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn finish_round(&self, _: &CursorId, _: i64, _: Timestamp) -> Result<bool, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn record_attempt(&self, _: AttemptRecord) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn set_blocked(&self, _: &CursorId, _: Option<&str>) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn pause_by_guard(&self, _: &CursorId, _: &str) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn dead_letters(
        &self,
        _: &AppId,
        _: Option<LetterStatus>,
        _: Option<&DeadLetterId>,
        _: u64,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn request_redrive(
        &self,
        _: &AppId,
        _: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn record_breaker(&self, _: &BreakerRow) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    async fn try_probe(
        &self,
        _: BreakerKind,
        _: &str,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn pins(&self, _: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn prune(&self, _: Timestamp, _: Duration, _: Duration, _: u64) -> Result<u64, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn totals(&self, _: Timestamp) -> Result<Totals, StoreError> {
        Err(StoreError::NotFound)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }
}
