//! The only SQL: [`SqlStore`] implements `actors::ports::Store` on SQLite.
//!
//! One connection writes, four read. The writing one belongs to a single task (`writer`) that
//! commits many verbs at once, so that each of them costs a fraction of a sync. At a start the
//! schema is brought up, the keyring is proved to be the right one (`canary`), and the epoch of the
//! lease rises: an older process that still lives writes nothing any more (`StoreError::Fenced`).
//!
//! `port` is the table of contents: one line a verb. Each noun has its own file.

mod access;
mod administration;
mod apps;
mod attempts;
mod audit;
mod backlog;
mod blobs;
mod breakers;
mod canary;
mod connect;
pub mod copy;
mod error;
pub mod examine;
mod heads;
mod history;
pub mod keys;
mod known;
mod lanes;
mod letters;
mod pinned;
mod port;
mod receipts;
mod redrive;
mod registration;
mod replays;
mod requests;
mod restored;
mod resync;
mod rounds;
mod rows;
pub mod schema;
mod sealed;
mod settle;
mod skip;
mod sources;
mod tokens;
mod upkeep;
mod watches;
mod writer;

use std::sync::Arc;

use sea_orm::{DatabaseConnection, DatabaseTransaction, TransactionTrait};
use thiserror::Error;
use tidings_actors::ports::{Clock, Random, StoreError};
use tokio::sync::Mutex;

use crate::secrets::{Keyring, SecretsError};
use error::OfTable;
use keys::Resealing;
use requests::Kept;
use writer::Writer;

/// Why the store cannot be opened. Nothing was served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The address names no database that this binary can use.
    #[error("the database address is not usable: {0}")]
    Address(String),
    /// The database does not answer, or answers with an error.
    #[error("the database cannot be opened: {0}")]
    Database(String),
    /// The database was written by a newer version.
    #[error("the database was written by a newer version (it has the step {0:?}); start that version")]
    NewerSchema(String),
    /// The keyring is not the one that sealed the secrets of this database.
    #[error("the keyring does not belong to this database: {0}")]
    WrongKey(SecretsError),
}

/// What verbs need besides the database.
#[derive(Clone)]
struct Context {
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    kept: Arc<Kept>,
}

/// Everything that must survive, in SQLite.
pub struct SqlStore {
    context: Context,
    readers: DatabaseConnection,
    writer: Writer,
    /// How far sealing anew is; one step at a time.
    resealing: Mutex<Resealing>,
}

impl SqlStore {
    /// Opens (and where it is missing, makes) the database at `url` (`sqlite:///path/to/file`),
    /// brings its schema up and takes the work over: whoever had it open before is fenced off.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        url: &str,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::keeping(url, Context { keyring, clock, random, kept: Arc::default() }).await
    }

    async fn keeping(url: &str, context: Context) -> Result<Self, OpenError> {
        let address = connect::Address::parse(url)?;
        let connection = connect::writer(&address).await?;
        schema::bring_up(&connection).await?;
        let epoch = canary::take_over(&connection, &context).await?;
        let readers = connect::readers(&address).await?;
        let writer = Writer::start(address, connection, context.clone(), epoch);
        Ok(Self { context, readers, writer, resealing: Mutex::default() })
    }

    /// Commits what is on its way, then closes all connections. Verbs after it are refused with
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.writer.close().await;
        if let Err(error) = self.readers.close_by_ref().await {
            tracing::warn!(%error, "the reading connections did not close cleanly");
        }
    }

    /// Runs a statement beside all verbs, as somebody would who can write to the database.
    #[cfg(test)]
    pub(crate) async fn tamper(&self, text: &str) {
        let text = text.to_owned();
        let run = self.writer.verb(move |transaction, _context| {
            Box::pin(async move { rows::execute(transaction, "audit", &text, Vec::new()).await })
        });
        run.await.expect("tampered");
    }

    /// One consistent look at the database.
    async fn snapshot(&self) -> Result<DatabaseTransaction, StoreError> {
        self.readers.begin().await.of("sqlite_schema")
    }
}

#[cfg(test)]
mod tests;
