//! The data directory and the SQLite file: one process owns them at a time. Only its user may enter the
//! directory and read its lock files, and nothing starts on a directory into which a restore was cut off.

use std::{
    collections::BTreeSet,
    fs, io,
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{
    StartError,
    privacy::mode_for_others,
    unfinished::{Unfinished, sweep},
};
use crate::{
    settings::Settings,
    store::{OpenError, copy},
};

/// The keyring's file in the data directory.
pub(crate) const KEYRING: &str = "keyring";

/// The lock file, which names the process that owns the data directory.
pub(crate) const LOCK: &str = "lock";

/// Ends the name of the lock file of a SQLite file.
const DATABASE_LOCK: &str = ".lock";

/// Longest name of another process that is read, in bytes.
const OWNER_BYTES_MAX: u64 = 100;

/// This process owns the data directory and the SQLite file until this value is dropped or the process ends
/// in any way. Two processes that fetch into one mirror would delete each other's files. Two processes with
/// one SQLite file, also from different data directories, would send every change twice, or change the schema
/// under a server.
pub(crate) struct Claim(#[expect(dead_code, reason = "the locks are held by the open files")] Vec<fs::File>);

impl Claim {
    /// Takes the data directory and the SQLite file of the settings; the error names the process that owns
    /// one of them, or a restore that was cut off.
    pub(crate) fn take(settings: &Settings) -> Result<Self, StartError> {
        let claim = Self::hold(settings)?;
        refuse_unfinished(settings)?;
        Ok(claim)
    }

    /// The same, even after a restore that was cut off.
    pub(crate) fn hold(settings: &Settings) -> Result<Self, StartError> {
        Self::of(Some(&settings.data_dir), copy::file_of(&settings.database_url())?)
    }

    /// Takes a data directory, and these SQLite files.
    pub(crate) fn of(
        data_dir: Option<&Path>,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, StartError> {
        // Two names of one file have one lock, which a process cannot take twice.
        let files: BTreeSet<PathBuf> = files.into_iter().filter_map(|file| real_path(&file)).collect();
        let mut locks = Vec::new();
        if let Some(data_dir) = data_dir {
            locks.push(lock_directory(data_dir)?);
        }
        for file in files {
            locks.push(lock_database(&file)?);
        }
        Ok(Self(locks))
    }
}

/// The path of the lock file of a SQLite file. SQLite's own locks are on the database file itself, and would
/// end if this process closed another handle of that file.
pub(crate) fn lock_of(database: &Path) -> PathBuf {
    let mut path = real_path(database).unwrap_or_else(|| database.to_owned()).into_os_string();
    path.push(DATABASE_LOCK);
    path.into()
}

/// The path of a file without links; `None` if the folder of the file does not exist, so that no process has
/// the file open.
fn real_path(file: &Path) -> Option<PathBuf> {
    let folder = || {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        Some(folder.unwrap_or(Path::new(".")).canonicalize().ok()?.join(file.file_name()?))
    };
    file.canonicalize().ok().or_else(folder)
}

fn lock_directory(data_dir: &Path) -> Result<fs::File, StartError> {
    let path = data_dir.join(LOCK);
    let failed = |reason| StartError::DataDirectory { path: path.display().to_string(), reason };
    let file = lock(&path).map_err(failed)?.map_err(|owner| {
        let path = data_dir.display().to_string();
        StartError::InUse { path, owner }
    })?;
    // The leftovers do no harm: a start does not fail because of them.
    if let Err(error) = sweep(data_dir) {
        warn!(%error, "leftover files of a restore could not be removed");
    }
    Ok(file)
}

fn lock_database(file: &Path) -> Result<fs::File, StartError> {
    let path = lock_of(file);
    let failed = |error| OpenError::Database(format!("{}: {error}", path.display()));
    lock(&path).map_err(failed)?.map_err(|owner| {
        let path = file.display().to_string();
        StartError::DatabaseInUse { path, owner }
    })
}

/// Takes a lock file, and writes the name of this process into it. The inner error is the name of the process
/// that has the lock.
fn lock(path: &Path) -> io::Result<Result<fs::File, String>> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut owner = String::new();
            file.take(OWNER_BYTES_MAX).read_to_string(&mut owner)?;
            return Ok(Err(owner.trim().to_owned()));
        }
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // An older version created the file for the group and others too. Only its owner can change the mode.
    if mode_for_others(path).is_some()
        && let Err(error) = file.set_permissions(fs::Permissions::from_mode(0o600))
    {
        warn!(%error, "others on this machine may open the lock file {}", path.display());
    }
    file.set_len(0)?;
    writeln!(file, "process {}", std::process::id())?;
    Ok(Ok(file))
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
