//! Looks at how everything is and hands the numbers to the meter: totals, lag and letters from rows,
//! what mirrors take, lines at Git hosts, the tree itself. Whoever scrapes reads the last look, so
//! that a scrape costs no query, and many scrapers no more than one. Supervised by `housekeeping`,
//! restarted after a failure; its mailbox is bounded by its one timer and its one task. A crash
//! loses one look. A look that failed leaves the numbers of the last one; how old they are is one
//! of the numbers.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::warn;

use super::UpkeepArguments;
use crate::{
    context::{Context, Tasks, in_time},
    directory::Post,
    ports::Survey,
};

/// What it is told.
#[derive(Debug)]
pub enum SurveyorMessage {
    /// Look around.
    Due,
    /// What was found, or why nothing was.
    Surveyed(Result<Result<Box<Survey>, String>, String>),
}

/// The state.
pub struct SurveyorState {
    context: Context,
    post: Post<SurveyorMessage>,
    tasks: Tasks,
}

/// The actor.
pub struct Surveyor;

#[ractor::async_trait]
impl Actor for Surveyor {
    type Msg = SurveyorMessage;
    type State = SurveyorState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let post = Post::new(myself, arguments.gauge);
        post.send(SurveyorMessage::Due);
        Ok(SurveyorState { context: arguments.context, post, tasks: Tasks::default() })
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
            SurveyorMessage::Due => state.on_due(),
            SurveyorMessage::Surveyed(result) => state.on_surveyed(result?),
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

impl SurveyorState {
    fn on_due(&mut self) {
        let context = self.context.clone();
        self.tasks.spawn(&self.post, async move { survey(&context).await }, SurveyorMessage::Surveyed);
    }

    fn on_surveyed(&mut self, result: Result<Box<Survey>, String>) {
        match result {
            Ok(survey) => self.context.meter.surveyed(*survey),
            Err(reason) => warn!("how everything is could not be measured: {reason}"),
        }
        self.post.send_after(self.context.policy.survey_interval, || SurveyorMessage::Due);
    }
}

async fn survey(context: &Context) -> Result<Box<Survey>, String> {
    let (at, began) = (context.now(), Instant::now());
    // What rows say one of all replicas tells, so that their numbers may be summed.
    let (totals, backlog) = if context.shards.leads() {
        let totals = in_time(context.store.totals(at)).await.map_err(|error| error.to_string())?;
        (totals, in_time(context.store.backlog(at)).await.map_err(|error| error.to_string())?)
    } else {
        Default::default()
    };
    let mut storage = context.git.storage().await.map_err(|error| error.to_string())?;
    if context.policy.mirrors_shared && !context.shards.leads() {
        // Sums over replicas are right.
        (storage.mirrors, storage.mirror_bytes) = (0, 0);
    }
    let (hosts, tree) = (context.git.hosts().survey(), context.directory.survey());
    Ok(Box::new(Survey { at, took: began.elapsed(), totals, backlog, storage, hosts, tree }))
}
