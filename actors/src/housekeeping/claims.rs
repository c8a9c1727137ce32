//! Workers that wait for tasks, one line for the whole process. It decides whom of them the store is asked
//! for, and gives out what came: first come, first served. Supervised by `housekeeping`, restarted after a
//! failure.
//!
//! One claim is under way at a time, for as many waiting workers as there may be work for ([`Line`] decides).
//! It learns that there is work from what this process wrote, from other replicas, and by looking at all
//! queues every so often, in case a word was lost. A worker that went away passes its place on; tasks that
//! were claimed for one that is gone are given back, without an attempt counted.
//!
//! A worker that does not want to wait stands in the same line, so that nobody is served before those who
//! came earlier.
//!
//! It also wakes those who wait for the end of one task, and passes on when the clock has to look next.
//!
//! Its mailbox is bounded by the requests that may wait at the front door, one claim, and one task that
//! listens. A crash loses the line: the requests in it are answered that there is nothing, and ask again.
//! Before the process stops, the claim under way ends, its tasks go to their workers or back, and each worker
//! has its answer. Otherwise tasks would stay claimed for nobody.

pub mod line;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tidings_entity::id::{AppId, QueueId, TaskId};
use tracing::{debug, warn};

use self::line::Line;
use crate::{
    context::Context,
    deliverer::{self, DelivererMessage},
    housekeeping::{ClockKeeperMessage, UpkeepArguments, work_caller::WorkCallerMessage},
    model::task::ClaimToken,
    ports::{Claim, ClaimRequest, ClaimedTask, Signal, StoreError, TaskNews, TaskSignal, TaskWord},
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
        tree::{CLOCK_KEEPER, DELIVERER, WORK_CALLER},
    },
    time::Timestamp,
};

/// The wait between two looks at all queues that somebody waits for.
const EVERY: Duration = Duration::from_secs(10);
/// The wait after a claim that failed.
const RETRY: Duration = Duration::from_secs(1);
/// What is written within this time is told to other replicas together.
const GATHER: Duration = Duration::from_millis(5);
/// Workers that one claim of the store asks for.
const AT_ONCE: usize = 128;
/// Most queues, and most apps, that one word to other replicas names; with more of them all are meant. A
/// notification of PostgreSQL has 8,000 bytes, of which a queue with its app takes 68.
const QUEUES_TOLD: usize = 50;
const APPS_TOLD: usize = 100;
/// The wait between two looks whether all claims are with their workers, before the process stops.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// A worker asks for tasks.
#[derive(Debug)]
pub struct WaitingClaim {
    /// The commands, the number of tasks and the duration that the worker asks for.
    pub request: ClaimRequest,
    /// Where the tasks go.
    pub reply: RpcReplyPort<GivenTasks>,
    /// Whether it waits where there are none.
    pub is_patient: bool,
}

/// Tasks on their way to a worker. Those that do not reach it are given back when this is dropped.
pub struct GivenTasks {
    /// The tasks, without what they work on.
    pub tasks: Vec<ClaimedTask>,
    claims: Vec<(AppId, ClaimToken)>,
    mailbox: Option<Mailbox<ClaimsMessage>>,
    /// Tells the line that they are on their way.
    _on_way: Arc<()>,
}

impl fmt::Debug for GivenTasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.tasks).finish()
    }
}

impl GivenTasks {
    fn new(tasks: Vec<ClaimedTask>, mailbox: &Mailbox<ClaimsMessage>, on_way: &Arc<()>) -> Self {
        let claims = tasks.iter().map(|task| (task.task.app.clone(), task.token.clone())).collect();
        Self { tasks, claims, mailbox: Some(mailbox.clone()), _on_way: on_way.clone() }
    }

    /// Their worker has them: from here on only its word, or the clock, ends the claims.
    pub fn arrived(mut self) {
        self.mailbox = None;
    }
}

impl Drop for GivenTasks {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take()
            && !self.claims.is_empty()
        {
            // If the line restarts and loses the message the claims run out.
            mailbox.send(ClaimsMessage::GiveBack(std::mem::take(&mut self.claims)));
        }
    }
}

