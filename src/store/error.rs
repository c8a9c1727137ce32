//! From database errors to [`StoreError`]: a row that cannot be read, a rule that was broken, or
//! everything else, which is the database's own trouble and may pass.

use sea_orm::{DbErr, RuntimeErr, SqlErr, SqlxError};
use tidings_actors::ports::StoreError;

/// Names the table that a result is about.
pub(super) trait OfTable<T> {
    /// The value, or why the store did not do it.
    fn of(self, table: &'static str) -> Result<T, StoreError>;
}

impl<T> OfTable<T> for Result<T, DbErr> {
    fn of(self, table: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| from_database(table, &error))
    }
}

fn from_database(table: &'static str, error: &DbErr) -> StoreError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            return StoreError::Conflict(format!("such a row of {table} exists already"));
        }
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
            return StoreError::Conflict(format!("a row of {table} refers to something that is gone"));
        }
        _ => {}
    }
    if is_undecodable(error) {
        return undecodable(table, error);
    }
    StoreError::Unavailable(error.to_string())
}

fn is_undecodable(error: &DbErr) -> bool {
    match error {
        DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } | DbErr::ConvertFromU64(_) => true,
        DbErr::Query(RuntimeErr::SqlxError(error)) => matches!(
            **error,
            SqlxError::ColumnDecode { .. } | SqlxError::Decode(_) | SqlxError::ColumnNotFound(_)
        ),
        _ => false,
    }
}

/// A row of `table` holds something that this binary cannot read.
pub(super) fn undecodable(table: &'static str, reason: impl ToString) -> StoreError {
    StoreError::Undecodable { table, reason: reason.to_string() }
}
