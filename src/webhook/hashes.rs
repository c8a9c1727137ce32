//! What is known of blobs: asked of the store, remembered there in batches, kept at hand in memory.
//!
//! A lane foresees a window of changes at a time, so that one question to the store serves 256
//! deliveries; that the store knows nothing of a blob is remembered as well.
//!
//! What was computed is kept here until 64 facts or a second have come together, so that a file is
//! hashed once and the store sees one write for many. A crash loses at most one batch: the table
//! is a cache.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// Blobs kept at hand in each of two generations; about 100 bytes each.
const AT_HAND: usize = 32_768;

pub(super) struct Hashes {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    unsaved: Mutex<Unsaved>,
    at_hand: Mutex<AtHand>,
}

/// What was asked or learned lately: when the young generation is full, the old one goes.
#[derive(Default)]
struct AtHand {
    young: HashMap<ObjectId, Option<BlobFacts>>,
    old: HashMap<ObjectId, Option<BlobFacts>>,
}

impl AtHand {
    fn get(&mut self, blob: ObjectId) -> Option<Option<BlobFacts>> {
        if let Some(known) = self.young.get(&blob) {
            return Some(*known);
        }
        let known = self.old.get(&blob).copied()?;
        self.put(blob, known);
        Some(known)
    }

    fn put(&mut self, blob: ObjectId, facts: Option<BlobFacts>) {
        if self.young.len() >= AT_HAND {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(blob, facts);
    }
}

#[derive(Default)]
struct Unsaved {
    facts: Vec<(ObjectId, BlobFacts)>,
    since: Option<Timestamp>,
}

impl Hashes {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, unsaved: Mutex::default(), at_hand: Mutex::default() }
    }

    /// What is known of one blob.
    pub(super) async fn of(&self, blob: ObjectId) -> Result<Option<BlobFacts>, StoreError> {
        if let Some(known) = self.at_hand().get(blob) {
            return Ok(known);
        }
        let facts = self.store.blob_facts(&[blob]).await?.into_iter().next().flatten();
        self.at_hand().put(blob, facts);
        Ok(facts)
    }

    /// Asks about all of these blobs at once. A failure is not one yet: each is asked about again
    /// when it is needed.
    pub(super) async fn foresee(&self, blobs: impl Iterator<Item = ObjectId>) {
        let unknown: Vec<ObjectId> = {
            let mut at_hand = self.at_hand();
            blobs.filter(|blob| at_hand.get(*blob).is_none()).collect()
        };
        if unknown.is_empty() {
            return;
        }
        if let Ok(facts) = self.store.blob_facts(&unknown).await {
            let mut at_hand = self.at_hand();
            unknown.into_iter().zip(facts).for_each(|(blob, facts)| at_hand.put(blob, facts));
        }
    }

    fn at_hand(&self) -> MutexGuard<'_, AtHand> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a blob. A failure is logged and costs a hash later.
    pub(super) async fn learn(&self, blob: ObjectId, facts: BlobFacts) {
        let now = self.clock.now();
        self.at_hand().put(blob, Some(facts));
        let batch = self.add(blob, facts, now);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.remember_blobs(&batch, now).await {
            warn!(blobs = batch.len(), "facts of {} blobs were not remembered: {error}", batch.len());
        }
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
