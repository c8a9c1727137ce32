//! Blobs, breakers, pins, and the numbers of the whole store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::ConnectionTrait;
use tidings_actors::{
    model::queue_name::QueueName,
    ports::{Backlog, BlobFacts, BreakerRow, Laggard, StoreError, Totals, UpkeepStore},
    time::Timestamp,
};
use tidings_entity::{
    id::{ArtifactId, ObjectId, RepositoryId},
    kind::{BreakerKind, TaskState},
};

use super::transact;
use crate::{
    SqlStore,
    database::{error::OfTable, partitions},
    ledger, tasks,
    upkeep::{self, backlog, blobs, breakers, space},
};

#[async_trait]
impl UpkeepStore for SqlStore {
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        blobs::facts(&self.readers, blobs).await
    }

    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError> {
        let blobs = blobs.to_vec();
        transact!(self, |transaction, _context| blobs::remember(transaction, &blobs, at).await)
    }

    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        breakers::list(&self.readers).await
    }

    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError> {
        let breaker = breaker.clone();
        transact!(self, |transaction, context| breakers::record(transaction, context, breaker).await)
    }

    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        transact!(self, |transaction, _context| breakers::try_probe(transaction, kind, id, now, next).await)
    }

    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        self.writer.flush().await?;
        upkeep::pins(&self.readers, repository).await
    }

    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError> {
        transact!(self, |transaction, _context| {
            partitions::make_ahead(transaction, now).await;
            Ok(())
        })?;
        let mut left = limit;
        for kind in 0..upkeep::KINDS {
            while left > 0 {
                let step = left.min(upkeep::STEP);
                let gone = transact!(self, |transaction, _context| {
                    upkeep::prune(transaction, kind, now, history, blobs, step).await
                })?;
                left -= gone;
                if gone < step {
                    break;
                }
            }
        }
        transact!(self, |transaction, _context| partitions::drop_empty(transaction, now).await)?;
        Ok(limit - left)
    }

    async fn known_artifacts(&self, ids: &[ArtifactId]) -> Result<BTreeSet<ArtifactId>, StoreError> {
        tasks::known_artifacts(&self.readers, ids).await
    }

    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError> {
        // Counted outside of the writer, because deliveries wait for it.
        let crowded: Arc<[_]> = upkeep::crowded(&self.snapshot().await?, most).await?.into();
        let mut gone = 0;
        while gone < limit && !crowded.is_empty() {
            let (crowded, step) = (crowded.clone(), (limit - gone).min(upkeep::STEP));
            let went =
                transact!(self, |transaction, _context| upkeep::shorten(transaction, &crowded, step).await)?;
            gone += went;
            if went < step {
                break;
            }
        }
        Ok(gone)
    }

    async fn tell_folded(&self, now: Timestamp, limit: u64) -> Result<u64, StoreError> {
        transact!(self, |transaction, context| ledger::tell_folded(transaction, context, now, limit).await)
    }

    async fn prune_ledgers(
        &self,
        now: Timestamp,
        age: Duration,
        most: u64,
        limit: u64,
    ) -> Result<u64, StoreError> {
        let mut left = limit;
        while left > 0 {
            let step = left.min(upkeep::STEP);
            let gone =
                transact!(self, |transaction, _context| ledger::prune(transaction, now, age, most, step)
                    .await)?;
            left -= gone;
            if gone < step {
                break;
            }
        }
        Ok(limit - left)
    }

    async fn release_space(&self, kept: u64, limit: u64) -> Result<u64, StoreError> {
        let mut released = 0;
        while released < limit {
            let step = transact!(self, |transaction, _context| space::give_back(transaction, kept).await)?;
            if step == 0 {
                break;
            }
            released += step;
        }
        Ok(released)
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        upkeep::totals(&self.readers, now).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        backlog::backlog(&self.readers, now).await
    }

    async fn depths(
        &self,
        queues: &[QueueName],
    ) -> Result<BTreeMap<QueueName, BTreeMap<TaskState, u64>>, StoreError> {
        tasks::depths_of(&self.readers, queues).await
    }

    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError> {
        backlog::laggards(&self.readers, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.takes_writes() {
            return Err(StoreError::Unavailable("the database takes no writes".to_owned()));
        }
        self.readers.execute_unprepared("select 1 from lease").await.of("lease").map(drop)
    }
}
