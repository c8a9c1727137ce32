//! The circuit breaker of one source or endpoint: a thin shell around `breaker`. The actor exists only while
//! that source or endpoint has failures; a success that closes the breaker ends the actor. Supervised by
//! `breakers`, restarted after a failure; its state is a row, so a crash or a restart loses nothing. A
//! database that does not answer does not restart the actor: a write of the row that failed is repeated two
//! seconds later.
//!
//! The mailbox is bounded by the permits of the source or endpoint: one message per attempt or scan that was
//! allowed. The breaker tells the deliverer or watcher that it guards each change of state ([`BreakerNews`]);
//! the deliverer or watcher sends no questions and waits for no answer.

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
    context::{Context, policy::BreakerPolicy},
    ports::StoreError,
    supervision::{
        directory::{BREAKER_WORDS, DerivedMailbox, Directory, Gauge, Mailbox},
        tasks::in_time,
        tree::CIRCUIT_BREAKER,
    },
    time::Timestamp,
};

/// A probe that brought no answer after this long counts as lost.
const PROBE_DEADLINE: Duration = Duration::from_secs(120);
/// The wait before the breaker asks its deliverer again for something to send as a probe, and before it
/// repeats a write of its row that failed.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The last error of a breaker that an operator opened. A scan that an app asks for sends no probe of such a
/// breaker early.
pub const OPENED_BY_HAND: &str = "opened by hand";

/// Messages to the breaker of one source or endpoint.
#[derive(Debug)]
pub enum CircuitBreakerMessage {
    /// Permitted attempts or scans failed; the notes of
    /// [`signals::failure_counts`](crate::signals::failure_counts) say how many and why.
    Failed,
    /// A permitted attempt or scan succeeded.
    Succeeded,
    /// The watcher or deliverer (re)started and asks for the present state.
    Subscribed,
    /// The next probe may be due.
    ProbeDue,
    /// The next probe may be due for a watcher or deliverer that had nothing to send before; or a write or
    /// read of the row is repeated.
    AskAgain,
    /// The watcher or deliverer has something to send as a probe.
    ProbeWanted,
    /// An app or an operator asked for a scan: the next probe is due now.
    ProbeAsked,
    /// The permitted probe was not sent: the watcher or deliverer has nothing to send here any more.
    ProbeUnused,
    /// A person closed the breaker through the API.
    Reset,
    /// Another replica changed the row of the breaker.
    Changed,
    /// Another replica works on the source or app now.
    LetGo,
}

/// The news of a breaker for its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerNews {
    /// The breaker is open and rejects requests.
    Opened {
        /// Whether the breaker opened with this failure; `false`: it was open before.
        fresh: bool,
        /// Failures in a row.
        failures: u32,
        /// When the next probe is due.
        probe_at: Timestamp,
    },
    /// A probe is due: is there something that could go?
    ProbeDue,
    /// The breaker is half open: one probe may be sent.
    ProbePermitted,
    /// The breaker closed: requests flow.
    Closed,
}

/// Finds the mailbox of the deliverer or the watcher that a breaker guards, if it runs.
pub type FindListener = fn(&Directory, &Guarded) -> Option<DerivedMailbox<BreakerNews>>;

/// The arguments that a breaker starts from. Its key is `endpoint:app_...` or `source:src_...@rep_...`.
#[derive(Clone)]
pub struct CircuitBreakerArguments {
    /// The ports, the policies and the address book.
    pub context: Context,
    /// The key of the breaker in the directory.
    pub key: String,
    /// Finds the watcher or deliverer that gets the news of the breaker.
    pub listener: FindListener,
    /// Counts the messages and restarts of the actor.
    pub gauge: Arc<Gauge>,
}

/// The state of the actor between two messages.
pub struct CircuitBreakerState {
    context: Context,
    mailbox: Mailbox<CircuitBreakerMessage>,
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

/// The actor that keeps one breaker.
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
        let mailbox = Mailbox::new(myself, gauge);
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
            mailbox,
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
        let gauge = state.mailbox.gauge().clone();
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
    /// Shows the present state in the directory, for the live tree.
    fn say(&self) {
        let [closed, open, half_open] = BREAKER_WORDS;
        self.mailbox.gauge().say(match self.breaker.state() {
            BreakerState::Closed => closed,
            BreakerState::Open { .. } => open,
            BreakerState::HalfOpen { .. } => half_open,
        });
    }

    /// Ends the handling of a message: a failed write or read of the row is repeated after [`ASK_AGAIN`].
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
            // A breaker with a stale row tells its state later, when `catch_up` has read the row.
            M::Subscribed if !self.is_stale => self.on_subscribed(),
            M::AskAgain => self.asks_again = false,
            M::ProbeUnused => self.owed.give_probe_back(),
            M::Failed | M::Subscribed | M::ProbeDue | M::ProbeWanted | M::ProbeAsked => {}
        }
        // Failures that were noted before this message was sent are counted before the message is handled.
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

    /// Forgets the failures before the success: they no longer count as failures in a row.
    fn on_succeeded(&mut self) {
        self.context.directory.failures().forget(&self.key);
        self.owed = OwedToRow::Closing;
    }

    /// The watcher or deliverer has just started, so a probe that was permitted earlier ended with its
    /// predecessor. It gets a permit now, instead of waiting until that probe counts as lost.
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
            // Another replica has the shard of the source: its breaker sends the probe.
            myself.stop(None);
            return Ok(());
        }
        let now = self.context.now();
        let is_due = self.breaker.due().is_some_and(|due| due <= now);
        if is_due && self.guarded.kind() == BreakerKind::Endpoint && !self.context.shards.is_sole() {
            // Each replica asks its deliverer; the first replica that has something to send takes the probe.
            self.tell(BreakerNews::ProbeDue);
            self.ask_again();
            return Ok(());
        }
        self.on_probe_wanted(myself).await
    }

    fn ask_again(&mut self) {
        if !std::mem::replace(&mut self.asks_again, true) {
            self.mailbox.send_after(ASK_AGAIN, || CircuitBreakerMessage::AskAgain);
        }
    }

    async fn on_probe_wanted(&mut self, myself: &ActorRef<CircuitBreakerMessage>) -> Result<(), StoreError> {
        let now = self.context.now();
        if self.breaker.due().is_some_and(|due| due <= now) && !self.context.shards.is_sole() {
            // The row grants one probe for all replicas: the first to write the row sends the probe. The
            // others read its result.
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

    /// Arms a timer for the moment when the next probe is due.
    fn arm(&mut self) {
        if let Some(due) = self.breaker.due()
            && self.armed.is_none_or(|armed| due < armed)
        {
            self.armed = Some(due);
            self.mailbox.send_after(due.since(self.context.now()), || CircuitBreakerMessage::ProbeDue);
        }
    }

    fn tell(&self, news: BreakerNews) {
        if let Some(listener) = (self.listener)(&self.context.directory, &self.guarded) {
            // A listener that is just starting is not found here: it asks for the state with `Subscribed`.
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

/// Reports the result of an attempt or a scan to the breaker with this key. A failure starts the breaker if
/// it does not run; a success without a running breaker is ignored.
pub fn report(context: &Context, key: &str, outcome: Result<(), (String, Option<Duration>)>) {
    let found = context.directory.find::<CircuitBreakerMessage>(CIRCUIT_BREAKER, key);
    match outcome {
        Ok(()) => {
            if !found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Succeeded)) {
                context.directory.failures().forget(key);
            }
        }
        Err((error, retry_after)) => {
            context.directory.failures().add(key, error, retry_after);
            if !found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Failed)) {
                context.ensure_breaker(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
