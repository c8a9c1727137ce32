//! The circuit breaker of one source or endpoint: a thin shell around `breaker`. It exists only
//! while its thing has failures; a success that closes it ends it. Supervised by `breakers`,
//! restarted after a failure; its state is a row, so a crash or a restart loses nothing. A database that
//! does not answer is no failure of its own: what it owes to its row it does two seconds later.
//!
//! Its mailbox is bounded by the permits of its thing: one message per attempt or scan that was
//! allowed. It tells the deliverer or watcher that it guards what changed ([`BreakerNews`]); those
//! ask it nothing and wait for nothing.

mod breaker;
mod notes;

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::{id::RepositoryId, kind::BreakerKind};
use tracing::{info, warn};

pub use breaker::{Breaker, BreakerPolicy, BreakerState, Transition};
pub use notes::{Failures, Notes};

use crate::{
    context::{Context, in_time},
    deliverer::DelivererMessage,
    directory::{BREAKER_WORDS, Gauge, Post},
    ports::{BreakerRow, Signal, StoreError},
    repository_watcher::RepositoryWatcherMessage,
    time::Timestamp,
    tree::{CIRCUIT_BREAKER, DELIVERER, REPOSITORY_WATCHER},
};

/// A probe that brought no answer after this long counts as lost.
const PROBE_DEADLINE: Duration = Duration::from_secs(120);
/// How often a deliverer is asked whether it has something to send as a probe, and the database for what
/// it did not do.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What a breaker is told.
#[derive(Debug)]
pub enum CircuitBreakerMessage {
    /// Permitted tries failed; what is known of them is noted.
    Failed,
    /// A try succeeded.
    Succeeded,
    /// Its thing (re)started and wants to know where it stands.
    Subscribed,
    /// A probe may be due.
    ProbeDue,
    /// The same, where its thing had nothing to send before; and what could not be written or read.
    AskAgain,
    /// Its thing has something that could go as a probe.
    ProbeWanted,
    /// The probe that was permitted did not go: its thing has nothing to send here any more.
    ProbeUnused,
    /// By hand: close.
    Reset,
    /// Another replica changed the row.
    Changed,
    /// Another replica works on its source now.
    LetGo,
}

/// What a breaker tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerNews {
    /// It is open; `fresh` when it opened just now.
    Opened {
        /// Whether it opened just now.
        fresh: bool,
        /// Failures in a row.
        failures: u32,
        /// When the next probe is due.
        probe_at: Timestamp,
    },
    /// A probe is due: is there something that could go?
    ProbeDue,
    /// One probe may go.
    ProbePermitted,
    /// It closed.
    Closed,
}

/// What a breaker is made of. Its key is `endpoint:app_...` or `source:src_...@rep_...`.
#[derive(Clone)]
pub struct CircuitBreakerArguments {
    /// Ports and policies.
    pub context: Context,
    /// Its key.
    pub key: String,
    /// Its gauge.
    pub gauge: Arc<Gauge>,
}

/// The key of an endpoint's breaker.
#[must_use]
pub fn endpoint_key(app: &str) -> String {
    format!("endpoint:{app}")
}

/// The key of a source's breaker; the repository finds the watcher.
#[must_use]
pub fn source_key(source: &str, repository: &str) -> String {
    format!("source:{source}@{repository}")
}

/// Whether a row is that of the breaker with this key.
#[must_use]
pub(crate) fn is_of(key: &str, kind: BreakerKind, id: &str) -> bool {
    let Some((of, rest)) = key.split_once(':') else { return false };
    of == kind.as_str() && rest.split_once('@').map_or(rest, |(id, _)| id) == id
}

/// The repository in the key of a source's breaker.
#[must_use]
pub(crate) fn repository_of(key: &str) -> Option<RepositoryId> {
    key.split_once('@').and_then(|(_, repository)| repository.parse().ok())
}

/// The state.
pub struct CircuitBreakerState {
    context: Context,
    post: Post<CircuitBreakerMessage>,
    key: String,
    kind: BreakerKind,
    /// What its row is named by: the app, or the source.
    id: String,
    /// Whom it tells: the app, or the repository of the source.
    guarded: String,
    breaker: Breaker,
    armed: Option<Timestamp>,
    /// It asks again in a while.
    asks_again: bool,
    /// Its row may say something else.
    is_stale: bool,
    /// A success is not written yet.
    is_closing: bool,
    /// Nor that a probe did not go.
    gives_back: bool,
    last_error: String,
}

