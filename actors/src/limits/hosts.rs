//! How hard one Git host may be pressed, whatever the number of repositories it serves: a number of requests
//! per second, a number at the same time, and none before the moment that the host asked for.
//!
//! A scan takes its turn here *before* it gets a worker, so that at most as many list one host's refs as it
//! may be asked at a time. A fetch takes no turn from a listing. Ten thousand repositories that are due at
//! once (a start, the end of an outage) stand in line and go evenly, app by app. Every request (of a scan, a
//! lane that fetches, or a registration that proves access) then passes [`Hosts::request`].
//!
//! The state is in memory, and a restart forgets it. That costs a host little. The line forms again in the
//! order of the first polls, which are spread over the least interval and pass the same rates. For each
//! credential whose wait was forgotten, at most as many requests as may be under way reach the host before
//! its first answer asks again for the rest of the wait. Rows instead would cost a write for each answer that
//! asks for a wait (GitHub does in every answer once a rate is spent), and another write for the first answer
//! that does not. Bounded by the sources (one place each) and by the hosts kept.

mod line;
mod pace;
mod requested_waits;

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
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tracing::warn;
use url::Url;

use crate::{
    limits::shares::{Share, Shares},
    model::secret::Secret,
    ports::{GitError, HostsSurvey, Location, Remote},
};
use line::{Line, LineNumber};
use pace::Pace;
use requested_waits::RequestedWaits;

/// Of the permits for long requests one app holds at most this many times the number that stays free for
/// other apps.
const LONG_GREED: u64 = 3;
/// Above this many hosts the idle ones are forgotten.
const HOSTS_KEPT: usize = 4_096;
/// Scans begin evenly: of a second's worth of requests only this part may begin at once.
const AT_ONCE: u32 = 20;
/// A scan that waited longer than this for its turn is worth a line in the log ...
const WORTH_A_WORD: Duration = Duration::from_secs(10);
/// ... but per host no more often than this.
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
    /// Whether the last scan got no answer; then only one scan at a time asks the host.
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
    listing: usize,
    fetching: usize,
    silent: bool,
    waited: Duration,
    said: Option<Instant>,
    /// The permits of the requests that are in flight at the host.
    under_way: Arc<Semaphore>,
    /// Permits for requests that may take long. They leave one place to polls, and the permits of one app
    /// leave another place to other apps.
    long: Shares,
}

#[derive(Clone, Debug)]
struct Waiting {
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
        let waiting = Waiting { woken: Arc::default(), since: Instant::now() };
        let woken = Arc::clone(&waiting.woken);
        let place = self.with(&name, |host| {
            let place = host.line.join(&remote.apps, is_urgent, waiting);
            host.wake();
            place
        });
        let ticket = Ticket { hosts: self, name: &name, place };
        loop {
            let bounds = (&self.0.policy, self.sharers());
            match self.with(&name, |host| host.step(bounds, &name, place, key)) {
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
        Ok(Turn { held: Some(TurnAtHost { hosts: self.clone(), name, fetching: false }) })
    }

    /// Waits until one more request may go to the host of `url`; while the permit lives, the request is under
    /// way. A request that may take long names its apps: it leaves a place for short requests, and places for
    /// other apps.
    ///
    /// # Errors
    /// [`GitError::RateLimited`] while the host asks this credential to wait: nothing may be sent.
    /// [`GitError::Cancelled`] when the process is stopping.
    pub async fn request(
        &self,
        url: &Url,
        credential: Option<&Secret>,
        takes_long_for: Option<&[AppId]>,
    ) -> Result<RequestPermit, GitError> {
        let (name, key) = (host_name(url), self.key(url, credential));
        let is_patient = |host: &mut Host| match host.requested.until(key, Instant::now()) {
            Some(until) => Err(GitError::RateLimited { retry_after: Some(until - Instant::now()) }),
            None => Ok(()),
        };
        let (long, under_way) = self.with(&name, |host| {
            is_patient(host).map(|()| (host.long.clone(), Arc::clone(&host.under_way)))
        })?;
        let long = match takes_long_for {
            Some(apps) => Some(long.take(apps, 1).await),
            None => None,
        };
        let under_way = under_way.acquire_owned().await.map_err(|_| GitError::Cancelled)?;
        let sharers = self.sharers();
        let reserve = |host: &mut Host| host.requests.reserve(Instant::now(), sharers);
        let free = self.with(&name, |host| is_patient(host).map(|()| reserve(host)))?;
        sleep_until(free).await;
        self.with(&name, is_patient)?;
        Ok(RequestPermit { _long: long, _under_way: under_way })
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
        warn!("{name} asks for requested: one credential asks it nothing for {wait:?}");
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
            survey.waiting += host.line.len() as u64;
            survey.scanning += (host.listing + host.fetching) as u64;
            survey.stretched += u64::from(host.is_stretched(now));
            survey.patient += u64::from(host.requested.longest(now).is_some());
            survey.silent += u64::from(host.silent);
        }
        survey
    }

