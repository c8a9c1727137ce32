//! Leases of replicas on PostgreSQL: a row for each shard, a row for each replica, and notifications to the
//! other replicas. SQLite has one process and none of this.
//!
//! These calls do not wait in the line of the writer: a long turn must not cost a lease. They have their own
//! connections, made again after a failure, and every call has a deadline. Only a claim takes the lock of
//! writers (so that no fenced write runs beside it); a renewal changes only the end of held leases. All
//! moments of leases are those of the database's clock.
//!
//! Behind a pooler a replica cannot listen: it reads all rows from time to time instead.

pub(crate) mod fences;
pub(crate) mod notifications;
pub(crate) mod reach;

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, FromQueryResult, QueryResult};
use tidings_actors::{
    ports::{Fence, LeaseStanding, Leases, Replica, ReplicaSeen, Shard, Signal, StoreError},
    time::Timestamp,
};
use tidings_entity::{id::ReplicaId, replica};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    SqlStore,
    database::{error::OfTable, rows},
};
use crate::{
    database::{
        address::{Address, Server},
        connect::{self, Connection, Listener, Share},
    },
    keys::key_shares,
    leases::notifications::{CHANNEL, NOW, notify, understood},
    upkeep::backlog::BEHIND,
};

/// The servers that count as alive, for people. A killed server is listed until its time is over.
pub(super) async fn living(connection: &impl ConnectionTrait) -> Result<Vec<String>, StoreError> {
    let text = format!(
        "select name, seen_at + life_ms - {NOW} from replica where seen_at + life_ms > {NOW} order by name"
    );
    let shown = |row: &QueryResult| -> Result<String, DbErr> {
        let (name, left): (String, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        Ok(format!("{name} (its entry expires in {} s)", left / 1000 + 1))
    };
    let found = rows::mixed(connection, "replica", &text, vec![]).await?;
    found.iter().map(|row| shown(row).of("replica")).collect()
}

/// The deadline of calls that do not depend on the life of a lease.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The wait before another try to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How often a replica looks at all rows where notifications cannot be received.
const LOOK: Duration = Duration::from_secs(10);
/// How long a replica must be unseen before its row is removed, in milliseconds.
const FORGOTTEN: i64 = 24 * 3600 * 1000;

/// Leases as one replica sees them.
pub struct SqlLeases {
    store: SqlStore,
    server: Box<Server>,
    address: Address,
    id: ReplicaId,
    /// `None` after a failure: the next call connects again.
    connection: Mutex<Option<Connection>>,
    ear: tokio::sync::Mutex<Hearing>,
}

/// Whether this replica listens for notifications of the others.
enum Hearing {
    /// Listening was never tried.
    Never,
    /// Listening was interrupted: notifications since then may be lost.
    Deaf,
    /// This connection listens for notifications.
    With(Listener),
}

#[derive(FromQueryResult)]
struct LeaseRow {
    shard: String,
    epoch: i64,
}

#[derive(FromQueryResult)]
struct Said {
    now: i64,
}

#[derive(FromQueryResult)]
struct Others {
    workers: i64,
    free: i64,
    free_in: Option<i64>,
    now: i64,
}

#[derive(FromQueryResult)]
struct Seen {
    #[sea_orm(nested)]
    replica: replica::Model,
    shards: i64,
    ago: i64,
    lag: Option<i64>,
}

impl SqlStore {
    /// The leases for the replica with this id, which this process is from then on; `None`: the database
    /// belongs to one process.
    #[must_use]
    pub fn leases(&self, id: &ReplicaId) -> Option<SqlLeases> {
        let Address::Server(server) = &self.address else { return None };
        let _another = self.mine.set(id.clone());
        Some(SqlLeases {
            store: self.clone(),
            server: server.clone(),
            address: self.address.clone(),
            id: id.clone(),
            connection: Mutex::new(None),
            ear: tokio::sync::Mutex::new(Hearing::Never),
        })
    }
}

impl SqlLeases {
    /// The time by the clock of the database.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let verb = async {
            let connection = self.connection().await?;
            let said: Option<Said> =
                rows::one(&connection, "lease", &format!("select {NOW} as now"), vec![]).await?;
            said.map(|said| Timestamp(said.now)).ok_or(StoreError::NotFound)
        };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.connection.lock().clone() {
            return Ok(connection);
        }
        let made = connect::beside(&self.address).await;
        let made = made.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        *self.connection.lock() = Some(made.clone());
        Ok(made)
    }

    async fn begin(&self, share: Share) -> Result<DatabaseTransaction, StoreError> {
        self.connection().await?.begin(share).await.of("lease")
    }

    /// Runs a call with a deadline. After a failure the next call gets a new connection.
    async fn in_time<T>(
        &self,
        most: Duration,
        verb: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Unavailable(format!("the database did not answer within {most:?}")));
        let outcome = timeout(most, verb).await.unwrap_or_else(late);
        if matches!(outcome, Err(StoreError::Unavailable(_))) {
            *self.connection.lock() = None;
        }
        outcome
    }

    async fn listen(&self) -> Option<Listener> {
        let listening = timeout(ANSWER_MAX, Listener::open(&self.server, CHANNEL)).await;
        match listening {
            Ok(Ok(ear)) => Some(ear),
            Ok(Err(reason)) => {
                debug!("notifications cannot be listened to: {reason}");
                None
            }
            Err(_) => None,
        }
    }
}

