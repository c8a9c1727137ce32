//! Tells Git hosts the statuses of watches at their commits: as soon as this process wrote a due status, or
//! another replica signals that it did, at the nearest moment for which the rows have a next request, and
//! every [`EVERY`] in case a signal was lost. On PostgreSQL the
//! replica with the shard of the repository tells it, whichever replica wrote it: a person's request and the
//! end of a task come to any replica. Supervised by `housekeeping`, restarted after a failure.
//!
//! A status is claimed on disk before its host is asked, until [`CLAIM`] has passed: no two requests for one
//! status are under way, and after a crash its host is asked again, because the outcome is unknown. Hosts
//! that accept nothing are asked less and less often ([`verdict::of`]). At most [`AT_ONCE`] requests are
//! under way, and at most [`PER_HOST`] to one host, so that a slow host delays only its own statuses.
//!
//! The mailbox is bounded by two timers, of which a nearer moment adds one, one look, one sweep, one task
//! that listens, one signal in [`GATHER`], and [`AT_ONCE`] tasks.

mod verdict;

use std::{collections::BTreeMap, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{UpkeepArguments, beyond};
use crate::{
    context::Context,
    ports::{Signal, StatusAnswer, StatusClaims, StatusKey, StatusRoom, StatusTask, StoreError},
    signals::coalesced::Coalesced,
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
    },
    time::Timestamp,
};

/// The longest wait between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// The wait between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Statuses that are written or due within this time are looked for together: of a round that ends at once
/// only the final status is told.
const GATHER: Duration = Duration::from_millis(50);
/// Requests that are under way at once.
const AT_ONCE: u64 = 16;
/// The most requests to one host: scans of the same host have places of their own.
const PER_HOST: u64 = 2;
/// A request with all its waits (for its turn at the host, for the token of a GitHub App) takes no longer.
const LONGEST: Duration = Duration::from_secs(25);
/// How long a claim holds: longer than a request takes. After the death of a replica its claims delay other
/// replicas by at most this time.
const CLAIM: Duration = Duration::from_secs(30);

/// The messages to the status keeper.
#[derive(Debug)]
pub enum StatusKeeperMessage {
    /// Another replica wrote due statuses.
    Look,
    /// The wait with this number, for the next look without a signal, is over.
    Due(u64),
    /// The wait for the next sweep is over.
    Sweep,
    /// This process wrote due statuses.
    Written(Result<watch::Receiver<u64>, String>),
    /// Listen for what this process writes next.
    Listen(watch::Receiver<u64>),
    /// The statuses that are due were read and claimed by this process.
    Claimed(Result<Result<StatusClaims, StoreError>, String>),
    /// A host was told, and the result was written.
    Told(String, Result<Result<(), StoreError>, String>),
    /// The sweep of old rows ended; `true`: more are left.
    Swept(Result<Result<bool, StoreError>, String>),
    /// The other replicas were notified, or notifying them failed.
    Notified(Result<(), String>),
}

/// The context, and the work under way.
pub struct StatusKeeperState {
    context: Context,
    mailbox: Mailbox<StatusKeeperMessage>,
    tasks: Tasks,
    looking: Coalesced,
    /// Requests under way, by the host.
    busy: BTreeMap<String, u64>,
    /// When statuses are looked for next without a signal.
    next: Timestamp,
    /// The number of the newest wait; the ends of older waits mean nothing.
    wait: u64,
}

/// The actor that tells hosts the statuses of commits.
pub struct StatusKeeper;

#[ractor::async_trait]
impl Actor for StatusKeeper {
    type Msg = StatusKeeperMessage;
    type State = StatusKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        if context.shards.is_sole() {
            // The process that claimed them has ended. Otherwise the claims end by themselves.
            if let Err(reason) = in_time(context.store.release_statuses(context.now())).await {
                warn!("claims of statuses could not be given back, and end by themselves: {reason}");
            }
        }
        mailbox.send(StatusKeeperMessage::Listen(context.store.statuses_written()));
        mailbox.send(StatusKeeperMessage::Due(0));
        mailbox.send_after(SWEEP_EVERY, || StatusKeeperMessage::Sweep);
        let (tasks, looking, busy) = Default::default();
        let next = context.now();
        Ok(StatusKeeperState { context, mailbox, tasks, looking, busy, next, wait: 0 })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use StatusKeeperMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Look => state.look(),
            M::Due(wait) => state.on_due(wait),
            M::Sweep => state.on_sweep(),
            M::Written(written) => state.on_written(written?),
            M::Listen(written) => state.listen(written),
            M::Claimed(result) => state.on_claimed(result?),
            M::Told(host, result) => state.on_told(&host, result?),
            M::Swept(result) => state.on_swept(result?),
            M::Notified(result) => result?,
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

impl StatusKeeperState {
    fn look(&mut self) {
        let under_way: u64 = self.busy.values().sum();
        let most = AT_ONCE.saturating_sub(under_way);
        // Where no place is free the end of a request looks again.
        if most == 0 || self.context.directory.is_closed() || !self.looking.begin() {
            return;
        }
        let context = self.context.clone();
        let room = StatusRoom { most, per_host: PER_HOST, busy: self.busy.clone() };
        let work = async move {
            let (now, reach) = (context.now(), context.shards.reach());
            in_time(context.store.claim_statuses(&reach, &room, now, now.after(CLAIM))).await
        };
        self.tasks.spawn(&self.mailbox, work, StatusKeeperMessage::Claimed);
    }

