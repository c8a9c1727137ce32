//! [`GitSource`]: asks a Git host for refs and objects, and reads them from the mirror.

mod error;
mod listing;
mod mirror;

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_entity::id::{AppId, ObjectId, RepositoryId};
use url::Url;

pub use self::{
    error::GitError,
    listing::{Ref, RefListing, RefPatterns, is_named, patterns_of},
    mirror::{Keep, MirrorFacts, Share, Storage},
};
use crate::{
    limits::hosts::Hosts,
    model::round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    model::secret::Secret,
    signals::growth::Growth,
};

/// The place of a repository: a Git host or a local directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A smart-HTTP address, normalised, without credentials.
    Http(Url),
    /// A repository on this machine, read in place; only where settings allow it.
    Local(PathBuf),
}

/// A repository seen with one credential: the address, secret and apps that a scan and a fetch need.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Id of the repository; also the name of its mirror.
    pub repository: RepositoryId,
    /// The address of the repository, or its path on this machine.
    pub location: Location,
    /// The secret for the Git host: a bare token, `user:password`, or the text form of another kind, which
    /// only the adapter reads. Sent over https only, or within this machine.
    pub credential: Option<Secret>,
    /// The apps that the repository is read for; each takes its turn at resources that all apps share.
    pub apps: Vec<AppId>,
}

/// How much of each wanted commit must be there after a fetch. More may come: hosts that cannot
/// leave anything out send everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The commit alone: proves that it exists.
    Commit,
    /// The commit and its trees. Contents are fetched when they are needed, with [`GitSource::fetch_blobs`].
    Trees,
    /// The commit, its trees and all contents.
    #[default]
    Whole,
}

/// An order for [`GitSource::fetch_each`]: which objects, how deep and how completely.
#[derive(Clone, Debug, Default)]
pub struct FetchOrder {
    /// Object ids that must be present afterwards: commits, or single blobs.
    pub wants: Vec<ObjectId>,
    /// Commits whose trees are present in the mirror, so that only the difference is transferred.
    pub haves: Vec<ObjectId>,
    /// The number of commits to fetch along the history; 1 for `net` mode.
    pub depth: u32,
    /// How much of each wanted commit must be present.
    pub extent: Extent,
}

/// The result of fetching blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobsReport {
    /// The size and the number of objects that were fetched.
    pub fetched: FetchReport,
    /// The blobs that the host refused.
    pub refused: Vec<ObjectId>,
}

/// The size of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes received from the Git host.
    pub bytes: u64,
    /// The number of objects in the received pack.
    pub objects: u64,
}

/// The result of an order, for each wanted object: one that cannot be fetched does not stop the others.
#[derive(Clone, Debug, Default)]
pub struct FetchOutcome {
    /// The size and the number of objects that were fetched.
    pub cost: FetchReport,
    /// Wanted objects that cannot be fetched completely, with the reason of each.
    pub refused: Vec<(ObjectId, GitError)>,
    /// Wanted objects that were not requested, because too many requests had failed.
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
    /// Committer time in Unix seconds.
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
    /// The walk met `held`: each commit after it is one round.
    Reached(Vec<ObjectId>),
    /// A root, or the known end of the history, was reached without meeting `held`.
    Rewritten,
    /// The limit was reached without meeting `held`.
    LimitReached,
}

/// The content of a blob, unless it is larger than allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of the blob, exactly as stored.
    Whole(Bytes),
    /// The blob has more bytes than were allowed.
    TooLarge {
        /// The size of the blob in bytes.
        size: u64,
    },
}

/// A blob whose content is to be read, and up to how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobWanted {
    /// The Git object id of the blob.
    pub blob: ObjectId,
    /// The most bytes that are read: a larger blob is reported, not read.
    pub limit: u64,
}

