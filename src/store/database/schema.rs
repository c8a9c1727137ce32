//! The schema: bringing it up at a start; up, down and status for the command line; and the open rounds of an
//! older version that the next start will end.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
use sea_orm_migration::{MigrationStatus, MigratorTrait};
use serde::Serialize;
use tidings_actors::{model::round::RULES, ports::StoreError};
use tidings_migration::Migrator;
use tracing::{info, instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{
    address::Address,
    connect::{self, Connection, Share},
};
use crate::{
    OpenError,
    database::{error::of_start, rows},
    leases,
};

/// One step of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The name of the step, which is its file in `migration`.
    pub name: String,
    /// Whether this database has taken it.
    pub applied: bool,
}

/// Takes all missing steps of the database at `url`, and creates the file if it does not exist. Returns the
/// names of the steps taken.
///
/// # Errors
/// See [`OpenError`]; after a failed step the schema is unchanged.
pub async fn up(url: &str) -> Result<Vec<String>, OpenError> {
    let connection = connect::writer(&Address::parse(url)?).await?;
    let taken = bring_up(&connection).await;
    close(connection).await?;
    taken
}

/// Takes back the last `steps` steps of the database at `url`: their tables are dropped with all data.
/// Returns the steps that were taken back, the last one first.
///
/// # Errors
/// See [`OpenError`]; after a failed step the schema is unchanged. The call is refused while a server works
/// with the database, on any machine.
pub async fn down(url: &str, steps: u32) -> Result<Vec<String>, OpenError> {
    let applied = async || {
        let steps = status(url).await?.into_iter().filter(|step| step.applied);
        Ok::<_, OpenError>(steps.map(|step| step.name).collect::<Vec<_>>())
    };
    let before = applied().await?;
    let connection = connect::writer(&existing(url)?).await?;
    let done = locked(&connection, Some(steps)).await;
    close(connection).await?;
    done?;
    let left = applied().await?;
    Ok(before.into_iter().rev().filter(|step| !left.contains(step)).collect())
}

/// The steps of the database at `url`, oldest first. Changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn status(url: &str) -> Result<Vec<Step>, OpenError> {
    let connection = connect::readers(&existing(url)?).await?;
    let steps = read_status(&connection).await;
    close(connection).await?;
    let step = |migration: sea_orm_migration::Migration| Step {
        name: migration.name().to_owned(),
        applied: migration.status() == MigrationStatus::Applied,
    };
    Ok(steps?.into_iter().map(step).collect())
}

/// The number of open rounds of the database at `url` that began under rules unknown to this binary: its
/// start ends each with a resync. 0 if there is no database yet. Changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn old_rounds(url: &str) -> Result<u64, OpenError> {
    let address = Address::parse(url)?;
    if !address.may_exist() {
        return Ok(0);
    }
    let connection = connect::readers(&address).await?;
    let steps = read_status(&connection).await;
    let has_rounds = steps.map(|steps| steps.iter().any(|step| step.status() == MigrationStatus::Applied));
    let text = "select count(*) from round r join cursor c on c.id = r.cursor_id and c.open_round = r.number
                where r.rules < $1 or (r.rules = $1 and exists (select 1 from dead_letter d
                  where d.cursor_id = r.cursor_id and d.bound_round = r.number))";
    let count = match has_rounds {
        Ok(true) => rows::number(&connection, "round", text, vec![(RULES - 1).into()])
            .await
            .map_err(|error| OpenError::Database(error.to_string())),
        other => other.map(|_| 0),
    };
    close(connection).await?;
    Ok(count?.unsigned_abs())
}

async fn read_status(connection: &Connection) -> Result<Vec<sea_orm_migration::Migration>, OpenError> {
    taken(connection).await?;
    Migrator::get_migration_with_status_read_only(connection).await.map_err(refused)
}

/// Takes all missing steps, all or none, while no other process can write: of several processes that start
/// together, the first one takes the steps.
pub(crate) async fn bring_up(connection: &Connection) -> Result<Vec<String>, OpenError> {
    if connection.get_database_backend() == DbBackend::Postgres {
        connect::refuse_unfit(connection).await?;
    }
    locked(connection, None).await
}

