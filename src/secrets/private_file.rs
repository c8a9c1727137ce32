//! Files that hold one secret, which their owner alone may read.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use thiserror::Error;
use tidings_actors::model::secret::Secret;

/// The directory in which container engines mount secrets, with the mode of the host's file. The container
/// cannot change that mode, so the host is responsible for it.
const MOUNTED_SECRETS: &str = "/run/secrets";

/// Why a file holds no usable secret. Each text continues a sentence whose subject is the file.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// The operating system refuses to read it.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The path is that of a folder.
    #[error("is a folder, no file")]
    Folder,
    /// Others than its owner can read it.
    #[error("can be read by others (mode {0:04o})")]
    Exposed(u32),
    /// The file is empty.
    #[error("is empty")]
    Empty,
    /// The file has more than this number of bytes, so it holds something else.
    #[error("has more than {0} bytes, so it is something else")]
    TooLarge(u64),
}

/// The secret in a file, without surrounding whitespace; `None` if the file does not exist.
///
/// # Errors
/// [`PrivateFileError`]; a file of more than `bytes_max` bytes is not read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Option<Secret>, PrivateFileError> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PrivateFileError::Unreadable(error)),
    };
    if facts.is_dir() {
        return Err(PrivateFileError::Folder);
    }
    let mode = facts.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 && !path.starts_with(MOUNTED_SECRETS) {
        return Err(PrivateFileError::Exposed(mode));
    }
    if facts.len() > bytes_max {
        return Err(PrivateFileError::TooLarge(bytes_max));
    }
    let text = fs::read_to_string(path).map_err(PrivateFileError::Unreadable)?;
    match text.trim() {
        "" => Err(PrivateFileError::Empty),
        secret => Ok(Some(Secret::new(secret.to_owned()))),
    }
}
