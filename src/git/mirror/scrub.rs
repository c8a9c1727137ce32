//! Compares the files of a mirror with the checksums at their ends. Reading checks every object by its id;
//! this also finds damage in objects that are not read, and outside of objects: in headers, indexes,
//! checksums.
//!
//! Each pack and its index have a place on a circle, told by their name, so that a share of the circle is
//! about the same share of all files.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tidings_actors::ports::{GitError, Share};

use crate::{failure, objects::limits::Cancel};

/// Read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// The checksum at the end of a file, in bytes.
const CHECKSUM_BYTES: u64 = 20;

/// How a file looked when it was proved: length, change time, inode.
type Look = (u64, i64, i64, u64);

/// The files of one mirror that were compared with their checksums, in their present state.
pub(crate) struct Proofs {
    packs: Box<Path>,
    /// Sorted by name. Every open mirror has this list, and most have one pack: a map of paths would take
    /// three times the memory.
    proved: Mutex<Vec<(OsString, Look)>>,
}

impl Proofs {
    /// An empty set: no file in this directory of packs is proved yet.
    pub(crate) fn new(packs: PathBuf) -> Self {
        Self { packs: packs.into_boxed_path(), proved: Mutex::default() }
    }

    /// Checks every file that was not checked since it changed.
    ///
    /// # Errors
    /// [`GitError::Corrupt`] names a damaged file; [`GitError::Storage`] if a file cannot be read.
    pub(crate) fn prove(&self) -> Result<(), GitError> {
        self.prove_those(|_| true)
    }

    /// Checks only the indexes. libgit2 trusts their offsets without a bounds check: one flipped bit may end
    /// the process.
    ///
    /// # Errors
    /// [`GitError::Corrupt`] names a damaged index; [`GitError::Storage`] if an index cannot be read.
    pub(crate) fn prove_indexes(&self) -> Result<(), GitError> {
        self.prove_those(|path| path.extension().is_some_and(|extension| extension == "idx"))
    }

    fn prove_those(&self, is_asked: impl Fn(&Path) -> bool) -> Result<(), GitError> {
        let mut proved = Vec::new();
        for path in files(&self.packs)? {
            let Some(look) = look(&path) else { continue };
            let name = path.file_name().unwrap_or_default();
            let known = self.is_proved(name, &look);
            if !known && !is_asked(&path) {
                continue;
            }
            if !known && !is_whole(&path, &Cancel::default())? {
                return Err(GitError::Corrupt(format!("{} differs from its checksum", path.display())));
            }
            proved.push((name.to_owned(), look));
        }
        proved.shrink_to_fit();
        *self.proved.lock() = proved;
        Ok(())
    }

    /// Whether the file of this name was checked when it looked like this.
    fn is_proved(&self, name: &OsStr, look: &Look) -> bool {
        let proved = self.proved.lock();
        let found = proved.binary_search_by(|(known, _)| known.as_os_str().cmp(name));
        found.is_ok_and(|place| proved[place].1 == *look)
    }
}

fn look(path: &Path) -> Option<Look> {
    let facts = path.metadata().ok()?;
    Some((facts.len(), facts.mtime(), facts.mtime_nsec(), facts.ino()))
}

/// Compares a share of the files in a directory of packs; whether they are whole.
pub(crate) fn scrub(packs: &Path, share: Share, cancel: &Cancel) -> Result<bool, GitError> {
    for path in files(packs)? {
        if share.covers(place(&path)) && !is_whole(&path, cancel)? {
            let file = path.display();
            tracing::warn!(%file, "{file} differs from its checksum");
            return Ok(false);
        }
    }
    Ok(true)
}

/// The place of a pack and its index on the circle.
fn place(path: &Path) -> u16 {
    let name = path.file_stem().unwrap_or_default().as_encoded_bytes();
    // Either half of the hash would do.
    u16::try_from(crc32fast::hash(name) >> 16).expect("16 of 32 bits")
}

