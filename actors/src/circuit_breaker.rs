//! The circuit breaker of one source or endpoint: a thin shell around `breaker`. It exists only
//! while its thing has failures; a success that closes it ends it. Supervised by `breakers`,
//! restarted after a failure; its state is a row, so a crash or a restart loses nothing.
//!
//! Its mailbox is bounded by the permits of its thing: one message per attempt or scan that was
//! allowed. It tells the deliverer or watcher that it guards what changed ([`BreakerNews`]); those
//! ask it nothing and wait for nothing.

mod breaker;
mod notes;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::{sync::Arc, time::Duration};
use tidings_entity::{id::RepositoryId, kind::BreakerKind};
use tracing::{info, warn};

pub use breaker::{Breaker, BreakerPolicy, BreakerState, Transition};
pub use notes::{Failures, Notes};

use crate::{
    context::{Context, in_time},
    deliverer::DelivererMessage,
    directory::{BREAKER_WORDS, Gauge, Post},
    ports::{BreakerRow, Signal},
    repository_watcher::RepositoryWatcherMessage,
    time::Timestamp,
    tree::{CIRCUIT_BREAKER, DELIVERER, REPOSITORY_WATCHER},
};

/// A probe that brought no answer after this long counts as lost.
const PROBE_DEADLINE: Duration = Duration::from_secs(120);
/// How often a deliverer is asked whether it has something to send as a probe.
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
    /// The same, where its thing had nothing to send before.
    AskAgain,
    /// Its thing has something that could go as a probe.
    ProbeWanted,
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
    /// It asks in a while whether there is something to send.
    asks_again: bool,
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
        state.read().await?;
        state.on_failed().await?;
        state.say();
        if state.breaker.failures() == 0 {
            // Nothing failed after all: a success came first, or a late one called for it. Or it ended while
            // this one was away, and whoever still waits for the word of it hears it now.
            state.tell(BreakerNews::Closed);
            myself.stop(None);
        }
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
        // What failed before this message was sent is counted before it.
        state.on_failed().await?;
        match message {
            CircuitBreakerMessage::Failed => {}
            CircuitBreakerMessage::Succeeded => state.on_succeeded(&myself).await?,
            CircuitBreakerMessage::Subscribed => state.on_subscribed(),
            CircuitBreakerMessage::ProbeDue => state.on_probe_due(&myself).await?,
            CircuitBreakerMessage::AskAgain => {
                state.asks_again = false;
                state.on_probe_due(&myself).await?;
            }
            CircuitBreakerMessage::ProbeWanted => state.on_probe_wanted(&myself).await?,
            CircuitBreakerMessage::Reset => state.on_succeeded(&myself).await?,
            CircuitBreakerMessage::Changed => state.on_changed(&myself).await?,
            CircuitBreakerMessage::LetGo => myself.stop(None),
        }
        state.say();
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

    /// Takes what its row says, if there is one, and tells of it.
    async fn read(&mut self) -> Result<bool, ActorProcessingErr> {
        let rows = in_time(self.context.store.breakers()).await?;
        let Some(row) = rows.into_iter().find(|row| row.kind == self.kind && row.id == self.id) else {
            return Ok(false);
        };
        let policy = match self.kind {
            BreakerKind::Source => self.context.policy.source_breaker,
            BreakerKind::Endpoint => self.context.policy.endpoint_breaker,
        };
        self.breaker = Breaker::restored(policy, row.failures, row.opened_at, row.probe_at);
        self.last_error = row.last_error;
        self.armed = None;
        self.on_subscribed();
        Ok(true)
    }

    /// Another replica's word counts as much as one of this.
    async fn on_changed(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let was_open = self.breaker.state() != BreakerState::Closed;
        let is_known = self.read().await?;
        if was_open && (!is_known || self.breaker.state() == BreakerState::Closed) {
            self.tell(BreakerNews::Closed);
        }
        if !is_known {
            myself.stop(None);
        }
        Ok(())
    }

    /// Counts what was noted.
    async fn on_failed(&mut self) -> Result<(), ActorProcessingErr> {
        let Some(failures) = self.context.directory.notes().look(&self.key) else { return Ok(()) };
        self.last_error = failures.error;
        let mut changed = None;
        for _ in 0..failures.count {
            match self.breaker.on_failure(self.context.now(), failures.retry_after) {
                Transition::None => {}
                Transition::Opened => changed = Some(true),
                Transition::StillOpen | Transition::Closed => changed = changed.or(Some(false)),
            }
        }
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
        self.record().await?;
        self.context.directory.notes().counted(&self.key, failures.count);
        if let Some(fresh) = changed {
            self.tell_open(fresh);
            self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        }
        Ok(())
    }

    async fn on_succeeded(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let transition = self.breaker.on_success();
        self.record().await?;
        if transition == Transition::Closed {
            info!(breaker.kind = %self.kind, breaker.id = self.id, "the breaker of {} {} closed", self.kind, self.id);
        }
        self.tell(BreakerNews::Closed);
        self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        myself.stop(None);
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

    async fn on_probe_due(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
    ) -> Result<(), ActorProcessingErr> {
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
            if !std::mem::replace(&mut self.asks_again, true) {
                self.post.send_after(ASK_AGAIN, || CircuitBreakerMessage::AskAgain);
            }
            return Ok(());
        }
        self.on_probe_wanted(myself).await
    }

    async fn on_probe_wanted(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.now();
        if self.breaker.due().is_some_and(|due| due <= now) && !self.context.shards.is_sole() {
            // One probe of all replicas: whose clock is ahead takes it, the others hear how it went.
            let lost_at = now.after(PROBE_DEADLINE);
            if !in_time(self.context.store.try_probe(self.kind, &self.id, now, lost_at)).await? {
                return self.on_changed(myself).await;
            }
        }
        if self.breaker.try_probe(now, PROBE_DEADLINE) {
            self.tell(BreakerNews::ProbePermitted);
        }
        self.arm();
        Ok(())
    }

    async fn record(&self) -> Result<(), ActorProcessingErr> {
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
        Ok(in_time(self.context.store.record_breaker(&row)).await?)
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
