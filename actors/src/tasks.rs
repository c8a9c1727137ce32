//! Tasks beside a mailbox, which report to their actor by message, and the deadline of every call of the
//! store.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use ractor::Message;
use tokio::task::JoinSet;

use crate::{ports::StoreError, supervision::directory::Mailbox};

/// A call of the store that takes longer than this counts as failed: its outcome is unknown, and the caller
/// reads again.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Limits the duration of a call of the store, so that a database that hangs never leaves a lane waiting for
/// ever.
///
/// # Errors
/// The error of the call, or [`StoreError::Unavailable`] when it takes too long.
pub async fn in_time<T>(verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {STORE_DEADLINE:?}"));
    tokio::time::timeout(STORE_DEADLINE, verb).await.map_err(late)?
}

/// Tasks of one actor: they end with it, each reports by one message, and a panic in one is
/// reported as well instead of leaving its actor waiting for ever.
#[derive(Default)]
pub struct Tasks(JoinSet<()>);

impl Tasks {
    /// Runs `work` and sends the message that `report` makes of its result, or of the text of a panic.
    pub fn spawn<M: Message, T>(
        &mut self,
        mailbox: &Mailbox<M>,
        work: impl Future<Output = T> + Send + 'static,
        report: impl FnOnce(Result<T, String>) -> M + Send + 'static,
    ) {
        while self.0.try_join_next().is_some() {}
        let mailbox = mailbox.clone();
        // A finished task stays in the set until the next one begins. Its data is in a box, which is freed at
        // its end.
        self.0.spawn(Box::pin(async move {
            let result = AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
                panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "a panic without a text".to_owned())
            });
            mailbox.send(report(result));
        }));
    }
}
