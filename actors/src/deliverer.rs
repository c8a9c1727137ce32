//! Delivers to one sink of an app: owns its lanes, its permits and its retries. Supervised by `apps`,
//! restarted after a failure, ends when nothing is left to do. What the app takes as a whole (rate, attempts
//! at once, turns) is shared by the deliverers of all its sinks.
//!
//! A lane is one cursor's open round in memory ([`lane::Lane`], pure). Everything slow (rows, trees, bodies,
//! the network) runs in a task of this actor and comes back as one message, so no handler waits and lanes do
//! not block each other; the tasks end with the actor. Its mailbox is bounded by the tasks it started; a wake
//! carries no data and makes the deliverer read which cursors are pending.
//!
//! The sink's outlet decides how changes leave: the deliverer sends them (`attempts`), consumers claim them
//! (`pulling`), or they become tasks (`handing`). The lane is the same for the first two; the third settles
//! by the ends of tasks.
//!
//! A crash loses only the attempts in flight: every lane is stored in rows. At most [`lane::WINDOW`] changes
//! of a lane, or one batch, are sent again, with the same ids.
//!
//! Invariants: a change is settled only after its answer came; nothing of a round is sent before the round
//! before it ended on disk; while the endpoint's breaker is open only its probe goes out, and probes take
//! turns over the lanes.

mod answers;
mod batches;
pub mod gate;
mod healing;
pub mod lane;
mod lanes;
mod looking;
mod notices;
pub mod opening;
pub mod outlets;
mod rendering;
pub mod retry;
mod running;
mod sending;
mod serving;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tidings_entity::id::{AppId, CursorId};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    circuit_breaker::BreakerNews,
    context::Context,
    model::round::Change,
    ports::{App, AttemptOutcome, Parcel, PrepareError, SinkKey, StoreError},
    signals::coalesced::Coalesced,
    supervision::{
        directory::{Doing, Gauge, Mailbox},
        tasks::Tasks,
    },
    time::Timestamp,
};
pub(crate) use answers::describe;
use gate::{Gate, Pass};
use lane::Moment;
use lanes::waiting_cursors::WaitingCursors;
pub(crate) use looking::{others_of, refresh, refresh_here, wake};
use opening::{Opening, OpeningError};
use outlets::CurrentOutlet;
pub use outlets::handed::{HandOverError, HandedOver, INLINE_MAX};
use outlets::pulling::{Acknowledgement, PullRequest, Waiting};
use retry::{RetryRules, retry_budget::RetryBudget};
use running::RunningLane;
pub use sending::Outcomes;
pub(crate) use sending::{take_turn, take_turn_under};

/// A deliverer without work for this long ends.
const IDLE_END: Duration = Duration::from_secs(30);
/// How often the deliverer reads which cursors are pending without a wake, because a wake may be lost.
const PENDING_CHECK: Duration = Duration::from_secs(60);

/// The number of a run of a lane. Each task belongs to one run; answers of an earlier run are dropped.
pub type Generation = u64;

/// The app as it is served at this sink, or `None` if there is no such app; and the cursors of all its sinks
/// that may have something to do.
type Pending = (Option<Box<App>>, Vec<(SinkKey, CursorId)>);

/// Messages to the deliverer of one sink.
#[derive(Debug)]
pub enum DelivererMessage {
    /// Rows of this app changed: lanes with changed terms read their rows again, and lanes that now have work
    /// start.
    Refresh,
    /// Rows of this app may have changed without a hint: the same as a wake-up, but deadlines stay.
    Look,
    /// These cursors may have something to do; running lanes need not reload.
    Wake(Vec<CursorId>),
    /// Another replica works on some of the repositories now, or the terms of some lanes changed: those lanes
    /// end.
    LetGo,
    /// The timer of `PENDING_CHECK` fired: read which cursors are pending.
    CheckDue,
    /// End if nothing was pending for a while.
    EndIfIdle,
    /// Reading the pending cursors ended.
    PendingRead(Result<Result<Pending, StoreError>, String>),
    /// A lane was opened, or not.
    Opened(CursorId, Generation, Result<Result<Opening, OpeningError>, String>),
    /// A step of a running lane ended.
    Step(CursorId, Generation, Result<Step, String>),
    /// A wait of a lane is over.
    Due(CursorId),
    /// Waits of the endpoint are over.
    Flow,
    /// A consumer asks for changes of an app that pulls.
    Pull(PullRequest),
    /// A consumer reports the outcome of its claim.
    Acknowledge(Acknowledgement),
    /// The wait of a pull request is over.
    PullTimedOut,
    /// Tasks of the app were claimed or ended: more changes may be handed over.
    Room,
    /// Lanes that wait for room look again.
    LookForRoom,
    /// The endpoint's breaker changed.
    Breaker(BreakerNews),
    /// Send nothing new, let attempts end, settle, then reply.
    Drain(RpcReplyPort<()>),
}

