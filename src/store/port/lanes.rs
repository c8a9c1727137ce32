//! Lanes: the rounds of one branch of one watch, from their beginning to their end.

use async_trait::async_trait;
use tidings_actors::{
    ports::{
        AttemptRecord, Glimpse, HandOver, HandOverRoom, LaneSnapshot, LaneStore, LaneTerms, NewRound, Reach,
        Settlement, SinkKey, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::id::{AppId, CursorId, ObjectId, ViewId, WatchId};

use super::transact;
use crate::{
    SqlStore,
    lanes::{self, letters::attempts, refusals, replays, rounds, terms},
    tasks,
    watching::watches::registration,
};

#[async_trait]
impl LaneStore for SqlStore {
    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(SinkKey, CursorId)>, StoreError> {
        self.writer.flush().await?;
        lanes::pending(&self.readers, app.cloned(), reach).await
    }

    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError> {
        self.writer.flush().await?;
        lanes::glimpse(&self.readers, cursor).await
    }

    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError> {
        self.writer.flush().await?;
        lanes::snapshot(&self.snapshot().await?, &self.context, cursor).await
    }

    async fn lane_terms(&self, cursors: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
        terms::of_lanes(&self.readers, cursors).await
    }

    async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError> {
        let round = round.clone();
        transact!(self, |transaction, context| rounds::begin(transaction, context, &round).await)
    }

    async fn advance(
        &self,
        cursor: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        transact!(self, |transaction, context| {
            rounds::advance(transaction, context, &cursor, planned_after, held).await
        })
    }

    async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError> {
        self.writer.settle(settlement).await
    }

    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError> {
        let cursor = cursor.clone();
        transact!(self, |transaction, context| rounds::finish(
            transaction,
            context,
            &cursor,
            round,
            at,
            end_told
        )
        .await)
    }

    async fn hand_over_room(
        &self,
        cursor: &CursorId,
        round: i64,
    ) -> Result<Option<HandOverRoom>, StoreError> {
        self.writer.flush().await?;
        tasks::room(&self.snapshot().await?, cursor, round).await
    }

    async fn hand_over(&self, next: HandOver) -> Result<bool, StoreError> {
        let tally = transact!(self, |transaction, context| {
            let news = tasks::hand_over(transaction, context, &next).await?;
            Ok(news.map(|mut news| {
                let tally = std::mem::take(&mut news.tally);
                context.tasks.mark(news);
                tally
            }))
        })?;
        let Some(tally) = tally else { return Ok(false) };
        if let Some(meter) = self.writer.meter() {
            meter.tasks_moved(&tally);
        }
        Ok(true)
    }

    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError> {
        transact!(self, |transaction, _context| attempts::record(transaction, &attempt).await)
    }

    async fn end_refusals(&self, sink: &SinkKey) -> Result<(), StoreError> {
        let sink = sink.clone();
        transact!(self, |transaction, context| refusals::of_sink(transaction, context, &sink).await)
    }

    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        transact!(self, |transaction, _context| rounds::note_announced(transaction, &cursor, round).await)
    }

    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError> {
        let watch = watch.clone();
        transact!(self, |transaction, _context| registration::deliver_no_later(transaction, &watch, latest)
            .await)
    }

    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.map(str::to_owned));
        transact!(self, |transaction, context| rounds::set_blocked(transaction, context, &cursor, reason)
            .await)
    }

    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.to_owned());
        transact!(self, |transaction, context| rounds::pause_by_guard(transaction, context, &cursor, reason)
            .await)
    }

    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        transact!(self, |transaction, context| {
            replays::forget(transaction, &cursor, from, context.clock.now()).await
        })
    }
}
