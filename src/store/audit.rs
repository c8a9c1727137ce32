//! The audit log: rows are appended, and old rows are removed together with a row that says so. `chain`
//! defines the hash and when rows may be removed; `pending` says how an entry gets here.

mod chain;
mod pending;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{AuditEntry, AuditFilter, AuditKept, AuditRow, StoreError},
    time::Timestamp,
};
use tidings_entity::{audit, id::Sha256Hash};
use tidings_secrets::AuditKeys;

use super::{Context, database::rows};
use chain::next;
pub use chain::{Chain, Fault, OK, PRUNED, SYSTEM, Verdict, named};
pub use pending::{Pending, about};

/// The number of rows written between two searches for old ones.
const LOOK_EVERY: i64 = 64;
/// Most rows that go at once: more than come between two looks.
const STEP: i64 = 512;

/// Appends an entry to the log, in the transaction of its act.
pub(super) async fn append(
    transaction: &impl ConnectionTrait,
    context: &Context,
    entry: AuditEntry,
    kept: AuditKept,
) -> Result<(), StoreError> {
    let (at, keys) = (entry.at, context.keyring.audit_keys());
    let row = write(transaction, entry, &keys).await?;
    if row.id % LOOK_EVERY != 0 {
        return Ok(());
    }
    let Some((through, hash)) = old(transaction, row.id, kept).await? else { return Ok(()) };
    let text = "delete from audit where id <= $1";
    rows::execute(transaction, "audit", text, vec![through.into()]).await?;
    let entry = AuditEntry {
        at,
        actor: SYSTEM.to_owned(),
        app: String::new(),
        action: PRUNED.to_owned(),
        target: format!("{through}:{hash}"),
        result: OK.to_owned(),
        request: String::new(),
        address: None,
    };
    write(transaction, entry, &keys).await.map(drop)
}

async fn write(
    transaction: &impl ConnectionTrait,
    entry: AuditEntry,
    keys: &AuditKeys,
) -> Result<AuditRow, StoreError> {
    let text = "select * from audit order by id desc limit 1";
    let last: Option<audit::Model> = rows::one(transaction, "audit", text, Vec::new()).await?;
    let row = next(last.map(|row| (row.id, row.hash)), entry, keys);
    let model = audit::Model {
        id: row.id,
        at: row.entry.at.0,
        actor: row.entry.actor.clone(),
        app: row.entry.app.clone(),
        action: row.entry.action.clone(),
        target: row.entry.target.clone(),
        result: row.entry.result.clone(),
        request: row.entry.request.clone(),
        previous: row.previous,
        hash: row.hash,
        key_id: row.key.clone(),
        address: row.entry.address.clone(),
    };
    rows::insert(transaction, "audit", vec![model]).await?;
    Ok(row)
}

/// The last of the oldest rows that may be removed; never the newest row.
async fn old(
    transaction: &impl ConnectionTrait,
    newest: i64,
    kept: AuditKept,
) -> Result<Option<(i64, Sha256Hash)>, StoreError> {
    let text = "select * from audit where id < $1 order by id limit $2";
    let values = vec![newest.into(), STEP.into()];
    let oldest: Vec<audit::Model> = rows::all(transaction, "audit", text, values).await?;
    let beyond = newest.saturating_sub(rows::signed(kept.rows));
    let going = oldest.into_iter().take_while(|row| row.id <= beyond || row.at < kept.since.0);
    Ok(going.last().map(|row| (row.id, row.hash)))
}

/// Rows that a filter means, newest first.
pub(super) async fn list(
    connection: &impl ConnectionTrait,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: u64,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut text = "select * from audit where id < $1".to_owned();
    let mut values: Vec<sea_orm::Value> = vec![before.unwrap_or(i64::MAX).into()];
    let AuditFilter { actor, app, action, target, since, until } = filter;
    let mut ask = |condition: &str, value: Option<sea_orm::Value>| {
        if let Some(value) = value {
            values.push(value);
            text.push_str(&format!(" and {condition} ${}", values.len()));
        }
    };
    ask("actor =", actor.as_deref().map(Into::into));
    ask("app =", app.as_deref().map(Into::into));
    ask("action =", action.as_deref().map(Into::into));
    ask("target =", target.as_deref().map(Into::into));
    ask("at >=", since.map(|since| since.0.into()));
    ask("at <", until.map(|until| until.0.into()));
    values.push(rows::signed(limit).into());
    text.push_str(&format!(" order by id desc limit ${}", values.len()));
    let found: Vec<audit::Model> = rows::all(connection, "audit", &text, values).await?;
    Ok(found.into_iter().map(shown).collect())
}

/// The rows of the log, oldest first.
pub(super) async fn chain(
    connection: &impl ConnectionTrait,
    after: i64,
    limit: u64,
) -> Result<Vec<AuditRow>, StoreError> {
    let text = "select * from audit where id > $1 order by id limit $2";
    let values = vec![after.into(), rows::signed(limit).into()];
    let found: Vec<audit::Model> = rows::all(connection, "audit", text, values).await?;
    Ok(found.into_iter().map(shown).collect())
}

fn shown(row: audit::Model) -> AuditRow {
    AuditRow {
        id: row.id,
        entry: AuditEntry {
            at: Timestamp(row.at),
            actor: row.actor,
            app: row.app,
            action: row.action,
            target: row.target,
            result: row.result,
            request: row.request,
            address: row.address,
        },
        previous: row.previous,
        key: row.key_id,
        hash: row.hash,
    }
}
