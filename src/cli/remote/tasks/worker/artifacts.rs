//! The files that a program leaves in the folder of `TIDINGS_TASK_ARTIFACTS`: they become artifacts of its
//! task before the task is completed.

use std::{fs, io, path::Path, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{ClaimedTask, PAUSE};
use crate::cli::{
    Code, Failure,
    client::Client,
    task::artifact::{Artifact, send_claimed},
};

/// The variable that names the folder.
pub(super) const VARIABLE: &str = "TIDINGS_TASK_ARTIFACTS";
/// The media type of artifacts of a program, which names none.
const ANY_BYTES: &str = "application/octet-stream";

/// An empty folder for one run of a program; it is removed with this value.
pub(super) fn folder() -> Result<TempDir, Failure> {
    tempfile::Builder::new().prefix("tidings-task-").tempdir().map_err(|error| {
        Failure::new(Code::CannotCreate, format!("a folder for artifacts cannot be made: {error}"))
    })
}

/// Sends each file of a folder, by name. A server that does not answer is tried again for `patience`.
///
/// # Errors
/// Why a file was not stored: the others may be.
pub(super) async fn send_all(
    client: &Client,
    task: &ClaimedTask,
    folder: &Path,
    patience: Duration,
) -> Result<(), Failure> {
    let names = names(folder).map_err(|error| {
        Failure::new(Code::NoInput, format!("the folder of artifacts cannot be read: {error}"))
    })?;
    for name in names {
        let until = Instant::now() + patience;
        let artifact = Artifact { task: &task.id, name: &name, content_type: ANY_BYTES };
        let path = folder.join(&name);
        loop {
            match send_claimed(client, &artifact, &task.token, &path).await {
                Ok(_) => break,
                Err(failure) if failure.code == Code::Unavailable && Instant::now() < until => {
                    sleep(PAUSE).await;
                }
                Err(failure) => {
                    return Err(Failure::new(failure.code, format!("artifact {name}: {}", failure.message)));
                }
            }
        }
    }
    Ok(())
}

/// The names of the files in a folder, in order. Folders in it are left out.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().into_string();
            names.push(name.map_err(|name| io::Error::other(format!("{} is no text", name.display())))?);
        }
    }
    names.sort();
    Ok(names)
}
