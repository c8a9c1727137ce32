//! Restoring a backup.
//!
//! Everything is checked before anything is written, then made ready in a folder inside the data
//! directory, and put in place at the end, the database last. A crash leaves that folder, which is no
//! data; the next try removes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tidings_actors::{ports::Clock, secret::Secret, time::Timestamp};

use super::{
    BackupError, DATABASE, FORMAT, KEYRING_SEALED, MANIFEST, Manifest, digest, of_path, read_small,
    sync_folder,
};
use crate::{
    app::{Claim, KEYRING, LOCK, make_private_directory},
    secrets::{Keyring, export},
    settings::Settings,
    store::copy,
};

/// The folder in the data directory where things are made ready.
const STAGE: &str = ".restore";
/// What an empty volume may hold.
const NOTHING: [&str; 3] = [LOCK, STAGE, "lost+found"];

/// Where the keyring comes from.
#[derive(Debug, Default)]
pub struct KeyringFrom {
    /// Opens a sealed one.
    pub passphrase: Option<Secret>,
    /// A keyring or an exported one, for a backup without.
    pub file: Option<PathBuf>,
}

/// What was restored.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// Branches whose next round is a complete resync.
    pub resyncs: u64,
    /// Where the database lies now.
    pub database: PathBuf,
    /// Where the keyring lies now.
    pub keyring: PathBuf,
}

/// Fills the data directory of `settings` from the backup `from`.
///
/// # Errors
/// [`BackupError`]; the data directory holds nothing that a start would use then.
pub async fn restore(
    settings: &Settings,
    from: &Path,
    keyring: &KeyringFrom,
    clock: &dyn Clock,
) -> Result<Restored, BackupError> {
    let manifest = manifest(from)?;
    let behind = manifest.taken_at - clock.now().0;
    if behind > 0 {
        return Err(BackupError::Clock(behind));
    }
    let keys = keys(from, &manifest, keyring)?;
    check_file(from, &manifest.database)?;
    if let Some(missing) = manifest.keys.iter().find(|key| !keys.status().keys.contains(key)) {
        return Err(BackupError::MissingKey(missing.clone()));
    }
    let database = copy::file_of(&settings.database_url())?;
    refuse_used(&settings.data_dir, &database)?;
    make_private_directory(&settings.data_dir)?;
    let _claim = Claim::take(&settings.data_dir)?;
    refuse_used(&settings.data_dir, &database)?;

    let stage = settings.data_dir.join(STAGE);
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(of_path(&stage))?;
    }
    make_private_directory(&stage)?;
    let resyncs = fill(&stage, from, &manifest, &keys, clock).await;
    let placed = resyncs.and_then(|resyncs| {
        place(&stage, settings, &keys, &database)?;
        Ok(resyncs)
    });
    fs::remove_dir_all(&stage).map_err(of_path(&stage))?;
    Ok(Restored { resyncs: placed?, manifest, keyring: settings.data_dir.join(KEYRING), database })
}

/// The copy, checked and made ready.
async fn fill(
    stage: &Path,
    from: &Path,
    manifest: &Manifest,
    keys: &Keyring,
    clock: &dyn Clock,
) -> Result<u64, BackupError> {
    let staged = stage.join(DATABASE);
    fs::copy(from.join(&manifest.database.name), &staged).map_err(of_path(&staged))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&staged, private).map_err(of_path(&staged))?;
    // What was copied, not what was checked before: the other end may be a bad disk.
    check_digest(&staged, &manifest.database)?;
    copy::look(&staged, Some(keys)).await?;
    let resyncs = copy::make_ready(&staged, keys, Timestamp(manifest.taken_at), clock.now()).await?;
    let after = copy::look(&staged, Some(keys)).await?;
    debug_assert_eq!(after.cursors, resyncs);
    fs::File::open(&staged).and_then(|file| file.sync_all()).map_err(of_path(&staged))?;
    Ok(resyncs)
}

