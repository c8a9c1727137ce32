//! Delivers to one sink of an app: owns its lanes, its permits and its retries. Supervised by `apps`,
//! restarted after a failure, ends when nothing is left to do. What the app takes as a whole (rate, attempts at
//! once, turns) is shared by the deliverers of all its sinks.
//!
//! A lane is one cursor's open round in memory ([`lane::Lane`], pure). Everything slow (rows, trees,
//! bodies, the network) runs in a task of this actor and comes back as one message, so no handler
//! waits and lanes do not block each other; the tasks end with the actor. Its mailbox is bounded by
//! the tasks it started; wakes carry no load, they make it read what is pending.
//!
//! How changes leave is a matter of the sink's outlet: they are sent (`attempts`), or lent to consumers that
//! ask for them (`lending`). The lane is the same in both.
//!
//! A crash loses nothing but what was on its way: every lane is rows. At most [`lane::WINDOW`]
//! changes of a lane, or one batch, are sent again, with the same ids.
//!
//! Invariants: an answer is settled only after it came; nothing of a round is sent before the round
//! before it ended on disk; while the endpoint's breaker is open only its probe goes out, and probes
//! take turns over the lanes.

mod answers;
mod attempts;
mod batches;
pub mod gate;
mod healing;
pub mod lane;
mod lanes;
pub mod lending;
mod looking;
mod notices;
pub mod opening;
mod rendering;
pub mod retry;
mod retry_budget;
mod running;
mod sending;
mod serving;
mod shelf;

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
    coalesced::Coalesced,
    context::Context,
    directory::{Doing, Gauge, Post},
    ports::{App, AttemptOutcome, Parcel, PrepareError, SinkKey, StoreError},
    round::Change,
    tasks::Tasks,
    time::Timestamp,
};
pub(crate) use answers::describe;
use gate::{Gate, Pass};
use lane::Moment;
use lending::{Return, Waiting, Wish};
pub(crate) use looking::{others_of, refresh, refresh_here, wake};
use opening::{Opening, OpeningError};
use retry::RetryRules;
use retry_budget::RetryBudget;
use running::RunningLane;
pub use sending::Tray;
pub(crate) use sending::{take_turn, take_turn_under};
use serving::Way;
use shelf::Shelf;

/// A deliverer without work for this long ends.
const IDLE_END: Duration = Duration::from_secs(30);
/// How often it looks for pending cursors by itself: the net below lost wakes.
const PENDING_CHECK: Duration = Duration::from_secs(60);

/// Which run of a lane a task belongs to; answers of an earlier run are dropped.
pub type Generation = u64;

/// The app as it is served at this sink, while there is one, and cursors of all its sinks that may have something
/// to do.
type Pending = (Option<Box<App>>, Vec<(SinkKey, CursorId)>);

/// What a deliverer is told.
#[derive(Debug)]
pub enum DelivererMessage {
    /// Rows of this app changed: lanes whose terms changed read their rows again, new ones start.
    Refresh,
    /// Rows of this app may have changed, and nobody said so: the same, but what waits goes on waiting.
    Look,
    /// These cursors may have something to do; lanes that run anyway need not reload.
    Wake(Vec<CursorId>),
    /// Work on some repositories is another replica's now, or the terms of some lanes changed: those
    /// lanes end.
    LetGo,
    /// Look for pending cursors, as is done now and then.
    CheckDue,
    /// End if nothing was pending for a while.
    EndIfIdle,
    /// What is pending was read.
    PendingRead(Result<Result<Pending, StoreError>, String>),
    /// A lane was opened, or not.
    Opened(CursorId, Generation, Result<Result<Opening, OpeningError>, String>),
    /// A step of a running lane ended.
    Step(CursorId, Generation, Result<Step, String>),
    /// A wait of a lane is over.
    Due(CursorId),
    /// Waits of the endpoint are over.
    Flow,
    /// Somebody asks for changes of an app that pulls.
    Lend(Wish),
    /// Changes that were lent come back.
    Return(Return),
    /// The time of a wish is over.
    WishEnds,
    /// The endpoint's breaker changed.
    Breaker(BreakerNews),
    /// Send nothing new, let attempts end, settle, then reply.
    Drain(RpcReplyPort<()>),
}

