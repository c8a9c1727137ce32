//! Who is running, and how well: the address book of the tree. A supervisor enters its children
//! here; everyone else finds a mailbox by role and key and may find none, because an actor can be
//! waiting for its restart. That is no loss: actors read their work from rows when they start.
//!
//! ractor offers no mailbox depth, so every message is counted at this door.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ractor::{ActorCell, ActorRef, Message};
use tidings_entity::{id::RepositoryId, kind::BreakerKind};
use tokio::time::Instant;

use crate::{
    circuit_breaker::Notes,
    handle::TreeNode,
    polls::Polls,
    ports::{Source, TreeSurvey},
    tree::{CIRCUIT_BREAKER, ChildSpec},
};

/// What a breaker says of itself.
pub(crate) const BREAKER_WORDS: [&str; 3] = ["closed", "open", "half-open"];

/// What an actor is doing, in a form that costs nothing to say again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A word or two.
    Words(Cow<'static, str>),
    /// A deliverer at work.
    Delivering {
        /// Lanes in memory.
        lanes: usize,
        /// Attempts on their way, a stretch of them as one.
        in_flight: usize,
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
                write!(formatter, "{lanes} lanes, {in_flight} on their way")
            }
        }
    }
}

/// What is visible of one actor from outside, without asking it.
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
        *lock(&self.busy_since) = Some(Instant::now());
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

    /// Says in a word or two what the actor is doing.
    pub fn say(&self, state: impl Into<Doing>) {
        *lock(&self.state) = state.into();
    }

    /// What it said last.
    #[cfg(test)]
    pub(crate) fn doing(&self) -> Doing {
        lock(&self.state).clone()
    }

    /// How long the actor has been working on one message.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        lock(&self.busy_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// How often it was restarted.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Counts one restart.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Relaxed);
        self.waiting.store(0, Relaxed);
        *lock(&self.busy_since) = None;
    }
}

/// An actor is in a handler while this lives.
pub struct Busy<'a>(&'a Gauge);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy_since) = None;
    }
}

/// A mailbox with its door.
pub struct Post<M> {
    actor: ActorRef<M>,
    gauge: Arc<Gauge>,
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), gauge: self.gauge.clone() }
    }
}

impl<M: Message> Post<M> {
    /// Puts a door before a mailbox.
    #[must_use]
    pub fn new(actor: ActorRef<M>, gauge: Arc<Gauge>) -> Self {
        Self { actor, gauge }
    }

    /// Sends. `false`: the actor is gone, and with it the state that the message was for; whoever
    /// starts in its place reads rows.
    pub fn send(&self, message: M) -> bool {
        self.gauge.waiting.fetch_add(1, Relaxed);
        self.actor.send_message(message).is_ok()
    }

    /// Sends after a wait. The timer dies with the actor.
    pub fn send_after(&self, wait: Duration, message: impl FnOnce() -> M + Send + 'static) {
        let gauge = self.gauge.clone();
        drop(self.actor.send_after(wait, move || {
            gauge.waiting.fetch_add(1, Relaxed);
            message()
        }));
    }

    /// The gauge.
    #[must_use]
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }
}

struct Listing {
    actor: Option<ActorCell>,
    gauge: Arc<Gauge>,
}

/// The address book. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory(
    Arc<Mutex<BTreeMap<(&'static str, String), Listing>>>,
    Arc<AtomicBool>,
    Notes,
    Arc<Mutex<HashMap<RepositoryId, Vec<Source>>>>,
    Arc<Mutex<BTreeMap<&'static str, u64>>>,
    Polls,
);

impl Directory {
    /// Enters an actor, or (`None`) that it waits for its restart.
    pub fn enter(&self, role: &'static str, key: &str, actor: Option<ActorCell>, gauge: &Arc<Gauge>) {
        if actor.is_none() {
            *lock(&self.4).entry(role).or_default() += 1;
        }
        lock(&self.0).insert((role, key.to_owned()), Listing { actor, gauge: gauge.clone() });
    }

    /// The tree stops: whoever starts from now on must begin nothing.
    pub fn close(&self) {
        self.1.store(true, Relaxed);
    }

