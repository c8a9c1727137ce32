//! The schema: bringing it up at a start, and up, down and status for the command line; and what of
//! an older version the next start will end.

use sea_orm::DatabaseConnection;
use sea_orm_migration::{MigrationStatus, MigratorTrait};
use serde::Serialize;
use tidings_actors::round::RULES;
use tidings_migration::Migrator;

use super::{
    OpenError,
    connect::{self, Address},
    rows,
};

/// One step of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether this database has taken it.
    pub applied: bool,
}

/// Takes all missing steps of the database at `url`, making the file where it is missing. Returns
/// the names of the steps taken.
///
/// # Errors
/// See [`OpenError`]; a step that fails leaves the schema as it was.
pub async fn up(url: &str) -> Result<Vec<String>, OpenError> {
    let connection = connect::writer(&Address::parse(url)?).await?;
    let taken = bring_up(&connection).await;
    close(connection).await?;
    taken
}

/// Takes back the last `steps` steps of the database at `url`: their tables and all in them go.
///
/// # Errors
/// See [`OpenError`]; a step that fails leaves the schema as it was.
pub async fn down(url: &str, steps: u32) -> Result<(), OpenError> {
    let connection = connect::writer(&existing(url)?).await?;
    let done = locked(&connection, Some(steps)).await;
    close(connection).await?;
    done.map(drop)
}

/// The steps of the database at `url`, oldest first. Changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn status(url: &str) -> Result<Vec<Step>, OpenError> {
    let connection = connect::readers(&existing(url)?).await?;
    let steps = Migrator::get_migration_with_status_read_only(&connection).await.map_err(refused);
    close(connection).await?;
    let step = |migration: sea_orm_migration::Migration| Step {
        name: migration.name().to_owned(),
        applied: migration.status() == MigrationStatus::Applied,
    };
    Ok(steps?.into_iter().map(step).collect())
}

/// How many open rounds of the database at `url` were begun under rules that this binary no longer
/// knows: its start ends each by a resync. 0 where there is no database yet. Changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn old_rounds(url: &str) -> Result<u64, OpenError> {
    let address = Address::parse(url)?;
    if !address.exists() {
        return Ok(0);
    }
    let connection = connect::readers(&address).await?;
    let steps = Migrator::get_migration_with_status_read_only(&connection).await.map_err(refused);
    let has_rounds = steps.map(|steps| steps.iter().any(|step| step.status() == MigrationStatus::Applied));
    let text = "select count(*) from round r join cursor c on c.id = r.cursor_id and c.open_round = r.number
                where r.rules < $1";
    let count = match has_rounds {
        Ok(true) => rows::number(&connection, "round", text, vec![(RULES - 1).into()])
            .await
            .map_err(|error| OpenError::Database(error.to_string())),
        other => other.map(|_| 0),
    };
    close(connection).await?;
    Ok(count?.unsigned_abs())
}

/// Takes all missing steps, all or none, while no other process can write.
pub(super) async fn bring_up(connection: &DatabaseConnection) -> Result<Vec<String>, OpenError> {
    locked(connection, None).await
}

/// Up, or so many steps down, in one transaction that holds the only write lock.
async fn locked(connection: &DatabaseConnection, down: Option<u32>) -> Result<Vec<String>, OpenError> {
    let transaction = connect::begin(connection).await.map_err(refused)?;
    Migrator::install(&transaction).await.map_err(refused)?;
    refuse_newer(&transaction).await?;
    let mut taken = Vec::new();
    if let Some(steps) = down {
        Migrator::down(&transaction, Some(steps)).await.map_err(refused)?;
    } else {
        let pending = Migrator::get_pending_migrations(&transaction).await.map_err(refused)?;
        taken.extend(pending.iter().map(|migration| migration.name().to_owned()));
        Migrator::up(&transaction, None).await.map_err(refused)?;
    }
    transaction.commit().await.map_err(refused)?;
    Ok(taken)
}

/// What SQLite itself finds wrong with a database: damaged pages and indexes, rows that refer to
/// nothing.
pub(super) async fn faults(connection: &DatabaseConnection) -> Result<Vec<String>, OpenError> {
    let asked = |error: tidings_actors::ports::StoreError| OpenError::Database(error.to_string());
    let mut faults = Vec::new();
    for row in
        rows::mixed(connection, "sqlite_schema", "pragma integrity_check(20)", vec![]).await.map_err(asked)?
    {
        let said: String = row.try_get_by_index(0).map_err(refused)?;
        if said != "ok" {
            faults.push(said);
        }
    }
    for row in
        rows::mixed(connection, "sqlite_schema", "pragma foreign_key_check", vec![]).await.map_err(asked)?
    {
        let (table, parent): (String, String) =
            (row.try_get_by_index(0).map_err(refused)?, row.try_get_by_index(2).map_err(refused)?);
        faults.push(format!("a row of {table} refers to a row of {parent} that is not there"));
    }
    Ok(faults)
}

/// A step that this binary does not know was taken by a newer one.
async fn refuse_newer(transaction: &sea_orm::DatabaseTransaction) -> Result<(), OpenError> {
    let taken = Migrator::get_migration_models(transaction).await.map_err(refused)?;
    all_known(taken.into_iter().map(|model| model.version))
}

/// The steps that a database has taken, oldest first; all of them are known. Changes nothing.
pub(super) async fn taken(connection: &DatabaseConnection) -> Result<Vec<String>, OpenError> {
    let text = "select count(*) from sqlite_schema where name = 'seaql_migrations'";
    let asked = |error: tidings_actors::ports::StoreError| OpenError::Database(error.to_string());
    if rows::number(connection, "sqlite_schema", text, vec![]).await.map_err(asked)? == 0 {
        return Ok(Vec::new());
    }
    let text = "select version from seaql_migrations order by version";
    let found = rows::mixed(connection, "seaql_migrations", text, vec![]).await.map_err(asked)?;
    let versions = found.iter().map(|row| row.try_get_by_index(0).map_err(refused));
    let versions: Vec<String> = versions.collect::<Result<_, _>>()?;
    all_known(versions.iter().cloned())?;
    Ok(versions)
}

fn all_known(mut taken: impl Iterator<Item = String>) -> Result<(), OpenError> {
    let known = Migrator::get_migration_files();
    let unknown = |version: &String| !known.iter().any(|migration| migration.name() == version.as_str());
    match taken.find(unknown) {
        Some(version) => Err(OpenError::NewerSchema(version)),
        None => Ok(()),
    }
}

fn existing(url: &str) -> Result<Address, OpenError> {
    let address = Address::parse(url)?;
    if address.exists() { Ok(address) } else { Err(OpenError::Address(format!("{url} does not exist"))) }
}

async fn close(connection: DatabaseConnection) -> Result<(), OpenError> {
    connection.close().await.map_err(refused)
}

fn refused(error: sea_orm::DbErr) -> OpenError {
    OpenError::Database(error.to_string())
}
