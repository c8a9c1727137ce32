//! Keeps this replica's leases: renews them at a third of their life, takes its share of free shards, gives
//! excess shards away, receives the signals of other replicas, sends them signals that failed before, and
//! takes the keys that they hand on. Each second it checks whether the terms of lanes that run here changed
//! ([`terms`](crate::ownership::terms)): without this actor lanes soon begin no more attempts. Supervised by
//! `housekeeping`, restarted after a failure; its mailbox is bounded by its own timers and tasks, and by one
//! signal at a time. The leases are in [`Shards`](crate::ownership::shards::Shards), which outlives the
//! actor. While the actor is down nothing is renewed, trust in the leases ends by itself, and other replicas
//! take over.
//!
//! It sends one request to the database at a time, so that no answer is older than the previous one, and
//! waits for none longer than a third of a lease's life.
//! [`trusted_for`](crate::ownership::leases::trusted_for) decides how long a lease is trusted.
//!
//! A shard is given away when no work runs under it any more, or after the drain deadline at the latest: the
//! fence refuses the results of work that still runs then. Until then its lease is renewed.

mod questions;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    context::Context,
    deliverer::{DelivererMessage, others_of},
    ownership::{shards::Changes, terms},
    ports::{Fence, LeaseStanding, Signal, StoreError},
    scanning::repository_watcher::RepositoryWatcherMessage,
    signals::coalesced::Coalesced,
    subscriber::SubscriberMessage,
    supervision::{
        children_with_work::{self, Look},
        directory::Mailbox,
        hints,
        tasks::Tasks,
        tree::{CIRCUIT_BREAKER, DELIVERER, REPOSITORY_WATCHER, SUBSCRIBER},
    },
};

/// After trouble with the database.
const AGAIN: Duration = Duration::from_millis(500);
/// How often shards that are to be given away are looked at.
const LEAVING_STEP: Duration = Duration::from_millis(50);
/// How often each actor with work here is started if it does not run, in case a notification was lost.
const SWEEP: Duration = Duration::from_secs(60);

/// Messages to the lease keeper.
#[derive(Debug)]
pub enum LeaseKeeperMessage {
    /// Renew the leases of all shards that this process holds.
    Due,
    /// A shard of another replica may be free, or a lease of this replica is in doubt.
    Look,
    /// The answer to a renewal that was sent at this moment: the state of all leases.
    Renewed(Instant, Result<Result<LeaseStanding, StoreError>, String>),
    /// The answer to a claim that was sent at this moment: the shards that were taken.
    Claimed(Instant, Result<Result<Vec<Fence>, StoreError>, String>),
    /// Check whether shards that are to be given away are still busy.
    Leaving,
    /// Shards were released, or releasing them failed.
    Released(Result<Result<Vec<Fence>, StoreError>, String>),
    /// Other replicas were notified, or notifying them failed.
    Told(Result<(), String>),
    /// The trust in a lease may have ended.
    Lapsed,
    /// A notification of another replica came, or listening failed.
    Heard(Result<Signal, String>),
    /// Read the terms of the lanes of this process.
    LookAtTerms,
    /// The terms of the lanes here were looked at, or reading them failed.
    TermsSeen(Result<Result<(), StoreError>, String>),
    /// Start each actor that has work here and does not run.
    Sweep,
    /// Actors with work here were started up to this look, or reading the rows failed.
    Ensured(Look, Result<Result<(), String>, String>),
    /// Ensure again, after a failure.
    EnsureAgain,
    /// The keys of the other replicas were taken, or that failed.
    KeysTaken(Result<Result<(), StoreError>, String>),
    /// This process ends: give all shards away, one by one.
    End,
}

/// The state of the actor between two messages.
pub struct LeaseKeeperState {
    context: Context,
    mailbox: Mailbox<LeaseKeeperMessage>,
    tasks: Tasks,
    /// Whether a request to the database is under way, and whether a renewal waits for its end.
    asking: Coalesced,
    /// How many shards are to be taken.
    wanted: usize,
    /// When the next look is armed: while the database refuses at once, looks must not multiply.
    look_at: Option<Instant>,
    /// A look at the shards that are to be given away is armed.
    leaving: bool,
    /// After a failure, no shard is released before this moment.
    release_after: Instant,
    /// Whether the other replicas know this replica.
    is_known: bool,
    ensuring: Ensuring,
    taking_keys: Coalesced,
    /// The last look at the terms of lanes failed.
    is_blind: bool,
}

/// Whether actors that have work here are being started: one look at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ensuring {
    /// No look at the rows is running.
    Idle,
    /// A look is under way, or one that failed waits to be repeated; then follows the widest look of those
    /// requested meanwhile and the one that failed.
    Running(Option<Look>),
}

/// The actor that keeps the leases of this replica.
pub struct LeaseKeeper;

