//! Taking a backup.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tidings_actors::ports::{Clock, Random};

use super::{
    BackupError, DATABASE, FORMAT, KEYRING_PLAIN, KEYRING_SEALED, KeyringForm, MANIFEST, Manifest, measured,
    of_path, sync_folder,
};
use crate::{
    app::KEYRING,
    secrets::{Keyring, export},
    settings::Settings,
    store::copy,
};

/// How often a copy is begun anew because the keyring changed meanwhile.
const TRIES: u32 = 5;

/// Copies the database and the keyring of `settings` into a new folder `to`.
///
/// # Errors
/// [`BackupError`]; no folder of that name is there then.
pub async fn take(
    settings: &Settings,
    to: &Path,
    form: &KeyringForm,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Manifest, BackupError> {
    if let KeyringForm::Sealed(passphrase) = form {
        export::check(passphrase)?;
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let aside = Aside::make(to)?;
    let folder = &aside.0;
    let (database, keyring_file) = (folder.join(DATABASE), settings.data_dir.join(KEYRING));
    for _ in 0..TRIES {
        let taken_at = clock.now();
        let before = Keyring::open(&keyring_file)?.status();
        new_file(&database, &[])?;
        copy::take(&settings.database_url(), &database).await?;
        let keyring = Keyring::open(&keyring_file)?;
        // A key that was added or retired meanwhile may be the one that the copy needs.
        if keyring.status() != before {
            fs::remove_file(&database).map_err(of_path(&database))?;
            continue;
        }
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

/// A folder under another name, which goes unless it is kept.
struct Aside(PathBuf);

impl Aside {
    fn make(to: &Path) -> Result<Self, BackupError> {
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        // One that a crash left: it was never a backup.
        if path.join(DATABASE).exists() {
            fs::remove_dir_all(&path).map_err(of_path(&path))?;
        }
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::create_dir_all(parent).map_err(of_path(parent))?;
        }
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(of_path(&path))?;
        Ok(Self(path))
    }

    fn keep(&self, to: &Path) -> Result<(), BackupError> {
        fs::rename(&self.0, to).map_err(of_path(to))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = fs::remove_dir_all(&self.0)
        {
            tracing::warn!(%error, "{} is left behind: it is no backup and can be removed", self.0.display());
        }
    }
}

/// A new file that only its owner reads, synced.
fn new_file(path: &Path, content: &[u8]) -> Result<(), BackupError> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(of_path(path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(of_path(path))
}