    /// A credential at a port, as a number that reveals nothing of it outside this process. A wait that one
    /// server asks for does not bind another server of the same name.
    fn key(&self, url: &Url, credential: Option<&Secret>) -> requested_waits::CredentialNumber {
        self.0.hasher.hash_one((url.port_or_known_default(), credential.map(Secret::expose)))
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

    /// A poisoned lock is used like any other, because nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.0.hosts.lock()
    }
}

impl Host {
    fn new(policy: &HostPolicy, now: Instant) -> Self {
        let concurrency = policy.concurrency.max(1);
        Self {
            line: Line::default(),
            turns: Pace::new(policy.interval, (policy.burst / AT_ONCE).max(1), now),
            requests: Pace::new(policy.interval, policy.burst, now),
            requested: RequestedWaits::default(),
            listing: 0,
            fetching: 0,
            silent: false,
            waited: Duration::ZERO,
            said: None,
            under_way: Arc::new(Semaphore::new(concurrency)),
            long: Shares::new((concurrency - 1).max(1) as u64, LONG_GREED),
        }
    }

    /// The next step of the scan at `place` in the line; with [`Step::Go`] the scan has its turn.
    fn step(
        &mut self,
        (policy, sharers): (&HostPolicy, u32),
        name: &str,
        place: LineNumber,
        key: requested_waits::CredentialNumber,
    ) -> Step {
        let now = Instant::now();
        if let Some(until) = self.requested.until(key, now) {
            return Step::Postponed(Postponed { wait: until - now });
        }
        let concurrency = policy.concurrency.max(1);
        let most = if self.silent { 1 } else { concurrency };
        let is_first = self.line.front().is_some_and(|(front, _)| front == place);
        if !is_first || self.listing >= most {
            return Step::Behind;
        }
        // Requests outside of scans, and the second and third request of a scan, count as well.
        let free = self.turns.free_at(now).max(self.requests.free_at(now));
        if free > now {
            return Step::At(free);
        }
        self.turns.reserve(now, sharers);
        self.listing += 1;
        if let Some(waiting) = self.line.take() {
            self.note_wait(name, now - waiting.since, now);
        }
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
        if let Some((_, next)) = self.line.front() {
            next.woken.notify_one();
        }
    }

    /// Whether scans wait here for longer than [`WORTH_A_WORD`]: the first in line does, or the last scan
    /// that got its turn did while others follow.
    fn is_stretched(&mut self, now: Instant) -> bool {
        let first = self.line.front().map(|(_, first)| now - first.since);
        first.is_some_and(|waits| waits > WORTH_A_WORD || self.waited > WORTH_A_WORD)
    }

    fn is_idle(&self, now: Instant) -> bool {
        // A permit under way holds a clone of its semaphore.
        let is_quiet = Arc::strong_count(&self.under_way) == 1 && self.long.is_unused();
        is_quiet
            && self.line.is_empty()
            && self.listing + self.fetching == 0
            && self.requests.is_idle(now)
            && self.requested.longest(now).is_none()
    }

    fn shown(&self, name: &str, now: Instant) -> HostShown {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        HostShown {
            host: name.to_owned(),
            waiting: self.line.len(),
            scanning: self.listing + self.fetching,
            waited_ms: milliseconds(self.waited),
            patience_ms: self.requested.longest(now).map_or(0, |until| milliseconds(until - now)),
            silent: self.silent,
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

/// The right of one scan to ask its host; ends when dropped.
#[derive(Default)]
pub struct Turn {
    held: Option<TurnAtHost>,
}

struct TurnAtHost {
    hosts: Hosts,
    name: String,
    fetching: bool,
}

impl Turn {
    /// The listing is done and a fetch follows: another scan may list meanwhile, because a fetch
    /// may take long.
    pub fn fetches(&mut self) {
        let Some(held) = self.held.as_mut().filter(|held| !held.fetching) else { return };
        held.fetching = true;
        held.hosts.with(&held.name, |host| {
            host.listing = host.listing.saturating_sub(1);
            host.fetching += 1;
            host.wake();
        });
    }

    /// Records how the scan ended: whether the host answered. A host that does not answer is asked by one
    /// scan at a time until it answers.
    pub fn ended(&self, is_answered: bool) {
        let Some(held) = &self.held else { return };
        held.hosts.with(&held.name, |host| {
            host.silent = !is_answered;
            host.wake();
        });
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Turn").field(&self.held.as_ref().map(|held| &held.name)).finish()
    }
}

impl Drop for TurnAtHost {
    fn drop(&mut self) {
        self.hosts.with(&self.name, |host| {
            let slots = if self.fetching { &mut host.fetching } else { &mut host.listing };
            *slots = slots.saturating_sub(1);
            host.wake();
        });
    }
}

/// A request is under way while this lives.
#[derive(Debug)]
pub struct RequestPermit {
    _long: Option<Share>,
    _under_way: OwnedSemaphorePermit,
}

/// The key of a host's budget: its name without the port. Servers on several ports of one name share a
/// machine, or an operator.
fn host_name(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
