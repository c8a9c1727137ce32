//! What every actor is given: the ports, the policies and the address book.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use ractor::Message;
use tidings_entity::{
    id::{AppId, ReplicaId, RepositoryId},
    kind::{ReplicaRole, RetryPolicy},
};
use tokio::{sync::watch, task::JoinSet};
use tracing::debug;

use crate::{
    budget::Budget,
    causes::Causes,
    circuit_breaker::BreakerPolicy,
    directory::{Directory, Post},
    housekeeping::MirrorKeeperMessage,
    pace::{Pace, Paces},
    ports::{
        App, Clock, GitSource, Leases, Meter, Random, Replica, Signal, Store, StoreError, Tracer, Transport,
    },
    scan_slots::ScanSlots,
    shards::{Hold, Shards},
    supervisor::SupervisorMessage,
    terms::Terms,
    time::Timestamp,
    tree::{APPS, BREAKERS, MIRROR_KEEPER, REPOSITORIES},
    turns::Turns,
    untold::Untold,
};

/// Numbers from the settings that decisions need.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Shortest poll interval.
    pub poll_min: Duration,
    /// Longest poll interval.
    pub poll_max: Duration,
    /// Longest poll interval while genuine hooks of the repository arrive.
    pub poll_max_hooked: Duration,
    /// How long a branch must be missing, over two listings, before it counts as gone.
    pub branch_gone_after: Duration,
    /// The longest wait of a new watch for its first delivery.
    pub first_delay: Duration,
    /// Most commits an `every` watch walks back.
    pub every_max: u32,
    /// Scans at the same time; and as many more of those that take long.
    pub scan_workers: usize,
    /// One deadline over connect, headers and body of an attempt.
    pub attempt_timeout: Duration,
    /// The growth of waits where an app chose none.
    pub retry_policy: RetryPolicy,
    /// The first wait.
    pub retry_base: Duration,
    /// The longest wait.
    pub retry_cap: Duration,
    /// How long endpoint failures are retried before the cursor is blocked.
    pub retry_window: Duration,
    /// Attempts of one app at the same time, at most.
    pub app_in_flight: usize,
    /// Requests to one app in a second, at most; `None`: no limit but its own.
    pub app_rate: Option<u32>,
    /// Lanes of one app in memory at the same time.
    pub app_lanes: usize,
    /// Attempts of all apps at the same time, at most.
    pub in_flight: usize,
    /// Reads and renderings for deliveries at the same time.
    pub desks: usize,
    /// A round that deletes more than this share of the held files pauses its watch.
    pub max_delete_percent: Option<u8>,
    /// Breakers of endpoints.
    pub endpoint_breaker: BreakerPolicy,
    /// Breakers of sources.
    pub source_breaker: BreakerPolicy,
    /// Whether acknowledged attempts are rows as well as failed ones.
    pub record_all: bool,
    /// Age at which history goes.
    pub history: Duration,
    /// Rows of history that an app has at most: ended rounds, their settled ranges and attempts.
    pub history_rows: u64,
    /// Age at which unused blob rows go.
    pub blob_age: Duration,
    /// The wait between two rounds of upkeep.
    pub upkeep_interval: Duration,
    /// Rows removed in one transaction.
    pub upkeep_rows: u64,
    /// Most packs of a mirror, and most commits in it without parents.
    pub packs_max: u64,
    /// Most bytes of one mirror; 0: no limit.
    pub mirror_max_bytes: u64,
    /// Most bytes of all mirrors; 0: no limit.
    pub mirrors_max_bytes: u64,
    /// Whether other replicas keep their mirrors in the same directory: each looks after those of the
    /// repositories that it works on.
    pub mirrors_shared: bool,
    /// In this time every file of a mirror is read again once.
    pub scrub_every: Duration,
    /// The wait between two looks at how everything is.
    pub survey_interval: Duration,
    /// What this process is to other replicas.
    pub replica: Replica,
    /// How long a lease lives that is not prolonged.
    pub lease_life: Duration,
    /// How long what goes on under a lease may take to end before the lease is given away.
    pub leaving_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            poll_min: Duration::from_secs(45),
            poll_max: Duration::from_secs(300),
            poll_max_hooked: Duration::from_secs(3_600),
            branch_gone_after: Duration::from_secs(60),
            first_delay: Duration::from_secs(1),
            every_max: 1_000,
            scan_workers: 64,
            attempt_timeout: Duration::from_secs(30),
            retry_policy: RetryPolicy::ExpFullJitter,
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(3_600),
            retry_window: Duration::from_secs(72 * 3_600),
            app_in_flight: 32,
            app_rate: None,
            app_lanes: 256,
            in_flight: 1_024,
            desks: 8,
            max_delete_percent: None,
            endpoint_breaker: BreakerPolicy {
                threshold: 5,
                first_wait: Duration::from_secs(5),
                last_wait: Duration::from_secs(60),
            },
            source_breaker: BreakerPolicy {
                threshold: 5,
                first_wait: Duration::from_secs(30),
                last_wait: Duration::from_secs(1_800),
            },
            record_all: false,
            history: Duration::from_secs(30 * 86_400),
            history_rows: 1_000_000,
            blob_age: Duration::from_secs(90 * 86_400),
            upkeep_interval: Duration::from_secs(3_600),
            upkeep_rows: 1_000,
            packs_max: 50,
            mirror_max_bytes: 16 << 30,
            mirrors_max_bytes: 0,
            mirrors_shared: false,
            scrub_every: Duration::from_secs(30 * 86_400),
            survey_interval: Duration::from_secs(15),
            replica: Replica {
                id: ReplicaId::new(ulid::Ulid::nil()),
                name: String::new(),
                version: String::new(),
                role: ReplicaRole::All,
                works: true,
                address: None,
                started_at: Timestamp(0),
            },
            lease_life: Duration::from_secs(15),
            leaving_max: Duration::from_secs(20),
        }
    }
}

