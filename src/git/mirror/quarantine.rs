//! Where packs are put together before they are a part of the mirror, and how they become one.

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
    /// A fresh directory inside the mirror for what is being put together, named by what that is;
    /// gone when dropped.
    pub(crate) fn quarantine(&self, work: &str) -> Result<Quarantine, GitError> {
        let path = free_name(&self.directory.join(format!("{QUARANTINE}{work}-")));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path.join("pack")).map_err(|error| failure::of_disk(&error))?;
        Ok(Quarantine { path })
    }

    /// Makes the packs of a quarantine visible, synced to disk. Their file names.
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
        // A handle that has a file of this name open goes on reading the old one.
        let replaces = names.iter().any(|name| self.packs().join(name).exists());
        for name in &names {
            let (fresh, place) = (from.join(name), self.packs().join(name));
            // A pack is named by its hash: what has its name and its length is the same, and others read it.
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

/// See [`Mirror::quarantine`].
pub(crate) struct Quarantine {
    path: PathBuf,
}

impl Quarantine {
    /// An `objects` directory.
    pub(crate) fn objects(&self) -> &Path {
        &self.path
    }

    /// Where a pack lies before it is indexed.
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
