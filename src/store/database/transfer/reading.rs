//! Reads the rows of any table, a page at a time in the order of its key, and computes a digest over all of
//! them. Equal rows have equal digests on both databases, although these store values differently.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tidings_entity::id::Sha256Hash;

use super::{
    TransferError,
    tables::{Kind, Table},
};

/// The rows of a page. Two pages may be in memory, because one is written while the next is read.
pub(super) const PAGE: usize = 500;

/// The number of rows of a table, and their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Digest {
    /// How many rows there are.
    pub rows: u64,
    /// Over each column of each row, in the order of the primary key.
    pub sha256: Sha256Hash,
}

/// The rows of a table, in the order of its key.
pub(super) struct Pages<'a, C> {
    connection: &'a C,
    table: &'a Table,
    /// The key of the last row that was read.
    last: Option<Vec<Value>>,
    is_over: bool,
}

impl<'a, C: ConnectionTrait> Pages<'a, C> {
    pub(super) fn of(connection: &'a C, table: &'a Table) -> Self {
        Self { connection, table, last: None, is_over: false }
    }

    /// The next rows; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Vec<Value>>>, TransferError> {
        if self.is_over {
            return Ok(None);
        }
        let (name, backend) = (self.table.name, self.connection.get_database_backend());
        let (list, key) = (self.table.selection(backend), self.table.key_list());
        let beyond = self.last.as_ref().map_or(String::new(), |last| {
            let places: Vec<String> = (1..=last.len()).map(|place| format!("${place}")).collect();
            format!("where ({key}) > ({})", places.join(", "))
        });
        let text = format!("select {list} from {name} {beyond} order by {key} limit {PAGE}");
        let statement = Statement::from_sql_and_values(backend, text, self.last.clone().unwrap_or_default());
        let found = self.connection.query_all_raw(statement).await.map_err(|error| self.unfit(&error))?;
        let rows = found.iter().map(|row| self.values(row, backend)).collect::<Result<Vec<_>, _>>();
        let rows = rows.map_err(|error| self.unfit(&error))?;
        self.is_over = rows.len() < PAGE;
        let Some(last) = rows.last() else { return Ok(None) };
        self.last = Some(self.table.key.iter().map(|index| last[*index].clone()).collect());
        Ok(Some(rows))
    }

    fn values(&self, row: &QueryResult, backend: DbBackend) -> Result<Vec<Value>, DbErr> {
        let columns = self.table.columns.iter().enumerate();
        columns.map(|(at, column)| value(row, at, column.kind, backend)).collect()
    }

    fn unfit(&self, error: &DbErr) -> TransferError {
        TransferError::Unfit { table: self.table.name, reason: error.to_string() }
    }
}

/// SQLite accepts values of any type in any column: a value of another type than its column is an error.
fn value(row: &QueryResult, at: usize, kind: Kind, backend: DbBackend) -> Result<Value, DbErr> {
    Ok(match kind {
        Kind::Text => Value::String(row.try_get_by_index(at)?),
        Kind::Integer => Value::BigInt(row.try_get_by_index(at)?),
        Kind::Boolean if backend == DbBackend::Postgres => Value::Bool(row.try_get_by_index(at)?),
        Kind::Boolean => match row.try_get_by_index::<Option<i64>>(at)? {
            None => Value::Bool(None),
            Some(number @ (0 | 1)) => Value::Bool(Some(number == 1)),
            Some(other) => return Err(DbErr::Type(format!("{other} is no boolean"))),
        },
        Kind::Bytes => Value::Bytes(row.try_get_by_index(at)?),
    })
}

/// Count and digest of a table's rows; reports how many rows were read so far.
pub(super) async fn digest(
    connection: &impl ConnectionTrait,
    table: &Table,
    tell: impl Fn(u64),
) -> Result<Digest, TransferError> {
    let unfit = |reason: String| TransferError::Unfit { table: table.name, reason };
    let text = format!("select count(*) from {}", table.name);
    let counted = super::rows::number(connection, table.name, &text, vec![]).await;
    let counted = counted.map_err(|error| unfit(error.to_string()))?.unsigned_abs();
    let mut hash = Sha256::new();
    hash.update(table.list());
    let mut rows = 0;
    let mut pages = Pages::of(connection, table);
    while let Some(page) = pages.next().await? {
        rows += page.len() as u64;
        page.iter().flatten().for_each(|value| take_in(&mut hash, value));
        tell(rows);
    }
    if rows != counted {
        return Err(unfit(format!("it has {counted} rows, of which {rows} are found by its primary key")));
    }
    let hash: [u8; 32] = hash.finalize().into();
    Ok(Digest { rows, sha256: Sha256Hash::new(hash) })
}

/// Hashes a value with its kind and its length: two different lists of values never give the same bytes.
fn take_in(hash: &mut Sha256, value: &Value) {
    let mut long = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match value {
        Value::BigInt(Some(number)) => long(1, &number.to_be_bytes()),
        Value::Bool(Some(word)) => long(2, &[u8::from(*word)]),
        Value::String(Some(text)) => long(3, text.as_bytes()),
        Value::Bytes(Some(bytes)) => long(4, bytes),
        _ => hash.update([0]),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectOptions, Database};

    use super::{super::tables::Column, *};

    #[tokio::test]
    async fn rows_that_the_key_passes_over_are_missed() {
        let mut options = ConnectOptions::new("sqlite::memory:");
        // Each connection has a database of its own.
        options.max_connections(1);
        let connection = Database::connect(options).await.expect("opened");
        let columns = vec![Column { name: "id".into(), kind: Kind::Integer }];
        let table = Table { name: "numbers", columns, key: vec![0] };
        // What a damaged index shows: as if many rows had one key.
        let text = format!(
            "create table numbers (id integer); with recursive v(n) as
             (select 1 union all select n + 1 from v where n < {PAGE})
             insert into numbers select min(n, 9) from v"
        );
        connection.execute_unprepared(&text).await.expect("filled");
        let whole = digest(&connection, &table, |_| {}).await.expect("they are on one page");
        assert_eq!(whole.rows, PAGE as u64);
        connection.execute_unprepared("insert into numbers values (9)").await.expect("one more");
        let refused = digest(&connection, &table, |_| {}).await.expect_err("refused").to_string();
        assert!(refused.contains("it has 501 rows, of which 500 are found by its primary key"), "{refused}");
    }

    #[test]
    fn no_two_lists_of_values_look_alike() {
        let text = |text: &str| Value::String(Some(text.to_owned()));
        let lists = [
            vec![text("ab"), text("")],
            vec![text("a"), text("b")],
            vec![text(""), text("ab")],
            vec![text("ab"), Value::String(None)],
            vec![text("a\u{3}"), text("")],
            vec![text("a"), text("\u{3}")],
            vec![Value::Bytes(Some(b"ab".to_vec())), text("")],
            vec![text("\u{1}"), Value::Bool(Some(true))],
            vec![Value::Bool(Some(true)), text("\u{1}")],
            vec![Value::BigInt(Some(1)), text("")],
            vec![text("\0\0\0\0\0\0\0\u{1}"), text("")],
        ];
        let digests: std::collections::BTreeSet<Vec<u8>> = lists
            .iter()
            .map(|list| {
                let mut hash = Sha256::new();
                list.iter().for_each(|value| take_in(&mut hash, value));
                hash.finalize().to_vec()
            })
            .collect();
        assert_eq!(digests.len(), lists.len());
    }
}
