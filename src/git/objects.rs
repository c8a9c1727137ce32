//! Reading objects. An [`Objects`] is an open handle on one or more `objects` directories; it
//! reads no configuration, so nothing on this machine can change what it does. Sizes are asked
//! for before anything is read, because reading takes the whole object into memory.

use std::path::Path;

use bytes::Bytes;
use git2::{Indexer, ObjectType, Odb, Oid};
use tidings_actors::ports::{CommitFacts, Content, GitError};
use tidings_entity::id::ObjectId;

use super::{failure, tree::Tree};

/// Largest admitted tree object in bytes: about a million entries of one directory.
const TREE_BYTES_MAX: u64 = 64 << 20;
/// Largest admitted commit object in bytes.
const COMMIT_BYTES_MAX: u64 = 16 << 20;
/// Longest subject in characters.
const SUBJECT_CHARACTERS_MAX: usize = 256;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A commit.
    Commit,
    /// A tree.
    Tree,
    /// A blob.
    Blob,
    /// Something else: an annotated tag.
    Other,
}

/// A commit, as far as anybody here needs it.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// Its root tree.
    pub(super) tree: ObjectId,
    /// What bodies show of it.
    pub(super) facts: CommitFacts,
}

/// An open handle on object directories.
pub(super) struct Objects {
    odb: Odb<'static>,
}

impl Objects {
    /// Opens object directories; one that does not exist is empty.
    pub(super) fn open(directories: &[&Path]) -> Result<Self, GitError> {
        let storage = |error: git2::Error| GitError::Storage(error.message().to_owned());
        let odb = Odb::new().map_err(storage)?;
        for directory in directories {
            let path = directory
                .to_str()
                .ok_or_else(|| GitError::Storage("the path of a repository is not UTF-8".to_owned()))?;
            odb.add_disk_alternate(path).map_err(storage)?;
        }
        Ok(Self { odb })
    }

    /// Wraps an object database that a test has filled.
    #[cfg(test)]
    pub(super) fn of(odb: Odb<'static>) -> Self {
        Self { odb }
    }

    /// Begins a pack in `directory` whose deltas may have bases that are here. This handle must
    /// outlive the indexer.
    pub(super) fn indexer(&self, directory: &Path) -> Result<Indexer<'static>, git2::Error> {
        Indexer::new(Some(&self.odb), directory, 0o400, false)
    }

    /// Whether an object is listed here; says nothing of its health.
    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.odb.exists_ext(oid(id), git2::OdbLookupFlags::NO_REFRESH)
    }

    /// Size in bytes and kind.
    pub(super) fn header(&self, id: ObjectId) -> Result<(u64, Kind), GitError> {
        let (size, kind) = self.odb.read_header(oid(id)).map_err(|error| failure::of_read(&error, id))?;
        Ok((size as u64, kind_of(kind)))
    }

    /// A tree, parsed and checked.
    pub(super) fn tree(&self, id: ObjectId) -> Result<Tree, GitError> {
        Tree::parse(id, self.read(id, Kind::Tree, TREE_BYTES_MAX)?)
    }

    /// A commit.
    pub(super) fn commit(&self, id: ObjectId) -> Result<Commit, GitError> {
        let raw = self.read(id, Kind::Commit, COMMIT_BYTES_MAX)?;
        parse_commit(&raw).ok_or_else(|| self.odd(id, format!("commit {id} is malformed")))
    }

    /// A blob, unless it has more than `limit` bytes.
    pub(super) fn blob(&self, id: ObjectId, limit: u64) -> Result<Content, GitError> {
        let (size, kind) = self.header(id)?;
        self.expect_kind(id, kind, Kind::Blob)?;
        if size > limit {
            return Ok(Content::TooLarge { size });
        }
        self.read_sized(id, Kind::Blob, size).map(|bytes| Content::Whole(Bytes::from(bytes)))
    }

    fn read(&self, id: ObjectId, wanted: Kind, limit: u64) -> Result<Vec<u8>, GitError> {
        let (size, kind) = self.header(id)?;
        self.expect_kind(id, kind, wanted)?;
        if size > limit {
            return Err(GitError::TooLarge(format!("object {id} has {size} bytes")));
        }
        self.read_sized(id, wanted, size)
    }

    /// Reads an object whose header was read and found acceptable.
    fn read_sized(&self, id: ObjectId, wanted: Kind, size: u64) -> Result<Vec<u8>, GitError> {
        let object = self.odb.read(oid(id)).map_err(|error| failure::of_read(&error, id))?;
        self.expect_kind(id, kind_of(object.kind()), wanted)?;
        if object.len() as u64 != size {
            return Err(GitError::Corrupt(format!("{id} has another size than its header says")));
        }
        Ok(object.data().to_vec())
    }

    fn expect_kind(&self, id: ObjectId, kind: Kind, wanted: Kind) -> Result<(), GitError> {
        if kind == wanted {
            Ok(())
        } else {
            Err(self.odd(id, format!("object {id} is a {kind:?}, not a {wanted:?}").to_lowercase()))
        }
    }

    /// An object that is not what it should be. If its bytes still have its id, somebody made it so:
    /// a tag that names a blob, a client that names a tree. That is no damage, and a mirror that
    /// others share must not be begun anew for it.
    fn odd(&self, id: ObjectId, what: String) -> GitError {
        let is_small = self.header(id).is_ok_and(|(size, _)| size <= TREE_BYTES_MAX);
        let is_whole = || {
            let object = self.odb.read(oid(id)).ok()?;
            let hash = Oid::hash_object(object.kind(), object.data()).ok()?;
            Some(hash == oid(id))
        };
        if is_small && is_whole() != Some(true) { GitError::Corrupt(what) } else { GitError::Protocol(what) }
    }
}

