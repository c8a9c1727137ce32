//! The address book of the tree: which actors run, and their state. A supervisor registers its children here;
//! other actors find a mailbox by role and key, or none, because an actor may be waiting for its restart.
//! Then nothing is lost: actors read their work from rows when they start.
//!
//! ractor offers no mailbox depth, so every message is counted here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef, Message, concurrency::spawn};
use tidings_entity::{id::RepositoryId, kind::BreakerKind};
use tokio::time::{Instant, sleep};

use crate::model::words::counted;
use crate::{
    ports::{Source, TreeSurvey},
    signals::{failure_counts::FailureCounts, polls::Polls},
    supervision::tree::{CIRCUIT_BREAKER, ChildSpec},
};

/// The states that a breaker shows in the directory.
pub(crate) const BREAKER_WORDS: [&str; 3] = ["closed", "open", "half-open"];

/// The present activity of an actor, in a form that is cheap to update often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// The work in a few words.
    Words(Cow<'static, str>),
    /// A deliverer at work.
    Delivering {
        /// The number of lanes in memory.
        lanes: usize,
        /// The number of attempts in flight, where a pipeline counts as one.
        in_flight: usize,
    },
    /// A repository watcher between two scans.
    Watching {
        /// The number of sources of its repository.
        sources: usize,
        /// The number of sources that wait for their turn at their host.
        in_line: usize,
    },
}

impl Default for Doing {
    fn default() -> Self {
        Self::Words(Cow::Borrowed("running"))
    }
}

impl From<&'static str> for Doing {
    fn from(words: &'static str) -> Self {
        Self::Words(Cow::Borrowed(words))
    }
}

impl From<String> for Doing {
    fn from(words: String) -> Self {
        Self::Words(Cow::Owned(words))
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => formatter.write_str(words),
            Self::Delivering { lanes, in_flight } => {
                write!(formatter, "{}, {in_flight} on their way", counted(*lanes as u64, "lane"))
            }
            Self::Watching { sources, in_line: 0 } => {
                write!(formatter, "watching {}", counted(*sources as u64, "source"))
            }
            Self::Watching { sources, in_line } => {
                write!(formatter, "{in_line} of {sources} sources in line")
            }
        }
    }
}

/// The state of one actor that is visible without asking the actor.
#[derive(Debug, Default)]
pub struct Gauge {
    waiting: AtomicU64,
    restarts: AtomicU64,
    state: Mutex<Doing>,
    busy_since: Mutex<Option<Instant>>,
    #[cfg(test)]
    panics: AtomicU64,
}

impl Gauge {
    /// A message leaves the mailbox and is worked on until the guard drops.
    #[must_use]
    pub fn begin(&self) -> Busy<'_> {
        #[cfg(test)]
        self.panic_if_told();
        // A restart sets the count to zero while messages of the old mailbox may still be counted.
        let _previous = self.waiting.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(1)));
        *self.busy_since.lock() = Some(Instant::now());
        Busy(self)
    }

    /// The next `count` messages make their handler panic.
    #[cfg(test)]
    pub(crate) fn let_panic(&self, count: u64) {
        self.panics.store(count, Relaxed);
    }

    /// Panics that are still to come.
    #[cfg(test)]
    pub(crate) fn panics_to_come(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    #[cfg(test)]
    fn panic_if_told(&self) {
        let told = self.panics.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        assert!(told.is_err(), "a handler panics, as asked");
    }

    /// Sets the present activity of the actor, in a word or two.
    pub fn say(&self, state: impl Into<Doing>) {
        *self.state.lock() = state.into();
    }

    /// The last activity that the actor set.
    #[cfg(test)]
    pub(crate) fn doing(&self) -> Doing {
        self.state.lock().clone()
    }

    /// How long the actor has been working on one message.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        self.busy_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The number of messages that wait in the mailbox.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// The number of restarts of the actor.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Counts one restart of the actor and resets the count of waiting messages, because the mailbox is new.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Relaxed);
        self.waiting.store(0, Relaxed);
        *self.busy_since.lock() = None;
    }
}

/// An actor is in a handler while this lives.
pub struct Busy<'a>(&'a Gauge);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *self.0.busy_since.lock() = None;
    }
}

/// A mailbox with its door.
pub struct Mailbox<M> {
    actor: ActorRef<M>,
    gauge: Arc<Gauge>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), gauge: self.gauge.clone() }
    }
}

impl<M: Message> Mailbox<M> {
    /// Puts a door before a mailbox.
    #[must_use]
    pub fn new(actor: ActorRef<M>, gauge: Arc<Gauge>) -> Self {
        Self { actor, gauge }
    }

    /// Sends a message. `false`: the actor has ended, and its state with it; an actor that starts in its
    /// place reads rows.
    pub fn send(&self, message: M) -> bool {
        self.gauge.waiting.fetch_add(1, Relaxed);
        self.actor.send_message(message).is_ok()
    }

