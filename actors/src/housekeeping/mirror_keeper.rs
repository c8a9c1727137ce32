//! Keeps mirrors small: removes those that nobody watches any more and rebuilds those that have
//! grown, from the commits that the store names as needed ([`crate::ports::Store::pins`]). One
//! mirror at a time, so that upkeep never takes more than one thread.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::id::RepositoryId;
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    context::{Context, Tasks, in_time},
    directory::Post,
    ports::{GitError, StoreError},
};

/// The wait before the first.
const FIRST: Duration = Duration::from_secs(60);
/// Why upkeep stopped in the middle; it begins again after its interval.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Git did not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What it is told.
#[derive(Debug)]
pub enum MirrorKeeperMessage {
    /// Look at all mirrors.
    Due,
    /// All mirrors were looked at; so many were removed or rebuilt.
    Kept(Result<Result<u64, KeepError>, String>),
}

/// The state.
pub struct MirrorKeeperState {
    context: Context,
    post: Post<MirrorKeeperMessage>,
    tasks: Tasks,
}

/// The actor.
pub struct MirrorKeeper;

#[ractor::async_trait]
impl Actor for MirrorKeeper {
    type Msg = MirrorKeeperMessage;
    type State = MirrorKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let post = Post::new(myself, arguments.gauge);
        post.send_after(FIRST, || MirrorKeeperMessage::Due);
        Ok(MirrorKeeperState { context: arguments.context, post, tasks: Tasks::default() })
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
            MirrorKeeperMessage::Due => state.on_due(),
            MirrorKeeperMessage::Kept(result) => state.on_kept(result?),
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

impl MirrorKeeperState {
    fn on_due(&mut self) {
        self.tasks.spawn(&self.post, keep(self.context.clone()), MirrorKeeperMessage::Kept);
    }

    fn on_kept(&mut self, result: Result<u64, KeepError>) {
        match result {
            Ok(0) => {}
            Ok(count) => info!(count, "{count} mirrors were removed or rebuilt"),
            Err(reason) => warn!("mirrors could not be kept: {reason}"),
        }
        self.post.send_after(self.context.policy.upkeep_interval, || MirrorKeeperMessage::Due);
    }
}

/// Looks at all mirrors; one that cannot be kept does not hold up the others.
async fn keep(context: Context) -> Result<u64, KeepError> {
    let mut count = 0;
    for repository in context.git.mirrors().await? {
        match keep_one(&context, &repository).await {
            Ok(changed) => count += u64::from(changed),
            Err(reason) => {
                warn!(repository.id = %repository, "the mirror of {repository} could not be kept: {reason}");
            }
        }
    }
    Ok(count)
}

async fn keep_one(context: &Context, repository: &RepositoryId) -> Result<bool, KeepError> {
    if in_time(context.store.sources(repository)).await?.is_empty() {
        context.git.remove_mirror(repository).await?;
        return Ok(true);
    }
    let pins = in_time(context.store.pins(repository)).await?;
    Ok(context.git.compact(repository, &pins).await?)
}