    /// Whether the tree stops.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.1.load(Relaxed)
    }

    /// What waits for breakers that do not run.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.2
    }

    /// When sources were looked at last, and are next.
    #[must_use]
    pub fn polls(&self) -> &Polls {
        &self.5
    }

    /// Leaves sources, read in bulk, for watchers that are about to start.
    pub fn leave_sources(&self, sources: impl IntoIterator<Item = (RepositoryId, Vec<Source>)>) {
        lock(&self.3).extend(sources);
    }

    /// Takes what was left for a watcher. Whoever changes rows takes it away first: it is old then.
    #[must_use]
    pub fn take_sources(&self, repository: &RepositoryId) -> Option<Vec<Source>> {
        lock(&self.3).remove(repository)
    }

    /// Strikes an actor out.
    pub fn strike(&self, role: &'static str, key: &str) {
        lock(&self.0).remove(&(role, key.to_owned()));
    }

    /// The mailbox of an actor, if it runs.
    #[must_use]
    pub fn find<M: Message>(&self, role: &'static str, key: &str) -> Option<Post<M>> {
        let book = lock(&self.0);
        let listing = book.get(&(role, key.to_owned()))?;
        Some(Post::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone()))
    }

    /// The actor itself, if it runs: for tests that kill it.
    #[cfg(test)]
    pub(crate) fn cell(&self, role: &'static str, key: &str) -> Option<ActorCell> {
        lock(&self.0).get(&(role, key.to_owned()))?.actor.clone()
    }

    /// Everyone who runs.
    #[cfg(test)]
    pub(crate) fn cells(&self) -> Vec<ActorCell> {
        lock(&self.0).values().filter_map(|listing| listing.actor.clone()).collect()
    }

    /// The gauge of an actor, running or not.
    #[cfg(test)]
    pub(crate) fn gauge(&self, role: &'static str, key: &str) -> Option<Arc<Gauge>> {
        Some(lock(&self.0).get(&(role, key.to_owned()))?.gauge.clone())
    }

    /// The mailboxes of all running actors of a role, with their keys.
    #[must_use]
    pub fn all<M: Message>(&self, role: &'static str) -> Vec<(String, Post<M>)> {
        let book = lock(&self.0);
        book.iter()
            .filter(|((entered, _), _)| *entered == role)
            .filter_map(|((_, key), listing)| {
                let post = Post::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone());
                Some((key.clone(), post))
            })
            .collect()
    }

    /// The tree in numbers. Takes one look at every actor: not for each request.
    #[must_use]
    pub fn survey(&self) -> TreeSurvey {
        let mut survey = TreeSurvey::default();
        for (role, restarts) in lock(&self.4).iter() {
            survey.roles.entry(role).or_default().restarts = *restarts;
        }
        for ((role, key), Listing { actor, gauge }) in lock(&self.0).iter() {
            let found = survey.roles.entry(role).or_default();
            let (waiting, doing) = (gauge.waiting(), lock(&gauge.state).clone());
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
                Doing::Words(_) => {}
            }
        }
        survey
    }

    /// The live tree below `spec`.
    #[must_use]
    pub fn tree(&self, spec: &'static ChildSpec) -> TreeNode {
        let book = lock(&self.0);
        node(&book, spec, "")
    }
}

fn node(book: &BTreeMap<(&'static str, String), Listing>, spec: &'static ChildSpec, key: &str) -> TreeNode {
    let listing = book.get(&(spec.id, key.to_owned()));
    let children = spec.children.iter().flat_map(|child| {
        if child.many {
            let keys: Vec<&String> =
                book.keys().filter(|(role, _)| *role == child.id).map(|(_, key)| key).collect();
            keys.into_iter().map(|key| node(book, child, key)).collect::<Vec<_>>()
        } else {
            vec![node(book, child, "")]
        }
    });
    TreeNode {
        actor: if key.is_empty() { spec.id.to_owned() } else { format!("{} {key}", spec.id) },
        state: match listing {
            None => "absent".to_owned(),
            Some(Listing { actor: None, .. }) => "waiting for restart".to_owned(),
            Some(Listing { gauge, .. }) => lock(&gauge.state).to_string(),
        },
        restarts: listing.map_or(0, |listing| listing.gauge.restarts.load(Relaxed)),
        mailbox: listing.map_or(0, |listing| listing.gauge.waiting.load(Relaxed)),
        children: children.collect(),
    }
}

/// Nothing here panics while it holds a lock; a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
