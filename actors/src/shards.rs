//! Which repositories this process works on. Repositories belong to 256 shards; replicas
//! hold shards by lease, and whoever holds the shard of a repository scans it and runs its lanes.
//! [`Shards`] is what this process believes of its leases: the lease keeper writes it, everyone who
//! is about to begin work reads it. A belief ends by itself ([`Shards::renewed`] says when), so a
//! process that was cut off or frozen stops beginning work before another may start.
//!
//! What keeps rows right is not belief but the [`Fence`]: every write of a lane or a scan carries the
//! epoch of the lease under which it was begun, and changes nothing once another epoch stands.
//!
//! A process that has its database to itself owns everything, for good.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidings_entity::id::RepositoryId;
use tokio::time::Instant;

use crate::ports::{Fence, Reach, Shard};

/// What this process believes of its leases. Cheap to clone.
#[derive(Clone)]
pub struct Shards(Arc<Belief>);

enum Belief {
    /// Nobody else works on this database.
    Sole,
    /// Replicas share it.
    Leased(Mutex<Leased>),
}

#[derive(Default)]
struct Leased {
    shards: BTreeMap<Shard, Held>,
    /// No work begins after this moment unless the leases are renewed before.
    trusted_until: Option<Instant>,
}

struct Held {
    epoch: i64,
    /// It is about to be given to another: nothing new begins.
    leaving: bool,
    /// Whoever works under it now.
    holds: usize,
}

/// What a renewal changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Shards whose work begins here now.
    pub gained: Vec<Shard>,
    /// Shards whose work is another's now, or nobody's.
    pub lost: Vec<Shard>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

impl Shards {
    /// Of a process that has its database to itself.
    #[must_use]
    pub fn sole() -> Self {
        Self(Arc::new(Belief::Sole))
    }

    /// Of a replica, which holds nothing yet.
    #[must_use]
    pub fn leased() -> Self {
        Self(Arc::new(Belief::Leased(Mutex::default())))
    }

