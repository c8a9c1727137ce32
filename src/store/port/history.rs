//! Rounds that have ended, and the results of their changes.

use std::ops::Range;

use async_trait::async_trait;
use tidings_actors::{
    model::round::DeliveryId,
    ports::{Fates, HistoryStore, PastRound, RoundFacts, RoundFilter, StatusPlace, StatusRow, StoreError},
};
use tidings_entity::id::{AppId, CursorId, WatchId};

use crate::{SqlStore, lanes::history, watching::statuses};

#[async_trait]
impl HistoryStore for SqlStore {
    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        history::rounds(&self.readers, app, filter, limit).await
    }

    async fn rounds_of_all(
        &self,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<(AppId, RoundFacts)>, StoreError> {
        history::rounds_of_all(&self.readers, filter, limit).await
    }

    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        history::past(&self.snapshot().await?, &self.context, app, cursor, number).await
    }

    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError> {
        history::fates(&self.snapshot().await?, cursor, round, range).await
    }

    async fn last_parked(
        &self,
        cursor: &CursorId,
        round: i64,
        below: u64,
    ) -> Result<Option<u64>, StoreError> {
        history::last_parked(&self.readers, cursor, round, below).await
    }

    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        history::delivery(&self.readers, app, id).await
    }

    async fn statuses(
        &self,
        watch: &WatchId,
        place: Option<&StatusPlace>,
        limit: u64,
    ) -> Result<Vec<StatusRow>, StoreError> {
        statuses::list(&self.readers, watch, place, limit).await
    }
}