/// The actor.
pub struct CircuitBreaker;

#[ractor::async_trait]
impl Actor for CircuitBreaker {
    type Msg = CircuitBreakerMessage;
    type State = CircuitBreakerState;
    type Arguments = CircuitBreakerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let CircuitBreakerArguments { context, key, gauge } = arguments;
        let (kind, id) = key.split_once(':').ok_or("a breaker's key has a kind")?;
        let kind: BreakerKind = kind.parse()?;
        let (id, guarded) = id.split_once('@').unwrap_or((id, id));
        let (id, guarded) = (id.to_owned(), guarded.to_owned());
        let policy = match kind {
            BreakerKind::Source => context.policy.source_breaker,
            BreakerKind::Endpoint => context.policy.endpoint_breaker,
        };
        let post = Post::new(myself, gauge);
        Ok(CircuitBreakerState {
            breaker: Breaker::new(policy),
            armed: None,
            asks_again: false,
            is_stale: true,
            is_closing: false,
            gives_back: false,
            kind,
            id,
            guarded,
            key,
            last_error: String::new(),
            context,
            post,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let began = state.catch_up(&myself).await.map(drop);
        state.settle(began);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let gauge = state.post.gauge().clone();
        let _busy = gauge.begin();
        let done = state.attend(&myself, message).await;
        state.settle(done);
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

impl CircuitBreakerState {
    /// Shows how it stands.
    fn say(&self) {
        let [closed, open, half_open] = BREAKER_WORDS;
        self.post.gauge().say(match self.breaker.state() {
            BreakerState::Closed => closed,
            BreakerState::Open { .. } => open,
            BreakerState::HalfOpen { .. } => half_open,
        });
    }

    /// What came of a message. What the database did not do is done in a while.
    fn settle(&mut self, done: Result<(), StoreError>) {
        match done {
            Ok(()) => {}
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => {
                warn!(
                    breaker.kind = %self.kind, breaker.id = self.id,
                    "the breaker of {} {} asks again in {ASK_AGAIN:?}: {reason}", self.kind, self.id
                );
                self.ask_again();
            }
        }
        self.say();
    }

    async fn attend(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
        message: CircuitBreakerMessage,
    ) -> Result<(), StoreError> {
        use CircuitBreakerMessage as M;
        match message {
            M::LetGo => {
                myself.stop(None);
                return Ok(());
            }
            M::Succeeded | M::Reset => self.on_succeeded(),
            M::Changed => self.is_stale = true,
            // What it does not know yet it tells when it does.
            M::Subscribed if !self.is_stale => self.on_subscribed(),
            M::AskAgain => self.asks_again = false,
            M::ProbeUnused => self.gives_back = true,
            M::Failed | M::Subscribed | M::ProbeDue | M::ProbeWanted => {}
        }
        // What failed before this message was sent is counted before it.
        if self.catch_up(myself).await? {
            return Ok(());
        }
        match message {
            M::ProbeDue | M::AskAgain => self.on_probe_due(myself).await?,
            M::ProbeWanted => self.on_probe_wanted(myself).await?,
            M::Failed | M::Succeeded | M::Subscribed | M::ProbeUnused | M::Reset | M::Changed | M::LetGo => {}
        }
        Ok(())
    }

    /// Does what is owed: closes, looks at its row, counts what was noted, gives a probe back. Whether it ended
    /// with that.
    async fn catch_up(&mut self, myself: &ActorRef<CircuitBreakerMessage>) -> Result<bool, StoreError> {
        if self.is_closing {
            self.close().await?;
        }
        if self.is_stale {
            self.refresh().await?;
        }
        self.count().await?;
        let ends = self.breaker.failures() == 0;
        if ends {
            // It closed, or nothing failed after all: a success came first, or a late one called for it. Or
            // it ended while this one was away, and whoever still waits for the word of it hears it now.
            self.tell(BreakerNews::Closed);
            myself.stop(None);
            return Ok(true);
        }
        self.bound().await?;
        if self.gives_back {
            self.give_back().await?;
        }
        Ok(false)
    }

    /// A clock that was set back keeps nobody waiting. Written, because nobody else would be let through
    /// before the moment in the row.
    async fn bound(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        if self.breaker.bound(self.context.now()) {
            self.record().await.inspect_err(|_| self.breaker = before)?;
            self.arm();
        }
        Ok(())
    }

    /// Takes what its row says, if there is one, and tells of it. Another replica's word counts as much as
    /// one of this.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        let was_open = self.breaker.state() != BreakerState::Closed;
        let rows = in_time(self.context.store.breakers()).await?;
        self.is_stale = false;
        let policy = match self.kind {
            BreakerKind::Source => self.context.policy.source_breaker,
            BreakerKind::Endpoint => self.context.policy.endpoint_breaker,
        };
        self.armed = None;
        match rows.into_iter().find(|row| row.kind == self.kind && row.id == self.id) {
            Some(row) => {
                // What a peer asked for is never more than the cap, nor is a wait of the policy's own longer.
                let patience = policy.last_wait.max(self.context.policy.retry_cap).max(PROBE_DEADLINE);
                let (opened_at, probe_at, now) = (row.opened_at, row.probe_at, self.context.now());
                self.breaker = Breaker::restored(policy, row.failures, opened_at, probe_at, patience, now);
                self.last_error = row.last_error;
                self.on_subscribed();
            }
            None => self.breaker = Breaker::new(policy),
        }
        if was_open && self.breaker.state() == BreakerState::Closed {
            self.tell(BreakerNews::Closed);
        }
        Ok(())
    }

    /// Counts what was noted. What could not be written stays noted.
    async fn count(&mut self) -> Result<(), StoreError> {
        let Some(failures) = self.context.directory.notes().look(&self.key) else { return Ok(()) };
        let (before, mut changed) = (self.breaker, None);
        for _ in 0..failures.count {
            match self.breaker.on_failure(self.context.now(), failures.retry_after) {
                Transition::None => {}
                Transition::Opened => changed = Some(true),
                Transition::StillOpen | Transition::Closed => changed = changed.or(Some(false)),
            }
        }
        // Where it is open already, late failures say nothing new; what is known here may be older than the
        // row, which another replica writes too.
        if self.breaker != before {
            self.last_error = failures.error;
            self.record().await.inspect_err(|_| self.breaker = before)?;
        }
        self.context.directory.notes().counted(&self.key, failures.count);
        if changed == Some(true) {
            warn!(
                breaker.kind = %self.kind,
                breaker.id = self.id,
                "the breaker of {} {} opened after {} failures: {}",
                self.kind,
                self.id,
                self.breaker.failures(),
                self.last_error
            );
        }
        if let Some(fresh) = changed {
            self.tell_open(fresh);
            self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        }
        Ok(())
    }

    /// What failed before it was not in a row.
    fn on_succeeded(&mut self) {
        self.context.directory.notes().forget(&self.key);
        self.is_closing = true;
    }

    /// Writes that it is closed, and says so.
    async fn close(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        let transition = self.breaker.on_success();
        self.record().await.inspect_err(|_| self.breaker = before)?;
        (self.is_closing, self.is_stale) = (false, false);
        if transition == Transition::Closed {
            info!(breaker.kind = %self.kind, breaker.id = self.id, "the breaker of {} {} closed", self.kind, self.id);
        }
        self.tell(BreakerNews::Closed);
        self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        Ok(())
    }

    /// Whoever subscribes has just begun: a probe that was permitted before went with the one before it,
    /// or was told to nobody. It has the permit now, instead of waiting until that probe counts as lost.
    fn on_subscribed(&mut self) {
        if self.breaker.state() != BreakerState::Closed {
            self.tell_open(false);
        }
        if matches!(self.breaker.state(), BreakerState::HalfOpen { .. }) {
            self.tell(BreakerNews::ProbePermitted);
        }
    }

    async fn on_probe_due(&mut self, myself: &ActorRef<CircuitBreakerMessage>) -> Result<(), StoreError> {
        self.armed = None;
        if repository_of(&self.key).is_some_and(|repository| !self.context.shards.owns(&repository)) {
            // Whoever works on the source probes it.
            myself.stop(None);
            return Ok(());
        }
        let now = self.context.now();
        let is_due = self.breaker.due().is_some_and(|due| due <= now);
        if is_due && self.kind == BreakerKind::Endpoint && !self.context.shards.is_sole() {
            // Of all replicas one that has something to send takes the probe.
            self.tell(BreakerNews::ProbeDue);
            self.ask_again();
            return Ok(());
        }
        self.on_probe_wanted(myself).await
    }

    fn ask_again(&mut self) {
        if !std::mem::replace(&mut self.asks_again, true) {
            self.post.send_after(ASK_AGAIN, || CircuitBreakerMessage::AskAgain);
        }
    }

    async fn on_probe_wanted(&mut self, myself: &ActorRef<CircuitBreakerMessage>) -> Result<(), StoreError> {
        let now = self.context.now();
        if self.breaker.due().is_some_and(|due| due <= now) && !self.context.shards.is_sole() {
            // One probe of all replicas: whose clock is ahead takes it, the others hear how it went.
            let lost_at = now.after(PROBE_DEADLINE);
            if !in_time(self.context.store.try_probe(self.kind, &self.id, now, lost_at)).await? {
                self.is_stale = true;
                return self.catch_up(myself).await.map(drop);
            }
        }
        if self.breaker.try_probe(now, PROBE_DEADLINE) {
            self.tell(BreakerNews::ProbePermitted);
        }
        self.arm();
        Ok(())
    }

    /// The others are asked at once, this one's deliverer after a while.
    async fn give_back(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        let gave = self.breaker.give_probe_back(self.context.now());
        if gave {
            self.record().await.inspect_err(|_| self.breaker = before)?;
        }
        self.gives_back = false;
        if gave {
            self.context.tell_others(Signal::Breaker(self.key.clone())).await;
            self.ask_again();
        }
        Ok(())
    }

    async fn record(&self) -> Result<(), StoreError> {
        let (opened_at, probe_at) = match self.breaker.state() {
            BreakerState::Closed => (None, None),
            BreakerState::Open { opened_at, probe_at } => (Some(opened_at), Some(probe_at)),
            BreakerState::HalfOpen { opened_at, lost_at } => (Some(opened_at), Some(lost_at)),
        };
        let row = BreakerRow {
            kind: self.kind,
            id: self.id.clone(),
            failures: self.breaker.failures(),
            opened_at,
            probe_at,
            last_error: self.last_error.clone(),
        };
        in_time(self.context.store.record_breaker(&row)).await
    }

    fn tell_open(&mut self, fresh: bool) {
        if let Some(probe_at) = self.breaker.due() {
            self.tell(BreakerNews::Opened { fresh, failures: self.breaker.failures(), probe_at });
        }
        self.arm();
    }

    /// Wakes itself when something may happen next.
    fn arm(&mut self) {
        if let Some(due) = self.breaker.due()
            && self.armed.is_none_or(|armed| due < armed)
        {
            self.armed = Some(due);
            self.post.send_after(due.since(self.context.now()), || CircuitBreakerMessage::ProbeDue);
        }
    }

    fn tell(&self, news: BreakerNews) {
        match self.kind {
            BreakerKind::Endpoint => {
                if let Some(deliverer) = self.context.directory.find(DELIVERER, &self.guarded) {
                    deliverer.send(DelivererMessage::Breaker(news));
                }
            }
            BreakerKind::Source => {
                let source = self.id.clone();
                if let Some(watcher) = self.context.directory.find(REPOSITORY_WATCHER, &self.guarded) {
                    watcher.send(RepositoryWatcherMessage::Breaker(source, news));
                }
            }
        }
    }
}

/// Tells the breaker with this key how a try went; makes it exist if it must. A success with no
/// breaker around needs none.
pub fn report(context: &Context, key: &str, outcome: Result<(), (String, Option<Duration>)>) {
    let found = context.directory.find::<CircuitBreakerMessage>(CIRCUIT_BREAKER, key);
    match outcome {
        Ok(()) => {
            if !found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Succeeded)) {
                context.directory.notes().forget(key);
            }
        }
        Err((error, retry_after)) => {
            context.directory.notes().add(key, error, retry_after);
            if !found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Failed)) {
                context.ensure_breaker(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
