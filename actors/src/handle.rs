//! The cloneable facade that the front door uses. It hides actors and mailboxes: a verb here is a
//! hint that rows have changed, never the change itself, so losing one costs latency only.

mod test_delivery;

use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort, concurrency::JoinHandle};
use tidings_entity::{
    id::{AppId, ReplicaId, RepositoryId, SourceId, SubscriptionId},
    kind::BreakerKind,
};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    circuit_breaker,
    context::Context,
    deliverer::{
        self, DelivererMessage,
        lending::{Lease, Refusal, Return, Settled, Wish},
    },
    directory::{Post, TreeNode},
    hints,
    housekeeping::LeaseKeeperMessage,
    polls::Polled,
    ports::{Replica, ReplicaSeen, SHARDS, Shard, Signal, SinkKey, StoreError, Watch},
    repository_watcher::RepositoryWatcherMessage,
    roll::{self, Look},
    start,
    subscriber::SubscriberMessage,
    supervisor::SupervisorMessage,
    tasks::in_time,
    terms::FENCED_AFTER,
    time::Timestamp,
    tree::{DELIVERER, LEASE_KEEPER, SUBSCRIBER, TREE},
};

pub use test_delivery::{TestRefused, Tested};

/// How long the tree may take to stop once deliveries have drained.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// How long a deliverer may take to start.
const START_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked for meanwhile.
const START_STEP: Duration = Duration::from_millis(20);

/// What the front door may ask of the tree.
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

    /// Watches of this repository were added, changed or removed: its watcher reloads its sources
    /// and polls what was never polled.
    pub async fn repository_changed(&self, repository: &RepositoryId) {
        if self.context.shards.owns(repository) {
            hints::tell_watcher(&self.context, repository, RepositoryWatcherMessage::Reload);
        } else {
            self.context.tell_others(Signal::Repository(repository.clone())).await;
        }
    }

    /// Whether work on this repository is done by this process now.
    #[must_use]
    pub fn works_on(&self, repository: &RepositoryId) -> bool {
        self.context.shards.owns(repository)
    }

    /// What this process is to the others that share its database.
    #[must_use]
    pub fn replica(&self) -> &ReplicaId {
        &self.context.policy.replica.id
    }

    /// The processes that share the database, this one among them, and which of them this one is.
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

    /// When a source was looked at last and is next; `None`: another process polls it, or nobody yet.
    #[must_use]
    pub fn polled(&self, source: &SourceId) -> Option<Polled> {
        self.context.directory.polls().of(source)
    }

    /// Polls this repository soon, whatever its schedule says.
    pub async fn poke(&self, repository: &RepositoryId) {
        hints::poke(&self.context, repository).await;
    }

    /// A genuine hook named this repository: it is polled soon. `at`, where it told of a ref: that is
    /// polled more rarely while such hooks come.
    pub async fn hooked(&self, repository: &RepositoryId, at: Option<Timestamp>) {
        if self.context.shards.owns(repository) {
            hints::caused(&self.context, repository);
            hints::tell_watcher(&self.context, repository, RepositoryWatcherMessage::Hooked(at));
        } else {
            self.context.tell_others(Signal::Hooked(repository.clone(), at.map(|at| at.0))).await;
        }
    }

    /// Rows of this app changed (a watch was added, paused, resynced, resumed; a redrive was asked for; a
    /// change is to be skipped): lanes whose terms changed read their rows again, and lanes that now have
    /// something to do start. A first delivery that must wait is held back by the store: a
    /// hint that waited here would die with an idle deliverer.
    pub async fn refresh(&self, app: &AppId) {
        hints::app_changed(&self.context, app);
        deliverer::refresh(&self.context, app).await;
    }

    /// A subscription was made, changed or removed: whoever works on it reads its row again.
    pub async fn subscription_changed(&self, subscription: &SubscriptionId) {
        hints::subscription_changed(&self.context, subscription);
        self.context.tell_others(Signal::Subscription(subscription.clone())).await;
    }

    /// A watch is gone from the rows: no attempt of it begins any more once this returns, here or on another
    /// replica. Takes [`FENCED_AFTER`] where another replica works on its repository and a round of it
    /// `was_open`: [`terms`](crate::terms) says why that is enough.
    pub async fn unwatched(&self, watch: &Watch, was_open: bool) {
        let gone = Instant::now();
        self.context.terms.end(&watch.id);
        self.repository_changed(&watch.repository).await;
        self.refresh(&watch.app).await;
        // Without an open round there was nothing to send, and none can be opened without rows.
        if was_open && !self.context.shards.owns(&watch.repository) {
            tokio::time::sleep_until(gone + FENCED_AFTER).await;
        }
    }

    /// An app is gone from the rows: no attempt of it begins here any more.
    pub async fn erased(&self, app: &AppId) {
        self.context.terms.end_app(app);
        self.refresh(app).await;
    }

    /// A redrive was asked for that is not marked to its end: that is carried on. Lost while the
    /// letter keeper restarts, which looks by itself.
    pub async fn carry_on_redrives(&self) {
        hints::carry_on_redrives(&self.context);
        self.context.tell_others(Signal::Redrive).await;
    }

    /// Asks for the next changes that go to a sink which is claimed from, and waits for them. `None`: there
    /// was nothing, or the deliverer ended meanwhile; ask again.
    pub async fn lend(
        &self,
        sink: &SinkKey,
        wish: impl FnOnce(RpcReplyPort<Option<Lease>>) -> Wish,
    ) -> Option<Lease> {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let wish = wish(RpcReplyPort::from(sender));
        let deliverer = self.deliverer(&sink.to_string()).await?;
        deliverer.send(DelivererMessage::Lend(wish)).then_some(())?;
        receiver.await.ok().flatten()
    }

    /// Gives changes back that were lent; `None`: nobody knows what became of them, so they come
    /// again.
    pub async fn give_back(
        &self,
        sink: &SinkKey,
        lease: impl FnOnce(RpcReplyPort<Result<Settled, Refusal>>) -> Return,
    ) -> Option<Result<Settled, Refusal>> {
        let (sender, receiver) = ractor::concurrency::oneshot();
        let lease = lease(RpcReplyPort::from(sender));
        let Some(deliverer) = self.context.directory.find(DELIVERER, &sink.to_string()) else {
            return Some(Err(Refusal::Stale));
        };
        deliverer.send(DelivererMessage::Return(lease)).then_some(())?;
        receiver.await.ok()
    }

    /// The deliverer of a sink, started if need be.
    async fn deliverer(&self, sink: &str) -> Option<Post<DelivererMessage>> {
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

    /// Closes a breaker by hand. `false`: there is none with this key here; other replicas are told.
    pub async fn reset_breaker(&self, key: &str) -> bool {
        if hints::reset_breaker(&self.context, key) {
            return true;
        }
        if self.context.shards.is_sole() {
            return false;
        }
        // Whether another replica has one its row tells; who cannot read it tells them all the same.
        let is_there = in_time(self.context.store.breakers())
            .await
            .map_or(true, |rows| rows.iter().any(|row| circuit_breaker::is_of(key, row.kind, &row.id)));
        if is_there {
            self.context.tell_others(Signal::ResetBreaker(key.to_owned())).await;
        }
        is_there
    }

    /// Opens a breaker by hand for at least so long; one that is open stays as it is.
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

    /// The live tree.
    pub async fn tree(&self) -> TreeNode {
        self.context.directory.tree(&TREE)
    }
}

