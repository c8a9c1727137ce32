//! Keeps this replica's leases: prolongs them at a third of their life, takes its share of what is
//! free, gives away what is more, hears what other replicas tell, tells them what they could not be told
//! before, and takes the keys that they hand on. Looks each second whether the terms of lanes changed that
//! run here ([`terms`](crate::terms)): while it is away lanes begin nothing any more.
//! Supervised by `housekeeping`, restarted after a failure; its mailbox is bounded by its own timers and
//! tasks, and by one signal at a time. What it believes stands in [`Shards`](crate::shards::Shards) and outlives it; while it is
//! away nothing is prolonged, belief ends by itself, and other replicas take over.
//!
//! It asks the database for one thing at a time, so that no answer is older than the one before it, and
//! waits for none longer than a third of a lease's life. How long a lease is believed in is
//! [`trusted_for`]'s word.
//!
//! A shard is given away when nothing goes on under it any more, or after the drain deadline at the
//! latest: what then still comes back is refused by the fence. Until then its lease is prolonged.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    context::{Context, Tasks},
    deliverer::DelivererMessage,
    directory::Post,
    handle::Handle,
    leases::{Step, step, trusted_for},
    ports::{Fence, LeaseStanding, Leases, Signal, StoreError},
    repository_watcher::RepositoryWatcherMessage,
    shards::Changes,
    start::{self, Look},
    terms,
    tree::{CIRCUIT_BREAKER, DELIVERER, REPOSITORY_WATCHER},
};

/// After trouble with the database.
const AGAIN: Duration = Duration::from_millis(500);
/// So long after a lease ended it is looked for.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// How often shards that are to be given away are looked at.
const LEAVING_STEP: Duration = Duration::from_millis(50);
/// The net below lost signals: whoever has work here is ensured this often, with what rows say now.
const SWEEP: Duration = Duration::from_secs(60);

/// What it is told.
#[derive(Debug)]
pub enum LeaseKeeperMessage {
    /// Prolong.
    Due,
    /// What another held may be free, or this one's own is in doubt.
    Look,
    /// How everything stands; asked for at this moment.
    Renewed(Instant, Result<Result<LeaseStanding, StoreError>, String>),
    /// What was taken; asked for at this moment.
    Claimed(Instant, Result<Result<Vec<Fence>, StoreError>, String>),
    /// Look whether what is to be given away is still.
    Leaving,
    /// It was given back, or not.
    Released(Result<Result<Vec<Fence>, StoreError>, String>),
    /// The others were told something.
    Told(Result<(), String>),
    /// Belief in a lease may have ended.
    Lapsed,
    /// Somebody told something.
    Heard(Result<Signal, String>),
    /// Look at the terms of the lanes here.
    LookAtTerms,
    /// That was done, or not.
    TermsSeen(Result<Result<(), StoreError>, String>),
    /// Ensure whoever has work here.
    Sweep,
    /// That was done, or not.
    Ensured(Look, Result<Result<(), String>, String>),
    /// It was not; again.
    EnsureAgain,
    /// The keyring is as the others', or not.
    KeysTaken(Result<Result<(), StoreError>, String>),
    /// This process ends: everything is given away, shard by shard.
    End,
}