/// The numbers of the waits that were asked for, and what was claimed for them.
type ClaimsOfWaits = (Vec<u64>, Result<Vec<Claim>, StoreError>);

/// Messages to the line of workers.
#[derive(Debug)]
pub enum ClaimsMessage {
    /// A worker wants tasks, and waits until there are some.
    Wait(Box<WaitingClaim>),
    /// Somebody waits for the end of a task.
    WaitForEnd(TaskId, RpcReplyPort<()>),
    /// Tasks that were claimed for somebody who is gone.
    GiveBack(Vec<(AppId, ClaimToken)>),
    /// This process wrote tasks.
    Written(Result<TaskNews, String>),
    /// Listen for the next tasks that this process writes.
    Listen,
    /// Another replica wrote tasks, or may have.
    Heard(Box<TaskSignal>),
    /// The rates of these queues allow claims again, or a claim failed a while ago.
    Again(Vec<QueueId>),
    /// All queues are to be looked at.
    Look,
    /// The store gave tasks to the workers with these places.
    Claimed(Result<ClaimsOfWaits, String>),
    /// Tasks were given back, or that failed.
    GaveBack(Result<Result<(), StoreError>, String>),
    /// Other replicas were told, or telling them failed.
    Told(Result<(), String>),
    /// The process stops: reply when all claims are with their workers, or given back.
    Drain(RpcReplyPort<()>),
    /// Look whether that is so.
    DrainStep,
}

/// The line, and what is under way.
pub struct ClaimsState {
    context: Context,
    mailbox: Mailbox<ClaimsMessage>,
    tasks: Tasks,
    line: Line<RpcReplyPort<GivenTasks>>,
    ends: HashMap<TaskId, Vec<RpcReplyPort<()>>>,
    is_claiming: bool,
    /// Given-back tasks whose word is under way, in groups.
    giving_back: usize,
    /// As many further owners as there are tasks on their way to workers, in groups.
    on_way: Arc<()>,
    draining: Option<Draining>,
}

/// The end of the process waits for the claims.
struct Draining {
    reply: RpcReplyPort<()>,
    /// Whether the last look found no claim under way.
    was_quiet: bool,
}

/// The actor that keeps the line of workers.
pub struct Claims;

#[ractor::async_trait]
impl Actor for Claims {
    type Msg = ClaimsMessage;
    type State = ClaimsState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(ClaimsMessage::Listen);
        mailbox.send_after(EVERY, || ClaimsMessage::Look);
        let (tasks, line, ends, on_way) = Default::default();
        let (is_claiming, giving_back, draining) = (false, 0, None);
        Ok(ClaimsState { context, mailbox, tasks, line, ends, is_claiming, giving_back, on_way, draining })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use ClaimsMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Wait(waiting) => state.on_wait(*waiting),
            M::WaitForEnd(task, reply) => state.ends.entry(task).or_default().push(reply),
            M::GiveBack(claims) => state.give_back(claims),
            M::Written(news) => state.on_written(news?),
            M::Listen => state.listen(),
            M::Heard(did) => state.on_heard(&did),
            M::Again(queues) => state.on_again(&queues),
            M::Look => state.on_look(),
            M::Claimed(result) => state.on_claimed(result?),
            M::GaveBack(result) => state.on_gave_back(result?),
            M::Told(result) => result?,
            M::Drain(reply) => state.on_drain(reply),
            M::DrainStep => state.on_drain_step(),
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

impl ClaimsState {
    fn on_wait(&mut self, WaitingClaim { request, reply, is_patient }: WaitingClaim) {
        if self.context.directory.is_closed() {
            // The process stops: another replica, or the next process, answers.
            return;
        }
        self.line.join(request, reply, is_patient);
        self.claim();
    }

