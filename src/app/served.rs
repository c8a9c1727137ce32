//! Whether a server has used this data directory with a database. If so, a database that no server has used
//! is not the database of this directory: a start with it would know no token, app or watch. The first start
//! that opens a database leaves a file as the mark, and so does a restore.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::StartError;

/// The file in the data directory.
pub(crate) const FILE: &str = "served";
/// The content of the mark, for people.
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
    mark(data_dir).map_err(|reason| StartError::DataDirectory {
        path: data_dir.join(FILE).display().to_string(),
        reason,
    })
}

/// Marks the data directory as one whose database is known.
pub(crate) fn mark(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(FILE);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(TEXT.as_bytes())?;
    file.sync_all()
}