/// The ports, the policies and the address book. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// What survives.
    pub store: Arc<dyn Store>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// Receivers.
    pub transport: Arc<dyn Transport>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// What is counted and timed.
    pub meter: Arc<dyn Meter>,
    /// Places in traces.
    pub tracer: Arc<dyn Tracer>,
    /// What led to what is to be done next.
    pub causes: Causes,
    /// The policies.
    pub policy: Arc<Policy>,
    /// Bytes that deliveries may take in memory.
    pub budget: Budget,
    /// How fast apps take requests.
    pub paces: Paces,
    /// Whose changes are read and rendered next: work for processors and disks.
    pub desks: Turns,
    /// Which app may wait for much of the budget: one at a time.
    pub heavy: Turns,
    /// Who sends next, when the whole server has as many attempts in flight as it may.
    pub outbound: Turns,
    /// Which app may scan.
    pub scan_slots: ScanSlots,
    /// Which repositories are worked on here.
    pub shards: Shards,
    /// Under which terms the lanes here run.
    pub terms: Terms,
    /// What other replicas are still to be told.
    pub untold: Untold,
    /// Who else works on this database; `None`: nobody.
    pub leases: Option<Arc<dyn Leases>>,
    /// Who is running.
    pub directory: Directory,
    /// Why this process must end, once it must: another one took over its database.
    pub fatal: watch::Sender<Option<String>>,
}

impl Context {
    /// Now, in unix milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks the supervisor of breakers that one runs.
    pub fn ensure_breaker(&self, key: &str) {
        self.ensure(BREAKERS, key);
    }

    /// Asks that the watcher of a repository runs.
    pub fn ensure_watcher(&self, repository: &str) {
        self.ensure(REPOSITORIES, repository);
    }

    /// The same ports for work on a repository: what it writes changes nothing once another replica
    /// has taken over. `None`: another has that repository, or nobody knows.
    pub(crate) fn of(&self, repository: &RepositoryId) -> Option<(Self, Hold)> {
        let hold = self.shards.hold(repository)?;
        let mut context = self.clone();
        if let Some(fence) = hold.fence() {
            context.store = self.store.under(fence);
        }
        Some((context, hold))
    }

