//! Statuses of commits, for the status keeper.

use async_trait::async_trait;
use tidings_actors::{
    ports::{Reach, StatusClaims, StatusKey, StatusRoom, StatusStore, StatusVerdict, StoreError},
    time::Timestamp,
};
use tokio::sync::watch;

use super::transact;
use crate::{SqlStore, watching::statuses};

#[async_trait]
impl StatusStore for SqlStore {
    fn statuses_written(&self) -> watch::Receiver<u64> {
        self.context.statuses.listen()
    }

    async fn claim_statuses(
        &self,
        reach: &Reach,
        room: &StatusRoom,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<StatusClaims, StoreError> {
        // Where nothing is due nothing is written.
        let due = statuses::due(&self.readers, reach, room, now).await?;
        let next = statuses::next(&self.readers, reach, now).await?;
        if due.is_empty() {
            return Ok(StatusClaims { tasks: Vec::new(), next });
        }
        let tasks = transact!(self, |transaction, context| {
            statuses::claim(transaction, context, due, now, until).await
        })?;
        Ok(StatusClaims { tasks, next })
    }

    async fn release_statuses(&self, now: Timestamp) -> Result<(), StoreError> {
        transact!(self, |transaction| statuses::release(transaction, now).await)
    }

    async fn note_status(
        &self,
        key: &StatusKey,
        verdict: &StatusVerdict,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let (key, verdict) = (key.clone(), verdict.clone());
        transact!(self, |transaction, context| statuses::note(transaction, context, &key, verdict, at).await)
    }

    async fn sweep_statuses(&self, at: Timestamp) -> Result<bool, StoreError> {
        transact!(self, |transaction, context| statuses::sweep(transaction, context, at).await)
    }
}