    /// Sends after a wait. An actor that has ended meanwhile gets nothing.
    ///
    /// Each idle actor has such a timer. That of ractor takes twice the memory, because the result of its
    /// task has room for a message.
    pub fn send_after(&self, wait: Duration, message: impl FnOnce() -> M + Send + 'static) {
        let mailbox = self.clone();
        drop(spawn(async move {
            sleep(wait).await;
            mailbox.send(message());
        }));
    }

    /// A mailbox for messages of type `W`, which `wrap` turns into messages of this actor.
    #[must_use]
    pub fn derive<W>(self, wrap: impl Fn(W) -> M + Send + Sync + 'static) -> DerivedMailbox<W> {
        DerivedMailbox(Box::new(move |word| self.send(wrap(word))))
    }

    /// The counters of the actor.
    #[must_use]
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }
}

/// A mailbox as one kind of sender sees it: it accepts only that sender's type of messages.
pub struct DerivedMailbox<W>(Box<dyn Fn(W) -> bool + Send + Sync>);

impl<W> DerivedMailbox<W> {
    /// Sends. `false`: the actor is gone.
    pub fn send(&self, word: W) -> bool {
        (self.0)(word)
    }
}

struct Listing {
    actor: Option<ActorCell>,
    gauge: Arc<Gauge>,
}

/// One node of the live supervision tree.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TreeNode {
    /// `root`, `repositories`, `repository-watcher rep_...`
    pub actor: String,
    /// The present activity of the actor, in a word or two.
    pub state: String,
    /// The number of restarts of the actor.
    pub restarts: u64,
    /// Messages waiting in its mailbox.
    pub mailbox: u64,
    /// The actors that it supervises.
    pub children: Vec<TreeNode>,
}

/// The actors of each role, by key; the key is empty if the role has one actor. The key is shared with the
/// supervisor.
type Actors = BTreeMap<&'static str, BTreeMap<Arc<str>, Listing>>;

/// The address book. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory(Arc<Book>);

#[derive(Default)]
struct Book {
    actors: Mutex<Actors>,
    /// Whether the tree stops: then no actor begins anything new.
    closed: AtomicBool,
    /// Failures that no breaker has counted yet.
    failures: FailureCounts,
    /// Sources that were read in bulk, for watchers that are about to start.
    sources: Mutex<HashMap<RepositoryId, Vec<Source>>>,
    /// Restarts by role, over all keys, since the process began.
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    polls: Polls,
}

impl Directory {
    /// Registers an actor, or (`None`) notes that it waits for its restart.
    pub fn enter(
        &self,
        role: &'static str,
        key: impl Into<Arc<str>>,
        actor: Option<ActorCell>,
        gauge: &Arc<Gauge>,
    ) {
        if actor.is_none() {
            *self.0.restarts.lock().entry(role).or_default() += 1;
        }
        let listing = Listing { actor, gauge: gauge.clone() };
        self.0.actors.lock().entry(role).or_default().insert(key.into(), listing);
    }

    /// Marks the tree as stopping: actors that start from now on must begin no work.
    pub fn close(&self) {
        self.0.closed.store(true, Relaxed);
    }

