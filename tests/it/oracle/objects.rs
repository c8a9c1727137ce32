//! Objects as Git stores them, written straight into a bare repository: one file an object and no process,
//! so that a step of a thousand files costs milliseconds, and so that every mode can be written.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::ZlibEncoder};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tidings_entity::id::ObjectId;

/// The mode of a directory.
pub(super) const DIRECTORY: u32 = 0o040_000;
/// The mode of a symbolic link.
pub(super) const LINK: u32 = 0o120_000;
/// The mode of a submodule.
pub(super) const MODULE: u32 = 0o160_000;

/// Mode and object of a path.
pub(super) type Entry = (u32, ObjectId);
/// The files of a tree by path, everything that is no directory.
pub(super) type Files = BTreeMap<Vec<u8>, Entry>;

/// The objects of a repository.
pub(super) struct Objects {
    folder: PathBuf,
    written: HashSet<ObjectId>,
}

impl Objects {
    /// Those of the bare repository at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { folder: path.join("objects"), written: HashSet::new() }
    }

    /// Writes an object, unless it is there.
    pub(super) fn write(&mut self, kind: &str, data: &[u8]) -> ObjectId {
        let whole = [format!("{kind} {}\0", data.len()).as_bytes(), data].concat();
        let id: [u8; 20] =
            digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole).as_ref().try_into().expect("20 bytes of SHA-1");
        let id = ObjectId::new(id);
        // Nothing is ever pruned here: what was written once is there, loose or packed.
        if self.written.insert(id) {
            let digits = id.to_string();
            let folder = self.folder.join(&digits[..2]);
            fs::create_dir_all(&folder).expect("a folder of objects");
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&whole).expect("memory");
            // Whole at once: the server may read the repository at any moment.
            let fresh = folder.join(format!("tmp_obj_{}", &digits[2..]));
            fs::write(&fresh, encoder.finish().expect("memory")).expect("an object");
            fs::rename(fresh, folder.join(&digits[2..])).expect("an object");
        }
        id
    }

    /// Writes the tree of these files and all below it.
    pub(super) fn tree(&mut self, files: &Files) -> ObjectId {
        let files: Vec<(&[u8], Entry)> =
            files.iter().map(|(path, entry)| (path.as_slice(), *entry)).collect();
        self.directory(&files)
    }

    /// Paths of a directory are neighbours in the order of bytes.
    fn directory(&mut self, files: &[(&[u8], Entry)]) -> ObjectId {
        let name = |path: &[u8]| path.iter().position(|byte| *byte == b'/');
        let mut entries = Vec::new();
        for group in files.chunk_by(|(one, _), (other, _)| {
            name(one).is_some_and(|end| name(other) == Some(end) && one[..end] == other[..end])
        }) {
            let (path, entry) = group[0];
            match name(path) {
                None => entries.push((path.to_vec(), path, entry)),
                Some(end) => {
                    let below: Vec<(&[u8], Entry)> =
                        group.iter().map(|(path, entry)| (&path[end + 1..], *entry)).collect();
                    let tree = self.directory(&below);
                    // Git sorts a directory as if its name ended in a slash.
                    entries.push((path[..=end].to_vec(), &path[..end], (DIRECTORY, tree)));
                }
            }
        }
        entries.sort();
        let mut data = Vec::new();
        for (_, name, (mode, id)) in entries {
            data.extend_from_slice(format!("{mode:o} ").as_bytes());
            data.extend_from_slice(name);
            data.push(0);
            data.extend_from_slice(id.as_bytes());
        }
        self.write("tree", &data)
    }

    /// Writes a commit; `number` gives its moment and its message.
    pub(super) fn commit(&mut self, tree: ObjectId, parents: &[ObjectId], number: u64) -> ObjectId {
        let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        let moment = 1_700_000_000 + number;
        let text = format!(
            "tree {tree}\n{parents}author Ada <ada@example.org> {moment} +0000\n\
             committer Ada <ada@example.org> {moment} +0000\n\n{}\n\nBody.\n",
            subject(number)
        );
        self.write("commit", text.as_bytes())
    }
}

/// The first line of the message of a commit.
fn subject(number: u64) -> String {
    format!("Commit {number}: \"quotes\" and ümlauts")
}
