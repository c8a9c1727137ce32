//! [`Leases`]: which replica works on which shards, and how replicas notify each other.
//!
//! A lease is a row: shard, owner, epoch, expiry by the clock of the database. Its owner renews it at a third
//! of its life. Any replica may take an expired lease, and its epoch rises with that. In the database, taking
//! a lease and a write under the old epoch exclude each other.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, QueueId, ReplicaId, RepositoryId, SubscriptionId},
    kind::ReplicaRole,
};
use ulid::Ulid;

use super::StoreError;
use crate::time::Timestamp;

/// The number of shards. Stored rows depend on it, so it never changes.
pub const SHARDS: usize = 256;

/// One of the [`SHARDS`] parts of all repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Shard(u8);

impl Shard {
    /// The first shard; its holder also does the work that only one replica should do.
    pub const FIRST: Self = Self(0);

    /// All shards, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The shard of this number.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The number of the shard, 0 to 255.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The shard of a repository: the last eight bits of its id, which are random.
    #[must_use]
    pub fn of(repository: &RepositoryId) -> Self {
        Self::of_id(repository.as_str())
    }

    /// The shard in which the subscriptions of an app are worked on.
    #[must_use]
    pub fn of_app(app: &AppId) -> Self {
        Self::of_id(app.as_str())
    }

    fn of_id(id: &str) -> Self {
        let end = id.as_bytes().iter().rev().take(2);
        let bits = end.enumerate().map(|(place, letter)| digit(*letter) << (5 * place)).sum::<u16>();
        Self(bits.to_le_bytes()[0])
    }
}

/// The value of a character of a ULID (Crockford's base32).
fn digit(letter: u8) -> u16 {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    LETTERS.iter().zip(0..).find(|(known, _)| **known == letter).map_or(0, |(_, digit)| digit)
}

/// The condition of a write: the lease of this shard has this epoch and this owner. The epoch alone would be
/// enough if no database ever lost a commit: a standby that takes over without the last claims gives their
/// epochs a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The shard whose lease is checked.
    pub shard: Shard,
    /// The epoch that the lease must have.
    pub epoch: i64,
    /// The replica that must hold the lease, by the ULID of its id.
    pub owner: Ulid,
}

/// Which shards a question to the store is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All 256 shards of the installation.
    All,
    /// Only the shards of this list.
    These(Vec<Shard>),
}

impl Reach {
    /// Whether the repository belongs to one of the shards.
    #[must_use]
    pub fn covers(&self, repository: &RepositoryId) -> bool {
        match self {
            Self::All => true,
            Self::These(shards) => shards.contains(&Shard::of(repository)),
        }
    }
}

/// A replica as its row describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Id of this process; a restart gets a new id.
    pub id: ReplicaId,
    /// Host name and process id, for people.
    pub name: String,
    /// The version of Tidings that the process runs.
    pub version: String,
    /// Whether the process answers API requests, works on repositories, or both.
    pub role: ReplicaRole,
    /// Whether the process takes shards: as its role says, until it is told to stop.
    pub works: bool,
    /// The web address at which other replicas reach the process; `None`: they cannot.
    pub address: Option<String>,
    /// When the process started.
    pub started_at: Timestamp,
}

/// A replica as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSeen {
    /// The row that the replica wrote about itself.
    pub replica: Replica,
    /// How many shards it holds.
    pub shards: usize,
    /// How long ago it said so, by the clock of the database.
    pub seen: Duration,
    /// The age of the oldest change that is not settled in the repositories it works on; zero: nothing is
    /// behind.
    pub lag: Duration,
}

/// The state of all leases after a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseStanding {
    /// The leases that this replica holds.
    pub held: Vec<Fence>,
    /// The number of replicas that are alive and take shards, including this one.
    pub workers: usize,
    /// The number of shards that no replica holds.
    pub free: usize,
    /// When the first lease of another replica ends, or its word that it lives, unless it is prolonged:
    /// then there may be more to take.
    pub free_in: Option<Duration>,
    /// The time by the clock of the database at the renewal.
    pub now: Option<Timestamp>,
}

