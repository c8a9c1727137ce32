//! [`Leases`]: who of several replicas works on what, and how they wake each other.
//!
//! A lease is a row: shard, owner, epoch, expiry by the clock of the database. It is renewed at a
//! third of its life; one that expired may be taken by anybody, and its epoch rises with that. The
//! taking and every write under the old epoch exclude each other in the database.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, ReplicaId, RepositoryId, SubscriptionId},
    kind::ReplicaRole,
};
use ulid::Ulid;

use super::StoreError;
use crate::time::Timestamp;

/// How many shards there are. It is part of what rows mean and never changes.
pub const SHARDS: usize = 256;

/// One part of all repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Shard(u8);

impl Shard {
    /// The first; its holder also does what only one replica should do.
    pub const FIRST: Self = Self(0);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// With this number.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
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

/// What a letter of a ULID stands for (Crockford's base32).
fn digit(letter: u8) -> u16 {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    LETTERS.iter().zip(0..).find(|(known, _)| **known == letter).map_or(0, |(_, digit)| digit)
}

/// Under what a write may change something: this shard's lease has this epoch and this owner. The epoch alone
/// would do, if no database ever lost what it had committed: a standby that takes over without the last
/// claims gives their epochs once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The shard.
    pub shard: Shard,
    /// The epoch of its lease.
    pub epoch: i64,
    /// Which replica holds it: what its id was made of.
    pub owner: Ulid,
}

/// Which shards a question to the store is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// These.
    These(Vec<Shard>),
}

impl Reach {
    /// Whether a repository is among them.
    #[must_use]
    pub fn covers(&self, repository: &RepositoryId) -> bool {
        match self {
            Self::All => true,
            Self::These(shards) => shards.contains(&Shard::of(repository)),
        }
    }
}

/// What a replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Of this process; a restart makes another.
    pub id: ReplicaId,
    /// Host and process, for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is there for.
    pub role: ReplicaRole,
    /// Whether it takes shards: as its role says, until it is told to stop.
    pub works: bool,
    /// Where the others reach it, as a web address; `None`: nowhere.
    pub address: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
}

/// A replica as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSeen {
    /// What it says of itself.
    pub replica: Replica,
    /// How many shards it holds.
    pub shards: usize,
    /// How long ago it said so, by the clock of the database.
    pub seen: Duration,
    /// The age of the oldest change that is not settled in the repositories it works on; zero: nothing is
    /// behind.
    pub lag: Duration,
}

/// How everything stands after a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseStanding {
    /// What this replica holds.
    pub held: Vec<Fence>,
    /// Replicas that live and take shards, this one among them.
    pub workers: usize,
    /// Shards that nobody holds.
    pub free: usize,
    /// When the first lease of another replica ends, or its word that it lives, unless it is prolonged:
    /// then there may be more to take.
    pub free_in: Option<Duration>,
    /// What the clock of the database said.
    pub now: Option<Timestamp>,
}

/// A hint to other replicas that rows changed. Losing one costs latency only.
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
    /// A genuine hook named this repository, and told of a ref where the moment is given.
    Hooked(RepositoryId, Option<i64>),
    /// The breaker with this key opened or closed, or a probe of it failed.
    Breaker(String),
    /// The breaker with this key is to be closed by hand.
    ResetBreaker(String),
    /// A redrive was asked for.
    Redrive,
    /// Entries were written to ledgers.
    Ledger,
    /// This subscription was changed or removed.
    Subscription(SubscriptionId),
    /// Keys of the keyring were handed on, seal from now on, or were retired.
    Keys,
    /// Nobody tells this: some of what was told may have been missed.
    Missed,
}

/// Who works on what, and wake-ups.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Says that this replica lives, prolongs what it holds, and tells how everything stands. Never
    /// takes anything.
    async fn renew(&self, replica: &Replica, life: Duration) -> Result<LeaseStanding, StoreError>;
    /// Takes at most so many shards that nobody holds, each with a new epoch; which it got.
    async fn claim(&self, id: &ReplicaId, most: usize, life: Duration) -> Result<Vec<Fence>, StoreError>;
    /// Gives leases back; those that do not stand any more are left alone.
    async fn release(&self, id: &ReplicaId, fences: &[Fence]) -> Result<(), StoreError>;
    /// This replica ends: what it holds is free, and it is forgotten.
    async fn leave(&self, id: &ReplicaId) -> Result<(), StoreError>;
    /// Every replica that lives, or did within the last day.
    async fn replicas(&self) -> Result<Vec<ReplicaSeen>, StoreError>;
    /// The replica that holds a shard by a lease that has not ended.
    async fn owner(&self, shard: Shard) -> Result<Option<Replica>, StoreError>;
    /// Tells the other replicas. May be lost.
    async fn tell(&self, signal: &Signal) -> Result<(), StoreError>;
    /// Takes keys of the keyring that other replicas handed on, seals with the one that all have, drops what
    /// was retired, and says so.
    async fn take_keys(&self) -> Result<(), StoreError>;
    /// Waits for the next signal of another replica. After trouble with the database some may be missing:
    /// then it says [`Signal::Missed`], and whoever hears that looks at everything.
    async fn hear(&self) -> Signal;
}
