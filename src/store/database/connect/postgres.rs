//! Connections to PostgreSQL, and the one message with which each writing transaction begins: it sets
//! timeouts, and takes the lock that replaces SQLite's single writer. Both end with the transaction, so that
//! they also work behind a pooler that assigns connections per transaction.
//!
//! Statements have names (`sqlx_s_1`, ...), and a connection remembers its prepared statements. Behind such a
//! pooler names are not valid beyond a transaction: there none is remembered, each transaction drops the
//! statements that others left, and single statements run in transactions.

use std::{sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult};
use sqlx::{
    Connection as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::{Connection, Share};
use crate::{
    OpenError,
    database::{
        address::Server,
        error::{passes, words},
        rows,
    },
};

/// How long a call waits for a connection, including making a new one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections for calls that must not wait for the writer.
const BESIDE: u32 = 2;
/// Connections that read. They are made when needed.
const READERS: u32 = 4;
/// How long an unused reading connection is kept.
const IDLE: Duration = Duration::from_secs(300);
/// The longest life of a connection: by then the server may have moved to another machine.
const LIFETIME: Duration = Duration::from_secs(1800);
/// A connection that was unused for this long is tested before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// The advisory lock of writers, `tidings` in ASCII: a database holds one installation.
const LOCK: i64 = 0x0074_6964_696e_6773;
/// The oldest server that is tested; the number is that of `server_version_num`.
const OLDEST: i64 = 130_000;

pub(super) async fn writer(server: &Server) -> Result<Connection, OpenError> {
    let made: Result<PgPool, sqlx::Error> = pool(1, 1).connect_with(server.options.clone()).await;
    let pool = made.map_err(|error| refused(server, &error))?;
    Ok(Connection::new(pool.into(), None, server.is_pooled))
}

pub(super) async fn beside(server: &Server) -> Result<Connection, OpenError> {
    let made: Result<PgPool, sqlx::Error> = pool(0, BESIDE).connect_with(server.options.clone()).await;
    let pool = made.map_err(|error| refused(server, &error))?;
    Ok(Connection::new(pool.into(), None, server.is_pooled))
}

pub(super) async fn readers(server: &Server) -> Result<Connection, OpenError> {
    let made: Result<PgPool, sqlx::Error> = pool(0, READERS).connect_with(reading(server)).await;
    let pool = made.map_err(|error| refused(server, &error))?;
    Ok(Connection::new(pool.into(), Some(Arc::new(server.clone())), server.is_pooled))
}

/// New connections that read, in place of others; each is made when needed.
pub(super) fn fresh(server: &Server) -> DatabaseConnection {
    pool(0, READERS).connect_lazy_with(reading(server)).into()
}

fn reading(server: &Server) -> PgConnectOptions {
    let options = server.options.clone();
    if server.is_pooled {
        // Behind a pooler these settings are part of each transaction instead.
        return options;
    }
    options.options([("default_transaction_read_only", "on"), ("statement_timeout", "10s")])
}

fn pool(least: u32, most: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .min_connections(least)
        .max_connections(most)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE)
        .max_lifetime(LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, known| {
            Box::pin(async move { Ok(known.idle_for < TRUSTED || connection.ping().await.is_ok()) })
        })
}

/// The error of a refused connection. A server that is starting or full is told apart, because that is
/// temporary.
fn refused(server: &Server, error: &sqlx::Error) -> OpenError {
    let said = format!("{server:?}: {}", words(error));
    match error {
        sqlx::Error::PoolTimedOut => {
            OpenError::Unreachable(format!("{server:?} gives no connection: it is down, or full"))
        }
        sqlx::Error::Io(_) => OpenError::Unreachable(said),
        sqlx::Error::Database(told) if told.code().is_some_and(|code| passes(&code)) => {
            OpenError::Unreachable(said)
        }
        _ => OpenError::Database(said),
    }
}

/// The message with which a writing transaction begins. A process that is stopped in the middle must not keep
/// the lock, and a process that waits for it must not wait for ever.
pub(super) fn entry(share: Share, is_pooled: bool) -> String {
    let forget = if is_pooled { "deallocate all; " } else { "" };
    let alone = format!("; select pg_advisory_xact_lock({LOCK})");
    let shared = format!("; select pg_advisory_xact_lock_shared({LOCK})");
    let (statement, lock, silence, entry) = match share {
        Share::Alone => ("10s", "5s", "2s", &*alone),
        Share::Working => ("10s", "5s", "2s", &*shared),
        Share::Aside => ("5s", "2s", "2s", ""),
        Share::Rebuilding => ("0", "60s", "60s", &*alone),
    };
    // Set explicitly, regardless of the database's default: a snapshot from before the lock would show old
    // rows.
    format!(
        "set transaction isolation level read committed; {forget}
         set local statement_timeout = '{statement}'; set local lock_timeout = '{lock}';
         set local idle_in_transaction_session_timeout = '{silence}'{entry}"
    )
}

