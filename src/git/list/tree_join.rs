//! Walks several trees together: yields, in the order of raw path bytes, each path of any side, with the
//! entries of all sides. A closure over the ids of a directory decides whether the walk enters it.
//!
//! Memory: one parsed tree per side for each directory on the way down, with a bound on all bytes together;
//! never a list of paths.

use tidings_actors::{model::round::Entry, model::view::ViewFilter, ports::GitError};
use tidings_entity::id::ObjectId;

use crate::objects::{
    Objects,
    limits::Limits,
    tree::{PATH_BYTES_MAX, Tree, TreeEntry},
};

/// One of the trees.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// The id of the root tree; `None` is the empty tree.
    pub(crate) root: Option<ObjectId>,
    /// The filter for its paths.
    pub(crate) filter: &'a ViewFilter,
}

/// A path and the entries of all sides, in the order of the sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinRow {
    pub(crate) path: Vec<u8>,
    pub(crate) entries: Vec<Option<Entry>>,
}

/// Decides whether a directory or a file is skipped, by the entries of the sides (only those that their
/// filters admit).
pub(crate) type Skip<'a> = dyn Fn(&[Option<(u32, ObjectId)>]) -> bool + 'a;

/// The state of a walk over several trees, between two paths.
pub(crate) struct TreeJoin<'a> {
    objects: &'a Objects,
    limits: &'a Limits,
    sides: &'a [Side<'a>],
    skip: &'a Skip<'a>,
    after: Option<&'a [u8]>,
    path: Vec<u8>,
    stack: Vec<Frame>,
    held: usize,
}

/// One directory on the way down.
struct Frame {
    path_length: usize,
    cursors: Vec<Cursor>,
}

#[derive(Default)]
struct Cursor {
    tree: Tree,
    at: usize,
}

impl<'a> TreeJoin<'a> {
    /// Begins after `after`, or at the first path.
    pub(crate) fn new(
        objects: &'a Objects,
        limits: &'a Limits,
        sides: &'a [Side<'a>],
        skip: &'a Skip<'a>,
        after: Option<&'a [u8]>,
    ) -> Result<Self, GitError> {
        let mut join =
            Self { objects, limits, sides, skip, after, path: Vec::new(), stack: Vec::new(), held: 0 };
        let roots: Vec<_> = sides.iter().map(|side| side.root.map(|root| (0o040_000, root))).collect();
        if !skip(&roots) {
            join.enter(&roots)?;
        }
        Ok(join)
    }

    /// The next path that some side has.
    pub(crate) fn next(&mut self) -> Result<Option<JoinRow>, GitError> {
        while let Some(frame) = self.stack.last_mut() {
            self.path.truncate(frame.path_length);
            let Some((is_tree, found)) = frame.next(&mut self.path) else {
                self.held -= self.stack.pop().map_or(0, |frame| frame.bytes());
                continue;
            };
            if self.path.len() > PATH_BYTES_MAX {
                return Err(GitError::TooLarge(format!("a path of more than {PATH_BYTES_MAX} bytes")));
            }
            if is_tree {
                self.directory(found)?;
            } else if let Some(entries) = self.file(&found) {
                return Ok(Some(JoinRow { path: self.path.clone(), entries }));
            }
        }
        Ok(None)
    }

    fn file(&self, found: &[Option<(u32, ObjectId)>]) -> Option<Vec<Option<Entry>>> {
        if self.after.is_some_and(|after| self.path.as_slice() <= after) || (self.skip)(found) {
            return None;
        }
        let admitted = |(found, side): (&Option<(u32, ObjectId)>, &Side<'_>)| {
            found
                .filter(|(mode, _)| side.filter.admits(&self.path, *mode))
                .map(|(mode, blob)| Entry { mode, blob })
        };
        let entries: Vec<_> = found.iter().zip(self.sides).map(admitted).collect();
        entries.iter().any(Option::is_some).then_some(entries)
    }

    fn directory(&mut self, mut found: Vec<Option<(u32, ObjectId)>>) -> Result<(), GitError> {
        for (found, side) in found.iter_mut().zip(self.sides) {
            *found = found.filter(|_| side.filter.may_descend(&self.path));
        }
        if found.iter().all(Option::is_none) || (self.skip)(&found) {
            return Ok(());
        }
        self.path.push(b'/');
        let passed = |after: &[u8]| self.path.as_slice() < after && !after.starts_with(&self.path);
        if self.after.is_some_and(passed) {
            return Ok(());
        }
        self.enter(&found)
    }

    fn enter(&mut self, found: &[Option<(u32, ObjectId)>]) -> Result<(), GitError> {
        self.limits.check_depth(self.stack.len())?;
        let mut cursors = Vec::with_capacity(found.len());
        for found in found {
            let tree = match found {
                Some((_, id)) => self.objects.tree(*id)?,
                None => Tree::default(),
            };
            cursors.push(Cursor { tree, at: 0 });
        }
        // The sides overlap: only the widest counts, so that a round over several trees of one repository
        // costs about as much as over a single tree.
        self.limits.spend(cursors.iter().map(|cursor| cursor.tree.len()).max().unwrap_or(0))?;
        let frame = Frame { path_length: self.path.len(), cursors };
        self.held += frame.bytes();
        self.limits.check_held(self.held)?;
        self.stack.push(frame);
        Ok(())
    }
}

