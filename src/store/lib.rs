//! The only SQL: [`SqlStore`] implements `actors::ports::Store` on SQLite and on PostgreSQL. Only `database`
//! differs between the two; every other statement runs on both.
//!
//! One connection writes, four read. Searches of ledgers and tasks look at a bounded number of rows and take
//! turns (`database::turns`), so that two of the four stay free. The writing one belongs to a single task
//! (`writer`) that commits many calls at once, so that each costs a fraction of a sync. On PostgreSQL its
//! transactions hold a lock over all processes, so that every call has the database to itself there too. At a
//! start the schema is brought up and the keyring is proved to be the right one (`canary`). On SQLite the
//! epoch of the lease rises: an older process that is still alive writes nothing any more
//! (`StoreError::Fenced`). On PostgreSQL replicas share the work by `leases`, and work that was begun under a
//! lease changes nothing once the lease is lost (`fences`, `StoreError::Lost`).
//!
//! `port` is the table of contents: a file for each noun, a line for each method.

mod apps;
pub mod audit;
mod database;
mod keys;
mod lanes;
pub mod leases;
mod ledger;
mod port;
mod tasks;
mod upkeep;
pub(crate) mod watching;
mod writer;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use thiserror::Error;
use tidings_actors::ports::{Clock, Meter, Random, StoreError};
use tidings_entity::id::ReplicaId;
use tidings_secrets::{Keyring, SecretsError};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracing::warn;

use apps::requests::Kept;
use database::{
    address::Address,
    canary,
    connect::{self, Connection, Look},
    error::{OfTable, of_first_use},
    turns::Turns,
};
pub use database::{copy, examine, schema, transfer};
use keys::resealing::Resealing;
use writer::Writer;

/// The wait between two attempts of a start to reach a server; each attempt may take seconds itself.
const START_PAUSE: Duration = Duration::from_secs(1);

/// Why the store cannot be opened. Nothing was served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The address names no database that this binary can use.
    #[error("the database address is not usable: {0}")]
    Address(String),
    /// The database answers with an error.
    #[error("the database cannot be opened: {0}")]
    Database(String),
    /// The database does not answer, or reports a temporary failure.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The database was written by a newer version.
    #[error("the database was written by a newer version (it has the step {0:?}); start that version")]
    NewerSchema(String),
    /// A copy into the database was cut off.
    #[error(
        "a copy of another database into this one did not end: run `tidings migrate copy` again, which \
         starts from the beginning"
    )]
    UnfinishedCopy,
    /// Servers work with the database whose schema steps are to be taken back.
    #[error("in use by {0}: stop each server, and run this again")]
    InUse(String),
    /// The data directory belongs to a database that was used, and this one was not.
    #[error(
        "{address} is an unused database, and this data directory was used with another one: its apps and \
         watches would be gone. {}, let database.url name it, or start with an empty database: `tidings \
         serve --new-database`",
        if *.is_server { "Put that one back (from a backup of the server, by pg_restore)" }
        else { "Put that one back (`tidings restore` fills an empty data directory from a backup)" }
    )]
    NotTheSame {
        /// The path or address of the new database.
        address: String,
        /// Whether the database is one of a PostgreSQL server, which has backups of its own.
        is_server: bool,
    },
    /// The data directory has no keyring, and the database needs one.
    #[error(
        "the data directory has no keyring, and the database was sealed with one: put it back from a copy \
         (`tidings key import`), or let keyring_file name one that opens it ({0})"
    )]
    NoKeyring(Box<OpenError>),
    /// The new or given keyring cannot be written into the data directory.
    #[error(transparent)]
    Keyring(SecretsError),
    /// The keyring is not the one that sealed the secrets of this database.
    #[error("the keyring does not belong to this database: {0}")]
    WrongKey(SecretsError),
    /// A key that other replicas seal with cannot be taken from the database.
    #[error(
        "the keyring lacks the key {0}, which replicas of this database sealed with while this one was away: \
         copy the keyring of one that runs"
    )]
    MissingKey(String),
}

/// The rules of a start for its database.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartRules {
    /// How long it waits for a server that is not up yet.
    pub wait: Duration,
    /// Whether an unused database is refused, before anything is created in it.
    pub refuses_new: bool,
}

/// The parts that calls need besides the database.
#[derive(Clone)]
struct Context {
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    kept: Arc<Kept>,
    news: Arc<ledger::News>,
    /// Notifies the status keeper of statuses to tell.
    statuses: Arc<ledger::News>,
    /// Notifies waiters of changes of tasks.
    tasks: Arc<tasks::TaskChanges>,
}