/// The message with which a transaction begins that reads everything while all writers wait. `lock table`
/// takes no snapshot: the first read does, after all writing transactions have ended. The transaction may be
/// idle for long, while its rows are processed slowly. It reads tables page by page in the order of their
/// keys. By default the server would estimate the rows after a key only by the key's first column, which is
/// equal for all attempts, and would sort the rest of their partitions for each page.
pub(super) fn hold(is_pooled: bool) -> String {
    let forget = if is_pooled { "deallocate all; " } else { "" };
    format!(
        "set transaction isolation level repeatable read; {forget}
         set local statement_timeout = 0; set local lock_timeout = '5s';
         set local idle_in_transaction_session_timeout = 0; set local enable_sort = off;
         lock table lease in access exclusive mode"
    )
}

/// The message with which a look begins.
pub(super) fn look(is_pooled: bool) -> String {
    let forget = if is_pooled { "deallocate all; " } else { "" };
    format!(
        "set transaction isolation level repeatable read, read only; {forget}
         set local statement_timeout = '30s'; set local idle_in_transaction_session_timeout = '60s'"
    )
}

/// Refuses to write to a server that would lose acknowledged data, or change stored texts.
pub(crate) async fn refuse_unfit(connection: &impl ConnectionTrait) -> Result<(), OpenError> {
    let facts = facts(connection).await?;
    if facts.version < OLDEST {
        return Err(OpenError::Database(format!("PostgreSQL {} is too old: 13 is the oldest", facts.shown)));
    }
    if facts.encoding != "UTF8" {
        return Err(OpenError::Database(format!("its encoding is {}: make one with UTF8", facts.encoding)));
    }
    if !["on", "remote_apply"].contains(&&*facts.synchronous_commit) {
        return Err(OpenError::Database(format!(
            "synchronous_commit is {}: what is acknowledged could be lost; set it to on for this database",
            facts.synchronous_commit
        )));
    }
    Ok(())
}

/// Unsafe settings of a server, each with advice.
pub(crate) async fn advice(
    connection: &impl ConnectionTrait,
) -> Result<Vec<(String, &'static str)>, OpenError> {
    let facts = facts(connection).await?;
    let mut advice = Vec::new();
    if facts.fsync != "on" {
        let said = "fsync is off: a power cut may damage the whole database".to_owned();
        advice.push((said, "set fsync to on in the server's settings"));
    }
    if facts.full_page_writes != "on" {
        let said = "full_page_writes is off: a power cut may damage pages".to_owned();
        advice.push((said, "set full_page_writes to on, unless the file system writes pages whole"));
    }
    if facts.is_standby {
        let said = "it is a standby, or read-only: nothing can be written".to_owned();
        advice.push((said, "let database.url name the primary"));
    }
    Ok(advice)
}

struct Facts {
    version: i64,
    shown: String,
    encoding: String,
    synchronous_commit: String,
    fsync: String,
    full_page_writes: String,
    is_standby: bool,
}

async fn facts(connection: &impl ConnectionTrait) -> Result<Facts, OpenError> {
    let text =
        "select cast(current_setting('server_version_num') as bigint), current_setting('server_version'),
                current_setting('server_encoding'), current_setting('synchronous_commit'),
                current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()";
    let found = rows::mixed(connection, "server", text, vec![]).await;
    let found = found.map_err(|error| OpenError::Database(error.to_string()))?;
    let row = found.first().ok_or_else(|| OpenError::Database("it says nothing of itself".into()))?;
    let word = |at: usize| row.try_get_by_index::<String>(at);
    let read = |row: &QueryResult| -> Result<Facts, sea_orm::DbErr> {
        Ok(Facts {
            version: row.try_get_by_index(0)?,
            shown: word(1)?,
            encoding: word(2)?,
            synchronous_commit: word(3)?,
            fsync: word(4)?,
            full_page_writes: word(5)?,
            is_standby: row.try_get_by_index(6)?,
        })
    };
    read(row).map_err(|error| OpenError::Database(error.to_string()))
}
