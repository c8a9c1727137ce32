//! Checks whether all objects of a wanted commit are present: every tree, and every file's blob unless trees
//! are enough. Only directories that are not known to be complete in the same sense are searched.
//!
//! Paths are not judged here: the rounds of each app judge the paths that their view includes.

use std::collections::HashSet;

use tidings_actors::ports::{Extent, GitError};
use tidings_entity::id::ObjectId;

use crate::objects::{
    Kind, Objects,
    limits::{HELD_BYTES_MAX, Limits},
    tree::{Tree, TreeEntry},
};

/// The mode of a commit of another repository.
const SUBMODULE: u32 = 0o160_000;
/// Commits that a wanted commit is compared with at most. More would cost memory for each directory on the
/// way down, and the first few save most of the work.
pub(crate) const COMPARED_MAX: usize = 8;

/// The objects that are known to be complete.
pub(crate) enum Known<'a> {
    /// Every tree in the mirror: no incomplete tree was ever admitted.
    All(&'a Objects),
    /// These commits; only the first few are compared.
    Commits(&'a [ObjectId]),
}

/// Trees that were found complete in one pass, over all wanted objects.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    trees: HashSet<ObjectId>,
}

/// A directory on the way down.
struct Frame {
    id: ObjectId,
    tree: Tree,
    at: usize,
    /// The trees of complete commits at the same path.
    beside: Vec<Tree>,
}

impl Seen {
    /// Checks that `wanted` (a commit, a tree, a blob or a tag) and all objects that it needs are present, as
    /// far as `extent` goes.
    ///
    /// # Errors
    /// [`GitError::Missing`] names the first missing object; damage, malformed trees and exceeded limits are
    /// errors too.
    pub(crate) fn check(
        &mut self,
        objects: &Objects,
        known: &Known<'_>,
        limits: &Limits,
        wanted: ObjectId,
        extent: Extent,
    ) -> Result<(), GitError> {
        let root = match objects.header(wanted)?.1 {
            Kind::Commit => objects.commit(wanted)?.tree,
            Kind::Tree => wanted,
            Kind::Blob | Kind::Other => return Ok(()),
        };
        if extent == Extent::Commit {
            return Ok(());
        }
        let mut beside = Vec::new();
        let before = match known {
            Known::All(before) => Some(*before),
            Known::Commits(commits) => {
                for commit in commits.iter().take(COMPARED_MAX) {
                    let Ok(complete) = objects.commit(*commit) else { continue };
                    if complete.tree == root {
                        return Ok(());
                    }
                    beside.extend(objects.tree(complete.tree));
                }
                None
            }
        };
        let mut walk = Walk { objects, before, limits, seen: &mut self.trees, held: 0, stack: Vec::new() };
        if !walk.is_known(root) {
            walk.enter(root, beside)?;
        }
        walk.go(extent)
    }
}

struct Walk<'a> {
    objects: &'a Objects,
    before: Option<&'a Objects>,
    limits: &'a Limits,
    seen: &'a mut HashSet<ObjectId>,
    held: usize,
    stack: Vec<Frame>,
}

impl Walk<'_> {
    fn is_known(&self, tree: ObjectId) -> bool {
        self.seen.contains(&tree) || self.before.is_some_and(|before| before.contains(tree))
    }

    fn go(&mut self, extent: Extent) -> Result<(), GitError> {
        while let Some(frame) = self.stack.last_mut() {
            let Some(entry) = frame.tree.get(frame.at) else {
                self.leave();
                continue;
            };
            frame.at += 1;
            if is_beside(&frame.beside, &entry) {
                continue;
            }
            let (id, mode) = (entry.id, entry.mode);
            if entry.is_tree() {
                let beside = frame.beside.iter().filter_map(|tree| tree.find(entry.name));
                let beside: Vec<_> = beside.filter(TreeEntry::is_tree).map(|found| found.id).collect();
                if !self.is_known(id) {
                    let beside = beside.into_iter().flat_map(|tree| self.objects.tree(tree));
                    let beside = beside.collect();
                    self.enter(id, beside)?;
                }
            } else if extent == Extent::Whole && mode != SUBMODULE && !self.objects.contains(id) {
                return Err(GitError::Missing(id));
            }
        }
        Ok(())
    }

    fn enter(&mut self, id: ObjectId, beside: Vec<Tree>) -> Result<(), GitError> {
        self.limits.check_depth(self.stack.len())?;
        let tree = self.objects.tree(id)?;
        self.limits.spend(tree.len())?;
        let mut frame = Frame { id, tree, at: 0, beside };
        if self.held + frame.bytes() > HELD_BYTES_MAX {
            // The trees to compare with only spare work.
            frame.beside.clear();
            self.stack.iter_mut().for_each(|above| above.beside.clear());
            self.held = self.stack.iter().map(Frame::bytes).sum();
        }
        self.held += frame.bytes();
        self.limits.check_held(self.held)?;
        self.stack.push(frame);
        Ok(())
    }

    /// Only now the directory counts as complete: all below it was seen.
    fn leave(&mut self) {
        if let Some(frame) = self.stack.pop() {
            self.held -= frame.bytes();
            self.seen.insert(frame.id);
        }
    }
}

impl Frame {
    fn bytes(&self) -> usize {
        self.tree.bytes() + self.beside.iter().map(Tree::bytes).sum::<usize>()
    }
}

/// Whether a complete commit has the same there.
fn is_beside(beside: &[Tree], entry: &TreeEntry<'_>) -> bool {
    beside.iter().any(|tree| tree.find(entry.name).is_some_and(|found| found.id == entry.id))
}
