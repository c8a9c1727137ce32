//! A verb on its way through the writer: it runs in a transaction, takes the audit entry of its request
//! along, and answers when that is on disk.

use std::{panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use sea_orm::DatabaseTransaction;
use tidings_actors::ports::{Deed, Fence, StoreError};
use tokio::sync::oneshot;

use super::unavailable;
use crate::{
    Context,
    audit::{self, Pending},
    keys::key_shares,
};

/// Where the outcome of a verb goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A verb on its way: it runs in a transaction and answers when that is on disk.
#[async_trait]
pub(super) trait Job: Send {
    /// Whether the database failed it, and not what was asked.
    fn was_failed(&self) -> bool;
    /// Runs; whether it succeeded.
    async fn run(&mut self, transaction: &DatabaseTransaction, context: &Context) -> bool;
    /// Answers its caller; `fault` overrides a success that was not committed.
    fn answer(self: Box<Self>, fault: Option<&StoreError>);
    /// Under which lease it was begun.
    fn fence(&self) -> Option<Fence>;
}

pub(super) struct Verb<T, F> {
    pub(super) work: Option<F>,
    pub(super) fence: Option<Fence>,
    /// What the request did that this verb is a part of; written with it.
    pub(super) pending: Option<Arc<Pending>>,
    pub(super) written: Option<Deed>,
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
            if outcome.is_ok()
                && let Err(error) = self.witness(transaction, context).await
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
                if let (Some(pending), Some(deed)) = (self.pending, self.written) {
                    pending.put_back(deed);
                }
                Err(fault.clone())
            }
            (Some(Ok(done)), None) => Ok(done),
            (None, None) => Err(unavailable("the verb did not run")),
        };
        // A caller that went away does not want to know.
        drop(self.answer.send(outcome));
    }

    fn fence(&self) -> Option<Fence> {
        self.fence
    }
}

impl<T, F> Verb<T, F> {
    /// Writes what was done into the log, in the transaction in which it is done.
    async fn witness(
        &mut self,
        transaction: &DatabaseTransaction,
        context: &Context,
    ) -> Result<(), StoreError> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let Some(deed) = pending.take() else { return Ok(()) };
        // Noted first: whoever ends this while it waits finds what to put back.
        self.written = Some(deed.clone());
        let written = audit::append(transaction, context, deed, pending.kept).await;
        if written.is_err()
            && let Some(deed) = self.written.take()
        {
            pending.put_back(deed);
        }
        written
    }
}
