//! The keys of the keyring over the rows that they seal: rotating, sealing anew, retiring.
//!
//! Sealing anew goes through the tables in the order of their keys. How far it is, is remembered in
//! memory only: what is left is what the primary key did not seal, so it goes on after a kill, and a
//! value that is written meanwhile is sealed right already. A step reads, opens and seals beside the
//! writer; in its transaction stand only the updates, by key, each of them of the value that was read.
//!
//! Retiring looks beside the writer as well, in bounded steps.

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Value};
use serde::Serialize;
use tidings_actors::ports::StoreError;
use tidings_entity::id::AppId;
use tracing::{info, warn};

use super::{Context, SqlStore, error::undecodable, key_shares, rows, sealed};
use crate::secrets::{AuditKeys, Place, SecretsError};

/// Most values that one step seals anew.
pub const STEP_MAX: u64 = 500;
/// Of these, those that go into one transaction: others wait for it.
const TRANSACTION_MAX: u64 = 100;

/// Rows that are looked at in one statement where a key is to go: no other reader waits for more.
pub(super) const LOOK_MAX: u64 = 2_000;

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
    /// What rows of the audit log are checked with.
    fn audit_keys(&self) -> AuditKeys;
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
        if self.is_shared() {
            return self.rotate_among_replicas().await;
        }
        let rotated = self.writer.verb(|_transaction, context| {
            Box::pin(async move { context.keyring.rotate(&*context.random).map_err(refused) })
        });
        rotated.await?;
        let id = self.context.keyring.status().primary;
        info!("the key {id} seals from now on; `tidings key reencrypt` seals anew what older keys sealed");
        Ok(id)
    }

    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError> {
        // With the key that seals everywhere, also where this replica did not hear of it yet.
        self.follow_keys().await?;
        let mut at = self.resealing.lock().await;
        self.step(&mut at, most.clamp(1, STEP_MAX)).await
    }

    async fn retire_key(&self, id: &str) -> Result<(), StoreError> {
        if self.is_shared() {
            self.retire_among_replicas(id).await?;
            info!("the key {id} was retired: backups from before need the keyring that they were taken with");
            return Ok(());
        }
        // A key that seals no more never seals again. So once everything that was asked before is on disk,
        // nothing that it sealed can come there any more, and looking needs no writer.
        let key = id.to_owned();
        let may_go = self
            .writer
            .question(move |_transaction, context| Box::pin(async move { may_retire(context, &key) }));
        may_go.await?;
        self.refuse_needed(id).await?;
        let key = id.to_owned();
        let retire = self.writer.verb(move |_transaction, context| {
            Box::pin(async move { context.keyring.retire(&key).map_err(refused) })
        });
        retire.await?;
        info!("the key {id} was retired: backups from before need the keyring that they were taken with");
        Ok(())
    }

    fn audit_keys(&self) -> AuditKeys {
        self.context.keyring.audit_keys()
    }
}

/// Whether a key is there and seals no more.
pub(super) fn may_retire(context: &Context, id: &str) -> Result<(), StoreError> {
    let status = context.keyring.status();
    if !status.keys.iter().any(|known| known == id) {
        return Err(StoreError::NotFound);
    }
    if status.primary == id { Err(refused(SecretsError::PrimaryKey)) } else { Ok(()) }
}

/// How far sealing anew is.
#[derive(Debug, Default)]
pub(super) struct Resealing {
    /// The key that seals; another one begins anew.
    primary: String,
    /// Index into [`COLUMNS`], and the last row of it that was looked at.
    column: usize,
    after: Option<(String, String)>,
    /// Values that other keys sealed when this began, less those that were sealed anew.
    left: u64,
    /// Of these, values that do not open.
    unreadable: u64,
}

