//! Steps of a start: the keyring takes the keys that other replicas handed on and must open the canary; then,
//! on SQLite, the epoch of the lease rises. Replicas share a PostgreSQL database: there the epoch stays,
//! because a higher epoch fences off all replicas.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use tidings_actors::{model::secret::Secret, ports::StoreError};
use tidings_secrets::{Keyring, SealedField};

use super::{
    connect::{Connection, Share},
    partitions, schema,
};
use crate::{
    Context, OpenError,
    database::{
        error::{of_first_use, of_start},
        rows,
    },
    keys::key_shares,
    leases::fences::{self, ALL},
};

const PLACE: SealedField<'static> = SealedField { table: "canary", column: "sealed", row: "1" };
const TEXT: &str = "this text opens with the right keyring only";

#[derive(FromQueryResult)]
struct Canary {
    sealed: Vec<u8>,
}

/// Proves the keyring, names a database that has no name yet and, on SQLite, raises the epoch; the epoch and
/// the name.
pub(crate) async fn take_over(
    connection: &Connection,
    context: &Context,
) -> Result<(i64, String), OpenError> {
    let transaction = connection.begin(Share::Alone).await.map_err(|error| of_start(&error))?;
    keep(&transaction, &context.keyring).await?;
    key_shares::take_at_start(&transaction, &context.keyring).await?;
    if !prove(&transaction, &context.keyring).await? {
        let sealed = context.keyring.seal(&PLACE, &Secret::new(TEXT.into()), &*context.random);
        let text = "insert into canary (id, sealed) values (1, $1)";
        rows::execute(&transaction, "canary", text, vec![sealed.into()]).await.map_err(of_first_use)?;
    }
    let rise = if connection.get_database_backend() == DbBackend::Postgres { 0 } else { 1 };
    let text = "insert into lease (shard, epoch, taken_at) values ($1, 1, $2)
                on conflict (shard) do update set epoch = lease.epoch + $3, taken_at = excluded.taken_at";
    let values = vec![ALL.into(), context.clock.now().0.into(), rise.into()];
    rows::execute(&transaction, "lease", text, values).await.map_err(of_first_use)?;
    let epoch = fences::epoch(&transaction).await.map_err(of_first_use)?;
    let identity = identity(&transaction, context).await.map_err(of_first_use)?;
    partitions::make_ahead(&transaction, context.clock.now()).await;
    transaction.commit().await.map_err(|error| of_start(&error))?;
    Ok((epoch, identity))
}

#[derive(FromQueryResult)]
struct Identity {
    database_id: String,
}

/// The identity of the database, which its first start draws. It tells whose a shared place is.
async fn identity(connection: &impl ConnectionTrait, context: &Context) -> Result<String, StoreError> {
    let drawn = context.random.ulid(context.clock.now()).to_string();
    let text = "update canary set database_id = $1 where id = 1 and database_id is null";
    rows::execute(connection, "canary", text, vec![drawn.into()]).await?;
    let text = "select database_id from canary where id = 1";
    let found: Option<Identity> = rows::one(connection, "canary", text, vec![]).await?;
    found.map(|found| found.database_id).ok_or(StoreError::NotFound)
}

/// Writes a new or given keyring into the data directory after it was proved, and before anything is sealed
/// with it: a refused start leaves no keyring behind, and nothing is ever sealed with a keyring that a crash
/// could lose.
async fn keep(connection: &impl ConnectionTrait, keyring: &Keyring) -> Result<(), OpenError> {
    if keyring.is_kept() {
        return Ok(());
    }
    let proved = match key_shares::keyring_after_start(connection, keyring).await {
        Ok(after_start) => prove(connection, &after_start).await,
        Err(error) => Err(error),
    };
    match proved {
        Ok(_) => keyring.keep().map_err(OpenError::Keyring),
        Err(error @ (OpenError::WrongKey(_) | OpenError::MissingKey(_))) => {
            Err(OpenError::NoKeyring(Box::new(error)))
        }
        Err(error) => Err(error),
    }
}

/// Whether no server has used the database yet: no keyring was proved on it.
pub(crate) async fn is_new(connection: &Connection) -> Result<bool, StoreError> {
    if !schema::has_table(connection, "canary").await? {
        return Ok(true);
    }
    Ok(rows::number(connection, "canary", "select count(*) from canary", vec![]).await? == 0)
}

/// Proves the keyring; `false` if no keyring was proved on the database before.
pub(crate) async fn prove(connection: &impl ConnectionTrait, keyring: &Keyring) -> Result<bool, OpenError> {
    let canary: Option<Canary> =
        rows::one(connection, "canary", "select sealed from canary where id = 1", vec![])
            .await
            .map_err(of_first_use)?;
    let Some(canary) = canary else { return Ok(false) };
    keyring.open_sealed(&PLACE, &canary.sealed).map_err(OpenError::WrongKey)?;
    Ok(true)
}
