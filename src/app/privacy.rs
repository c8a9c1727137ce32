//! Files in the data directory are readable only by the user of this process.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rustix::{fs::Mode, process::umask};
use tracing::warn;

use crate::{settings::Settings, store::copy};

/// The mode bits of the group and of others.
const OTHERS: u32 = 0o077;

/// Makes all files that this process creates readable only by its user, regardless of the mode that a library
/// asks for.
pub(super) fn keep_others_out() {
    umask(Mode::from_raw_mode(OTHERS));
}

/// Warns of older files that the group or others may read.
pub(super) fn tell(settings: &Settings) {
    warn_of(&settings.data_dir, "700");
    if let Ok(Some(file)) = copy::file_of(&settings.database_url()) {
        warn_of(&file, "600");
    }
}

fn warn_of(path: &Path, right: &str) {
    let Some(mode) = mode_for_others(path) else { return };
    let path = path.display();
    warn!(
        "{path} has mode {mode:o}: others on this machine may look into it or change it; chmod {right} {path}"
    );
}

/// The mode of a file that the group or others have rights to.
pub(crate) fn mode_for_others(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & OTHERS != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_to_others_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidings.db");
        fs::write(&file, "rows").expect("written");
        for (mode, found) in [(0o600, None), (0o640, Some(0o640)), (0o644, Some(0o644)), (0o606, Some(0o606))]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(mode_for_others(&file), found, "{mode:o}");
        }
        assert_eq!(mode_for_others(&folder.path().join("nothing")), None);
    }
}
