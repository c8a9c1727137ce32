//! Rows of breakers that have failures: read, written and closed.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    ports::{BreakerRow, StoreError},
    time::Timestamp,
};
use tidings_entity::{breaker, kind::BreakerKind};

use crate::{
    Context,
    database::rows,
    ledger::{self, told},
};

/// All breakers that have failures, by kind and id.
pub(crate) async fn list(connection: &impl ConnectionTrait) -> Result<Vec<BreakerRow>, StoreError> {
    let text = "select * from breaker order by kind, id";
    let found: Vec<breaker::Model> = rows::readable(connection, "breaker", text, vec![]).await?;
    let breaker = |row: breaker::Model| BreakerRow {
        kind: row.kind,
        id: row.id,
        failures: u32::try_from(row.failures).unwrap_or(0),
        opened_at: row.opened_at.map(Timestamp),
        probe_at: row.probe_at.map(Timestamp),
        last_error: row.last_error,
    };
    Ok(found.into_iter().map(breaker).collect())
}

/// Writes a breaker; a breaker without failures is removed. A writer that does not know that the breaker
/// opened meanwhile, on another replica, changes nothing. Opening and closing are written to ledgers.
pub(crate) async fn record(
    connection: &impl ConnectionTrait,
    context: &Context,
    breaker: BreakerRow,
) -> Result<(), StoreError> {
    let text = "select count(*) from breaker where kind = $1 and id = $2 and opened_at is not null";
    let values = vec![breaker.kind.into(), breaker.id.clone().into()];
    let was_open = rows::number(connection, "breaker", text, values).await? > 0;
    if breaker.failures == 0 {
        let text = "delete from breaker where kind = $1 and id = $2";
        let values = vec![breaker.kind.into(), breaker.id.clone().into()];
        rows::execute(connection, "breaker", text, values).await?;
    } else {
        write(connection, &breaker).await?;
    }
    let closes = was_open && breaker.failures == 0;
    if closes || (!was_open && breaker.opened_at.is_some()) {
        let notes = told::breaker(connection, &breaker).await?;
        ledger::write(connection, context, notes, context.clock.now()).await?;
    }
    Ok(())
}

async fn write(connection: &impl ConnectionTrait, breaker: &BreakerRow) -> Result<(), StoreError> {
    let text = "insert into breaker (kind, id, failures, opened_at, probe_at, last_error)
                values ($1, $2, $3, $4, $5, $6)
                on conflict (kind, id) do update set failures = excluded.failures,
                opened_at = excluded.opened_at, probe_at = excluded.probe_at, last_error = excluded.last_error
                where breaker.opened_at is null or excluded.opened_at is not null";
    let moment = |at: Option<Timestamp>| -> Value { at.map(|at| at.0).into() };
    let values = vec![
        breaker.kind.into(),
        breaker.id.clone().into(),
        i32::try_from(breaker.failures).unwrap_or(i32::MAX).into(),
        moment(breaker.opened_at),
        moment(breaker.probe_at),
        breaker.last_error.clone().into(),
    ];
    rows::execute(connection, "breaker", text, values).await.map(drop)
}

/// Takes the probe of an open breaker if it is due; of several callers only one gets it.
pub(crate) async fn try_probe(
    connection: &impl ConnectionTrait,
    kind: BreakerKind,
    id: String,
    now: Timestamp,
    next: Timestamp,
) -> Result<bool, StoreError> {
    let text = "update breaker set probe_at = $1 where kind = $2 and id = $3
                and opened_at is not null and (probe_at is null or probe_at <= $4)";
    let values = vec![next.0.into(), kind.into(), id.into(), now.0.into()];
    Ok(rows::execute(connection, "breaker", text, values).await? == 1)
}
