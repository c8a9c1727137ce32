//! Blobs, breakers, pins, and the numbers of the whole store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tidings_entity::{
    id::{ArtifactId, ObjectId, RepositoryId},
    kind::{BreakerKind, TaskState},
};

use crate::{
    model::queue_name::QueueName,
    ports::{Backlog, BlobFacts, BreakerRow, Laggard, StoreError, Totals, UpkeepStore},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl UpkeepStore for MemoryStore {
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        let state = self.state();
        Ok(blobs.iter().map(|id| state.blobs.get(id).map(|(facts, _)| *facts)).collect())
    }

    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError> {
        self.write(|state| {
            state.blob_writes += 1;
            for (id, facts) in blobs {
                state.blobs.entry(*id).or_insert((*facts, at)).1 = at;
            }
            Ok(())
        })
    }

    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        self.meet("breakers").await?;
        Ok(self.state().breakers.values().cloned().collect())
    }

    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError> {
        self.meet("record_breaker").await?;
        self.write_checked(|state| {
            let key = (breaker.kind, breaker.id.clone());
            let is_open = |row: &BreakerRow| row.opened_at.is_some();
            if breaker.failures == 0 {
                state.breakers.remove(&key);
            } else if is_open(breaker) || !state.breakers.get(&key).is_some_and(is_open) {
                state.breakers.insert(key, breaker.clone());
            }
            Ok(())
        })
    }

    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        self.meet("try_probe").await?;
        self.write_checked(|state| {
            let Some(breaker) = state.breakers.get_mut(&(kind, id.to_owned())) else { return Ok(false) };
            let due = breaker.opened_at.is_some() && breaker.probe_at.is_none_or(|at| at <= now);
            if due {
                breaker.probe_at = Some(next);
            }
            Ok(due)
        })
    }

    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        Ok(self.state().pins(repository))
    }

    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError> {
        self.meet("prune").await?;
        self.write(|state| Ok(state.prune(now, history, blobs, limit)))
    }

    async fn known_artifacts(&self, ids: &[ArtifactId]) -> Result<BTreeSet<ArtifactId>, StoreError> {
        self.meet("known_artifacts").await?;
        let known = &self.state().artifacts;
        Ok(ids.iter().filter(|id| known.contains(id)).cloned().collect())
    }

    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError> {
        self.meet("shorten_history").await?;
        self.write(|state| Ok(state.shorten_history(most, limit)))
    }

    /// This store keeps no ledgers.
    async fn tell_folded(&self, _now: Timestamp, _limit: u64) -> Result<u64, StoreError> {
        self.meet("tell_folded").await.map(|()| 0)
    }

    async fn prune_ledgers(
        &self,
        _now: Timestamp,
        _age: Duration,
        _most: u64,
        _limit: u64,
    ) -> Result<u64, StoreError> {
        self.meet("prune_ledgers").await.map(|()| 0)
    }

    /// This store has no file.
    async fn release_space(&self, _kept: u64, _limit: u64) -> Result<u64, StoreError> {
        self.meet("release_space").await.map(|()| 0)
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        Ok(self.state().totals(now))
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.meet("backlog").await?;
        Ok(self.state().backlog(now))
    }

    /// This store has no queues.
    async fn depths(
        &self,
        _queues: &[QueueName],
    ) -> Result<BTreeMap<QueueName, BTreeMap<TaskState, u64>>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError> {
        let mut laggards = self.state().laggards();
        laggards.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(laggards)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
