//! The data that a lane reads, begins, settles and parks.

pub(super) mod history;
pub(super) mod letter;

use std::{ops::Range, sync::Arc};

use tidings_entity::{
    id::{
        AppId, CursorId, DeadLetterId, ObjectId, RedriveId, RepositoryId, SinkId, SourceId, TaskId, WatchId,
    },
    kind::{BranchGone, CursorState, HistoryMode, LetterStatus, Operation, ParkReason, WatchState},
};

use super::{KeptAnswer, Remote, RepositoryFacts};
use crate::{
    model::round::{Change, DeliveryId, Letter, Round, TreeEnd},
    model::view::View,
    time::Timestamp,
};

/// A short look at a cursor, before its lane is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// The repository whose branch it follows.
    pub repository: RepositoryId,
    /// The sink of its watch; `None`: the sink of its app.
    pub sink: Option<SinkId>,
    /// Whether the lane has work, as [`Store::pending`](crate::ports::LaneStore::pending) defines it.
    pub is_waiting: bool,
}

/// Everything a lane needs to decide and to deliver.
#[derive(Clone, Debug)]
pub struct LaneSnapshot {
    /// The cursor whose changes the lane delivers.
    pub cursor: CursorId,
    /// The watch that the cursor belongs to.
    pub watch: WatchId,
    /// The app that the changes are delivered to.
    pub app: AppId,
    /// The sink of this watch alone; `None`: the sink of its app.
    pub sink: Option<SinkId>,
    /// The source through which the watch reads the repository.
    pub source: SourceId,
    /// Where content is read and missing objects are fetched.
    pub remote: Remote,
    /// The `repository` object of bodies.
    pub facts: RepositoryFacts,
    /// The full name of the branch.
    pub branch: String,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// The setting for a branch that vanished.
    pub on_branch_gone: BranchGone,
    /// Whether the watch is served.
    pub watch_state: WatchState,
    /// Whether the cursor moves.
    pub state: CursorState,
    /// Why the cursor is not active; `None` while it is.
    pub reason: Option<String>,
    /// The commit that the app held last, and the view of that time.
    pub held: Option<(ObjectId, View)>,
    /// The watch's view now.
    pub view: View,
    /// The commit its source reported last; `None` while the branch is missing or unborn.
    pub head: Option<ObjectId>,
    /// Why the head commit cannot be fetched. The polls of its source ask for it again, a lane never does.
    pub head_fault: Option<String>,
    /// The number of its last round; 0 before the first.
    pub last_round: i64,
    /// The open round, if there is one.
    pub open: Option<Round>,
    /// Whether tasks of the cursor are unfinished: no round begins before they have ended.
    pub has_tasks: bool,
    /// Whether the last round of the cursor was a redrive: redrives alternate with sync rounds.
    pub last_was_redrive: bool,
    /// A resync was asked for; with `true` as a complete one.
    pub resync: Option<bool>,
    /// A replay was asked for: changes after this tree, which the app once held, are sent again.
    pub replay: Option<TreeEnd>,
    /// Every tree of which the app may hold files: the `bases` of a resync that begins now. `held`, if
    /// present, is the first of them.
    pub resync_bases: Vec<TreeEnd>,
    /// The open dead letters of the cursor by path, with those marked for a redrive. At most
    /// [`LANE_LETTERS`](super::LANE_LETTERS): the marked ones first, the others as far as there is room.
    pub letters: Vec<(Letter, LetterStatus)>,
    /// There are more letters than those in `letters`.
    pub more_letters: bool,
    /// The parks in a row, which block the cursor when there are too many.
    pub streak: Streak,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Failed tries of the change at `open.position`, at the endpoint that the app has now.
    pub head_attempts: HeadAttempts,
    /// The ranges of the open round above `open.position` that are settled.
    pub above: Vec<Range<u64>>,
    /// Whether the app was told of the beginning of the open round, a resync.
    pub announced: bool,
    /// Whether no change of the open round was acknowledged: all settled changes were parked.
    pub untouched: bool,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// Whether the app never acknowledged anything of this watch.
    pub is_new: bool,
    /// Whether the next sync round may delete any number of files: the guard stopped it once, and the watch
    /// was resumed since. A redrive in between leaves the permission to that round.
    pub guard_waived: bool,
    /// Whether an operator or the app asked to skip the change at `open.position`.
    pub skip_head: bool,
    /// Whether the app or the staff asked to end the open redrive early.
    pub cancel_open: bool,
    /// When the cursor was created.
    pub created_at: Timestamp,
}

