//! What the actor of a subscription reads and writes. The position rises from the one that the actor read,
//! and only so: whatever was decided from an older one changes nothing.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    filter::{Filter, sets},
    ports::{
        GONE, LedgerFilter, Reach, SinkKey, StoreError, SubscriptionEvent, SubscriptionName,
        SubscriptionWork, sink_of,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId},
    kind::{EntryType, SubscriptionState},
    subscription,
};

use super::{attempts, find, row};
use crate::{
    Context,
    apps::{self, sinks},
    error::undecodable,
    leases::reach,
    ledger::{self, Note, told},
    rows,
};

#[derive(FromQueryResult)]
struct Behind {
    id: SubscriptionId,
    app_id: AppId,
}

/// Subscriptions for which entries wait, and nothing keeps them.
pub(crate) async fn behind(
    connection: &impl ConnectionTrait,
    within: &Reach,
    now: Timestamp,
) -> Result<Vec<(SubscriptionId, AppId)>, StoreError> {
    let mut values: Vec<Value> = vec![now.0.into(), GONE.into()];
    let mine = match reach::within(connection, "s.app_id", 3, within) {
        None => "1 = 1".to_owned(),
        Some((condition, value)) => {
            values.push(value);
            condition
        }
    };
    let text = format!(
        "select s.id, s.app_id from subscription s join ledger l on l.app_id = s.app_id
         join sink k on k.id = s.sink_id join app a on a.id = s.app_id
         where s.position < l.last and s.state in ('active', 'blocked')
           and (s.next_at is null or s.next_at <= $1) and (s.expires_at is null or s.expires_at > $1)
           and k.disabled is null and (a.disabled is null or a.disabled = $2) and {mine} order by s.id"
    );
    let found: Vec<Behind> = rows::readable(connection, "subscription", &text, values).await?;
    Ok(found.into_iter().map(|row| (row.id, row.app_id)).collect())
}

/// What is to be done for a subscription; `None`: it is gone.
pub(crate) async fn read(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &SubscriptionId,
    now: Timestamp,
    limit: u64,
) -> Result<Option<SubscriptionWork>, StoreError> {
    let Some(of_row) = row(connection, id).await? else { return Ok(None) };
    let subscription = find(connection, &of_row.app_id, &SubscriptionName::Id(id.clone())).await?;
    let key = SinkKey { app: of_row.app_id, sink: Some(sink_of(id)) };
    let app = apps::find(connection, context, "id", key.app.clone().into()).await?;
    let sink = sinks::find(connection, context, &key.app, &sink_of(id)).await?;
    let Some((app, sink)) = app.zip(sink) else { return Ok(None) };
    let app = app.at(&sink);
    let ends = ledger::ends(connection, &key.app).await?;
    let query = Filter::parse(&subscription.filter, &sets::LEDGER, now);
    let query = query.map_err(|fault| undecodable("subscription", format!("its filter: {fault}")))?;
    let filter = LedgerFilter { query: Some(query), is_for_sending: true, ..LedgerFilter::default() };
    let (after, last) = (subscription.position, ends.as_ref().map_or(0, |ends| ends.last));
    let entries = match after < last {
        true => ledger::between(connection, &key.app, &filter, (after, last), limit).await?,
        false => Vec::new(),
    };
    let is_cut = entries.len() as u64 >= limit;
    let to = entries.last().filter(|_| is_cut).map_or(last, |entry| entry.id.number);
    Ok(Some(SubscriptionWork { subscription, app, ends, entries, to }))
}

