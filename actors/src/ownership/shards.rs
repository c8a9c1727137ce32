//! Which repositories this process works on. Repositories belong to 256 shards; replicas hold shards by
//! lease, and the replica with the shard of a repository scans it and runs its lanes. [`Shards`] has the
//! leases that this process trusts: the lease keeper writes it, and every actor reads it before it begins
//! work. Trust in each lease ends by itself ([`Shards::renewed`] says when), so a process that was cut off or
//! frozen begins no more work before another may start.
//!
//! Not trust but the [`Fence`] keeps rows right: every write of a lane or a scan carries the epoch of the
//! lease under which it was begun, and changes nothing once the shard has another epoch.
//!
//! A process that has its database to itself owns all shards for ever.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::{AppId, CursorId, RepositoryId};
use tokio::time::Instant;

use crate::{
    ownership::terms::{Terms, UnderTerms},
    ports::{Fence, LaneSnapshot, Reach, SHARDS, Shard, StoreError},
};

/// The leases that this process trusts. Cheap to clone.
#[derive(Clone)]
pub struct Shards(Arc<Belief>);

enum Belief {
    /// This process has the database to itself.
    Sole,
    /// Replicas share the database; each shard has a lease.
    Leased(Mutex<Leased>),
}

struct Leased {
    shards: BTreeMap<Shard, ShardLease>,
    /// Replicas that live and take shards, as far as is known.
    workers: usize,
    /// For each shard that is not held: when it was last held.
    left: BTreeMap<Shard, Instant>,
    began: Instant,
}

struct ShardLease {
    fence: Fence,
    /// No work begins after this moment unless the lease is renewed before.
    until: Instant,
    /// When the shard was chosen to be given away: nothing new begins under it. `None`: it stays here.
    leaving: Option<Instant>,
    /// The number of lanes and scans that work under the lease now.
    holds: usize,
}

impl ShardLease {
    fn is_trusted(&self) -> bool {
        Instant::now() < self.until
    }

    /// Whether work under it may begin.
    fn stands(&self) -> bool {
        self.leaving.is_none() && self.is_trusted()
    }
}

/// The changes that a renewal made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Shards whose work begins here now.
    pub gained: Vec<Shard>,
    /// Shards that this process may not work on any more.
    pub lost: Vec<Shard>,
}

impl Changes {
    /// Whether no shard was gained or lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

impl Shards {
    /// The shards of a process that has its database to itself: all of them.
    #[must_use]
    pub fn sole() -> Self {
        Self(Arc::new(Belief::Sole))
    }

    /// The shards of a replica, which holds none yet.
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

    /// For how long this process has done no work on this repository; `None`: it may work on it now.
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

    /// Whether this process does work that only one of all replicas should do: the holder of the first shard
    /// does it.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.may_begin(Shard::FIRST)
    }

    /// The right to work on a repository; `None`: another replica has it, or the lease is in doubt.
    #[must_use]
    pub fn hold(&self, repository: &RepositoryId) -> Option<ShardHold> {
        self.hold_shard(Shard::of(repository))
    }

    /// The right to work on the subscriptions of an app; `None`: another replica has it, or the lease is in
    /// doubt.
    #[must_use]
    pub fn hold_app(&self, app: &AppId) -> Option<ShardHold> {
        self.hold_shard(Shard::of_app(app))
    }

    fn hold_shard(&self, shard: Shard) -> Option<ShardHold> {
        let Some(mut leased) = self.lock() else { return Some(ShardHold::sole()) };
        let held = leased.shards.get_mut(&shard).filter(|held| held.stands())?;
        held.holds += 1;
        let fence = held.fence;
        drop(leased);
        Some(ShardHold { of: Some((self.clone(), fence)), lane: None })
    }

