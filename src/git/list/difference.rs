//! The list of a round, computed lazily: a pass visits the changes of one phase (deletes, creates or
//! updates), or of all phases path by path, from any path on. Directories without changes of the phase are
//! not read.

use std::{cell::RefCell, iter::Peekable};

use tidings_actors::{
    model::round::{Change, Entry, Letter, RoundSpec, TreeEnd},
    model::view::{View, ViewFilter},
    ports::GitError,
};
use tidings_entity::{
    id::ObjectId,
    kind::{ContentRule, Operation, RoundKind},
};

use super::{
    rules::{PathState, changes},
    tree_join::{JoinRow, Side, TreeJoin, lookup},
};
use crate::objects::{Objects, limits::Limits};

/// Missing blobs that one pass records; the next pass finds further ones.
const LACKING_MAX: usize = 65_536;

/// The order of the phases of a list.
pub(crate) const PHASES: [Operation; 3] = [Operation::Delete, Operation::Create, Operation::Update];

/// The dead letters that take part in the difference.
#[derive(Clone, Copy)]
pub(crate) enum Letters<'a> {
    /// The letters that the round has bound.
    Bound(&'a [Letter]),
    /// Open letters: a letter is bound if the trees differ at its path (in a resync and a redrive always).
    Candidates(&'a [Letter]),
}

/// A visitor: gets a change and the letter of its path; `false` ends the pass.
pub(crate) type Visit<'a> = dyn FnMut(Change) -> Result<bool, GitError> + 'a;

/// A spec with its compiled filters and its commits.
pub(crate) struct Difference<'a> {
    objects: &'a Objects,
    kind: RoundKind,
    /// The bases first, the target last.
    ends: Vec<(Option<ObjectId>, ViewFilter)>,
    views: Option<(&'a View, &'a View)>,
    /// Whether all bases and the target have the same view, so that equal trees stay equal after filtering.
    alike: bool,
    /// Missing blobs whose sizes the list depends on.
    lacking: RefCell<Vec<ObjectId>>,
}

impl<'a> Difference<'a> {
    /// Compiles and looks up.
    ///
    /// # Errors
    /// [`GitError::Missing`] for a commit that is not here.
    pub(crate) fn new(objects: &'a Objects, spec: &'a RoundSpec) -> Result<Self, GitError> {
        let mut bases: Vec<Option<&TreeEnd>> = match spec.kind {
            RoundKind::Sync | RoundKind::Replay => vec![spec.held.as_ref()],
            RoundKind::Resync => spec.bases.iter().map(Some).collect(),
            RoundKind::Redrive => Vec::new(),
        };
        if spec.kind == RoundKind::Resync && spec.held.as_ref().is_some_and(|held| !spec.bases.contains(held))
        {
            bases.insert(0, spec.held.as_ref());
        }
        let target = spec.target.as_ref();
        let views = match (spec.kind, bases.first().copied().flatten(), target) {
            (RoundKind::Sync | RoundKind::Replay, Some(held), Some(target)) => {
                Some((&held.view, &target.view))
            }
            _ => None,
        };
        let same_paths = |base: &&TreeEnd| target.is_none_or(|target| sees_alike(&base.view, &target.view));
        let alike =
            bases.iter().flatten().all(same_paths) && views.is_none_or(|(old, new)| !may_give_more(old, new));
        let ends =
            bases.into_iter().chain([target]).map(|end| resolve(objects, end)).collect::<Result<_, _>>()?;
        Ok(Self { objects, kind: spec.kind, ends, views, alike, lacking: RefCell::default() })
    }

    /// Missing blobs that the passes made so far need for a right result.
    pub(crate) fn lacking(&self) -> Vec<ObjectId> {
        self.lacking.take()
    }

