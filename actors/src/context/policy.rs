//! The numbers that decisions need, as set in the settings. They are data only: nothing here knows an actor,
//! so every actor and every pure decision can read them.

use std::time::Duration;

use tidings_entity::{
    id::ReplicaId,
    kind::{ReplicaRole, RetryPolicy},
};

use crate::{model::queue_name::QueueName, ports::Replica, time::Timestamp};

/// Numbers from the settings that decisions need.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The shortest interval between two polls of a source.
    pub poll_min: Duration,
    /// The longest interval between two polls of a source that nothing happens in.
    pub poll_max: Duration,
    /// Longest poll interval while genuine hooks of the repository arrive.
    pub poll_max_hooked: Duration,
    /// How long a branch must be missing, over two listings, before it counts as gone.
    pub branch_gone_after: Duration,
    /// The longest wait of a new watch for its first delivery.
    pub first_delay: Duration,
    /// Most commits an `every` watch walks back.
    pub every_max: u32,
    /// Most quick scans at the same time; slow scans have as many places of their own.
    pub scan_workers: usize,
    /// One deadline over connect, headers and body of an attempt.
    pub attempt_timeout: Duration,
    /// The growth of waits for apps that set none.
    pub retry_policy: RetryPolicy,
    /// The wait after the first failed attempt of a delivery.
    pub retry_base: Duration,
    /// The longest wait between two attempts of a delivery.
    pub retry_cap: Duration,
    /// How long endpoint failures are retried before the cursor is blocked.
    pub retry_window: Duration,
    /// Attempts of one app at the same time, at most.
    pub app_in_flight: usize,
    /// Requests to one app in a second, at most; `None`: only the app's own limit.
    pub app_rate: Option<u32>,
    /// Lanes of one app in memory at the same time.
    pub app_lanes: usize,
    /// Attempts of all apps at the same time, at most.
    pub in_flight: usize,
    /// Reads and renderings for deliveries at the same time.
    pub readers: usize,
    /// A round that deletes more than this share of the held files pauses its watch.
    pub max_delete_percent: Option<u8>,
    /// When the breaker of an endpoint opens, and how long it waits for a probe.
    pub endpoint_breaker: BreakerPolicy,
    /// The numbers of the breaker of a source.
    pub source_breaker: BreakerPolicy,
    /// Whether acknowledged attempts are rows as well as failed ones.
    pub record_all: bool,
    /// The age at which history is removed.
    pub history: Duration,
    /// Rows of history that an app has at most: ended rounds, their settled ranges and attempts.
    pub history_rows: u64,
    /// Age at which unused blob rows go.
    pub blob_age: Duration,
    /// After a mail of a subscription, the wait before its next mail.
    pub mail_interval: Duration,
    /// Age at which entries of ledgers go.
    pub ledger_age: Duration,
    /// Entries that the ledger of an app has at most.
    pub ledger_rows: u64,
    /// The wait between two rounds of upkeep.
    pub upkeep_interval: Duration,
    /// Rows removed in one transaction.
    pub upkeep_rows: u64,
    /// Most packs of a mirror, and most commits in it without parents.
    pub packs_max: u64,
    /// Most bytes of one mirror; 0: no limit.
    pub mirror_max_bytes: u64,
    /// Most bytes of all mirrors; 0: no limit.
    pub mirrors_max_bytes: u64,
    /// Whether other replicas keep their mirrors in the same directory: then each replica looks after the
    /// mirrors of the repositories that it works on.
    pub mirrors_shared: bool,
    /// The span in which every file of a mirror is checked once.
    pub scrub_every: Duration,
    /// The wait between two looks at how everything is.
    pub survey_interval: Duration,
    /// The queues whose tasks are measured apart.
    pub queues: Vec<QueueName>,
    /// The id and role of this process among the replicas.
    pub replica: Replica,
    /// How long a lease lives that is not prolonged.
    pub lease_life: Duration,
    /// The longest time that work under a lease may take to end before the lease is given away.
    pub leaving_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            poll_min: Duration::from_secs(45),
            poll_max: Duration::from_secs(300),
            poll_max_hooked: Duration::from_secs(3_600),
            branch_gone_after: Duration::from_secs(60),
            first_delay: Duration::from_secs(1),
            every_max: 1_000,
            scan_workers: 64,
            attempt_timeout: Duration::from_secs(30),
            retry_policy: RetryPolicy::ExpFullJitter,
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(3_600),
            retry_window: Duration::from_secs(72 * 3_600),
            app_in_flight: 32,
            app_rate: None,
            app_lanes: 256,
            in_flight: 1_024,
            readers: 4,
            max_delete_percent: None,
            endpoint_breaker: BreakerPolicy {
                threshold: 5,
                first_wait: Duration::from_secs(5),
                last_wait: Duration::from_secs(60),
            },
            source_breaker: BreakerPolicy {
                threshold: 5,
                first_wait: Duration::from_secs(30),
                last_wait: Duration::from_secs(1_800),
            },
            record_all: false,
            history: Duration::from_secs(30 * 86_400),
            history_rows: 1_000_000,
            blob_age: Duration::from_secs(90 * 86_400),
            mail_interval: Duration::from_mins(10),
            ledger_age: Duration::from_secs(90 * 86_400),
            ledger_rows: 1_000_000,
            upkeep_interval: Duration::from_secs(3_600),
            upkeep_rows: 1_000,
            packs_max: 50,
            mirror_max_bytes: 16 << 30,
            mirrors_max_bytes: 0,
            mirrors_shared: false,
            scrub_every: Duration::from_secs(30 * 86_400),
            survey_interval: Duration::from_secs(15),
            queues: Vec::new(),
            replica: Replica {
                id: ReplicaId::new(ulid::Ulid::nil()),
                name: String::new(),
                version: String::new(),
                role: ReplicaRole::All,
                works: true,
                address: None,
                started_at: Timestamp(0),
            },
            lease_life: Duration::from_secs(15),
            leaving_max: Duration::from_secs(20),
        }
    }
}

/// When a breaker opens and how often it probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row at which it opens.
    pub threshold: u32,
    /// The wait before the first probe.
    pub first_wait: Duration,
    /// The longest wait between probes.
    pub last_wait: Duration,
}

impl BreakerPolicy {
    /// The wait before the next probe after this many failures in a row.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(self.threshold).min(20);
        self.first_wait.saturating_mul(2_u32.pow(doublings)).min(self.last_wait)
    }
}
