//! Keeps this replica's leases: prolongs them at a third of their life, takes its share of what is
//! free, gives away what is more, and hears what other replicas tell. Supervised by `housekeeping`,
//! restarted after a failure; its mailbox is bounded by its own timers and tasks, and by one signal
//! at a time. What it believes stands in [`Shards`](crate::shards::Shards) and outlives it; while it is
//! away nothing is prolonged, belief ends by itself, and other replicas take over.
//!
//! How long a lease is believed in is [`trusted_for`]'s word.
//!
//! A shard is given away when nothing goes on under it any more, or after the drain deadline at the
//! latest: what then still comes back is refused by the fence.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    context::{Context, Tasks, in_time},
    deliverer::DelivererMessage,
    directory::Post,
    handle::Handle,
    leases::{Step, step, trusted_for},
    ports::{Fence, LeaseStanding, Signal, StoreError},
    repository_watcher::RepositoryWatcherMessage,
    shards::Changes,
    start,
    tree::{DELIVERER, REPOSITORY_WATCHER},
};

/// After trouble with the database.
const AGAIN: Duration = Duration::from_millis(500);
/// How often shards that are to be given away are looked at.
const LEAVING_STEP: Duration = Duration::from_millis(50);
/// The net below lost signals: whoever has work here is ensured this often.
const SWEEP: Duration = Duration::from_secs(15);

/// What it is told.
#[derive(Debug)]
pub enum LeaseKeeperMessage {
    /// Prolong.
    Due,
    /// How everything stands; asked for at this moment.
    Renewed(Instant, Result<Result<LeaseStanding, StoreError>, String>),
    /// What was taken; asked for at this moment.
    Claimed(Instant, Result<Result<Vec<Fence>, StoreError>, String>),
    /// Look whether what is to be given away is still.
    Leaving,
    /// It was given back, or not.
    Released(Result<Result<Vec<Fence>, StoreError>, String>),
    /// Belief may have ended.
    Lapsed,
    /// Somebody told something.
    Heard(Result<Signal, String>),
    /// Ensure whoever has work here.
    Sweep,
    /// That was done, or not.
    Ensured(Result<Result<(), String>, String>),
}

/// The state.
pub struct LeaseKeeperState {
    context: Context,
    post: Post<LeaseKeeperMessage>,
    tasks: Tasks,
    /// What stands, as far as is known.
    held: Vec<Fence>,
    /// What is to be given away, and when that happens at the latest.
    leaving: Option<(Vec<Fence>, Instant)>,
    renewing: bool,
    ensuring: bool,
    ensure_again: bool,
}

