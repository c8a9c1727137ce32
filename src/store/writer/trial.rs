//! Whether the database accepts writes. After a failed write a trial follows, at once and then every
//! [`TRIAL`], until one succeeds. Health checks report the last trial: they need no write of their own, and a
//! verb that failed for its own reason does not count.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tidings_actors::ports::StoreError;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info};

use super::{Share, TURN, Task, Turn, Work, unavailable, unpanicked};
use crate::{error::OfTable, leases::fences, rows};

/// The wait between two trials of a database that takes no writes.
const TRIAL: Duration = Duration::from_secs(2);
/// The longest wait for the answer of a trial; then it has failed.
const TRIAL_MAX: Duration = Duration::from_secs(5);

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
            match outcome {
                _ if self.is_refused.swap(is_refused, Relaxed) == is_refused => {}
                Ok(()) => info!("the database takes writes again"),
                Err(reason) => error!(%reason, "the database takes no writes: this server is not ready"),
            }
        }
    }

    /// Writes a row as it is, and waits until that is on disk.
    async fn trial(&mut self) -> Result<(), StoreError> {
        let outcome = timeout(TRIAL_MAX, unpanicked(self.rewrite())).await;
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
