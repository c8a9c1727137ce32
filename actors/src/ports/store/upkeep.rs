//! Blobs, breakers, pins, and the numbers of the whole store.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::{
    id::{ObjectId, RepositoryId},
    kind::BreakerKind,
};

use crate::{
    ports::{Backlog, BlobFacts, BreakerRow, Laggard, StoreError, Totals},
    time::Timestamp,
};

/// What the store keeps for the process itself.
#[async_trait]
pub trait UpkeepStore: Send + Sync + 'static {
    /// What is known of blobs, in the order asked.
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError>;
    /// Remembers blobs. May be lost in a crash: it is a cache.
    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError>;
    /// All breakers that have failures.
    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError>;
    /// Writes a breaker; one with no failures is removed. One that does not say that it is open changes
    /// nothing of one that is: its replica has not heard of that yet.
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
    /// [`ANSWERS_KEPT`](crate::ports::ANSWERS_KEPT), at most `limit` rows. Returns how many rows went.
    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Removes the oldest ended rounds of apps whose ended rounds, with their settled ranges and
    /// attempts, are more than `most` rows, at most `limit` rows. A round that an open letter names
    /// stays, and so does everything of an open one. Returns how many rows went.
    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError>;
    /// Writes the entries of ledgers that were folded a minute ago. Returns how many it wrote.
    async fn tell_folded(&self, now: Timestamp) -> Result<u64, StoreError>;
    /// Removes the oldest entries of ledgers: those older than `age`, and those of an app beyond `most`, at
    /// most `limit`. Returns how many went.
    async fn prune_ledgers(
        &self,
        now: Timestamp,
        age: Duration,
        most: u64,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Numbers for the overview.
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError>;
    /// How far watches are behind, and what was given up. Watches that are not served (paused, or of a
    /// disabled app) are not behind. Costs what is behind, not what is watched.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;
    /// The branches of served watches that are behind for longest, at most `limit`.
    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError>;
    /// A read that proves the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
