//! What a receiver has when nothing is on its way: the files of its repository, but for paths that were
//! given up, of which it may have anything.

use std::collections::BTreeSet;

use super::{Change, Model};
use crate::support::project::Tree;

impl Model {
    /// How a mirror at rest differs from the tree that it should be; `parked` are the paths with an open
    /// dead letter.
    pub(crate) fn differences(&self, mirror: &str, tree: &Tree, parked: &BTreeSet<Vec<u8>>) -> Vec<String> {
        let nothing = Tree::new();
        let has = self.mirrors.get(mirror).unwrap_or(&nothing);
        let paths: BTreeSet<&Vec<u8>> = has.keys().chain(tree.keys()).collect();
        let differs = |path: &Vec<u8>| {
            let name = String::from_utf8_lossy(path);
            match (has.get(path), tree.get(path)) {
                (None, Some(_)) => Some(format!("{mirror} lacks {name}, and no letter is open")),
                (Some(_), None) => Some(format!("{mirror} still has {name}, and no letter is open")),
                (Some(one), Some(other)) if one != other => {
                    Some(format!("{mirror} has another {name}, and no letter is open"))
                }
                _ => None,
            }
        };
        paths.into_iter().filter(|path| !parked.contains(*path)).filter_map(differs).collect()
    }

    /// Everything that was applied so far, in order; the details of what came are forgotten. For rests alone:
    /// nothing of what is forgotten may come again, and if it does, that is a fault by its round.
    pub(crate) fn take_applied(&mut self) -> Vec<Change> {
        self.seen.clear();
        self.bodies.clear();
        self.order.clear();
        self.finished.clear();
        self.chunks_seen.clear();
        std::mem::take(&mut self.applied)
    }
}
