//! Watches, their cursors and the sources that they see repositories through.

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::{
    id::{AppId, CursorId, ObjectId, RepositoryId, SourceId, WatchId},
    kind::{BranchGone, CursorState, HistoryMode, SelectorKind, WatchState},
};

use super::{Extent, NewSink, RefListing, RefPatterns, Remote, RepositoryFacts, SinkKey, WatchSink};
use crate::{follow::Followed, round::TreeEnd, secret::Secret, time::Timestamp, view::View};

/// Which refs a watch follows: a kind, and the name or glob of it (empty for the default branch). What it
/// means is decided in [`crate::selector`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Selector {
    /// The kind.
    pub kind: SelectorKind,
    /// A short branch name, a glob over short names of branches or tags, or a full ref name or a glob over
    /// full names (`refs/pull/*/head`).
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
    /// The id it gets if the app has no watch with this repository, selector and alias.
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
    /// Tells it from other watches of the same refs: `[a-z0-9-]`, at most 40 characters; mostly empty.
    pub alias: String,
    /// The sink that it has for itself; `None`: that of its app.
    pub sink: Option<NewSink>,
    /// Which files.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// What a vanished branch means; `Keep` unless the selector is a pattern.
    pub on_branch_gone: BranchGone,
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
    /// The normalised address of the repository.
    pub url: String,
    /// What bodies show.
    pub facts: RepositoryFacts,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// Whether it has a credential.
    pub has_credential: bool,
    /// Which refs.
    pub selector: Selector,
    /// Tells it from other watches of the same refs.
    pub alias: String,
    /// The sink that it has for itself; `None`: that of its app.
    pub sink: Option<WatchSink>,
    /// Which files.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// What a vanished branch means.
    pub on_branch_gone: BranchGone,
    /// Whether it is served.
    pub state: WatchState,
    /// Why it is paused, where it is.
    pub reason: Option<String>,
    /// The moment of registration.
    pub created_at: Timestamp,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// Its cursors.
    pub cursors: Vec<CursorStatus>,
    /// What the last failed scan of its source said; `None` after a good one.
    pub last_error: Option<String>,
    /// The address at which its source is asked, where its host says that the repository moved.
    pub moved_to: Option<String>,
}

/// The trees of a watch that mirrors keep: what its app holds, what it is brought to, and what it may
/// hold files of (bases of an open or coming resync), each under the view it is seen with.
#[derive(Clone, Debug)]
pub struct PinnedTrees {
    /// Where they are read, and missing objects fetched.
    pub remote: Remote,
    /// The trees, each once, in no order.
    pub ends: Vec<TreeEnd>,
    /// Each branch that is followed, by its full ref name, with the tree that the app holds of it.
    pub held: Vec<(String, Option<TreeEnd>)>,
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
    /// Why that commit cannot be taken, where it cannot.
    pub fault: Option<HeadFault>,
    /// Whether it moves.
    pub state: CursorState,
    /// Why not, where it does not.
    pub reason: Option<String>,
    /// Whether the app ever acknowledged something of it.
    pub acknowledged: bool,
    /// The number of its open round, its settled prefix and its total.
    pub open: Option<(i64, u64, u64)>,
    /// The number of the round that began last, whether a row of it is kept or not; 0: none ever did.
    pub last_round: i64,
    /// A complete resync could not name what the app must drop, and the app was not told either: it
    /// may have files that are gone.
    pub deletes_unknown: bool,
    /// Number of open dead letters.
    pub dead_letters: u64,
    /// When the head moved away from `held`, where it did: the beginning of its lag.
    pub behind_since: Option<Timestamp>,
}

/// Why a commit that a source reported cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadFault {
    /// For people.
    pub reason: String,
    /// Since when: the commit came, or the reason changed.
    pub since: Timestamp,
}

impl Watch {
    /// Names the sink that its changes go to.
    #[must_use]
    pub fn sink_key(&self) -> SinkKey {
        SinkKey { app: self.app.clone(), sink: self.sink.as_ref().map(|sink| sink.id.clone()) }
    }

    /// What its source is asked for because of it: full ref names, or a prefix that ends in `/`.
    #[must_use]
    pub fn patterns(&self) -> RefPatterns {
        match self.selector.ref_pattern() {
            Some(pattern) => vec![pattern],
            None => {
                let branches = self.cursors.iter().map(|cursor| cursor.branch.clone());
                branches.filter(|branch| !branch.is_empty()).collect()
            }
        }
    }
}

/// New settings of a watch; `None` leaves one as it is. A changed view or selector is delivered as
/// the next round, never in the middle of one.
#[derive(Clone, Debug, Default)]
pub struct WatchPatch {
    /// Which files.
    pub view: Option<View>,
    /// Net changes or every commit.
    pub mode: Option<HistoryMode>,
    /// What a vanished branch means; only a pattern may have anything but `Keep`.
    pub on_branch_gone: Option<BranchGone>,
    /// Whether it is served, and why not.
    pub state: Option<(WatchState, Option<String>)>,
    /// The sink that it has for itself, or (`Some(None)`) that it goes to that of its app. A sink that it has
    /// keeps its id and its signing key, and is served again where it was disabled.
    pub sink: Option<Option<NewSink>>,
}

/// A source that must be polled.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// What a poll needs to know, for all apps that watch through it.
    pub remote: Remote,
    /// Full names or prefixes of the refs that its watches follow, for each app that follows others than the
    /// ones before; HEAD is always asked for.
    pub patterns: Vec<RefPatterns>,
    /// Which of the refs that a poll lists are to be fetched.
    pub followed: Followed,
    /// How much of a commit a scan fetches: trees alone where every watch of the repository,
    /// through whatever source, is narrow.
    pub extent: Extent,
    /// Whether some watch needs every commit.
    pub every: bool,
    /// Commits held by its cursors and heads known before: what a fetch may name as present.
    pub haves: Vec<ObjectId>,
    /// When a head of it moved last (its creation, if never).
    pub last_change: Timestamp,
    /// When a genuine hook told of a ref of its repository last.
    pub hooked_at: Option<Timestamp>,
}

/// What moving heads led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether any head was written, or the address where the source is asked.
    pub changed: bool,
    /// The followed refs that are absent from a repository that has others.
    pub absent: BTreeSet<String>,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
    /// The cursors of the source that are behind their head now, with their sinks; also where this
    /// listing wrote nothing, so that a lane which missed a hint gets another one.
    pub cursors: Vec<(SinkKey, CursorId)>,
}
