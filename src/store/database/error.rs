//! From database errors to [`StoreError`]: a row that cannot be read, a rule that was broken, or
//! everything else, which is the database's own trouble and may pass.

use sea_orm::{DbErr, RuntimeErr, SqlErr, SqlxError};
use tidings_actors::ports::StoreError;
use tidings_secrets::SecretsError;

use crate::OpenError;

/// Names the table that a result is about.
pub(crate) trait OfTable<T> {
    /// The value, or the reason why the store failed.
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
            return StoreError::Conflict(format!("a row of {table} with the same key exists already"));
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

/// The code of an error (SQLSTATE) of the PostgreSQL server; `None` for other errors.
pub(crate) fn code(error: &DbErr) -> Option<String> {
    told(error)?.as_database_error()?.code().map(|code| code.into_owned())
}

/// The error of the driver.
fn told(error: &DbErr) -> Option<&SqlxError> {
    let (DbErr::Conn(told) | DbErr::Exec(told) | DbErr::Query(told)) = error else { return None };
    let RuntimeErr::SqlxError(told) = told else { return None };
    Some(told)
}

/// Whether an error of the server is temporary: the server is starting, full or failing over, or another
/// session holds a lock.
pub(crate) fn passes(code: &str) -> bool {
    const PASSING: [&str; 10] =
        ["25006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02"];
    PASSING.contains(&code) || code == "57P03" || code.starts_with("08")
}

/// The error of a start that cannot use the database; temporary errors are told apart, because the start
/// waits for them.
pub(crate) fn of_start(error: &DbErr) -> OpenError {
    let is_passing = match code(error) {
        Some(code) => passes(&code),
        None => is_of_connection(error),
    };
    let said = told(error).map_or_else(|| error.to_string(), words);
    if is_passing { OpenError::Unreachable(said) } else { OpenError::Database(said) }
}

/// An error in the server's own words, with the remedy; other fields of the error name lines of the server's
/// source.
pub(crate) fn words(told: &SqlxError) -> String {
    match told.as_database_error() {
        Some(said) => {
            format!("{}{}", said.message(), said.code().map_or("", |code| remedy(&code)))
        }
        None => told.to_string(),
    }
}

/// The remedy for an error of the server, if known.
fn remedy(code: &str) -> &'static str {
    match code {
        "3D000" => "; make it (CREATE DATABASE), or let database.url name one that exists",
        "28P01" | "28000" => "; database.url names the user and the password",
        "42501" => "; give the user of database.url the right (GRANT), or let it own the database",
        _ => "",
    }
}

/// Whether the connection broke, or could not be made.
fn is_of_connection(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::SqlxError(told))
        | DbErr::Exec(RuntimeErr::SqlxError(told))
        | DbErr::Query(RuntimeErr::SqlxError(told)) => {
            matches!(**told, SqlxError::Io(_) | SqlxError::PoolTimedOut | SqlxError::PoolClosed)
        }
        _ => false,
    }
}

/// The error of a start whose first call failed, sorted in the same way.
pub(crate) fn of_first_use(error: StoreError) -> OpenError {
    match error {
        StoreError::Unavailable(why) => OpenError::Unreachable(why),
        other => OpenError::Database(other.to_string()),
    }
}

/// The error of the store for a failure of the keyring.
pub(crate) fn of_keyring(error: SecretsError) -> StoreError {
    match error {
        SecretsError::UnknownKey(_) => StoreError::NotFound,
        SecretsError::PrimaryKey => StoreError::Conflict(error.to_string()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// A row of `table` holds something that this binary cannot read.
pub(crate) fn undecodable(table: &'static str, reason: impl ToString) -> StoreError {
    StoreError::Undecodable { table, reason: reason.to_string() }
}
