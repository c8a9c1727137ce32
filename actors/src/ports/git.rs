//! [`GitSource`]: asking a Git host for refs and objects, and reading what came.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tidings_entity::id::{ObjectId, RepositoryId};
use url::Url;

use crate::{
    round::{Change, Letter, Plan, RoundSpec},
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
    /// The token or password sent as HTTP basic authentication, https only (or where plain http
    /// is allowed by settings). `user:password` or a bare token.
    pub credential: Option<Secret>,
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
    /// Whether a ref that is absent here has been absent for long enough to believe it. The
    /// watcher says so; a single listing never does.
    pub absence_confirmed: bool,
}

/// What to ask for: full ref names, or a prefix that ends in `/`. HEAD is always asked for.
pub type RefPatterns = Vec<String>;

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOrder {
    /// Object ids that must be present afterwards: commits, or single blobs.
    pub wants: Vec<ObjectId>,
    /// Commits whose trees are present, so that only the difference travels.
    pub haves: Vec<ObjectId>,
    /// How many commits deep; 1 for `net` mode.
    pub depth: u32,
}

/// What a fetch cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes received.
    pub bytes: u64,
    /// Objects in the pack.
    pub objects: u64,
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
#[derive(Clone, Debug)]
pub enum Content {
    /// The bytes.
    Whole(Bytes),
    /// The blob has more bytes than were allowed.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
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
    /// 404: no such repository, or none that this credential may see.
    #[error("the repository was not found or is not accessible")]
    NotFound,
    /// A redirect; never followed.
    #[error("the Git host answered with a redirect, which is never followed")]
    Redirected,
    /// The address is refused by the egress rules.
    #[error("the address is refused by the egress rules")]
    Refused,
    /// Another status code.
    #[error("the Git host answered with status {0}")]
    Status(u16),
    /// An answer that is not the protocol: HTML, a bad packet, a lie about a size.
    #[error("the Git host does not speak the Git protocol: {0}")]
    Protocol(String),
    /// The repository uses SHA-256 object ids.
    #[error("repositories with SHA-256 object ids are not supported")]
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
    /// The mirror is damaged.
    #[error("the mirror is damaged: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("the mirror could not be written: {0}")]
    Storage(String),
    /// The work was cancelled, or this process is stopping.
    #[error("cancelled")]
    Cancelled,
}

impl GitError {
    /// Whether the fault lies with the host or the way to it, so that it feeds the Git breaker.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Missing(_) | Self::Corrupt(_) | Self::Storage(_) | Self::Cancelled)
    }

    /// A stable word for logs, rows and `sync_failed` (`error_type` has it; the class of refused
    /// credentials contains "auth").
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized => "auth_failed",
            Self::NotFound => "repository_not_found",
            Self::Redirected => "redirected",
            Self::Refused => "address_refused",
            Self::Status(_) => "host_error",
            Self::Protocol(_) => "protocol_error",
            Self::UnsupportedObjectFormat => "unsupported_object_format",
            Self::TooLarge(_) => "repository_too_large",
            Self::MalformedTree(_) => "malformed_tree",
            Self::Missing(_) => "object_missing",
            Self::Unobtainable(_) => "object_unobtainable",
            Self::Corrupt(_) => "mirror_damaged",
            Self::Storage(_) => "storage_failed",
            Self::Cancelled => "cancelled",
        }
    }
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

    /// Makes objects present in the mirror and checks that the trees of wanted commits are
    /// complete. What is present already is not fetched again. A local repository never fetches.
    async fn fetch(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchReport, GitError>;

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

    /// The content of a blob, unless it is larger than `limit` bytes (checked before reading).
    async fn content(&self, remote: &Remote, blob: ObjectId, limit: u64) -> Result<Content, GitError>;

    /// The repositories that have a mirror.
    async fn mirrors(&self) -> Result<Vec<RepositoryId>, GitError>;

    /// Rebuilds a mirror that has grown (too many packs or shallow lines) from the commits in
    /// `pins`; readers keep the old one until they are done. `false`: it had not grown.
    async fn compact(&self, repository: &RepositoryId, pins: &[ObjectId]) -> Result<bool, GitError>;

    /// Removes a mirror.
    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError>;
}