impl Frame {
    fn bytes(&self) -> usize {
        self.cursors.iter().map(|cursor| cursor.tree.bytes()).sum()
    }

    /// The least remaining name of all sides, appended to `path`, and the entries of the sides. A file and a
    /// directory of the same name count as two.
    #[expect(clippy::type_complexity, reason = "a pair that is taken apart where it is made")]
    fn next(&mut self, path: &mut Vec<u8>) -> Option<(bool, Vec<Option<(u32, ObjectId)>>)> {
        let mut least: Option<TreeEntry<'_>> = None;
        for cursor in &self.cursors {
            if let Some(entry) = cursor.tree.get(cursor.at)
                && least.is_none_or(|least| entry.order(&least).is_lt())
            {
                least = Some(entry);
            }
        }
        let least = least?;
        path.extend_from_slice(least.name);
        let is_tree = least.is_tree();
        let mut found = Vec::with_capacity(self.cursors.len());
        let mut matched = Vec::with_capacity(self.cursors.len());
        for cursor in &self.cursors {
            let entry = cursor.tree.get(cursor.at).filter(|entry| entry.order(&least).is_eq());
            matched.push(entry.is_some());
            found.push(entry.map(|entry| (entry.mode, entry.id)));
        }
        for (cursor, matched) in self.cursors.iter_mut().zip(matched) {
            cursor.at += usize::from(matched);
        }
        Some((is_tree, found))
    }
}

/// The entry of a tree at a path.
pub(crate) fn lookup(
    objects: &Objects,
    limits: &Limits,
    side: &Side<'_>,
    path: &[u8],
) -> Result<Option<Entry>, GitError> {
    let Some(mut tree) = side.root else { return Ok(None) };
    let mut components = path.split(|byte| *byte == b'/').peekable();
    let mut depth = 0;
    while let Some(component) = components.next() {
        limits.check_depth(depth)?;
        limits.spend(1)?;
        let parsed = objects.tree(tree)?;
        let Some(entry) = parsed.find(component) else { return Ok(None) };
        if components.peek().is_none() {
            let admitted = !entry.is_tree() && side.filter.admits(path, entry.mode);
            return Ok(admitted.then_some(Entry { mode: entry.mode, blob: entry.id }));
        }
        if !entry.is_tree() {
            return Ok(None);
        }
        tree = entry.id;
        depth += 1;
    }
    Ok(None)
}
