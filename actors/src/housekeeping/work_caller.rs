//! Tells worker subscriptions that a queue has work. It decides whom and when ([`turns`]), and sends each
//! message once, with a short deadline. A message is a hint: one that is lost costs a worker the time until
//! it claims by itself. Supervised by `housekeeping`, restarted after a failure; a crash loses the words that
//! wait, and the memory of what was told.
//!
//! Only the replica with the first shard tells, so that intervals and turns hold for all replicas together.
//! It hears of all work from the line of workers, which hears of that of other replicas by their signals.
//!
//! Words are gathered for `GATHER` and read together; at most `WORDS_MAX` queues are remembered, beyond
//! which all are looked at. At most `SENDING_MAX` messages are on their way, and `SENDING_OF_APP` of one
//! app; a word without a place waits a second. So a slow address delays nobody, and no request that creates
//! tasks ever waits for this actor. The mailbox is bounded by those numbers, one read and its timers.

pub mod turns;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::id::{AppId, QueueId, SinkId};
use tokio::time::Instant;
use tracing::{debug, warn};

use self::turns::Turns;
use crate::{
    context::Context,
    housekeeping::UpkeepArguments,
    model::{codeq, round::DeliveryId, sink::SinkAddress},
    ports::{
        AttemptOutcome, DeliverySettings, Endpoint, EndpointAccess, Notice, OwnSink, QueueWork, StoreError,
        WorkCall, WorkWords, WorkerSubscription,
    },
    signals::coalesced::Coalesced,
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
    },
};

/// Words that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// Queues whose words are remembered.
const WORDS_MAX: usize = 10_000;
/// Messages on their way, of all apps.
const SENDING_MAX: usize = 64;
/// Messages on their way of one app.
const SENDING_OF_APP: usize = 16;
/// The deadline of a message.
const DEADLINE: Duration = Duration::from_secs(5);
/// Groups whose turn is remembered.
const GROUPS_MAX: usize = 10_000;

/// Messages to the actor.
#[derive(Debug)]
pub enum WorkCallerMessage {
    /// These queues have work that they did not have before, or the rest of their work once their rate allows
    /// a claim.
    Ready(BTreeSet<(AppId, QueueId)>),
    /// Any queue may have work that it did not have before.
    ReadyAll,
    /// The wait for further words is over.
    Look,
    /// Late words may be told.
    Late,
    /// The queues were read that were asked about.
    Read(Result<(Asked, Result<Vec<QueueWork>, StoreError>), String>),
    /// A message was answered.
    Sent(AppId, Result<AttemptOutcome, String>),
}

/// What a read asks about.
#[derive(Debug)]
pub struct Asked {
    words: WorkWords,
    /// The queues whose late words could be told when the read began. Late words of other queues may become
    /// due during the read, which says nothing about them.
    late: Vec<(AppId, QueueId)>,
}

/// The words that wait, and what is on its way.
pub struct WorkCallerState {
    context: Context,
    mailbox: Mailbox<WorkCallerMessage>,
    tasks: Tasks,
    words: WorkWords,
    /// Whether a look is to come.
    is_gathering: bool,
    reading: Coalesced,
    turns: Turns,
    /// When the next late words are looked at.
    late_at: Option<Instant>,
    /// Messages on their way, by app.
    sending: HashMap<AppId, usize>,
}

/// The actor that tells worker subscriptions of work.
pub struct WorkCaller;