/// Where the next window of a list begins: after this change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seek {
    /// After this number of changes from the start; costs a pass over them.
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

    /// Asks like [`GitSource::list_refs`]. `None`: the host answered with the bytes that a listing with the
    /// same patterns was read from, whose [`RefListing::answer`] was `last`. They are not read again.
    async fn list_refs_unless(
        &self,
        remote: &Remote,
        patterns: &RefPatterns,
        _last: NonZeroU64,
    ) -> Result<Option<RefListing>, GitError> {
        self.list_refs(remote, patterns).await.map(Some)
    }

    /// Makes objects present in the mirror and checks that wanted commits are complete, as far as the order's
    /// extent goes. What is present already is not fetched again. A local repository never fetches. An object
    /// that cannot be fetched does not stop the others.
    ///
    /// # Errors
    /// When the host, the network or the mirror fails.
    async fn fetch_each(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchOutcome, GitError>;

    /// The shortest wait before a commit that could not be fetched is requested again; `None`: the next scan
    /// may request it.
    fn asked_again_in(&self, _repository: &RepositoryId, _commit: ObjectId) -> Option<Duration> {
        None
    }

    /// Fetches like [`GitSource::fetch_each`], but needs every wanted object. The host is always asked, also
    /// for commits that could not be fetched before.
    ///
    /// # Errors
    /// Also when a wanted object cannot be fetched.
    async fn fetch(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchReport, GitError> {
        self.fetch_each(remote, order).await?.whole()
    }

    /// The blobs of these that are not in the mirror, each once. Sends no request; a local repository lacks
    /// nothing.
    async fn absent_blobs(&self, _remote: &Remote, _blobs: &[ObjectId]) -> Result<Vec<ObjectId>, GitError> {
        Ok(Vec::new())
    }

    /// Fetches blobs into the mirror, many with one request. Blobs that the host refuses are named in the
    /// report and do not stop the others.
    async fn fetch_blobs(&self, _remote: &Remote, _blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        Ok(BlobsReport::default())
    }

    /// Reads author, time and subject of a commit.
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

    /// Computes the list of `spec`. `spec.letters` is empty; `candidates` are the cursor's open letters: a
    /// `Sync` or `Replay` binds the letters whose path differs between its two filtered trees, a `Resync` or
    /// a `Redrive` binds all letters.
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

    /// Whether one of these trees, filtered by its view, has this blob at some path.
    async fn holds(&self, remote: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError>;

    /// The contents of blobs, in their order: always the first blob, and as many of the next ones as are
    /// present and fit into `budget` bytes together with it. An error is about the first blob.
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

    /// Measures all mirrors now.
    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError>;

    /// Measures one mirror now; `None`: the repository has no mirror.
    async fn mirror(&self, repository: &RepositoryId) -> Result<Option<MirrorFacts>, GitError>;

    /// The disk space of all mirrors. Cheap: only the free space is measured, the rest was measured before.
    async fn storage(&self) -> Result<Storage, GitError>;

    /// Removes leftovers of crashes in all mirrors or in one, and replaced files that no reader has open any
    /// more. A mirror that is being written is skipped: its writer has swept it. Where processes share
    /// mirrors, a sweep of all mirrors removes only files outside of them.
    async fn sweep(&self, of: Option<&RepositoryId>) -> Result<(), GitError>;

    /// Rebuilds a mirror as one pack of the objects that `keep` names; readers go on meanwhile. After an
    /// error the mirror is unchanged.
    async fn compact(&self, repository: &RepositoryId, keep: &Keep) -> Result<MirrorFacts, GitError>;

    /// Reads a share of a mirror's files and compares them with their checksums. `Ok(false)`: a file was
    /// damaged; the mirror was moved aside and the next fetch makes a new one.
    async fn scrub(&self, repository: &RepositoryId, share: Share) -> Result<bool, GitError>;

    /// The budgets for requests to each host: a scan takes its turn there before it gets a worker. A source
    /// without hosts returns fresh budgets, which limit nothing.
    fn hosts(&self) -> Hosts {
        Hosts::default()
    }

    /// Notes which mirrors grew, by any verb; upkeep reads the notes. A source without mirrors notes nothing.
    fn growth(&self) -> Growth {
        Growth::default()
    }

    /// Removes the mirror of a repository from the disk; the next fetch makes a new one.
    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError>;
}
