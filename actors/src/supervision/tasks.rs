//! Tasks beside a mailbox, which report to their actor by message, and the deadline of every call of the
//! store.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use ractor::{Message, concurrency::spawn};
use tokio::task::AbortHandle;

use crate::{ports::StoreError, supervision::directory::Mailbox};

/// A call of the store that takes longer than this counts as failed: its outcome is unknown, and the caller
/// reads again.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Up to this many tasks are looked through at each start of another one.
const FEW: usize = 16;

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
///
/// Each idle watcher keeps its last task until the next one begins, so a task has a handle here and nothing
/// more; a set of tokio takes 110 bytes for the first one.
#[derive(Default)]
pub struct Tasks(Vec<AbortHandle>);

impl Tasks {
    /// Runs `work` and sends the message that `report` makes of its result, or of the text of a panic.
    pub fn spawn<M: Message, T>(
        &mut self,
        mailbox: &Mailbox<M>,
        work: impl Future<Output = T> + Send + 'static,
        report: impl FnOnce(Result<T, String>) -> M + Send + 'static,
    ) {
        self.let_go();
        let mailbox = mailbox.clone();
        // A finished task stays in the list until the next one begins. Its data is in a box, which is freed
        // at its end.
        let task = spawn(Box::pin(async move {
            let result = AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
                panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "a panic without a text".to_owned())
            });
            mailbox.send(report(result));
        }));
        self.0.push(task.abort_handle());
    }

    /// Lets finished tasks go. A long list is looked through only when it is full, and then gets room for as
    /// many again.
    fn let_go(&mut self) {
        let is_long = self.0.len() >= FEW;
        if is_long && self.0.len() < self.0.capacity() {
            return;
        }
        self.0.retain(|task| !task.is_finished());
        if is_long {
            self.0.reserve(self.0.len());
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// An actor that passes its messages on.
    struct Passing(mpsc::UnboundedSender<Result<u32, String>>);

    #[ractor::async_trait]
    impl Actor for Passing {
        type Msg = Result<u32, String>;
        type State = ();
        type Arguments = ();

        async fn pre_start(
            &self,
            _myself: ActorRef<Self::Msg>,
            _arguments: (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _myself: ActorRef<Self::Msg>,
            message: Self::Msg,
            _state: &mut (),
        ) -> Result<(), ActorProcessingErr> {
            self.0.send(message)?;
            Ok(())
        }
    }

    async fn panics() -> u32 {
        panic!("as told")
    }

    #[tokio::test]
    async fn finished_tasks_are_let_go_and_others_end_with_their_actor() {
        let (told, mut heard) = mpsc::unbounded_channel();
        let (actor, _join) = Actor::spawn(None, Passing(told), ()).await.expect("it starts");
        let (mailbox, mut tasks) = (Mailbox::new(actor.clone(), Arc::default()), Tasks::default());
        for number in 0..100 {
            tasks.spawn(&mailbox, async move { number }, |result| result);
            assert_eq!(heard.recv().await, Some(Ok(number)));
        }
        tasks.spawn(&mailbox, panics(), |result| result);
        assert_eq!(heard.recv().await, Some(Err("as told".to_owned())));
        assert!(tasks.0.len() <= FEW, "{} tasks are kept", tasks.0.len());

        // Many at once, which end together: a later start lets them go.
        for number in 0..100 {
            tasks.spawn(&mailbox, async move { number }, |result| result);
        }
        for _ in 0..100 {
            heard.recv().await.expect("it reports").expect("without a panic");
        }
        let room = tasks.0.capacity();
        for number in 0..u32::try_from(room).expect("few") {
            tasks.spawn(&mailbox, async move { number }, |result| result);
            heard.recv().await.expect("it reports").expect("without a panic");
        }
        assert!(tasks.0.capacity() == room, "{} from {room}", tasks.0.capacity());

        let (held, ended) = oneshot::channel::<()>();
        let waits = async move {
            let _held = held;
            pending().await
        };
        tasks.spawn(&mailbox, waits, |result| result);
        drop(tasks);
        ended.await.expect_err("the task ended with its actor");
        actor.stop(None);
    }
}
