//! Every column with sealed secrets, and the keys that sealed their values.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::ports::StoreError;

use crate::{
    SqlStore,
    database::{error::undecodable, rows},
};

/// The rows that one statement reads when a key is retired: other readers wait at most that long.
pub(crate) const LOOK_MAX: u64 = 2_000;

/// A column of sealed values: how its rows are named, read and written.
pub(crate) struct SealedColumn {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    /// Expressions for the two parts of the key.
    pub(crate) key: (&'static str, &'static str),
    /// How the table orders its rows.
    pub(crate) order: &'static str,
    /// The columns that name a row, and the same for the parameters `$2` and `$3`.
    pub(crate) row: (&'static str, &'static str),
    /// The row that the value was sealed for, from the two parts of its key.
    pub(crate) place: fn(&str, &str) -> String,
}

/// All columns with sealed values; a test compares this list with the schema.
pub(crate) static COLUMNS: [SealedColumn; 12] = [
    SealedColumn {
        table: "canary",
        column: "sealed",
        key: ("'1'", "''"),
        order: "id",
        row: ("(id, '')", "(cast($2 as bigint), $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "app",
        column: "endpoint_access",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "app_key",
        column: "secret",
        key: ("app_id", "cast(ordinal as text)"),
        order: "app_id, ordinal",
        row: ("(app_id, ordinal)", "($2, cast($3 as bigint))"),
        place: |first, second| format!("{first}/{second}"),
    },
    SealedColumn {
        table: "sink",
        column: "access",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "sink",
        column: "signing_key",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "sink",
        column: "former_key",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "hook",
        column: "secret",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "hook",
        column: "former_secret",
        key: ("id", "''"),
        order: "id",
        row: ("(id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "receipt_body",
        column: "sealed",
        key: ("receipt_id", "''"),
        order: "receipt_id",
        row: ("(receipt_id, '')", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "credential",
        column: "secret",
        key: ("id", "app_id"),
        order: "id",
        row: ("(id, app_id)", "($2, $3)"),
        place: |first, _| first.to_owned(),
    },
    SealedColumn {
        table: "idempotency",
        column: "answer",
        key: ("owner", "key_hash"),
        order: "owner, key_hash",
        row: ("(owner, key_hash)", "($2, $3)"),
        place: |first, second| format!("{first}/{second}"),
    },
    SealedColumn {
        table: "commit_status",
        column: "secret",
        key: ("watch_id", "commit_id"),
        order: "watch_id, commit_id",
        row: ("(watch_id, commit_id)", "($2, $3)"),
        place: |first, second| format!("{first}/{second}"),
    },
];

/// The key that sealed a row's value, if there is one.
#[derive(FromQueryResult)]
struct KeyOf {
    first: String,
    second: String,
    key: Option<Vec<u8>>,
}

impl SealedColumn {
    /// The keys that sealed the next rows, in the order of the rows.
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
}

impl SqlStore {
    /// Refuses while something is sealed with a key.
    pub(crate) async fn refuse_needed(&self, id: &str) -> Result<(), StoreError> {
        match self.sealed_with(id, LOOK_MAX).await? {
            0 => Ok(()),
            count => Err(StoreError::Conflict(format!(
                "the key {id} still seals {count} values: seal them again first (tidings key reencrypt)"
            ))),
        }
    }

    /// The number of stored values that a key sealed, counted in steps of this many rows.
    pub(crate) async fn sealed_with(&self, id: &str, most: u64) -> Result<u64, StoreError> {
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
}

#[derive(FromQueryResult)]
struct Use {
    key: Vec<u8>,
    sealed: i64,
}

/// How many values each key sealed, by the key's id.
pub(crate) async fn by_key(connection: &impl ConnectionTrait) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut uses = BTreeMap::new();
    for SealedColumn { table, column, .. } in &COLUMNS {
        // An envelope begins with its version, a byte, and the key's id, four bytes.
        let text = format!(
            "select substr({column}, 2, 4) as key, count(*) as sealed from {table}
             where {column} is not null group by substr({column}, 2, 4)"
        );
        for found in rows::all::<Use>(connection, table, &text, vec![]).await? {
            *uses.entry(HEXLOWER.encode(&found.key)).or_default() += rows::unsigned(table, found.sealed)?;
        }
    }
    Ok(uses)
}