fn milliseconds(life: Duration) -> i64 {
    i64::try_from(life.as_millis()).unwrap_or(i64::MAX)
}

fn of(owner: &ReplicaId, held: Vec<LeaseRow>) -> Vec<Fence> {
    let owner = owner.ulid();
    let fence = |held: LeaseRow| Some(Fence { shard: fences::shard(&held.shard)?, epoch: held.epoch, owner });
    held.into_iter().filter_map(fence).collect()
}

#[async_trait]
impl Leases for SqlLeases {
    async fn renew(&self, replica: &Replica, life: Duration) -> Result<LeaseStanding, StoreError> {
        let verb = async {
            let transaction = self.begin(Share::Aside).await?;
            let keyring = &self.store.context.keyring;
            if let Some(key) = key_shares::lacking(&transaction, keyring).await? {
                // A replica that cannot open every value gets no lease, so that other replicas do the work.
                self.store.follow_keys().await?;
                debug!("the key {key} was taken before leases were prolonged");
            }
            let text = format!(
                "insert into replica (id, name, version, works, started_at, seen_at, life_ms, role, address)
                 values ($1, $2, $3, $4, $5, {NOW}, $6, $7, $8)
                 on conflict (id) do update set seen_at = excluded.seen_at, life_ms = excluded.life_ms,
                 works = excluded.works"
            );
            let values = vec![
                replica.id.clone().into(),
                replica.name.clone().into(),
                replica.version.clone().into(),
                replica.works.into(),
                replica.started_at.0.into(),
                milliseconds(life).into(),
                replica.role.into(),
                replica.address.clone().into(),
            ];
            rows::execute(&transaction, "replica", &text, values).await?;
            let text = "update replica set keys = $2 where id = $1";
            let values = vec![replica.id.clone().into(), key_shares::said(keyring).into()];
            rows::execute(&transaction, "replica", text, values).await?;
            // All transactions lock rows in the same order.
            let text = format!(
                "update lease set expires_at = {NOW} + $2 where shard in
                   (select shard from lease where owner = $1 order by shard for update)
                 and owner = $1 returning shard, epoch"
            );
            let values = vec![replica.id.clone().into(), milliseconds(life).into()];
            let held: Vec<LeaseRow> = rows::all(&transaction, "lease", &text, values).await?;
            let text = format!(
                "select (select count(*) from replica where works and seen_at + life_ms > {NOW}) as workers,
                   count(*) filter (where owner is null or expires_at <= {NOW}) as free,
                   least(min(expires_at) filter (where owner <> $1 and expires_at > {NOW}),
                     (select min(seen_at + life_ms) from replica
                      where works and id <> $1 and seen_at + life_ms > {NOW})) - {NOW} as free_in,
                   {NOW} as now
                 from lease where shard <> '{}'",
                fences::ALL
            );
            let others: Option<Others> =
                rows::one(&transaction, "lease", &text, vec![replica.id.clone().into()]).await?;
            transaction.commit().await.of("lease")?;
            let others = others.ok_or(StoreError::NotFound)?;
            let count = |number: i64| usize::try_from(number).unwrap_or(0);
            Ok(LeaseStanding {
                held: of(&replica.id, held),
                workers: count(others.workers),
                free: count(others.free),
                free_in: others.free_in.map(|wait| Duration::from_millis(wait.max(0).unsigned_abs())),
                now: Some(Timestamp(others.now)),
            })
        };
        self.in_time(life / 3, verb).await
    }

    async fn claim(&self, id: &ReplicaId, most: usize, life: Duration) -> Result<Vec<Fence>, StoreError> {
        let verb = async {
            let transaction = self.begin(Share::Alone).await?;
            let text = format!(
                "update lease set owner = $1, epoch = epoch + 1, taken_at = {NOW}, expires_at = {NOW} + $2
                 where shard in (select shard from lease
                   where shard <> '{}' and (owner is null or expires_at <= {NOW})
                   order by shard limit $3 for update skip locked)
                 returning shard, epoch",
                fences::ALL
            );
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let values = vec![id.clone().into(), milliseconds(life).into(), most.into()];
            let claimed: Vec<LeaseRow> = rows::all(&transaction, "lease", &text, values).await?;
            transaction.commit().await.of("lease")?;
            Ok(of(id, claimed))
        };
        self.in_time(life / 3, verb).await
    }

