//! A verb on its way through the writer: it runs in a transaction, writes the audit entry of its request, and
//! answers when that is on disk.

use std::{panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use sea_orm::DatabaseTransaction;
use tidings_actors::ports::{AuditEntry, Fence, StoreError};
use tokio::sync::oneshot;

use super::unavailable;
use crate::{
    Context,
    audit::{self, Pending},
    keys::key_shares,
};

/// The channel for the outcome of a verb.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A verb that waits for its turn: it runs in a transaction and answers when that is on disk.
#[async_trait]
pub(super) trait Job: Send {
    /// Whether the database caused the failure, and not the request itself.
    fn was_failed(&self) -> bool;
    /// Runs the verb. Returns whether it succeeded.
    async fn run(&mut self, transaction: &DatabaseTransaction, context: &Context) -> bool;
    /// Answers its caller; `fault` overrides a success that was not committed.
    fn answer(self: Box<Self>, fault: Option<&StoreError>);
    /// The lease that the verb's work was begun under.
    fn fence(&self) -> Option<Fence>;
}

pub(super) struct Verb<T, F> {
    pub(super) work: Option<F>,
    pub(super) fence: Option<Fence>,
    /// The audit entry of the verb's request; written with the verb.
    pub(super) pending: Option<Arc<Pending>>,
    /// Whether an outcome is a change, whose audit entry is written with it.
    pub(super) is_change: fn(&T) -> bool,
    pub(super) written: Option<AuditEntry>,
    /// `None` until it ran.
    pub(super) outcome: Option<Result<T, StoreError>>,
    pub(super) answer: Answer<T>,
}

#[async_trait]
impl<T, F> Job for Verb<T, F>
where
    T: Send,
    F: for<'c> FnOnce(&'c DatabaseTransaction, &'c Context) -> BoxFuture<'c, Result<T, StoreError>> + Send,
{
    async fn run(&mut self, transaction: &DatabaseTransaction, context: &Context) -> bool {
        if let Some(work) = self.work.take() {
            let sealings = context.keyring.sealings();
            let work = async { work(transaction, context).await };
            let run = match self.pending.clone() {
                Some(pending) => AssertUnwindSafe(pending.during(work)).catch_unwind().await,
                None => AssertUnwindSafe(work).catch_unwind().await,
            };
            let mut outcome = run.unwrap_or_else(|_| Err(unavailable("a verb of the store panicked")));
            if outcome.is_ok()
                && context.keyring.sealings() != sealings
                && let Err(error) = key_shares::may_seal(transaction, &context.keyring).await
            {
                outcome = Err(error);
            }
            if outcome.as_ref().is_ok_and(self.is_change)
                && let Err(error) = self.write_audit(transaction, context).await
            {
                outcome = Err(error);
            }
            self.outcome = Some(outcome);
        }
        matches!(self.outcome, Some(Ok(_)))
    }

    fn was_failed(&self) -> bool {
        matches!(self.outcome, Some(Err(StoreError::Unavailable(_))))
    }

    fn answer(self: Box<Self>, fault: Option<&StoreError>) {
        let outcome = match (self.outcome, fault) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(fault)) => {
                if let (Some(pending), Some(entry)) = (self.pending, self.written) {
                    pending.put_back(entry);
                }
                Err(fault.clone())
            }
            (Some(Ok(done)), None) => Ok(done),
            (None, None) => Err(unavailable("the verb did not run")),
        };
        // The caller may have gone away; then the outcome is not needed.
        drop(self.answer.send(outcome));
    }

    fn fence(&self) -> Option<Fence> {
        self.fence
    }
}

impl<T, F> Verb<T, F> {
    /// Writes the audit entry, in the transaction of the act.
    async fn write_audit(
        &mut self,
        transaction: &DatabaseTransaction,
        context: &Context,
    ) -> Result<(), StoreError> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let Some(entry) = pending.take() else { return Ok(()) };
        // Stored first: if the verb is cancelled during the write, the entry can be put back.
        self.written = Some(entry.clone());
        let written = audit::append(transaction, context, entry, pending.kept).await;
        if written.is_err()
            && let Some(entry) = self.written.take()
        {
            pending.put_back(entry);
        }
        written
    }
}
