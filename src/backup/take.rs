//! Taking a backup: a copy of the database, the keyring and a manifest, in a new folder.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use tidings_actors::ports::{Clock, Random};

use super::{
    BackupError, FORMAT, KEYRING_PLAIN, KEYRING_SEALED, KeyringForm, Manifest, Tell, measured, new_file,
    of_path, sync_folder,
};
use crate::{
    app::{
        KEYRING,
        unfinished::{DATABASE, MANIFEST},
    },
    secrets::{Keyring, export},
    settings::Settings,
    store::copy,
};

/// The file names of a backup, and the names of temporary files of SQLite and of the keyring beside them.
const OURS: [&str; 3] = [DATABASE, KEYRING_PLAIN, MANIFEST];
/// How often a copy is begun again because the keyring changed meanwhile.
const TRIES: u32 = 5;

/// Copies the database and the keyring of `settings` into a new folder `to`.
///
/// # Errors
/// [`BackupError`]; then no folder of that name exists.
pub async fn take(
    settings: &Settings,
    to: &Path,
    form: &KeyringForm,
    clock: &dyn Clock,
    random: &dyn Random,
    tell: Tell<'_>,
) -> Result<Manifest, BackupError> {
    check(settings, to, form)?;
    let aside = Aside::make(to)?;
    let folder = &aside.path;
    let (database, keyring_file) = (folder.join(DATABASE), settings.data_dir.join(KEYRING));
    for _ in 0..TRIES {
        let taken_at = clock.now();
        let before = Keyring::open(&keyring_file)?.status();
        new_file(&database, &[])?;
        tell("copying the database");
        copy::take(&settings.database_url(), &database).await?;
        let keyring = Keyring::open(&keyring_file)?;
        // A key that was added or retired meanwhile may be needed by the copy.
        if keyring.status() != before {
            fs::remove_file(&database).map_err(of_path(&database))?;
            continue;
        }
        tell("reading the copy");
        let contents = copy::look(&database, Some(&keyring)).await?;
        if let Some(missing) = contents.keys.iter().find(|key| !before.keys.contains(key)) {
            return Err(BackupError::MissingKey(missing.clone()));
        }
        let name = match form {
            KeyringForm::Sealed(passphrase) => {
                let text = export::export(&keyring, passphrase, random)?;
                new_file(&folder.join(KEYRING_SEALED), text.as_bytes())?;
                Some(KEYRING_SEALED)
            }
            KeyringForm::Plain => {
                keyring.save_new(&folder.join(KEYRING_PLAIN))?;
                Some(KEYRING_PLAIN)
            }
            KeyringForm::LeftOut => None,
        };
        fs::File::open(&database).and_then(|file| file.sync_all()).map_err(of_path(&database))?;
        let manifest = Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: taken_at.0,
            schema: contents.step,
            database: measured(folder, DATABASE)?,
            keyring: name.map(|name| measured(folder, name)).transpose()?,
            keys: contents.keys,
            apps: contents.apps,
            watches: contents.watches,
            cursors: contents.cursors,
        };
        let text = serde_json::to_string_pretty(&manifest).expect("texts and numbers") + "\n";
        new_file(&folder.join(MANIFEST), text.as_bytes())?;
        sync_folder(folder)?;
        aside.keep(to)?;
        return Ok(manifest);
    }
    Err(BackupError::KeyringMoved)
}

/// Refuses a backup that cannot be taken, before anything is written.
fn check(settings: &Settings, to: &Path, form: &KeyringForm) -> Result<(), BackupError> {
    if let KeyringForm::Sealed(passphrase) = form {
        export::check(passphrase)?;
    }
    if !settings.data_dir.is_dir() {
        return Err(BackupError::NoDataDirectory(settings.data_dir.clone()));
    }
    if copy::file_of(&settings.database_url())?.is_none() {
        return Err(BackupError::OnServer);
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    Ok(())
}

/// A folder under a temporary name, which is removed unless it is kept. Its writer holds a lock on it, so
/// that a folder in use differs from one that a crash left.
struct Aside {
    path: PathBuf,
    _lock: fs::File,
}

impl Aside {
    fn make(to: &Path) -> Result<Self, BackupError> {
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::create_dir_all(parent).map_err(of_path(parent))?;
        }
        let is_new = match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(of_path(&path))?,
        };
        let lock = fs::File::open(&path).map_err(of_path(&path))?;
        if lock.try_lock().is_err() {
            return Err(BackupError::Busy(to.to_owned()));
        }
        // The previous writer may have renamed the folder just now; then this lock is on the renamed folder.
        if fs::metadata(&path).map(|facts| facts.ino()).ok() != lock.metadata().map(|facts| facts.ino()).ok()
        {
            return Err(BackupError::Busy(to.to_owned()));
        }
        if !is_new {
            empty(&path)?;
        }
        let aside = Self { path, _lock: lock };
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        Ok(aside)
    }

    fn keep(&self, to: &Path) -> Result<(), BackupError> {
        fs::rename(&self.path, to).map_err(of_path(to))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%error, "{path} is left behind: it is no backup and can be removed");
        }
    }
}

/// Empties a folder that a crash left before it was a backup. A folder with other files belongs to a person,
/// and is refused.
fn empty(path: &Path) -> Result<(), BackupError> {
    let entries = fs::read_dir(path).map_err(of_path(path))?;
    let entries = entries.collect::<Result<Vec<_>, _>>().map_err(of_path(path))?;
    let is_known = |name: &str| OURS.iter().any(|ours| name.starts_with(ours));
    if entries.iter().any(|entry| !entry.file_name().to_str().is_some_and(is_known)) {
        return Err(BackupError::Exists(path.to_owned()));
    }
    entries.iter().try_for_each(|entry| fs::remove_file(entry.path()).map_err(of_path(&entry.path())))
}
