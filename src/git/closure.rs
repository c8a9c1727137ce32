//! Whether all that is wanted of a commit is here: every tree, and every file's blob unless trees
//! are enough. Looked for only below directories that differ from trees which are known to be
//! complete in the same sense.

use tidings_actors::{
    ports::{Extent, GitError},
    view::{MAX_SIZE_DEFAULT, View, ViewFilter},
};
use tidings_entity::{id::ObjectId, kind::ContentRule};

use super::{
    limits::Limits,
    objects::{Kind, Objects},
    tree_join::{Side, TreeJoin},
};

/// Checks that `wanted` (a commit, a tree, a blob or a tag) and all it needs are here, as far as
/// `extent` goes.
///
/// # Errors
/// [`GitError::Missing`] names the first object that is not; damage, malformed trees and spent
/// limits are errors too.
pub(super) fn check(
    objects: &Objects,
    limits: &Limits,
    wanted: ObjectId,
    complete: &[ObjectId],
    extent: Extent,
) -> Result<(), GitError> {
    let tree = match objects.header(wanted)?.1 {
        Kind::Commit => objects.commit(wanted)?.tree,
        Kind::Tree => wanted,
        Kind::Blob | Kind::Other => return Ok(()),
    };
    if extent == Extent::Commit {
        return Ok(());
    }
    let filter = everything()?;
    let mut sides = Vec::with_capacity(complete.len() + 1);
    for commit in complete {
        sides.push(Side { root: Some(objects.commit(*commit)?.tree), filter: &filter });
    }
    sides.push(Side { root: Some(tree), filter: &filter });
    let skip = |found: &[Option<(u32, ObjectId)>]| match found.split_last() {
        Some((Some(new), known)) => known.contains(&Some(*new)),
        _ => true,
    };
    let mut join = TreeJoin::new(objects, limits, &sides, &skip, None)?;
    while let Some(row) = join.next()? {
        if extent == Extent::Whole
            && let Some(Some(entry)) = row.entries.last()
            && !objects.contains(entry.blob)
        {
            return Err(GitError::Missing(entry.blob));
        }
    }
    Ok(())
}

/// Sees all that has an object of its own: files and symbolic links.
fn everything() -> Result<ViewFilter, GitError> {
    View::new(Vec::new(), Vec::new(), true, ContentRule::None, MAX_SIZE_DEFAULT)
        .and_then(|view| view.filter())
        .map_err(|error| GitError::Protocol(error.to_string()))
}
