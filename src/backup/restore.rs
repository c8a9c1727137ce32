//! Restoring a backup.
//!
//! Everything is checked before anything is written, then made ready in a folder inside the data directory,
//! and put in place at the end, the database last. That folder exists from the first to the last step, and as
//! long as it exists nothing else opens the data directory ([`crate::app::Claim`]). A restore that was cut
//! off anywhere is finished, or done again, by the next one ([`crate::app::unfinished`] reads its state).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tidings_actors::{
    model::secret::Secret,
    ports::{Clock, Random},
    time::Timestamp,
};

use super::{
    BackupError, FORMAT, KEYRING_SEALED, Manifest, Tell, digest, new_file, of_path, read_small, sync_folder,
};
use crate::{
    app::{
        Claim, KEYRING, LOCK, lock_of, make_private_directory, served,
        unfinished::{DATABASE, MANIFEST, STAGE, UNSTAGED, is_left_over, is_placed, is_same, near, sweep},
    },
    secrets::{Keyring, export},
    settings::Settings,
    store::copy,
};

/// Names that an empty volume may contain.
const NOTHING: [&str; 3] = [LOCK, STAGE, "lost+found"];

/// The name of the keyring file while it is written.
const KEYRING_ASIDE: &str = "keyring.new";

/// The source of the keyring.
#[derive(Debug, Default)]
pub struct KeyringFrom {
    /// The passphrase of a sealed keyring.
    pub passphrase: Option<Secret>,
    /// A keyring file or an exported one, for a backup without a keyring.
    pub file: Option<PathBuf>,
}

/// The result of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// The manifest of the backup.
    pub manifest: Manifest,
    /// The number of branches whose next round is a complete resync.
    pub resyncs: u64,
    /// The path of the restored database.
    pub database: PathBuf,
    /// The path of the restored keyring.
    pub keyring: PathBuf,
}

/// Fills the data directory of `settings` from the backup `from`.
///
/// # Errors
/// [`BackupError`]; then the data directory is as empty as before, or nothing starts on it.
pub async fn restore(
    settings: &Settings,
    from: &Path,
    keyring: &KeyringFrom,
    clock: &dyn Clock,
    random: &dyn Random,
    tell: Tell<'_>,
) -> Result<Restored, BackupError> {
    tell("checking the backup");
    let restoration = Restoration::check(settings, from, keyring, clock)?;
    for step in STEPS {
        tell(step.name());
        if let Err(error) = restoration.run(step, clock, random).await {
            restoration.take_back(step);
            return Err(error);
        }
    }
    let Restoration { manifest, database, .. } = restoration;
    // Each branch was marked for a resync when the copy was prepared.
    let resyncs = manifest.cursors;
    Ok(Restored { resyncs, manifest, keyring: settings.data_dir.join(KEYRING), database })
}

/// The steps of a restore, in their order. A kill between two steps, or within one, leaves a state that the
/// next try continues from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Creates the folder in which the files are prepared.
    Stage,
    /// Copies the database there, checks and prepares it.
    Copy,
    /// The word that the copy is whole.
    Mark,
    /// The keyring, where a start looks for it.
    Keyring,
    /// The database, where a start looks for it.
    Database,
    /// The word for a start that this directory has a database, and the copy, which is not needed any more.
    Sweep,
    /// Renames the folder, now empty, before it is removed.
    Unstage,
}

pub(super) const STEPS: [Step; 7] =
    [Step::Stage, Step::Copy, Step::Mark, Step::Keyring, Step::Database, Step::Sweep, Step::Unstage];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Stage | Self::Copy => "copying the database and making it ready",
            Self::Mark | Self::Keyring | Self::Database => "putting everything in its place",
            Self::Sweep | Self::Unstage => "cleaning up",
        }
    }
}

/// A restore that may begin: the backup is whole, the keyring opens it, and the data directory holds nothing
/// but leftovers of an earlier attempt with the same backup.
pub(super) struct Restoration {
    from: PathBuf,
    manifest: Manifest,
    keys: Keyring,
    data_dir: PathBuf,
    stage: PathBuf,
    database: PathBuf,
    /// An earlier try put the database in its place.
    is_placed: bool,
    _claim: Claim,
}