/// The packs and indexes in a directory; empty if it does not exist.
fn files(packs: &Path) -> Result<Vec<PathBuf>, GitError> {
    let entries = match fs::read_dir(packs) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failure::of_disk(&error))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failure::of_disk(&error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("pack-") && (name.ends_with(".pack") || name.ends_with(".idx")) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether a file ends with the hash of its content, and an index names its pack. A file that vanished
/// meanwhile counts as whole, because another process replaced it.
fn is_whole(path: &Path, cancel: &Cancel) -> Result<bool, GitError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        file => file.map_err(|error| failure::of_disk(&error))?,
    };
    let length = file.metadata().map_err(|error| failure::of_disk(&error))?.len();
    let Some(body) = length.checked_sub(CHECKSUM_BYTES) else { return Ok(false) };
    let mut hash = Sha1::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = body;
    while left > 0 {
        if cancel.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let wanted = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        // A disk that cannot give a sector back has lost it.
        if file.read_exact(&mut piece[..wanted]).is_err() {
            return Ok(false);
        }
        hash.update(&piece[..wanted]);
        left -= wanted as u64;
    }
    let mut end = [0; CHECKSUM_BYTES as usize];
    if file.read_exact(&mut end).is_err() || hash.finalize().as_slice() != end {
        return Ok(false);
    }
    if path.extension().is_some_and(|extension| extension == "idx") {
        let named = checksum_before_last(&mut file, length).ok();
        return match last_checksum(&path.with_extension("pack")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            pack => Ok(named.is_some() && pack.ok() == named),
        };
    }
    Ok(true)
}

/// The checksum of its pack, which an index holds before its own.
fn checksum_before_last(index: &mut File, length: u64) -> io::Result<[u8; 20]> {
    let at = length.checked_sub(2 * CHECKSUM_BYTES).ok_or(ErrorKind::UnexpectedEof)?;
    index.seek(SeekFrom::Start(at))?;
    let mut checksum = [0; CHECKSUM_BYTES as usize];
    index.read_exact(&mut checksum)?;
    Ok(checksum)
}

fn last_checksum(path: &Path) -> io::Result<[u8; 20]> {
    let mut file = File::open(path)?;
    let at = file.metadata()?.len().checked_sub(CHECKSUM_BYTES).ok_or(ErrorKind::UnexpectedEof)?;
    file.seek(SeekFrom::Start(at))?;
    let mut checksum = [0; CHECKSUM_BYTES as usize];
    file.read_exact(&mut checksum)?;
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that ends with the hash of its content.
    fn whole(path: &Path, content: &[u8]) {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&Sha1::digest(content));
        fs::write(path, bytes).expect("written");
    }

    #[test]
    fn a_proof_is_remembered_by_name_until_its_file_changes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["pack-1.pack", "pack-2.pack", "pack-3.pack"] {
            whole(&folder.path().join(name), name.as_bytes());
        }
        let proofs = Proofs::new(folder.path().to_owned());
        proofs.prove().expect("all are whole");
        let look_of = |name: &str| look(&folder.path().join(name)).expect("it is there");
        for name in ["pack-1.pack", "pack-2.pack", "pack-3.pack"] {
            assert!(proofs.is_proved(OsStr::new(name), &look_of(name)), "{name}");
        }
        assert!(!proofs.is_proved(OsStr::new("pack-1.pack"), &look_of("pack-2.pack")));
        assert!(!proofs.is_proved(OsStr::new("pack-4.pack"), &look_of("pack-2.pack")));
        fs::write(folder.path().join("pack-2.pack"), [7; 100]).expect("written");
        assert!(matches!(proofs.prove(), Err(GitError::Corrupt(_))));
        fs::remove_file(folder.path().join("pack-2.pack")).expect("removed");
        proofs.prove().expect("the others are whole");
        let proved = proofs.proved.lock();
        assert_eq!((proved.len(), proved.capacity()), (2, 2), "no room is kept for more");
    }

    #[test]
    fn the_shares_of_a_circle_cover_each_place_once() {
        let arc = |from, to| Share::Arc { from, to };
        for place in [0, 1, 9_999, 10_000, 40_000, 65_535] {
            let shares = [arc(10_000, 40_000), arc(40_000, 1), arc(1, 10_000)];
            assert_eq!(shares.iter().filter(|share| share.covers(place)).count(), 1, "{place}");
            assert!(Share::Whole.covers(place));
            assert!(!arc(7, 7).covers(place));
        }
        assert_eq!(place(Path::new("/a/pack-12.pack")), place(Path::new("/b/pack-12.idx")));
    }
}
