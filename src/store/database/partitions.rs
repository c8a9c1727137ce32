//! On PostgreSQL `attempt` lies in parts, one a week of round numbers, which are moments: what is old goes
//! as a whole part, and what is read lies in few of them. Parts are made ahead; a round whose number is of
//! no such week lies in the part for the rest.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult, TransactionTrait};
use tidings_actors::{ports::StoreError, time::Timestamp};
use tracing::warn;

use crate::{error::OfTable, rows};

/// A part's length, in milliseconds.
const WEEK: i64 = 7 * 24 * 3600 * 1000;
/// Parts that are there before their week begins.
const AHEAD: i64 = 4;
/// How long a part may wait for whoever is at the table, in milliseconds: everybody waits behind it.
const PATIENCE_MS: u32 = 200;
/// What the names of parts begin with; then comes the number of the week.
const PREFIX: &str = "attempt_week_";

/// Makes the parts of this week and of those to come. One that cannot be made now is made later: until
/// then its rows lie in the rest.
pub(crate) async fn make_ahead(transaction: &DatabaseTransaction, now: Timestamp) {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return;
    }
    let this = week_of(now);
    make_all(transaction, this..=this + AHEAD).await;
}

/// Makes the parts for what another database holds, before its rows come.
pub(crate) async fn make_like(
    transaction: &DatabaseTransaction,
    other: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<(), StoreError> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let end = (week_of(now) + AHEAD + 1) * WEEK;
    // Numbers that are no moment of before lie in the rest, as everywhere.
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
            warn!(%error, "the part of attempts for the week {week} was not made; it is tried again");
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
    // Rows that lie in the rest already would have to move: their week stays there.
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

/// Makes or drops a part, unless somebody is at the table for long (a `pg_dump`): everybody would wait
/// behind us.
async fn reshape(savepoint: &DatabaseTransaction, text: &str) -> Result<(), StoreError> {
    let text = format!("set local lock_timeout = '{PATIENCE_MS}ms'; {text}; set local lock_timeout = '5s'");
    savepoint.execute_unprepared(&text).await.of("attempt").map(drop)
}

/// Keeps what was done, or takes it back alone.
async fn end(savepoint: DatabaseTransaction, done: Result<(), StoreError>) -> Result<(), StoreError> {
    if done.is_ok() { savepoint.commit().await } else { savepoint.rollback().await }.of("attempt")?;
    done
}

#[derive(FromQueryResult)]
struct Part {
    name: String,
}

/// Drops the parts of weeks that are past, as far as they are empty and nobody is at them.
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
            warn!(%error, "the part {name} was not dropped; it is tried again");
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
