//! The cloneable facade that the HTTP handlers use. It hides actors and mailboxes: a call is a hint that rows
//! have changed, never the change itself, so a lost call costs latency only.

mod body_again;
mod test_delivery;

use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort, concurrency::JoinHandle};
use tidings_entity::{
    id::{AppId, ReplicaId, RepositoryId, SourceId, SubscriptionId, TaskId},
    kind::BreakerKind,
};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    circuit_breaker,
    context::Context,
    deliverer::{
        self, DelivererMessage,
        outlets::pulling::{Acknowledgement, PullRequest, Pulled, Refusal, Settled},
    },
    housekeeping::{
        LeaseKeeperMessage,
        claims::{ClaimsMessage, GivenTasks, WaitingClaim},
    },
    ownership::terms::FENCED_AFTER,
    ports::{ClaimRequest, Replica, ReplicaSeen, SHARDS, Shard, Signal, SinkKey, StoreError, Watch},
    scanning::repository_watcher::RepositoryWatcherMessage,
    signals::polls::Polled,
    subscriber::SubscriberMessage,
    supervision::{
        children_with_work::{self, Look},
        directory::{Mailbox, TreeNode},
        hints, start,
        supervisor::SupervisorMessage,
        tasks::in_time,
        tree::{CLAIMS, DELIVERER, LEASE_KEEPER, SUBSCRIBER, TREE},
    },
    time::Timestamp,
};

pub use test_delivery::{TestRefused, Tested};

/// How long the tree may take to stop once deliveries have drained.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// How long a stop waits for claims of tasks: longer than a healthy database takes.
const CLAIMS_DRAIN: Duration = Duration::from_secs(5);

/// The rest of a caller that waits for the end of a task while the line of workers does not run.
const NO_LINE_WAIT: Duration = Duration::from_secs(1);

/// How long a deliverer may take to start.
const START_WAIT: Duration = Duration::from_secs(2);
/// The interval of the checks whether the deliverer has started.
const START_STEP: Duration = Duration::from_millis(20);

/// The calls that the HTTP handlers may make to the tree.
#[derive(Clone)]
pub struct Handle {
    context: Context,
}

impl Handle {
    /// A facade over a tree that shares this context.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    /// Watches of this repository were added, changed or removed: its watcher reloads its sources and polls
    /// sources that were never polled.
    pub async fn repository_changed(&self, repository: &RepositoryId) {
        if self.context.shards.owns(repository) {
            hints::tell_watcher(&self.context, repository, RepositoryWatcherMessage::Reload);
        } else {
            self.context.tell_others(Signal::Repository(repository.clone())).await;
        }
    }

    /// Whether this process works on the repository now.
    #[must_use]
    pub fn works_on(&self, repository: &RepositoryId) -> bool {
        self.context.shards.owns(repository)
    }

    /// The id of this process among the processes that share its database.
    #[must_use]
    pub fn replica(&self) -> &ReplicaId {
        &self.context.policy.replica.id
    }

