//! [`GitSource`]: asking a Git host for refs and objects, and reading what came.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tidings_entity::id::{AppId, ObjectId, RepositoryId};
use url::Url;

use crate::{
    growth::Growth,
    hosts::Hosts,
    round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    secret::Secret,
    time::Timestamp,
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

/// One ref of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// The full name, raw bytes made lossless: names that are not UTF-8 are left out by the
    /// parser.
    pub name: String,
    /// The commit: for an annotated tag the peeled one.
    pub commit: ObjectId,
}

/// What `ls-refs` said about the refs that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefListing {
    /// The refs asked for that exist, sorted by name; the one that HEAD names is always among them
    /// where it exists.
    pub refs: Vec<Ref>,
    /// The ref that HEAD names (`refs/heads/main`), also while it is unborn.
    pub head: Option<String>,
    /// Whether the repository has any ref at all (HEAD or another in the same answer); a missing
    /// branch counts as gone only where this is true.
    pub has_refs: bool,
    /// When it was asked for; what was learnt since then is newer. `None`: just now.
    pub asked_at: Option<Timestamp>,
    /// Commits that could not be fetched, with the reason. Refs that name them move there with that fault; all
    /// other refs move as usual.
    pub refused: BTreeMap<ObjectId, String>,
    /// Commits that were not asked for yet: the heads of refs that name them stay where they were.
    pub untried: BTreeSet<ObjectId>,
    /// Refs whose absence from here may be believed: each has been absent for long enough. The watcher says so;
    /// a single listing never does.
    pub gone: BTreeSet<String>,
    /// Patterns whose refs were too many to be listed. A ref that only these patterns name counts neither as
    /// there nor as absent.
    pub unseen: RefPatterns,
    /// Patterns that were listed beside them: what these name is known. Empty where all were listed.
    pub seen: RefPatterns,
    /// Most refs that one pattern of a watch follows; `None`: [`crate::follow::CURSORS_PER_WATCH_MAX`].
    pub pattern_refs_max: Option<usize>,
    /// The normalised address at which the repository was found, where its host said that it moved
    /// for good and this one proved itself with the same credential; always at the same host.
    pub moved_to: Option<String>,
}

impl RefListing {
    /// Whether nothing is known of a ref, because only patterns name it that could not be listed.
    #[must_use]
    pub fn is_unseen(&self, name: &str) -> bool {
        let is_named = |patterns: &RefPatterns| {
            patterns.iter().any(|pattern| match pattern.ends_with('/') {
                true => name.starts_with(pattern.as_str()),
                false => name == pattern,
            })
        };
        is_named(&self.unseen) && !is_named(&self.seen)
    }

    /// What another listing of the same repository says of other refs.
    pub fn join(&mut self, other: Self) {
        let refs: BTreeMap<String, ObjectId> =
            self.refs.drain(..).chain(other.refs).map(|found| (found.name, found.commit)).collect();
        self.refs = refs.into_iter().map(|(name, commit)| Ref { name, commit }).collect();
        self.head = self.head.take().or(other.head);
        self.has_refs |= other.has_refs;
        self.moved_to = self.moved_to.take().or(other.moved_to);
    }
}

/// What to ask for: full ref names, or a prefix that ends in `/`. HEAD is always asked for.
pub type RefPatterns = Vec<String>;

/// The different sets of patterns of some apps, each of which one listing may ask for.
#[must_use]
pub fn patterns_of(apps: impl Iterator<Item = BTreeSet<String>>) -> Vec<RefPatterns> {
    let mut seen = BTreeSet::new();
    apps.filter(|patterns| seen.insert(patterns.clone()))
        .map(|patterns| patterns.into_iter().collect())
        .collect()
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

/// Why Git work failed. Texts never hold a credential; an address is shown without userinfo.
#[derive(Debug, Error, Clone)]
pub enum GitError {
    /// No answer, or a broken one: address resolution, connection, TLS, reset, cut in half.
    #[error("the Git host could not be reached: {0}")]
    Unreachable(String),
    /// A deadline passed, or the host was slower than the least rate.
    #[error("the Git host took too long: {0}")]
    Timeout(String),
    /// 429, or another answer that asks for patience.
    #[error("the Git host asks for patience")]
    RateLimited {
        /// How long, where it said so.
        retry_after: Option<Duration>,
    },
    /// 401 or 403: the credential is missing, wrong or revoked.
    #[error("the Git host refuses the credential")]
    Unauthorized,
    /// The credential cannot be used at all: a GitHub App's key is refused, or it would travel in
    /// clear text.
    #[error("the credential cannot be used: {0}")]
    Credential(String),
    /// 404: no such repository, or none that this credential may see.
    #[error("the repository was not found or is not accessible")]
    NotFound,
    /// A repository of which apps have files lists no branch and no tag any more: nothing follows from that.
    #[error(
        "the repository lists no branch and no tag any more; what the apps have stays until it lists some again"
    )]
    NoRefs,
    /// The host says that the repository moved for good, to this address. It is asked there only where
    /// host and scheme stay the same, and it answers.
    #[error("the repository moved to {0}; watch it there")]
    Moved(String),
    /// Another redirect; never followed.
    #[error("the Git host answered with a redirect, which is never followed")]
    Redirected,
    /// The settings refuse to go to the address; the text names the setting.
    #[error("{0}")]
    Refused(String),
    /// Another status code.
    #[error("the Git host answered with status {0}")]
    Status(u16),
    /// An answer that is not the protocol: HTML, a bad packet, a lie about a size.
    #[error("the Git host does not speak the Git protocol: {0}")]
    Protocol(String),
    /// The repository uses SHA-256 object ids.
    #[error(
        "repositories with SHA-256 object ids are not supported; watch a copy with SHA-1 ids, which \
         git fast-export and git fast-import make"
    )]
    UnsupportedObjectFormat,
    /// A cap was crossed.
    #[error("repository too large: {0}")]
    TooLarge(String),
    /// A tree that no honest tool writes (`..`, `.git`, `a/b`, duplicates, unsorted).
    #[error("the tree is malformed: {0}")]
    MalformedTree(String),
    /// An object is not in the mirror; a fetch by id may bring it.
    #[error("object {0} is missing")]
    Missing(ObjectId),
    /// The host definitively refuses an object (`not our ref`).
    #[error("object {0} is obtainable nowhere")]
    Unobtainable(ObjectId),
    /// An object that is well, but no commit: a tag of a file, or of a tree.
    #[error("object {0} is no commit")]
    NotACommit(ObjectId),
    /// The repository itself lacks an object, or has a damaged one.
    #[error("the repository is damaged at its source: {0}")]
    Broken(String),
    /// The mirror is damaged.
    #[error("the mirror is damaged: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("the mirror could not be written: {0}")]
    Storage(String),
    /// Too much else was being taken in. It says nothing of the repository or its host.
    #[error("this server is busy: {0}")]
    Busy(String),
    /// The work was cancelled, or this process is stopping.
    #[error("cancelled")]
    Cancelled,
}

