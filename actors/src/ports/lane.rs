//! What a lane reads, begins, settles and gives up.

use std::{ops::Range, sync::Arc};

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RedriveId, RepositoryId, SinkId, SourceId, WatchId},
    kind::{BranchGone, CursorState, HistoryMode, LetterStatus, Operation, ParkReason, WatchState},
};

use super::{KeptAnswer, Remote, RepositoryFacts};
use crate::{
    round::{Change, DeliveryId, Letter, Round, TreeEnd},
    time::Timestamp,
    view::View,
};

/// What one look at a cursor shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// The repository whose branch it follows.
    pub repository: RepositoryId,
    /// The sink that its watch has for itself; `None`: that of its app.
    pub sink: Option<SinkId>,
    /// Whether it has something to do, as [`Store::pending`](crate::ports::LaneStore::pending) says.
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
    /// The sink that its watch has for itself; `None`: that of its app.
    pub sink: Option<SinkId>,
    /// The repository as it is seen with the credential of its watch.
    pub source: SourceId,
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
    /// Why that commit cannot be had. It is asked for again by the polls of its source, never by a lane.
    pub head_fault: Option<String>,
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
    /// What was given up in a row.
    pub streak: Streak,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Failed tries of the change at `open.position`, at the endpoint that the app has now.
    pub head_attempts: HeadAttempts,
    /// What of the open round is settled above `open.position`.
    pub above: Vec<Range<u64>>,
    /// The app was told that the open round, a resync, begins.
    pub announced: bool,
    /// Nothing of the open round was acknowledged: all that is settled was given up.
    pub untouched: bool,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// Whether the app never acknowledged anything of this watch.
    pub is_new: bool,
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

/// What people can change about a lane that runs: a lane that was opened under other terms reads its rows
/// again. Whatever else they change counts from the next round on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneTerms {
    /// Whether its watch is paused.
    pub is_paused: bool,
    /// The source that its watch sees the repository through: another one after a new credential.
    pub source: SourceId,
    /// The sink that its watch has for itself: a lane of another one is not this deliverer's.
    pub sink: Option<SinkId>,
    /// The open round; a resync ends it.
    pub round: Option<i64>,
    /// The position that is to be given up by hand, while it is not settled.
    pub skip: Option<u64>,
    /// Whether the open round, a redrive, is to end early.
    pub is_cancelled: bool,
    /// Whether it is blocked because the app refused too much and never took anything.
    pub refuses_everything: bool,
}

impl LaneTerms {
    /// Those under which a lane is opened from these rows.
    #[must_use]
    pub fn of(lane: &LaneSnapshot) -> Self {
        Self {
            is_paused: lane.watch_state == WatchState::Paused,
            source: lane.source.clone(),
            sink: lane.sink.clone(),
            round: lane.open.as_ref().map(|round| round.number),
            skip: lane.open.as_ref().filter(|_| lane.skip_head).map(|round| round.position),
            is_cancelled: lane.cancel_open,
            refuses_everything: lane.streak.refuses_everything(lane.acknowledged),
        }
    }

    /// Whether a lane that was opened under these may go on under what holds `now`. A skip that is
    /// done is no reason to read anything again.
    #[must_use]
    pub fn last_under(&self, now: &Self) -> bool {
        let is_skip_known = now.skip.is_none() || now.skip == self.skip;
        is_skip_known && *now == Self { skip: now.skip, ..self.clone() }
    }
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
    /// Tries at endpoints that the app had before; all else is of the one that it has now.
    pub earlier: u32,
    /// How many.
    pub tries: u32,
    /// How many of them were the item's own fault.
    pub item_tries: u32,
    /// When the first failed.
    pub first_failure: Option<Timestamp>,
    /// When the last failed.
    pub last_failure: Option<Timestamp>,
}

/// A round to be begun. The store refuses it with [`StoreError::Conflict`](super::StoreError::Conflict) if
/// the cursor's held commit, last round or open round is no longer what the snapshot said.
#[derive(Clone, Debug)]
pub struct NewRound {
    /// The round; `position` is 0.
    pub round: Round,
    /// `last_round` of the snapshot it was planned from.
    pub planned_after: i64,
}

/// Changes that an app which never acknowledged one may refuse before its cursor is blocked.
pub const REFUSALS_MAX: u32 = 1_000;

/// What was given up of a cursor in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Counted parks with neither an acknowledgement nor a refusal between, over rounds.
    pub count: u32,
    /// Round and position of the first of them.
    pub from: Option<(i64, u64)>,
    /// Changes that the app refused, while it never acknowledged one.
    pub refused: u32,
}

impl Streak {
    /// Whether an app that never took anything refused so much that its cursor is blocked.
    #[must_use]
    pub fn refuses_everything(&self, acknowledged: bool) -> bool {
        self.refused >= REFUSALS_MAX && !acknowledged
    }
}

/// Letters that are sent again by themselves, each once only, because the receiver is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfRedrive {
    /// Round and position of the first park whose letter is meant.
    pub from: (i64, u64),
    /// Round and position of what showed that the receiver is well; letters before it are meant.
    pub before: (i64, u64),
    /// Only those of counted parks.
    pub counted: bool,
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
    /// What is settled above it, by a lane that ends.
    pub above: Vec<Range<u64>>,
    /// The prefix passes what was settled above it before.
    pub absorbs: bool,
    /// Changes below it, or among those above, that were given up.
    pub parked: Vec<Park>,
    /// What was given up in a row, after this settlement.
    pub streak: Streak,
    /// Whether something was acknowledged.
    pub acknowledged: bool,
    /// What these changes did to the cursor as a whole, in the same transaction.
    pub standing: Standing,
    /// Letters to be sent again next.
    pub redrive: Vec<SelfRedrive>,
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

/// A change that is given up. Its letter remembers what the app had before: what an older open letter
/// of the path remembers, or else the old entry of this change.
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
    /// Why the change is parked.
    pub reason: ParkReason,
    /// Whether it counts among the parks in a row that block a cursor.
    pub counted: bool,
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
    /// When the change was to be tried again; `None`: it was acknowledged or given up.
    pub next_at: Option<Timestamp>,
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
    /// Why the change was parked.
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
