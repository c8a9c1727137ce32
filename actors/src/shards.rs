//! Which repositories this process works on. Repositories belong to 256 shards; replicas
//! hold shards by lease, and whoever holds the shard of a repository scans it and runs its lanes.
//! [`Shards`] is what this process believes of its leases: the lease keeper writes it, everyone who
//! is about to begin work reads it. Belief in each lease ends by itself ([`Shards::renewed`] says when), so
//! a process that was cut off or frozen stops beginning work before another may start.
//!
//! What keeps rows right is not belief but the [`Fence`]: every write of a lane or a scan carries the
//! epoch of the lease under which it was begun, and changes nothing once another epoch stands.
//!
//! A process that has its database to itself owns everything, for good.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::{AppId, CursorId, RepositoryId};
use tokio::time::Instant;

use crate::{
    ports::{Fence, LaneSnapshot, Reach, SHARDS, Shard, StoreError},
    terms::{Terms, UnderTerms},
};

/// What this process believes of its leases. Cheap to clone.
#[derive(Clone)]
pub struct Shards(Arc<Belief>);

enum Belief {
    /// Nobody else works on this database.
    Sole,
    /// Replicas share it.
    Leased(Mutex<Leased>),
}

struct Leased {
    shards: BTreeMap<Shard, Held>,
    /// Replicas that live and take shards, as far as is known.
    workers: usize,
    /// When those that are not held were held last.
    left: BTreeMap<Shard, Instant>,
    began: Instant,
}

struct Held {
    fence: Fence,
    /// No work begins after this moment unless the lease is renewed before.
    until: Instant,
    /// Since when it is about to be given to another: nothing new begins.
    leaving: Option<Instant>,
    /// Whoever works under it now.
    holds: usize,
}

impl Held {
    fn is_trusted(&self) -> bool {
        Instant::now() < self.until
    }

    /// Whether work under it may begin.
    fn stands(&self) -> bool {
        self.leaving.is_none() && self.is_trusted()
    }
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
        let leased =
            Leased { shards: BTreeMap::new(), workers: 0, left: BTreeMap::new(), began: Instant::now() };
        Self(Arc::new(Belief::Leased(Mutex::new(leased))))
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

    /// For how long nothing of this repository was done here; `None`: it may be now.
    #[must_use]
    pub fn away_for(&self, repository: &RepositoryId) -> Option<Duration> {
        let leased = self.lock()?;
        let shard = Shard::of(repository);
        let since = match leased.shards.get(&shard) {
            Some(held) if held.is_trusted() => return None,
            Some(held) => held.until,
            None => leased.left.get(&shard).copied().unwrap_or(leased.began),
        };
        Some(since.elapsed())
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
        self.hold_shard(Shard::of(repository))
    }

    /// The right to work on the subscriptions of an app; `None`: another has it, or nobody knows.
    #[must_use]
    pub fn hold_app(&self, app: &AppId) -> Option<Hold> {
        self.hold_shard(Shard::of_app(app))
    }

    fn hold_shard(&self, shard: Shard) -> Option<Hold> {
        let Some(mut leased) = self.lock() else { return Some(Hold::sole()) };
        let held = leased.shards.get_mut(&shard).filter(|held| held.stands())?;
        held.holds += 1;
        let fence = held.fence;
        drop(leased);
        Some(Hold { of: Some((self.clone(), fence)), lane: None })
    }