    fn on_due(&mut self, wait: u64) {
        if wait == self.wait {
            self.look();
            self.wait_for(EVERY);
        }
    }

    /// Looks after this wait, and not at the end of the wait before.
    fn wait_for(&mut self, span: Duration) {
        self.next = self.context.now().after(span);
        self.wait += 1;
        let wait = self.wait;
        self.mailbox.send_after(span, move || StatusKeeperMessage::Due(wait));
    }

    fn on_sweep(&mut self) {
        if !self.context.shards.leads() || self.context.directory.is_closed() {
            self.mailbox.send_after(SWEEP_EVERY, || StatusKeeperMessage::Sweep);
            return;
        }
        let context = self.context.clone();
        let work = async move { in_time(context.store.sweep_statuses(context.now())).await };
        self.tasks.spawn(&self.mailbox, work, StatusKeeperMessage::Swept);
    }

    fn on_written(&mut self, written: watch::Receiver<u64>) {
        self.look();
        if !self.context.shards.is_sole() {
            let context = self.context.clone();
            let work = async move { context.tell_others(Signal::Statuses).await };
            self.tasks.spawn(&self.mailbox, work, StatusKeeperMessage::Notified);
        }
        self.listen(written);
    }

    /// Waits until more is written than was seen.
    fn listen(&mut self, written: watch::Receiver<u64>) {
        let work = async move {
            let written = beyond(written).await;
            tokio::time::sleep(GATHER).await;
            written
        };
        self.tasks.spawn(&self.mailbox, work, StatusKeeperMessage::Written);
    }

    fn on_claimed(&mut self, result: Result<StatusClaims, StoreError>) {
        let again = self.looking.end();
        match result {
            Ok(StatusClaims { tasks, next }) => {
                tasks.into_iter().for_each(|task| self.tell(task));
                if let Some(next) = next.filter(|next| *next < self.next) {
                    self.wait_for(next.since(self.context.now()).clamp(GATHER, EVERY));
                }
            }
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => warn!("the statuses that are due could not be read: {reason}"),
        }
        if again {
            self.look();
        }
    }

    fn tell(&mut self, task: StatusTask) {
        // Another replica has the repository now: the claim ends by itself, and that replica tells the host.
        let Some((context, hold)) = self.context.of(&task.repository) else { return };
        *self.busy.entry(task.host.clone()).or_default() += 1;
        let host = task.host.clone();
        let work = async move {
            let _hold = hold;
            tell_one(&context, &task).await
        };
        self.tasks.spawn(&self.mailbox, work, move |result| StatusKeeperMessage::Told(host, result));
    }

    fn on_told(&mut self, host: &str, result: Result<(), StoreError>) {
        if let Some(count) = self.busy.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(host);
            }
        }
        match result {
            Ok(()) | Err(StoreError::Lost) => {}
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => warn!("what a host was told could not be written, and is told again: {reason}"),
        }
        self.look();
    }

    fn on_swept(&mut self, result: Result<bool, StoreError>) {
        let wait = match result {
            Ok(true) => GATHER,
            Ok(false) => SWEEP_EVERY,
            Err(reason) => {
                warn!("old statuses could not be removed: {reason}");
                SWEEP_EVERY
            }
        };
        self.mailbox.send_after(wait, || StatusKeeperMessage::Sweep);
    }
}

/// Tells a host one status, and writes the result.
async fn tell_one(context: &Context, task: &StatusTask) -> Result<(), StoreError> {
    let answer = timeout(LONGEST, context.board.tell(task)).await.unwrap_or_else(|_| {
        let reason = format!("no answer came within {LONGEST:?}");
        StatusAnswer::Doubtful { reason, wait: None }
    });
    match &answer {
        StatusAnswer::Taken => {}
        StatusAnswer::Refused { reason, .. } => {
            let StatusKey { watch, commit } = &task.key;
            warn!(watch.id = %watch, commit = %commit, "{} takes no status: {reason}", task.host);
        }
        StatusAnswer::NotTaken { reason, .. } | StatusAnswer::Doubtful { reason, .. } => {
            let StatusKey { watch, commit } = &task.key;
            debug!(watch.id = %watch, commit = %commit, "{} is told again: {reason}", task.host);
        }
    }
    context.meter.status_told(verdict::outcome(&answer));
    let now = context.now();
    let verdict = verdict::of(task, answer, now, context.random.below(1_000));
    in_time(context.store.note_status(&task.key, &verdict, now)).await
}
