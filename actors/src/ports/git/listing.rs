//! [`RefListing`]: what a host said of the refs that were asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
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
    /// Commits that could not be fetched, with the reason. Refs that name them move there with that fault;
    /// all other refs move as usual.
    pub refused: BTreeMap<ObjectId, String>,
    /// Commits that were not asked for yet: the heads of refs that name them stay where they were.
    pub untried: BTreeSet<ObjectId>,
    /// Refs whose absence from here may be believed: each has been absent for long enough. The watcher says
    /// so; a single listing never does.
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

    /// What it says of the repository, as a number: two listings that differ have different ones, but for one
    /// pair in 2^64. Says nothing of when it was asked for, nor of what became of its commits.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for Ref { name, commit } in &self.refs {
            (name, commit).hash(&mut hasher);
        }
        let Self { head, has_refs, unseen, seen, pattern_refs_max, moved_to, .. } = self;
        (self.refs.len(), head, has_refs, unseen, seen, pattern_refs_max, moved_to).hash(&mut hasher);
        hasher.finish()
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
