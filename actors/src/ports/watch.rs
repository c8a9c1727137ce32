//! Watches, their cursors, and the sources through which they read repositories.

pub(super) mod status;
pub(super) mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::{
    id::{AppId, CursorId, ObjectId, RepositoryId, SourceId, WatchId},
    kind::{BranchGone, CursorState, HistoryMode, SelectorKind, StatusHost, WatchState},
};

use super::{Extent, NewSink, RefListing, RefPatterns, Remote, Rotation, ShownStatus, SinkKey, WatchSink};
use crate::{
    model::follow::Followed, model::round::TreeEnd, model::secret::Secret, model::view::View, time::Timestamp,
};

/// The refs that a watch follows: a kind, and a name or glob (empty for the default branch).
/// [`crate::model::selector`] decides which refs match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Selector {
    /// Whether the value names the default branch, a branch, a ref, or a pattern.
    pub kind: SelectorKind,
    /// A short branch name, a glob over short names of branches or tags, or a full ref name or a glob over
    /// full names (`refs/pull/*/head`).
    pub value: String,
}

/// The `repository` object of a body.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RepositoryFacts {
    /// Id of the watch, `repository_id` in bodies.
    pub repository_id: WatchId,
    /// The address as the app first gave it.
    pub github_url: String,
    /// The owner (everything before the last path component).
    pub owner: String,
    /// The name (the last path component without `.git`).
    pub name: String,
}

/// Where a new watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From nothing: every file is delivered.
    All,
    /// From this commit, which the app already has: only later changes are delivered.
    At(ObjectId),
}

/// A registration of a watch, access already proved by `listing`.
#[derive(Clone, Debug)]
pub struct NewWatch {
    /// The id for the watch, if the app has no watch with this repository, selector and alias.
    pub id: WatchId,
    /// The app that registers the watch.
    pub app: AppId,
    /// The normalised address; names the repository.
    pub url: String,
    /// The `repository` object of bodies: the address as given, owner, name.
    pub facts: RepositoryFacts,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// The credential; never shared between apps.
    pub credential: Option<Secret>,
    /// The branches or refs that the watch follows.
    pub selector: Selector,
    /// Distinguishes the watch from others of the same refs: `[a-z0-9-]`, at most 40 characters; usually
    /// empty.
    pub alias: String,
    /// Whether the settings of a watch with the same repository, selector and alias are replaced. False: such
    /// a watch is a [`StoreError::Exists`](super::StoreError::Exists).
    pub may_replace: bool,
    /// The sink of this watch alone; `None`: the sink of its app.
    pub sink: Option<NewSink>,
    /// The kind of Git host whose API is told the state of the watch; `None`: no host is told.
    pub status: Option<StatusHost>,
    /// Which files are delivered (path filter), and how much of each.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// The setting for a branch that vanished; always `Keep` unless the selector is a pattern.
    pub on_branch_gone: BranchGone,
    /// The commit, or nothing, that the app starts from.
    pub start: Start,
    /// The listed refs that prove access to the repository; written as heads of the source.
    pub listing: RefListing,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// The moment of registration.
    pub created_at: Timestamp,
}

/// A watch as its app sees it.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Id of the watch, `repo_` and a ULID; `repository_id` in the API.
    pub id: WatchId,
    /// The app that gets the changes.
    pub app: AppId,
    /// The repository that is watched.
    pub repository: RepositoryId,
    /// The source through which the repository is read.
    pub source: SourceId,
    /// The normalised address of the repository.
    pub url: String,
    /// The `repository` object of bodies.
    pub facts: RepositoryFacts,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// Whether the watch has a credential of its own.
    pub has_credential: bool,
    /// The branches or refs that the watch follows.
    pub selector: Selector,
    /// Distinguishes the watch from others of the same refs; empty where there is only one.
    pub alias: String,
    /// The sink of this watch alone; `None`: the sink of its app.
    pub sink: Option<WatchSink>,
    /// The settings and state of the statuses at its Git host; `None`: the watch shows no status.
    pub status: Option<ShownStatus>,
    /// Which files are delivered (path filter), and how much of each.
    pub view: View,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// The setting for a branch that vanished.
    pub on_branch_gone: BranchGone,
    /// Whether changes of the watch are delivered.
    pub state: WatchState,
    /// Why the watch is paused; `None` while it is active.
    pub reason: Option<String>,
    /// The moment of registration.
    pub created_at: Timestamp,
    /// No delivery before this moment.
    pub deliver_after: Timestamp,
    /// The progress of each branch that the watch follows.
    pub cursors: Vec<CursorStatus>,
    /// The text of the last scan's error; `None` after a scan that succeeded.
    pub last_error: Option<String>,
    /// The address at which the source is scanned since the repository moved; `None`: it did not move.
    pub moved_to: Option<String>,
}

