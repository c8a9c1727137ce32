//! Whether a server has used this data directory with a database. If so, a database that no server has used
//! is not the database of this directory: a start with it would know no token, app or watch. The first start
//! that opens a database leaves a file as the mark.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use super::StartError;

/// The file in the data directory.
const FILE: &str = "served";
/// What it says, for people.
const TEXT: &str = "A server used this directory with a database. A start refuses a database that no server \
    has used, unless it is told `tidings serve --new-database`.\n";

/// Whether a server used the data directory before.
pub(crate) fn was_here(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// Marks the data directory as used, if it is not yet.
pub(super) fn note(data_dir: &Path) -> Result<(), StartError> {
    if was_here(data_dir) {
        return Ok(());
    }
    let path = data_dir.join(FILE);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(TEXT.as_bytes()))
        .map_err(|reason| StartError::DataDirectory { path: path.display().to_string(), reason })
}
