//! Room that a SQLite file does not use any more, given back to the disk. PostgreSQL does so by itself.

use sea_orm::{ConnectionTrait, DbBackend};
use tidings_actors::ports::StoreError;

use crate::database::{
    error::OfTable,
    rows::{self, unsigned},
};

/// Most pages that one transaction gives back (2 MiB): other writers wait about 10 ms for it.
const STEP: u64 = 500;
const OF: &str = "sqlite_schema";

/// Gives back at most [`STEP`] pages of what the file has unused beyond `kept` bytes. Returns the bytes that
/// were given back; none of a file that an older version made.
pub(crate) async fn give_back(connection: &impl ConnectionTrait, kept: u64) -> Result<u64, StoreError> {
    if connection.get_database_backend() == DbBackend::Postgres {
        return Ok(0);
    }
    let size = value_of(connection, "page_size").await?;
    let unused = value_of(connection, "freelist_count").await?;
    let spare = unused.saturating_sub(kept / size.max(1)).min(STEP);
    if spare == 0 {
        return Ok(0);
    }
    let before = value_of(connection, "page_count").await?;
    connection.execute_unprepared(&format!("pragma incremental_vacuum({spare})")).await.of(OF)?;
    let after = value_of(connection, "page_count").await?;
    Ok(before.saturating_sub(after) * size)
}

async fn value_of(connection: &impl ConnectionTrait, pragma: &str) -> Result<u64, StoreError> {
    let text = format!("select {pragma} from pragma_{pragma}()");
    unsigned(OF, rows::number(connection, OF, &text, vec![]).await?)
}
