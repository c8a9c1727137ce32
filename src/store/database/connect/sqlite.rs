//! Connections to SQLite: write-ahead log, a sync at every commit, foreign keys. The writer has one
//! connection; readers cannot write.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::logged;
use crate::OpenError;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a verb waits for a free reading connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// The number of rows that a statement reads ahead: each row that is waited for wakes a thread.
const ROW_BUFFER: usize = 512;

/// Opens the one connection that writes. A missing file is created, readable only by its owner.
pub(super) async fn writer(file: &Path) -> Result<DatabaseConnection, OpenError> {
    make_private(file).map_err(|error| OpenError::Database(format!("{}: {error}", file.display())))?;
    let is_empty = fs::metadata(file).is_ok_and(|facts| facts.len() == 0);
    connect(file, 1, "OFF", is_empty).await
}

/// The connections that read.
pub(super) async fn readers(file: &Path) -> Result<DatabaseConnection, OpenError> {
    connect(file, READERS, "ON", false).await
}

/// Opens a file that no other process has open, and leaves no other file beside it.
pub(super) async fn still(file: &Path) -> Result<DatabaseConnection, OpenError> {
    let file = file.to_owned();
    let mut options = ConnectOptions::new("sqlite://placeholder");
    options.max_connections(1);
    options
        .map_sqlx_sqlite_opts(move |_| logged(SqliteConnectOptions::new()).filename(&file).read_only(true));
    Database::connect(options).await.map_err(|error| OpenError::Database(error.to_string()))
}

/// A transaction that holds the write lock from its beginning, so that the rows that it reads cannot change
/// before it writes.
pub(super) async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    connection.begin_with_options(options).await
}

async fn connect(
    file: &Path,
    size: u32,
    query_only: &'static str,
    is_empty: bool,
) -> Result<DatabaseConnection, OpenError> {
    let file = file.to_owned();
    let mut options = ConnectOptions::new("sqlite://placeholder");
    options
        .max_connections(size)
        .min_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .max_lifetime(None)
        .idle_timeout(None);
    options.map_sqlx_sqlite_opts(move |_| {
        // A file can give unused room back only if its first page says so.
        let options = logged(SqliteConnectOptions::new());
        let options = if is_empty { options.auto_vacuum(SqliteAutoVacuum::Incremental) } else { options };
        options
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(ROW_BUFFER)
            .pragma("query_only", query_only)
            // Deleted data is overwritten in the file, because erasing an app promises that.
            .pragma("secure_delete", "ON")
    });
    Database::connect(options).await.map_err(|error| OpenError::Database(error.to_string()))
}

fn make_private(file: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