impl SqlStore {
    /// One step: as many values as it may.
    async fn step(&self, at: &mut Resealing, most_of_all: u64) -> Result<Resealed, StoreError> {
        let primary = self.context.keyring.status().primary;
        if at.primary != primary {
            let left = self.sealed_by_others(&primary).await?;
            *at = Resealing { primary: primary.clone(), left, ..Resealing::default() };
        }
        let mut done = Resealed::default();
        while done.resealed < most_of_all
            && let Some(column) = COLUMNS.get(at.column)
        {
            let most = (most_of_all - done.resealed).min(TRANSACTION_MAX);
            let found = column.others(&self.readers, at, most).await?;
            let Some(last) = found.last() else {
                (at.column, at.after) = (at.column + 1, None);
                continue;
            };
            let after = Some((last.first.clone(), last.second.clone()));
            let (count, mut fresh) = (found.len(), Vec::with_capacity(found.len()));
            for row in found {
                fresh.extend(column.sealed_anew(&self.context, row)?);
            }
            let unreadable = (count - fresh.len()) as u64;
            let key = primary.clone();
            let replace = self.writer.verb(move |transaction, context| {
                Box::pin(async move { column.replace(transaction, context, &key, fresh).await })
            });
            let Some(written) = replace.await? else {
                // Another key seals by now.
                *at = Resealing::default();
                return Box::pin(self.step(at, most_of_all)).await;
            };
            at.after = after;
            at.unreadable += unreadable;
            at.left = at.left.saturating_sub(written);
            done.resealed += written;
        }
        (done.left, done.unreadable) = (at.left, at.unreadable);
        if at.column == COLUMNS.len() {
            // The end, by count: what was sealed meanwhile is not left.
            done.left = self.sealed_by_others(&at.primary).await?;
            *at = Resealing::default();
        }
        Ok(done)
    }

    /// Refuses while something is sealed with a key.
    pub(super) async fn refuse_needed(&self, id: &str) -> Result<(), StoreError> {
        match self.sealed_with(id, LOOK_MAX).await? {
            0 => Ok(()),
            count => Err(StoreError::Conflict(format!(
                "the key {id} still seals {count} values: seal them anew first (tidings key reencrypt)"
            ))),
        }
    }

    /// How many values on disk a key sealed: read in steps of so many rows, in the order of their keys.
    pub(super) async fn sealed_with(&self, id: &str, most: u64) -> Result<u64, StoreError> {
        let id = HEXLOWER.decode(id.as_bytes()).map_err(|error| undecodable("keyring", error))?;
        let mut count = 0;
        for column in &COLUMNS {
            let mut after = None;
            loop {
                let found = column.keys(&self.readers, after.as_ref(), most).await?;
                let Some(last) = found.last() else { break };
                after = Some((last.first.clone(), last.second.clone()));
                count += found.iter().filter(|row| row.key.as_ref() == Some(&id)).count() as u64;
                if (found.len() as u64) < most {
                    break;
                }
            }
        }
        Ok(count)
    }

    async fn sealed_by_others(&self, primary: &str) -> Result<u64, StoreError> {
        let uses = sealed::by_key(&self.snapshot().await?).await?;
        Ok(uses.iter().filter(|(key, _)| *key != primary).map(|(_, count)| count).sum())
    }
}

/// A sealed value with the two parts of its row's key; the second may be empty.
#[derive(FromQueryResult)]
struct Row {
    first: String,
    second: String,
    sealed: Vec<u8>,
}

/// The key that sealed a row's value, if there is one.
#[derive(FromQueryResult)]
struct KeyOf {
    first: String,
    second: String,
    key: Option<Vec<u8>>,
}

/// A value that the primary key sealed, and the row that it goes into.
struct Fresh {
    row: Row,
    sealed: Vec<u8>,
    fingerprint: Option<String>,
}

/// A column of sealed values: how its rows are named, read and written.
struct Column {
    table: &'static str,
    column: &'static str,
    /// Expressions for the two parts of the key.
    key: (&'static str, &'static str),
    /// How the table orders its rows.
    order: &'static str,
    /// What names a row, and the same of the parts `$2` and `$3`.
    row: (&'static str, &'static str),
    place: fn(&Row) -> String,
}

static COLUMNS: [Column; 7] = [
    Column {
        table: "canary",
        column: "sealed",
        key: ("'1'", "''"),
        order: "id",
        row: ("(id, '')", "(cast($2 as bigint), $3)"),
        place: |row| row.first.clone(),
    },
    Column {
        table: "app",
        column: "endpoint_access",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |row| row.first.clone(),
    },
    Column {
        table: "app_key",
        column: "secret",
        key: ("app_id", "cast(ordinal as text)"),
        order: "app_id, ordinal",
        row: ("(app_id, ordinal)", "($2, cast($3 as bigint))"),
        place: |row| format!("{}/{}", row.first, row.second),
    },
    Column {
        table: "sink",
        column: "access",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |row| row.first.clone(),
    },
    Column {
        table: "sink",
        column: "signing_key",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |row| row.first.clone(),
    },
    Column {
        table: "credential",
        column: "secret",
        key: ("id", "app_id"),
        order: "id",
        row: ("(id, app_id)", "($2, $3)"),
        place: |row| row.first.clone(),
    },
    Column {
        table: "idempotency",
        column: "answer",
        key: ("owner", "key_hash"),
        order: "owner, key_hash",
        row: ("(owner, key_hash)", "($2, $3)"),
        place: |row| format!("{}/{}", row.first, row.second),
    },
];

