//! Mirrors as upkeep sees them: their size, the objects they keep, and the share of their files that is read
//! again.

use tidings_entity::id::{ObjectId, RepositoryId};

/// The facts about a mirror on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFacts {
    /// The repository that the mirror is a copy of.
    pub repository: RepositoryId,
    /// The size of all files of the mirror, in bytes.
    pub bytes: u64,
    /// The number of pack files.
    pub packs: u64,
    /// The number of commits whose parents are absent on purpose (lines of `shallow`).
    pub shallow: u64,
    /// The size after blobs were dropped to make room, in bytes; `None`: none were dropped.
    pub evicted_to: Option<u64>,
}

/// The objects that a mirror keeps when it is compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The commits that stay, with their trees; a commit that is not in the mirror is skipped.
    pub commits: Vec<ObjectId>,
    /// Also keep every commit between two of them along first parents, as far as the mirror has it.
    pub chains: bool,
    /// Also keep the blobs in the mirror. Without them the mirror is marked as lacking contents, and blobs
    /// that are read later are fetched by id.
    pub blobs: bool,
}

/// The share of all files that a scrub reads: the files whose place on a circle of 65,536 lies from `from` up
/// to, but not including, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All files of the mirror.
    Whole,
    /// From one place on the circle to another, over its end where `to` is less than `from`.
    Arc {
        /// The first place of the share on the circle.
        from: u16,
        /// The place after the last one of the share.
        to: u16,
    },
}

impl Share {
    /// Whether a file at `place` belongs to the share.
    #[must_use]
    pub fn covers(self, place: u16) -> bool {
        match self {
            Self::Whole => true,
            Self::Arc { from, to } if from <= to => (from..to).contains(&place),
            Self::Arc { from, to } => place >= from || place < to,
        }
    }
}

/// The disk space of all mirrors, and whether more may be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Storage {
    /// The number of mirrors in the data directory.
    pub mirrors: u64,
    /// The size of all mirrors in bytes, as last measured: after each fetch and at each upkeep.
    pub mirror_bytes: u64,
    /// Free space where the mirrors lie, in bytes; 0 where the machine does not report it.
    pub free_bytes: u64,
    /// Why nothing is fetched at the moment; `None` while fetches are allowed.
    pub fetches_stopped: Option<String>,
}