impl Restoration {
    pub(super) fn check(
        settings: &Settings,
        from: &Path,
        keyring: &KeyringFrom,
        clock: &dyn Clock,
    ) -> Result<Self, BackupError> {
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
        let data_dir = settings.data_dir.clone();
        let database = copy::file_of(&settings.database_url())?.ok_or(BackupError::OnServer)?;
        let stage = data_dir.join(STAGE);
        // Checked before anything is created.
        judge(&data_dir, &stage, &database, &manifest, &keys)?;
        make_private_directory(&data_dir)?;
        let claim = Claim::hold(settings)?;
        let is_placed = judge(&data_dir, &stage, &database, &manifest, &keys)?;
        let from = from.to_owned();
        Ok(Self { from, manifest, keys, data_dir, stage, database, is_placed, _claim: claim })
    }

    pub(super) async fn run(
        &self,
        step: Step,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<(), BackupError> {
        let staged = self.stage.join(DATABASE);
        match step {
            Step::Stage | Step::Copy | Step::Mark | Step::Keyring | Step::Database if self.is_placed => {
                Ok(())
            }
            Step::Stage => {
                make_private_directory(&self.stage)?;
                sync_folder(&self.data_dir)?;
                // First the word that the rest is whole.
                remove(&self.stage.join(MANIFEST))?;
                sync_folder(&self.stage)?;
                for entry in fs::read_dir(&self.stage).map_err(of_path(&self.stage))? {
                    remove(&entry.map_err(of_path(&self.stage))?.path())?;
                }
                remove(&near(&self.database))
            }
            Step::Copy => fill(&staged, &self.from, &self.manifest, &self.keys, clock, random).await,
            Step::Mark => {
                let text = serde_json::to_string(&self.manifest).expect("texts and numbers");
                new_file(&self.stage.join(MANIFEST), text.as_bytes())?;
                sync_folder(&self.stage)
            }
            Step::Keyring => {
                self.keys.ensure(&self.data_dir.join(KEYRING))?;
                sync_folder(&self.data_dir)
            }
            Step::Database => {
                place(&staged, &self.database).map_err(of_path(&self.database))?;
                sync_folder(folder_of(&self.database))
            }
            Step::Sweep => {
                served::mark(&self.data_dir).map_err(of_path(&self.data_dir.join(served::FILE)))?;
                sync_folder(&self.data_dir)?;
                // The copy is removed first: without the copy the database counts as the restored one.
                remove(&staged)?;
                sync_folder(&self.stage)?;
                remove(&near(&self.database))
            }
            Step::Unstage => {
                // Renamed first: a folder that was only partly emptied could not be recognised.
                let done = self.stage.with_file_name(UNSTAGED);
                fs::rename(&self.stage, &done).map_err(of_path(&self.stage))?;
                sync_folder(&self.data_dir)?;
                sweep(&self.data_dir).map_err(of_path(&done))
            }
        }
    }

    /// Removes what a failed restore created, as far as the system allows. What stays is a state that a kill
    /// could have left as well.
    fn take_back(&self, failed: Step) {
        if self.database.exists() || matches!(failed, Step::Sweep | Step::Unstage) {
            return;
        }
        // Without its database the keyring would block the next attempt, also a keyring of an earlier
        // attempt.
        let keyring = self.data_dir.join(KEYRING);
        let is_ours = Keyring::open(&keyring).is_ok_and(|there| there.is_like(&self.keys));
        let taken_back = if is_ours { remove(&keyring) } else { Ok(()) }
            .and_then(|()| remove(&self.data_dir.join(KEYRING_ASIDE)))
            .and_then(|()| remove(&near(&self.database)))
            .and_then(|()| fs::remove_dir_all(&self.stage).map_err(of_path(&self.stage)));
        if let Err(error) = taken_back {
            tracing::warn!(%error, "a failed restore left files behind; the same restore continues from \
                 them");
        }
    }
}

/// Creates the copy of the database, checked and prepared.
async fn fill(
    staged: &Path,
    from: &Path,
    manifest: &Manifest,
    keys: &Keyring,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), BackupError> {
    fs::copy(from.join(&manifest.database.name), staged).map_err(of_path(staged))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(staged, private).map_err(of_path(staged))?;
    // Checks the copy, not the source: the copy may be on a bad disk.
    check_digest(staged, &manifest.database)?;
    copy::look(staged, Some(keys)).await?;
    let resyncs = copy::make_ready(staged, keys, random, Timestamp(manifest.taken_at), clock.now()).await?;
    let after = copy::look(staged, Some(keys)).await?;
    if (resyncs, after.cursors) != (manifest.cursors, manifest.cursors) {
        return Err(BackupError::Damaged(format!(
            "the backup has {} branches, and its manifest names {}",
            after.cursors, manifest.cursors
        )));
    }
    fs::File::open(staged).and_then(|file| file.sync_all()).map_err(of_path(staged))
}

/// Gives the copy the name by which a start finds it: all of it at once, or nothing.
fn place(staged: &Path, database: &Path) -> io::Result<()> {
    match fs::hard_link(staged, database) {
        // Settings may keep the database on another disk.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let near = near(database);
            fs::copy(staged, &near)?;
            fs::File::open(&near)?.sync_all()?;
            fs::hard_link(&near, database)
        }
        linked => linked,
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn remove(file: &Path) -> Result<(), BackupError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(of_path(file)),
    }
}

