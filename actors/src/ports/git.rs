//! [`GitSource`]: asking a Git host for refs and objects, and reading what came.

mod error;
mod listing;
mod mirror;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_entity::id::{AppId, ObjectId, RepositoryId};
use url::Url;

pub use self::{
    error::GitError,
    listing::{Ref, RefListing, RefPatterns, patterns_of},
    mirror::{Keep, MirrorFacts, Share, Storage},
};
use crate::{
    growth::Growth,
    hosts::Hosts,
    round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    secret::Secret,
};

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A smart-HTTP address, normalised, without credentials.
    Http(Url),
    /// A repository on this machine, read in place; only where settings allow it.
    Local(PathBuf),
}

/// A repository seen with one credential: what a poll and a fetch need to know.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Names the mirror.
    pub repository: RepositoryId,
    /// Where it lies.
    pub location: Location,
    /// What lets us in: a bare token, `user:password`, or the text form of another kind, which only
    /// the adapter reads. Sent over https alone, or within this machine.
    pub credential: Option<Secret>,
    /// The apps on whose behalf it is asked: they stand in line for what all share.
    pub apps: Vec<AppId>,
}

/// How much of each wanted commit must be there after a fetch. More may come: hosts that cannot
/// leave anything out send everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The commit alone: proves that it exists.
    Commit,
    /// Its trees as well. Contents are fetched when they are needed, with
    /// [`GitSource::fetch_blobs`].
    Trees,
    /// Everything.
    #[default]
    Whole,
}

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOrder {
    /// Object ids that must be present afterwards: commits, or single blobs.
    pub wants: Vec<ObjectId>,
    /// Commits whose trees are present, so that only the difference travels.
    pub haves: Vec<ObjectId>,
    /// How many commits deep; 1 for `net` mode.
    pub depth: u32,
    /// How much of each commit.
    pub extent: Extent,
}

/// What fetching blobs led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobsReport {
    /// What it cost.
    pub fetched: FetchReport,
    /// Those that the host refused.
    pub refused: Vec<ObjectId>,
}

/// What a fetch cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes received.
    pub bytes: u64,
    /// Objects in the pack.
    pub objects: u64,
}

/// What became of an order, want by want: one that cannot be had keeps no other from being had.
#[derive(Clone, Debug, Default)]
pub struct FetchOutcome {
    /// What it cost.
    pub cost: FetchReport,
    /// Wants that cannot be had, or not whole, with the reason of each.
    pub refused: Vec<(ObjectId, GitError)>,
    /// Wants that were not asked for: too many requests failed before.
    pub untried: Vec<ObjectId>,
}

impl FetchOutcome {
    /// The cost, if everything that was wanted is there.
    ///
    /// # Errors
    /// The reason of the first want that is not.
    pub fn whole(self) -> Result<FetchReport, GitError> {
        match self.refused.into_iter().next() {
            Some((_, reason)) => Err(reason),
            None => Ok(self.cost),
        }
    }
}

/// Author, time and subject of a commit, for bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// `Name <address>`, made valid UTF-8.
    pub author: String,
    /// Committer time in unix seconds.
    pub time: i64,
    /// The first line of the message, at most 256 characters, made valid UTF-8.
    pub subject: String,
    /// The first parent, where there is one.
    pub first_parent: Option<ObjectId>,
}

/// How walking first parents from a head towards `held` ended. Commits are oldest first and
/// include the head; `held` itself is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// `held` was met: each commit after it is one round.
    Reached(Vec<ObjectId>),
    /// A root, or the known end of the history, was reached without meeting `held`.
    Rewritten,
    /// The limit was reached without meeting `held`.
    LimitReached,
}

/// A blob as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes.
    Whole(Bytes),
    /// The blob has more bytes than were allowed.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
}

/// A blob whose content is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobWanted {
    /// Its id.
    pub blob: ObjectId,
    /// The most bytes of use: a larger one is not read.
    pub limit: u64,
}

/// Where the next window of a list begins: after this change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seek {
    /// After so many changes from the start; costs a pass over them.
    Position(u64),
    /// After this change, found by path.
    After(Change),
}

