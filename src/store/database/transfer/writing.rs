//! Rows of any table into another database, a page a statement.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement, Value};

use super::{
    TransferError, of_target,
    tables::{COPIED, Table},
};

/// Inserts a page of rows into a table of the target.
pub(super) async fn insert(
    transaction: &DatabaseTransaction,
    table: &Table,
    rows: Vec<Vec<Value>>,
) -> Result<(), TransferError> {
    let backend = transaction.get_database_backend();
    if backend == DbBackend::Postgres {
        rows.iter().try_for_each(|row| refuse_nul(table, row))?;
    }
    let text = statement(table, rows.len(), backend);
    let statement = Statement::from_sql_and_values(backend, text, rows.into_iter().flatten());
    transaction.execute_raw(statement).await.map_err(|error| of_target(&error)).map(drop)
}

/// SQLite gets nameless parameters: it would search the list for each named one.
fn statement(table: &Table, rows: usize, backend: DbBackend) -> String {
    let width = table.columns.len();
    let mut text = format!("insert into {} ({}) values ", table.name, table.list());
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..width {
            text.push_str(if column == 0 { "" } else { ", " });
            match backend {
                DbBackend::Postgres => text.push_str(&format!("${}", row * width + column + 1)),
                _ => text.push('?'),
            }
        }
        text.push(')');
    }
    text
}

/// Refuses a text with a NUL, which PostgreSQL does not store. Versions that support PostgreSQL write none.
fn refuse_nul(table: &Table, row: &[Value]) -> Result<(), TransferError> {
    let is_unfit = |value: &Value| matches!(value, Value::String(Some(text)) if text.contains('\0'));
    let Some(at) = row.iter().position(is_unfit) else { return Ok(()) };
    let key: Vec<String> = table.key.iter().map(|index| format!("{}", row[*index])).collect();
    let reason = format!(
        "{} of the row {} holds a NUL, which PostgreSQL takes in no text",
        table.columns[at].name,
        key.join(", ")
    );
    Err(TransferError::Unfit { table: table.name, reason })
}

/// Updates the statistics of PostgreSQL at once: otherwise it would plan as if every table were empty.
pub(super) async fn analyze(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    transaction.execute_unprepared(&format!("analyze {}", COPIED.join(", "))).await.map(drop)
}
