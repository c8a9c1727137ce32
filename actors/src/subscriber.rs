//! Sends the entries of a ledger to one subscription: one message at a time, each repeated until the sink
//! accepts or refuses it. A mail reports many entries at once. Supervised by `apps`, restarted after a
//! failure, ends when nothing is left to send. Only the replica that holds the shard of the app runs this
//! actor; the fence refuses late writes of the previous replica.
//!
//! [`course`] and, for mails, [`mails`] decide the next step and the meaning of an answer. [`poison`] finds a
//! message that the receiver fails on although it takes others. All three are pure. Rows and the network are
//! tasks of this actor, one at a time, each of which comes back as one message. The mailbox is bounded by
//! that task, its timers and the news of its breaker; a wake only sets a flag.
//!
//! A crash loses only the attempt in flight: the position is a row, which moves after the answer. So a
//! message may be sent twice, with the same id, and no message is lost.
//!
//! Invariants: a message is sent only after the result of the previous one is on disk; while the breaker of
//! the sink is open only its probe is sent. The probe with a suspect message is up to five requests, one
//! after another.

mod answers;
pub mod course;
mod driving;
pub mod mails;
pub mod poison;
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
    ownership::shards::ShardHold,
    ports::{
        AttemptOutcome, Endpoint, Gap, MailRange, RefusedRecipient, SendFailure, Store, StoreError,
        SubscriptionWork, sink_of,
    },
    supervision::{
        directory::{Gauge, Mailbox},
        tasks::Tasks,
        tree::CIRCUIT_BREAKER,
    },
    time::Timestamp,
};

/// An actor without work for this long ends.
const IDLE_END: Duration = Duration::from_secs(30);
/// The wait before rows that could not be read or written are read again.
const AGAIN: Duration = Duration::from_secs(2);
/// The time that a receiver gets to start again if the message at the head brought it down, before the next
/// request of the same probe.
const RESTART: Duration = Duration::from_secs(5);
/// Entries that are read at once.
const PIECE: u64 = 64;

/// Messages to the actor of a subscription.
#[derive(Debug)]
pub enum SubscriberMessage {
    /// The row of the subscription changed: it is read before anything else is done.
    Refresh,
    /// The rows of this app changed: if the subscription is of this app, the same.
    AppChanged(AppId),
    /// New entries may wait for the subscription.
    Look,
    /// The rows of the subscription were read, or reading them failed.
    Read(Result<Result<Option<Box<SubscriptionWork>>, StoreError>, String>),
    /// A message was answered.
    Answered(Result<Answered, String>),
    /// The outcome of a message was written. `false`: the position was moved meanwhile.
    Noted(Result<Result<bool, StoreError>, String>),
    /// A wait of the actor is over.
    Due,
    /// The breaker of its sink changed.
    Breaker(BreakerNews),
    /// End the actor if it had no work for a while.
    EndIfIdle,
    /// Send nothing new, write the outcome of the message in flight, then reply.
    Drain(RpcReplyPort<()>),
}

/// One attempt that ended.
#[derive(Debug)]
pub struct Answered {
    pass: Pass,
    is_probe: bool,
    content: Content,
    message: String,
    at: Timestamp,
    /// The outcome; `None`: nothing was sent, because the right to send had ended.
    outcome: Option<AttemptOutcome>,
    /// Recipients of a mail that were sent nothing.
    refused: Vec<RefusedRecipient>,
    /// Whether the mail server may have the mail although it did not confirm it.
    is_in_doubt: bool,
}

/// The content of a message.
#[derive(Clone, Copy, Debug)]
enum Content {
    Entry { number: i64, at: Timestamp, is_behind: bool },
    Gap(Gap),
    Mail { range: MailRange, entries: u64, gap: Option<Gap>, at: Timestamp },
}

/// The arguments that the actor of a subscription starts from.
#[derive(Clone)]
pub struct SubscriberArguments {
    /// The ports, the policies and the address book.
    pub context: Context,
    /// The subscription whose entries the actor sends.
    pub subscription: SubscriptionId,
    /// Counts the messages and restarts of the actor.
    pub gauge: Arc<Gauge>,
}

