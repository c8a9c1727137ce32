//! Backups: a folder with a copy of the database, the keyring, and a manifest that names both with their
//! digests. Mirrors are caches and stay out; so does the admin token, which a start creates again.
//!
//! [`take`] works beside a running server, on its data directory: SQLite copies the database as it is at one
//! moment, without blocking the server. The folder gets its name when all files are on disk.
//!
//! [`restore`] fills an empty data directory. After it the next round of each branch is a complete resync:
//! its app may be ahead of the backup.

mod restore;
mod take;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tidings_actors::{model::secret::Secret, time::Timestamp};
use tidings_entity::id::Sha256Hash;

use crate::{
    app::StartError,
    secrets::{SecretsError, export::ExportError},
    store::OpenError,
};

pub use self::{
    restore::{KeyringFrom, Restored, restore},
    take::take,
};

/// Called with the name of each step when it begins.
pub type Tell<'a> = &'a (dyn Fn(&'static str) + Sync);

/// The form of the folder.
const FORMAT: u32 = 1;
const KEYRING_SEALED: &str = "keyring.sealed";
const KEYRING_PLAIN: &str = "keyring";
/// No honest manifest or keyring is larger, in bytes.
const SMALL_FILE_MAX: u64 = 1 << 20;

/// The form of the keyring in a backup.
#[derive(Debug)]
pub enum KeyringForm {
    /// The keyring is sealed with this passphrase.
    Sealed(Secret),
    /// The keyring is copied as it is: a person who has the backup can read every secret in it.
    Plain,
    /// The backup has no keyring: the operator keeps it elsewhere.
    LeftOut,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The name of the file in the folder of the backup.
    pub name: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file's content.
    pub sha256: Sha256Hash,
}

/// The manifest of a backup: its files with their digests, and their contents in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the folder's layout.
    pub format: u32,
    /// The version of Tidings that made the backup.
    pub version: String,
    /// When the copy was begun, in Unix milliseconds.
    pub taken_at: i64,
    /// The name of the last schema step that the database has taken.
    pub schema: String,
    /// The file with the copy of the database.
    pub database: File,
    /// The file with the keyring; `None`: the backup has no keyring.
    pub keyring: Option<File>,
    /// The ids of the keys that sealed a value in the database.
    pub keys: BTreeSet<String>,
    /// The number of registered apps.
    pub apps: u64,
    /// The number of watches, paused ones included.
    pub watches: u64,
    /// The number of branches that are followed.
    pub cursors: u64,
}

/// Why a backup cannot be taken or restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{path} cannot be used: {source}")]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// A file or folder of this name exists already.
    #[error("{0} is there already: nothing is written over it")]
    Exists(PathBuf),
    /// Another backup to the same name is being taken.
    #[error("{0} is being written by another backup: wait for it, or take this one to another name")]
    Busy(PathBuf),
    /// The restore of another backup is complete except for its cleanup.
    #[error(
        "another backup was restored into the data directory {0} and only cleaning up is left: restore that \
         one again to finish it (nothing was changed)"
    )]
    OtherBackup(PathBuf),
    /// There is nothing to copy.
    #[error(
        "there is no data directory {0}: name the settings file of the server with --config, or its \
         directory with TIDINGS__DATA_DIR"
    )]
    NoDataDirectory(PathBuf),
    /// The data directory is not empty.
    #[error(
        "the data directory {path} is in use: it holds {found}; name an empty or new directory in data_dir \
         (TIDINGS__DATA_DIR; nothing was changed)"
    )]
    Used {
        /// The path of the data directory.
        path: PathBuf,
        /// The files that were found in the data directory.
        found: String,
    },
    /// The folder is no backup, or not whole.
    #[error("{0}")]
    Damaged(String),
    /// The clock of this machine is behind the backup: numbers of rounds would go back.
    #[error(
        "the clock of this machine is {} s behind the moment at which the backup was taken: set it right \
         first",
        .0 / 1000
    )]
    Clock(i64),
    /// The database is not ours to copy.
    #[error(
        "the database is on a PostgreSQL server: copy it with pg_dump (or the backups of that server), and \
         the keyring with `tidings key export`; nothing was done"
    )]
    OnServer,
    /// The keyring changed each time while the database was copied.
    #[error("the keyring changed while the database was copied; try again")]
    KeyringMoved,
    /// The keyring lacks a key that the database needs.
    #[error("the keyring lacks the key {0}, which sealed something in the database")]
    MissingKey(String),
    /// The backup holds no keyring and none was given, or a keyring was given although the backup holds one.
    #[error("{0}")]
    Keyring(&'static str),
    /// The keyring cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The exported keyring cannot be used.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn of_path(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

/// A file with its size and digest.
fn measured(folder: &Path, name: &str) -> Result<File, BackupError> {
    let path = folder.join(name);
    let (bytes, sha256) = digest(&path).map_err(of_path(&path))?;
    Ok(File { name: name.to_owned(), bytes, sha256 })
}

fn digest(path: &Path) -> io::Result<(u64, Sha256Hash)> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => break,
            count => {
                hash.update(&block[..count]);
                bytes += count as u64;
            }
        }
    }
    let hash: [u8; 32] = hash.finalize().into();
    Ok((bytes, data_encoding::HEXLOWER.encode(&hash).parse().map_err(io::Error::other)?))
}

/// A small file, whole.
fn read_small(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, BackupError> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(of_path(path))?;
    file.take(SMALL_FILE_MAX).read_to_end(&mut bytes).map_err(of_path(path))?;
    Ok(bytes)
}

/// A new file that only its owner reads, synced.
fn new_file(path: &Path, content: &[u8]) -> Result<(), BackupError> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(of_path(path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(of_path(path))
}

fn sync_folder(path: &Path) -> Result<(), BackupError> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(of_path(path))
}

/// The moment as people read it.
#[must_use]
pub fn shown(moment: i64) -> String {
    let moment = std::time::SystemTime::UNIX_EPOCH
        + std::time::Duration::from_millis(Timestamp(moment).0.unsigned_abs());
    humantime::format_rfc3339_millis(moment).to_string()
}

#[cfg(test)]
mod tests;
