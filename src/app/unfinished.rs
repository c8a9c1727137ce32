//! How far a restore came that was cut off. Nothing starts on such a data directory.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::KEYRING;
use crate::{settings::Settings, store::copy};

/// The folder in the data directory where a restore makes things ready; there as long as it lasts.
pub(crate) const STAGE: &str = ".restore";
/// The manifest of a backup, in its folder and in that of a restore; there when the copy of the database is
/// whole.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The copy of the database beside it.
pub(crate) const DATABASE: &str = "database.sqlite";
/// What the folder of a restore is called while it is removed: then everything is in its place.
pub(crate) const UNSTAGED: &str = ".restored";

/// A restore that did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    data_dir: PathBuf,
    /// How far it came.
    pub state: State,
}

/// How far a restore came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The database was being copied.
    Copying,
    /// The copy is whole, and was being put in its place.
    Placing,
    /// Everything is in its place but for cleaning up.
    Placed,
}

impl Unfinished {
    /// What lies in the data directory of these settings, and where they keep the database.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let data_dir = settings.data_dir.clone();
        let stage = data_dir.join(STAGE);
        if !stage.exists() {
            return None;
        }
        let database = copy::file_of(&settings.database_url()).ok().flatten();
        let state = if !stage.join(MANIFEST).exists() {
            State::Copying
        } else if database.is_some_and(|database| database.exists() && is_placed(&stage, &database)) {
            State::Placed
        } else {
            State::Placing
        };
        Some(Self { data_dir, state })
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { data_dir, state } = self;
        let (stage, keyring) = (data_dir.join(STAGE), data_dir.join(KEYRING));
        match state {
            State::Copying | State::Placing => format!(
                "run the same `tidings restore` again: it begins anew by itself; or give it up and remove {} \
                 and, where this directory was empty before, {}",
                stage.display(),
                keyring.display()
            ),
            State::Placed => "run the same `tidings restore` again: it only cleans up".to_owned(),
        }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.state {
            State::Copying => "a restore was cut off while it copied the database: nothing can be used yet",
            State::Placing => "a restore was cut off while it put its files in place: some may be missing",
            State::Placed => "a restore was cut off when everything was in place, before it had cleaned up",
        })
    }
}

/// Whether a database that is there was put in its place by the restore of this folder: it is the copy,
/// or its copy on another disk, or the copy has gone, which happens only after that.
pub(crate) fn is_placed(stage: &Path, database: &Path) -> bool {
    let staged = stage.join(DATABASE);
    if staged.exists() {
        is_same(database, &staged) || is_same(database, &near(database))
    } else {
        stage.join(MANIFEST).exists()
    }
}

/// Where a copy from another disk is made beside the database.
pub(crate) fn near(database: &Path) -> PathBuf {
    database.with_extension("restoring")
}

/// Whether two names are there and mean the same file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// Whether a folder is what a restore leaves that was cut off at its very end: it holds at most the word that
/// everything was whole, and what SQLite left beside the copy.
pub(crate) fn is_left_over(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| {
            let name = entry.map(|entry| entry.file_name());
            name.is_ok_and(|name| {
                name.to_str().is_some_and(|name| name == MANIFEST || name.starts_with(DATABASE))
            })
        })
    })
}

/// Removes that; a folder of that name that holds anything else is somebody's own, and stays.
pub(crate) fn sweep(data_dir: &Path) -> io::Result<()> {
    let done = data_dir.join(UNSTAGED);
    if is_left_over(&done) { fs::remove_dir_all(&done) } else { Ok(()) }
}