/// What a task of a running lane brought.
#[derive(Debug)]
pub enum Step {
    /// Changes were read from the trees.
    Read(Result<Vec<Change>, crate::ports::GitError>),
    /// Deliveries were rendered, the one at this position and some after it, or it was not.
    Prepared(u64, Result<Vec<Parcel>, PrepareError>),
    /// Attempts ended; their outcomes lie on the tray.
    Answered(Tray),
    /// A stretch ended: what was not sent of these positions goes out another time.
    Stretched(Pass, Tray, RangeInclusive<u64>),
    /// A probe was not sent.
    Unprobed(Pass, RangeInclusive<u64>),
    /// A settlement was written.
    Settled(Result<bool, StoreError>),
    /// The round was ended.
    Finished(Result<bool, StoreError>),
    /// A notice of the round was answered.
    Noticed(Pass, AttemptOutcome),
    /// A notice of the round was held back before it went; whether it was a probe.
    Unnoticed {
        /// Which endpoint was to be asked.
        pass: Pass,
        /// Whether its breaker waits for its word.
        is_probe: bool,
    },
    /// A consequence for the cursor was written; the lane waits for it.
    Written(Result<(), StoreError>),
    /// A row that no lane waits for was written.
    Recorded(Result<(), StoreError>),
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

/// What a deliverer is made of.
#[derive(Clone)]
pub struct DelivererArguments {
    /// Ports and policies.
    pub context: Context,
    /// The sink that it delivers to.
    pub sink: SinkKey,
    /// Its gauge.
    pub gauge: Arc<Gauge>,
}

enum Slot {
    Opening { changed: Changed },
    Waiting { until: Instant },
    Running(Box<RunningLane>),
}

/// What may have changed since the rows of a lane were read, while the lane is being opened. Of two changes the
/// greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Nothing,
    /// The head moved. A lane with an open round reads the head when the round ends, so the lane goes on. If each
    /// new head opened the lane again, a lane that opens more slowly than heads move would never send anything.
    Head,
    /// Any row may have changed: the lane is opened again.
    Rows,
}

struct Lane {
    slot: Slot,
    generation: Generation,
    failures: u32,
}

/// The state: a cache of rows, and what is on its way.
pub struct DelivererState {
    context: Context,
    id: AppId,
    sink: SinkKey,
    app: Option<Arc<App>>,
    way: Way,
    rules: RetryRules,
    post: Post<DelivererMessage>,
    tasks: Tasks,
    lanes: BTreeMap<CursorId, Lane>,
    turns: VecDeque<CursorId>,
    wishes: Vec<Waiting>,
    gate: Gate,
    retries: RetryBudget,
    /// Lanes whose next attempt is a retry that the budget cannot pay for yet.
    unpaid: VecDeque<CursorId>,
    shelf: Shelf,
    generation: Generation,
    answered: Option<Instant>,
    last_probe: Option<CursorId>,
    flow_armed: Option<Instant>,
    reading_pending: Coalesced,
    /// It looks once more after a look that failed.
    looks_again: bool,
    idle_since: Option<Instant>,
    draining: bool,
    drained: Option<RpcReplyPort<()>>,
}

/// The actor.
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
        let post = Post::new(myself, gauge);
        post.send(DelivererMessage::Refresh);
        post.send_after(PENDING_CHECK, || DelivererMessage::CheckDue);
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
            shelf: Shelf::default(),
            draining: context.directory.is_closed(),
            context,
            id: sink.app.clone(),
            sink,
            app: None,
            way: Way::Closed,
            post,
            tasks: Tasks::default(),
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            wishes: Vec::new(),
            generation: 0,
            answered: None,
            last_probe: None,
            flow_armed: None,
            reading_pending: Coalesced::Idle,
            looks_again: false,
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
        let gauge = state.post.gauge().clone();
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
            M::Lend(wish) => state.on_wish(wish),
            M::Return(lease) => state.on_return(lease),
            M::WishEnds => state.on_wish_ends(),
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
        if self.reading_pending.is_running() || !self.wishes.is_empty() {
            self.post.send_after(IDLE_END, || DelivererMessage::EndIfIdle);
            return;
        }
        // A wake that is in the mailbox now is not lost: its supervisor sees it and restarts.
        myself.stop(None);
    }

    fn on_check_due(&mut self) {
        self.read_pending();
        self.post.send_after(PENDING_CHECK, || DelivererMessage::CheckDue);
    }

    fn on_pending_read(&mut self, myself: &ActorRef<DelivererMessage>, result: Result<Pending, StoreError>) {
        let again = self.reading_pending.end();
        match result {
            Ok((None, _)) => {
                info!(app.id = %self.id, "{} is gone", self.sink);
                if self.sink.sink.is_some() {
                    // Nothing is sent there any more that could close its breaker.
                    self.reset_breaker();
                }
                myself.stop(None);
            }
            Ok((Some(app), cursors)) => {
                let cursors = self.own_of(cursors);
                self.take_app(*app);
                // A net below every wait: what is due opens, what runs looks whether it can go on.
                let known: Vec<CursorId> = self.lanes.keys().cloned().collect();
                for cursor in known {
                    self.on_due(&cursor);
                }
                self.forget_unasked(lending::LINGER);
                let has_none = |cursor: &CursorId| {
                    !self.lanes.contains_key(cursor) && !self.shelf.rests(cursor) && self.is_wanted(cursor)
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

    /// Stretches end after the attempt that is on its way.
    fn halt(&mut self) {
        self.running_lanes().for_each(RunningLane::halt);
    }

    /// Nothing more goes out for now: stretches end, and what is rendered is dropped, because
    /// others may need the room.
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
        self.running_lanes().for_each(RunningLane::revoke_lease);
        self.hold_back();
        self.drained = Some(reply);
        self.drive_all();
    }

    /// Replies to a drain as soon as nothing is on its way.
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