    /// The id of this process, and all processes that share the database, including this one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replicas(&self) -> Result<(ReplicaId, Vec<ReplicaSeen>), StoreError> {
        let replica = self.context.policy.replica.clone();
        let id = replica.id.clone();
        let seen = match &self.context.leases {
            Some(leases) => in_time(leases.replicas()).await?,
            None => {
                let oldest = in_time(self.context.store.laggards(1)).await?;
                let now = self.context.clock.now();
                let lag = oldest.first().map_or(Duration::ZERO, |laggard| now.since(laggard.since));
                vec![ReplicaSeen { replica, shards: SHARDS, seen: Duration::ZERO, lag }]
            }
        };
        Ok((id, seen))
    }

    /// The process that works on this repository, if another one does.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn worked_on_by(&self, repository: &RepositoryId) -> Result<Option<Replica>, StoreError> {
        let Some(leases) = &self.context.leases else { return Ok(None) };
        let owner = in_time(leases.owner(Shard::of(repository))).await?;
        Ok(owner.filter(|owner| owner.id != self.context.policy.replica.id))
    }

    /// When a source was last scanned and is scanned next; `None`: another process scans it, or no scan has
    /// ended yet.
    #[must_use]
    pub fn polled(&self, source: &SourceId) -> Option<Polled> {
        self.context.directory.polls().of(source)
    }

    /// Polls this repository soon, regardless of its schedule.
    pub async fn poke(&self, repository: &RepositoryId) {
        hints::poke(&self.context, repository).await;
    }

    /// A genuine hook named this repository: it is scanned soon. `at` is set where the hook reported a ref:
    /// the repository is then polled less often while such hooks come.
    pub async fn hooked(&self, repository: &RepositoryId, at: Option<Timestamp>) {
        if self.context.shards.owns(repository) {
            hints::caused(&self.context, repository);
            hints::tell_watcher(&self.context, repository, RepositoryWatcherMessage::Hooked(at));
        } else {
            self.context.tell_others(Signal::Hooked(repository.clone(), at.map(|at| at.0))).await;
        }
    }

    /// A genuine hook of this app named this repository: the app's sources of it are polled soon.
    pub async fn app_hooked(&self, repository: &RepositoryId, app: &AppId) {
        if self.context.shards.owns(repository) {
            hints::caused(&self.context, repository);
            let message = RepositoryWatcherMessage::AppHooked(app.clone());
            hints::tell_watcher(&self.context, repository, message);
        } else {
            self.context.tell_others(Signal::AppHooked(repository.clone(), app.clone())).await;
        }
    }

    /// Rows of this app changed (a watch was added, paused, resynced, resumed; a redrive was asked for; a
    /// change is to be skipped): lanes whose terms changed read their rows again, and lanes that now have
    /// something to do start. The store holds back a first delivery that must wait: a timer here would end
    /// with an idle deliverer.
    pub async fn refresh(&self, app: &AppId) {
        hints::app_changed(&self.context, app);
        deliverer::refresh(&self.context, app).await;
    }

    /// A subscription was created, changed or removed: its actor reads the row again.
    pub async fn subscription_changed(&self, subscription: &SubscriptionId) {
        hints::subscription_changed(&self.context, subscription);
        self.context.tell_others(Signal::Subscription(subscription.clone())).await;
    }

    /// A watch is gone from the rows: no attempt of it begins any more once this returns, here or on another
    /// replica. Takes [`FENCED_AFTER`] where another replica works on its repository and a round of it
    /// `was_open`: [`terms`](crate::ownership::terms) says why that is enough.
    pub async fn unwatched(&self, watch: &Watch, was_open: bool) {
        let gone = Instant::now();
        self.context.terms.end(&watch.id);
        self.repository_changed(&watch.repository).await;
        self.refresh(&watch.app).await;
        // Without an open round there is no work, and none can begin without rows.
        if was_open && !self.context.shards.owns(&watch.repository) {
            tokio::time::sleep_until(gone + FENCED_AFTER).await;
        }
    }

    /// An app is gone from the rows: no attempt of it begins here any more.
    pub async fn erased(&self, app: &AppId) {
        self.context.terms.end_app(app);
        self.refresh(app).await;
    }

    /// A redrive was requested whose letters are not all marked yet: the letter keeper continues. A hint that
    /// is lost while the letter keeper restarts does no harm, because it reads the open redrives itself.
    pub async fn carry_on_redrives(&self) {
        hints::carry_on_redrives(&self.context);
        self.context.tell_others(Signal::Redrive).await;
    }

    /// Asks for the next changes of a sink that consumers claim from, and waits for them.
    /// [`Pulled::Nothing`]: there are none, or the deliverer ended meanwhile; the caller may ask again.
    pub async fn pull(
        &self,
        sink: &SinkKey,
        request: impl FnOnce(RpcReplyPort<Pulled>) -> PullRequest,
    ) -> Pulled {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let request = request(RpcReplyPort::from(sender));
        let Some(deliverer) = self.deliverer(&sink.to_string()).await else { return Pulled::Nothing };
        if !deliverer.send(DelivererMessage::Pull(request)) {
            return Pulled::Nothing;
        }
        receiver.await.unwrap_or(Pulled::Nothing)
    }

    /// Ends a claim with its outcome; `None`: the claim is not known here, so the changes are handed out
    /// again.
    pub async fn acknowledge(
        &self,
        sink: &SinkKey,
        lease: impl FnOnce(RpcReplyPort<Result<Settled, Refusal>>) -> Acknowledgement,
    ) -> Option<Result<Settled, Refusal>> {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let lease = lease(RpcReplyPort::from(sender));
        let Some(deliverer) = self.context.directory.find(DELIVERER, &sink.to_string()) else {
            return Some(Err(Refusal::Stale));
        };
        deliverer.send(DelivererMessage::Acknowledge(lease)).then_some(())?;
        receiver.await.ok()
    }

    /// Waits in line for tasks. The answer comes when there are tasks or, if the request is not patient, at
    /// once. `None`: the line was lost, or the store failed; the caller may ask again. Dropping the future
    /// leaves the line.
    pub async fn claim(&self, request: ClaimRequest, is_patient: bool) -> Option<GivenTasks> {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let reply = RpcReplyPort::from(sender);
        let claims = self.context.directory.find(CLAIMS, "")?;
        let waiting = WaitingClaim { request, reply, is_patient };
        claims.send(ClaimsMessage::Wait(Box::new(waiting))).then_some(())?;
        receiver.await.ok()
    }

    /// Waits until the task may have ended: its row says whether it has. The line of workers tells of ends.
    /// While the line does not run, this returns after a second, because the caller reads the row each time.
    pub async fn task_ended(&self, task: &TaskId) {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let wait = ClaimsMessage::WaitForEnd(task.clone(), RpcReplyPort::from(sender));
        if self.context.directory.find(CLAIMS, "").is_some_and(|claims| claims.send(wait)) {
            // A lost line wakes nobody; the caller reads the row then, too.
            drop(receiver.await);
        } else {
            tokio::time::sleep(NO_LINE_WAIT).await;
        }
    }

    /// The deliverer of a sink, started if need be.
    async fn deliverer(&self, sink: &str) -> Option<Mailbox<DelivererMessage>> {
        let until = Instant::now() + START_WAIT;
        loop {
            let found = self.context.directory.find(DELIVERER, sink);
            if found.is_some() || Instant::now() >= until {
                return found;
            }
            self.context.ensure_deliverer(sink);
            tokio::time::sleep(START_STEP).await;
        }
    }

    /// Closes a breaker by hand and tells other replicas. `false`: this process has no breaker of the key.
    pub async fn reset_breaker(&self, key: &str) -> bool {
        if hints::reset_breaker(&self.context, key) {
            return true;
        }
        if self.context.shards.is_sole() {
            return false;
        }
        // The row says whether another replica runs this breaker. If the row cannot be read, the others are
        // told all the same.
        let is_there = in_time(self.context.store.breakers())
            .await
            .map_or(true, |rows| rows.iter().any(|row| circuit_breaker::is_of(key, row.kind, &row.id)));
        if is_there {
            self.context.tell_others(Signal::ResetBreaker(key.to_owned())).await;
        }
        is_there
    }

    /// Opens a breaker by hand for at least this wait; a breaker that is open stays as it is.
    pub fn open_breaker(&self, kind: BreakerKind, key: &str, wait: Duration) {
        let policy = match kind {
            BreakerKind::Source => self.context.policy.source_breaker,
            BreakerKind::Endpoint => self.context.policy.endpoint_breaker,
        };
        for _ in 0..policy.threshold.max(1) {
            circuit_breaker::report(
                &self.context,
                key,
                Err((circuit_breaker::OPENED_BY_HAND.to_owned(), Some(wait))),
            );
        }
    }

    /// The supervision tree with the present state of each actor.
    pub async fn tree(&self) -> TreeNode {
        self.context.directory.tree(&TREE)
    }
}

