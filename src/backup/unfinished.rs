//! How far a restore came that was cut off. Nothing starts on such a data directory.

use std::{
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{DATABASE, MANIFEST};
use crate::app::{KEYRING, STAGE};

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
    /// What lies in a data directory.
    #[must_use]
    pub fn in_directory(data_dir: &Path) -> Option<Self> {
        let stage = data_dir.join(STAGE);
        if !stage.exists() {
            return None;
        }
        let copy = std::fs::metadata(stage.join(DATABASE)).map(|facts| facts.nlink());
        let state = match copy {
            _ if !stage.join(MANIFEST).exists() => State::Copying,
            Ok(1) => State::Placing,
            _ => State::Placed,
        };
        Some(Self { data_dir: data_dir.to_owned(), state })
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
