//! On PostgreSQL `attempt` lies in parts, one a week of round numbers, which are moments: what is old goes
//! as a whole part, and what is read lies in few of them. Parts are made ahead; a round whose number is of
//! no such week lies in the part for the rest.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use tidings_actors::{ports::StoreError, time::Timestamp};

use super::{error::OfTable, rows};

/// A part's length, in milliseconds.
const WEEK: i64 = 7 * 24 * 3600 * 1000;
/// Parts that are there before their week begins.
const AHEAD: i64 = 4;
/// What the names of parts begin with; then comes the number of the week.
const PREFIX: &str = "attempt_week_";

/// Makes the parts of this week and of those to come.
pub(super) async fn make_ahead(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), StoreError> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let this = now.0.max(0) / WEEK;
    for week in this..=this + AHEAD {
        let (from, to) = (week * WEEK, (week + 1) * WEEK);
        // Rows that lie in the rest already would have to move: their week stays there.
        let text = format!(
            "select count(*) where to_regclass('{PREFIX}{week}') is not null
             or exists (select 1 from attempt_rest where round >= {from} and round < {to})"
        );
        if rows::number(connection, "attempt", &text, vec![]).await? > 0 {
            continue;
        }
        let text =
            format!("create table {PREFIX}{week} partition of attempt for values from ({from}) to ({to})");
        connection.execute_unprepared(&text).await.of("attempt")?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Part {
    name: String,
}

/// Drops the parts of weeks that are past, as far as they are empty.
pub(super) async fn drop_empty(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), StoreError> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let text =
        "select cast(c.relname as text) as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
                where i.inhparent = 'attempt'::regclass order by c.relname";
    let parts: Vec<Part> = rows::all(connection, "attempt", text, vec![]).await?;
    let this = now.0 / WEEK;
    for Part { name } in parts {
        let week = name.strip_prefix(PREFIX).and_then(|week| week.parse::<i64>().ok());
        if week.is_none_or(|week| week >= this) {
            continue;
        }
        let text = format!("select count(*) from (select 1 from {name} limit 1) found");
        if rows::number(connection, "attempt", &text, vec![]).await? == 0 {
            connection.execute_unprepared(&format!("drop table {name}")).await.of("attempt")?;
        }
    }
    Ok(())
}
