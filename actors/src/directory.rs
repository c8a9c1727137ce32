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
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef, Message};
use tidings_entity::{id::RepositoryId, kind::BreakerKind};
use tokio::time::Instant;

use crate::{
    failure_notes::Notes,
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

    /// Says in a word or two what the actor is doing.
    pub fn say(&self, state: impl Into<Doing>) {
        *self.state.lock() = state.into();
    }

    /// What it said last.
    #[cfg(test)]
    pub(crate) fn doing(&self) -> Doing {
        self.state.lock().clone()
    }

    /// How long the actor has been working on one message.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        self.busy_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
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

    /// The same mailbox for a sender whose words `wrap` makes messages of.
    #[must_use]
    pub fn derive<W>(self, wrap: impl Fn(W) -> M + Send + Sync + 'static) -> DerivedPost<W> {
        DerivedPost(Box::new(move |word| self.send(wrap(word))))
    }

    /// The gauge.
    #[must_use]
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }
}

/// A mailbox as one of its senders sees it: it takes that sender's words, whatever else its actor
/// understands.
pub struct DerivedPost<W>(Box<dyn Fn(W) -> bool + Send + Sync>);

impl<W> DerivedPost<W> {
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
    /// What it is doing, in a word or two.
    pub state: String,
    /// How often it was restarted.
    pub restarts: u64,
    /// Messages waiting in its mailbox.
    pub mailbox: u64,
    /// The actors that it supervises.
    pub children: Vec<TreeNode>,
}

/// An actor is named by its role and, where a role has many, its key.
type ActorName = (&'static str, String);

/// The address book. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory(Arc<Book>);

#[derive(Default)]
struct Book {
    actors: Mutex<BTreeMap<ActorName, Listing>>,
    /// Whether the tree stops: then no actor begins anything new.
    closed: AtomicBool,
    /// Failures that no breaker has counted yet.
    notes: Notes,
    /// Sources that were read in bulk, for watchers that are about to start.
    sources: Mutex<HashMap<RepositoryId, Vec<Source>>>,
    /// Restarts by role, over all keys, since the process began.
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    polls: Polls,
}

impl Directory {
    /// Enters an actor, or (`None`) that it waits for its restart.
    pub fn enter(&self, role: &'static str, key: &str, actor: Option<ActorCell>, gauge: &Arc<Gauge>) {
        if actor.is_none() {
            *self.0.restarts.lock().entry(role).or_default() += 1;
        }
        self.0.actors.lock().insert((role, key.to_owned()), Listing { actor, gauge: gauge.clone() });
    }

    /// The tree stops: whoever starts from now on must begin nothing.
    pub fn close(&self) {
        self.0.closed.store(true, Relaxed);
    }

    /// Whether the tree stops.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Relaxed)
    }

    /// What waits for breakers that do not run.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.0.notes
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

    /// Takes what was left for a watcher. Whoever changes rows takes it away first: it is old then.
    #[must_use]
    pub fn take_sources(&self, repository: &RepositoryId) -> Option<Vec<Source>> {
        self.0.sources.lock().remove(repository)
    }

    /// Strikes an actor out.
    pub fn strike(&self, role: &'static str, key: &str) {
        self.0.actors.lock().remove(&(role, key.to_owned()));
    }

    /// The mailbox of an actor, if it runs.
    #[must_use]
    pub fn find<M: Message>(&self, role: &'static str, key: &str) -> Option<Post<M>> {
        let actors = self.0.actors.lock();
        let listing = actors.get(&(role, key.to_owned()))?;
        Some(Post::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone()))
    }

    /// The actor itself, if it runs: for tests that kill it.
    #[cfg(test)]
    pub(crate) fn cell(&self, role: &'static str, key: &str) -> Option<ActorCell> {
        self.0.actors.lock().get(&(role, key.to_owned()))?.actor.clone()
    }

    /// Everyone who runs.
    #[cfg(test)]
    pub(crate) fn cells(&self) -> Vec<ActorCell> {
        self.0.actors.lock().values().filter_map(|listing| listing.actor.clone()).collect()
    }

    /// The gauge of an actor, running or not.
    #[cfg(test)]
    pub(crate) fn gauge(&self, role: &'static str, key: &str) -> Option<Arc<Gauge>> {
        Some(self.0.actors.lock().get(&(role, key.to_owned()))?.gauge.clone())
    }

    /// The mailboxes of all running actors of a role, with their keys.
    #[must_use]
    pub fn all<M: Message>(&self, role: &'static str) -> Vec<(String, Post<M>)> {
        let actors = self.0.actors.lock();
        actors
            .iter()
            .filter(|((entered, _), _)| *entered == role)
            .filter_map(|((_, key), listing)| {
                let post = Post::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone());
                Some((key.clone(), post))
            })
            .collect()
    }

    /// The mailboxes of the running actors of a role whose keys begin like this.
    #[must_use]
    pub fn beneath<M: Message>(&self, role: &'static str, beginning: &str) -> Vec<Post<M>> {
        let actors = self.0.actors.lock();
        actors
            .range((role, beginning.to_owned())..)
            .take_while(|((entered, key), _)| *entered == role && key.starts_with(beginning))
            .filter_map(|(_, listing)| {
                Some(Post::new(ActorRef::from(listing.actor.clone()?), listing.gauge.clone()))
            })
            .collect()
    }

    /// The tree in numbers. Takes one look at every actor: not for each request.
    #[must_use]
    pub fn survey(&self) -> TreeSurvey {
        let mut survey = TreeSurvey::default();
        for (role, restarts) in self.0.restarts.lock().iter() {
            survey.roles.entry(role).or_default().restarts = *restarts;
        }
        for ((role, key), Listing { actor, gauge }) in self.0.actors.lock().iter() {
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
                Doing::Words(_) => {}
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

fn node(actors: &BTreeMap<ActorName, Listing>, spec: &'static ChildSpec, key: &str) -> TreeNode {
    let listing = actors.get(&(spec.id, key.to_owned()));
    let children = spec.children.iter().flat_map(|child| {
        if child.many {
            let keys: Vec<&String> =
                actors.keys().filter(|(role, _)| *role == child.id).map(|(_, key)| key).collect();
            keys.into_iter().map(|key| node(actors, child, key)).collect::<Vec<_>>()
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
