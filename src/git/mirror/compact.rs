//! Compacts a mirror: many fetches leave many packs and a long list of shallow commits. The objects to keep
//! are written into one new pack, which becomes visible before the old packs are removed, so a crash at any
//! moment leaves a whole mirror. Readers keep their open files, and begin again with a new handle if a file
//! vanished.
//!
//! Making room is the same without the blobs: commits and trees stay, so that every difference can still be
//! made, and content that is read later is fetched by id.
//!
//! In a partial mirror the present blobs are kept as well; a missing blob is skipped, a missing tree is an
//! error. If nothing was skipped, the mirror is whole from then on. A commit without its tree was fetched to
//! prove that the commit exists, and is kept without a tree.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use git2::{Oid, PackBuilder, Repository};
use tidings_actors::ports::{GitError, Keep, MirrorFacts};
use tidings_entity::id::ObjectId;

use super::turn::Turn;
use crate::{
    failure,
    mirror::Mirror,
    objects::{Commit, Kind, Objects, limits::Cancel},
};

/// Rebuilds a mirror, in the caller's turn. Blocks. `chain_max` limits the commits between two kept commits.
pub(crate) fn compact(
    mirror: &Mirror,
    turn: &Turn,
    keep: &Keep,
    chain_max: u32,
    cancel: &Cancel,
) -> Result<MirrorFacts, GitError> {
    mirror.prepare(turn)?;
    let before = mirror.measure()?.map_or(0, |facts| facts.bytes);
    if keep.blobs {
        mirror.check_room_for(before)?;
    }
    let objects = mirror.open()?;
    let quarantine = mirror.quarantine("compact")?;
    let mut kept = Kept { objects: &objects, keep, cancel, commits: BTreeMap::new(), wanted: Vec::new() };
    kept.choose(mirror, chain_max)?;
    let old = mirror.pack_names();
    if !kept.is_empty() {
        let (written, has_gaps) = kept.write(mirror, &quarantine.packs())?;
        if has_gaps {
            quarantine.mark_partial()?;
        }
        let fresh = Objects::open(&[quarantine.objects()])?;
        // The builder hashes the objects that it reads: a damaged object would get another id.
        if let Some(lost) = written.iter().find(|id| !fresh.contains(**id)) {
            return Err(GitError::Corrupt(format!("{lost} is not what its id says")));
        }
    }
    turn.check()?;
    if !keep.blobs {
        mirror.set_evicted(0)?;
    }
    let shallow = kept.shallow();
    mirror.set_shallow(turn, &mirror.shallow()?.union(&shallow).copied().collect())?;
    let fresh = mirror.promote(turn, &quarantine)?;
    let is_old = |pack: &&PathBuf| pack.file_name().is_none_or(|name| !fresh.iter().any(|new| new == name));
    mirror.retire(turn, &old.iter().filter(is_old).cloned().collect::<Vec<_>>())?;
    mirror.set_shallow(turn, &shallow)?;
    drop(quarantine);
    if keep.blobs && !mirror.is_partial() {
        mirror.unset_evicted()?;
    }
    let after = mirror.measure()?.ok_or_else(|| GitError::Storage("the mirror is gone".to_owned()))?;
    if keep.blobs {
        return Ok(after);
    }
    mirror.set_evicted(after.bytes)?;
    Ok(MirrorFacts { evicted_to: Some(after.bytes), ..after })
}

/// The commits and objects that a compaction keeps.
struct Kept<'a> {
    objects: &'a Objects,
    keep: &'a Keep,
    cancel: &'a Cancel,
    commits: BTreeMap<ObjectId, Commit>,
    /// Trees and blobs that were asked for last, by id.
    wanted: Vec<(ObjectId, Kind)>,
}