    /// Whether this process has its database to itself.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        matches!(*self.0, Belief::Sole)
    }

    /// Whether work on this repository may begin here now.
    #[must_use]
    pub fn owns(&self, repository: &RepositoryId) -> bool {
        self.may_begin(Shard::of(repository))
    }

    /// Whether this process does what only one of all replicas should do: the holder of the first
    /// shard does it.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.may_begin(Shard::FIRST)
    }

    /// The right to work on a repository; `None`: another has it, or nobody knows.
    #[must_use]
    pub fn hold(&self, repository: &RepositoryId) -> Option<Hold> {
        let Some(mut leased) = self.lock() else { return Some(Hold { of: None }) };
        let shard = Shard::of(repository);
        let is_trusted = leased.is_trusted();
        let held = leased.shards.get_mut(&shard).filter(|held| is_trusted && !held.leaving)?;
        held.holds += 1;
        let fence = Fence { shard, epoch: held.epoch };
        drop(leased);
        Some(Hold { of: Some((self.clone(), fence)) })
    }

    /// The shards whose work is done here now.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let Some(leased) = self.lock() else { return Reach::All };
        let mine = leased.shards.iter().filter(|(_, held)| leased.is_trusted() && !held.leaving);
        Reach::These(mine.map(|(shard, _)| *shard).collect())
    }

    /// The leases were renewed, or taken: these stand, and may be believed until then. Whoever holds
    /// a shard at an epoch that does not stand any more holds nothing.
    pub fn renewed(&self, standing: &[Fence], trusted_until: Instant) -> Changes {
        let Some(mut leased) = self.lock() else { return Changes::default() };
        let was_trusted = leased.is_trusted();
        let standing: BTreeMap<Shard, i64> =
            standing.iter().map(|fence| (fence.shard, fence.epoch)).collect();
        let mut changes = Changes::default();
        leased.shards.retain(|shard, held| {
            let stands = standing.get(shard) == Some(&held.epoch);
            if !stands {
                changes.lost.push(*shard);
            }
            stands
        });
        for (shard, epoch) in standing {
            let known = leased.shards.contains_key(&shard);
            leased.shards.entry(shard).or_insert(Held { epoch, leaving: false, holds: 0 });
            // What nobody believed for a while was stopped, and begins again.
            if !known || !was_trusted {
                changes.gained.push(shard);
            }
        }
        leased.trusted_until = Some(trusted_until);
        changes
    }

    /// When belief ends unless the leases are renewed; `None`: never, or it did.
    #[must_use]
    pub fn trusted_until(&self) -> Option<Instant> {
        self.lock()?.trusted_until.filter(|until| *until > Instant::now())
    }

    /// Chooses so many shards to give away: nothing new begins under them. Those of which the least
    /// is going on come first.
    pub fn leave(&self, count: usize) -> Vec<Fence> {
        let Some(mut leased) = self.lock() else { return Vec::new() };
        let mut staying: Vec<(usize, Shard)> = leased
            .shards
            .iter()
            .filter(|(shard, held)| !held.leaving && **shard != Shard::FIRST)
            .map(|(shard, held)| (held.holds, *shard))
            .collect();
        staying.sort_unstable();
        staying.truncate(count);
        let mut leaving = Vec::new();
        for (_, shard) in staying {
            if let Some(held) = leased.shards.get_mut(&shard) {
                held.leaving = true;
                leaving.push(Fence { shard, epoch: held.epoch });
            }
        }
        leaving
    }

    /// All shards are given away.
    pub fn leave_all(&self) -> Vec<Fence> {
        let Some(mut leased) = self.lock() else { return Vec::new() };
        let fences = leased.shards.iter_mut().map(|(shard, held)| {
            held.leaving = true;
            Fence { shard: *shard, epoch: held.epoch }
        });
        fences.collect()
    }

    /// Whether nothing goes on any more under a lease that is to be given away.
    #[must_use]
    pub fn is_left(&self, fence: Fence) -> bool {
        let Some(leased) = self.lock() else { return false };
        leased.shards.get(&fence.shard).is_none_or(|held| held.epoch != fence.epoch || held.holds == 0)
    }

    /// These leases were given back.
    pub fn gave_back(&self, fences: &[Fence]) {
        let Some(mut leased) = self.lock() else { return };
        leased.shards.retain(|shard, held| !fences.contains(&Fence { shard: *shard, epoch: held.epoch }));
    }

    fn may_begin(&self, shard: Shard) -> bool {
        let Some(leased) = self.lock() else { return true };
        leased.is_trusted() && leased.shards.get(&shard).is_some_and(|held| !held.leaving)
    }

    fn lock(&self) -> Option<MutexGuard<'_, Leased>> {
        match &*self.0 {
            Belief::Sole => None,
            Belief::Leased(leased) => Some(leased.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Leased {
    fn is_trusted(&self) -> bool {
        self.trusted_until.is_some_and(|until| Instant::now() < until)
    }
}

/// The right to work on a repository, for as long as it stands. A shard is given away only when
/// every hold on it is dropped.
pub struct Hold {
    /// `None`: nobody else works on this database.
    of: Option<(Shards, Fence)>,
}

impl Hold {
    /// Of a process that has its database to itself.
    #[must_use]
    pub fn sole() -> Self {
        Self { of: None }
    }

    /// What its writes must carry; `None`: nothing.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.of.as_ref().map(|(_, fence)| *fence)
    }

    /// Whether another attempt may begin under it.
    #[must_use]
    pub fn stands(&self) -> bool {
        let Some((shards, fence)) = &self.of else { return true };
        let Some(leased) = shards.lock() else { return true };
        let held = leased.shards.get(&fence.shard).filter(|held| held.epoch == fence.epoch);
        leased.is_trusted() && held.is_some_and(|held| !held.leaving)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some((shards, fence)) = &self.of else { return };
        let Some(mut leased) = shards.lock() else { return };
        if let Some(held) = leased.shards.get_mut(&fence.shard).filter(|held| held.epoch == fence.epoch) {
            held.holds = held.holds.saturating_sub(1);
        }
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Hold").field(&self.fence()).finish()
    }
}

#[cfg(test)]
mod tests;
