//! Keeps mirrors small and undamaged. It removes leftovers of crashes, then looks at all mirrors from time to
//! time, and at one mirror when it grew or lost its last watch. A look removes the mirror (also if other
//! replicas have worked on its repository for long), or rebuilds it from the commits that the store names; it
//! drops contents of the least recently changed mirrors when room is short, and reads a share of the files
//! again. Where replicas share their mirrors, each looks after the repositories that it works on.
//!
//! Supervised by `housekeeping`, always restarted. One piece of work at a time, as a task, so that upkeep
//! never takes more than one thread; its mailbox is bounded by its timer, its one piece of work and one
//! message at a time about mirrors that grew. Waiting work is kept once per repository. A crash loses the
//! waiting work: the next look at all mirrors finds the same.
//!
//! Invariant: commits and trees that a cursor or a head names are never dropped.

mod care;
mod decisions;

use std::{collections::BTreeSet, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::id::RepositoryId;
use tokio::time::Instant;
use tracing::warn;

pub use care::{KeepError, Room};
pub use decisions::is_due;

use super::UpkeepArguments;
use crate::{
    context::Context,
    supervision::{directory::Mailbox, tasks::Tasks},
    time::Timestamp,
};

/// The wait before the first look at all mirrors.
const FIRST: Duration = Duration::from_secs(60);
/// While room is short all mirrors are looked at no more often than this.
const SHORT_EVERY: Duration = Duration::from_secs(60);

/// Messages to the mirror keeper.
#[derive(Debug)]
pub enum MirrorKeeperMessage {
    /// Look at all mirrors.
    Due,
    /// The mirrors of these repositories grew, or lost their last watch.
    Grew(Result<BTreeSet<RepositoryId>, String>),
    /// A piece of work ended.
    Done(Result<Result<Room, KeepError>, String>),
}

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Sweep,
    All { at: Timestamp },
    One(RepositoryId),
}

/// The state of the actor between two messages.
pub struct MirrorKeeperState {
    context: Context,
    mailbox: Mailbox<MirrorKeeperMessage>,
    tasks: Tasks,
    doing: Option<Work>,
    due: bool,
    waiting: BTreeSet<RepositoryId>,
    /// Up to when shares of files were read again.
    scrubbed: Timestamp,
    /// When all mirrors were looked at last.
    looked: Option<Instant>,
    armed: bool,
}

/// The actor that keeps mirrors small and whole.
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
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send_after(FIRST.min(context.policy.upkeep_interval), || MirrorKeeperMessage::Due);
        let interval = i64::try_from(context.policy.upkeep_interval.as_millis()).unwrap_or(i64::MAX);
        let scrubbed = Timestamp(context.now().0.saturating_sub(interval));
        let mut state = MirrorKeeperState {
            context,
            mailbox,
            tasks: Tasks::default(),
            doing: None,
            due: false,
            waiting: BTreeSet::new(),
            scrubbed,
            looked: None,
            armed: true,
        };
        state.begin(Work::Sweep);
        state.listen();
        Ok(state)
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
            MirrorKeeperMessage::Due => state.on_due(),
            MirrorKeeperMessage::Grew(repositories) => state.on_grew(repositories?),
            MirrorKeeperMessage::Done(result) => state.on_done(result?),
        }
        gauge.say(match &state.doing {
            None => "idle".to_owned(),
            Some(Work::Sweep) => "sweeping".to_owned(),
            Some(Work::All { .. }) => "looking at all mirrors".to_owned(),
            Some(Work::One(repository)) => format!("looking at {repository}"),
        });
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
        self.armed = false;
        self.due = true;
        self.go_on();
    }

    fn on_grew(&mut self, mut repositories: BTreeSet<RepositoryId>) {
        self.waiting.append(&mut repositories);
        self.listen();
        self.go_on();
    }

    fn on_done(&mut self, result: Result<Room, KeepError>) {
        let done = self.doing.take();
        if let Err(reason) = &result {
            warn!("mirrors could not be kept: {reason}");
        }
        match (done, result) {
            (Some(Work::All { at }), result) => {
                if result.is_ok() {
                    self.scrubbed = at;
                }
                self.looked = Some(Instant::now());
                let wait = match result {
                    Ok(Room::Short) => SHORT_EVERY.min(self.context.policy.upkeep_interval),
                    _ => self.context.policy.upkeep_interval,
                };
                if !std::mem::replace(&mut self.armed, true) {
                    self.mailbox.send_after(wait, || MirrorKeeperMessage::Due);
                }
            }
            (_, Ok(Room::Short)) => {
                self.due |= self.looked.is_none_or(|looked| looked.elapsed() >= SHORT_EVERY);
            }
            _ => {}
        }
        self.go_on();
    }

    /// Waits for the next mirrors that grow, as a task.
    fn listen(&mut self) {
        let growth = self.context.git.growth();
        self.tasks.spawn(&self.mailbox, async move { growth.wait().await }, MirrorKeeperMessage::Grew);
    }

    /// Begins the next waiting work, unless work is under way.
    fn go_on(&mut self) {
        if self.doing.is_some() {
            return;
        }
        if let Some(repository) = self.waiting.pop_first() {
            self.begin(Work::One(repository));
        } else if std::mem::take(&mut self.due) {
            self.begin(Work::All { at: self.context.now() });
        }
    }

    fn begin(&mut self, work: Work) {
        let context = self.context.clone();
        let share = decisions::share(self.scrubbed, context.now(), context.policy.scrub_every);
        let doing = work.clone();
        let work = async move {
            match work {
                Work::Sweep => care::sweep(context).await,
                Work::All { .. } => care::keep_all(context, share).await,
                Work::One(repository) => care::keep_one(context, repository).await,
            }
        };
        self.doing = Some(doing);
        self.tasks.spawn(&self.mailbox, work, MirrorKeeperMessage::Done);
    }
}

#[cfg(test)]
mod tests;
