//! What is known of blobs: asked of the store, remembered there in batches.
//!
//! What was computed is kept here until 64 facts or a second have come together, so that a file is
//! hashed once and the store sees one write for many. A crash loses at most one batch: the table
//! is a cache.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidings_actors::{
    ports::{BlobFacts, Clock, Store, StoreError},
    time::Timestamp,
};
use tidings_entity::id::ObjectId;
use tracing::warn;

/// Facts that are written together.
const BATCH: usize = 64;
/// The longest that a fact waits for company, as long as facts come.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Hashes {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    unsaved: Mutex<Unsaved>,
}

#[derive(Default)]
struct Unsaved {
    facts: Vec<(ObjectId, BlobFacts)>,
    since: Option<Timestamp>,
}

impl Hashes {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, unsaved: Mutex::default() }
    }

    /// What is known of one blob.
    pub(super) async fn of(&self, blob: ObjectId) -> Result<Option<BlobFacts>, StoreError> {
        if let Some(facts) = self.unsaved(blob) {
            return Ok(Some(facts));
        }
        Ok(self.store.blob_facts(&[blob]).await?.into_iter().next().flatten())
    }

    /// Remembers a blob. A failure is logged and costs a hash later.
    pub(super) async fn learn(&self, blob: ObjectId, facts: BlobFacts) {
        let now = self.clock.now();
        let batch = self.add(blob, facts, now);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.remember_blobs(&batch, now).await {
            warn!(blobs = batch.len(), "facts of {} blobs were not remembered: {error}", batch.len());
        }
    }

    fn unsaved(&self, blob: ObjectId) -> Option<BlobFacts> {
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.facts.iter().find(|(id, _)| *id == blob).map(|(_, facts)| *facts)
    }

    /// Adds a fact and takes all of them when it is time to write.
    fn add(&self, blob: ObjectId, facts: BlobFacts, now: Timestamp) -> Vec<(ObjectId, BlobFacts)> {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        if !unsaved.facts.iter().any(|(id, _)| *id == blob) {
            unsaved.facts.push((blob, facts));
        }
        let since = *unsaved.since.get_or_insert(now);
        if unsaved.facts.len() < BATCH && now.since(since) < PATIENCE {
            return Vec::new();
        }
        unsaved.since = None;
        std::mem::take(&mut unsaved.facts)
    }
}