/// A hint to other replicas that rows changed. A lost hint costs latency only.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Shards are free, or a replica came or went.
    Shards,
    /// Rows of this app changed.
    App(AppId),
    /// Watches of this repository changed.
    Repository(RepositoryId),
    /// This repository is to be polled soon.
    Poke(RepositoryId),
    /// A genuine hook named this repository; the moment is set if the hook reported a ref.
    Hooked(RepositoryId, Option<i64>),
    /// A genuine hook of this app named this repository.
    AppHooked(RepositoryId, AppId),
    /// The breaker with this key opened or closed, or a probe of it failed.
    Breaker(String),
    /// The breaker with this key is to be closed by hand.
    ResetBreaker(String),
    /// A redrive was asked for.
    Redrive,
    /// Entries were written to ledgers.
    Ledger,
    /// Statuses of commits were written that are to be told.
    Statuses,
    /// This subscription was changed or removed.
    Subscription(SubscriptionId),
    /// A replica wrote tasks that others may wait for.
    Tasks(TaskSignal),
    /// Keys of the keyring were handed on, seal from now on, or were retired.
    Keys,
    /// Sent by no replica: some notifications may have been lost.
    Missed,
}

/// What a replica did with tasks, for those at the other replicas who wait for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TaskSignal {
    /// Queues with tasks that may be claimed now and could not before, with their apps.
    pub ready: BTreeSet<(AppId, QueueId)>,
    /// Queues whose rate allows no claim now although tasks of them are ready, with their apps.
    pub rated: BTreeSet<(AppId, QueueId)>,
    /// Apps whose watches may hand over more changes.
    pub room: BTreeSet<AppId>,
    /// Whether tasks have ended, or were removed before their end.
    pub has_ended: bool,
    /// Whether any queue may have work, any app room, and any task may have ended: there is more than a
    /// signal can name.
    pub is_all: bool,
    /// The moment, in unix milliseconds, by which the clock of tasks must look; `None`: it need not.
    pub wake_at: Option<i64>,
}

/// The leases of replicas on shards, and notifications among replicas.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Records that this replica lives, renews its leases and returns the state of all leases. Takes no
    /// shard.
    async fn renew(&self, replica: &Replica, life: Duration) -> Result<LeaseStanding, StoreError>;
    /// Takes at most `most` shards that no replica holds, each with a new epoch; returns the shards that it
    /// got.
    async fn claim(&self, id: &ReplicaId, most: usize, life: Duration) -> Result<Vec<Fence>, StoreError>;
    /// Gives leases back. Leases that have passed to another replica are skipped.
    async fn release(&self, id: &ReplicaId, fences: &[Fence]) -> Result<(), StoreError>;
    /// This replica ends: its shards become free, and its row is removed.
    async fn leave(&self, id: &ReplicaId) -> Result<(), StoreError>;
    /// Every replica that is alive, or was within the last day.
    async fn replicas(&self) -> Result<Vec<ReplicaSeen>, StoreError>;
    /// The replica that holds a shard by a lease that has not ended.
    async fn owner(&self, shard: Shard) -> Result<Option<Replica>, StoreError>;
    /// Notifies the other replicas. The notification may be lost.
    async fn tell(&self, signal: &Signal) -> Result<(), StoreError>;
    /// Takes over keys of the keyring that other replicas handed on, seals with the key that all replicas
    /// have, drops retired keys, and records that in the row of this replica.
    async fn take_keys(&self) -> Result<(), StoreError>;
    /// Waits for the next signal of another replica. After trouble with the database some may be lost: then
    /// [`Signal::Missed`] is returned, and the caller must look at everything.
    async fn hear(&self) -> Signal;
}
