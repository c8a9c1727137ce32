//! Connections: one that writes, some that only read, and how a transaction begins. The differences between
//! the two databases are in the folder.

mod listener;
mod postgres;
mod sqlite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use log::LevelFilter;
use parking_lot::RwLock;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult,
    Statement, TransactionTrait,
};
use sqlx::ConnectOptions;
use tokio::time::timeout;
use tracing::warn;

pub(crate) use self::{
    listener::Listener,
    postgres::{advice, refuse_unfit},
};
use super::address::{Address, Server};
use crate::{OpenError, database::error::code};

/// A statement that takes longer is logged at `warn`: its text, without the values bound to it.
const SLOW: Duration = Duration::from_secs(1);
/// The longest silence of a server: its own timeouts are shorter. A connection that is silent for longer is
/// abandoned.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// The longest silence during a statement of a look, which may take longer.
const LOOK_SILENCE_MAX: Duration = Duration::from_secs(32);
/// The longest wait for closing a connection, on which nothing depends.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The other transactions that may run beside a writing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// No other writer, in any process: rows that were read cannot change before the write.
    Alone,
    /// Other transactions of this kind: settlements touch only rows of lanes that their own process owns, and
    /// moves of tasks lock their rows.
    Working,
    /// All others: the transaction touches only rows that no call decides by.
    Aside,
    /// No other transaction, and this one may take long: the schema changes.
    Rebuilding,
}

/// Connections of one kind to the database. Clones share them.
#[derive(Clone)]
pub(crate) struct Connection {
    pool: Arc<RwLock<Pool>>,
    backend: DbBackend,
    /// The server for new connections in place of broken ones; `None`: the connections stay.
    server: Option<Arc<Server>>,
    /// Whether a pooler may give each transaction another connection: then every statement runs in a
    /// transaction, because it takes more than one message.
    is_pooled: bool,
}

/// A pool of connections, and how often it was replaced.
#[derive(Clone)]
struct Pool {
    connections: DatabaseConnection,
    number: u64,
}

/// Opens the one connection that writes. A missing SQLite file is created, readable by its owner only.
pub(crate) async fn writer(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::writer(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::writer(server).await,
    }
}

/// Connections that write to a server beside the main writer.
pub(crate) async fn beside(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::writer(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::beside(server).await,
    }
}

/// The connections that read, and cannot write.
pub(crate) async fn readers(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::readers(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::readers(server).await,
    }
}

/// Opens a connection that only reads and leaves nothing behind: it creates no file beside a database that no
/// process has open.
pub(crate) async fn still(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::still(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::readers(server).await,
    }
}

impl Connection {
    fn to_file(connections: DatabaseConnection) -> Self {
        Self::new(connections, None, false)
    }

    fn new(connections: DatabaseConnection, server: Option<Arc<Server>>, is_pooled: bool) -> Self {
        let backend = connections.get_database_backend();
        Self { pool: Arc::new(RwLock::new(Pool { connections, number: 0 })), backend, server, is_pooled }
    }

    fn pool(&self) -> Pool {
        self.pool.read().clone()
    }

    /// Begins a transaction that writes. SQLite has one writer anyway; on PostgreSQL a lock over all
    /// processes, which ends with the transaction, has the same effect.
    pub(crate) async fn begin(&self, share: Share) -> Result<DatabaseTransaction, DbErr> {
        let pool = self.pool().connections;
        if self.backend == DbBackend::Sqlite {
            return sqlite::begin(&pool).await;
        }
        let transaction = begun(pool).await?;
        transaction.execute_unprepared(&postgres::entry(share, self.is_pooled)).await?;
        Ok(transaction)
    }

    /// Begins a transaction that reads all rows as they are at one moment, and blocks all writers until it
    /// ends: each of their transactions reads the leases, which this one locks.
    pub(crate) async fn hold(&self) -> Result<DatabaseTransaction, DbErr> {
        let pool = self.pool().connections;
        if self.backend == DbBackend::Sqlite {
            return sqlite::begin(&pool).await;
        }
        let transaction = begun(pool).await?;
        transaction.execute_unprepared(&postgres::hold(self.is_pooled)).await?;
        Ok(transaction)
    }

    /// Begins one consistent read, which changes nothing.
    pub(crate) async fn look(&self) -> Result<Look, DbErr> {
        let pool = self.pool();
        let number = pool.number;
        let beginning = async {
            if self.backend == DbBackend::Sqlite {
                return pool.connections.begin().await;
            }
            let transaction = begun(pool.connections).await?;
            transaction.execute_unprepared(&postgres::look(self.is_pooled)).await?;
            Ok(transaction)
        };
        let transaction = self.answered(SILENCE_MAX, number, beginning).await?;
        Ok(Look { transaction, of: self.clone(), number })
    }

