//! What was replaced and may still be read by another process: it lies aside under a name that says since
//! when, and goes after a grace. Where nobody shares the directory of mirrors it goes at once.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tidings_actors::time::Timestamp;

use super::{DAMAGED, LEAVING, Mirror, free_name, remove};
use crate::mirror::turn::{GRACE, PROBE, Sharing};

impl Mirror {
    /// The beginning of a name that says since when what it names is aside, in unix milliseconds.
    pub(super) fn dated(&self, beginning: &str) -> String {
        let since = self.sharing.as_ref().map_or(0, |sharing| sharing.clock.now().0);
        format!("{beginning}{since}-")
    }

    /// Removes what nobody needs.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = remove(path);
        if self.sharing.is_none() {
            return removed;
        }
        or_later(path, removed);
        Ok(())
    }

    /// Whether what is named so has been aside for long enough.
    pub(super) fn is_long_ago(&self, since: &str) -> bool {
        self.sharing.as_deref().is_none_or(|sharing| is_long_ago(since, sharing))
    }

    /// Moves files to where nobody finds them who has not opened them yet.
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

/// Whether something named by its moment has been aside for longer than others may still read it.
fn is_long_ago(since: &str, sharing: &Sharing) -> bool {
    let since = since.split('-').next().and_then(|since| since.parse().ok()).map(Timestamp);
    // A name that says nothing is as old as one of another clock.
    since.is_none_or(|since| sharing.clock.now().since(since) >= GRACE)
}

/// Removes the mirrors that are aside: those that a crash left behind, and where they are shared those that
/// nobody reads any more, and what was left of tries to lock.
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

/// Where a directory is shared, another process may keep what lies in it open, and then some file systems do
/// not let it go: it does at another time.
fn or_later(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        let path = path.display();
        tracing::warn!(%path, %error, "{path} could not be removed yet");
    }
}