/// The running supervision tree. Dropping this value does not stop it; [`Tree::stop`] does.
pub struct Tree {
    context: Context,
    root: ActorRef<SupervisorMessage>,
    join: JoinHandle<()>,
}

impl Tree {
    /// Starts the tree and each actor that has work.
    ///
    /// # Errors
    /// When the root cannot start or the store cannot be read.
    pub async fn start(context: Context) -> Result<Self, ActorProcessingErr> {
        let (root, join) = start::root(&context).await?;
        children_with_work::ensure_all(&context, Look::Missing).await?;
        Ok(Self { context, root, join })
    }

    /// A facade on this tree, for the HTTP server.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.context.clone())
    }

    /// Waits until the root ended by itself: it failed too often, and the process must exit
    /// non-zero.
    pub async fn failed(&mut self) {
        // The result of the root's task does not matter: the root ended without being asked to.
        drop((&mut self.join).await);
    }

    /// Ends all actors at once, as the end of the process does.
    #[cfg(test)]
    pub(crate) async fn die(self) {
        self.root.kill();
        drop(self.join.await);
        for cell in self.context.directory.cells() {
            cell.kill();
        }
    }

    /// Lets attempts end (at most until `deadline` has passed), settles answered changes, and stops all
    /// actors. Other replicas take over each shard as soon as this replica has no work left in it.
    pub async fn stop(self, deadline: Duration) {
        // A deliverer that starts during the drain, by a watcher's wake or after a crash, sends nothing.
        self.context.directory.close();
        if let Some(keeper) = self.context.directory.find::<LeaseKeeperMessage>(LEASE_KEEPER, "") {
            keeper.send(LeaseKeeperMessage::End);
        }
        let until = Instant::now() + deadline;
        let mut drains = Vec::new();
        if let Some(claims) = self.context.directory.find(CLAIMS, "") {
            let (sender, receiver) = ractor::concurrency::oneshot();
            if claims.send(ClaimsMessage::Drain(RpcReplyPort::from(sender))) {
                drains.push((receiver, until.min(Instant::now() + CLAIMS_DRAIN)));
            }
        }
        for (_, subscriber) in self.context.directory.all::<SubscriberMessage>(SUBSCRIBER) {
            let (sender, receiver) = ractor::concurrency::oneshot();
            if subscriber.send(SubscriberMessage::Drain(RpcReplyPort::from(sender))) {
                drains.push((receiver, until));
            }
        }
        for (_, deliverer) in self.context.directory.all::<DelivererMessage>(DELIVERER) {
            let (sender, receiver) = ractor::concurrency::oneshot();
            if deliverer.send(DelivererMessage::Drain(RpcReplyPort::from(sender))) {
                drains.push((receiver, until));
            }
        }
        for (drain, until) in drains {
            // Beyond the deadline an unanswered attempt is given up and repeated after the start.
            drop(tokio::time::timeout_at(until, drain).await);
        }
        if self.root.stop_and_wait(None, Some(STOP_DEADLINE)).await.is_err() {
            self.root.kill();
        }
        self.leave().await;
    }

    /// Releases the shards of this replica and tells the others, after all work has ended.
    async fn leave(&self) {
        let context = &self.context;
        let Some(leases) = &context.leases else { return };
        context.shards.leave_all();
        match in_time(leases.leave(&context.policy.replica.id)).await {
            Ok(()) => context.tell_others(Signal::Shards).await,
            Err(reason) => warn!("this replica could not give its leases back, they will expire: {reason}"),
        }
    }
}
