//! Searches trees for a blob, to decide which contents an app may read.
//!
//! Trees with the same view are walked one after another, each only where it differs from the previous tree,
//! so that a hundred branches of one repository cost about as much as one. One budget limits the whole
//! search.

use tidings_actors::{model::round::TreeEnd, model::view::ViewFilter, ports::GitError};
use tidings_entity::id::ObjectId;

use super::{limits::Limits, tree::is_tree};
use crate::{
    list::tree_join::{Side, TreeJoin},
    objects::Objects,
};

/// Whether one of these trees, filtered by its view, has this blob at some path.
///
/// # Errors
/// [`GitError::Missing`] for a missing commit or tree, although another tree may hold the blob; damage,
/// malformed trees and exceeded limits are errors too.
pub(crate) fn holds(
    objects: &Objects,
    limits: &Limits,
    ends: &[TreeEnd],
    blob: ObjectId,
) -> Result<bool, GitError> {
    let mut ends: Vec<&TreeEnd> = ends.iter().collect();
    ends.sort_by_cached_key(|end| end.view.id());
    for alike in ends.chunk_by(|one, other| one.view == other.view) {
        let filter = alike[0].view.filter().map_err(|error| GitError::Protocol(error.to_string()))?;
        let mut before = None;
        for end in alike {
            let root = objects.commit(end.commit)?.tree;
            if differing_part_holds(objects, limits, &filter, [before, Some(root)], blob)? {
                return Ok(true);
            }
            before = Some(root);
        }
    }
    Ok(false)
}

/// Whether the second tree holds the blob where it differs from the first, which does not hold it.
fn differing_part_holds(
    objects: &Objects,
    limits: &Limits,
    filter: &ViewFilter,
    roots: [Option<ObjectId>; 2],
    blob: ObjectId,
) -> Result<bool, GitError> {
    let sides = roots.map(|root| Side { root, filter });
    let skip = |found: &[Option<(u32, ObjectId)>]| match found {
        [before, Some(new)] if is_tree(new.0) => *before == Some(*new),
        [_, Some((_, id))] => *id != blob,
        _ => true,
    };
    let mut join = TreeJoin::new(objects, limits, &sides, &skip, None)?;
    while let Some(row) = join.next()? {
        if let Some(Some(entry)) = row.entries.last()
            && entry.blob == blob
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