    /// How many attempts of an app this process makes at the same time: its part of what the app takes.
    #[must_use]
    pub fn in_flight_of(&self, app: &App) -> usize {
        let own = app.delivery.max_concurrent.and_then(|most| usize::try_from(most).ok());
        let most = own.map_or(self.policy.app_in_flight, |most| most.min(self.policy.app_in_flight));
        most.div_ceil(self.shards.workers())
    }

    /// Does work for processors and disks when it is the turn of its app.
    pub(crate) async fn at_desk<T>(&self, app: &AppId, work: impl Future<Output = T>) -> T {
        let _desk = self.desks.take(app).await;
        work.await
    }

    /// How fast an app takes requests; `None`: as fast as it answers.
    #[must_use]
    pub fn pace_of(&self, app: &App) -> Option<Pace> {
        let rate = app.delivery.rate.into_iter().chain(self.policy.app_rate).min();
        self.paces.of(&app.id, rate)
    }

    /// Asks that the deliverer of an app runs.
    pub fn ensure_deliverer(&self, app: &str) {
        self.ensure(APPS, app);
    }

    /// Asks a supervisor that its child with this key runs.
    pub(crate) fn ensure(&self, supervisor: &'static str, key: &str) {
        // A supervisor that is being restarted is asked again: whoever ensures does so each time
        // it has work, and the start of the tree ensures everyone who has work.
        if let Some(post) = self.directory.find::<SupervisorMessage>(supervisor, "") {
            post.send(SupervisorMessage::Ensure(key.to_owned()));
        }
    }

    /// Tells other replicas, if there are any, that rows changed. What cannot be told now is told as soon as
    /// this replica reached the database to prolong its leases. Where nobody listens it is lost: whoever
    /// owns the work looks now and then by itself.
    pub(crate) async fn tell_others(&self, signal: Signal) {
        let Some(leases) = &self.leases else { return };
        if let Err(reason) = in_time(leases.tell(&signal)).await {
            debug!("other replicas were not told {signal:?}, and will be: {reason}");
            self.untold.keep(signal);
        }
    }

    /// Tells other replicas what they could not be told before.
    pub(crate) async fn tell_untold(&self) {
        for signal in self.untold.take() {
            self.tell_others(signal).await;
        }
    }

    /// Asks for a look at a mirror: nobody watches it any more.
    /// While the keeper is being restarted nobody looks; its next look at all mirrors will.
    pub(crate) fn look_at_mirror(&self, repository: &RepositoryId) {
        if let Some(keeper) = self.directory.find::<MirrorKeeperMessage>(MIRROR_KEEPER, "") {
            keeper.send(MirrorKeeperMessage::Look(repository.clone()));
        }
    }

    /// This process lost its right to work: everything stops, and it exits non-zero.
    pub fn give_up(&self, reason: &str) {
        self.fatal.send_replace(Some(reason.to_owned()));
    }
}

/// A verb of the store that takes longer than this counts as failed: its outcome is unknown, and
/// whoever asked reads again.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Bounds a verb of the store, so that a database that hangs never leaves a lane waiting for ever.
///
/// # Errors
/// What the verb fails with, or [`StoreError::Unavailable`] when it takes too long.
pub async fn in_time<T>(verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {STORE_DEADLINE:?}"));
    tokio::time::timeout(STORE_DEADLINE, verb).await.map_err(late)?
}

/// Tasks of one actor: they end with it, each reports by one message, and a panic in one is
/// reported as well instead of leaving its actor waiting for ever.
#[derive(Default)]
pub struct Tasks(JoinSet<()>);

impl Tasks {
    /// Runs `work` and sends what `report` makes of its result, or of a panic's text.
    pub fn spawn<M: Message, T>(
        &mut self,
        post: &Post<M>,
        work: impl Future<Output = T> + Send + 'static,
        report: impl FnOnce(Result<T, String>) -> M + Send + 'static,
    ) {
        while self.0.try_join_next().is_some() {}
        let post = post.clone();
        // A task that ended stays in the set until the next one begins; what it worked with, in a
        // box, does not.
        self.0.spawn(Box::pin(async move {
            let result = AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
                panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "a panic without a text".to_owned())
            });
            post.send(report(result));
        }));
    }
}
