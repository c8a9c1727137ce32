//! The calls of a subscription's actor. The position moves only from the one that the actor read: a decision
//! from an older position changes nothing.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::{
        codeq,
        filter::{Filter, sets},
    },
    ports::{
        GONE, Gap, LedgerFilter, MAIL_ENTRIES_MAX, Reach, Searched, SentFrom, SinkKey, StoreError,
        SubscriptionAttempt, SubscriptionEvent, SubscriptionName, SubscriptionWork, sink_of,
    },
    time::{CLOCKS_APART, Timestamp},
};
use tidings_entity::{
    id::{AppId, SubscriptionId},
    kind::{EntryType, SinkKind, SubscriptionState},
    subscription,
};

use super::{attempts, ends, find, mails, row};
use crate::{
    Context,
    apps::{self, sinks},
    database::{error::undecodable, rows},
    leases::reach,
    ledger::{self, Note, told},
};

#[derive(FromQueryResult)]
struct Behind {
    id: SubscriptionId,
    app_id: AppId,
}

/// Subscriptions with waiting entries that can be sent now.
pub(crate) async fn behind(
    connection: &impl ConnectionTrait,
    within: &Reach,
    now: Timestamp,
) -> Result<Vec<(SubscriptionId, AppId)>, StoreError> {
    let mut values: Vec<Value> = vec![now.0.into(), GONE.into(), now.after(CLOCKS_APART).0.into()];
    let mine = match reach::within(connection, "s.app_id", 4, within) {
        None => "1 = 1".to_owned(),
        Some((condition, value)) => {
            values.push(value);
            condition
        }
    };
    let text = format!(
        "select s.id, s.app_id from subscription s join ledger l on l.app_id = s.app_id
         join sink k on k.id = s.sink_id join app a on a.id = s.app_id
         where s.position < l.last and (s.callback is null or exists (select 1 from entry e
               where e.recipient = s.id and e.number > s.position)) and s.state in ('active', 'blocked')
           and (s.expires_at is null or s.expires_at > $1)
           and (s.waits_since > $3 or (s.next_at is null or s.next_at <= $1)
             and (k.kind <> 'mail' or s.quiet_until is null or s.quiet_until <= $1))
           and k.disabled is null and (a.disabled is null or a.disabled = $2) and {mine} order by s.id"
    );
    let found: Vec<Behind> = rows::readable(connection, "subscription", &text, values).await?;
    Ok(found.into_iter().map(|row| (row.id, row.app_id)).collect())
}

/// The work of a subscription; `None`: it was removed.
pub(crate) async fn read(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &SubscriptionId,
    now: Timestamp,
    limit: u64,
) -> Result<Option<SubscriptionWork>, StoreError> {
    let Some(of_row) = row(connection, id).await? else { return Ok(None) };
    let mut subscription = find(connection, &of_row.app_id, &SubscriptionName::Id(id.clone())).await?;
    if of_row.waits_since.is_some_and(|since| since > now.after(CLOCKS_APART).0) {
        (subscription.next_at, subscription.quiet_until) = (None, None);
    }
    let key = SinkKey { app: of_row.app_id, sink: Some(sink_of(id)) };
    let app = apps::find(connection, context, "id", key.app.clone().into()).await?;
    let sink = sinks::find(connection, context, &key.app, &sink_of(id)).await?;
    let Some((app, sink)) = app.zip(sink) else { return Ok(None) };
    let app = app.at(&sink);
    let ends = ledger::ends(connection, &key.app).await?;
    let query = Filter::parse(&subscription.filter, &sets::LEDGER, now);
    let query = query.map_err(|fault| undecodable("subscription", format!("its filter: {fault}")))?;
    let recipient = subscription.callback.as_ref().map(|_| id.clone());
    let filter =
        LedgerFilter { query: Some(query), is_for_sending: true, recipient, ..LedgerFilter::default() };
    let limit = match subscription.sink.address.kind() {
        SinkKind::Mail => MAIL_ENTRIES_MAX,
        _ => limit,
    };
    let (after, last) = (subscription.position, ends.as_ref().map_or(0, |ends| ends.last));
    // The entries of a mail that was begun are read whole, also where the filter has more terms now.
    let begun = subscription.mail.map_or(0, |range| range.last);
    let read = match after < last {
        true => ledger::between(connection, &key.app, &filter, (after, last), begun, limit).await?,
        false => Searched { found: Vec::new(), next: None },
    };
    let entries = match &subscription.callback {
        Some(callback) if codeq::is_meant(callback) => ends::whole(connection, read.found).await?,
        _ => read.found,
    };
    let to = read.next.unwrap_or(last);
    Ok(Some(SubscriptionWork { subscription, app, ends, entries, to }))
}