impl Kept<'_> {
    /// Collects the commits to keep: the requested ones, the most recently wanted ones, and the commits
    /// between two of them.
    fn choose(&mut self, mirror: &Mirror, chain_max: u32) -> Result<(), GitError> {
        let last = mirror.wanted();
        for id in self.keep.commits.iter().chain(&last) {
            if !self.objects.contains(*id) || self.commits.contains_key(id) {
                continue;
            }
            match self.objects.header(*id)?.1 {
                Kind::Commit => drop(self.commits.insert(*id, self.objects.commit(*id)?)),
                kind => self.wanted.push((*id, kind)),
            }
        }
        if self.keep.chains {
            for commit in self.commits.clone().into_values() {
                let chain = self.chain(&commit, chain_max)?;
                self.commits.extend(chain);
            }
        }
        Ok(())
    }

    /// The commits behind one, up to another kept commit; empty if none is reached.
    fn chain(&self, from: &Commit, chain_max: u32) -> Result<Vec<(ObjectId, Commit)>, GitError> {
        let (mut chain, mut next) = (Vec::new(), from.facts.first_parent);
        while let Some(id) = next.filter(|id| self.objects.contains(*id)) {
            if self.commits.contains_key(&id) {
                return Ok(chain);
            }
            if chain.len() >= chain_max as usize {
                break;
            }
            let commit = self.objects.commit(id)?;
            next = commit.facts.first_parent;
            chain.push((id, commit));
        }
        Ok(Vec::new())
    }

    fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.wanted.is_empty()
    }

    /// The kept commits with a parent that is not kept.
    fn shallow(&self) -> BTreeSet<ObjectId> {
        let is_cut = |commit: &Commit| commit.parents.iter().any(|parent| !self.commits.contains_key(parent));
        self.commits.iter().filter(|(_, commit)| is_cut(commit)).map(|(id, _)| *id).collect()
    }

    /// Writes the objects into one pack. Returns their ids, and whether a missing blob was skipped.
    fn write(&self, mirror: &Mirror, into: &Path) -> Result<(HashSet<ObjectId>, bool), GitError> {
        let storage = |error: git2::Error| GitError::Storage(error.message().to_owned());
        let repository = Repository::open_bare(mirror.directory()).map_err(storage)?;
        let mut builder = repository.packbuilder().map_err(storage)?;
        let cancel = self.cancel.clone();
        builder.set_progress_callback(move |_, _, _| !cancel.is_cancelled()).map_err(storage)?;
        let mut packing = Packing {
            kept: self,
            builder,
            seen: HashSet::new(),
            may_lack: !self.keep.blobs || mirror.is_partial(),
            has_gaps: false,
        };
        for (id, commit) in &self.commits {
            packing.insert(*id, "")?;
            if self.objects.contains(commit.tree) || !packing.may_lack {
                packing.tree(commit.tree, "")?;
            } else {
                packing.has_gaps = true;
            }
        }
        for (id, kind) in &self.wanted {
            match kind {
                Kind::Tree => packing.tree(*id, "")?,
                _ => drop(packing.insert(*id, "")?),
            }
        }
        match packing.builder.write(into, 0o400) {
            Err(_) if self.cancel.is_cancelled() => Err(GitError::Cancelled),
            written => written.map_err(storage).map(|()| (packing.seen, packing.has_gaps)),
        }
    }
}

/// A pack that is being written.
struct Packing<'a, 'repository> {
    kept: &'a Kept<'a>,
    builder: PackBuilder<'repository>,
    seen: HashSet<ObjectId>,
    /// A blob that is not here is no loss.
    may_lack: bool,
    has_gaps: bool,
}

impl Packing<'_, '_> {
    /// Adds an object. Returns whether it is new. The name helps to find similar objects for deltas.
    fn insert(&mut self, id: ObjectId, name: &str) -> Result<bool, GitError> {
        let is_new = self.seen.insert(id);
        if is_new {
            let oid = Oid::from_bytes(id.as_bytes()).expect("an object id has 20 bytes");
            self.builder.insert_object(oid, Some(name)).map_err(|error| failure::of_read(&error, id))?;
        }
        Ok(is_new)
    }

    /// A tree with all below it. Directories on the way wait in a list: how deep they lie is not
    /// bounded here.
    fn tree(&mut self, root: ObjectId, name: &str) -> Result<(), GitError> {
        let mut waiting = vec![(root, name.to_owned())];
        while let Some((id, name)) = waiting.pop() {
            if self.kept.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            if !self.insert(id, &name)? {
                continue;
            }
            let tree = self.kept.objects.tree(id)?;
            for entry in (0..tree.len()).filter_map(|at| tree.get(at)) {
                let name = String::from_utf8_lossy(entry.name).replace('\0', "");
                if entry.is_tree() {
                    waiting.push((entry.id, name));
                } else if entry.mode & 0o170_000 != SUBMODULE && !self.seen.contains(&entry.id) {
                    self.blob(entry.id, &name)?;
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: ObjectId, name: &str) -> Result<(), GitError> {
        if self.kept.keep.blobs && (self.kept.objects.contains(id) || !self.may_lack) {
            return self.insert(id, name).map(drop);
        }
        self.has_gaps = true;
        Ok(())
    }
}

/// The mode of a submodule, whose commit is in another repository.
const SUBMODULE: u32 = 0o160_000;
