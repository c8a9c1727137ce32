//! Copies all rows of one database into another one, SQLite or PostgreSQL, for an installation that moves
//! (`tidings migrate copy`).
//!
//! The source is read in one transaction that blocks all writers. The target first gets its schema and a mark
//! (`schema::mark_unfinished`), then all rows in one transaction. Then both are read again, the target over
//! another connection, and compared by counts and digests; the mark is removed only if all are equal. If the
//! copy is cut off anywhere, every start refuses the target, and the next copy begins again.
//!
//! Rows are copied unchanged, also sealed values: the keyring opens them in the target. Leases and replicas
//! belong to processes and are not copied. The epoch that fences off all processes rises above every epoch
//! seen in either database: a process that was stopped long ago, with a connection to a database that was
//! filled again meanwhile, does not find its own epoch. In the source it rises too, at the end and in the
//! transaction that blocked writers: a process that is still alive there writes nothing after the copy.

mod reading;
pub(crate) mod tables;
mod writing;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr};
use sea_orm_migration::MigratorTrait;
use serde::Serialize;
use thiserror::Error;
use tidings_actors::{ports::StoreError, time::Timestamp};
use tidings_migration::Migrator;

use super::{
    address::Address,
    connect::{self, Connection, Share},
    partitions, schema,
};
use crate::{
    OpenError,
    database::{
        error::{code, of_start},
        rows,
    },
    leases::{self, fences::ALL},
};
pub use reading::Digest;
use tables::Table;

/// Called with each step and the number of rows done so far.
pub type Tell<'a> = &'a (dyn Fn(&'static str, u64) + Sync);

/// The comparison of one table after the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The name of the table.
    pub table: &'static str,
    /// Count and digest of the rows in the source.
    pub source: Digest,
    /// Count and digest of the rows in the target.
    pub target: Digest,
}

impl Compared {
    /// Whether both hold the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.source == self.target
    }
}