    /// Asks the store for the first workers in line for whom there may be work.
    fn claim(&mut self) {
        if self.is_claiming || self.context.directory.is_closed() {
            return;
        }
        let asked = self.line.next(AT_ONCE, RpcReplyPort::is_closed);
        self.mailbox.gauge().say(format!("{} wait", self.line.len()));
        if asked.is_empty() {
            return;
        }
        self.is_claiming = true;
        let (places, requests): (Vec<u64>, Vec<ClaimRequest>) = asked.into_iter().unzip();
        let store = self.context.store.clone();
        let work = async move { (places, in_time(store.claim_tasks(requests)).await) };
        self.tasks.spawn(&self.mailbox, work, ClaimsMessage::Claimed);
    }

    fn on_claimed(&mut self, (places, claims): (Vec<u64>, Result<Vec<Claim>, StoreError>)) {
        self.is_claiming = false;
        let claims = match claims {
            Ok(claims) => claims,
            Err(StoreError::Fenced) => {
                return self.context.give_up("another process took over this database");
            }
            Err(reason) => {
                // What was claimed all the same goes back or runs out; the workers stay in line.
                warn!("no task could be claimed: {reason}");
                let queues = self.line.failed();
                self.mailbox.send_after(RETRY, move || ClaimsMessage::Again(queues));
                return;
            }
        };
        let now = self.context.now();
        for (place, claim) in places.into_iter().zip(claims) {
            if claim.tasks.is_empty() {
                let queues = self.line.found_nothing(place);
                if let Some(at) = claim.again_at {
                    self.mailbox.send_after(at.since(now), move || ClaimsMessage::Again(queues));
                }
                continue;
            }
            let given = GivenTasks::new(claim.tasks, &self.mailbox, &self.on_way);
            if let Some(reply) = self.line.leave(place) {
                answer(reply, given);
            }
        }
        for reply in self.line.ended() {
            answer(reply, GivenTasks::new(Vec::new(), &self.mailbox, &self.on_way));
        }
        self.claim();
    }

    fn give_back(&mut self, claims: Vec<(AppId, ClaimToken)>) {
        if claims.is_empty() {
            return;
        }
        let words = claims.into_iter().map(|(app, token)| TaskWord::give_back(app, token)).collect();
        let store = self.context.store.clone();
        let work = async move { in_time(store.move_tasks(words)).await.map(drop) };
        self.giving_back += 1;
        self.tasks.spawn(&self.mailbox, work, ClaimsMessage::GaveBack);
    }

    fn on_gave_back(&mut self, result: Result<(), StoreError>) {
        self.giving_back = self.giving_back.saturating_sub(1);
        if let Err(reason) = result {
            warn!("tasks whose worker is gone could not be given back, and run out: {reason}");
        }
    }

    fn on_drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining = Some(Draining { reply, was_quiet: false });
        self.on_drain_step();
    }

    fn on_drain_step(&mut self) {
        let is_on_way = Arc::strong_count(&self.on_way) > 1;
        let is_quiet = !self.is_claiming && self.giving_back == 0 && !is_on_way;
        let Some(draining) = &mut self.draining else { return };
        // Twice: tasks that were given back before the first look are in the mailbox before the second one.
        if is_quiet && draining.was_quiet {
            if let Some(Draining { reply, .. }) = self.draining.take()
                && reply.send(()).is_err()
            {
                debug!("the process stops without a wait for claims");
            }
            return;
        }
        draining.was_quiet = is_quiet;
        self.mailbox.send_after(DRAIN_STEP, || ClaimsMessage::DrainStep);
    }

    fn listen(&mut self) {
        let store = self.context.store.clone();
        let work = async move { store.task_news().await };
        self.tasks.spawn(&self.mailbox, work, ClaimsMessage::Written);
    }

    fn on_written(&mut self, news: TaskNews) {
        for (_, queue) in &news.ready {
            self.line.ready(queue);
        }
        for task in &news.ended {
            self.end_wait(task);
        }
        self.claim();
        self.tell_workers(&news.ready, &news.rated);
        self.tell_deliverers(&news.room);
        let now = self.context.now();
        let soon = news.wake_at.filter(|at| at.since(now) < EVERY);
        if let Some(at) = soon {
            self.tell_clock(at);
        }
        if self.context.shards.is_sole() {
            return self.listen();
        }
        let Some(signal) = signal(news, soon) else { return self.listen() };
        let context = self.context.clone();
        let work = async move { context.tell_others(signal).await };
        self.tasks.spawn(&self.mailbox, work, ClaimsMessage::Told);
        self.mailbox.send_after(GATHER, || ClaimsMessage::Listen);
    }