    /// Visits the changes of `phase` (`None`: of all phases) whose path comes after `after`, in the order of
    /// paths. Returns the bound letters, and whether the pass went to its end.
    pub(crate) fn pass(
        &self,
        limits: &Limits,
        letters: Letters<'_>,
        phase: Option<Operation>,
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(Vec<Letter>, bool), GitError> {
        let sides: Vec<_> = self.ends.iter().map(|(root, filter)| Side { root: *root, filter }).collect();
        let walked: Vec<_> = sides.iter().map(|side| self.walked(side, phase)).collect();
        let skip = |found: &[Option<(u32, ObjectId)>]| self.skips(phase, found);
        let mut join = TreeJoin::new(self.objects, limits, &walked, &skip, after)?;
        let (letters_of_round, binding) = match letters {
            Letters::Bound(letters) => (letters, false),
            Letters::Candidates(letters) => (letters, true),
        };
        let first = letters_of_round
            .partition_point(|letter| after.is_some_and(|after| letter.path.as_slice() <= after));
        let mut letters = letters_of_round[first..].iter().peekable();
        let mut bound = Vec::new();
        loop {
            let row = join.next()?;
            let path = row.as_ref().map(|row| row.path.as_slice());
            while let Some(letter) = before(&mut letters, path) {
                let entries = sides.iter().map(|side| lookup(self.objects, limits, side, &letter.path));
                let row = JoinRow { path: letter.path.clone(), entries: entries.collect::<Result<_, _>>()? };
                if !self.place(&row, Some((letter, binding)), phase, &mut bound, visit)? {
                    return Ok((bound, false));
                }
            }
            let Some(row) = row else { return Ok((bound, true)) };
            let letter = letters.next_if(|letter| letter.path == row.path).map(|letter| (letter, binding));
            // A phase may not have read every side; the rule of a letter needs all sides.
            let row = if letter.is_some() { self.complete(limits, &sides, row)? } else { row };
            if !self.place(&row, letter, phase, &mut bound, visit)? {
                return Ok((bound, false));
            }
        }
    }

    fn complete(&self, limits: &Limits, sides: &[Side<'_>], row: JoinRow) -> Result<JoinRow, GitError> {
        let entries = sides.iter().map(|side| lookup(self.objects, limits, side, &row.path));
        Ok(JoinRow { entries: entries.collect::<Result<_, _>>()?, path: row.path })
    }

    /// A redrive looks up its letters only; the creates of a resync need nothing but the target.
    fn walked<'s>(&self, side: &Side<'s>, phase: Option<Operation>) -> Side<'s> {
        let is_target = self.ends.last().is_some_and(|(_, filter)| std::ptr::eq(filter, side.filter));
        let needless = match self.kind {
            RoundKind::Redrive => true,
            RoundKind::Resync => phase == Some(Operation::Create) && !is_target,
            RoundKind::Sync | RoundKind::Replay => false,
        };
        Side { root: side.root.filter(|_| !needless), filter: side.filter }
    }

    /// Whether the phase has no changes below a directory (or at a file) with these ids.
    fn skips(&self, phase: Option<Operation>, found: &[Option<(u32, ObjectId)>]) -> bool {
        let Some((target, bases)) = found.split_last() else { return true };
        let held = bases.iter().any(Option::is_some);
        let equal = self.alike && held && bases.iter().flatten().all(|base| Some(*base) == *target);
        match (phase, self.kind) {
            (_, RoundKind::Redrive) => true,
            (None, RoundKind::Resync) => false,
            (None, _) => equal,
            (Some(Operation::Delete), _) => !held || equal,
            (Some(Operation::Create), RoundKind::Resync) => target.is_none(),
            (Some(Operation::Create), _) => target.is_none() || equal,
            (Some(Operation::Update), RoundKind::Resync) => true,
            (Some(Operation::Update), _) => target.is_none() || !held || equal,
        }
    }

    fn place(
        &self,
        row: &JoinRow,
        letter: Option<(&Letter, bool)>,
        phase: Option<Operation>,
        bound: &mut Vec<Letter>,
        visit: &mut Visit<'_>,
    ) -> Result<bool, GitError> {
        let (target, bases) = row.entries.split_last().expect("the target is always a side");
        let gives_more = |entry: Entry| self.gives_more(entry);
        let mut place = PathState { path: &row.path, bases, target: *target, letter: None };
        if let Some((letter, binding)) = letter {
            let always = !binding || self.kind != RoundKind::Sync;
            if always || changes(self.kind, &place, &gives_more)?.iter().any(Option::is_some) {
                place.letter = Some(letter);
                bound.push(letter.clone());
            }
        }
        for change in changes(self.kind, &place, &gives_more)?.into_iter().flatten() {
            if phase.is_none_or(|phase| phase == change.operation) && !visit(change)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the target's view sends content of an entry which the held view left out.
    fn gives_more(&self, entry: Entry) -> Result<bool, GitError> {
        match self.views {
            Some((old, new)) if may_give_more(old, new) => {
                if old.content() == ContentRule::None {
                    return Ok(true);
                }
                match self.objects.size(entry.blob) {
                    Ok(size) => Ok(size > old.max_size() && size <= new.max_size()),
                    Err(GitError::Missing(blob)) => {
                        let mut lacking = self.lacking.borrow_mut();
                        if lacking.len() < LACKING_MAX {
                            lacking.push(blob);
                        }
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            }
            _ => Ok(false),
        }
    }
}

/// The next letter whose path comes before `path` (any letter, if there is no further path).
fn before<'l>(
    letters: &mut Peekable<std::slice::Iter<'l, Letter>>,
    path: Option<&[u8]>,
) -> Option<&'l Letter> {
    letters.next_if(|letter| path.is_none_or(|path| letter.path.as_slice() < path))
}

fn resolve(objects: &Objects, end: Option<&TreeEnd>) -> Result<(Option<ObjectId>, ViewFilter), GitError> {
    let of_view = |error: tidings_actors::model::view::InvalidView| GitError::Protocol(error.to_string());
    match end {
        Some(end) => Ok((Some(objects.commit(end.commit)?.tree), end.view.filter().map_err(of_view)?)),
        None => Ok((None, View::default().filter().map_err(of_view)?)),
    }
}

fn sees_alike(one: &View, other: &View) -> bool {
    one.include() == other.include() && one.exclude() == other.exclude() && one.symlinks() == other.symlinks()
}

fn may_give_more(old: &View, new: &View) -> bool {
    new.content() == ContentRule::Inline
        && (old.content() == ContentRule::None || old.max_size() < new.max_size())
}