/// The state.
pub struct LeaseKeeperState {
    context: Context,
    post: Post<LeaseKeeperMessage>,
    tasks: Tasks,
    /// The database was asked for something and has not answered.
    asking: bool,
    renewal_wanted: bool,
    /// So many shards are to be taken.
    wanted: usize,
    /// It looks again then: while the database refuses at once, looks must not multiply.
    look_at: Option<Instant>,
    /// It looks whether what is to be given away is still.
    leaving: bool,
    /// Nothing is given back before, after trouble.
    release_after: Instant,
    /// The others know that it is there.
    is_known: bool,
    ensuring: bool,
    /// What is to be ensured after that.
    ensure_again: Option<Look>,
    taking_keys: bool,
    take_keys_again: bool,
    /// The last look at the terms of lanes failed.
    is_blind: bool,
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
            asking: false,
            renewal_wanted: false,
            wanted: 0,
            look_at: None,
            leaving: false,
            release_after: Instant::now(),
            is_known: false,
            ensuring: false,
            ensure_again: None,
            taking_keys: false,
            take_keys_again: false,
            is_blind: false,
        };
        if state.context.leases.is_some() {
            state.post.send(LeaseKeeperMessage::Due);
            state.post.send_after(SWEEP, || LeaseKeeperMessage::Sweep);
            state.post.send(LeaseKeeperMessage::LookAtTerms);
            state.listen();
            // The one before this may have ended while it gave shards away.
            state.look_at_leaving();
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
            M::Sweep => {
                state.ensure(Look::All);
                state.take_keys();
                state.post.send_after(SWEEP, || M::Sweep);
            }
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
        self.post.send_after(third, || LeaseKeeperMessage::Due);
    }

    /// Looks again after `wait`, unless it does so sooner anyway.
    fn look_after(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        if self.look_at.is_none_or(|armed| at < armed) {
            self.look_at = Some(at);
            self.post.send_after(wait, || LeaseKeeperMessage::Look);
        }
    }

    fn on_look(&mut self) {
        // One that was armed before an earlier one took its place has nothing to do.
        if self.look_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.renew_soon();
        }
    }

    fn renew_soon(&mut self) {
        self.renewal_wanted = true;
        self.ask();
    }

    /// Asks the database for what is wanted most, if it is not busy with something.
    fn ask(&mut self) {
        let Some(leases) = self.context.leases.clone().filter(|_| !self.asking) else { return };
        if std::mem::take(&mut self.renewal_wanted) {
            return self.renew(leases);
        }
        if self.release_after <= Instant::now() {
            let left = self.context.shards.left(self.context.policy.leaving_max);
            if !left.is_empty() {
                return self.release(leases, left);
            }
        }
        let wanted = std::mem::take(&mut self.wanted);
        if wanted > 0 && !self.context.directory.is_closed() {
            self.claim(leases, wanted);
        }
    }

    fn renew(&mut self, leases: Arc<dyn Leases>) {
        self.asking = true;
        let (life, asked) = (self.context.policy.lease_life, Instant::now());
        let mut replica = self.context.policy.replica.clone();
        // What one that ends gives away is shared by the others alone.
        replica.works &= !self.context.directory.is_closed();
        let work = async move { within(life / 3, leases.renew(&replica, life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Renewed(asked, result));
    }

    fn on_renewed(&mut self, asked: Instant, result: Result<LeaseStanding, StoreError>) {
        self.asking = false;
        match result {
            Ok(standing) => {
                self.take_standing(asked, &standing);
                self.tell_untold();
            }
            Err(reason) => {
                warn!("the leases of this replica were not prolonged: {reason}");
                self.look_after(AGAIN);
            }
        }
        self.ask();
    }

    fn take_standing(&mut self, asked: Instant, standing: &LeaseStanding) {
        if !std::mem::replace(&mut self.is_known, true) {
            self.tell_of_shards();
        }
        if let Some(told) = standing.now {
            // It was said somewhere between the question and the answer.
            let half = asked.elapsed() / 2;
            self.context.clock.follow(told, asked + half, half);
        }
        if self.context.shards.shared_by(standing.workers) {
            self.divide();
        }
        let until = self.end_of(asked);
        let changes = self.context.shards.renewed(&standing.held, until);
        self.believe(until, &changes);
        if self.context.directory.is_closed() {
            return;
        }
        // A replica that lives prolongs long before: this one may be dead, and is not waited for longer.
        let third = self.context.policy.lease_life / 3;
        if let Some(wait) = standing.free_in.filter(|wait| *wait < third) {
            self.look_after(wait + LOOK_AFTER);
        }
        let (_, staying) = self.context.shards.held();
        match step(standing, staying, self.context.policy.replica.works) {
            Step::Stay => {}
            Step::Claim(count) => self.wanted = count,
            Step::Release(count) => self.give_away(count),
        }
    }

    /// What all replicas together may do is divided anew.
    fn divide(&self) {
        self.context.git.hosts().divide_by(self.context.shards.workers());
        for (_, deliverer) in self.context.directory.all::<DelivererMessage>(DELIVERER) {
            deliverer.send(DelivererMessage::Refresh);
        }
    }

    fn claim(&mut self, leases: Arc<dyn Leases>, count: usize) {
        self.asking = true;
        let (policy, asked) = (self.context.policy.clone(), Instant::now());
        let most = policy.lease_life / 3;
        let work =
            async move { within(most, leases.claim(&policy.replica.id, count, policy.lease_life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Claimed(asked, result));
    }

    fn on_claimed(&mut self, asked: Instant, result: Result<Vec<Fence>, StoreError>) {
        self.asking = false;
        match result {
            Ok(fences) if !fences.is_empty() => {
                info!(count = fences.len(), "this replica took {} shards", fences.len());
                let until = self.end_of(asked);
                let changes = self.context.shards.claimed(&fences, until);
                self.believe(until, &changes);
                if self.context.directory.is_closed() {
                    self.on_end();
                }
            }
            Ok(_) => {}
            Err(reason) => {
                warn!("free shards were not taken: {reason}");
                self.look_after(AGAIN);
            }
        }
        self.ask();
    }

    /// The others look at their next renewal if this is lost.
    fn tell_of_shards(&mut self) {
        let context = self.context.clone();
        let work = async move { context.tell_others(Signal::Shards).await };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Told);
    }

    fn end_of(&self, asked: Instant) -> Instant {
        asked + trusted_for(self.context.policy.lease_life)
    }

    fn believe(&mut self, until: Instant, changes: &Changes) {
        self.post.send_after(until.saturating_duration_since(Instant::now()), || LeaseKeeperMessage::Lapsed);
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

    /// Whoever works under a lease that does not stand any more lets go.
    fn let_go(&self) {
        let (directory, shards) = (&self.context.directory, &self.context.shards);
        for (_, deliverer) in directory.all::<DelivererMessage>(DELIVERER) {
            deliverer.send(DelivererMessage::LetGo);
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
            self.post.send(LeaseKeeperMessage::Leaving);
        }
    }

    fn on_leaving(&mut self) {
        self.ask();
        self.leaving = self.context.shards.is_leaving();
        if self.leaving {
            self.post.send_after(LEAVING_STEP, || LeaseKeeperMessage::Leaving);
        }
    }

    fn release(&mut self, leases: Arc<dyn Leases>, fences: Vec<Fence>) {
        self.asking = true;
        let (id, most) = (self.context.policy.replica.id.clone(), self.context.policy.lease_life / 3);
        let work = async move {
            within(most, leases.release(&id, &fences)).await?;
            // Whoever misses it looks at its next renewal.
            drop(within(most, leases.tell(&Signal::Shards)).await);
            Ok(fences)
        };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Released);
    }

    fn on_released(&mut self, result: Result<Vec<Fence>, StoreError>) {
        self.asking = false;
        match result {
            Ok(fences) => self.context.shards.gave_back(&fences),
            // What is still its own the next renewal tells, and then it is given back again.
            Err(reason) => {
                warn!("shards were not given back: {reason}");
                self.release_after = Instant::now() + AGAIN;
            }
        }
        self.ask();
    }

    /// What could not be told can be now: the database answers.
    fn tell_untold(&mut self) {
        if !self.context.untold.is_empty() {
            let context = self.context.clone();
            let work = async move { context.tell_untold().await };
            self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Told);
        }
    }

    /// Looks at the terms of the lanes here, then a while later again.
    fn look_at_terms(&mut self) {
        let context = self.context.clone();
        let work = async move { context.terms.look(context.store.as_ref(), None).await };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::TermsSeen);
    }

    fn on_terms_seen(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.is_blind = false,
            Err(reason) if !std::mem::replace(&mut self.is_blind, true) => {
                warn!(
                    "the terms of lanes could not be read; soon no delivery begins until they can be: {reason}"
                );
            }
            Err(_) => {}
        }
        for app in self.context.terms.ended() {
            if let Some(deliverer) = self.context.directory.find(DELIVERER, app.as_str()) {
                // One that ends now has no lanes.
                deliverer.send(DelivererMessage::LetGo);
            }
        }
        self.post.send_after(terms::LOOK, || LeaseKeeperMessage::LookAtTerms);
    }

    /// Hears one signal, then the next.
    fn listen(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        self.tasks.spawn(&self.post, async move { leases.hear().await }, LeaseKeeperMessage::Heard);
    }

    fn on_heard(&mut self, signal: Signal) {
        match signal {
            Signal::Shards => self.renew_soon(),
            Signal::Missed => {
                self.renew_soon();
                self.ensure(Look::All);
                self.take_keys();
            }
            Signal::Keys => self.take_keys(),
            signal => Handle::new(self.context.clone()).heard(&signal),
        }
        self.listen();
    }

    /// Takes keys of the keyring that the others handed on, one look at a time.
    fn take_keys(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        if std::mem::replace(&mut self.taking_keys, true) {
            self.take_keys_again = true;
            return;
        }
        let work = async move { leases.take_keys().await };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::KeysTaken);
    }

    fn on_keys_taken(&mut self, result: Result<(), StoreError>) {
        self.taking_keys = false;
        if let Err(reason) = result {
            warn!("the keyring is not as that of the other replicas: {reason}");
        }
        if std::mem::take(&mut self.take_keys_again) {
            self.take_keys();
        }
    }

    /// Makes everyone exist who has work here, one look at a time.
    fn ensure(&mut self, look: Look) {
        if self.context.directory.is_closed() {
            return;
        }
        if std::mem::replace(&mut self.ensuring, true) {
            self.ensure_again = self.ensure_again.max(Some(look));
            return;
        }
        let context = self.context.clone();
        let work =
            async move { start::ensure_all(&context, look).await.map_err(|reason| reason.to_string()) };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Ensured(look, result));
    }

    fn on_ensured(&mut self, look: Look, result: Result<(), String>) {
        if let Err(reason) = result {
            warn!("what is to be done here could not be read: {reason}");
            // Nobody else would make those exist whose work was gained just now.
            self.ensure_again = self.ensure_again.max(Some(look));
            self.post.send_after(AGAIN, || LeaseKeeperMessage::EnsureAgain);
            return;
        }
        self.on_ensure_again();
    }

    fn on_ensure_again(&mut self) {
        self.ensuring = false;
        if let Some(look) = self.ensure_again.take() {
            self.ensure(look);
        }
    }
}

/// A verb of leases that took longer counts as failed: what it did the next renewal tells.
async fn within<T>(
    most: Duration,
    verb: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {most:?}"));
    timeout(most, verb).await.map_err(late)?
}

#[cfg(test)]
mod tests;