/// Everything that must survive, in a database. Clones are the same store.
#[derive(Clone)]
pub struct SqlStore {
    address: Address,
    context: Context,
    readers: Connection,
    /// The turns of lists that people filter.
    searches: Arc<Turns>,
    /// The turns of subscriptions that read their ledger.
    followers: Arc<Turns>,
    writer: Writer,
    /// The progress of sealing again; one step at a time.
    resealing: Arc<Mutex<Resealing>>,
    /// The id of this process as a replica; empty until it is one.
    mine: Arc<OnceLock<ReplicaId>>,
    identity: String,
}

impl SqlStore {
    /// Opens the database at `url` (`sqlite:///path/to/file`, created if it does not exist, or
    /// `postgres://...`) and brings its schema up. A process that had a SQLite file open before is fenced
    /// off; a server is shared.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        url: &str,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::open_at_start(StartRules::default(), url, keyring, clock, random).await
    }

    /// Like [`SqlStore::open`], with the rules of a start. A keyring that is not stored yet
    /// ([`Keyring::keep`]) is stored once it is proved.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_at_start(
        rules: StartRules,
        url: &str,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::keeping(
            rules,
            url,
            Context {
                keyring,
                clock,
                random,
                kept: Arc::default(),
                news: Arc::default(),
                statuses: Arc::default(),
                tasks: Arc::default(),
            },
        )
        .await
    }

    async fn keeping(rules: StartRules, url: &str, context: Context) -> Result<Self, OpenError> {
        let address = Address::parse(url)?;
        let last = Instant::now() + rules.wait;
        let (connection, readers, (epoch, identity)) = loop {
            match first_steps(&address, &context, rules.refuses_new).await {
                Err(OpenError::Unreachable(reason)) if Instant::now() < last => {
                    warn!("the database cannot be reached, and is asked again: {reason}");
                    sleep(START_PAUSE).await;
                }
                other => break other.map_err(|error| address.naming(error))?,
            }
        };
        let writer = Writer::start(address.clone(), connection, context.clone(), epoch);
        let (searches, followers, resealing, mine) = Default::default();
        Ok(Self { address, context, readers, searches, followers, writer, resealing, mine, identity })
    }

    /// Counts the transactions of the one writer with `meter`.
    #[must_use]
    pub fn with_meter(self, meter: Arc<dyn Meter>) -> Self {
        self.writer.measure(meter);
        self
    }

    /// Commits pending verbs, then closes all connections. Later verbs are refused with
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.writer.close().await;
        if let Err(error) = self.readers.close().await {
            tracing::warn!(%error, "the reading connections did not close cleanly");
        }
    }

    /// Runs a statement outside of the writer, like an attacker who can write to the database.
    ///
    /// # Panics
    /// If the database refuses the statement.
    #[cfg(any(test, feature = "testing"))]
    pub async fn tamper(&self, text: &str) {
        let text = text.to_owned();
        let run = self.writer.verb(move |transaction, _context| {
            Box::pin(async move { database::rows::execute(transaction, "audit", &text, Vec::new()).await })
        });
        run.await.expect("tampered");
    }

    /// The identity of the database: a text that no other database has, but for copies of this one.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    fn mine(&self) -> Option<ReplicaId> {
        self.mine.get().cloned()
    }

    /// One consistent read of the database.
    async fn snapshot(&self) -> Result<Look, StoreError> {
        self.readers.look().await.of("sqlite_schema")
    }
}

/// The steps of a start with a database. The server may not be up yet, because the parts of a stack start in
/// any order, or may go down again, or another process may be at the same steps; every step may be repeated.
async fn first_steps(
    address: &Address,
    context: &Context,
    refuses_new: bool,
) -> Result<(Connection, Connection, (i64, String)), OpenError> {
    let not_the_same = || OpenError::NotTheSame {
        address: address.to_string(),
        is_server: matches!(address, Address::Server(_)),
    };
    if refuses_new && !address.may_exist() {
        return Err(not_the_same());
    }
    let connection = connect::writer(address).await?;
    if refuses_new && canary::is_new(&connection).await.map_err(of_first_use)? {
        return Err(not_the_same());
    }
    schema::bring_up(&connection).await?;
    let taken = canary::take_over(&connection, context).await?;
    let readers = connect::readers(address).await?;
    Ok((connection, readers, taken))
}

#[cfg(test)]
mod tests;