    /// Awaits the answer of a statement, unless the server is silent. A silent connection may keep its place
    /// in the pool for ever, and old ones keep outdated plans and rights: so the whole pool is abandoned, and
    /// a new one is made when it is needed.
    async fn answered<T>(
        &self,
        patience: Duration,
        number: u64,
        asked: impl Future<Output = Result<T, DbErr>> + Send,
    ) -> Result<T, DbErr> {
        let silent = || DbErr::Custom("the database server does not answer any more".into());
        let answer = if self.backend == DbBackend::Sqlite {
            Some(asked.await)
        } else {
            timeout(patience, asked).await.ok()
        };
        let is_useless = answer.as_ref().is_none_or(|answer| answer.as_ref().is_err_and(of_connection));
        if is_useless && let Some(server) = &self.server {
            let mut pool = self.pool.write();
            if pool.number == number {
                warn!("the connections that read the database are opened again");
                *pool = Pool { connections: postgres::fresh(server), number: number + 1 };
            }
        }
        answer.unwrap_or_else(|| Err(silent()))
    }

    /// Closes all connections after their present statements; a connection that is cut off is abandoned.
    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        let pool = self.pool().connections;
        if self.backend == DbBackend::Sqlite {
            return pool.close_by_ref().await;
        }
        timeout(FAREWELL_MAX, pool.close_by_ref()).await.unwrap_or(Ok(()))
    }
}

/// Begins a transaction on a server, in a task of its own: a caller that leaves meanwhile must not stop it
/// between the statement and its answer. sqlx counts a transaction only once the server has answered. Before
/// that it rolls nothing back, and the connection goes back to the pool inside the open transaction: later
/// statements run in it, and after one that fails all fail. A transaction that nobody waits for any more is
/// rolled back as soon as it has begun.
#[expect(clippy::disallowed_methods, reason = "the task ends with the answer, or with its connection")]
async fn begun(pool: DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let beginning = tokio::spawn(async move { pool.begin().await }).await;
    beginning.unwrap_or_else(|ended| Err(DbErr::Custom(format!("no transaction began: {ended}"))))
}

/// Makes connections log only slow statements.
pub(crate) fn logged<O: ConnectOptions>(options: O) -> O {
    options.log_statements(LevelFilter::Off).log_slow_statements(LevelFilter::Warn, SLOW)
}

/// Whether an error is of the connection and would repeat on it: a plan from before the schema changed
/// (`0A000`), or a server that accepts no writes (`25006`).
fn of_connection(error: &DbErr) -> bool {
    code(error).is_some_and(|code| ["0A000", "25006"].contains(&&*code))
}

/// Single statements; behind a pooler each is a transaction of its own.
#[async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        if !self.is_pooled {
            let Pool { connections, number } = self.pool();
            return self.answered(SILENCE_MAX, number, connections.execute_raw(statement)).await;
        }
        let look = self.look().await?;
        let done = look.execute_raw(statement).await?;
        look.end().await.map(|()| done)
    }

    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        if !self.is_pooled {
            let Pool { connections, number } = self.pool();
            return self.answered(SILENCE_MAX, number, connections.execute_unprepared(text)).await;
        }
        let look = self.look().await?;
        let done = look.execute_unprepared(text).await?;
        look.end().await.map(|()| done)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        if !self.is_pooled {
            let Pool { connections, number } = self.pool();
            return self.answered(SILENCE_MAX, number, connections.query_one_raw(statement)).await;
        }
        let look = self.look().await?;
        let found = look.query_one_raw(statement).await?;
        look.end().await.map(|()| found)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        if !self.is_pooled {
            let Pool { connections, number } = self.pool();
            return self.answered(SILENCE_MAX, number, connections.query_all_raw(statement)).await;
        }
        let look = self.look().await?;
        let found = look.query_all_raw(statement).await?;
        look.end().await.map(|()| found)
    }
}

/// One consistent read. Each of its statements is answered in time, or fails.
pub(crate) struct Look {
    transaction: DatabaseTransaction,
    of: Connection,
    number: u64,
}

impl Look {
    /// Commits the transaction of the look.
    async fn end(self) -> Result<(), DbErr> {
        self.of.answered(SILENCE_MAX, self.number, self.transaction.commit()).await
    }
}

#[async_trait]
impl ConnectionTrait for Look {
    fn get_database_backend(&self) -> DbBackend {
        self.of.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.of.answered(LOOK_SILENCE_MAX, self.number, self.transaction.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        self.of.answered(LOOK_SILENCE_MAX, self.number, self.transaction.execute_unprepared(text)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.of.answered(LOOK_SILENCE_MAX, self.number, self.transaction.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.of.answered(LOOK_SILENCE_MAX, self.number, self.transaction.query_all_raw(statement)).await
    }
}
