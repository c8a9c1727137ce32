//! The clock of tasks: makes due tasks ready, ends claims whose time is over, creates the tasks of schedules
//! and asks for their resyncs, and removes tasks that ended long ago. Only the replica with the first shard
//! does it. The actor wakes at the nearest moment in the rows, and looks every [`EVERY`] in case the news of
//! a nearer moment was lost. Supervised by `housekeeping`, restarted after a failure; a crash loses one look.
//! Its mailbox is bounded by its timers, of which a nearer moment adds one, and one look at a time.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::{debug, warn};

use super::UpkeepArguments;
use crate::{
    context::Context,
    deliverer,
    ports::{StoreError, Woken},
    signals::coalesced::Coalesced,
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
    },
    time::Timestamp,
};

/// The wait of a replica that does not have the first shard, until it looks whether it has.
const UNLED_EVERY: Duration = Duration::from_secs(1);
/// The longest wait between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// The shortest wait: a look that found a row which another replica holds is not repeated at once.
const LEAST: Duration = Duration::from_millis(2);
/// The wait between two removals of old tasks.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// The tasks that one transaction removes.
const FORGET_STEP: u64 = 500;
/// The transactions of one removal.
const FORGET_STEPS: usize = 20;

/// Messages to the clock keeper.
#[derive(Debug)]
pub enum ClockKeeperMessage {
    /// A row was written that names this moment.
    Nearest(Timestamp),
    /// The wait with this number is over.
    Due(u64),
    /// The clock was looked at.
    Looked(Result<Result<Woken, StoreError>, String>),
    /// Remove tasks that ended long ago.
    Forget,
    /// Tasks were removed: their number, or the failure.
    Forgot(Result<Result<u64, StoreError>, String>),
}

/// The context, and when the clock is looked at next.
pub struct ClockKeeperState {
    context: Context,
    mailbox: Mailbox<ClockKeeperMessage>,
    tasks: Tasks,
    looking: Coalesced,
    /// When the clock is looked at next.
    next: Timestamp,
    /// The number of the newest wait. Its end leads to a look, whatever the clock says by then: a clock that
    /// was set back must not end all looks. The ends of older waits mean nothing.
    wait: u64,
    /// The nearest moment that was reported during the present look.
    told: Option<Timestamp>,
}

/// The actor that keeps the clock of tasks.
pub struct ClockKeeper;

#[ractor::async_trait]
impl Actor for ClockKeeper {
    type Msg = ClockKeeperMessage;
    type State = ClockKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(ClockKeeperMessage::Due(0));
        mailbox.send_after(FORGET_EVERY, || ClockKeeperMessage::Forget);
        let (tasks, next) = (Tasks::default(), context.now());
        Ok(ClockKeeperState { context, mailbox, tasks, looking: Coalesced::Idle, next, wait: 0, told: None })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use ClockKeeperMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Nearest(at) => state.on_nearest(at),
            M::Due(wait) => state.on_due(wait),
            M::Looked(result) => state.on_looked(result?),
            M::Forget => state.forget(),
            M::Forgot(result) => state.on_forgot(result?),
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

impl ClockKeeperState {
    fn on_nearest(&mut self, at: Timestamp) {
        if self.looking.is_running() {
            self.told = self.told.into_iter().chain([at]).min();
        } else if at < self.next {
            self.wait_until(at);
        }
    }

    fn wait_until(&mut self, at: Timestamp) {
        let now = self.context.now();
        // A clock that was set back must not make the wait longer.
        self.next = at.bounded(now, EVERY);
        self.wait += 1;
        let wait = self.wait;
        let least = self.next.since(now).max(LEAST);
        self.mailbox.send_after(least, move || ClockKeeperMessage::Due(wait));
    }

    fn on_due(&mut self, wait: u64) {
        if wait != self.wait {
            return;
        }
        let now = self.context.now();
        if self.context.directory.is_closed() {
            return;
        }
        if !self.context.shards.leads() {
            return self.wait_until(now.after(UNLED_EVERY));
        }
        if self.looking.begin() {
            let context = self.context.clone();
            let work = async move {
                let woken = in_time(context.store.wake_tasks()).await?;
                for app in &woken.resynced {
                    deliverer::refresh(&context, app).await;
                }
                Ok(woken)
            };
            self.tasks.spawn(&self.mailbox, work, ClockKeeperMessage::Looked);
        }
    }

    fn on_looked(&mut self, result: Result<Woken, StoreError>) {
        let again = self.looking.end();
        let now = self.context.now();
        let every = now.after(EVERY);
        let told = self.told.take();
        match result {
            Ok(woken) => {
                if woken.expired > 0 {
                    debug!("the claims of {} tasks ran out", woken.expired);
                }
                if woken.ticks > 0 {
                    debug!("schedules created {} tasks", woken.ticks);
                }
                let next = woken.next.into_iter().chain(told).min().map_or(every, |next| next.min(every));
                self.wait_until(if again { now } else { next });
            }
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => {
                warn!("due tasks and claims that ran out could not be moved: {reason}");
                self.wait_until(now.after(Duration::from_secs(1)));
            }
        }
    }

    fn forget(&mut self) {
        if self.context.directory.is_closed() || !self.context.shards.leads() {
            return self.mailbox.send_after(FORGET_EVERY, || ClockKeeperMessage::Forget);
        }
        let store = self.context.store.clone();
        let work = async move {
            let mut gone = 0;
            for _ in 0..FORGET_STEPS {
                let step = in_time(store.forget_tasks(FORGET_STEP)).await?;
                gone += step;
                if step < FORGET_STEP {
                    break;
                }
            }
            Ok(gone)
        };
        self.tasks.spawn(&self.mailbox, work, ClockKeeperMessage::Forgot);
    }

    fn on_forgot(&mut self, result: Result<u64, StoreError>) {
        let most = FORGET_STEP * FORGET_STEPS as u64;
        // There are more tasks; other work gets a turn in between.
        let wait = match result {
            Ok(gone) if gone >= most => Duration::from_secs(1),
            Ok(_) => FORGET_EVERY,
            Err(reason) => {
                warn!("tasks that ended long ago could not be removed: {reason}");
                FORGET_EVERY
            }
        };
        self.mailbox.send_after(wait, || ClockKeeperMessage::Forget);
    }
}