/// The trees of a watch that mirrors keep: the held tree, the target, and trees of which the app may hold
/// files (bases of an open or coming resync), each with its view.
#[derive(Clone, Debug)]
pub struct PinnedTrees {
    /// The remote repository from which the trees are read and missing objects are fetched.
    pub remote: Remote,
    /// The trees, each once, in no order.
    pub ends: Vec<TreeEnd>,
    /// Each branch that is followed, by its full ref name, with the tree that the app holds of it.
    pub held: Vec<(String, Option<TreeEnd>)>,
}

/// The progress of one branch of a watch.
#[derive(Clone, Debug)]
pub struct CursorStatus {
    /// Id of the cursor, `cur_` and a ULID.
    pub id: CursorId,
    /// The full ref name.
    pub branch: String,
    /// The commit the app held last.
    pub held: Option<ObjectId>,
    /// The commit its source reported last.
    pub head: Option<ObjectId>,
    /// Why the commit at the head cannot be fetched; `None`: it can.
    pub fault: Option<HeadFault>,
    /// Whether rounds of the cursor are delivered, or why not.
    pub state: CursorState,
    /// Why the cursor is not active; `None` while it is.
    pub reason: Option<String>,
    /// Whether the app ever acknowledged a change of the cursor.
    pub acknowledged: bool,
    /// The number of its open round, its settled prefix and its total.
    pub open: Option<(i64, u64, u64)>,
    /// The number of the round that began last, whether a row of it is kept or not; 0: none ever did.
    pub last_round: i64,
    /// Whether the app may have files that no longer exist: a complete resync could not name the files to
    /// drop, and the app was not told.
    pub deletes_unknown: bool,
    /// Number of open dead letters.
    pub dead_letters: u64,
    /// When the head moved away from `held`, where it did: the beginning of its lag.
    pub behind_since: Option<Timestamp>,
}

/// Why a commit that a source reported cannot be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadFault {
    /// The reason, as a sentence for people.
    pub reason: String,
    /// When the commit was first reported, or the reason last changed.
    pub since: Timestamp,
}

impl Watch {
    /// Names the sink that its changes go to.
    #[must_use]
    pub fn sink_key(&self) -> SinkKey {
        SinkKey { app: self.app.clone(), sink: self.sink.as_ref().map(|sink| sink.id.clone()) }
    }