/// Refuses a data directory that holds anything but leftovers of an earlier attempt. Returns whether that
/// attempt put the database in its place.
fn judge(
    data_dir: &Path,
    stage: &Path,
    database: &Path,
    manifest: &Manifest,
    keys: &Keyring,
) -> Result<bool, BackupError> {
    // SQLite would use an old log file for the new database, because of its name.
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        if Path::new(&file).exists() {
            return Err(BackupError::Exists(file.into()));
        }
    }
    let was_begun = stage.exists();
    let is_there = database.exists();
    if is_there && !(was_begun && is_placed(stage, database)) {
        return Err(BackupError::Exists(database.to_owned()));
    }
    if is_there && !is_of(stage, manifest) {
        return Err(BackupError::OtherBackup(data_dir.to_owned()));
    }
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(of_path(data_dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(of_path(data_dir))?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_nothing = NOTHING.iter().any(|nothing| name == *nothing)
            || is_same(&path, &lock_of(database))
            || (name == UNSTAGED && is_left_over(&path));
        let is_left = was_begun
            && (is_same(&path, database)
                || is_same(&path, &near(database))
                || name.to_str().is_some_and(|name| [KEYRING_ASIDE, served::FILE].contains(&name))
                || (name == KEYRING && Keyring::open(&path).is_ok_and(|there| there.is_like(keys))));
        if !is_nothing && !is_left {
            let (path, found) = (data_dir.to_owned(), name.to_string_lossy().into_owned());
            return Err(BackupError::Used { path, found });
        }
    }
    Ok(is_there)
}

/// Whether the earlier attempt was with the same backup.
fn is_of(stage: &Path, manifest: &Manifest) -> bool {
    let text = read_small(&stage.join(MANIFEST));
    text.is_ok_and(|text| serde_json::from_slice::<Manifest>(&text).is_ok_and(|found| found == *manifest))
}

fn manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join(MANIFEST);
    let damaged = |reason: String| BackupError::Damaged(format!("{} is no backup: {reason}", from.display()));
    let text = match read_small(&path) {
        Err(BackupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let what =
                if from.is_dir() { "the folder holds no manifest.json" } else { "there is no such folder" };
            return Err(damaged(format!("{what}; `tidings backup FOLDER` makes one")));
        }
        Err(BackupError::File { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(damaged("it is a file; give the folder that `tidings backup` made".into()));
        }
        text => text?,
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("its manifest cannot be read: {error}")))?;
    if manifest.format != FORMAT {
        return Err(damaged(format!("its form is {}, this version knows {FORMAT}", manifest.format)));
    }
    // A name with a path in it would read elsewhere.
    let names = std::iter::once(&manifest.database).chain(&manifest.keyring);
    if names.into_iter().any(|file| Path::new(&file.name).file_name() != Some(file.name.as_ref())) {
        return Err(damaged("its manifest names a file outside of the folder".into()));
    }
    Ok(manifest)
}

/// The keyring of a backup, or the keyring that was kept elsewhere.
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
