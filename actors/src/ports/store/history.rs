//! Rounds that have ended, and the result of each of their changes.

use std::ops::Range;

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, WatchId};

use crate::{
    model::round::DeliveryId,
    ports::{Fates, PastRound, RoundFacts, RoundFilter, StatusPlace, StatusRow, StoreError},
};

/// The history of past rounds.
#[async_trait]
pub trait HistoryStore: Send + Sync + 'static {
    /// Rounds of an app that a filter means, at most `limit`, in the order of its place.
    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError>;
    /// Rounds of all apps that match a filter, each with its app, newest first, at most `limit`. A position
    /// of a list that is sorted oldest first is not valid here.
    async fn rounds_of_all(
        &self,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<(AppId, RoundFacts)>, StoreError>;
    /// One round of an app with all data that its list is computed from. A cursor of another app is
    /// [`StoreError::NotFound`], like an unknown one.
    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError>;
    /// The results of a range of a round's changes, at one moment; the range is at most one window.
    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError>;
    /// The last change of a round below a position that was parked; `None`: there is none.
    async fn last_parked(&self, cursor: &CursorId, round: i64, below: u64)
    -> Result<Option<u64>, StoreError>;
    /// Cursor, round and position of a delivery of an app that failed or was parked; `None` for other
    /// deliveries, which have no row.
    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError>;
    /// Statuses of the commits of a watch, the most recently changed first, at most `limit`.
    async fn statuses(
        &self,
        watch: &WatchId,
        place: Option<&StatusPlace>,
        limit: u64,
    ) -> Result<Vec<StatusRow>, StoreError>;
}