#[ractor::async_trait]
impl Actor for WorkCaller {
    type Msg = WorkCallerMessage;
    type State = WorkCallerState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        Ok(WorkCallerState {
            context,
            mailbox: Mailbox::new(myself, gauge),
            tasks: Tasks::default(),
            words: WorkWords::default(),
            is_gathering: false,
            reading: Coalesced::Idle,
            turns: Turns::default(),
            late_at: None,
            sending: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use WorkCallerMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Ready(queues) => state.on_ready(queues),
            M::ReadyAll => state.on_ready_all(),
            M::Look => state.on_look(),
            M::Late => state.on_late(),
            M::Read(result) => {
                let (asked, work) = result?;
                state.on_read(&asked, work);
            }
            M::Sent(app, outcome) => state.on_sent(&app, outcome?),
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

impl WorkCallerState {
    fn on_ready(&mut self, queues: BTreeSet<(AppId, QueueId)>) {
        self.words.queues.extend(queues);
        self.gather();
    }

    fn on_ready_all(&mut self) {
        self.words = WorkWords { all: true, ..WorkWords::default() };
        self.gather();
    }

    /// Looks soon, with all words that come until then.
    fn gather(&mut self) {
        if self.words.queues.len() > WORDS_MAX {
            self.words = WorkWords { all: true, ..WorkWords::default() };
        }
        if !self.is_gathering {
            self.is_gathering = true;
            self.mailbox.send_after(GATHER, || WorkCallerMessage::Look);
        }
    }

    fn on_look(&mut self) {
        self.is_gathering = false;
        self.read();
    }

    fn read(&mut self) {
        if self.context.directory.is_closed() || !self.context.shards.leads() {
            (self.words, self.turns) = Default::default();
            return;
        }
        let late = self.turns.due(Instant::now());
        if (self.words.is_empty() && late.is_empty()) || !self.reading.begin() {
            return;
        }
        let asked = Asked { words: std::mem::take(&mut self.words), late };
        let store = self.context.store.clone();
        let work = async move {
            let mut words = asked.words.clone();
            words.queues.extend(asked.late.iter().cloned());
            let work = in_time(store.work_for(&words)).await;
            (asked, work)
        };
        self.tasks.spawn(&self.mailbox, work, WorkCallerMessage::Read);
    }

    fn on_late(&mut self) {
        self.late_at = None;
        self.read();
        self.wait_for_late();
    }

    fn on_read(&mut self, asked: &Asked, work: Result<Vec<QueueWork>, StoreError>) {
        let again = self.reading.end();
        let now = Instant::now();
        match work {
            Ok(work) => {
                let found: BTreeSet<(AppId, QueueId)> =
                    work.iter().map(|work| (work.app.id.clone(), work.queue.clone())).collect();
                for place in asked.late.iter().filter(|place| !found.contains(*place)) {
                    self.turns.nothing(place);
                }
                for work in work {
                    let is_new = asked.words.has(&work.app.id, &work.queue);
                    match work.free_at {
                        None => self.tell(&work, is_new, now),
                        Some(at) => {
                            let wait = at.since(self.context.now());
                            self.turns.put_off(&work, is_new, now + wait);
                        }
                    }
                }
            }
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => {
                // The workers claim by themselves.
                warn!("worker subscriptions were not told of work: {reason}");
                asked.late.iter().for_each(|place| self.turns.nothing(place));
            }
        }
        self.turns.keep_groups(GROUPS_MAX);
        if again {
            self.gather();
        }
        self.wait_for_late();
    }

    fn tell(&mut self, work: &QueueWork, is_new: bool, now: Instant) {
        let (sending, meter) = (&mut self.sending, &self.context.meter);
        let mut has_room = |app: &AppId| {
            let of_all: usize = sending.values().sum();
            let of_app = sending.get(app).copied().unwrap_or(0);
            let has_room = of_all < SENDING_MAX && of_app < SENDING_OF_APP;
            match has_room {
                true => *sending.entry(app.clone()).or_default() += 1,
                false => meter.work_told("left_out"),
            }
            has_room
        };
        let told = self.turns.tell(work, is_new, now, &mut has_room);
        for subscription in told {
            self.send(work, subscription);
        }
    }

    fn send(&mut self, work: &QueueWork, subscription: WorkerSubscription) {
        let (context, app) = (self.context.clone(), work.app.id.clone());
        let at = context.now();
        let id = DeliveryId::from_stored(format!("wrk_{}", context.random.ulid(at)));
        let sink = OwnSink {
            id: SinkId::new(subscription.id.ulid()),
            address: SinkAddress::Endpoint(codeq::address(&subscription.url).to_owned()),
            signing_key: None,
            former_key: None,
            access: Arc::new(EndpointAccess::default()),
            delivery: DeliverySettings::default(),
            disabled: None,
            since: subscription.created_at,
        };
        let Some(endpoint) = Endpoint::of(&work.app.at(&sink), DEADLINE, None) else {
            return self.release(&app);
        };
        let call = WorkCall {
            id,
            subscription: subscription.id,
            command: work.command.clone(),
            ready: work.ready,
            sent_at: at,
            is_codeq: codeq::is_meant(&subscription.url),
        };
        let of_app = app.clone();
        let attempt =
            async move { context.transport.notify(&endpoint, &Notice::WorkAvailable(Arc::new(call))).await };
        self.tasks.spawn(&self.mailbox, attempt, move |outcome| WorkCallerMessage::Sent(of_app, outcome));
    }

    /// Gives back the place of a message.
    fn release(&mut self, app: &AppId) {
        if let Some(count) = self.sending.get_mut(app) {
            *count -= 1;
            if *count == 0 {
                self.sending.remove(app);
            }
        }
    }

    fn on_sent(&mut self, app: &AppId, outcome: AttemptOutcome) {
        self.release(app);
        let is_taken = outcome.is_success();
        self.context.meter.work_told(if is_taken { "taken" } else { "not_taken" });
        if !is_taken {
            debug!(app.id = %app, "a worker subscription did not take a message: {}", outcome.excerpt);
        }
    }

    /// Wakes when the next late word may be told.
    fn wait_for_late(&mut self) {
        let now = Instant::now();
        let Some(next) = self.turns.next(now) else { return };
        // Words that are due are being read: what becomes of them sets the next wait.
        let next = next.max(now + GATHER);
        if self.late_at.is_none_or(|at| next < at) {
            self.late_at = Some(next);
            self.mailbox.send_after(next - now, || WorkCallerMessage::Late);
        }
    }
}

#[cfg(test)]
mod tests;
