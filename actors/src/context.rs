//! The context that every actor gets: the ports, the policies and the address book.

pub mod policy;

use std::sync::Arc;

use tidings_entity::id::{AppId, RepositoryId};
use tokio::sync::watch;
use tracing::debug;

use self::policy::Policy;
use crate::{
    limits::{
        budget::Budget,
        in_flight::InFlightLimits,
        pace::{Pace, Paces},
        scan_slots::ScanSlots,
        turns::Turns,
    },
    ownership::{
        shards::{ShardHold, Shards},
        terms::Terms,
    },
    ports::{
        App, Clock, GitSource, Leases, Meter, Objects, Random, Signal, StatusBoard, Store, Tracer, Transport,
    },
    signals::{causes::Causes, untold::Untold},
    supervision::{
        directory::Directory,
        supervisor::SupervisorMessage,
        tasks::in_time,
        tree::{APPS, BREAKERS, REPOSITORIES},
    },
    time::Timestamp,
};

/// The ports, the policies and the address book. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The database: everything that must survive a restart.
    pub store: Arc<dyn Store>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// Renders changes and sends them to receivers.
    pub transport: Arc<dyn Transport>,
    /// Statuses of commits at Git hosts.
    pub board: Arc<dyn StatusBoard>,
    /// The objects of artifacts.
    pub objects: Arc<dyn Objects>,
    /// The wall clock, for moments in rows and bodies.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness, for jitter and ids.
    pub random: Arc<dyn Random>,
    /// Counts and times the work, for metrics.
    pub meter: Arc<dyn Meter>,
    /// Names the spans of traces across mailboxes and rows.
    pub tracer: Arc<dyn Tracer>,
    /// Which hook led to which scan, and which scan to which lane, for traces.
    pub causes: Causes,
    /// The numbers of the settings that actors decide by.
    pub policy: Arc<Policy>,
    /// The memory for rendered bodies, in bytes, shared by the lanes of all apps.
    pub budget: Budget,
    /// The request rate of each app.
    pub paces: Paces,
    /// The number of attempts in flight at each app, over all its sinks.
    pub in_flight: InFlightLimits,
    /// The turns of apps at reading and rendering changes: work for processors and disks.
    pub read_turns: Turns,
    /// The turns of apps at reading lanes and at beginning and ending rounds: all apps share the database.
    pub rows: Turns,
    /// The turns of apps at attempts in flight, when the whole server has as many as it may.
    pub outbound: Turns,
    /// Decides which app may scan next.
    pub scan_slots: ScanSlots,
    /// The shards, and so the repositories, that this process works on.
    pub shards: Shards,
    /// The terms (pauses, skips, sinks) that the lanes of this process run under.
    pub terms: Terms,
    /// Signals that other replicas have not received yet, because a notification failed.
    pub untold: Untold,
    /// The leases shared with other replicas; `None`: this process has the database to itself.
    pub leases: Option<Arc<dyn Leases>>,
    /// The address book of the running actors.
    pub directory: Directory,
    /// The reason why this process must end, such as another process that took over its database; `None`
    /// until then.
    pub fatal: watch::Sender<Option<String>>,
}

impl Context {
    /// Now, in unix milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks the supervisor of breakers to start the breaker with this key if it does not run.
    pub fn ensure_breaker(&self, key: &str) {
        self.ensure(BREAKERS, key);
    }

    /// Asks that the watcher of a repository runs.
    pub fn ensure_watcher(&self, repository: &str) {
        self.ensure(REPOSITORIES, repository);
    }

    /// This context for work on a repository: its writes change nothing once another replica has taken over.
    /// `None`: another replica has the repository, or this replica's lease is in doubt.
    pub(crate) fn of(&self, repository: &RepositoryId) -> Option<(Self, ShardHold)> {
        Some(self.under(self.shards.hold(repository)?))
    }

    /// This context for work on the subscriptions of an app; `None` as in [`Context::of`].
    pub(crate) fn of_app(&self, app: &AppId) -> Option<(Self, ShardHold)> {
        Some(self.under(self.shards.hold_app(app)?))
    }

    fn under(&self, hold: ShardHold) -> (Self, ShardHold) {
        let mut context = self.clone();
        if let Some(fence) = hold.fence() {
            context.store = self.store.under(fence);
        }
        (context, hold)
    }

    /// How many attempts of an app this process makes at the same time: its share of the app's limit.
    #[must_use]
    pub fn in_flight_of(&self, app: &App) -> usize {
        let own = app.delivery.max_concurrent.and_then(|most| usize::try_from(most).ok());
        let most = own.map_or(self.policy.app_in_flight, |most| most.min(self.policy.app_in_flight));
        most.div_ceil(self.shards.workers())
    }

    /// Does work for processors and disks when the app has its turn at them.
    pub(crate) async fn in_read_turn<T>(&self, app: &AppId, work: impl Future<Output = T>) -> T {
        let _turn = self.read_turns.take(app).await;
        work.await
    }

    /// How fast an app takes requests; `None`: as fast as it answers.
    #[must_use]
    pub fn pace_of(&self, app: &App) -> Option<Pace> {
        let rate = app.delivery.rate.into_iter().chain(self.policy.app_rate).min();
        self.paces.of(&app.id, rate)
    }

    /// Asks that the deliverer of a sink runs.
    pub fn ensure_deliverer(&self, sink: &str) {
        self.ensure(APPS, sink);
    }

    /// Asks that the actor of a subscription runs.
    pub fn ensure_subscriber(&self, subscription: &str) {
        self.ensure(APPS, subscription);
    }

    /// Asks a supervisor that its child with this key runs.
    pub(crate) fn ensure(&self, supervisor: &'static str, key: &str) {
        // A supervisor that is restarting misses this message. That costs little: the caller asks again
        // whenever it has work, and the start of the tree starts each actor that has work.
        if let Some(mailbox) = self.directory.find::<SupervisorMessage>(supervisor, "") {
            mailbox.send(SupervisorMessage::Ensure(key.to_owned()));
        }
    }

    /// Notifies other replicas, if there are any, that rows changed. A notification that fails is sent when
    /// this replica next renews its leases. A notification that no replica listens for is lost; the owner of
    /// the work also reads the rows from time to time.
    pub(crate) async fn tell_others(&self, signal: Signal) {
        let Some(leases) = &self.leases else { return };
        if let Err(reason) = in_time(leases.tell(&signal)).await {
            debug!("other replicas were not told {signal:?}, and will be: {reason}");
            self.untold.keep(signal);
        }
    }

    /// Sends the notifications to other replicas that failed before.
    pub(crate) async fn tell_untold(&self) {
        for signal in self.untold.take() {
            self.tell_others(signal).await;
        }
    }

    /// Asks the mirror keeper to look at a mirror whose repository lost its last watch.
    pub(crate) fn look_at_mirror(&self, repository: &RepositoryId) {
        self.git.growth().note(repository);
    }

    /// This process lost its right to work: everything stops, and it exits non-zero.
    pub fn give_up(&self, reason: &str) {
        self.fatal.send_replace(Some(reason.to_owned()));
    }
}
