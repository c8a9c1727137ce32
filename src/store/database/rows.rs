//! Statements and rows: the few forms in which this store speaks SQL. Placeholders are `$1`, which
//! SQLite and PostgreSQL both read.

pub(crate) mod filter;

use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IdenStatic, IntoActiveModel,
    Iterable, QueryResult, QueryTrait, Statement, Value, sea_query::ArrayType,
};
use tidings_actors::ports::StoreError;
use tracing::error;

use super::error::{OfTable, undecodable};

/// Most rows of a list on SQLite.
pub(crate) const LISTED_MAX: usize = 256;
/// Sizes to which lists of values are padded, so that few statement texts stay prepared.
const LIST_SIZES: [usize; 5] = [1, 4, 16, 64, LISTED_MAX];

fn statement(connection: &impl ConnectionTrait, text: &str, mut values: Vec<Value>) -> Statement {
    values.iter_mut().for_each(without_nul);
    Statement::from_sql_and_values(connection.get_database_backend(), text, values)
}

/// PostgreSQL stores no text with a NUL. Texts of people and hosts are checked where they arrive; this is the
/// last check, so that an unchecked text never makes a row that cannot be written.
fn without_nul(value: &mut Value) {
    match value {
        Value::String(Some(text)) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(_, Some(values)) => values.iter_mut().for_each(without_nul),
        _ => {}
    }
}

/// Every row as it is, for statements whose rows hold several entities.
pub(crate) async fn mixed(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, StoreError> {
    connection.query_all_raw(statement(connection, text, values)).await.of(table)
}

/// Every row; a row that cannot be read is an error.
pub(crate) async fn all<M: FromQueryResult>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<Vec<M>, StoreError> {
    let rows = connection.query_all_raw(statement(connection, text, values)).await.of(table)?;
    rows.iter().map(|row| M::from_query_result(row, "").of(table)).collect()
}

/// Every row that can be read; the others are logged, so that one bad row hides no other.
pub(crate) async fn readable<M: FromQueryResult>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<Vec<M>, StoreError> {
    let rows = connection.query_all_raw(statement(connection, text, values)).await.of(table)?;
    let read = rows.iter().map(|row| M::from_query_result(row, "").of(table));
    Ok(read.filter_map(readable_or_logged).collect())
}

/// The value, or nothing and a line in the log.
pub(crate) fn readable_or_logged<T>(result: Result<T, StoreError>) -> Option<T> {
    result.map_err(|error| error!(%error, "a row is left out because it cannot be read")).ok()
}

/// Reads the first row of a query; `None`: there is no row.
pub(crate) async fn one<M: FromQueryResult>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<Option<M>, StoreError> {
    let row = connection.query_one_raw(statement(connection, text, values)).await.of(table)?;
    row.map(|row| M::from_query_result(&row, "").of(table)).transpose()
}

/// The first column of the first row as a number; 0 where there is none.
pub(crate) async fn number(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<i64, StoreError> {
    let row = connection.query_one_raw(statement(connection, text, values)).await.of(table)?;
    let number = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose().of(table)?;
    Ok(number.flatten().unwrap_or(0))
}

/// Runs a statement; the number of rows it changed.
pub(crate) async fn execute(
    connection: &impl ConnectionTrait,
    table: &'static str,
    text: &str,
    values: Vec<Value>,
) -> Result<u64, StoreError> {
    Ok(connection.execute_raw(statement(connection, text, values)).await.of(table)?.rows_affected())
}

/// Inserts rows, some hundred a statement.
pub(crate) async fn insert<M, A>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    rows: Vec<M>,
) -> Result<(), StoreError>
where
    M: IntoActiveModel<A>,
    A: ActiveModelTrait + Send,
{
    let mut rows = rows.into_iter().map(IntoActiveModel::into_active_model).peekable();
    while rows.peek().is_some() {
        let some: Vec<A> = rows.by_ref().take(200).collect();
        let insert = <A::Entity as EntityTrait>::insert_many(some);
        let mut statement = insert.build(connection.get_database_backend());
        statement.values.iter_mut().flat_map(|values| &mut values.0).for_each(without_nul);
        connection.execute_raw(statement).await.of(table)?;
    }
    Ok(())
}

/// A list of rows for `with v(...) as`, on SQLite at most [`LISTED_MAX`], with the types of its columns
/// (`text` and `bigint`), none of them null. On PostgreSQL it is an array a column, so that one text serves
/// all lengths. On SQLite it repeats the last row up to a fixed size, which must be harmless for the
/// statement.
pub(crate) fn list(
    connection: &impl ConnectionTrait,
    types: &[&str],
    rows: &[Vec<Value>],
) -> (String, Vec<Value>) {
    debug_assert!(!rows.is_empty(), "a batch has rows");
    match connection.get_database_backend() {
        DbBackend::Postgres => arrays(types, rows),
        _ => places(types, rows),
    }
}

/// Divides rows so that [`list`] repeats none of them: for inserts, and for large rows.
pub(crate) fn sized<'r>(connection: &impl ConnectionTrait, rows: &'r [Vec<Value>]) -> Vec<&'r [Vec<Value>]> {
    if connection.get_database_backend() == DbBackend::Postgres {
        return rows.chunks(LISTED_MAX).collect();
    }
    let (mut parts, mut rest) = (Vec::new(), rows);
    while let Some(size) = LIST_SIZES.into_iter().rev().find(|size| *size <= rest.len()) {
        let (part, others) = rest.split_at(size);
        parts.push(part);
        rest = others;
    }
    parts
}

fn arrays(types: &[&str], rows: &[Vec<Value>]) -> (String, Vec<Value>) {
    let places: Vec<String> =
        types.iter().enumerate().map(|(column, kind)| format!("cast(${} as {kind}[])", column + 1)).collect();
    let array = |(column, kind): (usize, &&str)| {
        let kind = if *kind == "bigint" { ArrayType::BigInt } else { ArrayType::String };
        let values = rows.iter().map(|row| row[column].clone()).collect();
        Value::Array(kind, Some(Box::new(values)))
    };
    let values = types.iter().enumerate().map(array).collect();
    (format!("select * from unnest({})", places.join(", ")), values)
}

/// SQLite gets nameless parameters: it would search the list for each named one.
fn places(types: &[&str], rows: &[Vec<Value>]) -> (String, Vec<Value>) {
    debug_assert!(rows.len() <= LISTED_MAX, "a batch has at most {LISTED_MAX} rows");
    let size = LIST_SIZES.into_iter().find(|size| *size >= rows.len()).unwrap_or(rows.len());
    let mut text = String::from("values ");
    let mut values = Vec::with_capacity(size * types.len());
    for index in 0..size {
        text.push_str(if index == 0 { "(" } else { ", (" });
        for (column, kind) in types.iter().enumerate() {
            let comma = if column == 0 { "" } else { ", " };
            text.push_str(&match index {
                0 => format!("{comma}cast(? as {kind})"),
                _ => format!("{comma}?"),
            });
        }
        text.push(')');
        values.extend(rows[index.min(rows.len() - 1)].iter().cloned());
    }
    (text, values)
}

/// All columns of an entity for a statement with a join: `alias.column as alias_column`.
pub(crate) fn columns<E: EntityTrait>(alias: &str) -> String {
    let columns = E::Column::iter().map(|column| {
        let name = column.as_str();
        format!("{alias}.{name} as {alias}_{name}")
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// A count or size of a row.
pub(crate) fn unsigned(table: &'static str, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| undecodable(table, format!("{number} is negative")))
}

/// A count or size for a row; a number beyond the range of the column is capped.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
