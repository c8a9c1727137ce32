//! Rounds that have ended, and what became of each change.

use std::ops::Range;

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, WatchId};

use crate::{
    model::round::DeliveryId,
    ports::{Fates, HistoryStore, PastRound, RoundFacts, RoundFilter, StatusPlace, StatusRow, StoreError},
    testing::memory::MemoryStore,
};

#[async_trait]
impl HistoryStore for MemoryStore {
    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        Ok(self.state().shown_rounds(app, filter, limit))
    }

    async fn rounds_of_all(
        &self,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<(AppId, RoundFacts)>, StoreError> {
        Ok(self.state().shown_rounds_of_all(filter, limit))
    }

    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        self.state().past_round(app, cursor, number)
    }

    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError> {
        self.state().fates(cursor, round, &range)
    }

    async fn last_parked(
        &self,
        cursor: &CursorId,
        round: i64,
        below: u64,
    ) -> Result<Option<u64>, StoreError> {
        Ok(self.state().last_parked(cursor, round, below))
    }

    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        Ok(self.state().delivery(app, id))
    }

    async fn statuses(
        &self,
        _watch: &WatchId,
        _place: Option<&StatusPlace>,
        _limit: u64,
    ) -> Result<Vec<StatusRow>, StoreError> {
        // This store shows nothing at hosts.
        Ok(Vec::new())
    }
}