    /// The refs that a source is asked for because of this watch: full ref names, or a prefix that ends in
    /// `/`.
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

/// New settings of a watch; `None` leaves a setting as it is. A changed view or selector is delivered as the
/// next round, never in the middle of a round.
#[derive(Clone, Debug, Default)]
pub struct WatchPatch {
    /// The new view: which files, and how much of each.
    pub view: Option<View>,
    /// Net changes or every commit.
    pub mode: Option<HistoryMode>,
    /// The setting for a branch that vanished; only a pattern may have another one than `Keep`.
    pub on_branch_gone: Option<BranchGone>,
    /// The new state, with the reason for a pause. `Active` also enables an own sink that is disabled.
    pub state: Option<(WatchState, Option<String>)>,
    /// The watch's own sink, or (`Some(None)`) that the watch uses the sink of its app. An own sink that
    /// already exists keeps its id and its signing key, and is enabled if it was disabled.
    pub sink: Option<Option<NewSink>>,
    /// A new signing key for the watch's own sink; the previous key signs beside it for some time.
    pub rotation: Option<Rotation>,
    /// The kind of Git host that is told the state of the watch from now on, or (`Some(None)`) none.
    pub status: Option<Option<StatusHost>>,
    /// The new name among watches of the same refs; empty: none. [`StoreError::Exists`](super::StoreError)
    /// where another one of them has that name.
    pub alias: Option<String>,
}

/// A source that must be scanned, with its watches' patterns.
#[derive(Clone, Debug)]
pub struct Source {
    /// Id of the source, `src_` and a ULID.
    pub id: SourceId,
    /// The repository, credential and apps that a scan needs.
    pub remote: Remote,
    /// Full names or prefixes of the refs that its watches follow, one set for each app that follows other
    /// refs than the apps before; HEAD is always asked for.
    pub patterns: Vec<RefPatterns>,
    /// The listed refs whose commits are fetched.
    pub followed: Followed,
    /// How much of a commit a scan fetches: only trees if every watch of the repository, through any of its
    /// sources, is narrow.
    pub extent: Extent,
    /// Whether some watch needs every commit.
    pub every: bool,
    /// Commits that its cursors hold, and heads known before: a fetch may tell the host that they are
    /// present.
    pub haves: Vec<ObjectId>,
    /// When a head of it moved last (its creation, if never).
    pub last_change: Timestamp,
    /// When a genuine hook last reported a ref of the repository; `None`: never.
    pub hooked_at: Option<Timestamp>,
}

impl Source {
    /// Gives back the spare room of the lists: a source stays in memory for as long as it is watched, and a
    /// list that grew by one has room for four.
    pub(crate) fn shrink(&mut self) {
        self.remote.apps.shrink_to_fit();
        self.patterns.iter_mut().for_each(RefPatterns::shrink_to_fit);
        self.patterns.shrink_to_fit();
        self.followed.selectors.shrink_to_fit();
        self.followed.branches.shrink_to_fit();
        self.haves.shrink_to_fit();
    }
}

/// The effect of moving heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether any head was written, or the address where the source is asked.
    pub changed: bool,
    /// The followed refs that are absent from a repository that has other refs.
    pub absent: BTreeSet<String>,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
    /// The cursors of the source that are behind their head now, with their sinks. They are listed also if
    /// this listing wrote nothing, so that a lane that missed a hint gets another one.
    pub cursors: Vec<(SinkKey, CursorId)>,
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::ports::Location;

    fn roomy<T>(value: T) -> Vec<T> {
        let mut list = Vec::with_capacity(4);
        list.push(value);
        list
    }

    #[test]
    fn a_source_that_is_watched_keeps_no_spare_room() {
        let branch = || "refs/heads/main".to_owned();
        let selector = Selector { kind: SelectorKind::Branch, value: "main".to_owned() };
        let mut source = Source {
            id: SourceId::new(Ulid::from_parts(1, 1)),
            remote: Remote {
                repository: RepositoryId::new(Ulid::from_parts(1, 2)),
                location: Location::Local("/r".into()),
                credential: None,
                apps: roomy(AppId::new(Ulid::from_parts(1, 3))),
            },
            patterns: roomy(roomy(branch())),
            followed: Followed { selectors: roomy(selector), branches: roomy(branch()) },
            extent: Extent::Whole,
            every: false,
            haves: roomy(ObjectId::new([1; 20])),
            last_change: Timestamp(0),
            hooked_at: None,
        };
        source.shrink();
        let Source { remote, patterns, followed, haves, .. } = &source;
        let lists = [
            remote.apps.capacity(),
            patterns.capacity(),
            patterns[0].capacity(),
            followed.selectors.capacity(),
            followed.branches.capacity(),
            haves.capacity(),
        ];
        assert_eq!(lists, [1; 6]);
    }
}
