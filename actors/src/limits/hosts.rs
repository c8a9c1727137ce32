//! How hard one Git host may be pressed, whatever the number of repositories it serves: a number of requests
//! per second, a number at the same time, and none before the moment that the host asked for.
//!
//! A scan takes its turn here *before* it gets a worker, so that at most as many list one host's refs as it
//! may be asked at a time. A fetch takes no turn from a listing. Ten thousand repositories that are due at
//! once (a start, the end of an outage) stand in line and go evenly, app by app.
//!
//! Every request (of a scan, a lane that fetches, or a registration that proves access) passes
//! [`Hosts::request`], where apps take turns as well: first at the places of requests that are under way,
//! then at the rate, for which only the request at the head of a queue waits. So the requests of one app,
//! however many clients send them, delay a request of another app by one place.
//!
//! An app takes another turn of a scan, or another place of a request, only while it leaves some to other
//! apps: of five it holds at most four. A scan or a request whose app may have no more holds up none of
//! another app behind it. So listings of one app that hang leave a place that every other app finds in turn.
//! A listing that hangs gives its place back after the timeouts of the Git client, and its address counts as
//! slow for an hour: scans of slow addresses leave one turn to other scans, and their requests are long
//! requests, which leave one place to short ones. So hanging listings of several apps take all places at most
//! once.
//!
//! The state is in memory, and a restart forgets it. That costs a host little. The line forms again in the
//! order of the first polls, which are spread over the least interval and pass the same rates. For each
//! credential whose wait was forgotten, at most as many requests as may be under way reach the host before
//! its first answer asks again for the rest of the wait. Rows instead would cost a write for each answer that
//! asks for a wait (GitHub does in every answer once a rate is spent), and another write for the first answer
//! that does not. Bounded by the sources (one place each) and by the hosts kept.

mod line;
mod listings;
mod pace;
mod permits;
mod requested_waits;
mod slow_addresses;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::warn;
use url::Url;

use crate::{
    limits::shares::Shares,
    model::secret::Secret,
    ports::{GitError, HostsSurvey, Location, Remote},
    time::reached,
};
use line::{Line, LineNumber};
use listings::Listings;
use pace::Pace;
pub use permits::{RequestPermit, Turn};
use requested_waits::RequestedWaits;
use slow_addresses::{AddressNumber, SlowAddresses};

/// Of the turns, places and permits at a host one app holds at most this many times the number that stays
/// free for other apps: one of two, four of five, fifteen of twenty.
const GREED: u64 = 3;
/// Above this many hosts the idle ones are forgotten.
const HOSTS_KEPT: usize = 4_096;
/// Scans begin evenly: of a second's worth of requests only this part may begin at once.
const AT_ONCE: u32 = 20;
/// A scan that waited longer than this for its turn gets a line in the log.
const WORTH_A_WORD: Duration = Duration::from_secs(10);
/// The least time between two such lines about one host.
const WORD_EVERY: Duration = Duration::from_secs(60);

/// How hard a host may be pressed.
#[derive(Clone, Copy, Debug)]
pub struct HostPolicy {
    /// The time between two requests when they are evenly spaced.
    pub interval: Duration,
    /// How many requests may come at once.
    pub burst: u32,
    /// How many may be under way at once; at least 1.
    pub concurrency: usize,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_nanos(66_666_667), burst: 15, concurrency: 5 }
    }
}

/// A scan must wait: the host asked this credential to wait. Nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// How long the scan must wait.
    pub wait: Duration,
}

/// The present state of one host, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HostShown {
    /// The name of the host; all its ports together are one host.
    pub host: String,
    /// Scans that wait for their turn.
    pub waiting: usize,
    /// Scans that have their turn now.
    pub scanning: usize,
    /// The wait of the last scan that got its turn, in milliseconds.
    pub waited_ms: u64,
    /// For how long the host asked to be left alone, in milliseconds: the longest such wait of any
    /// credential.
    pub patience_ms: u64,
    /// Whether the last scan got no answer; then each app has only one scan at a time there.
    pub silent: bool,
}

/// The budgets of all hosts. Clones share them.
#[derive(Clone)]
pub struct Hosts(Arc<Shared>);