/// The result of a task of a running lane.
#[derive(Debug)]
pub enum Step {
    /// Changes were read from the trees.
    Read(Result<Vec<Change>, crate::ports::GitError>),
    /// Rendering ended for the delivery at this position and perhaps some after it, or it failed.
    Prepared(u64, Result<Vec<Parcel>, PrepareError>),
    /// Attempts ended; their results are in the outcomes.
    Answered(Outcomes),
    /// A pipeline ended: the positions in the range were not sent and are sent later.
    PipelineEnded(Pass, Outcomes, RangeInclusive<u64>),
    /// A probe was not sent.
    Unprobed(Pass, RangeInclusive<u64>),
    /// A settlement was written.
    Settled(Result<bool, StoreError>),
    /// The round was ended.
    Finished(Result<bool, StoreError>),
    /// A notice of the round was answered.
    Noticed(Pass, AttemptOutcome),
    /// A notice of the round was not sent because the lane was halted.
    Unnoticed {
        /// The endpoint that the attempt was meant for.
        pass: Pass,
        /// Whether the attempt is the probe on whose outcome the breaker waits.
        is_probe: bool,
    },
    /// A consequence for the cursor was written; the lane waits for it.
    Written(Result<(), StoreError>),
    /// A row that no lane waits for was written.
    Recorded(Result<(), StoreError>),
    /// Changes became tasks, or there was no room for them.
    HandedOver(Result<HandedOver, HandOverError>),
}

impl Step {
    fn is_fenced(&self) -> bool {
        matches!(
            self,
            Self::Settled(Err(StoreError::Fenced))
                | Self::Finished(Err(StoreError::Fenced))
                | Self::Written(Err(StoreError::Fenced))
                | Self::Recorded(Err(StoreError::Fenced))
        )
    }
}

/// The arguments that a deliverer starts from.
#[derive(Clone)]
pub struct DelivererArguments {
    /// The ports, the policies and the address book.
    pub context: Context,
    /// The sink that the deliverer sends to.
    pub sink: SinkKey,
    /// Counts the messages and restarts of the actor.
    pub gauge: Arc<Gauge>,
}

enum Slot {
    Opening {
        changed: Changed,
    },
    /// It is opened again at `until`; `for_claims`: or once workers have ended what they have of its branch.
    Waiting {
        until: Instant,
        for_claims: bool,
    },
    Running(Box<RunningLane>),
}

/// Changes of a lane's rows while the lane is being opened. Of two changes the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Nothing,
    /// Tasks of the app were claimed or ended: a lane that found claims of its branch looks again.
    Room,
    /// The head moved. A lane with an open round reads the head when the round ends, so the lane goes on.
    /// If each new head opened the lane again, a lane that opens more slowly than heads move would never
    /// send anything.
    Head,
    /// Any row may have changed: the lane is opened again.
    Rows,
}

struct Lane {
    slot: Slot,
    generation: Generation,
    failures: u32,
    /// How often in a row its rows did not fit what it wanted to hand over.
    misfits: u32,
}