impl Column {
    /// The next values that another key sealed, in the order of their keys.
    async fn others(
        &self,
        connection: &impl ConnectionTrait,
        at: &Resealing,
        most: u64,
    ) -> Result<Vec<Row>, StoreError> {
        let Self { table, column, key: (first, second), order, row: (key, parts), .. } = self;
        let primary =
            HEXLOWER.decode(at.primary.as_bytes()).map_err(|error| undecodable("keyring", error))?;
        let mut values: Vec<Value> = vec![primary.into()];
        let beyond = at.after.as_ref().map_or_else(String::new, |(first, second)| {
            values.extend([first.clone().into(), second.clone().into()]);
            format!("and {key} > {parts}")
        });
        values.push(rows::signed(most).into());
        let text = format!(
            "select {first} as first, {second} as second, {column} as sealed from {table}
             where {column} is not null and substr({column}, 2, 4) <> $1 {beyond}
             order by {order} limit ${}",
            values.len()
        );
        rows::all(connection, table, &text, values).await
    }

    /// The keys of the next rows, in their order.
    async fn keys(
        &self,
        connection: &impl ConnectionTrait,
        after: Option<&(String, String)>,
        most: u64,
    ) -> Result<Vec<KeyOf>, StoreError> {
        let Self { table, column, key: (first, second), order, row: (key, parts), .. } = self;
        let mut values: Vec<Value> = vec![rows::signed(most).into()];
        let beyond = after.map_or_else(String::new, |(first, second)| {
            values.extend([first.clone().into(), second.clone().into()]);
            format!("where {key} > {parts}")
        });
        // An envelope begins with its version, a byte, and the key's id, four bytes.
        let text = format!(
            "select {first} as first, {second} as second, substr({column}, 2, 4) as key from {table}
             {beyond} order by {order} limit $1"
        );
        rows::all(connection, table, &text, values).await
    }

    /// A value as the primary key seals it; nothing where it does not open.
    fn sealed_anew(&self, context: &Context, row: Row) -> Result<Option<Fresh>, StoreError> {
        let Self { table, column, .. } = self;
        let name = (self.place)(&row);
        let place = Place { table, column, row: &name };
        let secret = match context.keyring.open_sealed(&place, &row.sealed) {
            Ok(secret) => secret,
            Err(error) => {
                warn!("a value of {table} ({name}) cannot be sealed anew: {error}");
                return Ok(None);
            }
        };
        let sealed = context.keyring.seal(&place, &secret, &*context.random);
        let fingerprint = if *table == "credential" {
            // What the old key made is found only as long as that key is there.
            let app: AppId = row.second.parse().map_err(|error| undecodable(table, error))?;
            context.keyring.fingerprints(&app, &secret).into_iter().next()
        } else {
            None
        };
        Ok(Some(Fresh { row, sealed, fingerprint }))
    }

    /// Puts values in place of those that were read, where these still stand there; how many. Nothing
    /// where another key seals by now: the one that sealed these may be retired at any moment.
    async fn replace(
        &self,
        transaction: &DatabaseTransaction,
        context: &Context,
        primary: &str,
        fresh: Vec<Fresh>,
    ) -> Result<Option<u64>, StoreError> {
        if context.keyring.status().primary != primary {
            return Ok(None);
        }
        key_shares::may_seal(transaction, &context.keyring).await?;
        let Self { table, column, row: (key, parts), .. } = self;
        let mut written = 0;
        for Fresh { row, sealed, fingerprint } in fresh {
            let mut values: Vec<Value> =
                vec![sealed.into(), row.first.into(), row.second.into(), row.sealed.into()];
            let mut set = format!("{column} = $1");
            if let Some(fingerprint) = fingerprint {
                set.push_str(", fingerprint = $5");
                values.push(fingerprint.into());
            }
            let text = format!("update {table} set {set} where {key} = {parts} and {column} = $4");
            written += rows::execute(transaction, table, &text, values).await?;
        }
        Ok(Some(written))
    }
}

pub(super) fn refused(error: SecretsError) -> StoreError {
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
