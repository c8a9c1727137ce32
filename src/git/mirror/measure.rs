//! Measures a mirror for upkeep: its size, its number of packs, and whether its blobs were dropped to make
//! room. The last is a file in the mirror, because a mirror whose blobs are absent on purpose is not damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tidings_actors::ports::{GitError, MirrorFacts};
use tidings_entity::id::{ObjectId, RepositoryId};

use super::{Mirror, failure};

/// The file that marks a mirror whose contents are fetched by id.
const HEAVY: &str = "heavy";

impl Mirror {
    /// Remembers the wanted commits: rows that name them are written only after the fetch.
    pub(crate) fn note_wanted(&self, wants: &[ObjectId]) {
        *self.wanted.lock() = wants.to_vec();
    }

    /// The most recently wanted commits.
    pub(crate) fn wanted(&self) -> Vec<ObjectId> {
        self.wanted.lock().clone()
    }

    /// Remembers that the host refused a content.
    pub(crate) fn note_refused(&self, blob: ObjectId) {
        *self.refused.lock() = Some(blob);
    }

    /// The content that the host refused last, once.
    pub(crate) fn take_refused(&self) -> Option<ObjectId> {
        self.refused.lock().take()
    }

    /// Whether the blobs of the mirror were dropped to make room.
    pub(crate) fn is_evicted(&self) -> bool {
        self.marker().exists()
    }

    /// Whether the contents of the repository are fetched one by one, when they are needed, because some are
    /// too large to fetch with others.
    pub(crate) fn is_heavy(&self) -> bool {
        self.directory.join(HEAVY).exists()
    }

    /// Writes the mark to disk.
    pub(crate) fn set_heavy(&self) -> Result<(), GitError> {
        fs::write(self.directory.join(HEAVY), "").map_err(|error| failure::of_disk(&error))
    }

    /// Says on disk that its blobs were dropped, and how many bytes were left.
    pub(crate) fn set_evicted(&self, left: u64) -> Result<(), GitError> {
        let write = || {
            let fresh = self.directory.join("evicted.lock");
            fs::write(&fresh, format!("{left}\n"))?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, self.marker())?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error: io::Error| failure::of_disk(&error))
    }

    /// Removes the mark: the mirror has all contents again.
    pub(crate) fn unset_evicted(&self) -> Result<(), GitError> {
        super::remove(&self.marker()).map_err(|error| failure::of_disk(&error))
    }

    fn marker(&self) -> PathBuf {
        self.directory.join("evicted")
    }

    /// Measures the mirror; `None` if it does not exist.
    pub(crate) fn measure(&self) -> Result<Option<MirrorFacts>, GitError> {
        let name = self.directory.file_name().unwrap_or_default().to_string_lossy();
        let repository: RepositoryId =
            name.parse().map_err(|_| GitError::Storage(format!("{name} is no name of a mirror")))?;
        let bytes = match bytes(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.directory.exists() => {
                self.space.measured(&self.directory, None);
                return Ok(None);
            }
            bytes => bytes.map_err(|error| failure::of_disk(&error))?,
        };
        self.space.measured(&self.directory, Some(bytes));
        let evicted_to = self.is_evicted().then(|| {
            let text = fs::read_to_string(self.marker()).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        });
        Ok(Some(MirrorFacts {
            repository,
            bytes,
            packs: self.pack_names().len() as u64,
            // A list that cannot be read is found out, and healed, by the next fetch.
            shallow: self.shallow().map_or(0, |shallow| shallow.len() as u64),
            evicted_to,
        }))
    }

    /// Whether there is room to fetch more.
    ///
    /// # Errors
    /// [`GitError::Storage`] says why not.
    pub(crate) fn check_room(&self) -> Result<(), GitError> {
        self.space.check()
    }

    /// Checks whether this many bytes may be written.
    ///
    /// # Errors
    /// [`GitError::Storage`] if there is no room.
    pub(crate) fn check_room_for(&self, bytes: u64) -> Result<(), GitError> {
        self.space.check_for(bytes)
    }
}

/// The bytes of all files below a directory, without replaced files. A file that vanishes meanwhile counts as
/// zero.
fn bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(super::LEAVING.as_bytes()) {
            continue;
        }
        sum += match entry.metadata() {
            Ok(facts) if facts.is_dir() => bytes(&entry.path()).or_else(if_gone)?,
            Ok(facts) => facts.len(),
            Err(error) => if_gone(error)?,
        };
    }
    Ok(sum)
}

fn if_gone(error: io::Error) -> io::Result<u64> {
    if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) }
}
