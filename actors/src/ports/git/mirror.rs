//! Mirrors as upkeep sees them: what they take, what they keep, and which of their files are read again.

use tidings_entity::id::{ObjectId, RepositoryId};

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
