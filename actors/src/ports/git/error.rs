//! [`GitError`]: why Git work failed, and what follows.

use std::time::Duration;

use thiserror::Error;
use tidings_entity::id::ObjectId;

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
    #[error("the Git host asks to wait")]
    RateLimited {
        /// The wait that the host asked for; `None`: it named no time.
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
        "the repository lists no branch and no tag any more; what the apps have stays until it lists some \
         again"
    )]
    NoRefs,
    /// The host says that the repository moved permanently to this address. The new address is used only if
    /// host and scheme stay the same and it answers.
    #[error("the repository moved to {0}; watch it there")]
    Moved(String),
    /// Another redirect; never followed.
    #[error("the Git host answered with a redirect, which is never followed")]
    Redirected,
    /// The settings refuse to go to the address; the text names the setting.
    #[error("{0}")]
    Refused(String),
    /// A status code that has no variant of its own.
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
    /// The data exceeded a limit.
    #[error("repository too large: {0}")]
    TooLarge(String),
    /// A tree that no honest tool writes (`..`, `.git`, `a/b`, duplicates, unsorted).
    #[error("the tree is malformed: {0}")]
    MalformedTree(String),
    /// An object is not in the mirror; a fetch by id may bring it.
    #[error("object {0} is missing")]
    Missing(ObjectId),
    /// The host definitively refuses an object (`not our ref`).
    #[error("object {0} is neither in the mirror nor at the Git host")]
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
    /// A mirror could not be written: the disk is full or failed.
    #[error("the mirror could not be written: {0}")]
    Storage(String),
    /// Too many other fetches were being received. The repository and its host are not at fault.
    #[error("this server is busy: {0}")]
    Busy(String),
    /// The work was cancelled, or this process is stopping.
    #[error("cancelled")]
    Cancelled,
}

impl GitError {
    /// Whether the host or the network is at fault, so that the failure counts for the Git breaker. A host
    /// that asks for a wait works: the wait is kept, and no failure is counted.
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

    /// Whether the content or type of an object is the fault: the same answer each time, however well the
    /// host and the mirror are.
    #[must_use]
    pub fn is_of_the_object(&self) -> bool {
        matches!(self, Self::NotACommit(_) | Self::MalformedTree(_) | Self::TooLarge(_) | Self::Broken(_))
    }

    /// Whether one of the wanted objects may be the cause, so that the others can be fetched without it. Not
    /// so if the host, the network or the disk failed.
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
