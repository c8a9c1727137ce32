//! The keys of the keyring over the rows that they seal: rotating, sealing anew, retiring.
//!
//! Sealing anew needs no memory of its own: what is left is what the primary key did not seal. So it
//! goes on after a kill where it was, and a value that is written meanwhile is sealed right already.
//! Each step is one bounded transaction among all others.

use std::collections::BTreeMap;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sea_orm::{DatabaseTransaction, FromQueryResult, Value};
use serde::Serialize;
use tidings_actors::ports::StoreError;
use tidings_entity::id::AppId;
use tracing::{info, warn};

use super::{Context, SqlStore, error::undecodable, rows, sealed};
use crate::secrets::{Place, SecretsError};

/// Most values that one step seals anew.
pub const STEP_MAX: u64 = 500;

/// A key and what it seals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFacts {
    /// Its id.
    pub id: String,
    /// Whether it seals what is written now.
    pub is_primary: bool,
    /// Values in the database that only this key opens.
    pub sealed: u64,
}

/// What one step of sealing anew did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resealed {
    /// Values that the primary key seals now.
    pub resealed: u64,
    /// Values that another key still seals.
    pub left: u64,
    /// Of these, values that do not open: their key is missing, or they are damaged.
    pub unreadable: u64,
}

/// What may be done with the keys of a running house.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// The keys, oldest first; a key that the keyring lacks comes last.
    async fn keys(&self) -> Result<Vec<KeyFacts>, StoreError>;
    /// Adds a key, which seals from now on; its id.
    async fn rotate_key(&self) -> Result<String, StoreError>;
    /// Seals at most `most` values anew with the primary key.
    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError>;
    /// Takes a key out of the keyring; [`StoreError::Conflict`] while anything needs it.
    async fn retire_key(&self, id: &str) -> Result<(), StoreError>;
}

#[async_trait]
impl Keys for SqlStore {
    async fn keys(&self) -> Result<Vec<KeyFacts>, StoreError> {
        let mut uses = sealed::by_key(&self.snapshot().await?).await?;
        let status = self.context.keyring.status();
        let known = status.keys.into_iter().map(|id| KeyFacts {
            is_primary: id == status.primary,
            sealed: uses.remove(&id).unwrap_or(0),
            id,
        });
        let mut keys: Vec<KeyFacts> = known.collect();
        keys.extend(uses.into_iter().map(|(id, sealed)| KeyFacts { id, is_primary: false, sealed }));
        Ok(keys)
    }

    async fn rotate_key(&self) -> Result<String, StoreError> {
        let rotated = self.writer.verb(|_transaction, context| {
            Box::pin(async move { context.keyring.rotate(&*context.random).map_err(refused) })
        });
        rotated.await?;
        let id = self.context.keyring.status().primary;
        info!("the key {id} seals from now on; `tidings key reencrypt` seals anew what older keys sealed");
        Ok(id)
    }

    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError> {
        let most = most.clamp(1, STEP_MAX);
        self.writer
            .verb(move |transaction, context| Box::pin(async move { step(transaction, context, most).await }))
            .await
    }

    async fn retire_key(&self, id: &str) -> Result<(), StoreError> {
        let key = id.to_owned();
        // What others did in the same transaction may yet be taken back, but the file is not: so nothing
        // may be sealed with it on disk either, at a moment when it seals no more.
        let seals = self.context.keyring.status().primary == key;
        let on_disk = sealed::by_key(&self.snapshot().await?).await?.get(id).copied().unwrap_or(0);
        self.writer
            .verb(move |transaction, context| {
                Box::pin(async move { retire(transaction, context, &key, seals, on_disk).await })
            })
            .await?;
        info!("the key {id} was retired: backups from before need the keyring that they were taken with");
        Ok(())
    }
}

/// Nothing that was sealed meanwhile can be missed: this runs in the transaction that nobody else
/// writes beside, and what is sealed later is sealed with another key.
async fn retire(
    transaction: &DatabaseTransaction,
    context: &Context,
    id: &str,
    sealed_until_now: bool,
    on_disk: u64,
) -> Result<(), StoreError> {
    let uses: BTreeMap<String, u64> = sealed::by_key(transaction).await?;
    if !context.keyring.status().keys.iter().any(|known| known == id) {
        return Err(StoreError::NotFound);
    }
    let count = uses.get(id).copied().unwrap_or(0).max(on_disk);
    if context.keyring.status().primary == id {
        return context.keyring.retire(id).map_err(refused);
    }
    if count > 0 {
        return Err(StoreError::Conflict(format!(
            "the key {id} still seals {count} values: seal them anew first (tidings key reencrypt)"
        )));
    }
    if sealed_until_now {
        return Err(StoreError::Conflict(format!("the key {id} sealed until a moment ago: ask again")));
    }
    context.keyring.retire(id).map_err(refused)
}

