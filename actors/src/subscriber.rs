//! Sends the entries of a ledger to one subscription: one message at a time, each again until the sink took
//! or refused it. Supervised by `apps`, restarted after a failure, ends when nothing is left to send. Only
//! the replica that holds the shard of the app runs it; what a former one still writes is refused by the
//! fence.
//!
//! What to do next and what an answer means is decided in [`course`], pure. Rows and the network are tasks of
//! this actor, one at a time, each of which comes back as one message. Its mailbox is bounded by that task,
//! its timers and the word of its breaker; a wake only sets a flag.
//!
//! A crash loses nothing but what was on its way: the position is a row, which moves after the answer. So a
//! message may be sent twice, with the same id, and none is passed over.
//!
//! Invariants: nothing is sent before what was sent before it is done with on disk; while the breaker of the
//! sink is open only its probe goes out.

pub mod course;
mod driving;
pub mod rounds;

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    circuit_breaker::{self, BreakerNews, CircuitBreakerMessage},
    context::Context,
    deliverer::{
        gate::{Gate, Pass},
        retry::RetryRules,
    },
    directory::{Gauge, Post},
    ports::{AttemptOutcome, Endpoint, Gap, Store, StoreError, SubscriptionWork, sink_of},
    shards::Hold,
    tasks::Tasks,
    time::Timestamp,
    tree::CIRCUIT_BREAKER,
};
use course::Next;

/// One without work for this long ends.
const IDLE_END: Duration = Duration::from_secs(30);
/// The wait before rows that could not be read or written are read again.
const AGAIN: Duration = Duration::from_secs(2);
/// Entries that are read at once.
const PIECE: u64 = 64;

/// What the actor of a subscription is told.
#[derive(Debug)]
pub enum SubscriberMessage {
    /// Its row changed: it reads the row again before it does anything else.
    Refresh,
    /// The rows of this app changed: if the subscription is of this app, the same.
    AppChanged(AppId),
    /// Entries may wait for it.
    Look,
    /// Its rows were read.
    Read(Result<Result<Option<Box<SubscriptionWork>>, StoreError>, String>),
    /// A message was answered.
    Answered(Result<Answered, String>),
    /// What became of a message was written. `false`: somebody moved the position meanwhile.
    Noted(Result<Result<bool, StoreError>, String>),
    /// A wait is over.
    Due,
    /// The breaker of its sink changed.
    Breaker(BreakerNews),
    /// End if nothing was to be done for a while.
    EndIfIdle,
    /// Send nothing new, write what was answered, then reply.
    Drain(RpcReplyPort<()>),
}

/// One try that ended.
#[derive(Debug)]
pub struct Answered {
    pass: Pass,
    is_probe: bool,
    content: Content,
    message: String,
    at: Timestamp,
    /// `None`: it did not go, because the right to send it had ended.
    outcome: Option<AttemptOutcome>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug)]
enum Content {
    Entry { number: i64, at: Timestamp },
    Gap(Gap),
}

/// What the actor of a subscription is made of.
#[derive(Clone)]
pub struct SubscriberArguments {
    /// Ports and policies.
    pub context: Context,
    /// The subscription whose entries the actor sends.
    pub subscription: SubscriptionId,
    /// Its gauge.
    pub gauge: Arc<Gauge>,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Its rows are being read.
    Reading,
    /// A message is on its way.
    Sending,
    /// What became of a message is being written.
    Writing,
    /// Neither of these.
    Still,
}

/// The rows, and the right to work on them.
struct Work {
    rows: Box<SubscriptionWork>,
    endpoint: Option<Arc<Endpoint>>,
    rules: RetryRules,
    hold: Arc<Hold>,
    /// The store under the fence of that right.
    store: Arc<dyn Store>,
}

/// What was read last, and the one task that is under way. The position is in the rows.
pub struct SubscriberState {
    context: Context,
    id: SubscriptionId,
    breaker: String,
    post: Post<SubscriberMessage>,
    tasks: Tasks,
    gate: Gate,
    mode: Mode,
    work: Option<Work>,
    /// The rows are to be read again before anything else.
    is_stale: bool,
    /// Nothing goes out before.
    wait_until: Option<Instant>,
    /// Answers to the message at the head that were about this message.
    refusals: u32,
    idle_since: Option<Instant>,
    drained: Option<RpcReplyPort<()>>,
    is_draining: bool,
}

/// The actor that sends the entries of one subscription.
pub struct Subscriber;