/// Puts everything where a start looks for it. The database comes last: what lies there without it is
/// nothing that anybody would miss.
fn place(stage: &Path, settings: &Settings, keys: &Keyring, database: &Path) -> Result<(), BackupError> {
    let keyring = settings.data_dir.join(KEYRING);
    keys.save_new(&keyring)?;
    let staged = stage.join(DATABASE);
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let placed = match fs::hard_link(&staged, database) {
        // Settings may keep the database on another disk.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let near = database.with_extension("restoring");
            fs::copy(&staged, &near)
                .and_then(|_| fs::File::open(&near)?.sync_all())
                .and_then(|()| fs::hard_link(&near, database))
                .and_then(|()| fs::remove_file(&near))
        }
        linked => linked,
    };
    if let Err(source) = placed {
        // Without the database this keyring would only be in the way of the next try.
        fs::remove_file(&keyring).map_err(of_path(&keyring))?;
        return Err(BackupError::File { path: database.to_owned(), source });
    }
    sync_folder(folder)?;
    sync_folder(&settings.data_dir)
}

fn manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join(MANIFEST);
    let text = read_small(&path)?;
    let damaged = |reason: String| BackupError::Damaged(format!("{} is no backup: {reason}", from.display()));
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("its manifest cannot be read: {error}")))?;
    if manifest.format != FORMAT {
        return Err(damaged(format!("its form is {}, this version knows {FORMAT}", manifest.format)));
    }
    // A name with a path in it would read elsewhere.
    let names = std::iter::once(&manifest.database).chain(&manifest.keyring);
    if names.into_iter().any(|file| Path::new(&file.name).file_name() != Some(file.name.as_ref())) {
        return Err(damaged("a file of its manifest lies elsewhere".into()));
    }
    Ok(manifest)
}

/// The keyring of a backup, or the one that was kept elsewhere.
fn keys(from: &Path, manifest: &Manifest, given: &KeyringFrom) -> Result<Keyring, BackupError> {
    match (&manifest.keyring, &given.file) {
        (Some(_), Some(_)) => {
            Err(BackupError::Keyring("the backup has a keyring of its own: leave --keyring out"))
        }
        (None, None) => {
            Err(BackupError::Keyring("the backup was taken without its keyring: name it with --keyring FILE"))
        }
        (Some(file), None) => {
            check_file(from, file)?;
            let text = read_small(&from.join(&file.name))?;
            if file.name == KEYRING_SEALED {
                opened(&text, given)
            } else {
                Ok(Keyring::open(&from.join(&file.name))?)
            }
        }
        (None, Some(path)) => {
            let text = read_small(path)?;
            if export::is_exported(&text) { opened(&text, given) } else { Ok(Keyring::open(path)?) }
        }
    }
}

fn opened(text: &[u8], given: &KeyringFrom) -> Result<Keyring, BackupError> {
    let passphrase = given.passphrase.as_ref().ok_or(BackupError::Keyring(
        "the keyring is sealed: give its passphrase with --passphrase-file or TIDINGS_PASSPHRASE",
    ))?;
    Ok(export::import(text, passphrase)?)
}

fn check_file(from: &Path, file: &super::File) -> Result<(), BackupError> {
    check_digest(&from.join(&file.name), file)
}

fn check_digest(path: &Path, file: &super::File) -> Result<(), BackupError> {
    let (bytes, sha256) = digest(path).map_err(of_path(path))?;
    if (bytes, sha256) == (file.bytes, file.sha256) {
        return Ok(());
    }
    Err(BackupError::Damaged(format!(
        "{} is not what the manifest says: it has {bytes} bytes with the digest {sha256}",
        path.display()
    )))
}

/// Refuses a data directory that holds anything, and a database that is there.
fn refuse_used(data_dir: &Path, database: &Path) -> Result<(), BackupError> {
    // A log beside it would be taken for that of the new one, by its name alone.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        if Path::new(&file).exists() {
            return Err(BackupError::Exists(file.into()));
        }
    }
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(of_path(data_dir))?,
    };
    for entry in entries {
        let name = entry.map_err(of_path(data_dir))?.file_name();
        if !NOTHING.iter().any(|nothing| name == *nothing) {
            let (path, found) = (data_dir.to_owned(), name.to_string_lossy().into_owned());
            return Err(BackupError::Used { path, found });
        }
    }
    Ok(())
}
