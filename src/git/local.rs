//! Repositories on this machine, read in place and never written: bare ones, work trees and linked work
//! trees. Their owner does not matter, because no hook or program of them is ever run.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use git2::{ErrorCode, ObjectType, Repository};
use tidings_actors::ports::{FetchOrder, FetchOutcome, GitError, RefListing, RefPatterns};
use tidings_entity::id::ObjectId;

use super::{failure, objects::Objects};
use crate::settings::GitSettings;
use crate::{
    acquire::closure::{COMPARED_MAX, Known, Seen},
    host::listing::Listing,
    objects::limits::{Cancel, Limits},
};

/// Longest `.git` file in bytes.
const POINTER_BYTES_MAX: u64 = 4_096;

/// The directory with the objects of the repository at `path`.
///
/// # Errors
/// [`GitError::NotFound`] where there is no repository.
pub(super) fn objects(path: &Path) -> Result<PathBuf, GitError> {
    Ok(open(path)?.commondir().join("objects"))
}

/// Lists the refs of a repository on this machine.
pub(super) fn list(path: &Path, patterns: &RefPatterns) -> Result<RefListing, GitError> {
    let repository = open(path)?;
    let mut listing = Listing::new(patterns);
    let head = repository.find_reference("HEAD").map_err(|error| of_open(&error))?;
    let linked = linked_head(&repository);
    listing.set_head(head.symbolic_target().ok().flatten().or(linked.as_deref()));
    if let Ok(named) = repository.find_reference("HEAD").and_then(|head| head.resolve()) {
        let commit = named.peel(ObjectType::Commit).map(|commit| commit.id()).ok().or_else(|| named.target());
        commit.into_iter().for_each(|commit| listing.found("HEAD", object_id(commit)));
    }
    for reference in repository.references().map_err(|error| of_open(&error))? {
        let Ok(reference) = reference else { continue };
        let Ok(name) = std::str::from_utf8(reference.name_bytes()) else { continue };
        // A ref to an object that is no commit is listed with that object, as hosts do. So is a ref to an
        // unreadable object: the ref exists, and its absence would delete files.
        let named = || {
            let object = reference.peel(ObjectType::Commit).or_else(|_| reference.peel(ObjectType::Any));
            object.map(|object| object.id()).ok().or_else(|| reference.target())
        };
        match listing.wants(name).then(named).flatten() {
            Some(object) => listing.found(name, object_id(object)),
            None => listing.passed_by(),
        }
    }
    check_files(&repository.commondir().join("refs"), b"refs".to_vec())?;
    Ok(listing.finish())
}

/// Checks that each ref in a file of its own can be read, also refs that were listed: libgit2 skips files
/// that it cannot read, so such a ref would count as gone, or as at its packed commit.
fn check_files(folder: &Path, name: Vec<u8>) -> Result<(), GitError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failure::of_disk(&error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failure::of_disk(&error))?;
        // No ref has such a name: file managers create such files.
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let name = [name.as_slice(), entry.file_name().as_bytes()].join(&b'/');
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            check_files(&entry.path(), name)?;
            continue;
        }
        if name.ends_with(b".lock") || entry.path().is_dir() {
            continue;
        }
        // A file that appeared or vanished meanwhile is for the next scan; a broken link is no ref.
        let is_well = match fs::read(entry.path()) {
            Ok(text) => {
                text.starts_with(b"ref:") || text.len() >= 40 && text[..40].iter().all(u8::is_ascii_hexdigit)
            }
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_well {
            let name = String::from_utf8_lossy(&name);
            return Err(GitError::Storage(format!("the file of {name} cannot be read; git fsck tells more")));
        }
    }
    Ok(())
}

/// Checks that wanted objects are present; fetches nothing.
pub(super) fn verify(
    path: &Path,
    settings: &GitSettings,
    order: &FetchOrder,
    cancel: &Cancel,
) -> Result<FetchOutcome, GitError> {
    let objects = Objects::open(&[&objects(path)?])?;
    // Nobody else checks a local repository: trees that differ from known commits are checked.
    let complete = order.haves.iter().copied().filter(|have| objects.commit(*have).is_ok());
    let complete: Vec<_> = complete.take(COMPARED_MAX).collect();
    let (mut outcome, mut seen) = (FetchOutcome::default(), Seen::default());
    for want in &order.wants {
        let limits = Limits::new(settings, cancel.clone());
        match seen.check(&objects, &Known::Commits(&complete), &limits, *want, order.extent) {
            Ok(()) => {}
            Err(GitError::Missing(missing)) if missing == *want => {
                outcome.refused.push((*want, GitError::Unobtainable(missing)));
            }
            Err(GitError::Missing(missing)) => {
                outcome.refused.push((*want, GitError::Broken(format!("object {missing} is missing"))));
            }
            Err(GitError::Corrupt(text)) => outcome.refused.push((*want, GitError::Broken(text))),
            Err(error) if error.is_divisible() => outcome.refused.push((*want, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(outcome)
}

fn open(path: &Path) -> Result<Repository, GitError> {
    let inside = path.join(".git");
    let directory = match fs::metadata(&inside) {
        Ok(metadata) if metadata.is_dir() => inside,
        Ok(metadata) if metadata.len() <= POINTER_BYTES_MAX => pointed_at(path, &inside)?,
        _ => path.to_owned(),
    };
    Repository::open_bare(directory).map_err(|error| of_open(&error))
}

/// Where a `.git` file of a linked work tree points.
fn pointed_at(path: &Path, file: &Path) -> Result<PathBuf, GitError> {
    let text = fs::read_to_string(file).map_err(|error| failure::of_disk(&error))?;
    let target = text.strip_prefix("gitdir:").ok_or(GitError::NotFound)?;
    Ok(path.join(target.trim()))
}

/// The ref that HEAD names if HEAD is a symbolic link, as git created it long ago.
fn linked_head(repository: &Repository) -> Option<String> {
    let target = fs::read_link(repository.path().join("HEAD")).ok()?;
    target.to_str().filter(|target| target.starts_with("refs/heads/")).map(str::to_owned)
}

fn of_open(error: &git2::Error) -> GitError {
    if error.message().contains("extensions.refstorage") {
        return GitError::Refused(
            "repositories whose refs are in a reftable cannot be read by path; have git migrate them \
             (git refs migrate --ref-format=files), or serve the repository over http"
                .to_owned(),
        );
    }
    if error.message().contains("object format") || error.message().contains("objectformat") {
        return GitError::UnsupportedObjectFormat;
    }
    match error.code() {
        ErrorCode::NotFound => GitError::NotFound,
        _ => GitError::Protocol(error.message().to_owned()),
    }
}

fn object_id(oid: git2::Oid) -> ObjectId {
    ObjectId::new(oid.as_bytes().try_into().expect("an object id of this format has 20 bytes"))
}
