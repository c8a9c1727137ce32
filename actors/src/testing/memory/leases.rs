//! Leases in memory: who of several replicas owns which shard, on one clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::ReplicaId;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

use crate::{
    ports::{Fence, LeaseStanding, Leases, Replica, ReplicaSeen, SHARDS, Shard, Signal, StoreError},
    time::Timestamp,
};

/// A listener that is this many signals behind misses some.
pub const SIGNALS: usize = 64;

struct Lease {
    owner: ReplicaId,
    epoch: i64,
    until: Instant,
    is_free: bool,
}

#[derive(Default)]
struct Table {
    leases: BTreeMap<Shard, Lease>,
    replicas: BTreeMap<ReplicaId, (Replica, Instant, Duration)>,
    /// How often each replica took keys, and how long that takes.
    keys_taken: BTreeMap<ReplicaId, usize>,
    key_wait: Duration,
    /// What its clock says.
    now: Option<Timestamp>,
}

/// The table that replicas share.
pub struct LeaseTable {
    table: Mutex<Table>,
    is_cut_off: AtomicBool,
    is_mute: AtomicBool,
    refused_claims: AtomicUsize,
    renewals: AtomicUsize,
    signals: broadcast::Sender<(ReplicaId, Signal)>,
}

/// The table of leases as one replica sees it.
pub struct MemoryLeases {
    shared: Arc<LeaseTable>,
    id: ReplicaId,
    heard: tokio::sync::Mutex<broadcast::Receiver<(ReplicaId, Signal)>>,
}

impl Default for LeaseTable {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            is_cut_off: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            refused_claims: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            signals: broadcast::channel(SIGNALS).0,
        }
    }
}