impl GitError {
    /// Whether the fault lies with the host or the way to it, so that it feeds the Git breaker. A host
    /// that asks for patience works: it is obeyed, and nobody is told of a failure.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        !matches!(
            self,
            Self::RateLimited { .. }
                | Self::Missing(_)
                | Self::NotACommit(_)
                | Self::NoRefs
                | Self::Corrupt(_)
                | Self::Storage(_)
                | Self::Busy(_)
                | Self::Cancelled
        )
    }

    /// Whether it is what an object is that stands in the way: the same answer each time, however
    /// well the host and the mirror are.
    #[must_use]
    pub fn is_of_the_object(&self) -> bool {
        matches!(self, Self::NotACommit(_) | Self::MalformedTree(_) | Self::TooLarge(_) | Self::Broken(_))
    }

    /// Whether it may be about one of the objects that were asked for, so that the others may be had without
    /// that one: not the host, the way to it, or the disk.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        self.is_of_the_object()
            || matches!(self, Self::Protocol(_) | Self::Missing(_) | Self::Unobtainable(_))
    }

    /// Whether a smaller request might succeed: time ran out, the disk is full, or the connection broke.
    #[must_use]
    pub fn may_be_of_size(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Storage(_) | Self::Unreachable(_))
    }

    /// A stable word for logs, rows and `sync_failed` (`error_type` has it; the class of refused
    /// credentials contains "auth").
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized | Self::Credential(_) => "auth_failed",
            Self::NotFound => "repository_not_found",
            Self::NoRefs => "no_refs",
            Self::Moved(_) => "repository_moved",
            Self::Redirected => "redirected",
            Self::Refused(_) => "address_refused",
            Self::Status(_) => "host_error",
            Self::Protocol(_) => "protocol_error",
            Self::UnsupportedObjectFormat => "unsupported_object_format",
            Self::TooLarge(_) => "repository_too_large",
            Self::MalformedTree(_) => "malformed_tree",
            Self::Missing(_) => "object_missing",
            Self::Unobtainable(_) => "object_unobtainable",
            Self::NotACommit(_) => "not_a_commit",
            Self::Broken(_) => "repository_damaged",
            Self::Corrupt(_) => "mirror_damaged",
            Self::Storage(_) => "storage_failed",
            Self::Busy(_) => "busy",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A mirror as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFacts {
    /// Its repository.
    pub repository: RepositoryId,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Commits whose parents are absent on purpose (lines of `shallow`).
    pub shallow: u64,
    /// Where its blobs were dropped to make room: the bytes that were left.
    pub evicted_to: Option<u64>,
}

/// What a mirror keeps when it is compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// These commits with their trees; one that is not in the mirror is passed over.
    pub commits: Vec<ObjectId>,
    /// Also every commit between two of them along first parents, as far as it is in the mirror.
    pub chains: bool,
    /// Also the blobs that are in the mirror. Without them the mirror says so on disk, and what is
    /// read later is fetched by id.
    pub blobs: bool,
}

/// Which share of all files a scrub reads: those whose place on a circle of 65,536 lies from
/// `from` up to, but not including, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of them.
    Whole,
    /// From one place on the circle to another, over its end where `to` is less than `from`.
    Arc {
        /// The first place.
        from: u16,
        /// The place after the last.
        to: u16,
    },
}

impl Share {
    /// Whether what lies at `place` is part of it.
    #[must_use]
    pub fn covers(self, place: u16) -> bool {
        match self {
            Self::Whole => true,
            Self::Arc { from, to } if from <= to => (from..to).contains(&place),
            Self::Arc { from, to } => place >= from || place < to,
        }
    }
}

/// What all mirrors take, and whether there is room for more.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Storage {
    /// Mirrors.
    pub mirrors: u64,
    /// Bytes of all of them, as they were measured last: after each fetch and at each upkeep.
    pub mirror_bytes: u64,
    /// Bytes that are free where they lie; 0 where the machine does not say.
    pub free_bytes: u64,
    /// Why nothing is fetched at the moment.
    pub fetches_stopped: Option<String>,
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
