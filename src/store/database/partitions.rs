//! On PostgreSQL `attempt` has partitions, one per week of round numbers, which are moments: old attempts are
//! dropped as a whole partition, and reads touch few of them. Partitions are created ahead of time; a round
//! whose number is in no such week goes to the default partition.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult, TransactionTrait};
use tidings_actors::{ports::StoreError, time::Timestamp};
use tracing::warn;

use crate::database::{error::OfTable, rows};

/// A part's length, in milliseconds.
const WEEK: i64 = 7 * 24 * 3600 * 1000;
/// The number of partitions that are created before their week begins.
const AHEAD: i64 = 4;
/// How long creating or dropping a partition may wait for the lock on the table, in milliseconds: all other
/// statements wait behind it.
const PATIENCE_MS: u32 = 200;
/// The prefix of the names of partitions; the number of the week follows.
const PREFIX: &str = "attempt_week_";

/// Creates the partitions of this week and of the coming ones. A partition that cannot be created now is
/// created later: until then its rows go to the default partition.
pub(crate) async fn make_ahead(transaction: &DatabaseTransaction, now: Timestamp) {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return;
    }
    let this = week_of(now);
    make_all(transaction, this..=this + AHEAD).await;
}

/// Creates the partitions for the rows of another database, before those rows are written.
pub(crate) async fn make_like(
    transaction: &DatabaseTransaction,
    other: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<(), StoreError> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let end = (week_of(now) + AHEAD + 1) * WEEK;
    // Numbers that are no moment in the past stay in the default partition.
    let text = format!("select distinct round / {WEEK} from attempt where round >= 0 and round < {end}");
    let found = rows::mixed(other, "attempt", &text, vec![]).await?;
    let weeks = found.iter().map(|row| row.try_get_by_index::<i64>(0).of("attempt"));
    let weeks: BTreeSet<i64> = weeks.collect::<Result<_, _>>()?;
    make_all(transaction, weeks).await;
    Ok(())
}

fn week_of(now: Timestamp) -> i64 {
    now.0.max(0) / WEEK
}

async fn make_all(transaction: &DatabaseTransaction, weeks: impl IntoIterator<Item = i64, IntoIter: Send>) {
    for week in weeks {
        if let Err(error) = make(transaction, week).await {
            warn!(%error, "the partition of attempts for the week {week} was not created; it is tried again");
            return;
        }
    }
}

async fn make(transaction: &DatabaseTransaction, week: i64) -> Result<(), StoreError> {
    let savepoint = transaction.begin().await.of("attempt")?;
    let made = make_within(&savepoint, week).await;
    end(savepoint, made).await
}

async fn make_within(savepoint: &DatabaseTransaction, week: i64) -> Result<(), StoreError> {
    let (from, to) = (week * WEEK, (week + 1) * WEEK);
    // Rows of that week in the default partition would have to move, so the week stays there.
    let text = format!(
        "select count(*) where to_regclass('{PREFIX}{week}') is not null
         or exists (select 1 from attempt_rest where round >= {from} and round < {to})"
    );
    if rows::number(savepoint, "attempt", &text, vec![]).await? > 0 {
        return Ok(());
    }
    let text = format!("create table {PREFIX}{week} partition of attempt for values from ({from}) to ({to})");
    reshape(savepoint, &text).await
}

/// Creates or drops a partition, unless the table is locked for long (by `pg_dump`): all other statements
/// would wait behind this one.
async fn reshape(savepoint: &DatabaseTransaction, text: &str) -> Result<(), StoreError> {
    let text = format!("set local lock_timeout = '{PATIENCE_MS}ms'; {text}; set local lock_timeout = '5s'");
    savepoint.execute_unprepared(&text).await.of("attempt").map(drop)
}

/// Keeps the work of a savepoint, or rolls back only that work.
async fn end(savepoint: DatabaseTransaction, done: Result<(), StoreError>) -> Result<(), StoreError> {
    if done.is_ok() { savepoint.commit().await } else { savepoint.rollback().await }.of("attempt")?;
    done
}

#[derive(FromQueryResult)]
struct Part {
    name: String,
}

/// Drops the partitions of past weeks that are empty and not in use.
pub(crate) async fn drop_empty(transaction: &DatabaseTransaction, now: Timestamp) -> Result<(), StoreError> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let text =
        "select cast(c.relname as text) as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
                where i.inhparent = 'attempt'::regclass order by c.relname";
    let parts: Vec<Part> = rows::all(transaction, "attempt", text, vec![]).await?;
    let this = now.0 / WEEK;
    for Part { name } in parts {
        let week = name.strip_prefix(PREFIX).and_then(|week| week.parse::<i64>().ok());
        if week.is_none_or(|week| week >= this) {
            continue;
        }
        let savepoint = transaction.begin().await.of("attempt")?;
        let dropped = drop_within(&savepoint, &name).await;
        if let Err(error) = end(savepoint, dropped).await {
            warn!(%error, "the partition {name} was not dropped; it is tried again");
            return Ok(());
        }
    }
    Ok(())
}

async fn drop_within(savepoint: &DatabaseTransaction, name: &str) -> Result<(), StoreError> {
    let text = format!("select count(*) from (select 1 from {name} limit 1) found");
    if rows::number(savepoint, "attempt", &text, vec![]).await? > 0 {
        return Ok(());
    }
    reshape(savepoint, &format!("drop table {name}")).await
}