/// Why a database was not copied. The target is as it was, or no start uses it.
#[derive(Debug, Error)]
pub enum TransferError {
    /// Both addresses name one database.
    #[error("the source and the target are the same database")]
    Same,
    /// The source cannot be used.
    #[error("the source: {0}")]
    Source(#[source] OpenError),
    /// The target cannot be used.
    #[error("the target: {0}")]
    Target(#[source] OpenError),
    /// The source is of an older version.
    #[error("the source lacks {0} steps of the schema: run `tidings migrate up` on it first")]
    OlderSource(usize),
    /// The source has faults.
    #[error("the source is damaged: {0}")]
    Damaged(String),
    /// Servers use the source database.
    #[error("the source is in use by {0}")]
    InUse(String),
    /// The target is not empty.
    #[error("the target holds rows already (in {0}); nothing was changed there")]
    NotEmpty(&'static str),
    /// Something in the source cannot be copied.
    #[error("{table} cannot be copied: {reason}")]
    Unfit {
        /// The table that holds it.
        table: &'static str,
        /// The row and its fault, in words.
        reason: String,
    },
    /// The target differs from the source.
    #[error("the target differs from the source in {}; no start uses it", differing(.0))]
    Differs(Vec<Compared>),
}

fn differing(compared: &[Compared]) -> String {
    let tables = compared.iter().filter(|table| !table.is_equal()).map(|table| table.table);
    tables.collect::<Vec<_>>().join(", ")
}

/// Copies the database at `from` into the empty one at `to`, and compares them.
///
/// # Errors
/// See [`TransferError`]. The same call may be repeated.
pub async fn transfer(
    from: &str,
    to: &str,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<Vec<Compared>, TransferError> {
    let from = Address::parse(from).map_err(TransferError::Source)?;
    let to = Address::parse(to).map_err(TransferError::Target)?;
    if is_same(&from, &to) {
        return Err(TransferError::Same);
    }
    if !from.may_exist() {
        let missing = OpenError::Address(format!("{from} does not exist"));
        return Err(TransferError::Source(missing));
    }
    let source = connect::writer(&from).await.map_err(TransferError::Source)?;
    let copied = from_source(&source, &to, now, tell).await;
    let closed = source.close().await;
    let compared = copied?;
    closed.map_err(|error| of_source(&error))?;
    Ok(compared)
}

fn is_same(from: &Address, to: &Address) -> bool {
    match (from.file(), to.file()) {
        (Some(from), Some(to)) => {
            from == to || from.canonicalize().is_ok_and(|from| to.canonicalize().is_ok_and(|to| from == to))
        }
        _ => from.to_string() == to.to_string(),
    }
}

async fn from_source(
    source: &Connection,
    to: &Address,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<Vec<Compared>, TransferError> {
    let steps = schema::taken(source).await.map_err(TransferError::Source)?;
    let missing = Migrator::migrations().len() - steps.len();
    if missing > 0 {
        return Err(TransferError::OlderSource(missing));
    }
    tell("checking the source", 0);
    let faults = schema::faults(source).await.map_err(TransferError::Source)?;
    if !faults.is_empty() {
        return Err(TransferError::Damaged(faults.join("; ")));
    }
    let held = source.hold().await.map_err(|error| busy(&error))?;
    refuse_replicas(&held).await?;
    let target = connect::writer(to).await.map_err(TransferError::Target)?;
    let copied = into_target(&held, &target, to, now, tell).await;
    let copied = match copied {
        Ok(compared) => end(held, &target).await.map(|()| compared),
        failed => failed,
    };
    let closed = target.close().await;
    let compared = copied?;
    closed.map_err(|error| of_target(&error))?;
    Ok(compared)
}

/// Refuses while replicas count as alive. A killed replica counts as alive until its time is over, and is
/// waited for.
async fn refuse_replicas(held: &DatabaseTransaction) -> Result<(), TransferError> {
    if held.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let named = leases::living(held).await.map_err(unread)?;
    if named.is_empty() { Ok(()) } else { Err(TransferError::InUse(named.join(", "))) }
}

async fn into_target(
    held: &DatabaseTransaction,
    target: &Connection,
    to: &Address,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<Vec<Compared>, TransferError> {
    begin(target).await?;
    let tables = fill(held, target, now, tell).await?;
    // Not over the connection that wrote.
    let fresh = connect::writer(to).await.map_err(TransferError::Target)?;
    let compared = compare(held, &fresh, &tables, tell).await;
    let closed = fresh.close().await;
    let compared = compared?;
    closed.map_err(|error| of_target(&error))?;
    if compared.iter().all(Compared::is_equal) { Ok(compared) } else { Err(TransferError::Differs(compared)) }
}

/// Creates the schema and the mark, both or neither; refuses a target with data that no copy wrote.
async fn begin(target: &Connection) -> Result<(), TransferError> {
    if target.get_database_backend() == DbBackend::Postgres {
        connect::refuse_unfit(target).await.map_err(TransferError::Target)?;
    }
    let transaction = target.begin(Share::Rebuilding).await.map_err(|error| of_target(&error))?;
    let was_begun = schema::mark_unfinished(&transaction).await.map_err(TransferError::Target)?;
    for table in tables::COPIED {
        let text = format!("select count(*) from (select 1 from {table} limit 1) found");
        if !was_begun && rows::number(&transaction, table, &text, vec![]).await.map_err(unwritten)? > 0 {
            return Err(TransferError::NotEmpty(table));
        }
    }
    transaction.commit().await.map_err(|error| of_target(&error))
}

/// Writes all rows, in one transaction.
async fn fill(
    held: &DatabaseTransaction,
    target: &Connection,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<Vec<Table>, TransferError> {
    let transaction = target.begin(Share::Rebuilding).await.map_err(|error| of_target(&error))?;
    // Removes the rows of an earlier copy that was cut off during the comparison.
    for table in
        tables::OF_PROCESSES.iter().filter(|table| **table != "lease").chain(tables::COPIED.iter().rev())
    {
        let text = format!("delete from {table}");
        rows::execute(&transaction, table, &text, vec![]).await.map_err(unwritten)?;
    }
    partitions::make_like(&transaction, held, now).await.map_err(unwritten)?;
    let mut all = Vec::new();
    let mut written = 0;
    for name in tables::COPIED {
        let table = tables::read(held, name).await.map_err(|error| of_source(&error))?;
        let other = tables::read(&transaction, name).await.map_err(|error| of_target(&error))?;
        if table != other {
            let reason = "its columns are others in the target, of the same version".to_owned();
            return Err(TransferError::Unfit { table: name, reason });
        }
        let mut pages = reading::Pages::of(held, &table);
        let mut page = pages.next().await?;
        while let Some(rows) = page {
            written += rows.len() as u64;
            let insert = writing::insert(&transaction, &table, rows);
            ((), page) = tokio::try_join!(insert, pages.next())?;
            tell("copying", written);
        }
        all.push(table);
    }
    write_leases(held, &transaction).await?;
    writing::analyze(&transaction).await.map_err(|error| of_target(&error))?;
    transaction.commit().await.map_err(|error| of_target(&error))?;
    Ok(all)
}

/// Writes the leases of a database without an owner, with an epoch above every epoch seen in either database.
async fn write_leases(
    held: &DatabaseTransaction,
    transaction: &DatabaseTransaction,
) -> Result<(), TransferError> {
    let highest = "select max(epoch) from lease";
    let source = rows::number(held, "lease", highest, vec![]).await.map_err(unread)?;
    let taken_at = "select max(taken_at) from lease";
    let taken_at = rows::number(held, "lease", taken_at, vec![]).await.map_err(unread)?;
    let target = rows::number(transaction, "lease", highest, vec![]).await.map_err(unwritten)?;
    let epoch = source.max(target).saturating_add(1);
    let text = "insert into lease (shard, epoch, taken_at) values ($1, $2, $3)
                on conflict (shard) do update set taken_at = excluded.taken_at";
    let values = vec![ALL.into(), epoch.into(), taken_at.into()];
    rows::execute(transaction, "lease", text, values).await.map_err(unwritten)?;
    let text = "update lease set epoch = $1, owner = null, expires_at = 0";
    rows::execute(transaction, "lease", text, vec![epoch.into()]).await.map_err(unwritten).map(drop)
}

/// Reads both databases again, side by side, and compares counts and digests.
async fn compare(
    held: &DatabaseTransaction,
    fresh: &Connection,
    tables: &[Table],
    tell: Tell<'_>,
) -> Result<Vec<Compared>, TransferError> {
    let target = fresh.hold().await.map_err(|error| of_target(&error))?;
    let mut compared = Vec::new();
    let mut rows = 0;
    for table in tables {
        let digests = tokio::try_join!(
            reading::digest(held, table, |count| tell("comparing", rows + count)),
            reading::digest(&target, table, |_| {}),
        );
        let (source, target) = digests?;
        rows += source.rows;
        compared.push(Compared { table: table.name, source, target });
    }
    target.rollback().await.map_err(|error| of_target(&error))?;
    Ok(compared)
}

/// Fences off processes that still use the source, then removes the mark of the target. If it is cut off in
/// between, the copy must be repeated.
async fn end(held: DatabaseTransaction, target: &Connection) -> Result<(), TransferError> {
    let text = "update lease set epoch = epoch + 1 where shard = $1";
    rows::execute(&held, "lease", text, vec![ALL.into()]).await.map_err(unread)?;
    held.commit().await.map_err(|error| of_source(&error))?;
    let transaction = target.begin(Share::Rebuilding).await.map_err(|error| of_target(&error))?;
    schema::unmark(&transaction).await.map_err(TransferError::Target)?;
    transaction.commit().await.map_err(|error| of_target(&error))
}

/// The error if the source cannot be locked.
fn busy(error: &DbErr) -> TransferError {
    let said = error.to_string();
    if said.contains("database is locked") || code(error).is_some_and(|code| code == "55P03") {
        return TransferError::InUse("somebody who reads or writes in it".to_owned());
    }
    of_source(error)
}

fn of_source(error: &DbErr) -> TransferError {
    TransferError::Source(of_start(error))
}

fn of_target(error: &DbErr) -> TransferError {
    TransferError::Target(of_start(error))
}

fn unread(error: StoreError) -> TransferError {
    TransferError::Source(OpenError::Database(error.to_string()))
}

fn unwritten(error: StoreError) -> TransferError {
    TransferError::Target(OpenError::Database(error.to_string()))
}
