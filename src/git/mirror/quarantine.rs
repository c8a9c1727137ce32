//! The quarantine: packs are built there before they become part of the mirror.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use tidings_actors::ports::GitError;

use super::{Mirror, PROMISOR, QUARANTINE, free_name, remove};
use crate::{failure, mirror::turn::Turn};

impl Mirror {
    /// A new directory inside the mirror for building packs, named after the work; removed when dropped.
    pub(crate) fn quarantine(&self, work: &str) -> Result<Quarantine, GitError> {
        let path = free_name(&self.directory.join(format!("{QUARANTINE}{work}-")));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path.join("pack")).map_err(|error| failure::of_disk(&error))?;
        Ok(Quarantine { path })
    }

    /// Makes the packs of a quarantine visible, synced to disk. Returns their file names.
    pub(crate) fn promote(&self, turn: &Turn, quarantine: &Quarantine) -> Result<Vec<OsString>, GitError> {
        turn.check()?;
        self.move_packs(&quarantine.packs()).map_err(|error| failure::of_disk(&error))
    }

    fn move_packs(&self, from: &Path) -> io::Result<Vec<OsString>> {
        let mut names: Vec<_> = fs::read_dir(from)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        // The index last: a reader takes a pack for there when it sees that.
        let order = |name: &OsString| {
            let extension = Path::new(name).extension()?;
            [PROMISOR, "pack", "idx"].iter().position(|known| extension == *known)
        };
        names.retain(|name| order(name).is_some());
        names.sort_unstable_by_key(order);
        for name in &names {
            fs::File::open(from.join(name))?.sync_all()?;
        }
        // A handle that has a file of this name open would go on reading the old file.
        let replaces = names.iter().any(|name| self.packs().join(name).exists());
        for name in &names {
            let (fresh, place) = (from.join(name), self.packs().join(name));
            // A pack is named by its hash: a file with the same name and length is the same, and may be in
            // use.
            let is_same = || Some(place.metadata().ok()?.len() == fresh.metadata().ok()?.len());
            if self.sharing.is_none() || is_same() != Some(true) {
                fs::rename(&fresh, &place)?;
            }
        }
        if replaces {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        fs::File::open(self.packs())?.sync_all()?;
        Ok(names)
    }
}

/// A directory for new packs that no reader of the mirror sees ([`Mirror::quarantine`]).
pub(crate) struct Quarantine {
    path: PathBuf,
}

impl Quarantine {
    /// The path of the quarantine, which has the layout of an `objects` directory.
    pub(crate) fn objects(&self) -> &Path {
        &self.path
    }

    /// The path of a pack before it is indexed.
    pub(crate) fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Where packs are put together.
    pub(crate) fn packs(&self) -> PathBuf {
        self.path.join("pack")
    }

    /// Marks its packs as lacking contents on purpose.
    pub(crate) fn mark_partial(&self) -> Result<(), GitError> {
        self.mark().map_err(|error| failure::of_disk(&error))
    }

    fn mark(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.packs())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pack") {
                fs::write(path.with_extension(PROMISOR), "")?;
            }
        }
        Ok(())
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "a quarantine directory could not be removed; the next fetch tries again");
        }
    }
}
