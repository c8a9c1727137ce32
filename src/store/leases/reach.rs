//! Which rows belong to which shards, in SQL: the last eight bits of a repository's id, which are the last
//! two letters of a ULID.

use sea_orm::{ConnectionTrait, DbBackend, Value};
use tidings_actors::ports::{Reach, Shard};

/// The characters of a ULID, in the order of their values (Crockford's base32).
const LETTERS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A condition on the column of a repository's id, with the value for its parameter `$place`; `None`: every
/// repository matches.
pub(crate) fn within(
    connection: &impl ConnectionTrait,
    column: &str,
    place: usize,
    reach: &Reach,
) -> Option<(String, Value)> {
    let Reach::These(shards) = reach else { return None };
    // One statement text for every set of shards, so that it is prepared once.
    let map: String = Shard::all().map(|shard| if shards.contains(&shard) { '1' } else { '0' }).collect();
    Some((format!("substr(${place}, {} + 1, 1) = '1'", number(connection, column)), map.into()))
}

/// The expression in SQL for the shard of the repository whose id is in a column.
pub(crate) fn number(connection: &impl ConnectionTrait, column: &str) -> String {
    let find = match connection.get_database_backend() {
        DbBackend::Postgres => "strpos",
        _ => "instr",
    };
    let digit = |from_end: &str| {
        format!("({find}('{LETTERS}', substr({column}, length({column}){from_end}, 1)) - 1)")
    };
    format!("({} % 8) * 32 + {}", digit(" - 1"), digit(""))
}