/// The state of the actor between two messages: a cache of rows, and the attempts in flight.
pub struct DelivererState {
    context: Context,
    id: AppId,
    sink: SinkKey,
    app: Option<Arc<App>>,
    outlet: CurrentOutlet,
    rules: RetryRules,
    mailbox: Mailbox<DelivererMessage>,
    tasks: Tasks,
    lanes: BTreeMap<CursorId, Lane>,
    turns: VecDeque<CursorId>,
    pull_requests: Vec<Waiting>,
    gate: Gate,
    retries: RetryBudget,
    /// Lanes whose next attempt is a retry that the budget cannot pay for yet.
    unpaid: VecDeque<CursorId>,
    waiting_cursors: WaitingCursors,
    generation: Generation,
    answered: Option<Instant>,
    last_probe: Option<CursorId>,
    flow_armed: Option<Instant>,
    reading_pending: Coalesced,
    /// Whether another look at the rows follows a look that failed.
    looks_again: bool,
    /// Whether a look for room is to come.
    looks_for_room: bool,
    idle_since: Option<Instant>,
    draining: bool,
    drained: Option<RpcReplyPort<()>>,
}

/// The actor that delivers to one sink of an app.
pub struct Deliverer;

#[ractor::async_trait]
impl Actor for Deliverer {
    type Msg = DelivererMessage;
    type State = DelivererState;
    type Arguments = DelivererArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let DelivererArguments { context, sink, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(DelivererMessage::Refresh);
        mailbox.send_after(PENDING_CHECK, || DelivererMessage::CheckDue);
        let policy = &context.policy;
        Ok(DelivererState {
            rules: RetryRules {
                policy: policy.retry_policy,
                base: policy.retry_base,
                cap: policy.retry_cap,
                window: policy.retry_window,
            },
            gate: Gate::new(Timestamp(0), policy.app_in_flight),
            retries: RetryBudget::new(Instant::now()),
            unpaid: VecDeque::new(),
            waiting_cursors: WaitingCursors::default(),
            draining: context.directory.is_closed(),
            context,
            id: sink.app.clone(),
            sink,
            app: None,
            outlet: CurrentOutlet::Closed,
            mailbox,
            tasks: Tasks::default(),
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            pull_requests: Vec::new(),
            generation: 0,
            answered: None,
            last_probe: None,
            flow_armed: None,
            reading_pending: Coalesced::Idle,
            looks_again: false,
            looks_for_room: false,
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
        use DelivererMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Refresh => state.on_refresh(),
            M::Look => state.on_look(),
            M::Wake(cursors) => state.on_wake(cursors),
            M::LetGo => state.drive_all(),
            M::CheckDue => state.on_check_due(),
            M::EndIfIdle => state.on_end_if_idle(&myself),
            M::PendingRead(result) => state.on_pending_read(&myself, result?),
            M::Opened(cursor, generation, result) => state.on_opened(&cursor, generation, result?),
            M::Step(cursor, generation, result) => state.on_step(&cursor, generation, result?),
            M::Due(cursor) => state.on_due(&cursor),
            M::Flow => state.on_flow(),
            M::Pull(request) => state.on_pull(request),
            M::Acknowledge(lease) => state.on_acknowledgement(lease),
            M::PullTimedOut => state.on_pull_timed_out(),
            M::Room => state.on_room(),
            M::LookForRoom => state.look_for_room(),
            M::Breaker(news) => state.on_breaker(&news),
            M::Drain(reply) => state.on_drain(reply),
        }
        state.give_probe_back();
        state.end_drain();
        gauge.say(Doing::Delivering { lanes: state.lanes.len(), in_flight: state.gate.in_flight() });
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

impl DelivererState {
    fn on_wake(&mut self, cursors: Vec<CursorId>) {
        for cursor in cursors {
            let wanted = self.is_wanted(&cursor);
            match self.lanes.get_mut(&cursor).map(|lane| &mut lane.slot) {
                Some(Slot::Opening { changed }) => *changed = Changed::Head.max(*changed),
                // A running lane reads the head when its round ends.
                Some(Slot::Running(_)) => {}
                Some(Slot::Waiting { .. }) => self.open(&cursor),
                None if self.app.is_none() => self.read_pending(),
                None if wanted => self.admit([cursor]),
                None => {}
            }
        }
    }

    fn on_end_if_idle(&mut self, myself: &ActorRef<DelivererMessage>) {
        let idle_long = self.idle_since.is_some_and(|since| since.elapsed() >= IDLE_END);
        if !self.is_idle() || !idle_long || self.draining {
            return;
        }
        if self.reading_pending.is_running() || !self.pull_requests.is_empty() {
            self.mailbox.send_after(IDLE_END, || DelivererMessage::EndIfIdle);
            return;
        }
        // A wake that reaches the mailbox now is not lost: the supervisor sees the message and restarts the
        // actor.
        myself.stop(None);
    }

    fn on_check_due(&mut self) {
        self.read_pending();
        self.mailbox.send_after(PENDING_CHECK, || DelivererMessage::CheckDue);
    }

    fn on_pending_read(&mut self, myself: &ActorRef<DelivererMessage>, result: Result<Pending, StoreError>) {
        let again = self.reading_pending.end();
        match result {
            Ok((None, _)) => {
                info!(app.id = %self.id, "{} is gone", self.sink);
                if self.sink.sink.is_some() {
                    // No more requests go to the removed endpoint, so no answer could close its breaker.
                    self.reset_breaker();
                }
                myself.stop(None);
            }
            Ok((Some(app), cursors)) => {
                let cursors = self.own_of(cursors);
                self.take_app(*app);
                self.repair_room();
                // In case a wake or a timer was lost: cursors that are due are opened, and running lanes
                // check for work.
                let known: Vec<CursorId> = self.lanes.keys().cloned().collect();
                for cursor in known {
                    self.on_due(&cursor);
                }
                self.forget_unasked(outlets::pulling::LINGER);
                let has_none = |cursor: &CursorId| {
                    !self.lanes.contains_key(cursor)
                        && !self.waiting_cursors.rests(cursor)
                        && self.is_wanted(cursor)
                };
                let new: Vec<CursorId> = cursors.into_iter().filter(has_none).collect();
                self.admit(new);
                if self.is_idle() {
                    self.become_idle();
                }
            }
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(error) => {
                warn!(app.id = %self.id, "pending cursors of {} could not be read: {error}", self.id);
                self.look_again();
            }
        }
        if again {
            self.read_pending();
        }
    }

    /// Ends all pipelines after the attempt that is in flight.
    fn halt(&mut self) {
        self.running_lanes().for_each(RunningLane::halt);
    }

    /// Stops sending for now: pipelines end, and rendered deliveries are dropped, because other lanes may
    /// need their memory.
    fn hold_back(&mut self) {
        self.running_lanes().for_each(RunningLane::hold_back);
    }

    fn running_lanes(&mut self) -> impl Iterator<Item = &mut RunningLane> {
        self.lanes.values_mut().filter_map(|lane| match &mut lane.slot {
            Slot::Running(running) => Some(&mut **running),
            _ => None,
        })
    }

    /// The wait that the endpoint asked for is over, or was prolonged.
    fn on_flow(&mut self) {
        self.drive_all();
        self.flow();
    }

    fn drive_all(&mut self) {
        let cursors: Vec<CursorId> = self.lanes.keys().cloned().collect();
        for cursor in cursors {
            self.drive(&cursor);
        }
    }

    fn on_drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining = true;
        self.running_lanes().for_each(RunningLane::revoke_claim);
        self.hold_back();
        self.drained = Some(reply);
        self.drive_all();
    }

    /// Replies to a drain as soon as nothing is in flight.
    fn end_drain(&mut self) {
        if self.drained.is_none() {
            return;
        }
        let still = self.lanes.values().all(|lane| match &lane.slot {
            Slot::Running(running) => running.is_still(),
            _ => true,
        });
        if still
            && let Some(reply) = self.drained.take()
            && reply.send(()).is_err()
        {
            error!(app.id = %self.id, "nobody waits for the drain of {} any more", self.id);
        }
    }

    fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), wall: self.context.now() }
    }
}

#[cfg(test)]
mod tests;