/// Writes the outcome of the next message; `false`: the position was moved meanwhile.
pub(crate) async fn note(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &SubscriptionId,
    from: SentFrom,
    event: SubscriptionEvent,
) -> Result<bool, StoreError> {
    if let Some(attempt) = attempt_of(&event) {
        attempts::record(connection, id, attempt).await?;
    }
    let row = row(connection, id).await?.ok_or(StoreError::NotFound)?;
    if row.position != from.position {
        return Ok(false);
    }
    let sink = sinks::row(connection, &row.app_id, &row.sink_id).await?.ok_or(StoreError::NotFound)?;
    if sink.since != from.since.0 && !is_taken(&event) {
        // The new address has not answered yet.
        return Ok(false);
    }
    match event {
        SubscriptionEvent::Passed { to } => {
            let text = "update subscription set position = $2, mail_first = null, mail_last = null
                        where id = $1 and position < $2";
            let values = vec![id.clone().into(), to.into()];
            rows::execute(connection, "subscription", text, values).await?;
        }
        SubscriptionEvent::Sent { number, .. } => advance(connection, context, &row, number, 0).await?,
        SubscriptionEvent::GapTold { gap, refused, .. } => {
            let skips = if refused.is_some() { row.skips + 1 } else { 0 };
            advance(connection, context, &row, gap.last, skips).await?;
            tell_gap(connection, context, &row, gap, refused).await?;
        }
        SubscriptionEvent::TriedBehind { attempt } if attempt.outcome.is_success() => {
            let text = "update subscription set skips = 0 where id = $1";
            rows::execute(connection, "subscription", text, vec![id.clone().into()]).await?;
        }
        SubscriptionEvent::TriedBehind { .. } => {}
        SubscriptionEvent::Frozen { range } => mails::freeze(connection, id, range).await?,
        SubscriptionEvent::Mailed { range, entries, gap, refused, taken_by, quiet_until, attempt } => {
            let skips = if taken_by.is_empty() { row.skips + 1 } else { 0 };
            advance(connection, context, &row, range.last, skips).await?;
            mails::keep_quiet(connection, id, quiet_until, attempt.at).await?;
            if let Some(gap) = gap {
                tell_gap(connection, context, &row, gap, None).await?;
            }
            let address = sinks::address(sink.kind, sink.address)?;
            let all: Vec<String> = address.recipients().into_iter().map(str::to_owned).collect();
            let mail = mails::Mail { id: &attempt.message, range: Some(range), entries, to: &all };
            mails::tell(connection, context, &row, &mail, &taken_by, &refused, &attempt.outcome).await?;
        }
        SubscriptionEvent::Skipped { number, reason, attempt } => {
            advance(connection, context, &row, number, row.skips + 1).await?;
            let note = about(&row, EntryType::SubscriptionSkipped);
            let status = attempt.outcome.result.ok();
            let note = note.with("number", number).with("reason", reason).with("http_status", status);
            told::now(connection, context, note).await?;
        }
        SubscriptionEvent::Failed { blocked, thaws, attempt } => {
            if thaws {
                mails::thaw(connection, id).await?;
            }
            fail(connection, context, &row, blocked, &attempt).await?;
        }
    }
    Ok(true)
}

/// The attempt that an event reports; `None`: no message was sent.
fn attempt_of(event: &SubscriptionEvent) -> Option<&SubscriptionAttempt> {
    match event {
        SubscriptionEvent::Passed { .. } | SubscriptionEvent::Frozen { .. } => None,
        SubscriptionEvent::Sent { attempt, .. }
        | SubscriptionEvent::Mailed { attempt, .. }
        | SubscriptionEvent::GapTold { attempt, .. }
        | SubscriptionEvent::TriedBehind { attempt }
        | SubscriptionEvent::Skipped { attempt, .. }
        | SubscriptionEvent::Failed { attempt, .. } => Some(attempt.as_ref()),
    }
}

/// Whether an event is no failure of the sink: the message was accepted, or none was sent.
fn is_taken(event: &SubscriptionEvent) -> bool {
    match event {
        SubscriptionEvent::Passed { .. }
        | SubscriptionEvent::Frozen { .. }
        | SubscriptionEvent::Sent { .. } => true,
        SubscriptionEvent::GapTold { refused, .. } => refused.is_none(),
        SubscriptionEvent::Mailed { taken_by, .. } => !taken_by.is_empty(),
        SubscriptionEvent::TriedBehind { .. }
        | SubscriptionEvent::Skipped { .. }
        | SubscriptionEvent::Failed { .. } => false,
    }
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
                mail_first = null, mail_last = null,
                state = case when state = 'blocked' then 'active' else state end
                where id = $1 and position < $2";
    let values = vec![row.id.clone().into(), to.into(), skips.into()];
    rows::execute(connection, "subscription", text, values).await?;
    if row.state == SubscriptionState::Blocked {
        tell_state(connection, context, row, EntryType::SubscriptionRecovered, None).await?;
    }
    Ok(())
}

/// Writes that entries were gone before they were sent.
async fn tell_gap(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    gap: Gap,
    refused: Option<String>,
) -> Result<(), StoreError> {
    let note = about(row, EntryType::SubscriptionGap).with("first", gap.first).with("last", gap.last);
    let note = note.with("refused", refused);
    told::now(connection, context, note).await
}

async fn fail(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    blocked: Option<String>,
    attempt: &SubscriptionAttempt,
) -> Result<(), StoreError> {
    let is_new = blocked.is_some() && row.state == SubscriptionState::Active;
    let state = if is_new { SubscriptionState::Blocked } else { row.state };
    let reason =
        if state == SubscriptionState::Blocked { blocked.clone().or(row.reason.clone()) } else { None };
    let text =
        "update subscription set tries = tries + 1, next_at = $2, state = $3, reason = $4, waits_since = $5
           where id = $1";
    let values = vec![
        row.id.clone().into(),
        attempt.next_at.map(|at| at.0).into(),
        state.into(),
        reason.into(),
        attempt.at.0.into(),
    ];
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

pub(super) fn about(row: &subscription::Model, entry_type: EntryType) -> Note {
    Note::new(row.app_id.clone(), row.id.as_str(), entry_type, ledger::caller("endpoint"))
        .with("subscription", row.name.as_str())
}

/// Writes down which subscriptions ended by themselves; how many.
pub(crate) async fn expire(connection: &impl ConnectionTrait, now: Timestamp) -> Result<u64, StoreError> {
    let text = "update subscription set state = 'expired', reason = null, next_at = null
                where expires_at <= $1 and state in ('active', 'blocked')";
    rows::execute(connection, "subscription", text, vec![now.0.into()]).await
}
