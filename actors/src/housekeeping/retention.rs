//! On one of all replicas, removes history, settled ranges and unused blob rows past their age, and the oldest history of an
//! app that has more rows of it than it may, a bounded number of rows at a time so that deliveries never wait for it. Never what an open round or letter names: the store
//! sees to that.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    context::{Context, Tasks, in_time},
    directory::Post,
    ports::StoreError,
};

/// The wait before the first.
const FIRST: Duration = Duration::from_secs(60);
/// The wait while there is more to remove.
const MORE: Duration = Duration::from_millis(500);

/// What it is told.
#[derive(Debug)]
pub enum RetentionMessage {
    /// Remove what is due.
    Due,
    /// So many rows went.
    Removed(Result<Result<u64, StoreError>, String>),
}

/// The state.
pub struct RetentionState {
    context: Context,
    post: Post<RetentionMessage>,
    tasks: Tasks,
}

/// The actor.
pub struct Retention;

#[ractor::async_trait]
impl Actor for Retention {
    type Msg = RetentionMessage;
    type State = RetentionState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let post = Post::new(myself, arguments.gauge);
        post.send_after(FIRST, || RetentionMessage::Due);
        Ok(RetentionState { context: arguments.context, post, tasks: Tasks::default() })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let gauge = state.post.gauge().clone();
        let _busy = gauge.begin();
        match message {
            RetentionMessage::Due => state.on_due(),
            RetentionMessage::Removed(result) => state.on_removed(result?),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl RetentionState {
    fn on_due(&mut self) {
        if !self.context.shards.leads() {
            self.post.send_after(self.context.policy.upkeep_interval.min(FIRST), || RetentionMessage::Due);
            return;
        }
        let (store, now, policy) =
            (self.context.store.clone(), self.context.now(), self.context.policy.clone());
        let work = async move {
            let limit = policy.upkeep_rows;
            let old = in_time(store.prune(now, policy.history, policy.blob_age, limit)).await?;
            Ok(old.max(in_time(store.shorten_history(policy.history_rows, limit)).await?))
        };
        self.tasks.spawn(&self.post, work, RetentionMessage::Removed);
    }

    fn on_removed(&mut self, result: Result<u64, StoreError>) {
        let wait = match result {
            Ok(rows) if rows >= self.context.policy.upkeep_rows => MORE,
            Ok(rows) => {
                if rows > 0 {
                    info!(rows, "{rows} old rows were removed");
                }
                self.context.policy.upkeep_interval
            }
            Err(reason) => {
                warn!("old rows could not be removed: {reason}");
                self.context.policy.upkeep_interval
            }
        };
        self.post.send_after(wait, || RetentionMessage::Due);
    }
}