/// Texts are compared by their bytes, as SQLite does and as pages of lists require, regardless of the
/// database's language.
const BY_BYTES: &str = "do $$ declare found record; begin
    for found in select c.table_name, c.column_name from information_schema.columns c
        join pg_class k on k.relname = c.table_name and k.relnamespace = current_schema()::regnamespace
        where c.table_schema = current_schema() and c.data_type = 'text' and not k.relispartition
        and k.relkind in ('r', 'p') and c.collation_name is distinct from 'C'
        and c.table_name <> 'seaql_migrations'
    loop
        execute format('alter table %I alter column %I type text collate \"C\"', found.table_name, \
            found.column_name);
    end loop;
end $$";

/// Takes all missing steps, or takes back this number of steps. On SQLite foreign keys are off meanwhile,
/// because a step that rebuilds a table must not delete the rows that reference it. Foreign keys cannot be
/// switched inside a transaction.
async fn locked(connection: &Connection, down: Option<u32>) -> Result<Vec<String>, OpenError> {
    if connection.get_database_backend() == DbBackend::Postgres {
        return stepped(connection, down).await;
    }
    // Rebuilding a table needs temporary storage, and a container may have no directory for temporary files.
    for pragma in ["foreign_keys = off", "temp_store = memory"] {
        connection.execute_unprepared(&format!("pragma {pragma}")).await.map_err(refused)?;
    }
    let done = stepped(connection, down).await;
    for pragma in ["foreign_keys = on", "temp_store = default"] {
        connection.execute_unprepared(&format!("pragma {pragma}")).await.map_err(refused)?;
    }
    done
}

/// Takes the steps in one transaction that holds the only write lock, and that commits only if every foreign
/// key still points to a row.
async fn stepped(connection: &Connection, down: Option<u32>) -> Result<Vec<String>, OpenError> {
    let transaction = connection.begin(Share::Rebuilding).await.map_err(refused)?;
    if down.is_some() {
        // Under the lock: a server that starts meanwhile waits for its end before it registers.
        refuse_servers(&transaction).await?;
    }
    Migrator::install(&transaction).await.map_err(refused)?;
    refuse_newer(&transaction).await?;
    let mut taken = Vec::new();
    if let Some(steps) = down {
        Migrator::down(&transaction, Some(steps)).await.map_err(refused)?;
    } else {
        taken = take_missing(&transaction).await?;
    }
    if down.is_some() || !taken.is_empty() {
        refuse_dangling(&transaction).await?;
    }
    transaction.commit().await.map_err(refused)?;
    Ok(taken)
}

/// A SQLite file is claimed by the server that has it open. A PostgreSQL database has no such claim: its rows
/// show which servers are alive.
async fn refuse_servers(connection: &impl ConnectionTrait) -> Result<(), OpenError> {
    let is_shared = connection.get_database_backend() == DbBackend::Postgres;
    if !is_shared || !has_table(connection, "replica").await.map_err(asked)? {
        return Ok(());
    }
    let living = leases::living(connection).await.map_err(asked)?;
    if living.is_empty() { Ok(()) } else { Err(OpenError::InUse(living.join(", "))) }
}

async fn refuse_dangling(transaction: &DatabaseTransaction) -> Result<(), OpenError> {
    match dangling(transaction).await?.first() {
        Some(fault) => Err(OpenError::Database(format!("the steps were not applied: {fault}"))),
        None => Ok(()),
    }
}

