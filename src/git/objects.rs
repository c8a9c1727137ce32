//! Reading objects. An [`Objects`] is an open handle on one or more `objects` directories; it reads no
//! configuration, so nothing on this machine can change what it does. The size of an object is read first,
//! because reading takes the whole object into memory.
//!
//! Each object that is read is hashed and compared with its id, so a damaged disk never changes a delivered
//! tree or content. A size that decides something without a read is trusted only after the files of the
//! mirror were compared with their checksums.

pub(crate) mod history;
pub(crate) mod limits;
pub(crate) mod readers;
pub(crate) mod recent;
pub(crate) mod search;
pub(crate) mod tree;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Once},
};

use bytes::Bytes;
use git2::{Indexer, ObjectType, Odb, Oid};
use sha1::{Digest, Sha1};
use tidings_actors::ports::{BlobWanted, CommitFacts, Content, GitError};
use tidings_entity::id::ObjectId;

use super::failure;
use crate::{
    mirror::scrub::Proofs,
    objects::{limits::Cancel, recent::RecentOf, tree::Tree},
};

/// Largest admitted tree object in bytes: about a million entries of one directory.
pub(super) const TREE_BYTES_MAX: u64 = 32 << 20;
/// Largest admitted commit object in bytes.
const COMMIT_BYTES_MAX: u64 = 16 << 20;
/// Longest subject in characters.
const SUBJECT_CHARACTERS_MAX: usize = 256;

/// The type of a Git object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A commit with its tree and parents.
    Commit,
    /// A tree: the entries of one directory.
    Tree,
    /// A blob: the content of one file.
    Blob,
    /// Any other type, such as an annotated tag.
    Other,
}

/// A commit, as far as this crate reads it.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// The id of the commit's root tree.
    pub(super) tree: ObjectId,
    /// Author, time and subject, for bodies.
    pub(super) facts: CommitFacts,
    /// The ids of all parents, the first parent first.
    pub(super) parents: Vec<ObjectId>,
}

/// An open handle on object directories.
pub(super) struct Objects {
    odb: Odb<'static>,
    proofs: Option<Arc<Proofs>>,
    proved: Cell<bool>,
}

impl Objects {
    /// Opens object directories; a directory that does not exist is empty.
    pub(super) fn open(directories: &[&Path]) -> Result<Self, GitError> {
        let storage = |error: git2::Error| GitError::Storage(error.message().to_owned());
        let odb = Odb::new().map_err(storage)?;
        for directory in directories {
            let path = directory
                .to_str()
                .ok_or_else(|| GitError::Storage("the path of a repository is not UTF-8".to_owned()))?;
            odb.add_disk_alternate(path).map_err(storage)?;
        }
        Ok(Self { odb, proofs: None, proved: Cell::new(false) })
    }

    /// Sizes are trusted only after these files were checked.
    pub(super) fn proved_by(self, proofs: Arc<Proofs>) -> Self {
        Self { proofs: Some(proofs), ..self }
    }

    /// Wraps an object database that a test has filled.
    #[cfg(test)]
    pub(super) fn of(odb: Odb<'static>) -> Self {
        Self { odb, proofs: None, proved: Cell::new(false) }
    }