/// The one piece of work that the actor is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The rows of the subscription are being read.
    Reading,
    /// A message is in flight.
    Sending,
    /// The outcome of a message is being written.
    Writing,
    /// No task runs: the actor waits for a timer, its breaker or a wake-up.
    Still,
}

/// The rows that were read, and the right to work on them.
struct Work {
    rows: Box<SubscriptionWork>,
    endpoint: Option<Arc<Endpoint>>,
    rules: RetryRules,
    hold: Arc<ShardHold>,
    /// The store under the fence of that right.
    store: Arc<dyn Store>,
}

/// The last read rows, and the task under way. The position is in the rows.
pub struct SubscriberState {
    context: Context,
    id: SubscriptionId,
    breaker: String,
    mailbox: Mailbox<SubscriberMessage>,
    tasks: Tasks,
    gate: Gate,
    mode: Mode,
    work: Option<Work>,
    /// The rows are to be read again before anything else.
    is_stale: bool,
    /// Entries may have been written since the rows were read.
    is_behind: bool,
    /// No message is sent before this moment.
    wait_until: Option<Instant>,
    /// The receiver may be starting again until this moment.
    restart_until: Option<Instant>,
    /// Answers to the message at the head that were about this message.
    refusals: u32,
    /// Whether the receiver fails on the message at the head alone.
    suspicion: poison::Suspicion,
    /// The mail that was chosen last, if the mail server surely does not have it.
    untaken: mails::Untaken,
    /// The mails that follow one that the mail server refused for good.
    halves: mails::Halves,
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
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(SubscriberMessage::Refresh);
        Ok(SubscriberState {
            breaker: circuit_breaker::endpoint_key(sink_of(&id).as_str()),
            gate: Gate::new(Timestamp(0), 1),
            is_draining: context.directory.is_closed(),
            context,
            id,
            mailbox,
            tasks: Tasks::default(),
            mode: Mode::Still,
            work: None,
            is_stale: true,
            wait_until: None,
            restart_until: None,
            refusals: 0,
            suspicion: poison::Suspicion::default(),
            is_behind: false,
            untaken: mails::Untaken::default(),
            halves: mails::Halves::default(),
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
        let gauge = state.mailbox.gauge().clone();
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
        // If the rows are being read now, they may have been read before the change.
        self.is_stale |= self.work.as_ref().is_none_or(|work| work.rows.app.id == *app);
    }

    /// Rows that are read are worked on first.
    fn on_look(&mut self) {
        self.is_behind = true;
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
            // Another replica has the subscription, or it was removed: this actor is not needed.
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
        self.suspicion.interrupted();
        self.wait(AGAIN);
    }

    fn on_breaker(&mut self, news: &BreakerNews) {
        debug!(subscription.id = %self.id, "the breaker of {} says {news:?}", self.id);
        match news {
            BreakerNews::Opened { .. } => self.gate.open(),
            // Of several replicas, only one with a message to send asks for the probe.
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

    /// Replies to a drain as soon as no message is in flight.
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

    /// Closes the breaker: nothing is sent to the old sink any more that could close it.
    fn reset_breaker(&self) {
        self.tell_breaker(CircuitBreakerMessage::Reset);
    }

    /// Sends and reads nothing for this long.
    fn wait(&mut self, wait: Duration) {
        self.wait_until = Some(Instant::now() + wait);
        self.mailbox.send_after(wait, || SubscriberMessage::Due);
    }

    /// The message at the head failed. If the receiver broke the connection, the next request of this probe
    /// waits until the receiver may have started again.
    fn let_restart(&mut self, outcome: &AttemptOutcome) {
        if outcome.result == Err(SendFailure::Cut) && self.suspicion.is_under_way() {
            self.restart_until = Some(Instant::now() + RESTART);
            self.mailbox.send_after(RESTART, || SubscriberMessage::Due);
        }
    }

    fn has_message(&self) -> bool {
        let now = self.context.now();
        let next = self.work.as_ref().map(|work| course::next(&work.rows, now));
        !self.is_draining && next.is_some_and(|next| next.is_to_send())
    }
}
