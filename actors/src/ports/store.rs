//! [`Store`]: everything that must survive. Each verb is one transaction; a verb that returned
//! `Ok` is synced to disk.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use thiserror::Error;
use tidings_entity::{
    id::{
        AppId, CursorId, DeadLetterId, ObjectId, ReceiptId, RedriveId, ReplicaId, RepositoryId, Sha256Hash,
        SourceId, ViewId, WatchId,
    },
    kind::{BreakerKind, LetterStatus, ReceiptVerdict},
};

use super::{
    App, AppPatch, AttemptRecord, Backlog, Begun, Cancelled, DeadLetter, Dismissed, Fates, Fence, Glimpse,
    Head, Hook, KeyedRequest, Laggard, LaneSnapshot, LaneTerms, LetterFilter, LetterPage, LetterPick, Moved,
    NewApp, NewRound, NewWatch, PastRound, PinnedTrees, Reach, Receipt, Redrive, RedriveStep, RefListing,
    RoundFacts, RoundFilter, Settlement, Source, StoredAnswer, Watch, WatchPatch,
};
use crate::{
    round::{DeliveryId, Letter, TreeEnd},
    secret::Secret,
    time::Timestamp,
};

/// Why the store did not do it. Nothing was changed, except after [`StoreError::Unavailable`]:
/// then the outcome is unknown and the caller reads again before it decides.
#[derive(Debug, Error, Clone)]
pub enum StoreError {
    /// The database is locked, full, read-only, gone, or this process is stopping.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row holds something that this binary cannot read.
    #[error("a row of {table} cannot be read: {reason}")]
    Undecodable {
        /// The table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Another process took over the work of this one: reload nothing, stop.
    #[error("another process owns this work now")]
    Fenced,
    /// Another replica took over the shard under whose lease this was begun: drop that work.
    #[error("another replica works on this repository now")]
    Lost,
    /// The thing does not exist (any more).
    #[error("not found")]
    NotFound,
    /// The state does not allow it; the text is public.
    #[error("{0}")]
    Conflict(String),
}

/// No honest promise of [`Store::take_permits`] ends later than so long after now.
pub const PERMITS_AHEAD_MAX: Duration = Duration::from_secs(30);

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// SHA-256 of its content.
    pub sha256: Sha256Hash,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it goes as text (valid UTF-8 without NUL).
    pub text: bool,
}

/// A breaker that is not simply closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRow {
    /// What it guards.
    pub kind: BreakerKind,
    /// The id of the source or app.
    pub id: String,
    /// Failures in a row.
    pub failures: u32,
    /// When it opened; `None` while it is closed.
    pub opened_at: Option<Timestamp>,
    /// When the next probe is due.
    pub probe_at: Option<Timestamp>,
    /// The public text of the last failure.
    pub last_error: String,
}

/// Numbers for the overview.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Registered apps.
    pub apps: u64,
    /// Apps that are disabled: nothing is sent to them.
    pub apps_disabled: u64,
    /// Repositories with a watch.
    pub repositories: u64,
    /// Watches.
    pub watches: u64,
    /// Cursors that are behind their head.
    pub behind: u64,
    /// Cursors that are blocked.
    pub blocked: u64,
    /// Open rounds.
    pub open_rounds: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Breakers that are open.
    pub open_breakers: u64,
    /// Age of the oldest unsettled change in milliseconds.
    pub lag_ms: u64,
}