/// Git hosts and mirrors. All verbs are safe to call at the same time; fetches into one mirror
/// take turns. Dropping a future cancels its work soon and leaves the mirror whole.
#[async_trait]
pub trait GitSource: Send + Sync + 'static {
    /// Asks which commits the refs name. One small request for a known host.
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError>;

    /// Makes objects present in the mirror and checks that wanted commits are complete, as far as
    /// the order's extent goes. What is present already is not fetched again. A local repository
    /// never fetches. A want that cannot be had keeps no other from being had.
    ///
    /// # Errors
    /// When the host, the way to it or the mirror is at fault.
    async fn fetch_each(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchOutcome, GitError>;

    /// In how long a commit that could not be had is asked for again at the earliest; `None`: with the next
    /// scan, as far as is known here.
    fn asked_again_in(&self, _repository: &RepositoryId, _commit: ObjectId) -> Option<Duration> {
        None
    }

    /// The same where every want is needed; the host is asked, whatever was known of its commits.
    ///
    /// # Errors
    /// Also when a want cannot be had.
    async fn fetch(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchReport, GitError> {
        self.fetch_each(remote, order).await?.whole()
    }

    /// Which of these blobs are not present, each named once. Asks nobody; a local repository
    /// lacks nothing.
    async fn absent_blobs(&self, _remote: &Remote, _blobs: &[ObjectId]) -> Result<Vec<ObjectId>, GitError> {
        Ok(Vec::new())
    }

    /// Makes blobs present, many with one request. Those that the host refuses are named in the
    /// report and do not hold up the others.
    async fn fetch_blobs(&self, _remote: &Remote, _blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        Ok(BlobsReport::default())
    }

    /// Facts of a commit.
    async fn commit(&self, remote: &Remote, commit: ObjectId) -> Result<CommitFacts, GitError>;

    /// Walks first parents from `head` until `held`, at most `limit` commits, deepening the mirror
    /// stepwise where it must.
    async fn walk(
        &self,
        remote: &Remote,
        head: ObjectId,
        held: ObjectId,
        limit: u32,
    ) -> Result<Walk, GitError>;

    /// What the list of `spec` would be. `spec.letters` is empty; `candidates` are the cursor's
    /// open letters: a `Sync` or `Replay` binds those whose path differs between its two filtered
    /// trees, a `Resync` binds all, a `Redrive` all as well.
    async fn plan(&self, remote: &Remote, spec: &RoundSpec, candidates: &[Letter]) -> Result<Plan, GitError>;

    /// At most `limit` changes of the list of `spec` (letters included in it), beginning at
    /// `seek`. Fewer than `limit` means the end of the list.
    async fn window(
        &self,
        remote: &Remote,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, GitError>;

    /// Whether one of these trees, as its view shows it, has this blob at some path.
    async fn holds(&self, remote: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError>;

    /// The contents of blobs, in their order: of the first, and of as many after it as can be had
    /// and have at most `budget` bytes together with it. A failure is that of the first.
    async fn contents(
        &self,
        remote: &Remote,
        wanted: &[BlobWanted],
        budget: u64,
    ) -> Result<Vec<Content>, GitError>;

    /// The content of a blob, unless it is larger than `limit` bytes (checked before reading).
    async fn content(&self, remote: &Remote, blob: ObjectId, limit: u64) -> Result<Content, GitError> {
        let contents = self.contents(remote, &[BlobWanted { blob, limit }], limit).await?;
        contents.into_iter().next().ok_or(GitError::Missing(blob))
    }

    /// All mirrors, measured now.
    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError>;

    /// One mirror, measured now; `None` where there is none.
    async fn mirror(&self, repository: &RepositoryId) -> Result<Option<MirrorFacts>, GitError>;

    /// What all mirrors take. Cheap: nothing is measured but the free space.
    async fn storage(&self) -> Result<Storage, GitError>;

    /// Removes what crashes left behind in all mirrors or one, and what was kept for those who still read
    /// it where nobody does any more. A mirror into which somebody writes is left alone: that began with
    /// it. Of mirrors that other processes share, only what lies beside them is swept where none is named.
    async fn sweep(&self, of: Option<&RepositoryId>) -> Result<(), GitError>;

    /// Rebuilds a mirror as one pack of what `keep` says; readers go on meanwhile. Nothing has
    /// changed after an error.
    async fn compact(&self, repository: &RepositoryId, keep: &Keep) -> Result<MirrorFacts, GitError>;

    /// Reads a share of the files of a mirror again and compares them with their checksums.
    /// `Ok(false)`: there was damage; the mirror was moved aside and the next fetch begins it anew.
    async fn scrub(&self, repository: &RepositoryId, share: Share) -> Result<bool, GitError>;

    /// How hard each host may be pressed: a scan takes its turn there before it gets a worker. A
    /// source that knows no hosts gives fresh budgets, which bind nothing.
    fn hosts(&self) -> Hosts {
        Hosts::default()
    }

    /// Which mirrors grew, by whatever verb; asked by upkeep. A source without mirrors notes nothing.
    fn growth(&self) -> Growth {
        Growth::default()
    }

    /// Removes a mirror.
    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError>;
}