    /// How many processes share the work, as far as is known: what all of them together may do is divided
    /// by it.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.lock().map_or(1, |leased| leased.workers.max(1))
    }

    /// So many processes share the work. Whether they were more or fewer before.
    pub fn shared_by(&self, workers: usize) -> bool {
        let Some(mut leased) = self.lock() else { return false };
        std::mem::replace(&mut leased.workers, workers) != workers
    }

    /// The shards whose work is done here now.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let Some(leased) = self.lock() else { return Reach::All };
        let mine = leased.shards.iter().filter(|(_, held)| held.stands());
        Reach::These(mine.map(|(shard, _)| *shard).collect())
    }

    /// The leases were renewed: these stand, and may be believed in until then; no others do. Whoever
    /// holds a shard at an epoch that does not stand any more holds nothing.
    pub fn renewed(&self, standing: &[Fence], until: Instant) -> Changes {
        let Some(mut leased) = self.lock() else { return Changes::default() };
        let mut changes = Changes::default();
        leased.shards.retain(|shard, held| {
            let stands = standing.contains(&held.fence);
            if !stands {
                changes.lost.push(*shard);
            }
            stands
        });
        leased.leave_behind(&changes.lost);
        leased.believe(standing, until, &mut changes);
        changes
    }

    /// These leases were taken, and may be believed in until then. Of others that says nothing.
    pub fn claimed(&self, fences: &[Fence], until: Instant) -> Changes {
        let Some(mut leased) = self.lock() else { return Changes::default() };
        let mut changes = Changes::default();
        leased.believe(fences, until, &mut changes);
        changes
    }

    /// When belief in the first of the leases ends unless it is renewed; `None`: never, or it did in all.
    #[must_use]
    pub fn trusted_until(&self) -> Option<Instant> {
        let leased = self.lock()?;
        leased.shards.values().filter(|held| held.is_trusted()).map(|held| held.until).min()
    }

    /// Whether belief in a lease ended that was not renewed.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.lock().is_some_and(|leased| leased.shards.values().any(|held| !held.is_trusted()))
    }

    /// How many shards are held: all, and those of them that are not about to be given away.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let Some(leased) = self.lock() else { return (SHARDS, SHARDS) };
        let staying = leased.shards.values().filter(|held| held.leaving.is_none()).count();
        (leased.shards.len(), staying)
    }

    /// Chooses so many shards to give away: nothing new begins under them. Those of which the least
    /// is going on come first. How many were chosen.
    pub fn leave(&self, count: usize) -> usize {
        let Some(mut leased) = self.lock() else { return 0 };
        let mut staying: Vec<(usize, Shard)> = leased
            .shards
            .iter()
            .filter(|(shard, held)| held.leaving.is_none() && **shard != Shard::FIRST)
            .map(|(shard, held)| (held.holds, *shard))
            .collect();
        staying.sort_unstable();
        staying.truncate(count);
        for (_, shard) in &staying {
            if let Some(held) = leased.shards.get_mut(shard) {
                held.leaving = Some(Instant::now());
            }
        }
        staying.len()
    }

    /// All shards are given away.
    pub fn leave_all(&self) {
        let Some(mut leased) = self.lock() else { return };
        for held in leased.shards.values_mut() {
            held.leaving.get_or_insert_with(Instant::now);
        }
    }

    /// Whether shards are about to be given away.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.lock().is_some_and(|leased| leased.shards.values().any(|held| held.leaving.is_some()))
    }

    /// The leases to give back now: those about to be given away under which nothing goes on any more,
    /// or which were so for longer than `most`.
    #[must_use]
    pub fn left(&self, most: Duration) -> Vec<Fence> {
        let Some(leased) = self.lock() else { return Vec::new() };
        let is_left =
            |held: &Held| held.leaving.is_some_and(|since| held.holds == 0 || since.elapsed() >= most);
        let left = leased.shards.iter().filter(|(_, held)| is_left(held));
        left.map(|(_, held)| held.fence).collect()
    }

    /// These leases were given back.
    pub fn gave_back(&self, fences: &[Fence]) {
        let Some(mut leased) = self.lock() else { return };
        let gone: Vec<Shard> =
            fences.iter().filter(|fence| leased.holds(fence)).map(|fence| fence.shard).collect();
        leased.shards.retain(|shard, _| !gone.contains(shard));
        leased.leave_behind(&gone);
    }

    fn may_begin(&self, shard: Shard) -> bool {
        let Some(leased) = self.lock() else { return true };
        leased.shards.get(&shard).is_some_and(Held::stands)
    }

    fn lock(&self) -> Option<MutexGuard<'_, Leased>> {
        match &*self.0 {
            Belief::Sole => None,
            Belief::Leased(leased) => Some(leased.lock()),
        }
    }
}

