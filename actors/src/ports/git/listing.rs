//! [`RefListing`]: the answer of a host about its refs.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

use tidings_entity::id::ObjectId;

use crate::time::Timestamp;

/// One ref of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// The full name, raw bytes made lossless: names that are not UTF-8 are left out by the
    /// parser.
    pub name: String,
    /// The commit: for an annotated tag the peeled one.
    pub commit: ObjectId,
}

/// The answer of `ls-refs` about the refs that were asked for.
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
    /// When the listing was requested; knowledge since then is newer. `None`: just now.
    pub asked_at: Option<Timestamp>,
    /// Commits that could not be fetched, with the reason. Refs with these commits move to them with that
    /// fault; all other refs move as usual.
    pub refused: BTreeMap<ObjectId, String>,
    /// Commits that were not fetched yet: the heads of refs with these commits do not move.
    pub untried: BTreeSet<ObjectId>,
    /// Refs that count as gone: each has been absent for long enough. The watcher decides that; a single
    /// listing never does.
    pub gone: BTreeSet<String>,
    /// Patterns that were not listed, because they match too many refs or `is_partial`. A ref that only these
    /// patterns match counts neither as present nor as absent.
    pub unseen: RefPatterns,
    /// Patterns that were listed beside `unseen`: refs that these match are known. Empty where all were
    /// listed.
    pub seen: RefPatterns,
    /// Whether the scan left `unseen` out to be quick: a later scan asks for these refs. A store need not
    /// read the rows of their cursors.
    pub is_partial: bool,
    /// Refs that exist and cannot be read, each with the reason and the mend. Each counts neither as present
    /// nor as absent.
    pub unreadable: BTreeMap<String, String>,
    /// Objects that refs name and that a local repository cannot read at this moment, as while the disk of
    /// its alternates is not mounted. Their refs are listed: they are not gone.
    pub dangling: BTreeSet<ObjectId>,
    /// Most refs that one pattern of a watch follows; `None`:
    /// [`crate::model::follow::CURSORS_PER_WATCH_MAX`].
    pub pattern_refs_max: Option<usize>,
    /// The normalised address at which the repository was found, if its host said that it moved permanently
    /// and the new address accepted the same credential; always at the same host.
    pub moved_to: Option<String>,
    /// Digest of the bytes that the listing was read from, for [`crate::ports::GitSource::list_refs_unless`].
    /// `None`: the listing was read from several answers, from a very long one, or in place.
    pub answer: Option<NonZeroU64>,
}

impl RefListing {
    /// Whether nothing is known of a ref, because it cannot be read, or only patterns name it that could not
    /// be listed.
    #[must_use]
    pub fn is_unseen(&self, name: &str) -> bool {
        let is_unseen = is_named(&self.unseen, name) && !is_named(&self.seen, name);
        self.unreadable.contains_key(name) || is_unseen
    }

    /// Whether the scan did not ask for this pattern, although some of its refs may be listed for other apps.
    /// Only a scan that asks for all refs of a pattern can choose among them.
    #[must_use]
    pub fn leaves_out(&self, pattern: Option<&String>) -> bool {
        self.is_partial && pattern.is_some_and(|pattern| self.unseen.contains(pattern))
    }

    /// A hash of the content of the listing: two different listings have different hashes, with a probability
    /// of 1 - 2^-64. It covers neither the moment of the request nor the result of fetching its commits, nor
    /// the parts of the answer that nobody asked for.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for Ref { name, commit } in &self.refs {
            (name, commit).hash(&mut hasher);
        }
        let Self { head, has_refs, unseen, seen, unreadable, dangling, .. } = self;
        (self.refs.len(), head, has_refs, unseen, seen).hash(&mut hasher);
        (unreadable, dangling, self.pattern_refs_max, &self.moved_to).hash(&mut hasher);
        hasher.finish()
    }

    /// Adds a listing of other refs of the same repository.
    pub fn join(&mut self, other: Self) {
        let refs: BTreeMap<String, ObjectId> =
            self.refs.drain(..).chain(other.refs).map(|found| (found.name, found.commit)).collect();
        self.refs = refs.into_iter().map(|(name, commit)| Ref { name, commit }).collect();
        self.head = self.head.take().or(other.head);
        self.has_refs |= other.has_refs;
        self.unreadable.extend(other.unreadable);
        self.dangling.extend(other.dangling);
        self.moved_to = self.moved_to.take().or(other.moved_to);
        self.answer = None;
    }
}

/// Full ref names, or prefixes that end in `/`, to ask a host for. HEAD is always asked for.
pub type RefPatterns = Vec<String>;

/// Whether one of these patterns names the ref.
#[must_use]
pub fn is_named(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.ends_with('/') {
        true => name.starts_with(pattern.as_str()),
        false => name == pattern,
    })
}

/// The distinct sets of patterns of some apps; one listing may ask for each set.
#[must_use]
pub fn patterns_of(apps: impl Iterator<Item = BTreeSet<String>>) -> Vec<RefPatterns> {
    let mut seen = BTreeSet::new();
    apps.filter(|patterns| seen.insert(patterns.clone()))
        .map(|patterns| patterns.into_iter().collect())
        .collect()
}