struct Shared {
    policy: HostPolicy,
    /// The number of processes that share the rate of each host.
    sharers: AtomicU32,
    hasher: RandomState,
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    line: Line<Waiting>,
    turns: Pace,
    requests: Pace,
    requested: RequestedWaits,
    listings: Listings,
    fetching: usize,
    waited: Duration,
    said: Option<Instant>,
    slow: SlowAddresses,
    /// Permits for scans of slow addresses, taken before the place in the line. They leave one turn to other
    /// scans.
    slow_scans: Shares,
    /// The places of the requests that are under way.
    under_way: Shares,
    /// The queue of requests that have a place: the single share is the head of the queue, and apps take
    /// turns at it.
    queue: Shares,
    /// Permits for requests that may take long, and for requests to slow addresses. They leave one place to
    /// other requests.
    long: Shares,
}

#[derive(Clone, Debug)]
struct Waiting {
    apps: Arc<[AppId]>,
    woken: Arc<Notify>,
    since: Instant,
}

/// The next step of a scan that waits in the line.
enum Step {
    Go,
    Postponed(Postponed),
    At(Instant),
    Behind,
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new(HostPolicy::default())
    }
}

impl Hosts {
    /// Budgets for hosts; `policy` applies to each host separately.
    #[must_use]
    pub fn new(policy: HostPolicy) -> Self {
        let (hasher, hosts) = (RandomState::new(), Mutex::default());
        Self(Arc::new(Shared { policy, sharers: AtomicU32::new(1), hasher, hosts }))
    }

