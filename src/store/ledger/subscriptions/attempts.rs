//! The attempts of subscriptions: rows of `attempt` whose round is the moment of the entry (by which
//! PostgreSQL partitions the table) and whose position is its number.

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{StoreError, SubscriptionAttempt},
    time::Timestamp,
};
use tidings_entity::{attempt, id::SubscriptionId, kind::OwnerKind};

use crate::{
    database::rows::{self, signed},
    lanes::letters::attempts,
};

/// The number of entries whose attempts are kept, for each subscription.
const KEPT: i64 = 1_000;
/// How often older attempts are removed: with each entry whose number is a multiple of this.
const EACH: i64 = 100;

/// Stores an attempt. Returns its number. An attempt of a removed subscription is not stored.
pub(crate) async fn record(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
    attempt: &SubscriptionAttempt,
) -> Result<(), StoreError> {
    let SubscriptionAttempt { message, entry, entry_at, outcome, is_of_message, at, next_at, .. } = attempt;
    let text = "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, status,
                item_failure, excerpt, took_ms, ended_at, answer_headers, answer_body, next_at)
                select $1, id, $2, $3, coalesce((select max(a.number) from attempt a where a.owner_kind = $1
                    and a.owner_id = $13 and a.round = $2 and a.position = $3), 0) + 1,
                  $4, $5, $6, $7, $8, $9, $10, $11, $12 from subscription where id = $13";
    let (headers, body) = attempts::kept(outcome.answer.as_deref())?;
    let values = vec![
        OwnerKind::Subscription.into(),
        entry_at.0.into(),
        (*entry).into(),
        message.clone().into(),
        outcome.result.ok().map(i32::from).into(),
        (*is_of_message).into(),
        outcome.excerpt.clone().into(),
        i64::try_from(outcome.took.as_millis()).unwrap_or(i64::MAX).into(),
        at.0.into(),
        headers.into(),
        body.into(),
        next_at.map(|at| at.0).into(),
        id.clone().into(),
    ];
    rows::execute(connection, "attempt", text, values).await?;
    if entry % EACH != 0 {
        return Ok(());
    }
    let text = "delete from attempt where owner_kind = $1 and owner_id = $2 and position <= $3";
    let values = vec![OwnerKind::Subscription.into(), id.clone().into(), (entry - KEPT).into()];
    rows::execute(connection, "attempt", text, values).await.map(drop)
}

/// The tries of a subscription, newest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
    entry: Option<i64>,
    before: Option<(Timestamp, i64, u32)>,
    limit: u64,
) -> Result<Vec<SubscriptionAttempt>, StoreError> {
    let mut values = vec![OwnerKind::Subscription.into(), id.clone().into(), signed(limit).into()];
    let mut conditions = String::new();
    if let Some(entry) = entry {
        values.push(entry.into());
        conditions.push_str(&format!(" and position = ${}", values.len()));
    }
    if let Some((at, entry, number)) = before {
        let first = values.len() + 1;
        values.extend([at.0.into(), entry.into(), i64::from(number).into()]);
        let (second, third) = (first + 1, first + 2);
        conditions.push_str(&format!(" and (ended_at, position, number) < (${first}, ${second}, ${third})"));
    }
    let text = format!(
        "select * from attempt where owner_kind = $1 and owner_id = $2{conditions}
         order by ended_at desc, position desc, number desc limit $3"
    );
    let found: Vec<attempt::Model> = rows::readable(connection, "attempt", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// Removes all tries of a subscription.
pub(crate) async fn remove(connection: &impl ConnectionTrait, id: &SubscriptionId) -> Result<(), StoreError> {
    let text = "delete from attempt where owner_kind = $1 and owner_id = $2";
    let values = vec![OwnerKind::Subscription.into(), id.clone().into()];
    rows::execute(connection, "attempt", text, values).await.map(drop)
}

fn shown(row: attempt::Model) -> Result<SubscriptionAttempt, StoreError> {
    Ok(SubscriptionAttempt {
        message: row.delivery_id.clone(),
        entry: row.position,
        entry_at: Timestamp(row.round),
        number: u32::try_from(row.number).unwrap_or(0),
        is_of_message: row.item_failure,
        at: Timestamp(row.ended_at),
        next_at: row.next_at.map(Timestamp),
        outcome: attempts::outcome(row)?,
    })
}