/// What people can change about a running lane. A lane that was opened under other terms reads its rows
/// again; other changes take effect with the next round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneTerms {
    /// Whether the watch of the lane is paused.
    pub is_paused: bool,
    /// The source through which the watch reads the repository: changes with the credential.
    pub source: SourceId,
    /// The sink of this watch alone; a lane for another sink belongs to another deliverer.
    pub sink: Option<SinkId>,
    /// The number of the open round; a resync ends that round.
    pub round: Option<i64>,
    /// The position to be skipped, while it is not settled.
    pub skip: Option<u64>,
    /// Whether the open round, a redrive, is to end early.
    pub is_cancelled: bool,
    /// Whether the cursor is blocked because the app refused too many changes and acknowledged none.
    pub refuses_everything: bool,
}

impl LaneTerms {
    /// The terms under which a lane is opened from these rows.
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

    /// Whether a lane that was opened under these terms may go on under the terms `now`. A skip that was
    /// carried out is no reason to read the rows again.
    #[must_use]
    pub fn last_under(&self, now: &Self) -> bool {
        let is_skip_known = now.skip.is_none() || now.skip == self.skip;
        is_skip_known && *now == Self { skip: now.skip, ..self.clone() }
    }
}

/// The change at the head of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The cursor whose head this is.
    pub cursor: CursorId,
    /// The number of the cursor's open round.
    pub round: i64,
    /// The position of the change in that round.
    pub position: u64,
    /// The task that the change is: its cancel skips the change.
    pub task: Option<TaskId>,
}

/// The result of ending redrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Letters that waited for a redrive and do so no more.
    pub reopened: u64,
    /// Cursors whose open redrive ends at its next safe point; the letters that it did not reach are
    /// reopened.
    pub ending: Vec<CursorId>,
}

/// Failed tries of one change, from its attempt rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadAttempts {
    /// Failed attempts at earlier endpoints of the app; the other fields count only its present endpoint.
    pub earlier: u32,
    /// The number of failed attempts.
    pub tries: u32,
    /// How many of the attempts failed because of this one change, and not of the endpoint.
    pub item_tries: u32,
    /// When the first of the attempts failed.
    pub first_failure: Option<Timestamp>,
    /// When the last of the attempts failed.
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

/// Counted parks in a row that block a cursor.
pub const STREAK_MAX: u32 = 10;
/// Changes that an app which never acknowledged one may refuse before its cursor is blocked.
pub const REFUSALS_MAX: u32 = 1_000;

/// The changes of a cursor that were parked in a row.
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
    /// Whether an app that has never accepted a change refused so many that its cursor is blocked.
    #[must_use]
    pub fn refuses_everything(&self, acknowledged: bool) -> bool {
        self.refused >= REFUSALS_MAX && !acknowledged
    }

    /// Whether the answers of the app block the cursor. A shorter streak does not: then a block has another
    /// reason.
    #[must_use]
    pub fn blocks(&self, acknowledged: bool) -> bool {
        self.count >= STREAK_MAX || self.refuses_everything(acknowledged)
    }
}

/// Letters that are sent again by themselves, each once only, because the receiver is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfRedrive {
    /// Round and position of the first park whose letter is meant.
    pub from: (i64, u64),
    /// Round and position of the change that showed that the receiver works; only letters before it are
    /// selected.
    pub before: (i64, u64),
    /// Only letters of parks that counted.
    pub counted: bool,
}

/// The progress of a lane, to be written in one transaction.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The cursor of the lane.
    pub cursor: CursorId,
    /// The number of the round.
    pub round: i64,
    /// The new length of the settled prefix: the number of changes from the start of the round.
    pub position: u64,
    /// Ranges above the prefix that are settled; only a lane that ends writes them.
    pub above: Vec<Range<u64>>,
    /// Whether the prefix passes ranges that were settled above it earlier.
    pub absorbs: bool,
    /// Changes of the new part of the prefix, or of `above`, that were parked.
    pub parked: Vec<Park>,
    /// The number of parks in a row, after this settlement.
    pub streak: Streak,
    /// Whether a change was acknowledged.
    pub acknowledged: bool,
    /// The new state of the cursor, written in the same transaction.
    pub standing: Standing,
    /// Dead letters that are redriven next without being asked.
    pub redrive: Vec<SelfRedrive>,
    /// When the lane settled these changes.
    pub at: Timestamp,
}

