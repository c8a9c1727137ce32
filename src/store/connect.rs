//! Connections: one that writes, some that only read, and how a transaction begins. What differs
//! between the two databases is below this file.

mod postgres;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult,
    Statement, TransactionTrait,
};

use tokio::time::timeout;

pub(super) use self::postgres::{advice, refuse_unfit};
use super::{OpenError, address::Address};

/// A server ends what it does for us before this; one that says nothing for so long is cut off from us.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// The same for closing, of which nothing depends.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// With whom a transaction that writes shares the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// With nobody else who writes, in any process: what it reads cannot change before it writes.
    Alone,
    /// With others that settle: each touches only rows of lanes that its own process owns.
    Settling,
    /// With nobody, and it may take long: the schema changes.
    Rebuilding,
}

/// Connections of one kind to the database. Clones share them.
#[derive(Clone)]
pub(super) struct Connection {
    pool: DatabaseConnection,
    /// Whether each transaction may meet another connection of the server: then every statement is
    /// in one, because it takes more than one message.
    is_pooled: bool,
}

/// The one connection that writes. A SQLite file that is missing is made, readable by its owner only.
pub(super) async fn writer(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::writer(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::writer(server).await,
    }
}

/// The connections that read, and cannot write.
pub(super) async fn readers(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::readers(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::readers(server).await,
    }
}

/// A connection that reads and leaves nothing behind: not even beside a file that nobody has open.
pub(super) async fn still(address: &Address) -> Result<Connection, OpenError> {
    match address {
        Address::File(file) => sqlite::still(file).await.map(Connection::to_file),
        Address::Server(server) => postgres::readers(server).await,
    }
}

impl Connection {
    fn to_file(pool: DatabaseConnection) -> Self {
        Self { pool, is_pooled: false }
    }

    /// Begins a transaction that writes. SQLite has one writer, whatever it wants; on PostgreSQL a lock
    /// that ends with the transaction stands for it, over all processes.
    pub(super) async fn begin(&self, share: Share) -> Result<DatabaseTransaction, DbErr> {
        if self.get_database_backend() == DbBackend::Sqlite {
            return sqlite::begin(&self.pool).await;
        }
        let transaction = self.pool.begin().await?;
        transaction.execute_unprepared(&postgres::entry(share, self.is_pooled)).await?;
        Ok(transaction)
    }

    /// Begins one consistent look, which changes nothing.
    pub(super) async fn look(&self) -> Result<DatabaseTransaction, DbErr> {
        answered(async {
            let transaction = self.pool.begin().await?;
            if self.get_database_backend() == DbBackend::Postgres {
                transaction.execute_unprepared(&postgres::look(self.is_pooled)).await?;
            }
            Ok(transaction)
        })
        .await
    }

    /// Closes all of them, after what they do now; one that is cut off is left to itself.
    pub(super) async fn close(&self) -> Result<(), DbErr> {
        if self.get_database_backend() == DbBackend::Sqlite {
            return self.pool.close_by_ref().await;
        }
        timeout(FAREWELL_MAX, self.pool.close_by_ref()).await.unwrap_or(Ok(()))
    }
}

/// The answer, unless the server is silent.
async fn answered<T>(asked: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let silent = || DbErr::Custom("the database server does not answer any more".into());
    timeout(SILENCE_MAX, asked).await.unwrap_or_else(|_| Err(silent()))
}

/// Single statements; behind a pooler each is a look of its own.
#[async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        if !self.is_pooled {
            return answered(self.pool.execute_raw(statement)).await;
        }
        let look = self.look().await?;
        let done = look.execute_raw(statement).await?;
        look.commit().await.map(|()| done)
    }

    async fn execute_unprepared(&self, text: &str) -> Result<ExecResult, DbErr> {
        if !self.is_pooled {
            return answered(self.pool.execute_unprepared(text)).await;
        }
        let look = self.look().await?;
        let done = look.execute_unprepared(text).await?;
        look.commit().await.map(|()| done)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        if !self.is_pooled {
            return answered(self.pool.query_one_raw(statement)).await;
        }
        let look = self.look().await?;
        let found = look.query_one_raw(statement).await?;
        look.commit().await.map(|()| found)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        if !self.is_pooled {
            return answered(self.pool.query_all_raw(statement)).await;
        }
        let look = self.look().await?;
        let found = look.query_all_raw(statement).await?;
        look.commit().await.map(|()| found)
    }
}