/// Writes what became of the next message; `false`: somebody moved the position meanwhile.
pub(crate) async fn note(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &SubscriptionId,
    from: i64,
    event: SubscriptionEvent,
) -> Result<bool, StoreError> {
    let attempt = match &event {
        SubscriptionEvent::Passed { .. } => None,
        SubscriptionEvent::Sent { attempt, .. }
        | SubscriptionEvent::GapTold { attempt, .. }
        | SubscriptionEvent::Skipped { attempt, .. }
        | SubscriptionEvent::Failed { attempt, .. } => Some(attempt),
    };
    if let Some(attempt) = attempt {
        attempts::record(connection, id, attempt).await?;
    }
    let row = row(connection, id).await?.ok_or(StoreError::NotFound)?;
    if row.position != from {
        return Ok(false);
    }
    match event {
        SubscriptionEvent::Passed { to } => {
            let text = "update subscription set position = $2 where id = $1 and position < $2";
            let values = vec![id.clone().into(), to.into()];
            rows::execute(connection, "subscription", text, values).await?;
        }
        SubscriptionEvent::Sent { number, .. } => advance(connection, context, &row, number, 0).await?,
        SubscriptionEvent::GapTold { gap, .. } => {
            advance(connection, context, &row, gap.last, 0).await?;
            let note = about(&row, EntryType::SubscriptionGap);
            let note = note.with("first", gap.first).with("last", gap.last);
            told::now(connection, context, note).await?;
        }
        SubscriptionEvent::Skipped { number, reason, attempt } => {
            advance(connection, context, &row, number, row.skips + 1).await?;
            let note = about(&row, EntryType::SubscriptionSkipped);
            let status = attempt.outcome.result.ok();
            let note = note.with("number", number).with("reason", reason).with("http_status", status);
            told::now(connection, context, note).await?;
        }
        SubscriptionEvent::Failed { blocked, attempt } => {
            fail(connection, context, &row, blocked, attempt.next_at).await?;
        }
    }
    Ok(true)
}

/// The position rises. The sink answered, so a subscription that was blocked is not any more.
async fn advance(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    to: i64,
    skips: i64,
) -> Result<(), StoreError> {
    let text = "update subscription set position = $2, tries = 0, skips = $3, next_at = null, reason = null,
                state = case when state = 'blocked' then 'active' else state end
                where id = $1 and position < $2";
    let values = vec![row.id.clone().into(), to.into(), skips.into()];
    rows::execute(connection, "subscription", text, values).await?;
    if row.state == SubscriptionState::Blocked {
        tell_state(connection, context, row, EntryType::SubscriptionRecovered, None).await?;
    }
    Ok(())
}

async fn fail(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    blocked: Option<String>,
    next_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let is_new = blocked.is_some() && row.state == SubscriptionState::Active;
    let state = if is_new { SubscriptionState::Blocked } else { row.state };
    let reason =
        if state == SubscriptionState::Blocked { blocked.clone().or(row.reason.clone()) } else { None };
    let text =
        "update subscription set tries = tries + 1, next_at = $2, state = $3, reason = $4 where id = $1";
    let values = vec![row.id.clone().into(), next_at.map(|at| at.0).into(), state.into(), reason.into()];
    rows::execute(connection, "subscription", text, values).await?;
    if is_new {
        tell_state(connection, context, row, EntryType::SubscriptionBlocked, blocked).await?;
    }
    Ok(())
}

/// Writes that a subscription is blocked, or moves again.
pub(super) async fn tell_state(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    entry_type: EntryType,
    reason: Option<String>,
) -> Result<(), StoreError> {
    told::now(connection, context, about(row, entry_type).with("reason", reason)).await
}

fn about(row: &subscription::Model, entry_type: EntryType) -> Note {
    Note::new(row.app_id.clone(), row.id.as_str(), entry_type, ledger::caller("endpoint"))
        .with("subscription", row.name.as_str())
}

/// Writes down which subscriptions ended by themselves; how many.
pub(crate) async fn expire(connection: &impl ConnectionTrait, now: Timestamp) -> Result<u64, StoreError> {
    let text = "update subscription set state = 'expired', reason = null, next_at = null
                where expires_at <= $1 and state <> 'expired'";
    rows::execute(connection, "subscription", text, vec![now.0.into()]).await
}
