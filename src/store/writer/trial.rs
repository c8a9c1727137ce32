//! Whether the database accepts writes. After a failed write a trial follows, at once and then every
//! [`TRIAL`], until one succeeds. Health checks report the last trial: they need no write of their own, and a
//! verb that failed for its own reason does not count.
//!
//! A trial changes one row. On a full disk SQLite still does that, in pages that its files already have, and
//! refuses everything larger. So a trial on a SQLite file also writes [`ROOM`] bytes beside the file.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use tidings_actors::ports::StoreError;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info};

use super::{Share, TURN, Task, Turn, Work, unavailable, unpanicked};
use crate::{
    database::{error::OfTable, rows},
    leases::fences,
};

/// The wait between two trials of a database that takes no writes.
const TRIAL: Duration = Duration::from_secs(2);
/// The longest wait for the answer of a trial; then it has failed.
const TRIAL_MAX: Duration = Duration::from_secs(5);
/// The bytes that a trial writes beside a SQLite file, and removes again.
const ROOM: usize = 1 << 20;
/// The end of the name of the file with these bytes; the rest is the name of the SQLite file.
const ROOM_SUFFIX: &str = "-trial";

impl Task {
    /// Waits for work. Meanwhile it tries whether a database that refused writes accepts them again.
    pub(super) async fn receive(&mut self, batch: &mut Vec<Work>) -> usize {
        if !self.held_back.is_empty() {
            batch.append(&mut self.held_back);
            return batch.len();
        }
        loop {
            let Some(trial_at) = self.next_trial else { return self.work.recv_many(batch, TURN).await };
            // A due trial comes first: continuous work must not delay it.
            if Instant::now() < trial_at
                && let Ok(count) = timeout_at(trial_at, self.work.recv_many(batch, TURN)).await
            {
                return count;
            }
            let outcome = self.trial().await;
            let is_refused = outcome.is_err();
            self.next_trial = is_refused.then(|| Instant::now() + TRIAL);
            if !is_refused && !self.is_in_doubt {
                self.end_doubt();
            }
            match outcome {
                _ if self.is_refused.swap(is_refused, Relaxed) == is_refused => {}
                Ok(()) => info!("the database takes writes again"),
                Err(reason) => error!(%reason, "the database takes no writes: this server is not ready"),
            }
            if !self.held_back.is_empty() {
                batch.append(&mut self.held_back);
                return batch.len();
            }
        }
    }

    /// Writes a row as it is and waits until that is on disk, and looks whether there is room for more.
    async fn trial(&mut self) -> Result<(), StoreError> {
        let file = self.address.file().map(Path::to_owned);
        let tried = async {
            self.rewrite().await?;
            match file {
                Some(file) => has_room(file).await,
                None => Ok(()),
            }
        };
        let outcome = timeout(TRIAL_MAX, unpanicked(tried)).await;
        match outcome.unwrap_or_else(|_| Err(unavailable("the database does not answer"))) {
            Ok(()) => {
                self.is_in_doubt = false;
                Ok(())
            }
            Err(error @ StoreError::Unavailable(_)) => {
                self.disconnect().await;
                self.is_in_doubt = true;
                Err(error)
            }
            // The database answers. If another process took it over, writers are told so.
            Err(_) => Ok(()),
        }
    }

    async fn rewrite(&mut self) -> Result<(), StoreError> {
        let transaction = self.begin(Share::Alone, &mut Turn::default()).await?;
        let text = "update lease set taken_at = taken_at where shard = $1";
        rows::execute(&transaction, "lease", text, vec![fences::ALL.into()]).await?;
        transaction.commit().await.of("commit")
    }
}

/// Whether the disk of this SQLite file takes [`ROOM`] bytes more.
async fn has_room(file: PathBuf) -> Result<(), StoreError> {
    let mut beside = file.into_os_string();
    beside.push(ROOM_SUFFIX);
    let beside = PathBuf::from(beside);
    let tried = tokio::task::spawn_blocking(move || {
        let written = fill(&beside);
        // A failed write is removed too: what it left takes room.
        let removed = fs::remove_file(&beside);
        written.and(removed).map_err(|error| format!("{}: {error}", beside.display()))
    });
    let tried = tried.await.unwrap_or_else(|error| Err(error.to_string()));
    tried.map_err(StoreError::Unavailable)
}

fn fill(path: &Path) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(&vec![0; ROOM])?;
    file.sync_all()
}
