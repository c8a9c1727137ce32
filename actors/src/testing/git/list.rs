//! The list of a round, made the plain way: whole and sorted, straight from the rules in
//! [`crate::model::round`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use tidings_entity::{
    id::ObjectId,
    kind::{ContentRule, Operation, RoundKind},
};

use crate::model::round::{Change, Entry, ListDigest, RoundSpec, Summary, TreeEnd};

/// A tree: entries by path.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// The entries of a tree that a view admits.
pub(super) fn filtered(tree: Option<&Tree>, end: Option<&TreeEnd>) -> Tree {
    let (Some(tree), Some(end)) = (tree, end) else { return Tree::new() };
    let filter = end.view.filter().expect("a view's globs compile");
    tree.iter()
        .filter(|(path, entry)| filter.admits(path, entry.mode))
        .map(|(path, entry)| (path.clone(), *entry))
        .collect()
}

/// Puts what letters say in the place of what the held tree says; the paths that count as
/// different whatever the target has.
fn lay_letters_over(spec: &RoundSpec, before: &mut Tree) -> BTreeSet<Vec<u8>> {
    let mut never_equal: BTreeSet<Vec<u8>> = BTreeSet::new();
    for letter in &spec.letters {
        never_equal.insert(letter.path.clone());
        match (spec.kind, letter.before) {
            (RoundKind::Resync, Some(entry)) => {
                before.entry(letter.path.clone()).or_insert(entry);
            }
            (RoundKind::Resync, None) => {}
            (_, Some(entry)) => {
                before.insert(letter.path.clone(), entry);
            }
            (_, None) => {
                before.remove(&letter.path);
            }
        }
    }
    never_equal
}

/// The list of a round, made the plain way.
#[must_use]
pub fn list(
    spec: &RoundSpec,
    held: Option<&Tree>,
    target: Option<&Tree>,
    bases: &[&Tree],
    blobs: &HashMap<ObjectId, Bytes>,
) -> Vec<Change> {
    let after = filtered(target, spec.target.as_ref());
    let mut before = match spec.kind {
        RoundKind::Sync | RoundKind::Replay => filtered(held, spec.held.as_ref()),
        RoundKind::Redrive => Tree::new(),
        RoundKind::Resync => {
            let mut all = Tree::new();
            for (base, end) in bases.iter().zip(&spec.bases) {
                for (path, entry) in filtered(Some(base), Some(end)) {
                    all.entry(path).or_insert(entry);
                }
            }
            all
        }
    };
    let never_equal = lay_letters_over(spec, &mut before);
    let touched = |path: &Vec<u8>| {
        spec.kind != RoundKind::Redrive || spec.letters.iter().any(|letter| letter.path == *path)
    };
    let replay_of = |path: &Vec<u8>| {
        let letter = spec.letters.iter().find(|letter| letter.path == *path);
        letter.filter(|_| spec.kind == RoundKind::Redrive).map(|letter| letter.delivery.clone())
    };
    let mut paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    paths.extend(&never_equal);
    let mut changes = [Vec::new(), Vec::new(), Vec::new()];
    for path in paths.into_iter().filter(|path| touched(path)) {
        let (old, new) = (before.get(path).copied(), after.get(path).copied());
        let mut push = |phase: usize, operation, old, new| {
            changes[phase].push(Change {
                operation,
                path: path.clone(),
                old,
                new,
                replay_of: replay_of(path),
            });
        };
        match (old, new) {
            (old, None) if old.is_some() || never_equal.contains(path) => {
                push(0, Operation::Delete, old, None)
            }
            (_, None) => {}
            (_, Some(_)) if spec.kind == RoundKind::Resync => push(1, Operation::Create, None, new),
            (None, Some(_)) => push(1, Operation::Create, None, new),
            (Some(one), Some(other)) if one.mode & 0o170_000 != other.mode & 0o170_000 => {
                push(0, Operation::Delete, old, None);
                push(1, Operation::Create, None, new);
            }
            (Some(one), Some(other))
                if one != other || never_equal.contains(path) || gives_more(spec, other, blobs) =>
            {
                push(2, Operation::Update, old, new);
            }
            _ => {}
        }
    }
    changes.concat()
}

/// Whether the target's view gives content of an entry that the held view did not.
fn gives_more(spec: &RoundSpec, entry: Entry, blobs: &HashMap<ObjectId, Bytes>) -> bool {
    let (Some(held), Some(target)) = (&spec.held, &spec.target) else { return false };
    let size = blobs.get(&entry.blob).map_or(0, |blob| blob.len() as u64);
    let gives = |end: &TreeEnd| end.view.content() == ContentRule::Inline && size <= end.view.max_size();
    gives(target) && !gives(held)
}

/// Counts and digest of a list.
#[must_use]
pub fn summary(changes: &[Change]) -> Summary {
    let count = |operation| changes.iter().filter(|change| change.operation == operation).count() as u64;
    let mut digest = ListDigest::default();
    changes.iter().for_each(|change| digest.add(change));
    Summary {
        deletes: count(Operation::Delete),
        creates: count(Operation::Create),
        updates: count(Operation::Update),
        digest: digest.finish(),
    }
}
