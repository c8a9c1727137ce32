//! Repositories on this machine, read in place and never written: bare ones, work trees and linked
//! work trees. Who owns them does not matter, because nothing of them is ever run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use git2::{ErrorCode, ObjectType, Repository};
use tidings_actors::ports::{FetchOrder, FetchReport, GitError, RefListing, RefPatterns};
use tidings_entity::id::ObjectId;

use super::{
    closure, failure,
    limits::{Cancel, Limits},
    listing::Listing,
    objects::Objects,
};
use crate::settings::git::GitSettings;

/// Longest `.git` file in bytes.
const POINTER_BYTES_MAX: u64 = 4_096;

/// The directory with the objects of the repository at `path`.
///
/// # Errors
/// [`GitError::NotFound`] where there is no repository.
pub(super) fn objects(path: &Path) -> Result<PathBuf, GitError> {
    Ok(open(path)?.commondir().join("objects"))
}

/// Lists its refs.
pub(super) fn list(path: &Path, patterns: &RefPatterns) -> Result<RefListing, GitError> {
    let repository = open(path)?;
    let mut listing = Listing::new(patterns);
    let head = repository.find_reference("HEAD").map_err(|error| of_open(&error))?;
    listing.set_head(head.symbolic_target().ok().flatten());
    if let Ok(commit) = repository.find_reference("HEAD").and_then(|head| head.peel(ObjectType::Commit)) {
        listing.found("HEAD", object_id(commit.id()));
    }
    for reference in repository.references().map_err(|error| of_open(&error))? {
        // A ref that cannot be read is as good as absent, and a host would not show it either.
        let Ok(reference) = reference else { continue };
        let Ok(name) = std::str::from_utf8(reference.name_bytes()) else { continue };
        // What names no commit is listed with what it names, as a host does it.
        let named = || reference.peel(ObjectType::Commit).or_else(|_| reference.peel(ObjectType::Any));
        match listing.wants(name).then(named) {
            Some(Ok(object)) => listing.found(name, object_id(object.id())),
            _ => listing.passed_by(),
        }
    }
    Ok(listing.finish())
}

/// Checks that what is wanted is there; brings nothing.
pub(super) fn verify(
    path: &Path,
    settings: &GitSettings,
    order: &FetchOrder,
    cancel: &Cancel,
) -> Result<FetchReport, GitError> {
    let objects = Objects::open(&[&objects(path)?])?;
    let complete: Vec<_> = order.haves.iter().copied().filter(|have| objects.commit(*have).is_ok()).collect();
    for want in &order.wants {
        let limits = Limits::new(settings, cancel.clone());
        match closure::check(&objects, &limits, *want, &complete, order.extent) {
            Err(GitError::Missing(missing)) => return Err(GitError::Unobtainable(missing)),
            other => other?,
        }
    }
    Ok(FetchReport::default())
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

fn of_open(error: &git2::Error) -> GitError {
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
