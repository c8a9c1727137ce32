//! The tables that are copied, in order, and the columns of a table, which are read from the database itself,
//! so that a new column needs no change here. A new table does: a test compares these lists with the schema.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

/// Tables whose rows are copied; each comes after those that it references.
pub(crate) const COPIED: [&str; 40] = [
    "repository",
    "app",
    "app_key",
    "sink",
    "subscription",
    "hook",
    "access_token",
    "narrowed_token",
    "credential",
    "source",
    "head",
    "view",
    "watch",
    "cursor",
    "round",
    "round_base",
    "settled",
    "dead_letter",
    "redrive",
    "attempt",
    "blob",
    "breaker",
    "commit_status",
    "idempotency",
    "receipt",
    "receipt_body",
    "audit",
    "canary",
    "restoration",
    "ledger",
    "entry",
    "entry_fold",
    "queue",
    "task",
    "task_body",
    "task_claim",
    "task_change",
    "artifact",
    "schedule",
    "worker_subscription",
];

/// Tables about processes, keys between them, and signed-in browsers; they are valid for one database only.
pub(crate) const OF_PROCESSES: [&str; 5] = ["key_share", "lease", "replica", "session", "sign_in"];

/// The kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    Bytes,
}

/// A column of a table that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A table that is copied, with its columns and primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(super) name: &'static str,
    /// The columns, found by name, because their order differs between databases.
    pub(super) columns: Vec<Column>,
    /// The indexes of the primary key's columns, in the order of the key.
    pub(super) key: Vec<usize>,
}

/// The type of each column, and its place in the key, 0 for none.
const ON_SQLITE: &str = "select name, lower(type), pk from pragma_table_info($1) order by name";
const ON_POSTGRES: &str = "select cast(a.attname as text), format_type(a.atttypid, null),
       coalesce((select k.place from pg_index i, unnest(cast(i.indkey as int2[]))
       with ordinality k(number, place)
                 where i.indrelid = a.attrelid and i.indisprimary and k.number = a.attnum), 0)
     from pg_attribute a where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
     order by a.attname";

/// How a table looks here.
pub(super) async fn read(connection: &impl ConnectionTrait, name: &'static str) -> Result<Table, DbErr> {
    let backend = connection.get_database_backend();
    let text = if backend == DbBackend::Postgres { ON_POSTGRES } else { ON_SQLITE };
    let statement = Statement::from_sql_and_values(backend, text, [name.into()]);
    let found = connection.query_all_raw(statement).await?;
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for (index, row) in found.iter().enumerate() {
        let (column, place) = column(name, row)?;
        columns.push(column);
        if place > 0 {
            key.push((place, index));
        }
    }
    if key.is_empty() {
        return Err(DbErr::Custom(format!("the table {name} is missing, or has no primary key")));
    }
    key.sort_unstable();
    Ok(Table { name, columns, key: key.into_iter().map(|(_, index)| index).collect() })
}

fn column(table: &str, row: &QueryResult) -> Result<(Column, i64), DbErr> {
    let (name, declared): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    let kind = match &*declared {
        "text" => Kind::Text,
        "bigint" | "integer" => Kind::Integer,
        "boolean" => Kind::Boolean,
        "bytea" | "blob" => Kind::Bytes,
        other => {
            return Err(DbErr::Custom(format!(
                "{table}.{name} has the type {other}, which cannot be \
             copied"
            )));
        }
    };
    Ok((Column { name, kind }, row.try_get_by_index(2)?))
}

impl Table {
    /// The names of the columns, as a list for a statement.
    pub(super) fn list(&self) -> String {
        quoted(self.columns.iter())
    }

    /// The columns as a list for reading: integers of every size are read as the largest.
    pub(super) fn selection(&self, backend: DbBackend) -> String {
        let read = |column: &Column| match column.kind {
            Kind::Integer if backend == DbBackend::Postgres => format!("cast(\"{}\" as bigint)", column.name),
            _ => format!("\"{}\"", column.name),
        };
        self.columns.iter().map(read).collect::<Vec<_>>().join(", ")
    }

    /// The names of the primary key's columns, as a list for a statement.
    pub(super) fn key_list(&self) -> String {
        quoted(self.key.iter().map(|index| &self.columns[*index]))
    }
}

fn quoted<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}
