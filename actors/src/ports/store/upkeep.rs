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
    ports::{Backlog, BlobFacts, BreakerRow, Laggard, StoreError, Totals},
    time::Timestamp,
};

/// The store's data for the process itself: blobs, breakers, pruning and totals.
#[async_trait]
pub trait UpkeepStore: Send + Sync + 'static {
    /// The known facts about blobs, in the order of the ids.
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError>;
    /// Stores facts about blobs. They may be lost in a crash, because they are a cache.
    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError>;
    /// All breakers that have failures.
    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError>;
    /// Writes a breaker; a breaker without failures is removed. A closed breaker does not overwrite an open
    /// row: its replica does not know yet that the breaker opened.
    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError>;
    /// Takes the probe of an open breaker if it is due, moving `probe_at` to `next`.
    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError>;
    /// The commits of a repository that mirrors must keep: held, targets and bases of open rounds.
    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError>;
    /// Removes history and unused blobs older than their age, and keyed requests older than
    /// [`ANSWERS_KEPT`](crate::ports::ANSWERS_KEPT), at most `limit` rows. Returns the number of rows
    /// removed.
    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Removes the oldest ended rounds of apps whose ended rounds, with their settled ranges and attempts,
    /// are more than `most` rows, at most `limit` rows. A round that an open letter names stays, and so do
    /// all rows of an open round. Returns the number of rows removed.
    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError>;
    /// Which of these artifacts have a row: the others are orphans.
    async fn known_artifacts(&self, ids: &[ArtifactId]) -> Result<BTreeSet<ArtifactId>, StoreError>;
    /// Writes the entries of ledgers that were folded a minute ago, for at most `limit` states. Returns the
    /// number of states; after `limit` there may be more.
    async fn tell_folded(&self, now: Timestamp, limit: u64) -> Result<u64, StoreError>;
    /// Removes the oldest entries of ledgers: entries older than `age`, and entries of an app beyond `most`,
    /// at most `limit`. Returns the number of entries removed.
    async fn prune_ledgers(
        &self,
        now: Timestamp,
        age: Duration,
        most: u64,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Gives room that the database does not use back to the disk, about `limit` bytes at most, and keeps
    /// `kept` bytes of it for rows to come. Returns the number of bytes that were given back.
    async fn release_space(&self, kept: u64, limit: u64) -> Result<u64, StoreError>;
    /// Numbers for the overview.
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError>;
    /// How far watches are behind, and how many letters are open. Watches that are not served (paused, or of
    /// a disabled app) are not behind. The cost depends on the number of branches behind, not of watches.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;
    /// How many tasks each of these queues has in each state; nothing of a queue that does not exist.
    async fn depths(
        &self,
        queues: &[QueueName],
    ) -> Result<BTreeMap<QueueName, BTreeMap<TaskState, u64>>, StoreError>;
    /// The branches of served watches that are behind for longest, at most `limit`.
    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError>;
    /// A read that proves the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
