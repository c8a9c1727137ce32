//! Hooks of Git hosts as stored in rows and used in messages.

use tidings_entity::{
    id::{ReceiptId, RepositoryId},
    kind::{BodyFate, HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};

use super::{HookOwner, StoreError};
use crate::time::Timestamp;

/// Most receipts of genuine hooks that are kept, regardless of their age.
pub const RECEIPTS_MAX: i64 = 100_000;
/// Most receipts of refused and repeated hooks that are kept: anyone can cause those.
pub const NOTED_RECEIPTS_MAX: i64 = 1_000;
/// Most receipts of genuine hooks of one app that are kept: an app that floods pushes out its own.
pub const APP_RECEIPTS_MAX: i64 = 1_000;
/// Largest body that is kept of one hook, in bytes.
pub const BODY_KEPT_MAX: usize = 64 << 10;
/// The bodies of one app take at most this part of all that is kept.
pub const APP_BODIES_PART: u64 = 4;

/// A hook that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The hook and app that the request belongs to; `None`: an address of the server itself.
    pub owner: Option<HookOwner>,
    /// The kind of host that sent it.
    pub provider: HookProvider,
    /// The host's id of this delivery; `None`: the host gave none, so the hook repeats no other.
    pub delivery: Option<String>,
    /// The event as the host names it.
    pub event: String,
    /// What the hook reports, such as a push.
    pub news: HookNews,
    /// The full name of the ref that the hook is about; `None`: no single ref.
    pub ref_name: Option<String>,
    /// The normalised addresses of the repository in the hook. They are looked up, never requested.
    pub addresses: Vec<String>,
    /// When the hook was received.
    pub received_at: Timestamp,
}

impl Hook {
    /// The same hook with the result of reading its body again, if it was read again.
    #[must_use]
    pub fn read_again(self, reading: Option<&Reading>) -> Self {
        let Some(Reading { news, ref_name, addresses }) = reading.cloned() else { return self };
        Self { news, ref_name, addresses, ..self }
    }
}

/// A received hook, with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the receipt, `rct_` and a ULID.
    pub id: ReceiptId,
    /// The hook. In a refused hook every field is an unproved claim of the sender.
    pub hook: Hook,
    /// How the hook was judged.
    pub verdict: ReceiptVerdict,
    /// The reason for the verdict.
    pub reason: ReceiptReason,
    /// The watched repositories that it names.
    pub repositories: Vec<RepositoryId>,
    /// The number of requests that the receipt stands for: refused and repeated hooks share receipts.
    pub times: u64,
    /// When the hook was last replayed.
    pub replayed_at: Option<Timestamp>,
    /// The result of storing its body; `None`: the hook was not proved genuine, or repeats another one.
    pub body: Option<BodyNote>,
}

/// The result of storing the body of a genuine hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyNote {
    /// Whether the body is stored.
    pub fate: BodyFate,
    /// The size of the body in bytes.
    pub size_bytes: u64,
}

/// The stored part of a hook's request: header fields that hold no secret, and the body as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// Names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body, at most [`BODY_KEPT_MAX`] bytes.
    pub body: String,
}

/// The request of a genuine hook, for the store.
#[derive(Clone, Debug)]
pub struct RequestToKeep {
    /// Whether the body is stored.
    pub note: BodyNote,
    /// The request to store, if the note says that it is stored.
    pub request: Option<KeptRequest>,
    /// Most bytes of all bodies together, 0 for none. The oldest bodies make room for newer ones.
    pub ring_bytes: u64,
}

/// The content of a body that was read again.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The event that the hook reports.
    pub news: HookNews,
    /// The full name of the ref that the hook reports.
    pub ref_name: Option<String>,
    /// The normalised addresses of the repository that it names.
    pub addresses: Vec<String>,
}

impl Receipt {
    /// Whether the body of the hook is stored.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.body.is_some_and(|body| body.fate == BodyFate::Kept)
    }

    /// Whether it may be judged again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the reason why not.
    pub fn may_be_replayed(&self) -> Result<(), StoreError> {
        match self.verdict {
            ReceiptVerdict::Accepted | ReceiptVerdict::Ignored => Ok(()),
            // The hook is genuine, and this version may be able to read its body.
            ReceiptVerdict::Refused if self.is_kept() => Ok(()),
            ReceiptVerdict::Refused => {
                Err(StoreError::Conflict("a refused hook cannot be replayed: it may be anybody's".into()))
            }
            ReceiptVerdict::Duplicate => {
                Err(StoreError::Conflict("a repetition cannot be replayed: replay the first one".into()))
            }
        }
    }
}