    /// Divides the rate of each host by this number of processes from now on.
    pub fn divide_by(&self, sharers: usize) {
        self.0.sharers.store(u32::try_from(sharers.max(1)).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn sharers(&self) -> u32 {
        self.0.sharers.load(Ordering::Relaxed)
    }

    /// Waits until a scan of `remote` may begin. A local repository has no host and
    /// waits for nothing. Dropping the future gives the place in line up.
    ///
    /// # Errors
    /// [`Postponed`] when the host asked this credential to wait.
    pub async fn turn(&self, remote: &Remote, is_urgent: bool) -> Result<Turn, Postponed> {
        let Location::Http(url) = &remote.location else { return Ok(Turn::default()) };
        let (name, key) = (host_name(url), self.key(url, remote.credential.as_ref()));
        let (address, apps) = (self.address(url), Arc::<[AppId]>::from(remote.apps.as_slice()));
        let slow = self.with(&name, |host| {
            let now = Instant::now();
            let is_slow = host.slow.contains(address, now);
            host.check_wait(key, now).map(|()| is_slow.then(|| host.slow_scans.clone()))
        })?;
        let slow = match slow {
            Some(slow) => Some(slow.take(&apps, 1).await),
            None => None,
        };
        let waiting = Waiting { apps: Arc::clone(&apps), woken: Arc::default(), since: Instant::now() };
        let woken = Arc::clone(&waiting.woken);
        let place = self.with(&name, |host| {
            let place = host.line.join(&apps, is_urgent, waiting);
            host.wake();
            place
        });
        let ticket = Ticket { hosts: self, name: &name, place };
        loop {
            let sharers = self.sharers();
            match self.with(&name, |host| host.step(sharers, &name, place, key)) {
                Step::Go => break,
                Step::Postponed(postponed) => return Err(postponed),
                Step::Behind => woken.notified().await,
                Step::At(moment) => tokio::select! {
                    () = sleep_until(moment) => {}
                    () = woken.notified() => {}
                },
            }
        }
        drop(ticket);
        Ok(Turn::at(self.clone(), name, apps, slow))
    }

    /// Waits until one more request for these apps may go to the host of `url`; while the permit lives, the
    /// request is under way. Apps take turns, and leave places to each other. A request that takes long, or
    /// whose address is slow, leaves a place to the other requests.
    ///
    /// # Errors
    /// [`GitError::RateLimited`] while the host asks this credential to wait: nothing may be sent.
    pub async fn request(
        &self,
        url: &Url,
        credential: Option<&Secret>,
        apps: &[AppId],
        takes_long: bool,
    ) -> Result<RequestPermit, GitError> {
        let (name, key, address) = (host_name(url), self.key(url, credential), self.address(url));
        let is_patient = |host: &mut Host| {
            let refused = |postponed: Postponed| GitError::RateLimited { retry_after: Some(postponed.wait) };
            host.check_wait(key, Instant::now()).map_err(refused)
        };
        let (long, under_way, queue) = self.with(&name, |host| {
            let is_long = takes_long || host.slow.contains(address, Instant::now());
            let long = is_long.then(|| host.long.clone());
            is_patient(host).map(|()| (long, host.under_way.clone(), host.queue.clone()))
        })?;
        let long = match long {
            Some(long) => Some(long.take(apps, 1).await),
            None => None,
        };
        let under_way = under_way.take(apps, 1).await;
        // Only the head of the queue takes a place of the rate: no app takes later places in advance.
        let _head = queue.take(apps, 1).await;
        let sharers = self.sharers();
        let reserve = |host: &mut Host| host.requests.reserve(Instant::now(), sharers);
        let free = self.with(&name, |host| is_patient(host).map(|()| reserve(host)))?;
        reached(free).await;
        self.with(&name, is_patient)?;
        let address = (!takes_long).then_some(address);
        Ok(RequestPermit::at(self.clone(), name, address, (long, under_way)))
    }

    /// The host of `url` asked this credential to wait; returns the wait that was granted.
    pub fn grant_patience(
        &self,
        url: &Url,
        credential: Option<&Secret>,
        asked: Option<Duration>,
    ) -> Duration {
        let (name, key, now) = (host_name(url), self.key(url, credential), Instant::now());
        let wait = self.with(&name, |host| host.requested.grant(key, asked, now)) - now;
        warn!("{name} asked for a pause: no request with this credential goes there for {wait:?}");
        wait
    }

    /// The host of `url` answered without asking to wait.
    pub fn answered(&self, url: &Url, credential: Option<&Secret>) {
        let key = self.key(url, credential);
        self.with(&host_name(url), |host| host.requested.answered(key, Instant::now()));
    }

    /// The hosts where something waits, the longest line first, at most `limit`.
    #[must_use]
    pub fn shown(&self, limit: usize) -> Vec<HostShown> {
        let now = Instant::now();
        let hosts = self.lock();
        let mut shown: Vec<_> = hosts.iter().map(|(name, host)| host.shown(name, now)).collect();
        shown.retain(|host| host.waiting > 0 || host.scanning > 0 || host.patience_ms > 0 || host.silent);
        shown.sort_by(|one, other| (other.waiting, &one.host).cmp(&(one.waiting, &other.host)));
        shown.truncate(limit);
        shown
    }

    /// The numbers of all Git hosts together.
    #[must_use]
    pub fn survey(&self) -> HostsSurvey {
        let now = Instant::now();
        let mut survey = HostsSurvey::default();
        for host in self.lock().values_mut() {
            survey.waiting += host.waiting() as u64;
            survey.scanning += host.scanning() as u64;
            survey.stretched += u64::from(host.is_stretched(now));
            survey.patient += u64::from(host.requested.longest(now).is_some());
            survey.silent += u64::from(host.listings.is_silent());
        }
        survey
    }

    /// A credential at a port, as a number that reveals nothing of it outside this process. A wait that one
    /// server asks for does not bind another server of the same name.
    fn key(&self, url: &Url, credential: Option<&Secret>) -> requested_waits::CredentialNumber {
        self.0.hasher.hash_one((url.port_or_known_default(), credential.map(Secret::expose)))
    }

    /// The repository at `url`, whatever the credential; hosts serve it with and without `.git`.
    fn address(&self, url: &Url) -> AddressNumber {
        let path = url.path().trim_end_matches('/');
        self.0.hasher.hash_one((url.port_or_known_default(), path.strip_suffix(".git").unwrap_or(path)))
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = self.lock();
        if let Some(host) = hosts.get_mut(name) {
            return work(host);
        }
        let now = Instant::now();
        if hosts.len() >= HOSTS_KEPT {
            hosts.retain(|_, host| !host.is_idle(now));
        }
        let fresh = || Host::new(&self.0.policy, now);
        work(hosts.entry(name.to_owned()).or_insert_with(fresh))
    }

    /// All hosts, locked for one decision.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.0.hosts.lock()
    }
}

impl Host {
    fn new(policy: &HostPolicy, now: Instant) -> Self {
        let concurrency = policy.concurrency.max(1) as u64;
        let all_but_one = (concurrency - 1).max(1);
        Self {
            line: Line::default(),
            turns: Pace::new(policy.interval, (policy.burst / AT_ONCE).max(1), now),
            requests: Pace::new(policy.interval, policy.burst, now),
            requested: RequestedWaits::default(),
            listings: Listings::new(concurrency, GREED),
            fetching: 0,
            waited: Duration::ZERO,
            said: None,
            slow: SlowAddresses::default(),
            slow_scans: Shares::new(all_but_one, GREED),
            under_way: Shares::new(concurrency, GREED),
            queue: Shares::new(1, 1),
            long: Shares::new(all_but_one, GREED),
        }
    }