/// Rows with a reference to a missing row. PostgreSQL has none.
async fn dangling(connection: &impl ConnectionTrait) -> Result<Vec<String>, OpenError> {
    let mut faults = Vec::new();
    if connection.get_database_backend() == DbBackend::Postgres {
        return Ok(faults);
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

async fn take_missing(transaction: &DatabaseTransaction) -> Result<Vec<String>, OpenError> {
    let pending = Migrator::get_pending_migrations(transaction).await.map_err(refused)?;
    let taken: Vec<String> = pending.iter().map(|migration| migration.name().to_owned()).collect();
    // The library logs two lines a step: a hundred at the first start.
    Migrator::up(transaction, None).with_subscriber(NoSubscriber::default()).await.map_err(refused)?;
    if let Some(last) = taken.last() {
        info!(steps = taken.len(), "the schema of the database is up to date; the last step is {last}");
    }
    if transaction.get_database_backend() == DbBackend::Postgres {
        transaction.execute_unprepared(BY_BYTES).await.map_err(refused)?;
    }
    Ok(taken)
}

/// The name of a mark among the steps of a database into which another one is being copied: every version
/// refuses such a database, also a version that does not know the mark.
const UNFINISHED: &str = "unfinished_copy";

/// Takes all missing steps and leaves the mark; whether it was there already, from a copy that was cut off.
pub(crate) async fn mark_unfinished(transaction: &DatabaseTransaction) -> Result<bool, OpenError> {
    Migrator::install(transaction).await.map_err(refused)?;
    let was_there = unmark(transaction).await?;
    refuse_newer(transaction).await?;
    take_missing(transaction).await?;
    let text = "insert into seaql_migrations (version, applied_at) values ($1, 0)";
    rows::execute(transaction, "seaql_migrations", text, vec![UNFINISHED.into()]).await.map_err(asked)?;
    Ok(was_there)
}

/// Takes the mark away; whether it was there.
pub(crate) async fn unmark(transaction: &DatabaseTransaction) -> Result<bool, OpenError> {
    let text = "delete from seaql_migrations where version = $1";
    let count = rows::execute(transaction, "seaql_migrations", text, vec![UNFINISHED.into()]).await;
    Ok(count.map_err(asked)? > 0)
}

/// The faults that a database finds in itself: on SQLite damaged pages and indexes, and references to missing
/// rows; on PostgreSQL invalid indexes.
pub(crate) async fn faults(connection: &Connection) -> Result<Vec<String>, OpenError> {
    let mut faults = Vec::new();
    if connection.get_database_backend() == DbBackend::Postgres {
        let text = "select cast(i.indexrelid as regclass)::text from pg_index i join pg_class c on c.oid = \
            i.indexrelid
                    where not i.indisvalid and c.relnamespace = current_schema()::regnamespace";
        for row in rows::mixed(connection, "pg_index", text, vec![]).await.map_err(asked)? {
            let name: String = row.try_get_by_index(0).map_err(refused)?;
            faults.push(format!("the index {name} is not whole"));
        }
        return Ok(faults);
    }
    for row in
        rows::mixed(connection, "sqlite_schema", "pragma integrity_check(20)", vec![]).await.map_err(asked)?
    {
        let said: String = row.try_get_by_index(0).map_err(refused)?;
        if said != "ok" {
            faults.push(said);
        }
    }
    faults.extend(dangling(connection).await?);
    Ok(faults)
}

/// Refuses a database with a step that this binary does not know: a newer version took it.
async fn refuse_newer(transaction: &DatabaseTransaction) -> Result<(), OpenError> {
    let taken = Migrator::get_migration_models(transaction).await.map_err(refused)?;
    all_known(taken.into_iter().map(|model| model.version))
}

/// The steps that a database has taken, oldest first; all of them are known to this binary. Changes nothing.
pub(crate) async fn taken(connection: &Connection) -> Result<Vec<String>, OpenError> {
    if !has_table(connection, "seaql_migrations").await.map_err(asked)? {
        return Ok(Vec::new());
    }
    let text = "select version from seaql_migrations order by version";
    let found = rows::mixed(connection, "seaql_migrations", text, vec![]).await.map_err(asked)?;
    let versions = found.iter().map(|row| row.try_get_by_index(0).map_err(refused));
    let versions: Vec<String> = versions.collect::<Result<_, _>>()?;
    all_known(versions.iter().cloned())?;
    Ok(versions)
}

/// Whether the database has a table of this name.
pub(crate) async fn has_table(connection: &impl ConnectionTrait, name: &str) -> Result<bool, StoreError> {
    let text = match connection.get_database_backend() {
        DbBackend::Postgres => "select count(*) from pg_class where oid = to_regclass($1)",
        _ => "select count(*) from sqlite_schema where name = $1",
    };
    Ok(rows::number(connection, "sqlite_schema", text, vec![name.into()]).await? > 0)
}

fn all_known(mut taken: impl Iterator<Item = String>) -> Result<(), OpenError> {
    let known = Migrator::get_migration_files();
    let unknown = |version: &String| !known.iter().any(|migration| migration.name() == version.as_str());
    match taken.find(unknown) {
        Some(version) if version == UNFINISHED => Err(OpenError::UnfinishedCopy),
        Some(version) => Err(OpenError::NewerSchema(version)),
        None => Ok(()),
    }
}

fn existing(url: &str) -> Result<Address, OpenError> {
    let address = Address::parse(url)?;
    if address.may_exist() {
        Ok(address)
    } else {
        Err(OpenError::Address(format!("{address} does not exist")))
    }
}

async fn close(connection: Connection) -> Result<(), OpenError> {
    connection.close().await.map_err(refused)
}

fn asked(error: StoreError) -> OpenError {
    OpenError::Database(error.to_string())
}

fn refused(error: sea_orm::DbErr) -> OpenError {
    of_start(&error)
}
