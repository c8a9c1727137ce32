//! What a lane reads, begins, settles and gives up.

use std::sync::Arc;

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RedriveId, RepositoryId, WatchId},
    kind::{BranchGone, CursorState, HistoryMode, LetterStatus, Operation, ParkReason, WatchState},
};

use super::{KeptAnswer, Remote, RepositoryFacts};
use crate::{
    round::{Change, DeliveryId, Letter, LetterState, Round, TreeEnd},
    time::Timestamp,
    view::View,
};

/// What one look at a cursor shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// The repository whose branch it follows.
    pub repository: RepositoryId,
    /// Whether it has something to do, as [`Store::pending`](crate::ports::Store::pending) says.
    pub is_waiting: bool,
}

/// Everything a lane needs to decide and to deliver.
#[derive(Clone, Debug)]
pub struct LaneSnapshot {
    /// The cursor.
    pub cursor: CursorId,
    /// Its watch.
    pub watch: WatchId,
    /// The app.
    pub app: AppId,
    /// Where content is read and missing objects are fetched.
    pub remote: Remote,
    /// The `repository` object.
    pub facts: RepositoryFacts,
    /// The full name of the branch.
    pub branch: String,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// What a vanished branch means.
    pub on_branch_gone: BranchGone,
    /// Whether the watch is served.
    pub watch_state: WatchState,
    /// Whether the cursor moves.
    pub state: CursorState,
    /// Why not, where it does not.
    pub reason: Option<String>,
    /// What the app held last, and under which view.
    pub held: Option<(ObjectId, View)>,
    /// The watch's view now.
    pub view: View,
    /// The commit its source reported last; `None` while the branch is missing or unborn.
    pub head: Option<ObjectId>,
    /// The number of its last round; 0 before the first.
    pub last_round: i64,
    /// The open round, if there is one.
    pub open: Option<Round>,
    /// Whether its last round was a redrive (they alternate with sync rounds).
    pub last_was_redrive: bool,
    /// A resync was asked for; with `true` as a complete one.
    pub resync: Option<bool>,
    /// What came after this tree, which the app held once, is to be delivered once more.
    pub replay: Option<TreeEnd>,
    /// Every tree of which the app may hold files: the `bases` of a resync begun now. `held` is
    /// the first of them, where there is one.
    pub resync_bases: Vec<TreeEnd>,
    /// Its open letters by path, those whose redrive was asked for marked. At most
    /// [`LANE_LETTERS`](super::LANE_LETTERS): the marked ones first, the others as far as there is room.
    pub letters: Vec<(Letter, LetterStatus)>,
    /// There are more letters than these.
    pub more_letters: bool,
    /// Parks in a row, over rounds.
    pub streak: u32,
    /// The letters of these parks that are still open.
    pub streak_letters: Vec<DeadLetterId>,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Failed tries of the change at `open.position`.
    pub head_attempts: HeadAttempts,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// The next sync round may delete as much as it likes: the guard stopped it once and somebody
    /// resumed the watch since. A redrive in between leaves it to that round.
    pub guard_waived: bool,
    /// Somebody asked that the change at `open.position` be given up by hand.
    pub skip_head: bool,
    /// Somebody asked that the open redrive end.
    pub cancel_open: bool,
    /// When the cursor was made.
    pub created_at: Timestamp,
}

/// The change at the head of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The cursor.
    pub cursor: CursorId,
    /// Its open round.
    pub round: i64,
    /// The change's place in it.
    pub position: u64,
}

/// What the end of redrives came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Letters that waited for a redrive and do so no more.
    pub reopened: u64,
    /// Cursors whose open redrive ends at its next safe point; what it did not reach is reopened.
    pub ending: Vec<CursorId>,
}

/// Failed tries of one change, from its attempt rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadAttempts {
    /// How many.
    pub tries: u32,
    /// How many of them were the item's own fault.
    pub item_tries: u32,
    /// When the first failed.
    pub first_failure: Option<Timestamp>,
    /// When the last failed.
    pub last_failure: Option<Timestamp>,
}

/// A round to be begun. The store refuses it with [`StoreError::Conflict`](super::StoreError::Conflict) if the cursor's held
/// commit, last round or open round is no longer what the snapshot said.
#[derive(Clone, Debug)]
pub struct NewRound {
    /// The round; `position` is 0.
    pub round: Round,
    /// `last_round` of the snapshot it was planned from.
    pub planned_after: i64,
}

/// How far a lane got.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The cursor.
    pub cursor: CursorId,
    /// The round.
    pub round: i64,
    /// The new length of the settled prefix, absolute.
    pub position: u64,
    /// Changes below it that were given up.
    pub parked: Vec<Park>,
    /// Parks in a row after this settlement.
    pub streak: u32,
    /// Whether something was acknowledged.
    pub acknowledged: bool,
    /// What these changes did to the cursor as a whole, in the same transaction.
    pub standing: Standing,
    /// Letters to be sent again next; those that are no longer open are left alone.
    pub redrive: Vec<DeadLetterId>,
    /// The moment.
    pub at: Timestamp,
}

/// What a settled prefix did to its cursor as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    #[default]
    Unchanged,
    /// Too much was given up in a row: it is blocked, and this is why.
    Blocked(String),
    /// Its head was acknowledged: a block is over.
    Unblocked,
}

/// A change that is given up.
#[derive(Clone, Debug)]
pub struct Park {
    /// The id of its dead letter.
    pub id: DeadLetterId,
    /// Its place in the round.
    pub position: u64,
    /// The change.
    pub change: Change,
    /// Its delivery id.
    pub delivery: DeliveryId,
    /// Why.
    pub reason: ParkReason,
    /// What the app has of the path now.
    pub state: LetterState,
    /// The last answer: status and excerpt.
    pub status: Option<u16>,
    /// The excerpt of the last answer.
    pub excerpt: String,
}

/// A failed attempt (or, with `delivery.history = all`, any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The cursor.
    pub cursor: CursorId,
    /// The round.
    pub round: i64,
    /// The change's place.
    pub position: u64,
    /// Which try, from 1.
    pub number: u32,
    /// The delivery id.
    pub delivery: DeliveryId,
    /// The status code; `None` when there was no answer.
    pub status: Option<u16>,
    /// Whether it was the item's own fault.
    pub item_failure: bool,
    /// At most 1,024 characters of the answer.
    pub excerpt: String,
    /// More of the answer, where there was one. Of the changes of a batch the first has it.
    pub answer: Option<Arc<KeptAnswer>>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// When it ended.
    pub at: Timestamp,
}

/// A dead letter as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// The watch.
    pub watch: WatchId,
    /// The cursor.
    pub cursor: CursorId,
    /// The round it was given up in, and its place there.
    pub round: i64,
    /// Its place in that round.
    pub position: u64,
    /// The raw path bytes.
    pub path: Vec<u8>,
    /// What should have happened.
    pub operation: Operation,
    /// The delivery that was given up.
    pub delivery: DeliveryId,
    /// Why.
    pub reason: ParkReason,
    /// Where it stands.
    pub status: LetterStatus,
    /// The last status code.
    pub http_status: Option<u16>,
    /// The last answer's excerpt.
    pub excerpt: String,
    /// The redrive that it was asked for in last, unless that was taken back.
    pub redrive: Option<RedriveId>,
    /// When it was given up.
    pub created_at: Timestamp,
}
