//! Lanes: the rounds of one branch of one watch, from their beginning to their end.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, ViewId, WatchId};

use crate::{
    ports::{
        AttemptRecord, Glimpse, HandOver, HandOverRoom, LaneSnapshot, LaneTerms, NewRound, Reach, Settlement,
        SinkKey, StoreError,
    },
    time::Timestamp,
};

/// The calls by which a lane reads and writes.
#[async_trait]
pub trait LaneStore: Send + Sync + 'static {
    /// The cursors in these shards that have something to do, of one app or of all.
    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(SinkKey, CursorId)>, StoreError>;
    /// The short look at a cursor, before its whole lane is read. Flushes the writer first.
    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError>;
    /// Everything a lane needs. Flushes the writer first.
    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError>;
    /// The terms under which lanes of these cursors would be opened now; deleted cursors are left out. Cheap:
    /// rows are found by their keys. Does not flush the writer.
    async fn lane_terms(&self, cursors: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError>;
    /// Begins a round: writes round, bases and bound letters.
    async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError>;
    /// Moves `held` to `(commit, view)` without a round, because nothing differs.
    async fn advance(
        &self,
        cursor: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError>;
    /// Records a settled prefix. `Ok(false)`: the round has ended or the position is not new;
    /// nothing was changed and the lane reloads.
    async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError>;
    /// Ends a round whose position is its total: held becomes target (a redrive leaves it), bound letters
    /// that are still open are superseded (a redrive's: redriven). `end_told`: the app accepted the notice of
    /// the end.
    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError>;
    /// What may be handed over of a round; `None`: the round is not open, or its watch, sink or app is not
    /// served. Flushes the writer first.
    async fn hand_over_room(&self, cursor: &CursorId, round: i64)
    -> Result<Option<HandOverRoom>, StoreError>;
    /// Makes tasks of the next changes of a round, as many as there is room for. `Ok(false)`: the changes are
    /// not the next ones, or nothing may be handed over; nothing was changed.
    async fn hand_over(&self, next: HandOver) -> Result<bool, StoreError>;
    /// Stores a failed attempt.
    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError>;
    /// A sink accepted a test delivery: its cursors that are blocked because it refused everything, or by a
    /// streak that ended with its round, continue. The changes that led to the block are sent again, each
    /// letter by itself once only.
    async fn end_refusals(&self, sink: &SinkKey) -> Result<(), StoreError>;
    /// Records that the app was told of the beginning of the open round, a resync. A round that has ended
    /// stays unchanged.
    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError>;
    /// Shortens the wait of a watch for its first delivery: it ends at this moment at the latest.
    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError>;
    /// Blocks a cursor with a reason, or unblocks it with `None`; unblocking ends the streak.
    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError>;
    /// Pauses the watch of a cursor because its next round would delete too much. After a person resumed the
    /// watch, the next round of this cursor that is no redrive passes the guard.
    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError>;
    /// Forgets that a replay from this commit was asked for: there is nothing to deliver.
    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError>;
}
