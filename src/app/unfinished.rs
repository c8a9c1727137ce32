//! The state of a restore that was cut off. Nothing starts on such a data directory.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::KEYRING;
use crate::{settings::Settings, store::copy};

/// The folder in the data directory in which a restore prepares its files; it exists as long as the restore
/// runs.
pub(crate) const STAGE: &str = ".restore";
/// The manifest of a backup, in its folder and in that of a restore; there when the copy of the database is
/// whole.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The copy of the database in that folder.
pub(crate) const DATABASE: &str = "database.sqlite";
/// The name of that folder while it is removed: then all files are in their place.
pub(crate) const UNSTAGED: &str = ".restored";

/// A restore that did not end, with the data directory that it left unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    data_dir: PathBuf,
    /// The step that the restore had reached.
    pub state: State,
}

/// The step that a restore had reached when it was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The database was being copied.
    Copying,
    /// The copy is whole, and was being put in its place.
    Placing,
    /// The restored files are in place; leftovers of the restore are still to be removed.
    Placed,
}

impl Unfinished {
    /// The restore that was cut off in the data directory of these settings, if there is one.
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

    /// The advice to an operator: which command finishes or undoes the restore.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { data_dir, state } = self;
        let (stage, keyring) = (data_dir.join(STAGE), data_dir.join(KEYRING));
        match state {
            State::Copying | State::Placing => format!(
                "run the same `tidings restore` again, which starts from the beginning; or cancel the \
                 restore and remove {} \
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

/// Whether an existing database was put in its place by the restore of this folder: it is the copy, or its
/// copy on another disk, or the copy is gone, which happens only after that.
pub(crate) fn is_placed(stage: &Path, database: &Path) -> bool {
    let staged = stage.join(DATABASE);
    if staged.exists() {
        is_same(database, &staged) || is_same(database, &near(database))
    } else {
        stage.join(MANIFEST).exists()
    }
}

/// The path of a copy from another disk, beside the database.
pub(crate) fn near(database: &Path) -> PathBuf {
    database.with_extension("restoring")
}

/// Whether two names are there and mean the same file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// Whether a folder is left from a restore that was cut off at its very end: it holds at most the mark that
/// everything was complete, and the files of SQLite for the copy.
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

/// Removes the leftovers of a restore that ended. A folder of that name with other content belongs to a
/// person, and stays.
pub(crate) fn sweep(data_dir: &Path) -> io::Result<()> {
    let done = data_dir.join(UNSTAGED);
    if is_left_over(&done) { fs::remove_dir_all(&done) } else { Ok(()) }
}
