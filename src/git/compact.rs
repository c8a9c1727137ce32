//! Making a mirror small again: many fetches leave many packs and a long list of commits without
//! parents. All that the pinned commits need goes into one new pack, which becomes visible before
//! the old ones go, so a crash at any moment leaves a whole mirror. Whoever reads meanwhile keeps
//! what is open, and begins again with a fresh handle if a file went from under it.

use std::collections::BTreeSet;

use git2::{Oid, Repository};
use tidings_actors::ports::GitError;
use tidings_entity::id::ObjectId;

use super::{failure, mirror::Mirror, objects::Objects};

/// A mirror with more packs, or more commits without parents, is worth compacting.
const WORTH_IT: usize = 50;

/// Whether compacting would gain something.
pub(super) fn is_worth_it(mirror: &Mirror) -> bool {
    mirror.pack_names().len() > WORTH_IT || mirror.shallow().len() > WORTH_IT
}

/// Compacts a mirror down to what the pins need; pins that are not here are passed over. Returns
/// the bytes on disk before and after. Blocks; the caller holds the mirror's turn.
pub(super) fn compact(mirror: &Mirror, pins: &[ObjectId]) -> Result<(u64, u64), GitError> {
    mirror.prepare()?;
    let objects = mirror.open()?;
    let pins: BTreeSet<_> = pins.iter().copied().filter(|pin| objects.contains(*pin)).collect();
    let old = mirror.pack_names();
    let before = size(&old);
    let quarantine = mirror.quarantine()?;
    let mut shallow = BTreeSet::new();
    if !pins.is_empty() {
        write_pack(mirror, &pins, &quarantine.packs())?;
        let fresh = Objects::open(&[quarantine.objects()])?;
        for pin in &pins {
            if fresh.commit(*pin)?.facts.first_parent.is_some_and(|parent| !pins.contains(&parent)) {
                shallow.insert(*pin);
            }
        }
    }
    let kept = mirror.shallow();
    mirror.set_shallow(&kept.union(&shallow).copied().collect())?;
    mirror.promote(&quarantine)?;
    let new: BTreeSet<_> = mirror.pack_names().into_iter().filter(|pack| !old.contains(pack)).collect();
    let is_same = !pins.is_empty() && new.is_empty();
    if !is_same {
        mirror.retire(&old)?;
    }
    mirror.set_shallow(&shallow)?;
    Ok((before, size(&mirror.pack_names())))
}

fn write_pack(mirror: &Mirror, pins: &BTreeSet<ObjectId>, into: &std::path::Path) -> Result<(), GitError> {
    let storage = |error: git2::Error| GitError::Storage(error.message().to_owned());
    let repository = Repository::open_bare(mirror.directory()).map_err(storage)?;
    let mut builder = repository.packbuilder().map_err(storage)?;
    for pin in pins {
        let oid = Oid::from_bytes(pin.as_bytes()).expect("an object id has 20 bytes");
        builder.insert_commit(oid).map_err(|error| failure::of_read(&error, *pin))?;
    }
    builder.write(into, 0o400).map_err(storage)
}

fn size(packs: &[std::path::PathBuf]) -> u64 {
    packs.iter().filter_map(|pack| pack.metadata().ok()).map(|metadata| metadata.len()).sum()
}