    /// Whether the tree is stopping.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Relaxed)
    }

    /// The failures that wait for breakers that do not run.
    #[must_use]
    pub fn failures(&self) -> &FailureCounts {
        &self.0.failures
    }

    /// When sources were looked at last, and are next.
    #[must_use]
    pub fn polls(&self) -> &Polls {
        &self.0.polls
    }

    /// Leaves sources, read in bulk, for watchers that are about to start.
    pub fn leave_sources(&self, sources: impl IntoIterator<Item = (RepositoryId, Vec<Source>)>) {
        self.0.sources.lock().extend(sources);
    }

    /// Takes the sources that were left for a watcher. Code that changes rows takes them first, because they
    /// are outdated then.
    #[must_use]
    pub fn take_sources(&self, repository: &RepositoryId) -> Option<Vec<Source>> {
        let mut left = self.0.sources.lock();
        let taken = left.remove(repository);
        if left.is_empty() {
            // A start leaves the sources of every repository: the room for them is not needed again.
            left.shrink_to_fit();
        }
        taken
    }

    /// Removes an actor from the directory.
    pub fn strike(&self, role: &'static str, key: &str) {
        if let Some(of_role) = self.0.actors.lock().get_mut(role) {
            of_role.remove(key);
        }
    }

    /// The mailbox of an actor, if it runs.
    #[must_use]
    pub fn find<M: Message>(&self, role: &'static str, key: &str) -> Option<Mailbox<M>> {
        let actors = self.0.actors.lock();
        let listing = actors.get(role)?.get(key)?;
        Some(Mailbox::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone()))
    }

    /// The actor itself, if it runs: for tests that kill it.
    #[cfg(test)]
    pub(crate) fn cell(&self, role: &'static str, key: &str) -> Option<ActorCell> {
        self.0.actors.lock().get(role)?.get(key)?.actor.clone()
    }

    /// The actors that run at the moment.
    #[cfg(test)]
    pub(crate) fn cells(&self) -> Vec<ActorCell> {
        let actors = self.0.actors.lock();
        actors.values().flat_map(BTreeMap::values).filter_map(|listing| listing.actor.clone()).collect()
    }

    /// The gauge of an actor, running or not.
    #[cfg(test)]
    pub(crate) fn gauge(&self, role: &'static str, key: &str) -> Option<Arc<Gauge>> {
        Some(self.0.actors.lock().get(role)?.get(key)?.gauge.clone())
    }

    /// The mailboxes of all running actors of a role, with their keys.
    #[must_use]
    pub fn all<M: Message>(&self, role: &'static str) -> Vec<(String, Mailbox<M>)> {
        let actors = self.0.actors.lock();
        let of_role = actors.get(role).into_iter().flatten();
        of_role
            .filter_map(|(key, listing)| {
                let mailbox = Mailbox::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone());
                Some((key.to_string(), mailbox))
            })
            .collect()
    }

    /// The mailboxes of the running actors of a role whose keys begin like this.
    #[must_use]
    pub fn beneath<M: Message>(&self, role: &'static str, beginning: &str) -> Vec<Mailbox<M>> {
        let actors = self.0.actors.lock();
        let Some(of_role) = actors.get(role) else { return Vec::new() };
        of_role
            .range::<str, _>((Bound::Included(beginning), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(beginning))
            .filter_map(|(_, listing)| {
                Some(Mailbox::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone()))
            })
            .collect()
    }

    /// The tree in numbers. It reads every actor, so it is too slow to run for each request.
    #[must_use]
    pub fn survey(&self) -> TreeSurvey {
        let mut survey = TreeSurvey::default();
        for (role, restarts) in self.0.restarts.lock().iter() {
            survey.roles.entry(role).or_default().restarts = *restarts;
        }
        let actors = self.0.actors.lock();
        let listed = actors.iter().flat_map(|(role, of_role)| of_role.iter().map(move |found| (role, found)));
        for (role, (key, Listing { actor, gauge })) in listed {
            let found = survey.roles.entry(role).or_default();
            let (waiting, doing) = (gauge.waiting(), gauge.state.lock().clone());
            *if actor.is_some() { &mut found.running } else { &mut found.waiting } += 1;
            found.mailbox += waiting;
            found.mailbox_max = found.mailbox_max.max(waiting);
            match doing {
                Doing::Delivering { lanes, in_flight } => {
                    survey.lanes += lanes as u64;
                    survey.in_flight += in_flight as u64;
                }
                Doing::Words(words) if *role == CIRCUIT_BREAKER => {
                    let kind = key.split(':').next().and_then(|kind| kind.parse::<BreakerKind>().ok());
                    let word = BREAKER_WORDS.into_iter().find(|word| *word == words);
                    if let Some(kind) = kind {
                        *survey.breakers.entry((kind, word.unwrap_or(BREAKER_WORDS[0]))).or_default() += 1;
                    }
                }
                Doing::Words(_) | Doing::Watching { .. } => {}
            }
        }
        survey
    }

    /// The live tree below `spec`.
    #[must_use]
    pub fn tree(&self, spec: &'static ChildSpec) -> TreeNode {
        let actors = self.0.actors.lock();
        node(&actors, spec, "")
    }
}

fn node(actors: &Actors, spec: &'static ChildSpec, key: &str) -> TreeNode {
    let listing = actors.get(spec.id).and_then(|of_role| of_role.get(key));
    let children = spec.children.iter().flat_map(|child| {
        if child.many {
            let keys = actors.get(child.id).into_iter().flat_map(BTreeMap::keys);
            keys.map(|key| node(actors, child, key)).collect::<Vec<_>>()
        } else {
            vec![node(actors, child, "")]
        }
    });
    TreeNode {
        actor: if key.is_empty() { spec.id.to_owned() } else { format!("{} {key}", spec.id) },
        state: match listing {
            None => "absent".to_owned(),
            Some(Listing { actor: None, .. }) => "waiting for restart".to_owned(),
            Some(Listing { gauge, .. }) => gauge.state.lock().to_string(),
        },
        restarts: listing.map_or(0, |listing| listing.gauge.restarts.load(Relaxed)),
        mailbox: listing.map_or(0, |listing| listing.gauge.waiting.load(Relaxed)),
        children: children.collect(),
    }
}