/// The actor.
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
        let post = Post::new(myself, gauge);
        let mut state = LeaseKeeperState {
            context,
            post,
            tasks: Tasks::default(),
            held: Vec::new(),
            leaving: None,
            renewing: false,
            ensuring: false,
            ensure_again: false,
        };
        if state.context.leases.is_some() {
            state.post.send(LeaseKeeperMessage::Due);
            state.post.send_after(SWEEP, || LeaseKeeperMessage::Sweep);
            state.listen();
        } else {
            state.post.gauge().say("nobody else works here");
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
        let gauge = state.post.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Due => {
                state.renew();
                let third = state.context.policy.lease_life / 3;
                state.post.send_after(third, || M::Due);
            }
            M::Renewed(asked, result) => state.on_renewed(asked, result?),
            M::Claimed(asked, result) => state.on_claimed(asked, result?),
            M::Leaving => state.on_leaving(),
            M::Released(result) => state.on_released(result?),
            M::Lapsed => state.on_lapsed(),
            M::Heard(signal) => state.on_heard(signal?).await,
            M::Sweep => {
                state.ensure();
                state.post.send_after(SWEEP, || M::Sweep);
            }
            M::Ensured(result) => state.on_ensured(result?),
        }
        if state.context.leases.is_some() {
            gauge.say(format!("{} shards", state.held.len()));
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
    fn renew(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        if std::mem::replace(&mut self.renewing, true) || self.context.directory.is_closed() {
            return;
        }
        let (policy, asked) = (self.context.policy.clone(), Instant::now());
        let work = async move { in_time(leases.renew(&policy.replica, policy.lease_life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Renewed(asked, result));
    }

    fn on_renewed(&mut self, asked: Instant, result: Result<LeaseStanding, StoreError>) {
        self.renewing = false;
        let standing = match result {
            Ok(standing) => standing,
            Err(reason) => {
                warn!("the leases of this replica were not prolonged: {reason}");
                self.again();
                return;
            }
        };
        self.held.clone_from(&standing.held);
        self.believe(asked);
        let leaving = self.leaving.as_ref().map_or(0, |(fences, _)| fences.len());
        match step(&standing, self.held.len().saturating_sub(leaving), self.context.policy.replica.works) {
            Step::Stay => {}
            Step::Claim(count) => self.claim(count),
            Step::Release(count) if self.leaving.is_none() => self.begin_leaving(count),
            Step::Release(_) => {}
        }
    }

    /// The database did not answer: asked again sooner than a renewal is due.
    fn again(&mut self) {
        let (post, wait) = (self.post.clone(), AGAIN);
        if let Some(until) = self.context.shards.trusted_until() {
            post.send_after(until.saturating_duration_since(Instant::now()), || LeaseKeeperMessage::Lapsed);
        }
        let retry = async move { tokio::time::sleep(wait).await };
        // A renewal that nobody waits for: its answer begins the next one.
        let leases = self.context.leases.clone();
        let policy = self.context.policy.clone();
        let Some(leases) = leases else { return };
        self.renewing = true;
        let work = async move {
            retry.await;
            let asked = Instant::now();
            (asked, in_time(leases.renew(&policy.replica, policy.lease_life)).await)
        };
        self.tasks.spawn(&self.post, work, |result| match result {
            Ok((asked, result)) => LeaseKeeperMessage::Renewed(asked, Ok(result)),
            Err(panic) => LeaseKeeperMessage::Renewed(Instant::now(), Err(panic)),
        });
    }

    fn claim(&mut self, count: usize) {
        let Some(leases) = self.context.leases.clone() else { return };
        let (policy, asked) = (self.context.policy.clone(), Instant::now());
        let work = async move { in_time(leases.claim(&policy.replica.id, count, policy.lease_life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Claimed(asked, result));
    }

    fn on_claimed(&mut self, asked: Instant, result: Result<Vec<Fence>, StoreError>) {
        match result {
            Ok(fences) if !fences.is_empty() => {
                info!(count = fences.len(), "this replica took {} shards", fences.len());
                self.held.retain(|held| fences.iter().all(|fence| fence.shard != held.shard));
                self.held.extend(fences);
                // What was held before was prolonged before this was asked for.
                let until = self.context.shards.trusted_until();
                self.believe_until(until.unwrap_or(self.end_of(asked)).min(self.end_of(asked)));
            }
            Ok(_) => {}
            Err(reason) => warn!("free shards were not taken: {reason}"),
        }
    }

    fn end_of(&self, asked: Instant) -> Instant {
        asked + trusted_for(self.context.policy.lease_life)
    }

    fn believe(&mut self, asked: Instant) {
        self.believe_until(self.end_of(asked));
    }

    fn believe_until(&mut self, until: Instant) {
        let changes = self.context.shards.renewed(&self.held, until);
        self.post.send_after(until.saturating_duration_since(Instant::now()), || LeaseKeeperMessage::Lapsed);
        self.apply(&changes);
    }

    fn apply(&mut self, changes: &Changes) {
        if !changes.lost.is_empty() {
            warn!(count = changes.lost.len(), "{} shards went to other replicas", changes.lost.len());
            self.let_go();
        }
        if !changes.gained.is_empty() {
            self.ensure();
        }
    }

    /// Whoever works here looks whether it still may.
    fn let_go(&self) {
        for deliverer in self.context.directory.all::<DelivererMessage>(DELIVERER) {
            deliverer.send(DelivererMessage::Refresh);
        }
        for watcher in self.context.directory.all::<RepositoryWatcherMessage>(REPOSITORY_WATCHER) {
            watcher.send(RepositoryWatcherMessage::Reload);
        }
    }

    fn begin_leaving(&mut self, count: usize) {
        let fences = self.context.shards.leave(count);
        if fences.is_empty() {
            return;
        }
        info!(count = fences.len(), "this replica gives {} shards away", fences.len());
        self.let_go();
        self.leaving = Some((fences, Instant::now() + self.context.policy.leaving_max));
        self.post.send(LeaseKeeperMessage::Leaving);
    }

    fn on_leaving(&mut self) {
        let Some((fences, by)) = &self.leaving else { return };
        let is_late = Instant::now() >= *by;
        if !is_late && !fences.iter().all(|fence| self.context.shards.is_left(*fence)) {
            self.post.send_after(LEAVING_STEP, || LeaseKeeperMessage::Leaving);
            return;
        }
        let Some(leases) = self.context.leases.clone() else { return };
        let (id, fences) = (self.context.policy.replica.id.clone(), fences.clone());
        let work = async move {
            in_time(leases.release(&id, &fences)).await?;
            // Whoever misses it looks at its next renewal.
            drop(in_time(leases.tell(&Signal::Shards)).await);
            Ok(fences)
        };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Released);
    }

    fn on_released(&mut self, result: Result<Vec<Fence>, StoreError>) {
        match result {
            Ok(fences) => {
                self.context.shards.gave_back(&fences);
                self.held.retain(|held| !fences.contains(held));
                self.leaving = None;
            }
            Err(reason) => {
                warn!("shards were not given back: {reason}");
                self.post.send_after(AGAIN, || LeaseKeeperMessage::Leaving);
            }
        }
    }

    fn on_lapsed(&mut self) {
        if self.context.shards.trusted_until().is_none() && !self.held.is_empty() {
            warn!(
                "the leases of this replica were not prolonged in time: nothing begins here until they are"
            );
            self.let_go();
        }
    }

    /// Hears one signal, then the next.
    fn listen(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        self.tasks.spawn(&self.post, async move { leases.hear().await }, LeaseKeeperMessage::Heard);
    }

    async fn on_heard(&mut self, signal: Signal) {
        match signal {
            Signal::Shards => {
                self.renew();
                self.ensure();
            }
            signal => Handle::new(self.context.clone()).heard(&signal),
        }
        self.listen();
    }

    /// Makes everyone exist who has work here, one look at a time.
    fn ensure(&mut self) {
        if self.context.directory.is_closed() {
            return;
        }
        if std::mem::replace(&mut self.ensuring, true) {
            self.ensure_again = true;
            return;
        }
        let context = self.context.clone();
        let work = async move {
            let done = start::ensure_all(&context).await.map_err(|reason| reason.to_string());
            for deliverer in context.directory.all::<DelivererMessage>(DELIVERER) {
                deliverer.send(DelivererMessage::CheckPending);
            }
            done
        };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Ensured);
    }

    fn on_ensured(&mut self, result: Result<(), String>) {
        self.ensuring = false;
        if let Err(reason) = result {
            warn!("what is to be done here could not be read: {reason}");
        }
        if std::mem::take(&mut self.ensure_again) {
            self.ensure();
        }
    }
}

#[cfg(test)]
mod tests;