    async fn release(&self, id: &ReplicaId, fences: &[Fence]) -> Result<(), StoreError> {
        if fences.is_empty() {
            return Ok(());
        }
        let verb = async {
            let transaction = self.begin(Share::Aside).await?;
            let row = |fence: &Fence| vec![fences::name(fence.shard).into(), fence.epoch.into()];
            let given: Vec<_> = fences.iter().map(row).collect();
            let (list, values) = rows::list(&transaction, &["text", "bigint"], &given);
            let mine = values.len() + 1;
            let text = format!(
                "with v(shard, epoch) as ({list}) update lease set owner = null where shard in
                   (select l.shard from lease l join v on v.shard = l.shard and v.epoch = l.epoch
                    where l.owner = ${mine} order by l.shard for update of l)"
            );
            let values = values.into_iter().chain([id.clone().into()]).collect();
            rows::execute(&transaction, "lease", &text, values).await?;
            transaction.commit().await.of("lease")
        };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn leave(&self, id: &ReplicaId) -> Result<(), StoreError> {
        let verb = async {
            let transaction = self.begin(Share::Aside).await?;
            let text = "update lease set owner = null where shard in
                          (select shard from lease where owner = $1 order by shard for update)";
            rows::execute(&transaction, "lease", text, vec![id.clone().into()]).await?;
            let text = format!("delete from replica where id = $1 or seen_at < {NOW} - $2");
            rows::execute(&transaction, "replica", &text, vec![id.clone().into(), FORGOTTEN.into()]).await?;
            transaction.commit().await.of("lease")
        };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaSeen>, StoreError> {
        let verb = async {
            let connection = self.connection().await?;
            let text = format!(
                "with late as (select {} as shard, min(c.behind_since) as since {} group by 1),
                 held as (select l.owner, count(*) as shards, min(late.since) as since
                   from lease l left join late on cast(late.shard as text) = l.shard
                   where l.expires_at > {NOW} group by l.owner)
                 select r.*, {NOW} - r.seen_at as ago, coalesce(held.shards, 0) as shards,
                   {NOW} - held.since as lag
                 from replica r left join held on held.owner = r.id
                 where r.seen_at >= {NOW} - $1 order by r.id",
                reach::number(&connection, "w.repository_id"),
                *BEHIND
            );
            let seen: Vec<Seen> =
                rows::readable(&connection, "replica", &text, vec![FORGOTTEN.into()]).await?;
            Ok(seen.into_iter().map(shown).collect())
        };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn owner(&self, shard: Shard) -> Result<Option<Replica>, StoreError> {
        let verb = async {
            let connection = self.connection().await?;
            let text = format!(
                "select r.* from lease l join replica r on r.id = l.owner
                 where l.shard = $1 and l.expires_at > {NOW}"
            );
            let values = vec![fences::name(shard).into()];
            let found: Option<replica::Model> = rows::one(&connection, "replica", &text, values).await?;
            Ok(found.map(described))
        };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn tell(&self, signal: &Signal) -> Result<(), StoreError> {
        let verb = async { notify(&self.connection().await?, &self.id, signal.clone()).await };
        self.in_time(ANSWER_MAX, verb).await
    }

    async fn take_keys(&self) -> Result<(), StoreError> {
        self.store.follow_keys().await
    }

    async fn hear(&self) -> Signal {
        if self.server.is_pooled {
            sleep(LOOK).await;
            return Signal::Missed;
        }
        let mut ear = self.ear.lock().await;
        loop {
            if let Hearing::With(open) = &mut *ear {
                match open.hear().await {
                    Some(text) => match understood(&text, &self.id) {
                        Some(signal) => return signal,
                        None => continue,
                    },
                    None => *ear = Hearing::Deaf,
                }
            }
            let was_deaf = matches!(*ear, Hearing::Deaf);
            match self.listen().await {
                Some(open) => *ear = Hearing::With(open),
                None => {
                    sleep(LISTEN_AGAIN).await;
                    *ear = Hearing::Deaf;
                    continue;
                }
            }
            if was_deaf {
                return Signal::Missed;
            }
        }
    }
}

fn shown(seen: Seen) -> ReplicaSeen {
    let Seen { replica, shards, ago, lag } = seen;
    let span = |milliseconds: i64| Duration::from_millis(milliseconds.max(0).unsigned_abs());
    ReplicaSeen {
        replica: described(replica),
        shards: usize::try_from(shards).unwrap_or(0),
        seen: span(ago),
        lag: lag.map_or(Duration::ZERO, span),
    }
}

fn described(row: replica::Model) -> Replica {
    Replica {
        id: row.id,
        name: row.name,
        version: row.version,
        role: row.role,
        works: row.works,
        address: row.address,
        started_at: Timestamp(row.started_at),
    }
}