impl Leased {
    fn holds(&self, fence: &Fence) -> bool {
        self.shards.get(&fence.shard).is_some_and(|held| held.fence == *fence)
    }

    fn leave_behind(&mut self, gone: &[Shard]) {
        self.left.extend(gone.iter().map(|shard| (*shard, Instant::now())));
    }

    fn believe(&mut self, standing: &[Fence], until: Instant, changes: &mut Changes) {
        for fence in standing {
            let is_known = |held: &&Held| held.fence == *fence;
            let was_trusted = self.shards.get(&fence.shard).filter(is_known).is_some_and(Held::is_trusted);
            let fresh = || Held { fence: *fence, until, leaving: None, holds: 0 };
            let held = self.shards.entry(fence.shard).or_insert_with(fresh);
            if held.fence != *fence {
                *held = fresh();
            }
            held.until = until;
            // What nobody believed in for a while was stopped, and begins again.
            if !was_trusted && held.stands() {
                changes.gained.push(fence.shard);
            }
        }
    }
}

/// The right to work on a repository, for as long as it stands; that of a lane ends also when people change
/// the terms under which it was opened. A shard is given away only when every hold on it is dropped.
pub struct Hold {
    /// `None`: nobody else works on this database.
    of: Option<(Shards, Fence)>,
    /// The lane that works under it, where one does.
    lane: Option<UnderTerms>,
}

impl Hold {
    /// Of a process that has its database to itself.
    #[must_use]
    pub fn sole() -> Self {
        Self { of: None, lane: None }
    }

    /// What its writes must carry; `None`: nothing.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.of.as_ref().map(|(_, fence)| *fence)
    }

    /// Reads the rows of the lane that works under it: what people change about the lane from then on
    /// ends it.
    ///
    /// # Errors
    /// Those of `reading`.
    pub(crate) async fn read(
        &mut self,
        terms: &Terms,
        cursor: &CursorId,
        reading: impl Future<Output = Result<LaneSnapshot, StoreError>>,
    ) -> Result<LaneSnapshot, StoreError> {
        let (rows, lane) = terms.read(cursor, self.of.is_some(), reading).await?;
        self.lane = Some(lane);
        Ok(rows)
    }

    /// Whether another attempt may begin under it, if it is confirmed as well.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.lane.as_ref().is_none_or(UnderTerms::stand) && self.is(Held::stands)
    }

    /// Whether it was seen lately that nobody ended it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.lane.as_ref().is_none_or(UnderTerms::are_confirmed)
    }

    /// Waits until it is confirmed, or does not stand any more.
    pub async fn confirmed(&self) {
        let Some(lane) = &self.lane else { return };
        let mut looks = lane.looks();
        while !self.is_confirmed() && self.stands() {
            if looks.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether an attempt that began under it may go on with a further request: its watch is there, and
    /// its lease is believed in, if perhaps about to be given to another, which waits until nothing goes
    /// on under it.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !self.lane.as_ref().is_some_and(UnderTerms::are_gone) && self.is(Held::is_trusted)
    }

    fn is(&self, so: impl Fn(&Held) -> bool) -> bool {
        let Some((shards, fence)) = &self.of else { return true };
        let Some(leased) = shards.lock() else { return true };
        leased.shards.get(&fence.shard).is_some_and(|held| held.fence == *fence && so(held))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some((shards, fence)) = &self.of else { return };
        let Some(mut leased) = shards.lock() else { return };
        if let Some(held) = leased.shards.get_mut(&fence.shard).filter(|held| held.fence == *fence) {
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
