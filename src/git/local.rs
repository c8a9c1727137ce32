//! Repositories on this machine, read in place and never written: bare ones, work trees and linked work
//! trees. Their owner does not matter, because no hook or program of them is ever run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use git2::{ErrorCode, ObjectType, Repository};
use tidings_actors::ports::{FetchOrder, FetchOutcome, GitError, RefListing, RefPatterns};
use tidings_entity::id::ObjectId;

use super::objects::Objects;
use crate::settings::GitSettings;
use crate::{
    acquire::closure::{COMPARED_MAX, Known, Seen},
    host::listing::Listing,
    objects::limits::{Cancel, Limits},
};

/// Longest `.git` file in bytes.
const POINTER_BYTES_MAX: u64 = 4_096;
/// Longest file of one ref in bytes.
const REF_BYTES_MAX: u64 = 4_096;
/// Longest `config`, and longest list of alternates, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
/// Longest `packed-refs` in bytes: about a million refs.
const PACKED_REFS_BYTES_MAX: u64 = 64 << 20;

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
    // Before libgit2 reads any of these files.
    let unreadable = unreadable(&repository.commondir().join("refs"), b"refs")?;
    let mut listing = Listing::new(patterns);
    let head = repository.find_reference("HEAD").map_err(|error| of_open(&error))?;
    let linked = linked_head(&repository);
    listing.set_head(head.symbolic_target().ok().flatten().or(linked.as_deref()));
    let mut dangling = BTreeSet::new();
    if let Ok(named) = repository.find_reference("HEAD").and_then(|head| head.resolve()) {
        let target = named.target().map(object_id);
        let commit = named.peel(ObjectType::Commit).map(|commit| object_id(commit.id())).ok();
        if commit.is_none() {
            dangling.extend(target);
        }
        commit.or(target).into_iter().for_each(|commit| listing.found("HEAD", commit));
    }
    for reference in repository.references().map_err(|error| of_open(&error))? {
        let Ok(reference) = reference else { continue };
        let Ok(name) = std::str::from_utf8(reference.name_bytes()) else { continue };
        if !listing.wants(name) {
            listing.passed_by();
            continue;
        }
        // A ref to an object that is no commit is listed with that object, as hosts do. So is a ref to an
        // unreadable object: the ref exists, and its absence would delete files.
        let object = reference.peel(ObjectType::Commit).or_else(|_| reference.peel(ObjectType::Any));
        match (object.map(|object| object_id(object.id())), reference.target().map(object_id)) {
            (Ok(object), _) => listing.found(name, object),
            (Err(_), Some(object)) => {
                dangling.insert(object);
                listing.found(name, object);
            }
            (Err(_), None) => listing.passed_by(),
        }
    }
    if !unreadable.is_empty() {
        listing.passed_by();
    }
    let unreadable: BTreeMap<_, _> = unreadable.into_iter().filter(|(name, _)| listing.wants(name)).collect();
    let mut listing = listing.finish();
    listing.refs.retain(|found| !unreadable.contains_key(&found.name));
    Ok(RefListing { unreadable, dangling, ..listing })
}

/// Reads each ref that lies in a file of its own, and returns those that hold no ref, with the reason:
/// libgit2 skips a file that it cannot read, so such a ref would count as gone, or as at its packed commit.
///
/// # Errors
/// [`GitError::Broken`] for what is no file of a ref: reading a pipe or a device never ends.
fn unreadable(folder: &Path, name: &[u8]) -> Result<BTreeMap<String, String>, GitError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable_file(folder, &error.to_string())),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable_file(folder, &error.to_string()))?;
        // No ref has such a name: file managers create such files.
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let (path, name) = (entry.path(), [name, entry.file_name().as_bytes()].join(&b'/'));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(unreadable(&path, &name)?);
            continue;
        }
        if name.ends_with(b".lock") || path.is_dir() || !is_small_file(&path, REF_BYTES_MAX)? {
            continue;
        }
        // A file that appeared or vanished meanwhile is for the next scan.
        let why = match fs::read(&path) {
            Ok(text) if text.starts_with(b"ref:") => continue,
            Ok(text) if text.len() >= 40 && text[..40].iter().all(u8::is_ascii_hexdigit) => continue,
            Ok(text) if text.is_empty() => "is empty".to_owned(),
            Ok(_) => "holds no commit".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => format!("cannot be read: {error}"),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        let reason = format!(
            "the file of {name} {why}; push the branch again, or remove the ref with `git update-ref -d \
             {name}`"
        );
        found.insert(name, reason);
    }
    Ok(found)
}

/// Whether there is a regular file of at most this many bytes.
///
/// # Errors
/// [`GitError::Broken`] for anything else but a missing file: to read it could take for ever, or all memory.
fn is_small_file(path: &Path, bytes_max: u64) -> Result<bool, GitError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(unreadable_file(path, "it is not a regular file")),
        Ok(found) if found.len() > bytes_max => {
            Err(unreadable_file(path, &format!("it has more than {bytes_max} bytes")))
        }
        Ok(_) => Ok(true),
        // A broken link is no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unreadable_file(path, &error.to_string())),
    }
}

fn unreadable_file(path: &Path, why: &str) -> GitError {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).map(|folder| folder.to_string_lossy());
    GitError::Broken(format!("{}/{name} cannot be read: {why}", folder.unwrap_or_default()))
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
    check_files(&directory)?;
    Repository::open_bare(directory).map_err(|error| of_open(&error))
}

/// Checks the files that libgit2 reads whole when it opens a repository and lists refs.
fn check_files(directory: &Path) -> Result<(), GitError> {
    is_small_file(&directory.join("HEAD"), REF_BYTES_MAX)?;
    let pointer = directory.join("commondir");
    let common = match is_small_file(&pointer, POINTER_BYTES_MAX)? {
        true => {
            let text = fs::read_to_string(&pointer)
                .map_err(|error| unreadable_file(&pointer, &error.to_string()))?;
            directory.join(text.trim())
        }
        false => directory.to_owned(),
    };
    is_small_file(&directory.join("config.worktree"), SETTINGS_BYTES_MAX)?;
    for name in ["config", "shallow", "info/grafts", "objects/info/alternates"] {
        is_small_file(&common.join(name), SETTINGS_BYTES_MAX)?;
    }
    is_small_file(&common.join("packed-refs"), PACKED_REFS_BYTES_MAX).map(drop)
}

/// Where a `.git` file of a linked work tree points.
fn pointed_at(path: &Path, file: &Path) -> Result<PathBuf, GitError> {
    let text = fs::read_to_string(file).map_err(|error| unreadable_file(file, &error.to_string()))?;
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
        _ => GitError::Broken(error.message().to_owned()),
    }
}

fn object_id(oid: git2::Oid) -> ObjectId {
    ObjectId::new(oid.as_bytes().try_into().expect("an object id of this format has 20 bytes"))
}