/// The effect of a settled prefix on the state of its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The state of the cursor stays.
    #[default]
    Unchanged,
    /// Too many changes in a row were parked: the cursor is blocked, for this reason.
    Blocked(String),
    /// The change at the head was acknowledged: the cursor is no longer blocked.
    Unblocked,
}

/// A change that is parked. Its dead letter stores the file that the app had before: from an older open
/// letter of the path, or else the old entry of this change.
#[derive(Clone, Debug)]
pub struct Park {
    /// The id of its dead letter.
    pub id: DeadLetterId,
    /// The position of the change in its round.
    pub position: u64,
    /// The change that is parked.
    pub change: Change,
    /// The id that the change was sent with.
    pub delivery: DeliveryId,
    /// Why the change is parked.
    pub reason: ParkReason,
    /// Whether the park counts among the parks in a row that block a cursor.
    pub counted: bool,
    /// The last answer: status and excerpt.
    pub status: Option<u16>,
    /// The excerpt of the last answer.
    pub excerpt: String,
}

/// A failed attempt (or, with `delivery.history = all`, any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The cursor of the change.
    pub cursor: CursorId,
    /// The number of the round.
    pub round: i64,
    /// The position of the change in the round.
    pub position: u64,
    /// The number of the attempt among those of this change, from 1.
    pub number: u32,
    /// The id that the change was sent with (`webhook-id`).
    pub delivery: DeliveryId,
    /// The status code of the answer; `None` when there was no answer.
    pub status: Option<u16>,
    /// Whether the failure concerns this one change, and not the endpoint as a whole.
    pub item_failure: bool,
    /// At most 1,024 characters of the answer.
    pub excerpt: String,
    /// More of the answer, where there was one. Of the changes of a batch the first has it.
    pub answer: Option<Arc<KeptAnswer>>,
    /// How long the attempt took, in milliseconds.
    pub took_ms: u64,
    /// When the attempt ended.
    pub at: Timestamp,
    /// When the next attempt is due; `None`: the change was acknowledged or parked.
    pub next_at: Option<Timestamp>,
}

/// What may be handed over of an open round now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOverRoom {
    /// The changes that may be handed over; empty: nothing before a task ends or is claimed.
    pub positions: Range<u64>,
    /// Whether every change of the round has ended.
    pub is_settled: bool,
    /// Whether the round becomes one task: then the positions are those of that task, 0..1 or none.
    pub per_round: bool,
}

/// A change of a round on its way to the queue of its sink.
#[derive(Clone, Debug)]
pub struct HandedChange {
    /// The id of the task that it becomes, unless it redrives a dead letter that names a task.
    pub task: TaskId,
    /// The id of the delivery that its payload names.
    pub delivery: DeliveryId,
    /// The change of the round that becomes a task; with an empty path: the whole round.
    pub change: Change,
    /// The payload; `Err`: why the content of the file is not available. Such a change becomes a dead letter.
    pub payload: Result<String, String>,
}

/// The next changes of an open round, to become tasks in one transaction.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// The cursor of the round.
    pub cursor: CursorId,
    /// The number of the round.
    pub round: i64,
    /// The position of the first of the changes.
    pub from: u64,
    /// The changes, in their order.
    pub changes: Vec<HandedChange>,
}

/// A dead letter as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Id of the dead letter, `dead_` and a ULID.
    pub id: DeadLetterId,
    /// The watch of the change.
    pub watch: WatchId,
    /// The cursor, that is the branch, of the change.
    pub cursor: CursorId,
    /// The number of the round in which the change was parked.
    pub round: i64,
    /// The position of the change in that round.
    pub position: u64,
    /// The path of the file as the raw bytes of Git.
    pub path: Vec<u8>,
    /// Whether the file was created, updated or deleted.
    pub operation: Operation,
    /// The id of the delivery that was parked.
    pub delivery: DeliveryId,
    /// The task that the change was; `None`: the watch has another sink.
    pub task: Option<TaskId>,
    /// Why the change was parked.
    pub reason: ParkReason,
    /// Whether the letter is open, to be redriven, redriven, superseded or dismissed.
    pub status: LetterStatus,
    /// The status code of the last answer; `None` when there was no answer.
    pub http_status: Option<u16>,
    /// The last answer's body or the reason that there was none, at most 1,024 characters.
    pub excerpt: String,
    /// The redrive that the letter was last selected for, unless that selection was cancelled.
    pub redrive: Option<RedriveId>,
    /// When the change was parked.
    pub created_at: Timestamp,
}
