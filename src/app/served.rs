//! Whether a data directory was used with a database: then a database that no server has used is not the
//! one that belongs to it, and taking it would begin a new house beside the keyring and the mirrors of the
//! old one, in which no token is known. A file says so, which the first start that opens a database leaves.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use super::StartError;

/// The file in the data directory.
const FILE: &str = "served";
/// What it says, for people.
const TEXT: &str = "A server used this directory with a database. A start refuses a database that no server has \
                    used, unless it is told `tidings serve --new-database`.\n";

/// Whether a server used the data directory before.
pub(crate) fn was_here(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// Notes that one does.
pub(super) fn note(data_dir: &Path) -> Result<(), StartError> {
    if was_here(data_dir) {
        return Ok(());
    }
    let path = data_dir.join(FILE);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(TEXT.as_bytes()))
        .map_err(|source| StartError::DataDirectory { path: path.display().to_string(), source })
}