    /// Begins a pack in `directory`; its deltas may have bases in this handle, which must outlive the
    /// indexer. The indexer stops as soon as `goes_on` returns false.
    pub(super) fn indexer(
        &self,
        directory: &Path,
        goes_on: impl Fn() -> bool + 'static,
    ) -> Result<Indexer<'static>, git2::Error> {
        let mut indexer = Indexer::new(Some(&self.odb), directory, 0o400, false)?;
        indexer.progress(move |_| goes_on());
        Ok(indexer)
    }

    /// Whether an object is listed here; says nothing of its health.
    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.odb.exists_ext(oid(id), git2::OdbLookupFlags::NO_REFRESH)
    }

    /// Size in bytes and kind.
    pub(super) fn header(&self, id: ObjectId) -> Result<(u64, Kind), GitError> {
        // git2 panics at an unknown kind of object, which a damaged byte can cause.
        let read = catch_unwind(AssertUnwindSafe(|| self.odb.read_header(oid(id))));
        let read = read.map_err(|_| GitError::Corrupt(format!("{id} is of no known kind")))?;
        let (size, kind) = read.map_err(|error| failure::of_read(&error, id))?;
        Ok((size as u64, kind_of(kind)))
    }

    /// The size of an object that is not read for it.
    pub(super) fn size(&self, id: ObjectId) -> Result<u64, GitError> {
        let (size, _) = self.header(id)?;
        self.prove()?;
        Ok(size)
    }

    /// Compares the files with their checksums, if that was not done yet.
    fn prove(&self) -> Result<(), GitError> {
        if let Some(proofs) = self.proofs.as_ref().filter(|_| !self.proved.get()) {
            proofs.prove()?;
            self.proved.set(true);
        }
        Ok(())
    }

    /// A tree, parsed and checked.
    pub(super) fn tree(&self, id: ObjectId) -> Result<Tree, GitError> {
        Tree::parse(id, self.read(id, Kind::Tree, TREE_BYTES_MAX)?)
    }

    /// Reads a commit and parses it.
    pub(super) fn commit(&self, id: ObjectId) -> Result<Commit, GitError> {
        let raw = self.read(id, Kind::Commit, COMMIT_BYTES_MAX)?;
        parse_commit(&raw).ok_or_else(|| self.odd(id, Kind::Commit, format!("commit {id} is malformed")))
    }

    /// A blob, unless it has more than `limit` bytes; nothing if it has more than `left`.
    fn blob(&self, id: ObjectId, limit: u64, left: u64) -> Result<Option<Content>, GitError> {
        let (size, kind) = self.header(id)?;
        self.expect_kind(id, kind, Kind::Blob)?;
        if size > limit {
            self.prove()?;
            return Ok(Some(Content::TooLarge { size }));
        }
        if size > left {
            return Ok(None);
        }
        self.read_sized(id, Kind::Blob, size).map(|bytes| Some(Content::Whole(Bytes::from(bytes))))
    }

    /// Reads a blob's content, from the cache of recent contents if it is there.
    fn recalled(
        &self,
        id: ObjectId,
        limit: u64,
        left: u64,
        recent: &RecentOf,
    ) -> Result<Option<Content>, GitError> {
        if let Some(bytes) = recent.get(id) {
            let size = bytes.len() as u64;
            return Ok(if size > limit {
                Some(Content::TooLarge { size })
            } else {
                (size <= left).then_some(Content::Whole(bytes))
            });
        }
        let content = self.blob(id, limit, left)?;
        if let Some(Content::Whole(bytes)) = &content {
            recent.keep(id, bytes);
        }
        Ok(content)
    }

    /// The blobs in their order, until one cannot be read or all together exceed `budget` bytes. The first is
    /// always read; an error is about the first.
    pub(super) fn blobs(
        &self,
        wanted: &[BlobWanted],
        budget: u64,
        recent: &RecentOf,
        cancel: &Cancel,
    ) -> Result<Vec<Content>, GitError> {
        let (mut contents, mut left) = (Vec::with_capacity(wanted.len()), u64::MAX);
        for BlobWanted { blob, limit } in wanted {
            if cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            match self.recalled(*blob, *limit, left, recent) {
                Ok(Some(content)) => {
                    let read = if let Content::Whole(bytes) = &content { bytes.len() as u64 } else { 0 };
                    left = left.min(budget).saturating_sub(read);
                    contents.push(content);
                }
                Ok(None) => break,
                Err(error) if contents.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(contents)
    }

    fn read(&self, id: ObjectId, wanted: Kind, limit: u64) -> Result<Vec<u8>, GitError> {
        let (size, kind) = self.header(id)?;
        self.expect_kind(id, kind, wanted)?;
        if size > limit {
            self.prove()?;
            return Err(GitError::TooLarge(format!("object {id} has {size} bytes")));
        }
        self.read_sized(id, wanted, size)
    }

    /// Reads an object whose header was read and accepted.
    fn read_sized(&self, id: ObjectId, wanted: Kind, size: u64) -> Result<Vec<u8>, GitError> {
        let object = self.odb.read(oid(id)).map_err(|error| failure::of_read(&error, id))?;
        self.expect_kind(id, kind_of(object.kind()), wanted)?;
        if object.len() as u64 != size {
            return Err(GitError::Corrupt(format!("{id} has another size than its header says")));
        }
        if !is_named(id, object.kind(), object.data()) {
            return Err(GitError::Corrupt(format!("{id} is not what its id says")));
        }
        Ok(object.data().to_vec())
    }

    fn expect_kind(&self, id: ObjectId, kind: Kind, wanted: Kind) -> Result<(), GitError> {
        if kind == wanted {
            Ok(())
        } else {
            let what = format!("object {id} is a {kind:?}, not a {wanted:?}").to_lowercase();
            Err(self.odd(id, wanted, what))
        }
    }

    /// The error for an object with wrong content. If its bytes have the right id, the repository itself has
    /// it (a tag that names a blob, a client that names a tree): then the mirror is not damaged, and must not
    /// be replaced.
    fn odd(&self, id: ObjectId, wanted: Kind, what: String) -> GitError {
        let is_small = self.header(id).is_ok_and(|(size, _)| size <= TREE_BYTES_MAX);
        let is_whole = if is_small {
            self.odb.read(oid(id)).is_ok_and(|object| is_named(id, object.kind(), object.data()))
        } else {
            self.prove().is_ok()
        };
        if !is_whole {
            GitError::Corrupt(what)
        } else if wanted == Kind::Commit {
            GitError::NotACommit(id)
        } else {
            GitError::Broken(what)
        }
    }
}

/// Whether the data has this id. libgit2's own hash also detects crafted collisions and is several times
/// slower; fetched objects were hashed with it once.
fn is_named(id: ObjectId, kind: ObjectType, data: &[u8]) -> bool {
    let mut hash = Sha1::new_with_prefix(format!("{} {}\0", kind.str(), data.len()));
    hash.update(data);
    hash.finalize().as_slice() == id.as_bytes()
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

/// Parses a commit; `None` if it is malformed.
pub(super) fn parse_commit(raw: &[u8]) -> Option<Commit> {
    let split = raw.windows(2).position(|pair| pair == b"\n\n");
    let (head, message) = split.map_or((raw, &b""[..]), |at| (&raw[..at], &raw[at + 2..]));
    let field = |name: &[u8]| {
        head.split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(b" ")))
    };
    let object =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<ObjectId>().ok());
    let tree = field(b"tree").and_then(object)?;
    let parents = head.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"parent "));
    let parents = parents.map(object).collect::<Option<Vec<_>>>()?;
    let first_parent = parents.first().copied();
    let subject = message.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let facts = CommitFacts {
        author: field(b"author").map_or_else(String::new, |line| identity(line).0),
        time: field(b"committer").map_or(0, |line| identity(line).1),
        subject: lossy(subject.unwrap_or_default()).trim().chars().take(SUBJECT_CHARACTERS_MAX).collect(),
        first_parent,
    };
    Some(Commit { tree, facts, parents })
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

/// Sets the options of libgit2. Its own hashing of every read, which detects crafted collisions, would halve
/// the speed: fetched objects were hashed so, and reads are hashed by us. Its object cache is off, because it
/// has no limit per repository. It reads no configuration: objects are opened by directory.
pub(super) fn set_up_library() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        git2::opts::strict_hash_verification(false);
        git2::opts::enable_caching(false);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_leniently_but_its_ids_strictly() {
        let (tree, parent) = ("ab".repeat(20), "cd".repeat(20));
        let raw = format!(
            "tree {tree}\nparent {parent}\nparent {tree}\nauthor A \u{fc} <a@b> 5 +0100\ncommitter C <c> 7 \
             +0000\n\
             gpgsig x\n y\n\n\nSubject line\nmore\n"
        );
        let commit = parse_commit(raw.as_bytes()).expect("valid");
        assert_eq!(commit.tree.to_string(), tree);
        assert_eq!(commit.facts.author, "A \u{fc} <a@b>");
        assert_eq!((commit.facts.time, commit.facts.subject.as_str()), (7, "Subject line"));
        assert_eq!(commit.facts.first_parent.map(|id| id.to_string()), Some(parent));
        assert_eq!(commit.parents.len(), 2);

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