    /// Whether this credential may ask now.
    fn check_wait(&self, key: requested_waits::CredentialNumber, now: Instant) -> Result<(), Postponed> {
        let until = self.requested.until(key, now);
        until.map_or(Ok(()), |until| Err(Postponed { wait: until - now }))
    }

    /// The next step of the scan at `place` in the line; with [`Step::Go`] the scan has its turn.
    fn step(
        &mut self,
        sharers: u32,
        name: &str,
        place: LineNumber,
        key: requested_waits::CredentialNumber,
    ) -> Step {
        let now = Instant::now();
        if let Err(postponed) = self.check_wait(key, now) {
            return Step::Postponed(postponed);
        }
        let listings = &self.listings;
        let may_go = |waiting: &Waiting| listings.may_begin(&waiting.apps);
        if self.line.front(may_go).is_none_or(|(front, _)| front != place) {
            return Step::Behind;
        }
        // The requests of a scan wait for the rate of requests in the queue of requests. A scan that waited
        // for that rate here would come too late each time: the head of the queue takes the place.
        let free = self.turns.free_at(now);
        if free > now {
            return Step::At(free);
        }
        let Some(waiting) = self.line.take(may_go).filter(|next| self.listings.begin(&next.apps)) else {
            return Step::Behind;
        };
        self.turns.reserve(now, sharers);
        self.note_wait(name, now - waiting.since, now);
        Step::Go
    }

    fn note_wait(&mut self, name: &str, waited: Duration, now: Instant) {
        self.waited = waited;
        let is_said = self.said.is_some_and(|said| now - said < WORD_EVERY);
        if waited > WORTH_A_WORD && !is_said {
            self.said = Some(now);
            warn!(
                count = self.line.len(),
                "polls of {name} wait {waited:?} for their turn and {} more stand in line: git.host_rate or \
                 git.host_concurrency binds, intervals stretch",
                self.line.len()
            );
        }
    }

    /// Wakes the scan whose turn is next.
    fn wake(&mut self) {
        let listings = &self.listings;
        if let Some((_, next)) = self.line.front(|waiting| listings.may_begin(&waiting.apps)) {
            next.woken.notify_one();
        }
    }

    /// The number of scans that wait for their turn.
    fn waiting(&self) -> usize {
        self.line.len() + self.slow_scans.waiting()
    }

    /// The number of scans that have their turn.
    fn scanning(&self) -> usize {
        self.listings.count() + self.fetching
    }

    /// Whether scans wait here for longer than [`WORTH_A_WORD`]: the first in line does, or the last scan
    /// that got its turn did while others follow.
    fn is_stretched(&mut self, now: Instant) -> bool {
        let first = self.line.front(|_| true).map(|(_, first)| now - first.since);
        first.is_some_and(|waits| waits > WORTH_A_WORD || self.waited > WORTH_A_WORD)
    }

    fn is_idle(&self, now: Instant) -> bool {
        // A permit under way holds a clone of its shares, and so does a request that waits for a permit.
        let is_quiet = [&self.under_way, &self.long, &self.slow_scans].into_iter().all(Shares::is_unused);
        is_quiet
            && self.line.is_empty()
            && self.scanning() == 0
            && self.requests.is_idle(now)
            && self.requested.longest(now).is_none()
    }

    fn shown(&self, name: &str, now: Instant) -> HostShown {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        HostShown {
            host: name.to_owned(),
            waiting: self.waiting(),
            scanning: self.scanning(),
            waited_ms: milliseconds(self.waited),
            patience_ms: self.requested.longest(now).map_or(0, |until| milliseconds(until - now)),
            silent: self.listings.is_silent(),
        }
    }
}

/// A place in the line of a host, which is left when the ticket is dropped.
struct Ticket<'h> {
    hosts: &'h Hosts,
    name: &'h str,
    place: LineNumber,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.hosts.with(self.name, |host| {
            host.line.leave(self.place);
            host.wake();
        });
    }
}

/// The key of a host's budget: its name without the port. Servers on several ports of one name share a
/// machine, or an operator.
fn host_name(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
