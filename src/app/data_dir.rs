//! The data directory: one process owns it at a time, only its user may enter it, and nothing starts on a
//! directory into which a restore was cut off.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use tracing::warn;

use super::{
    StartError,
    unfinished::{Unfinished, sweep},
};
use crate::settings::Settings;

/// The keyring's file in the data directory.
pub(crate) const KEYRING: &str = "keyring";

/// The lock file, which names the process that owns the data directory.
pub(crate) const LOCK: &str = "lock";

/// Longest name of another process that is read, in bytes.
const OWNER_BYTES_MAX: u64 = 100;

/// This process owns the data directory until this value is dropped or the process ends in any way: two
/// processes that fetch into one mirror would delete each other's files.
pub(crate) struct Claim(#[expect(dead_code, reason = "the lock is held by the open file")] fs::File);

impl Claim {
    /// Takes the data directory; the error names the process that owns it, or a restore that was cut off.
    pub(crate) fn take(settings: &Settings) -> Result<Self, StartError> {
        let claim = Self::hold(&settings.data_dir)?;
        refuse_unfinished(settings)?;
        Ok(claim)
    }

    /// Takes the data directory, even after a restore that was cut off; the error names the process that owns
    /// it.
    pub(crate) fn hold(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join(LOCK);
        let failed = |reason| StartError::DataDirectory { path: path.display().to_string(), reason };
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.take(OWNER_BYTES_MAX).read_to_string(&mut owner).map_err(failed)?;
                let path = data_dir.display().to_string();
                return Err(StartError::InUse { path, owner: owner.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id())).map_err(failed)?;
        // The leftovers do no harm: a start does not fail because of them.
        if let Err(error) = sweep(data_dir) {
            warn!(%error, "what a restore left at its end could not be removed");
        }
        Ok(Self(file))
    }
}

/// Refuses a data directory into which a restore was cut off: otherwise missing files would be created empty,
/// unnoticed.
pub(crate) fn refuse_unfinished(settings: &Settings) -> Result<(), StartError> {
    let Some(what) = Unfinished::of(settings) else { return Ok(()) };
    Err(StartError::Unfinished { path: settings.data_dir.display().to_string(), what })
}

/// Creates a directory that only this user may enter, if it does not exist.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|reason| StartError::DataDirectory { path: path.display().to_string(), reason })
}

/// The error of the operating system for an unusable directory, in words that fit a directory.
pub(crate) fn why_unusable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => "there is a file of that name".to_owned(),
        _ => error.to_string(),
    }
}
