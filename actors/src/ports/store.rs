//! [`Store`]: everything that must survive. Each verb is one transaction; a verb that returned
//! `Ok` is synced to disk.

use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RepositoryId, Sha256Hash, SourceId, ViewId, WatchId},
    kind::{
        BreakerKind, CursorState, HistoryMode, LetterStatus, Operation, OrderMode, ParkReason, RetryPolicy,
        SelectorKind, WatchState,
    },
};

use super::{RefListing, Remote, RepositoryFacts};
use crate::{
    round::{Change, DeliveryId, Letter, LetterState, Round, TreeEnd},
    secret::Secret,
    time::Timestamp,
    view::View,
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
    /// The thing does not exist (any more).
    #[error("not found")]
    NotFound,
    /// The state does not allow it; the text is public.
    #[error("{0}")]
    Conflict(String),
}

/// An app as it is registered.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Its id.
    pub id: AppId,
    /// Its name, 3 to 100 characters.
    pub name: String,
    /// Contact address.
    pub email: String,
    /// Where it receives; `None` for pull.
    pub base_url: Option<String>,
    /// A web page about it.
    pub website: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The public part of its token, unique.
    pub token_public_id: String,
    /// SHA-256 of its token.
    pub token_hash: Sha256Hash,
    /// The signing key.
    pub signing_key: Secret,
    /// How it wants to be served.
    pub delivery: DeliverySettings,
    /// The moment of registration.
    pub created_at: Timestamp,
}

/// How an app wants to be served.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// Whether sends of one cursor may overlap.
    pub order: OrderMode,
    /// Most attempts in flight per cursor (`phased`; 1 to 64).
    pub max_in_flight: u32,
    /// How the wait between tries grows.
    pub retry_policy: RetryPolicy,
    /// The first wait, in milliseconds; the server's setting where `None`.
    pub retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds; the server's setting where `None`.
    pub retry_cap_ms: Option<u64>,
    /// How long endpoint failures are retried before the watch is blocked, in milliseconds.
    pub retry_window_ms: Option<u64>,
    /// Wants `/synced` after each round.
    pub synced: bool,
    /// Wants `/resync` before each resync.
    pub resync: bool,
    /// Wants `/sync_recovered`.
    pub sync_recovered: bool,
    /// Keys by (repository, branch, path), so that pattern selectors are safe for it.
    pub multi_branch: bool,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            order: OrderMode::Strict,
            max_in_flight: 8,
            retry_policy: RetryPolicy::ExpFullJitter,
            retry_base_ms: None,
            retry_cap_ms: None,
            retry_window_ms: None,
            synced: false,
            resync: false,
            sync_recovered: false,
            multi_branch: false,
        }
    }
}

/// An app as it is served.
#[derive(Clone, Debug)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Contact address.
    pub email: String,
    /// Where it receives; `None` for pull.
    pub base_url: Option<String>,
    /// SHA-256 of its token, compared in constant time.
    pub token_hash: Sha256Hash,
    /// Signing keys, the current one first.
    pub keys: Vec<Secret>,
    /// How it wants to be served.
    pub delivery: DeliverySettings,
    /// Why it is not served, where it is not (410, by hand).
    pub disabled: Option<String>,
    /// The moment of registration.
    pub created_at: Timestamp,
}

/// Which refs a watch follows: a kind, and the name or glob of it (empty for the default branch).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Selector {
    /// The kind.
    pub kind: SelectorKind,
    /// Short branch name, or a glob over short names.
    pub value: String,
}

/// Where a new watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From nothing: every file.
    All,
    /// From this commit on.
    At(ObjectId),
}

/// A registration of a watch, access already proved by `listing`.
#[derive(Clone, Debug)]
pub struct NewWatch {
    /// The id it gets if the app has no watch with this repository and selector.
    pub id: WatchId,
    /// The app.
    pub app: AppId,
    /// The normalised address; names the repository.
    pub url: String,
    /// What bodies show: the address as given, owner, name.
    pub facts: RepositoryFacts,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// The credential; never shared between apps.
    pub credential: Option<Secret>,
    /// Which refs.
    pub selector: Selector,
    /// Which files.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// Where to start.
    pub start: Start,
    /// The proof of access: written as heads of the source.
    pub listing: RefListing,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// The moment of registration.
    pub created_at: Timestamp,
}

/// A watch as its app sees it.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Its id: `repository_id` on the wire.
    pub id: WatchId,
    /// Its app.
    pub app: AppId,
    /// The repository.
    pub repository: RepositoryId,
    /// The source it sees it through.
    pub source: SourceId,
    /// What bodies show.
    pub facts: RepositoryFacts,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// Whether it has a credential.
    pub has_credential: bool,
    /// Which refs.
    pub selector: Selector,
    /// Which files.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// Whether it is served.
    pub state: WatchState,
    /// Why it is paused, where it is.
    pub reason: Option<String>,
    /// The moment of registration.
    pub created_at: Timestamp,
    /// Its cursors.
    pub cursors: Vec<CursorStatus>,
    /// What the last failed scan of its source said; `None` after a good one.
    pub last_error: Option<String>,
}