#[ractor::async_trait]
impl Actor for Subscriber {
    type Msg = SubscriberMessage;
    type State = SubscriberState;
    type Arguments = SubscriberArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let SubscriberArguments { context, subscription: id, gauge } = arguments;
        let post = Post::new(myself, gauge);
        post.send(SubscriberMessage::Refresh);
        Ok(SubscriberState {
            breaker: circuit_breaker::endpoint_key(sink_of(&id).as_str()),
            gate: Gate::new(Timestamp(0), 1),
            is_draining: context.directory.is_closed(),
            context,
            id,
            post,
            tasks: Tasks::default(),
            mode: Mode::Still,
            work: None,
            is_stale: true,
            wait_until: None,
            refusals: 0,
            idle_since: None,
            drained: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use SubscriberMessage as M;
        let gauge = state.post.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Refresh => state.is_stale = true,
            M::AppChanged(app) => state.on_app_changed(&app),
            M::Look => state.on_look(),
            M::Read(result) => state.on_read(&myself, result?),
            M::Answered(answered) => state.on_answered(answered?),
            M::Noted(result) => state.on_noted(&myself, result?),
            M::Due => {}
            M::Breaker(news) => state.on_breaker(&news),
            M::EndIfIdle => state.on_end_if_idle(&myself),
            M::Drain(reply) => state.on_drain(reply),
        }
        state.drive(&myself);
        state.end_drain();
        gauge.say(match state.mode {
            Mode::Reading | Mode::Writing => "at its rows",
            Mode::Sending => "sending",
            Mode::Still if state.gate.is_open() => "waits for its breaker",
            Mode::Still if state.idle_since.is_some() => "idle",
            Mode::Still => "waits",
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

impl SubscriberState {
    fn on_app_changed(&mut self, app: &AppId) {
        // One that reads its rows just now may have read them before the change.
        self.is_stale |= self.work.as_ref().is_none_or(|work| work.rows.app.id == *app);
    }

    /// Rows that are read are worked on first.
    fn on_look(&mut self) {
        if self.mode == Mode::Still {
            self.is_stale = true;
            if self.gate.is_open() {
                // A permit for the probe may have been lost.
                self.tell_breaker(CircuitBreakerMessage::Subscribed);
            }
        }
    }

    fn on_read(
        &mut self,
        myself: &ActorRef<SubscriberMessage>,
        result: Result<Option<Box<SubscriptionWork>>, StoreError>,
    ) {
        self.mode = Mode::Still;
        match result {
            Ok(Some(rows)) => self.take(myself, rows),
            Ok(None) => {
                info!(subscription.id = %self.id, "{} is gone", self.id);
                self.reset_breaker();
                myself.stop(None);
            }
            Err(reason) => self.read_later(&reason),
        }
    }

    fn on_noted(&mut self, myself: &ActorRef<SubscriberMessage>, result: Result<bool, StoreError>) {
        self.mode = Mode::Still;
        match result {
            Ok(true) => {}
            Ok(false) => self.is_stale = true,
            // Whoever works on it now, or removed it, needs nothing from here.
            Err(StoreError::Lost | StoreError::NotFound) => myself.stop(None),
            Err(reason) => self.read_later(&reason),
        }
    }

    fn read_later(&mut self, reason: &StoreError) {
        if matches!(reason, StoreError::Fenced) {
            self.context.give_up("another process took over this database");
        }
        warn!(subscription.id = %self.id, "rows of {} are read again in {AGAIN:?}: {reason}", self.id);
        (self.is_stale, self.work) = (true, None);
        self.wait(AGAIN);
    }

    fn on_breaker(&mut self, news: &BreakerNews) {
        debug!(subscription.id = %self.id, "the breaker of {} says {news:?}", self.id);
        match news {
            BreakerNews::Opened { .. } => self.gate.open(),
            // Of several replicas the one that has something to send asks for the probe.
            BreakerNews::ProbeDue if self.has_message() => {
                self.tell_breaker(CircuitBreakerMessage::ProbeWanted)
            }
            BreakerNews::ProbeDue => {}
            BreakerNews::ProbePermitted if self.has_message() || self.mode != Mode::Still => {
                self.gate.permit_probe();
            }
            BreakerNews::ProbePermitted => self.tell_breaker(CircuitBreakerMessage::ProbeUnused),
            BreakerNews::Closed => {
                self.gate.ramp();
                self.wait_until = None;
            }
        }
    }

    fn on_end_if_idle(&mut self, myself: &ActorRef<SubscriberMessage>) {
        let idle_long = self.idle_since.is_some_and(|since| since.elapsed() >= IDLE_END);
        if idle_long && !self.is_draining && self.mode == Mode::Still && !self.is_stale {
            // A wake that is in the mailbox now is not lost: the keeper looks again.
            myself.stop(None);
        }
    }

    fn on_drain(&mut self, reply: RpcReplyPort<()>) {
        self.is_draining = true;
        self.drained = Some(reply);
    }

    /// Replies to a drain as soon as nothing is on its way.
    fn end_drain(&mut self) {
        if matches!(self.mode, Mode::Sending | Mode::Writing) {
            return;
        }
        if let Some(reply) = self.drained.take()
            && reply.send(()).is_err()
        {
            error!(subscription.id = %self.id, "nobody waits for the drain of {} any more", self.id);
        }
    }

    fn tell_breaker(&self, message: CircuitBreakerMessage) {
        if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &self.breaker) {
            breaker.send(message);
        }
    }

    /// Nothing is sent there any more that could close it, or the sink is another one now.
    fn reset_breaker(&self) {
        self.tell_breaker(CircuitBreakerMessage::Reset);
    }

    /// Nothing goes out, and nothing is read, for so long.
    fn wait(&mut self, wait: Duration) {
        self.wait_until = Some(Instant::now() + wait);
        self.post.send_after(wait, || SubscriberMessage::Due);
    }

    fn has_message(&self) -> bool {
        let now = self.context.now();
        let next = self.work.as_ref().map(|work| course::next(&work.rows, now));
        !self.is_draining && matches!(next, Some(Next::Send(_) | Next::TellGap(_)))
    }
}