/// Everything that must survive.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// This store for work that was begun under a lease: once that does not stand any more, a verb
    /// that writes changes nothing and is a [`StoreError::Lost`].
    fn under(&self, fence: Fence) -> Arc<dyn Store>;

    // ---- apps -------------------------------------------------------------------------------

    /// Registers an app with its first token, and ends the keyed request that asked for it.
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError>;
    /// One app.
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError>;
    /// All apps, oldest first, after `after`, at most `limit`.
    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError>;
    /// Disables an app whose endpoint answered 410, as [`GONE`](super::GONE), if that endpoint is still the
    /// one that it has. `false`: the app has another one since, or was enabled again; nothing changes.
    async fn disable_gone(&self, id: &AppId, endpoint_since: Timestamp) -> Result<bool, StoreError>;
    /// Changes what an app chose of itself. A rotation while [`KEYS_MAX`](super::KEYS_MAX) keys
    /// live is a [`StoreError::Conflict`].
    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError>;
    /// Promises the time from the answered moment on, for as long as `span`, to this process alone:
    /// in it, and nowhere else, it may send to an app that has a rate. It begins at `now`, or where
    /// the last promise to anybody ends. A promise that ends more than [`PERMITS_AHEAD_MAX`] after
    /// `now` was made before a clock went backwards: then it begins a `span` after `now`.
    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError>;
    /// Removes all rows of an app, and the answer that told its token.
    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError>;

    // ---- watches ----------------------------------------------------------------------------

    /// Registers a watch: finds or makes repository, credential and source, writes the heads of
    /// the proof, makes view, watch and cursor, in one transaction. The same app, repository and
    /// selector again replaces settings and asks for a resync under the same id.
    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError>;
    /// The watches of an app, oldest first, after `after`, at most `limit`.
    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError>;
    /// One watch of an app; foreign ids are [`StoreError::NotFound`] like missing ones.
    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError>;
    /// The trees of a watch that mirrors keep; foreign ids are [`StoreError::NotFound`] as well.
    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError>;
    /// Changes settings.
    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError>;
    /// Replaces the credential (access proved by `listing`): finds or makes the source, writes its
    /// heads, re-points the watch, in one transaction; a source without watches goes.
    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError>;
    /// Asks for a resync of every cursor of a watch: ends open rounds (their trees become bases of
    /// the resync) and unblocks.
    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError>;
    /// The same for one cursor, by the system itself (digest differs, old rules, after a restore).
    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError>;
    /// Unwatches: the rows of the watch go; a source or repository without watches goes too. Whether a
    /// round of it was open: then a lane of it may run, here or on another replica.
    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError>;

    // ---- sources ----------------------------------------------------------------------------

    /// Every repository of these shards with its sources (bulk, at start).
    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError>;
    /// The sources of one repository; empty when nothing watches it any more.
    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError>;
    /// Writes what `ls-refs` said where it differs, follows a renamed default branch, marks and
    /// unmarks missing branches and empty repositories. Equal writes nothing.
    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError>;
    /// Remembers (or with `None` forgets) why the last scan of a source failed.
    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError>;
    /// The watches that see through a source, for notices.
    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError>;

    // ---- lanes ------------------------------------------------------------------------------

    /// The cursors in these shards that have something to do, of one app or of all.
    async fn pending(&self, app: Option<&AppId>, reach: &Reach)
    -> Result<Vec<(AppId, CursorId)>, StoreError>;
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
    /// letters that are still open are superseded (a redrive's: redriven). `end_told`: the app took the notice
    /// that it ended.
    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError>;
    /// Remembers a failed attempt.
    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError>;
    /// The app took a test delivery: cursors that are blocked because it refused everything go on, and what
    /// it refused is sent again, each letter by itself once only.
    async fn end_refusals(&self, app: &AppId) -> Result<(), StoreError>;

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

    // ---- dead letters -----------------------------------------------------------------------

    /// Dead letters of an app that a filter means, newest first, before `before`, at most `limit`.
    /// Looks at no more than [`SEARCH_STEP`](super::SEARCH_STEP) of them.
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError>;
    /// One letter of an app; foreign ids are [`StoreError::NotFound`] like missing ones.
    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError>;
    /// The attempts of one change that are rows, the first first, at most `limit`.
    async fn attempts(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
        limit: u64,
    ) -> Result<Vec<AttemptRecord>, StoreError>;
    /// Open letters of a cursor by path, at most [`LANE_LETTERS`](super::LANE_LETTERS).
    async fn open_letters(
        &self,
        cursor: &CursorId,
        pick: &LetterPick,
    ) -> Result<Vec<(Letter, LetterStatus)>, StoreError>;
    /// Asks that these open letters be sent again, as one redrive. Returns how many and whose
    /// cursors. A superseded letter is a [`StoreError::Conflict`].
    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError>;
    /// Writes down that all open letters which a filter means be sent again, those of later moments
    /// not. Nothing is marked yet: [`Store::mark_redrive`] does that, step by step.
    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError>;
    /// Marks some more letters of this redrive, or of the oldest that is not done. `None`: nothing
    /// is left to mark. Looks at no more than [`REDRIVE_STEP`](super::REDRIVE_STEP) letters.
    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError>;
    /// Closes letters by hand: they are neither redriven nor counted as open any more. All of them, or
    /// none: one that is superseded or redriven, and one that the open round of its cursor sends, is a
    /// [`StoreError::Conflict`]. One that was dismissed before stays as it is. How many were closed.
    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError>;
    /// Closes some of the open letters that a filter means, newest first, before `before`; those that an
    /// open round sends stay. Looks at no more than [`REDRIVE_STEP`](super::REDRIVE_STEP) letters.
    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError>;
    /// Redrives of an app, newest first, before `before`, at most `limit`.
    async fn redrives(
        &self,
        app: &AppId,
        before: Option<&RedriveId>,
        limit: u64,
    ) -> Result<Vec<Redrive>, StoreError>;
    /// One of them; foreign ids are [`StoreError::NotFound`] as well.
    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError>;

    /// Asks that the head of a cursor of this watch be given up by hand; without `cursor`, of the
    /// one that has an open round. A head that is not `expected` any more, where that is given, and
    /// a watch of which nothing is being delivered, are a [`StoreError::Conflict`].
    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError>;
    /// Where a watch held this commit: its cursor (the one named, where `cursor` is given), and the
    /// tree under the view it was held with last. A commit that it never held, and one that several
    /// cursors held while none is named, are a [`StoreError::Conflict`].
    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError>;
    /// Asks that what came between a tree that [`Store::was_held`] and what is held now be delivered
    /// once more, as the next round; the last word counts. A resync that is to come takes it in: that
    /// tree is one of its bases. Where nothing is held it is a [`StoreError::Conflict`].
    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError>;
    /// Forgets that a replay from this commit was asked for: there is nothing to deliver.
    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError>;
    /// Takes back every request for a redrive of an app, or of one watch of it: letters that wait
    /// are reopened, some thousand a transaction, then open redrives are asked to end. Killed in
    /// between, it may be asked for again.
    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError>;
    /// Ends an open redrive early: the letters that it `reached` are redriven, the others stay open.
    /// `Ok(false)`: it is not the open round.
    async fn end_redrive(
        &self,
        cursor: &CursorId,
        round: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Open letters that were given up because their content could be had nowhere, oldest first,
    /// after `after`, at most `limit`.
    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError>;

    // ---- history ----------------------------------------------------------------------------

    /// Rounds of an app that a filter means, at most `limit`, in the order of its place.
    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError>;
    /// One round of an app with all that its list is made of; foreign cursors are
    /// [`StoreError::NotFound`] like missing ones.
    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError>;
    /// What became of a range of a round's changes, at one moment; the range is a window's.
    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError>;
    /// The last change of a round below a position that was given up.
    async fn last_parked(&self, cursor: &CursorId, round: i64, below: u64)
    -> Result<Option<u64>, StoreError>;
    /// Cursor, round and position of a delivery of an app that failed or was given up; of others
    /// there is no row, and `None`.
    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError>;

    // ---- receipts ---------------------------------------------------------------------------

    /// Takes a genuine hook in: judges it by what is watched and writes its receipt, or finds that
    /// its delivery id was received before ([`ReceiptVerdict::Duplicate`], which writes nothing).
    /// Remembers at the repositories it names that hooks of theirs arrive. Receipts beyond
    /// [`RECEIPTS_MAX`](super::RECEIPTS_MAX) go, the oldest first.
    async fn receive(&self, hook: &Hook) -> Result<Receipt, StoreError>;
    /// Writes that a hook was refused or repeated. Such receipts beyond
    /// [`NOTED_RECEIPTS_MAX`](super::NOTED_RECEIPTS_MAX) go, the oldest first.
    async fn note_receipt(&self, receipt: &Receipt) -> Result<(), StoreError>;
    /// Receipts, newest first, before `before`, at most `limit`.
    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError>;
    /// Judges a received hook again, by what is watched now. A refused one is a
    /// [`StoreError::Conflict`]: nobody knows who sent it; so is a repetition.
    async fn replay(&self, id: &ReceiptId, at: Timestamp) -> Result<Receipt, StoreError>;

    // ---- keyed requests ---------------------------------------------------------------------

    /// Begins a keyed request in the process `runner`, or says what became of the one that had its key
    /// before. One without an answer runs as long as its process lives: that is `runner` itself, or a
    /// replica that said lately that it lives. Otherwise it was cut off and begins again. Of an
    /// owner with more than [`ANSWERS_MAX`](super::ANSWERS_MAX) the oldest answers are forgotten, never
    /// a request that runs.
    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError>;
    /// Remembers what a running request was answered, or with `None` frees its key. One that is
    /// answered, or gone, stays as it is.
    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError>;

    // ---- blobs, breakers, upkeep ------------------------------------------------------------

    /// What is known of blobs, in the order asked.
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError>;
    /// Remembers blobs. May be lost in a crash: it is a cache.
    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError>;
    /// All breakers that have failures.
    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError>;
    /// Writes a breaker; one with no failures is removed. One that does not say that it is open changes
    /// nothing of one that is: its replica has not heard of that yet.
    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError>;
    /// Takes the probe of an open breaker if it is due, moving `probe_at` to `next`.
    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError>;
    /// The commits of a repository that mirrors must keep: held, targets and bases of open rounds.
    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError>;
    /// Removes history and unused blobs older than their age, and keyed requests older than
    /// [`ANSWERS_KEPT`](super::ANSWERS_KEPT), at most `limit` rows. Returns how many rows went.
    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Removes the oldest ended rounds of apps whose ended rounds, with their settled ranges and
    /// attempts, are more than `most` rows, at most `limit` rows. A round that an open letter names
    /// stays, and so does everything of an open one. Returns how many rows went.
    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError>;
    /// Numbers for the overview.
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError>;
    /// How far watches are behind, and what was given up. Watches that are not served (paused, or of a
    /// disabled app) are not behind. Costs what is behind, not what is watched.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;
    /// The branches of served watches that are behind for longest, at most `limit`.
    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError>;
    /// A read that proves the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
