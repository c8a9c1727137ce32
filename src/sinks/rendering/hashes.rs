//! The facts about blobs: read from the store, written to it in batches, and cached in memory.
//!
//! A lane announces a window of changes at a time, so that one read of the store serves 256 deliveries;
//! unknown blobs are cached as unknown.
//!
//! Computed facts are kept here until there are 64 of them or a second has passed, so that a file is hashed
//! once and the store gets one write for many facts. A crash loses at most one batch, because the table is a
//! cache.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tidings_actors::{
    ports::{BlobFacts, Clock, Store, StoreError},
    time::Timestamp,
};
use tidings_entity::id::ObjectId;
use tracing::{debug, warn};

/// Facts that are written together, about.
const BATCH: usize = 64;
/// The longest that a fact waits for company, as long as facts come.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The number of blobs cached in each of two generations; about 100 bytes each.
const AT_HAND: usize = 32_768;

pub(crate) struct Hashes {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    unsaved: Mutex<Unsaved>,
    at_hand: Mutex<AtHand>,
}

/// Recently read or computed facts: when the young generation is full, the old one is dropped.
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
    facts: HashMap<ObjectId, BlobFacts>,
    since: Option<Timestamp>,
}

impl Hashes {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, unsaved: Mutex::default(), at_hand: Mutex::default() }
    }

    /// The facts about these blobs.
    pub(crate) async fn of(
        &self,
        blobs: impl Iterator<Item = ObjectId>,
    ) -> Result<HashMap<ObjectId, BlobFacts>, StoreError> {
        let (mut known, mut unknown) = (HashMap::new(), Vec::new());
        {
            let mut at_hand = self.at_hand();
            for blob in blobs {
                match at_hand.get(blob) {
                    Some(facts) => known.extend(facts.map(|facts| (blob, facts))),
                    None => unknown.push(blob),
                }
            }
        }
        if !unknown.is_empty() {
            let facts = self.store.blob_facts(&unknown).await?;
            let mut at_hand = self.at_hand();
            for (blob, facts) in unknown.into_iter().zip(facts) {
                at_hand.put(blob, facts);
                known.extend(facts.map(|facts| (blob, facts)));
            }
        }
        Ok(known)
    }

    /// Reads the facts about all of these blobs at once. A failure is ignored: the facts are read again when
    /// they are needed.
    pub(crate) async fn prefetch(&self, blobs: impl Iterator<Item = ObjectId>) {
        if let Err(error) = self.of(blobs).await {
            debug!("facts of blobs were not read ahead: {error}");
        }
    }

    fn at_hand(&self) -> MutexGuard<'_, AtHand> {
        self.at_hand.lock()
    }

    /// Remembers blobs. A failure is logged and costs hashes later.
    pub(crate) async fn learn(&self, learned: &[(ObjectId, BlobFacts)]) {
        if learned.is_empty() {
            return;
        }
        let now = self.clock.now();
        {
            let mut at_hand = self.at_hand();
            learned.iter().for_each(|(blob, facts)| at_hand.put(*blob, Some(*facts)));
        }
        let batch = self.add(learned, now);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.remember_blobs(&batch, now).await {
            warn!(blobs = batch.len(), "facts of {} blobs were not remembered: {error}", batch.len());
        }
    }

    /// Adds facts. Returns all kept facts when it is time to write them.
    fn add(&self, learned: &[(ObjectId, BlobFacts)], now: Timestamp) -> Vec<(ObjectId, BlobFacts)> {
        let mut unsaved = self.unsaved.lock();
        unsaved.facts.extend(learned.iter().copied());
        let since = unsaved.since.map_or(now, |since| since.min(now));
        unsaved.since = Some(since);
        if unsaved.facts.len() < BATCH && now.since(since) < SAVE_INTERVAL {
            return Vec::new();
        }
        unsaved.since = None;
        std::mem::take(&mut unsaved.facts).into_iter().collect()
    }
}