/// One step: as many values as it may, column after column.
async fn step(
    transaction: &DatabaseTransaction,
    context: &Context,
    most: u64,
) -> Result<Resealed, StoreError> {
    let primary = context.keyring.status().primary;
    let primary_id = HEXLOWER.decode(primary.as_bytes()).map_err(|error| undecodable("keyring", error))?;
    let mut done = Resealed::default();
    for column in &COLUMNS {
        // Values that do not open are passed over, so that they hold up no other.
        let mut passed = 0;
        while done.resealed < most {
            let values = vec![
                primary_id.clone().into(),
                rows::signed(most - done.resealed).into(),
                rows::signed(passed).into(),
            ];
            let found: Vec<Row> = rows::all(transaction, column.table, &column.select(), values).await?;
            if found.is_empty() {
                break;
            }
            for row in found {
                match column.reseal(transaction, context, row).await? {
                    true => done.resealed += 1,
                    false => passed += 1,
                }
            }
        }
        done.unreadable += passed;
    }
    let uses = sealed::by_key(transaction).await?;
    done.left = uses.iter().filter(|(key, _)| **key != primary).map(|(_, count)| count).sum();
    Ok(done)
}

/// A sealed value with the two parts of its row's key; the second may be empty.
#[derive(FromQueryResult)]
struct Row {
    first: String,
    second: String,
    sealed: Vec<u8>,
}

/// A column of sealed values: how its rows are named, read and written.
struct Column {
    table: &'static str,
    column: &'static str,
    /// Expressions for the two parts of the key.
    key: (&'static str, &'static str),
    /// Finds the row; `$1` is the new value, `$2` and `$3` are the parts.
    condition: &'static str,
    place: fn(&Row) -> String,
}

const COLUMNS: [Column; 5] = [
    Column {
        table: "canary",
        column: "sealed",
        key: ("'1'", "''"),
        condition: "id = 1",
        place: |row| row.first.clone(),
    },
    Column {
        table: "app",
        column: "endpoint_access",
        key: ("id", "''"),
        condition: "id = $2",
        place: |row| row.first.clone(),
    },
    Column {
        table: "app_key",
        column: "secret",
        key: ("app_id", "cast(ordinal as text)"),
        condition: "app_id = $2 and ordinal = cast($3 as bigint)",
        place: |row| format!("{}/{}", row.first, row.second),
    },
    Column {
        table: "credential",
        column: "secret",
        key: ("id", "app_id"),
        condition: "id = $2 and app_id = $3",
        place: |row| row.first.clone(),
    },
    Column {
        table: "idempotency",
        column: "answer",
        key: ("owner", "key_hash"),
        condition: "owner = $2 and key_hash = $3",
        place: |row| format!("{}/{}", row.first, row.second),
    },
];

impl Column {
    fn select(&self) -> String {
        let Self { table, column, key: (first, second), .. } = self;
        format!(
            "select {first} as first, {second} as second, {column} as sealed from {table}
             where {column} is not null and substr({column}, 2, 4) <> $1
             order by 1, 2 limit $2 offset $3"
        )
    }

    /// Seals one value anew; false where it does not open.
    async fn reseal(
        &self,
        transaction: &DatabaseTransaction,
        context: &Context,
        row: Row,
    ) -> Result<bool, StoreError> {
        let Self { table, column, condition, .. } = self;
        let name = (self.place)(&row);
        let place = Place { table, column, row: &name };
        let secret = match context.keyring.open_sealed(&place, &row.sealed) {
            Ok(secret) => secret,
            Err(error) => {
                warn!("a value of {table} ({name}) cannot be sealed anew: {error}");
                return Ok(false);
            }
        };
        let sealed = context.keyring.seal(&place, &secret, &*context.random);
        let mut values: Vec<Value> = vec![sealed.into()];
        for (part, value) in [("$2", &row.first), ("$3", &row.second)] {
            if condition.contains(part) {
                values.push(value.clone().into());
            }
        }
        let text = format!("update {table} set {column} = $1 where {condition}");
        rows::execute(transaction, table, &text, values).await?;
        if *table == "credential" {
            // What the old key made is found only as long as that key is there.
            let app: AppId = row.second.parse().map_err(|error| undecodable(table, error))?;
            let fingerprint = context.keyring.fingerprints(&app, &secret).into_iter().next();
            let text = "update credential set fingerprint = $1 where id = $2";
            rows::execute(transaction, table, text, vec![fingerprint.into(), row.first.into()]).await?;
        }
        Ok(true)
    }
}

fn refused(error: SecretsError) -> StoreError {
    match error {
        SecretsError::UnknownKey(_) => StoreError::NotFound,
        SecretsError::PrimaryKey => StoreError::Conflict(error.to_string()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

#[cfg(test)]
pub(super) fn columns() -> Vec<(&'static str, &'static str)> {
    COLUMNS.iter().map(|column| (column.table, column.column)).collect()
}