/// The running tree. Dropping it does not stop it; [`Tree::stop`] does.
pub struct Tree {
    context: Context,
    root: ActorRef<SupervisorMessage>,
    join: JoinHandle<()>,
}

impl Tree {
    /// Starts the tree and everyone who has work.
    ///
    /// # Errors
    /// When the root cannot start or the store cannot be read.
    pub async fn start(context: Context) -> Result<Self, ActorProcessingErr> {
        let (root, join) = start::root(&context).await?;
        roll::ensure_all(&context, Look::Missing).await?;
        Ok(Self { context, root, join })
    }

    /// The facade.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.context.clone())
    }

    /// Waits until the root ended by itself: it failed too often, and the process must exit
    /// non-zero.
    pub async fn failed(&mut self) {
        // How the root's task ended does not matter: it ended without being asked.
        drop((&mut self.join).await);
    }

    /// Ends everyone at once, as the end of the process does.
    #[cfg(test)]
    pub(crate) async fn die(self) {
        self.root.kill();
        drop(self.join.await);
        for cell in self.context.directory.cells() {
            cell.kill();
        }
    }

    /// Lets attempts end (at most until `deadline` has passed), settles what was answered, stops
    /// everyone. Other replicas take over shard by shard meanwhile, each as soon as nothing goes on in it.
    pub async fn stop(self, deadline: Duration) {
        // A deliverer that starts during the drain, by a watcher's wake or after a crash, sends nothing.
        self.context.directory.close();
        if let Some(keeper) = self.context.directory.find::<LeaseKeeperMessage>(LEASE_KEEPER, "") {
            keeper.send(LeaseKeeperMessage::End);
        }
        let until = Instant::now() + deadline;
        let mut drains = Vec::new();
        for (_, subscriber) in self.context.directory.all::<SubscriberMessage>(SUBSCRIBER) {
            let (sender, receiver) = ractor::concurrency::oneshot();
            if subscriber.send(SubscriberMessage::Drain(RpcReplyPort::from(sender))) {
                drains.push(receiver);
            }
        }
        for (_, deliverer) in self.context.directory.all::<DelivererMessage>(DELIVERER) {
            let (sender, receiver) = ractor::concurrency::oneshot();
            if deliverer.send(DelivererMessage::Drain(RpcReplyPort::from(sender))) {
                drains.push(receiver);
            }
        }
        for drain in drains {
            // Beyond the deadline an unanswered attempt is given up and repeated after the start.
            drop(tokio::time::timeout_at(until, drain).await);
        }
        if self.root.stop_and_wait(None, Some(STOP_DEADLINE)).await.is_err() {
            self.root.kill();
        }
        self.leave().await;
    }

    /// Nothing goes on here any more: what this replica held is free, and the others hear of it.
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