impl LeaseTable {
    /// The view of this replica on the table.
    #[must_use]
    pub fn seen_by(self: &Arc<Self>, id: &ReplicaId) -> MemoryLeases {
        let heard = tokio::sync::Mutex::new(self.signals.subscribe());
        MemoryLeases { shared: self.clone(), id: id.clone(), heard }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Refuses a write under a lease that does not stand any more.
    pub(super) fn check(&self, fence: Fence) -> Result<(), StoreError> {
        let table = self.table();
        let is_of = |lease: &Lease| lease.epoch == fence.epoch && lease.owner.ulid() == fence.owner;
        let stands = table.leases.get(&fence.shard).is_some_and(|lease| is_of(lease) && !lease.is_free);
        if stands { Ok(()) } else { Err(StoreError::Lost) }
    }

    /// Makes the table unreachable for all replicas, or reachable again.
    pub fn cut_off(&self, is_cut_off: bool) {
        self.is_cut_off.store(is_cut_off, Ordering::SeqCst);
    }

    /// Makes every notification fail, or succeed again.
    pub fn mute(&self, is_mute: bool) {
        self.is_mute.store(is_mute, Ordering::SeqCst);
    }

    /// Makes the next claims fail, this many.
    pub fn refuse_claims(&self, claims: usize) {
        self.refused_claims.store(claims, Ordering::SeqCst);
    }

    /// The number of renewals that were asked for, failed ones included.
    pub fn renewals(&self) -> usize {
        self.renewals.load(Ordering::SeqCst)
    }

    /// How often a replica began to take keys.
    pub fn keys_taken(&self, id: &ReplicaId) -> usize {
        self.table().keys_taken.get(id).copied().unwrap_or(0)
    }

    /// Makes taking keys take this long.
    pub fn take_keys_slowly(&self, wait: Duration) {
        self.table().key_wait = wait;
    }

    /// Makes each renewal report this moment as the present.
    pub fn stop_the_clock(&self, now: Timestamp) {
        self.table().now = Some(now);
    }

    fn reach(&self) -> Result<MutexGuard<'_, Table>, StoreError> {
        match self.is_cut_off.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("cut off".into())),
            false => Ok(self.table()),
        }
    }

    /// Lets the leases of a replica expire.
    pub fn expire(&self, owner: &ReplicaId) {
        let mut table = self.table();
        let now = Instant::now();
        table.leases.values_mut().filter(|lease| lease.owner == *owner).for_each(|lease| lease.until = now);
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn renew(&self, replica: &Replica, life: Duration) -> Result<LeaseStanding, StoreError> {
        self.shared.renewals.fetch_add(1, Ordering::SeqCst);
        let (mut table, now) = (self.shared.reach()?, Instant::now());
        table.replicas.insert(replica.id.clone(), (replica.clone(), now, life));
        let mut held = Vec::new();
        for (shard, lease) in &mut table.leases {
            if lease.owner == replica.id && !lease.is_free {
                lease.until = now + life;
                held.push(Fence { shard: *shard, epoch: lease.epoch, owner: lease.owner.ulid() });
            }
        }
        let lives =
            |(replica, seen, life): &&(Replica, Instant, Duration)| replica.works && *seen + *life > now;
        let taken = table.leases.values().filter(|lease| !lease.is_free && lease.until > now).count();
        let workers = table.replicas.values().filter(lives).count();
        let others = table.leases.values().filter(|lease| !lease.is_free && lease.owner != replica.id);
        // One that is dead counts until its row ends: then its share is the others'.
        let rows = table.replicas.values().filter(|(other, ..)| other.works && other.id != replica.id);
        let ends = others.map(|lease| lease.until).chain(rows.map(|(_, seen, life)| *seen + *life));
        let free_in = ends.filter(|end| *end > now).map(|end| end - now).min();
        Ok(LeaseStanding { held, workers, free: SHARDS - taken, free_in, now: table.now })
    }

    async fn claim(&self, id: &ReplicaId, most: usize, life: Duration) -> Result<Vec<Fence>, StoreError> {
        let refused = &self.shared.refused_claims;
        if refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(StoreError::Unavailable("refused, as asked".into()));
        }
        let (mut table, now) = (self.shared.reach()?, Instant::now());
        let mut claimed = Vec::new();
        for shard in Shard::all() {
            if claimed.len() >= most {
                break;
            }
            let old = table.leases.get(&shard);
            if old.is_some_and(|lease| !lease.is_free && lease.until > now) {
                continue;
            }
            let epoch = old.map_or(0, |lease| lease.epoch) + 1;
            table.leases.insert(shard, Lease { owner: id.clone(), epoch, until: now + life, is_free: false });
            claimed.push(Fence { shard, epoch, owner: id.ulid() });
        }
        Ok(claimed)
    }

    async fn release(&self, id: &ReplicaId, fences: &[Fence]) -> Result<(), StoreError> {
        let mut table = self.shared.reach()?;
        for fence in fences {
            let lease = table.leases.get_mut(&fence.shard);
            if let Some(lease) = lease.filter(|lease| lease.owner == *id && lease.epoch == fence.epoch) {
                lease.is_free = true;
            }
        }
        Ok(())
    }

    async fn leave(&self, id: &ReplicaId) -> Result<(), StoreError> {
        let mut table = self.shared.reach()?;
        table.leases.values_mut().filter(|lease| lease.owner == *id).for_each(|lease| lease.is_free = true);
        table.replicas.remove(id);
        Ok(())
    }

    async fn replicas(&self) -> Result<Vec<ReplicaSeen>, StoreError> {
        let table = self.shared.reach()?;
        let shards = |id: &ReplicaId| {
            table.leases.values().filter(|lease| lease.owner == *id && !lease.is_free).count()
        };
        let seen = table.replicas.values().map(|(replica, seen, _)| ReplicaSeen {
            shards: shards(&replica.id),
            replica: replica.clone(),
            seen: seen.elapsed(),
            lag: Duration::ZERO,
        });
        Ok(seen.collect())
    }

    async fn owner(&self, shard: Shard) -> Result<Option<Replica>, StoreError> {
        let (table, now) = (self.shared.reach()?, Instant::now());
        let lease = table.leases.get(&shard).filter(|lease| !lease.is_free && lease.until > now);
        let owner = lease.and_then(|lease| table.replicas.get(&lease.owner));
        Ok(owner.map(|(replica, _, _)| replica.clone()))
    }

    async fn tell(&self, signal: &Signal) -> Result<(), StoreError> {
        if self.shared.is_mute.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("refused, as asked".into()));
        }
        // Nobody may be listening.
        drop(self.shared.signals.send((self.id.clone(), signal.clone())));
        Ok(())
    }

    async fn take_keys(&self) -> Result<(), StoreError> {
        let wait = {
            let mut table = self.shared.reach()?;
            *table.keys_taken.entry(self.id.clone()).or_default() += 1;
            table.key_wait
        };
        sleep(wait).await;
        Ok(())
    }

    async fn hear(&self) -> Signal {
        let mut heard = self.heard.lock().await;
        loop {
            match heard.recv().await {
                Ok((by, _)) if by == self.id => {}
                Ok((_, signal)) => return signal,
                Err(broadcast::error::RecvError::Lagged(_)) => return Signal::Missed,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
