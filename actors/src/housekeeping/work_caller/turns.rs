//! Whom a word of work is for: each subscription of its own, and of each group one member in turn; no one
//! sooner than its shortest interval after its last message about that command. A word that comes too soon,
//! or while the rate of its queue allows no claim, is kept, once, until it may be told. Pure.

use std::collections::{BTreeMap, HashMap};

use tidings_entity::id::{AppId, QueueId, WorkerSubscriptionId};
use tokio::time::Instant;

use crate::ports::{QueueWork, WorkerSubscription};

/// How long a word waits for which there was no room.
const NO_ROOM: std::time::Duration = std::time::Duration::from_secs(1);

/// A subscription of its own, or a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Listener {
    One(WorkerSubscriptionId),
    Group(String),
}

/// Whether there was room for a message.
pub type HasRoom<'a> = dyn FnMut(&AppId) -> bool + 'a;

/// What was told, and what is to be told later.
#[derive(Debug, Default)]
pub struct Turns {
    /// When a subscription may be told of a queue again.
    free_at: HashMap<(WorkerSubscriptionId, QueueId), Instant>,
    /// Which member of a group was told of a queue last.
    last: HashMap<(QueueId, String), WorkerSubscriptionId>,
    /// Words that came too soon, and when they may be told.
    late: BTreeMap<(AppId, QueueId), BTreeMap<Listener, Instant>>,
}

impl Turns {
    /// Decides who is told that a queue has work. `is_new`: the queue has work which it did not have before;
    /// otherwise only words are told that came too soon. `has_room` takes a place for each message.
    pub fn tell(
        &mut self,
        work: &QueueWork,
        is_new: bool,
        now: Instant,
        has_room: &mut HasRoom<'_>,
    ) -> Vec<WorkerSubscription> {
        let place = (work.app.id.clone(), work.queue.clone());
        let waiting = self.late.remove(&place).unwrap_or_default();
        let (mut told, mut late) = (Vec::new(), BTreeMap::new());
        for (listener, members) in listeners(&work.subscriptions) {
            let waits_until = waiting.get(&listener).copied();
            let is_due = waits_until.is_some_and(|at| at <= now);
            if !is_new && !is_due {
                late.extend(waits_until.map(|at| (listener, at)));
                continue;
            }
            let members = self.in_turn(&work.queue, &listener, members);
            let free_at = |member: &WorkerSubscription| {
                let free_at = self.free_at.get(&(member.id.clone(), work.queue.clone()));
                free_at.copied().filter(|at| *at > now)
            };
            match members.iter().find(|member| free_at(member).is_none()) {
                Some(member) if has_room(&work.app.id) => {
                    told.push((*member).clone());
                    let key = (member.id.clone(), work.queue.clone());
                    self.free_at.insert(key, now + member.min_interval);
                    if let Listener::Group(name) = listener {
                        self.last.insert((work.queue.clone(), name), member.id.clone());
                    }
                }
                Some(_) => drop(late.insert(listener, now + NO_ROOM)),
                None => {
                    let first = members.iter().filter_map(|member| free_at(member)).min();
                    late.extend(first.map(|at| (listener, at)));
                }
            }
        }
        if !late.is_empty() {
            self.late.insert(place, late);
        }
        told
    }

    /// Keeps a word about a queue of which nothing can be claimed until this moment. `is_new`: as for
    /// [`Self::tell`].
    pub fn put_off(&mut self, work: &QueueWork, is_new: bool, until: Instant) {
        let place = (work.app.id.clone(), work.queue.clone());
        let mut late = self.late.remove(&place).unwrap_or_default();
        if is_new {
            late.extend(listeners(&work.subscriptions).into_keys().map(|listener| (listener, until)));
        }
        late.values_mut().for_each(|at| *at = until.max(*at));
        if !late.is_empty() {
            self.late.insert(place, late);
        }
    }

    /// The members of a listener, the one after the last that was told first.
    fn in_turn<'w>(
        &self,
        queue: &QueueId,
        listener: &Listener,
        mut members: Vec<&'w WorkerSubscription>,
    ) -> Vec<&'w WorkerSubscription> {
        if let Listener::Group(name) = listener
            && let Some(last) = self.last.get(&(queue.clone(), name.clone()))
        {
            let after = members.iter().position(|member| member.id > *last).unwrap_or(0);
            members.rotate_left(after);
        }
        members
    }

    /// The queues whose late words may be told now. Their words stay until [`Self::tell`] or
    /// [`Self::nothing`] says what became of them.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<(AppId, QueueId)> {
        let is_due = |late: &BTreeMap<Listener, Instant>| late.values().any(|at| *at <= now);
        self.late.iter().filter(|(_, late)| is_due(late)).map(|(place, _)| place.clone()).collect()
    }

    /// A queue has no work any more, or nobody listens.
    pub fn nothing(&mut self, place: &(AppId, QueueId)) {
        self.late.remove(place);
    }

    /// When the next late word may be told. Forgets what binds nobody any more.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        self.free_at.retain(|_, at| *at > now);
        self.late.values().flat_map(BTreeMap::values).copied().min()
    }

    /// Forgets whose turn it is in groups that have no member any more: called with all that is known now and
    /// then, so that groups with passing names do not add up.
    pub fn keep_groups(&mut self, most: usize) {
        if self.last.len() > most {
            self.last.clear();
        }
    }
}

/// Who listens to a queue: each listener with its members, oldest first.
fn listeners(subscriptions: &[WorkerSubscription]) -> BTreeMap<Listener, Vec<&WorkerSubscription>> {
    let mut listeners: BTreeMap<Listener, Vec<&WorkerSubscription>> = BTreeMap::new();
    for subscription in subscriptions {
        let listener = match &subscription.group {
            Some(name) => Listener::Group(name.clone()),
            None => Listener::One(subscription.id.clone()),
        };
        listeners.entry(listener).or_default().push(subscription);
    }
    listeners
}

#[cfg(test)]
pub(in crate::housekeeping) mod tests;