    /// The number of processes that share the work, as far as is known: limits for all processes together are
    /// divided by it.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.lock().map_or(1, |leased| leased.workers.max(1))
    }

    /// Sets the number of processes that share the work. Returns whether it changed.
    pub fn shared_by(&self, workers: usize) -> bool {
        let Some(mut leased) = self.lock() else { return false };
        std::mem::replace(&mut leased.workers, workers) != workers
    }

    /// The shards that this process works on now.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let Some(leased) = self.lock() else { return Reach::All };
        let mine = leased.shards.iter().filter(|(_, held)| held.stands());
        Reach::These(mine.map(|(shard, _)| *shard).collect())
    }

    /// Records a renewal: the leases in `standing` are trusted until `until`, and no others. A hold under
    /// another epoch of a shard is void.
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

    /// Records new leases, trusted until that moment. Other leases stay as they are.
    pub fn claimed(&self, fences: &[Fence], until: Instant) -> Changes {
        let Some(mut leased) = self.lock() else { return Changes::default() };
        let mut changes = Changes::default();
        leased.believe(fences, until, &mut changes);
        changes
    }

    /// When trust in the first of the leases ends unless it is renewed; `None`: never, or trust in all of
    /// them has ended.
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

    /// The number of shards that are held: all, and those that are not about to be given away.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let Some(leased) = self.lock() else { return (SHARDS, SHARDS) };
        let staying = leased.shards.values().filter(|held| held.leaving.is_none()).count();
        (leased.shards.len(), staying)
    }

    /// Chooses this many shards to give away, those with the least work first: nothing new begins under them.
    /// Returns the number that was chosen.
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

    /// The leases to give back now: chosen to be given away, with no work left under them or chosen longer
    /// than `most` ago.
    #[must_use]
    pub fn left(&self, most: Duration) -> Vec<Fence> {
        let Some(leased) = self.lock() else { return Vec::new() };
        let is_left =
            |held: &ShardLease| held.leaving.is_some_and(|since| held.holds == 0 || since.elapsed() >= most);
        let left = leased.shards.iter().filter(|(_, held)| is_left(held));
        left.map(|(_, held)| held.fence).collect()
    }

    /// Records that these leases were given back to the database.
    pub fn gave_back(&self, fences: &[Fence]) {
        let Some(mut leased) = self.lock() else { return };
        let gone: Vec<Shard> =
            fences.iter().filter(|fence| leased.holds(fence)).map(|fence| fence.shard).collect();
        leased.shards.retain(|shard, _| !gone.contains(shard));
        leased.leave_behind(&gone);
    }

    fn may_begin(&self, shard: Shard) -> bool {
        let Some(leased) = self.lock() else { return true };
        leased.shards.get(&shard).is_some_and(ShardLease::stands)
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
            let is_known = |held: &&ShardLease| held.fence == *fence;
            let was_trusted =
                self.shards.get(&fence.shard).filter(is_known).is_some_and(ShardLease::is_trusted);
            let fresh = || ShardLease { fence: *fence, until, leaving: None, holds: 0 };
            let held = self.shards.entry(fence.shard).or_insert_with(fresh);
            if held.fence != *fence {
                *held = fresh();
            }
            held.until = until;
            // Work under an untrusted lease was stopped; it begins again.
            if !was_trusted && held.stands() {
                changes.gained.push(fence.shard);
            }
        }
    }
}

/// The right to work on a repository, for as long as its lease is trusted; the right of a lane ends also when
/// people change the terms under which it was opened. A shard is given away only when every hold on it is
/// dropped.
pub struct ShardHold {
    /// `None`: this process has the database to itself.
    of: Option<(Shards, Fence)>,
    /// The lane that works under this hold, if any.
    lane: Option<UnderTerms>,
}

impl ShardHold {
    /// The right of a process that has its database to itself: it never ends.
    #[must_use]
    pub fn sole() -> Self {
        Self { of: None, lane: None }
    }

    /// The fence that writes must carry; `None`: no fence is needed.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.of.as_ref().map(|(_, fence)| *fence)
    }

    /// Reads the rows of the lane that works under this hold: a change of the lane's terms from then on ends
    /// the hold.
    ///
    /// # Errors
    /// The errors of `reading`.
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
        self.lane.as_ref().is_none_or(UnderTerms::stand) && self.is(ShardLease::stands)
    }

    /// Whether the database confirmed recently enough that the hold is not ended.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.lane.as_ref().is_none_or(UnderTerms::are_confirmed)
    }

    /// Waits until the lane's terms are confirmed, or the hold has ended.
    pub async fn confirmed(&self) {
        let Some(lane) = &self.lane else { return };
        let mut looks = lane.looks();
        while !self.is_confirmed() && self.stands() {
            if looks.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether an attempt under this hold may send a further request: its watch exists and its lease is
    /// trusted. A lease that is about to be given away waits for the attempt.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !self.lane.as_ref().is_some_and(UnderTerms::are_gone) && self.is(ShardLease::is_trusted)
    }

    fn is(&self, so: impl Fn(&ShardLease) -> bool) -> bool {
        let Some((shards, fence)) = &self.of else { return true };
        let Some(leased) = shards.lock() else { return true };
        leased.shards.get(&fence.shard).is_some_and(|held| held.fence == *fence && so(held))
    }
}

impl Drop for ShardHold {
    fn drop(&mut self) {
        let Some((shards, fence)) = &self.of else { return };
        let Some(mut leased) = shards.lock() else { return };
        if let Some(held) = leased.shards.get_mut(&fence.shard).filter(|held| held.fence == *fence) {
            held.holds = held.holds.saturating_sub(1);
        }
    }
}

impl std::fmt::Debug for ShardHold {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("ShardHold").field(&self.fence()).finish()
    }
}

#[cfg(test)]
mod tests;
