//! Replaced files that another process may still read: they are moved aside under a name with the moment, and
//! removed after a grace. If the directory of mirrors is not shared, they are removed at once.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tidings_actors::time::Timestamp;

use super::{DAMAGED, LEAVING, Mirror, free_name, remove};
use crate::mirror::turn::{GRACE, PROBE, Sharing};

impl Mirror {
    /// A name with the moment since when the file is aside, in unix milliseconds.
    pub(super) fn dated(&self, beginning: &str) -> String {
        let since = self.sharing.as_ref().map_or(0, |sharing| sharing.clock.now().0);
        format!("{beginning}{since}-")
    }

    /// Removes a file or folder that is not needed any more.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = remove(path);
        if self.sharing.is_none() {
            return removed;
        }
        or_later(path, removed);
        Ok(())
    }

    /// Whether a file with this moment in its name has been aside for long enough.
    pub(super) fn is_long_ago(&self, since: &str) -> bool {
        self.sharing.as_deref().is_none_or(|sharing| is_long_ago(since, sharing))
    }

    /// Moves files to a place where only readers that have them open find them.
    pub(super) fn let_leave(&self, files: impl Iterator<Item = PathBuf>) -> io::Result<()> {
        let aside = free_name(&self.directory.join(self.dated(LEAVING)));
        fs::DirBuilder::new().mode(0o700).create(&aside)?;
        for file in files {
            let Some(name) = file.file_name() else { continue };
            match fs::rename(&file, aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the grace since this moment has passed.
fn is_long_ago(since: &str, sharing: &Sharing) -> bool {
    let since = since.split('-').next().and_then(|since| since.parse().ok()).map(Timestamp);
    // A name without a moment counts as old.
    since.is_none_or(|since| sharing.clock.now().since(since) >= GRACE)
}

/// Removes the mirrors that are aside: leftovers of a crash, and in a shared directory those whose grace has
/// passed, and leftovers of attempts to lock.
pub(crate) fn sweep_damaged(mirrors: &Path, sharing: Option<&Sharing>) -> io::Result<()> {
    for entry in fs::read_dir(mirrors)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let since = name.split_once(DAMAGED).map(|(_, since)| since).or_else(|| name.strip_prefix(PROBE));
        let Some(since) = since else { continue };
        let path = entry.path();
        match sharing {
            None => remove(&path)?,
            Some(sharing) if is_long_ago(since, sharing) => or_later(&path, remove(&path)),
            Some(_) => {}
        }
    }
    Ok(())
}

/// If another process has a file of a shared directory open, some file systems refuse the removal: the file
/// is removed later.
fn or_later(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        let path = path.display();
        tracing::warn!(%path, %error, "{path} could not be removed yet");
    }
}