fn kind_of(kind: ObjectType) -> Kind {
    match kind {
        ObjectType::Commit => Kind::Commit,
        ObjectType::Tree => Kind::Tree,
        ObjectType::Blob => Kind::Blob,
        _ => Kind::Other,
    }
}

fn oid(id: ObjectId) -> Oid {
    Oid::from_bytes(id.as_bytes()).expect("an object id has 20 bytes")
}

/// `None` if it is malformed.
fn parse_commit(raw: &[u8]) -> Option<Commit> {
    let split = raw.windows(2).position(|pair| pair == b"\n\n");
    let (head, message) = split.map_or((raw, &b""[..]), |at| (&raw[..at], &raw[at + 2..]));
    let field = |name: &[u8]| {
        head.split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(b" ")))
    };
    let object =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<ObjectId>().ok());
    let tree = field(b"tree").and_then(object)?;
    let first_parent = match field(b"parent") {
        Some(parent) => Some(object(parent)?),
        None => None,
    };
    let subject = message.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let facts = CommitFacts {
        author: field(b"author").map_or_else(String::new, |line| identity(line).0),
        time: field(b"committer").map_or(0, |line| identity(line).1),
        subject: lossy(subject.unwrap_or_default()).trim().chars().take(SUBJECT_CHARACTERS_MAX).collect(),
        first_parent,
    };
    Some(Commit { tree, facts })
}

/// `Name <address> <unix seconds> <zone>` as name with address, and seconds (0 where they are
/// nonsense).
fn identity(line: &[u8]) -> (String, i64) {
    let line = lossy(line);
    match line.rfind('>') {
        Some(end) => {
            let seconds = line[end + 1..].split_whitespace().next().and_then(|text| text.parse().ok());
            (line[..=end].trim().to_owned(), seconds.unwrap_or(0))
        }
        None => (line.trim().to_owned(), 0),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_leniently_but_its_ids_strictly() {
        let (tree, parent) = ("ab".repeat(20), "cd".repeat(20));
        let raw = format!(
            "tree {tree}\nparent {parent}\nparent {tree}\nauthor A \u{fc} <a@b> 5 +0100\ncommitter C <c> 7 +0000\n\
             gpgsig x\n y\n\n\nSubject line\nmore\n"
        );
        let commit = parse_commit(raw.as_bytes()).expect("valid");
        assert_eq!(commit.tree.to_string(), tree);
        assert_eq!(commit.facts.author, "A \u{fc} <a@b>");
        assert_eq!((commit.facts.time, commit.facts.subject.as_str()), (7, "Subject line"));
        assert_eq!(commit.facts.first_parent.map(|id| id.to_string()), Some(parent));

        let odd = format!("tree {tree}\nauthor \u{0}\n\n{}", "x".repeat(300));
        let commit = parse_commit(odd.as_bytes()).expect("lenient");
        assert_eq!(
            (commit.facts.time, commit.facts.subject.len(), commit.facts.first_parent),
            (0, 256, None)
        );
        let mut bytes = format!("tree {tree}\n\n").into_bytes();
        bytes.extend_from_slice(b"caf\xe9");
        assert_eq!(parse_commit(&bytes).expect("lenient").facts.subject, "caf\u{fffd}");
        assert!(parse_commit(b"tree abc\n\n").is_none());
    }
}
