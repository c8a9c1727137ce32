//! Lanes: the rounds of one branch of one watch, from their beginning to their end.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, ViewId, WatchId};

use crate::{
    ports::{
        AttemptRecord, Glimpse, HandOver, HandOverRoom, LaneSnapshot, LaneStore, LaneTerms, NewRound, Reach,
        Settlement, SinkKey, StoreError,
    },
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl LaneStore for MemoryStore {
    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(SinkKey, CursorId)>, StoreError> {
        self.meet("pending").await?;
        Ok(self.state().pending(app, reach))
    }

    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError> {
        self.meet("glimpse").await?;
        self.state().glimpse(cursor).map(|(_, glimpse)| glimpse).ok_or(StoreError::NotFound)
    }

    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError> {
        self.meet("lane").await?;
        self.state().lane(cursor)
    }

    async fn lane_terms(&self, cursors: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
        self.meet("lane_terms").await?;
        let state = self.state();
        let terms = |id: &CursorId| Some((id.clone(), LaneTerms::of(&state.lane(id).ok()?)));
        Ok(cursors.iter().filter_map(terms).collect())
    }

    async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError> {
        self.meet("begin_round").await?;
        self.write_checked(|state| state.begin_round(round))
    }

    async fn advance(
        &self,
        cursor: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError> {
        self.meet("advance").await?;
        self.write_checked(|state| state.advance(cursor, planned_after, held))
    }

    async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError> {
        self.meet("settle").await?;
        Ok(self.write_checked(|state| state.settle(&settlement)))
    }

    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError> {
        self.meet("finish_round").await?;
        self.write_checked(|state| state.finish_round(cursor, round, at, end_told))
    }

    /// This store has no queues: nothing may be handed over.
    async fn hand_over_room(
        &self,
        _cursor: &CursorId,
        _round: i64,
    ) -> Result<Option<HandOverRoom>, StoreError> {
        self.meet("hand_over_room").await?;
        Ok(None)
    }

    async fn hand_over(&self, _next: HandOver) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError> {
        self.meet("record_attempt").await?;
        self.write_checked(|state| state.record_attempt(attempt));
        Ok(())
    }

    async fn end_refusals(&self, sink: &SinkKey) -> Result<(), StoreError> {
        self.write(|state| {
            state.end_refusals(sink);
            Ok(())
        })
    }

    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError> {
        self.write(|state| {
            state.note_announced(cursor, round);
            Ok(())
        })
    }

    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError> {
        self.write(|state| {
            let row = state.watches.get_mut(watch).ok_or(StoreError::NotFound)?;
            row.new.deliver_after = row.new.deliver_after.min(latest);
            Ok(())
        })
    }

    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError> {
        self.meet("set_blocked").await?;
        self.write_checked(|state| state.set_blocked(cursor, reason))
    }

    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError> {
        self.meet("pause_by_guard").await?;
        self.write(|state| state.pause_by_guard(cursor, reason))
    }

    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError> {
        self.write(|state| {
            state.drop_replay(cursor, from);
            Ok(())
        })
    }
}
