//! The circuit breaker of one source or endpoint: a thin shell around `breaker`. It exists only
//! while its thing has failures; a success that closes it ends it. Supervised by `breakers`,
//! restarted after a failure; its state is a row, so a crash or a restart loses nothing. A database that
//! does not answer is no failure of its own: what it owes to its row it does two seconds later.
//!
//! Its mailbox is bounded by the permits of its thing: one message per attempt or scan that was
//! allowed. It tells the deliverer or watcher that it guards what changed ([`BreakerNews`]); those
//! ask it nothing and wait for nothing.

mod breaker;
mod guarded;
mod row;

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::kind::BreakerKind;
use tracing::warn;

pub use breaker::{Breaker, BreakerState, Transition};
pub use guarded::{Guarded, endpoint_key, source_key};
pub(crate) use guarded::{is_of, repository_of};
use row::OwedToRow;

use crate::{
    context::Context,
    directory::{BREAKER_WORDS, DerivedPost, Directory, Gauge, Post},
    policy::BreakerPolicy,
    ports::StoreError,
    tasks::in_time,
    time::Timestamp,
    tree::CIRCUIT_BREAKER,
};

/// A probe that brought no answer after this long counts as lost.
const PROBE_DEADLINE: Duration = Duration::from_secs(120);
/// How often a deliverer is asked whether it has something to send as a probe, and the database for what
/// it did not do.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The last error of a breaker that an operator opened. A scan that an app asks for sends no probe of such a
/// breaker early.
pub const OPENED_BY_HAND: &str = "opened by hand";

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
    /// An app or an operator asked for a scan: the next probe is due now.
    ProbeAsked,
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

/// Finds the mailbox of the deliverer or the watcher that a breaker guards, if it runs.
pub type FindListener = fn(&Directory, &Guarded) -> Option<DerivedPost<BreakerNews>>;

/// What a breaker is made of. Its key is `endpoint:app_...` or `source:src_...@rep_...`.
#[derive(Clone)]
pub struct CircuitBreakerArguments {
    /// Ports and policies.
    pub context: Context,
    /// Its key.
    pub key: String,
    /// Who hears its news.
    pub listener: FindListener,
    /// Its gauge.
    pub gauge: Arc<Gauge>,
}

/// The state.
pub struct CircuitBreakerState {
    context: Context,
    post: Post<CircuitBreakerMessage>,
    key: String,
    guarded: Guarded,
    listener: FindListener,
    breaker: Breaker,
    armed: Option<Timestamp>,
    /// A message that asks again is armed.
    asks_again: bool,
    /// The row may say something else than `breaker`.
    is_stale: bool,
    owed: OwedToRow,
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
        let CircuitBreakerArguments { context, key, listener, gauge } = arguments;
        let guarded = Guarded::of(&key).ok_or("a breaker's key has a kind")?;
        let policy = policy_of(&context, guarded.kind());
        let post = Post::new(myself, gauge);
        Ok(CircuitBreakerState {
            breaker: Breaker::new(policy),
            armed: None,
            asks_again: false,
            is_stale: true,
            owed: OwedToRow::Nothing,
            guarded,
            listener,
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
                    breaker.kind = %self.guarded.kind(),
                    breaker.id = self.guarded.id(),
                    "the breaker of {} asks again in {ASK_AGAIN:?}: {reason}",
                    self.guarded
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
            M::ProbeUnused => self.owed.give_probe_back(),
            M::Failed | M::Subscribed | M::ProbeDue | M::ProbeWanted | M::ProbeAsked => {}
        }
        // What failed before this message was sent is counted before it.
        if self.catch_up(myself).await? {
            return Ok(());
        }
        match message {
            M::ProbeDue | M::AskAgain => self.on_probe_due(myself).await?,
            M::ProbeWanted => self.on_probe_wanted(myself).await?,
            M::ProbeAsked => {
                self.hasten().await?;
                self.on_probe_due(myself).await?;
            }
            M::Failed | M::Succeeded | M::Subscribed | M::ProbeUnused | M::Reset | M::Changed | M::LetGo => {}
        }
        Ok(())
    }

    /// What failed before it was not in a row.
    fn on_succeeded(&mut self) {
        self.context.directory.notes().forget(&self.key);
        self.owed = OwedToRow::Closing;
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
        if is_due && self.guarded.kind() == BreakerKind::Endpoint && !self.context.shards.is_sole() {
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
            let (kind, id) = (self.guarded.kind(), self.guarded.id());
            if !in_time(self.context.store.try_probe(kind, id, now, lost_at)).await? {
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
        if let Some(listener) = (self.listener)(&self.context.directory, &self.guarded) {
            // One that starts now asks where the breaker stands.
            listener.send(news);
        }
    }
}

fn policy_of(context: &Context, kind: BreakerKind) -> BreakerPolicy {
    match kind {
        BreakerKind::Source => context.policy.source_breaker,
        BreakerKind::Endpoint => context.policy.endpoint_breaker,
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
