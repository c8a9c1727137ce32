//! Copies of a SQLite file, for backups: taken while other connections write, examined, and prepared for
//! serving. `transfer` copies one database into another.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{Random, StoreError},
    time::Timestamp,
};
use tidings_secrets::Keyring;

use super::{
    address::Address,
    canary,
    connect::{self, Connection, Share},
    schema,
};
use crate::{OpenError, database::rows, keys::sealed, upkeep::restored};

/// The contents of a copy of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The name of the last schema step that the copy has taken.
    pub step: String,
    /// The ids of the keys that sealed a value in the copy.
    pub keys: BTreeSet<String>,
    /// The number of registered apps.
    pub apps: u64,
    /// The number of watches, paused ones included.
    pub watches: u64,
    /// The number of branches that are followed.
    pub cursors: u64,
}

/// Copies the database at `url` into `to`, a file that is empty or missing, as it is at one moment; readers
/// and writers are not blocked.
///
/// # Errors
/// See [`OpenError`]: there is no SQLite file, the file cannot be read, or there is no room for the copy.
pub async fn take(url: &str, to: &Path) -> Result<(), OpenError> {
    let address = Address::parse(url)?;
    if !address.may_exist() {
        return Err(OpenError::Address(format!("{address} does not exist")));
    }
    let target = Address::File(to.to_owned());
    let to = to.to_str().ok_or_else(|| OpenError::Address("the path of the copy is no text".into()))?;
    let connection = connect::writer(&address).await.map_err(|error| address.naming(error))?;
    // The copy of a file that an older version made can give unused room back.
    let mode = "select auto_vacuum from pragma_auto_vacuum()";
    if rows::number(&connection, "sqlite_schema", mode, vec![]).await.map_err(refused)? == 0 {
        let set = connection.execute_unprepared("pragma auto_vacuum = incremental").await;
        set.map_err(|error| OpenError::Database(error.to_string()))?;
    }
    let copied = rows::execute(&connection, "sqlite_schema", "vacuum into $1", vec![to.into()]).await;
    close(connection).await?;
    copied.map(drop).map_err(|error| target.naming(refused(error)))
}

/// Examines a copy that no process has open: whether it is undamaged, whether `keyring` opens it, and its
/// contents. Changes nothing.
///
/// # Errors
/// [`OpenError::Database`] for a damaged copy, [`OpenError::NewerSchema`], [`OpenError::WrongKey`].
pub async fn look(file: &Path, keyring: Option<&Keyring>) -> Result<Contents, OpenError> {
    let connection = connect::still(&Address::File(file.to_owned())).await?;
    let contents = contents(&connection, keyring).await;
    close(connection).await?;
    contents
}

async fn contents(connection: &Connection, keyring: Option<&Keyring>) -> Result<Contents, OpenError> {
    let faults = schema::faults(connection).await?;
    if !faults.is_empty() {
        return Err(OpenError::Database(format!("it is damaged: {}", faults.join("; "))));
    }
    let steps = schema::taken(connection).await?;
    let step = steps.last().ok_or_else(|| OpenError::Database("it holds no tables of Tidings".into()))?;
    if let Some(keyring) = keyring {
        canary::prove(connection, keyring).await?;
    }
    let count = async |table: &'static str| {
        let text = format!("select count(*) from {table}");
        rows::number(connection, table, &text, vec![]).await.map(i64::unsigned_abs).map_err(refused)
    };
    Ok(Contents {
        step: step.clone(),
        keys: sealed::by_key(connection).await.map_err(refused)?.into_keys().collect(),
        apps: count("app").await?,
        watches: count("watch").await?,
        cursors: count("cursor").await?,
    })
}

/// Prepares a copy for serving: brings its schema up, proves the keyring, and marks cursors that may be
/// behind their apps. Returns the number of cursors.
///
/// # Errors
/// See [`OpenError`].
pub async fn make_ready(
    file: &Path,
    keyring: &Keyring,
    random: &dyn Random,
    taken_at: Timestamp,
    at: Timestamp,
) -> Result<u64, OpenError> {
    let connection = connect::writer(&Address::File(file.to_owned())).await?;
    let marked = ready(&connection, keyring, random, taken_at, at).await;
    // The last connection takes the log of writes into the file.
    close(connection).await?;
    marked
}

async fn ready(
    connection: &Connection,
    keyring: &Keyring,
    random: &dyn Random,
    taken_at: Timestamp,
    at: Timestamp,
) -> Result<u64, OpenError> {
    schema::bring_up(connection).await?;
    canary::prove(connection, keyring).await?;
    let database = |error: sea_orm::DbErr| OpenError::Database(error.to_string());
    let transaction = connection.begin(Share::Alone).await.map_err(database)?;
    let marked = restored::mark(&transaction, random, taken_at, at).await.map_err(refused)?;
    transaction.commit().await.map_err(database)?;
    Ok(marked)
}

/// The file of the database at `url`; `None` for a database on a server.
///
/// # Errors
/// [`OpenError::Address`] for an invalid address.
pub fn file_of(url: &str) -> Result<Option<PathBuf>, OpenError> {
    Ok(Address::parse(url)?.file().map(Path::to_owned))
}

/// The name of the database of `url`; for SQLite the name of the file.
///
/// # Errors
/// [`OpenError::Address`].
pub fn name_of(url: &str) -> Result<String, OpenError> {
    Ok(match Address::parse(url)? {
        Address::File(file) => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        // If the address names no database, the server uses the name of the user.
        Address::Server(server) => {
            let options = &server.options;
            options.get_database().unwrap_or(options.get_username()).to_owned()
        }
    })
}

async fn close(connection: Connection) -> Result<(), OpenError> {
    connection.close().await.map_err(|error| OpenError::Database(error.to_string()))
}

fn refused(error: StoreError) -> OpenError {
    OpenError::Database(error.to_string())
}
