//! Lanes: the rounds of one branch of one watch, from their beginning to their end.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, ViewId, WatchId};

use crate::{
    ports::{
        AttemptRecord, Glimpse, LaneSnapshot, LaneTerms, NewRound, Reach, Settlement, SinkKey, StoreError,
    },
    time::Timestamp,
};

/// What a lane reads and writes.
#[async_trait]
pub trait LaneStore: Send + Sync + 'static {
    /// The cursors in these shards that have something to do, of one app or of all.
    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(SinkKey, CursorId)>, StoreError>;
    /// What one look at a cursor shows, before everything of its lane is read. Flushes the writer first.
    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError>;
    /// Everything a lane needs. Flushes the writer first.
    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError>;
    /// Under which terms the lanes of these cursors would be opened now; cursors that are gone are left
    /// out. Cheap: rows are found by their keys. Does not flush the writer.
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
    /// Ends a round whose position is its total: held becomes target (a redrive leaves it), bound
    /// letters that are still open are superseded (a redrive's: redriven). `end_told`: the app took the
    /// notice that it ended.
    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError>;
    /// Remembers a failed attempt.
    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError>;
    /// A sink took a test delivery: its cursors that are blocked because it refused everything go on, and
    /// what it refused is sent again, each letter by itself once only.
    async fn end_refusals(&self, sink: &SinkKey) -> Result<(), StoreError>;
    /// Notes that the app was told that the open round, a resync, begins. A round that is not open any more
    /// is left alone.
    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError>;
    /// Lets a watch wait for its first delivery until this moment at most.
    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError>;
    /// Blocks a cursor with a reason, or unblocks it with `None`; unblocking ends the streak.
    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError>;
    /// Pauses the watch of a cursor because its next round would delete too much. After somebody
    /// resumed it, the next round of this cursor that is no redrive passes the guard.
    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError>;
    /// Forgets that a replay from this commit was asked for: there is nothing to deliver.
    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError>;
}
