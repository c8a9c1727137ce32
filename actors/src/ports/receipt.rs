//! Hooks of Git hosts as rows and messages know them.

use tidings_entity::{
    id::{ReceiptId, RepositoryId},
    kind::{HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};

use super::StoreError;
use crate::time::Timestamp;

/// Most receipts of genuine hooks that are kept, whatever their age.
pub const RECEIPTS_MAX: i64 = 100_000;
/// Most receipts of refused and repeated hooks that are kept: anybody can cause those.
pub const NOTED_RECEIPTS_MAX: i64 = 1_000;

/// A hook that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The kind of host that sent it.
    pub provider: HookProvider,
    /// The host's id of this delivery; `None`: it gave none, so it repeats no other.
    pub delivery: Option<String>,
    /// The event as the host names it.
    pub event: String,
    /// What it tells of.
    pub news: HookNews,
    /// The full name of the ref that it tells of.
    pub ref_name: Option<String>,
    /// The normalised addresses of the repository that it names. Looked up, never asked.
    pub addresses: Vec<String>,
    /// When it came.
    pub received_at: Timestamp,
}

/// A hook with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: ReceiptId,
    /// The hook. Of a refused one everything in it is a claim.
    pub hook: Hook,
    /// What became of it.
    pub verdict: ReceiptVerdict,
    /// The reason for the verdict.
    pub reason: ReceiptReason,
    /// The watched repositories that it names.
    pub repositories: Vec<RepositoryId>,
    /// How many requests it stands for: refused and repeated ones are not all written down.
    pub times: u64,
    /// When it was replayed last.
    pub replayed_at: Option<Timestamp>,
}

impl Receipt {
    /// Whether it may be judged again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the reason why not.
    pub fn may_be_replayed(&self) -> Result<(), StoreError> {
        match self.verdict {
            ReceiptVerdict::Accepted | ReceiptVerdict::Ignored => Ok(()),
            ReceiptVerdict::Refused => {
                Err(StoreError::Conflict("a refused hook cannot be replayed: it may be anybody's".into()))
            }
            ReceiptVerdict::Duplicate => {
                Err(StoreError::Conflict("a repetition cannot be replayed: replay the first one".into()))
            }
        }
    }
}