#[ractor::async_trait]
impl Actor for LeaseKeeper {
    type Msg = LeaseKeeperMessage;
    type State = LeaseKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        let mut state = LeaseKeeperState {
            context,
            mailbox,
            tasks: Tasks::default(),
            asking: Coalesced::Idle,
            wanted: 0,
            look_at: None,
            leaving: false,
            release_after: Instant::now(),
            is_known: false,
            ensuring: Ensuring::Idle,
            taking_keys: Coalesced::Idle,
            is_blind: false,
        };
        if state.context.leases.is_some() {
            state.mailbox.send(LeaseKeeperMessage::Due);
            state.mailbox.send_after(SWEEP, || LeaseKeeperMessage::Sweep);
            state.mailbox.send(LeaseKeeperMessage::LookAtTerms);
            state.listen();
            // The previous actor may have ended while it gave shards away.
            state.look_at_leaving();
        } else {
            state.mailbox.gauge().say("nobody else works here");
        }
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use LeaseKeeperMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Due => state.on_due(),
            M::Look => state.on_look(),
            M::Renewed(asked, result) => state.on_renewed(asked, result?),
            M::Claimed(asked, result) => state.on_claimed(asked, result?),
            M::Leaving => state.on_leaving(),
            M::Released(result) => state.on_released(result?),
            M::Told(told) => told?,
            M::Lapsed => state.on_lapsed(),
            M::Heard(signal) => state.on_heard(signal?),
            M::LookAtTerms => state.look_at_terms(),
            M::TermsSeen(result) => state.on_terms_seen(result?),
            M::Sweep => state.on_sweep(),
            M::Ensured(look, result) => state.on_ensured(look, result?),
            M::EnsureAgain => state.on_ensure_again(),
            M::KeysTaken(result) => state.on_keys_taken(result?),
            M::End => state.on_end(),
        }
        if state.context.leases.is_some() {
            let (held, staying) = state.context.shards.held();
            gauge.say(match held - staying {
                0 => format!("{held} shards"),
                leaving => format!("{held} shards, gives {leaving} away"),
            });
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

impl LeaseKeeperState {
    fn on_due(&mut self) {
        self.renew_soon();
        let third = self.context.policy.lease_life / 3;
        self.mailbox.send_after(third, || LeaseKeeperMessage::Due);
    }

    /// Looks again after `wait`, unless an earlier look is planned.
    fn look_after(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        if self.look_at.is_none_or(|armed| at < armed) {
            self.look_at = Some(at);
            self.mailbox.send_after(wait, || LeaseKeeperMessage::Look);
        }
    }

    fn on_look(&mut self) {
        // A timer that was replaced by an earlier one has nothing to do.
        if self.look_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.renew_soon();
        }
    }

    /// Divides the limits that all replicas share (rates of hosts) by the number of replicas.
    fn divide(&self) {
        self.context.git.hosts().divide_by(self.context.shards.workers());
        for (_, deliverer) in self.context.directory.all::<DelivererMessage>(DELIVERER) {
            deliverer.send(DelivererMessage::Refresh);
        }
    }

    /// If this signal is lost, the others look at their next renewal.
    fn tell_of_shards(&mut self) {
        let context = self.context.clone();
        let work = async move { context.tell_others(Signal::Shards).await };
        self.tasks.spawn(&self.mailbox, work, LeaseKeeperMessage::Told);
    }

    fn believe(&mut self, until: Instant, changes: &Changes) {
        self.mailbox
            .send_after(until.saturating_duration_since(Instant::now()), || LeaseKeeperMessage::Lapsed);
        if !changes.lost.is_empty() {
            warn!(count = changes.lost.len(), "{} shards went to other replicas", changes.lost.len());
            self.let_go();
        }
        if !changes.gained.is_empty() {
            self.ensure(Look::Gained);
        }
    }

    fn on_lapsed(&mut self) {
        if self.context.shards.is_in_doubt() {
            warn!(
                "leases of this replica were not prolonged in time: nothing begins under them until they are"
            );
            self.let_go();
        }
    }

    /// Ends all work under leases that are not valid any more.
    fn let_go(&self) {
        let (directory, shards) = (&self.context.directory, &self.context.shards);
        for (_, deliverer) in directory.all::<DelivererMessage>(DELIVERER) {
            deliverer.send(DelivererMessage::LetGo);
        }
        for (_, subscriber) in directory.all::<SubscriberMessage>(SUBSCRIBER) {
            subscriber.send(SubscriberMessage::Refresh);
        }
        for (key, watcher) in directory.all::<RepositoryWatcherMessage>(REPOSITORY_WATCHER) {
            if key.parse().is_ok_and(|repository| !shards.owns(&repository)) {
                watcher.send(RepositoryWatcherMessage::Reload);
            }
        }
        for (key, breaker) in directory.all::<CircuitBreakerMessage>(CIRCUIT_BREAKER) {
            if circuit_breaker::repository_of(&key).is_some_and(|repository| !shards.owns(&repository)) {
                breaker.send(CircuitBreakerMessage::LetGo);
            }
        }
    }

    fn give_away(&mut self, count: usize) {
        let count = self.context.shards.leave(count);
        if count > 0 {
            info!(count, "this replica gives {count} shards away");
            self.let_go();
            self.look_at_leaving();
        }
    }

    fn on_end(&mut self) {
        self.context.shards.leave_all();
        self.let_go();
        self.renew_soon();
        self.look_at_leaving();
    }

    fn look_at_leaving(&mut self) {
        if self.context.shards.is_leaving() && !std::mem::replace(&mut self.leaving, true) {
            self.mailbox.send(LeaseKeeperMessage::Leaving);
        }
    }

    fn on_leaving(&mut self) {
        self.ask();
        self.leaving = self.context.shards.is_leaving();
        if self.leaving {
            self.mailbox.send_after(LEAVING_STEP, || LeaseKeeperMessage::Leaving);
        }
    }

    /// Sends notifications that failed before: the database answers again.
    fn tell_untold(&mut self) {
        if !self.context.untold.is_empty() {
            let context = self.context.clone();
            let work = async move { context.tell_untold().await };
            self.tasks.spawn(&self.mailbox, work, LeaseKeeperMessage::Told);
        }
    }

    /// Looks at the terms of the lanes here, then a while later again.
    fn look_at_terms(&mut self) {
        let context = self.context.clone();
        let work = async move { context.terms.look(context.store.as_ref(), None).await };
        self.tasks.spawn(&self.mailbox, work, LeaseKeeperMessage::TermsSeen);
    }

    fn on_terms_seen(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.is_blind = false,
            Err(reason) if !std::mem::replace(&mut self.is_blind, true) => {
                warn!(
                    "the terms of lanes could not be read; soon no delivery begins before they are: {reason}"
                );
            }
            Err(_) => {}
        }
        for app in self.context.terms.ended() {
            let own = self.context.directory.find(DELIVERER, app.as_str());
            for deliverer in own.into_iter().chain(others_of(&self.context, &app)) {
                // A deliverer that is ending has no lanes.
                deliverer.send(DelivererMessage::LetGo);
            }
        }
        self.mailbox.send_after(terms::LOOK, || LeaseKeeperMessage::LookAtTerms);
    }

    /// Receives signals, one after another.
    fn listen(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        self.tasks.spawn(&self.mailbox, async move { leases.hear().await }, LeaseKeeperMessage::Heard);
    }

    fn on_heard(&mut self, signal: Signal) {
        match signal {
            Signal::Shards => self.renew_soon(),
            Signal::Missed => {
                self.renew_soon();
                self.ensure(Look::All);
                self.take_keys();
                hints::tasks_may_have_changed(&self.context);
            }
            Signal::Keys => self.take_keys(),
            signal => hints::heard(&self.context, &signal),
        }
        self.listen();
    }

    fn on_sweep(&mut self) {
        self.ensure(Look::All);
        self.take_keys();
        self.mailbox.send_after(SWEEP, || LeaseKeeperMessage::Sweep);
    }

    /// Takes keys of the keyring that other replicas handed on; one read at a time.
    fn take_keys(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        if !self.taking_keys.begin() {
            return;
        }
        let work = async move { leases.take_keys().await };
        self.tasks.spawn(&self.mailbox, work, LeaseKeeperMessage::KeysTaken);
    }

    fn on_keys_taken(&mut self, result: Result<(), StoreError>) {
        let again = self.taking_keys.end();
        if let Err(reason) = result {
            warn!("the keyring is not as that of the other replicas: {reason}");
        }
        if again {
            self.take_keys();
        }
    }

    /// Starts each actor that has work here; one look at a time.
    fn ensure(&mut self, look: Look) {
        if self.context.directory.is_closed() {
            return;
        }
        if let Ensuring::Running(next) = &mut self.ensuring {
            *next = (*next).max(Some(look));
            return;
        }
        self.ensuring = Ensuring::Running(None);
        let context = self.context.clone();
        let work = async move {
            children_with_work::ensure_all(&context, look).await.map_err(|reason| reason.to_string())
        };
        self.tasks.spawn(&self.mailbox, work, move |result| LeaseKeeperMessage::Ensured(look, result));
    }

    fn on_ensured(&mut self, look: Look, result: Result<(), String>) {
        if let Err(reason) = result {
            warn!("what is to be done here could not be read: {reason}");
            // No other event would start the actors whose work was gained just now.
            if let Ensuring::Running(next) = &mut self.ensuring {
                *next = (*next).max(Some(look));
            }
            self.mailbox.send_after(AGAIN, || LeaseKeeperMessage::EnsureAgain);
            return;
        }
        self.on_ensure_again();
    }

    fn on_ensure_again(&mut self) {
        if let Ensuring::Running(Some(look)) = std::mem::replace(&mut self.ensuring, Ensuring::Idle) {
            self.ensure(look);
        }
    }
}

#[cfg(test)]
mod tests;
