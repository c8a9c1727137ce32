//! Every column that holds a sealed secret, and which keys sealed what stands there.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::StoreError;

use super::rows;

/// Table and column. A test compares this list with the schema.
pub(super) const COLUMNS: [(&str, &str); 7] = [
    ("canary", "sealed"),
    ("app", "endpoint_access"),
    ("app_key", "secret"),
    ("sink", "access"),
    ("sink", "signing_key"),
    ("credential", "secret"),
    ("idempotency", "answer"),
];

#[derive(FromQueryResult)]
struct Use {
    key: Vec<u8>,
    sealed: i64,
}

/// How many values each key sealed, by the key's id.
pub(super) async fn by_key(connection: &impl ConnectionTrait) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut uses = BTreeMap::new();
    for (table, column) in COLUMNS {
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
