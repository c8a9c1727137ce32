//! What every actor is given: the ports, the policies and the address book.

use std::sync::Arc;

use tidings_entity::id::{AppId, RepositoryId};
use tokio::sync::watch;
use tracing::debug;

use crate::{
    budget::Budget,
    causes::Causes,
    crowds::Crowds,
    directory::Directory,
    pace::{Pace, Paces},
    policy::Policy,
    ports::{App, Clock, GitSource, Leases, Meter, Random, Signal, Store, Tracer, Transport},
    scan_slots::ScanSlots,
    shards::{Hold, Shards},
    supervisor::SupervisorMessage,
    tasks::in_time,
    terms::Terms,
    time::Timestamp,
    tree::{APPS, BREAKERS, REPOSITORIES},
    turns::Turns,
    untold::Untold,
};

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
    /// How many attempts are under way at apps, over all their sinks.
    pub crowds: Crowds,
    /// Whose changes are read and rendered next: work for processors and disks.
    pub desks: Turns,
    /// Whose lanes are read and whose rounds begin and end next: the database is one for all apps.
    pub rows: Turns,
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
        Some(self.under(self.shards.hold(repository)?))
    }

    /// The same for work on the subscriptions of an app.
    pub(crate) fn of_app(&self, app: &AppId) -> Option<(Self, Hold)> {
        Some(self.under(self.shards.hold_app(app)?))
    }

    fn under(&self, hold: Hold) -> (Self, Hold) {
        let mut context = self.clone();
        if let Some(fence) = hold.fence() {
            context.store = self.store.under(fence);
        }
        (context, hold)
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

    /// Asks for a look at a mirror: nobody watches its repository any more.
    pub(crate) fn look_at_mirror(&self, repository: &RepositoryId) {
        self.git.growth().note(repository);
    }

    /// This process lost its right to work: everything stops, and it exits non-zero.
    pub fn give_up(&self, reason: &str) {
        self.fatal.send_replace(Some(reason.to_owned()));
    }
}
