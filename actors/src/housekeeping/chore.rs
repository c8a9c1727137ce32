//! The actor for upkeep that only runs, waits and runs again. The mailbox is bounded by one timer and one
//! task. A panic of the chore restarts the actor; a crash loses one run.

use std::{marker::PhantomData, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::UpkeepArguments;
use crate::{
    context::Context,
    supervision::{directory::Mailbox, tasks::Tasks},
};

/// A piece of upkeep on a timer.
pub trait Chore: Send + Sync + 'static {
    /// The wait before the first run.
    const FIRST: Duration;

    /// Runs once, as a task beside the mailbox. Returns the wait before the next run. The chore logs a
    /// failure and tries again in the next run.
    fn run(context: &Context) -> impl Future<Output = Duration> + Send;
}

/// Messages to the actor of a chore.
#[derive(Debug)]
pub enum ChoreMessage {
    /// The wait is over: the chore runs now.
    Due,
    /// A run ended: the wait before the next one, or the text of a panic.
    Ran(Result<Duration, String>),
}

/// The context of the chore, and its one timer and task.
pub struct ChoreState {
    context: Context,
    mailbox: Mailbox<ChoreMessage>,
    tasks: Tasks,
}

/// The actor that runs a chore.
pub struct ChoreActor<C>(PhantomData<C>);

impl<C> ChoreActor<C> {
    /// The actor of this kind of chore.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C> Default for ChoreActor<C> {
    fn default() -> Self {
        Self::new()
    }
}

#[ractor::async_trait]
impl<C: Chore> Actor for ChoreActor<C> {
    type Msg = ChoreMessage;
    type State = ChoreState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mailbox = Mailbox::new(myself, arguments.gauge);
        mailbox.send_after(C::FIRST, || ChoreMessage::Due);
        Ok(ChoreState { context: arguments.context, mailbox, tasks: Tasks::default() })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            ChoreMessage::Due => {
                let context = state.context.clone();
                state.tasks.spawn(&state.mailbox, async move { C::run(&context).await }, ChoreMessage::Ran);
            }
            ChoreMessage::Ran(wait) => state.mailbox.send_after(wait?, || ChoreMessage::Due),
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