/// Where one branch of a watch stands.
#[derive(Clone, Debug)]
pub struct CursorStatus {
    /// The cursor.
    pub id: CursorId,
    /// The full ref name.
    pub branch: String,
    /// The commit the app held last.
    pub held: Option<ObjectId>,
    /// The commit its source reported last.
    pub head: Option<ObjectId>,
    /// Whether it moves.
    pub state: CursorState,
    /// Why not, where it does not.
    pub reason: Option<String>,
    /// The number of its open round, its settled prefix and its total.
    pub open: Option<(i64, u64, u64)>,
    /// Number of open dead letters.
    pub dead_letters: u64,
    /// When the head moved away from `held`, where it did: the beginning of its lag.
    pub behind_since: Option<Timestamp>,
}

/// New settings of a watch; `None` leaves one as it is. A changed view or selector is delivered as
/// the next round, never in the middle of one.
#[derive(Clone, Debug, Default)]
pub struct WatchPatch {
    /// Which files.
    pub view: Option<View>,
    /// Net changes or every commit.
    pub mode: Option<HistoryMode>,
    /// Whether it is served, and why not.
    pub state: Option<(WatchState, Option<String>)>,
}

/// A source that must be polled.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// What a poll needs to know.
    pub remote: Remote,
    /// Full names or prefixes of the refs that its watches follow; HEAD is always asked for.
    pub patterns: Vec<String>,
    /// Whether some watch needs every commit.
    pub every: bool,
    /// Commits held by its cursors and heads known before: what a fetch may name as present.
    pub haves: Vec<ObjectId>,
    /// When a head of it moved last (its creation, if never).
    pub last_change: Timestamp,
}

/// What moving heads led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether any head was written.
    pub changed: bool,
    /// Whether a followed ref is absent from a repository that has others.
    pub absent: bool,
    /// The cursors of the source that are behind their head now, with their apps; also where this
    /// listing wrote nothing, so that a lane which missed a hint gets another one.
    pub cursors: Vec<(AppId, CursorId)>,
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
    /// Every tree of which the app may hold files: the `bases` of a resync begun now. `held` is
    /// the first of them, where there is one.
    pub resync_bases: Vec<TreeEnd>,
    /// Its open letters; those whose redrive was asked for are marked.
    pub letters: Vec<(Letter, LetterStatus)>,
    /// Parks in a row, over rounds.
    pub streak: u32,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Failed tries of the change at `open.position`.
    pub head_attempts: HeadAttempts,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// The next round may delete as much as it likes: the guard stopped it once and somebody
    /// resumed the watch since.
    pub guard_waived: bool,
    /// When the cursor was made.
    pub created_at: Timestamp,
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

/// A round to be begun. The store refuses it with [`StoreError::Conflict`] if the cursor's held
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
    /// The moment.
    pub at: Timestamp,
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
#[derive(Clone, Debug)]
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
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// When it ended.
    pub at: Timestamp,
}

/// A dead letter as people see it.
#[derive(Clone, Debug)]
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
    /// When it was given up.
    pub created_at: Timestamp,
}

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
    // ---- apps -------------------------------------------------------------------------------

    /// Registers an app.
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError>;
    /// The app with this public token id; the caller compares the hash.
    async fn app_by_token(&self, public_id: &str) -> Result<Option<App>, StoreError>;
    /// One app.
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError>;
    /// All apps, oldest first, after `after`, at most `limit`.
    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError>;
    /// Stops serving an app (410), or serves it again with `None`.
    async fn set_app_disabled(&self, id: &AppId, reason: Option<&str>) -> Result<(), StoreError>;
    /// Removes all rows of an app.
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
    /// Unwatches: the rows of the watch go; a source or repository without watches goes too.
    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<(), StoreError>;

    // ---- sources ----------------------------------------------------------------------------

    /// Every repository with its sources (bulk, at start).
    async fn repositories(&self) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError>;
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

    /// The cursors that have something to do, of one app or of all.
    async fn pending(&self, app: Option<&AppId>) -> Result<Vec<(AppId, CursorId)>, StoreError>;
    /// Everything a lane needs. Flushes the writer first.
    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError>;
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
    /// letters that are still open are superseded (a redrive's: redriven).
    async fn finish_round(&self, cursor: &CursorId, round: i64, at: Timestamp) -> Result<bool, StoreError>;
    /// Remembers a failed attempt.
    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError>;
    /// Blocks a cursor with a reason, or unblocks it with `None`; unblocking ends the streak.
    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError>;

    /// Pauses the watch of a cursor because its next round would delete too much. After somebody
    /// resumed it, the next round of this cursor passes the guard.
    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError>;

    // ---- dead letters -----------------------------------------------------------------------

    /// Dead letters of an app, newest first, before `before`, at most `limit`.
    async fn dead_letters(
        &self,
        app: &AppId,
        status: Option<LetterStatus>,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<DeadLetter>, StoreError>;
    /// Asks that open letters be sent again; empty `ids`: all open ones of the app. Returns how
    /// many and whose cursors. A superseded letter is a [`StoreError::Conflict`].
    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError>;

    // ---- blobs, breakers, upkeep ------------------------------------------------------------

    /// What is known of blobs, in the order asked.
    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError>;
    /// Remembers blobs. May be lost in a crash: it is a cache.
    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError>;
    /// All breakers that have failures.
    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError>;
    /// Writes a breaker; one with no failures is removed.
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
    /// Removes history and unused blobs older than their age, at most `limit` rows. Returns how
    /// many rows went.
    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError>;
    /// Numbers for the overview.
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError>;
    /// A read that proves the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
