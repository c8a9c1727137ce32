//! Rounds that have ended, and what became of each change.

use std::ops::Range;

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId};

use crate::{
    ports::{Fates, PastRound, RoundFacts, RoundFilter, StoreError},
    round::DeliveryId,
};

/// What is kept of past rounds.
#[async_trait]
pub trait HistoryStore: Send + Sync + 'static {
    /// Rounds of an app that a filter means, at most `limit`, in the order of its place.
    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError>;
    /// One round of an app with all that its list is made of; foreign cursors are
    /// [`StoreError::NotFound`] like missing ones.
    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError>;
    /// What became of a range of a round's changes, at one moment; the range is a window's.
    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError>;
    /// The last change of a round below a position that was given up.
    async fn last_parked(&self, cursor: &CursorId, round: i64, below: u64)
    -> Result<Option<u64>, StoreError>;
    /// Cursor, round and position of a delivery of an app that failed or was given up; of others
    /// there is no row, and `None`.
    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError>;
}