    /// Passes on which queues have work, or will have some once their rate allows a claim. The replica with
    /// the first shard tells worker subscriptions; it hears of the work of others by their signals.
    fn tell_workers(&self, ready: &BTreeSet<(AppId, QueueId)>, rated: &BTreeSet<(AppId, QueueId)>) {
        let queues: BTreeSet<(AppId, QueueId)> = ready.union(rated).cloned().collect();
        if !queues.is_empty() {
            self.tell_caller(WorkCallerMessage::Ready(queues));
        }
    }

    fn tell_caller(&self, message: WorkCallerMessage) {
        if self.context.shards.leads()
            && let Some(caller) = self.context.directory.find(WORK_CALLER, "")
        {
            caller.send(message);
        }
    }

    /// More changes of these apps may be handed over to queues.
    fn tell_deliverers<'a>(&self, apps: impl IntoIterator<Item = &'a AppId>) {
        for app in apps {
            for deliverer in deliverer::others_of(&self.context, app) {
                // A deliverer that is ending has no lane that waits.
                deliverer.send(DelivererMessage::Room);
            }
        }
    }

    fn tell_clock(&self, at: Timestamp) {
        // A clock keeper that is being restarted looks when it starts.
        if let Some(keeper) = self.context.directory.find(CLOCK_KEEPER, "") {
            keeper.send(ClockKeeperMessage::Nearest(at));
        }
    }

    fn end_wait(&mut self, task: &TaskId) {
        for reply in self.ends.remove(task).unwrap_or_default() {
            if reply.send(()).is_err() {
                debug!("nobody waits any more for the end of {task}");
            }
        }
    }

    fn on_heard(&mut self, did: &TaskSignal) {
        for (_, queue) in &did.ready {
            self.line.ready(queue);
        }
        self.tell_workers(&did.ready, &did.rated);
        self.tell_deliverers(&did.room);
        if did.is_all {
            self.line.ready_all();
            self.tell_caller(WorkCallerMessage::ReadyAll);
            for (_, deliverer) in self.context.directory.all::<DelivererMessage>(DELIVERER) {
                // Deliverers without lanes that hand over tasks ignore this message.
                deliverer.send(DelivererMessage::Room);
            }
        }
        if did.is_all || did.has_ended {
            // Which tasks ended is not told: who waits looks.
            for task in self.ends.keys().cloned().collect::<Vec<_>>() {
                self.end_wait(&task);
            }
        }
        self.claim();
    }

    fn on_again(&mut self, queues: &[QueueId]) {
        queues.iter().for_each(|queue| self.line.ready(queue));
        self.claim();
    }

    fn on_look(&mut self) {
        self.ends.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        self.line.ready_all();
        self.claim();
        self.mailbox.send_after(EVERY, || ClaimsMessage::Look);
    }
}

/// What other replicas are told of these news; `None`: nobody there waits for any of it. `soon` is the moment
/// by which the clock of tasks must look.
fn signal(news: TaskNews, soon: Option<Timestamp>) -> Option<Signal> {
    let TaskNews { ready, rated, ended, room, .. } = news;
    let is_all = ready.len() + rated.len() > QUEUES_TOLD || room.len() > APPS_TOLD;
    let (has_ended, wake_at) = (!ended.is_empty(), soon.map(|at| at.0));
    let did = match is_all {
        true => TaskSignal { is_all, has_ended, wake_at, ..TaskSignal::default() },
        false => TaskSignal { ready, rated, room, has_ended, is_all, wake_at },
    };
    (did != TaskSignal::default()).then_some(Signal::Tasks(did))
}

/// Gives a worker its tasks; those of one that is gone come back.
fn answer(reply: RpcReplyPort<GivenTasks>, given: GivenTasks) {
    if reply.send(given).is_err() {
        debug!("a worker left while it was given tasks");
    }
}

#[cfg(test)]
mod tests;
