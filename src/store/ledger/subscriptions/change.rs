//! Changing a subscription: each part that is named, in one transaction.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    ports::{StoreError, Subscription, SubscriptionName, SubscriptionPatch, sink_of},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId},
    kind::{EntryType, SubscriptionState},
    subscription,
};

use super::{find, position, refuse_taken, row, work};
use crate::{Context, apps::sinks, database::rows};

/// Changes the parts of a subscription that the patch names.
pub(crate) async fn change(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &SubscriptionId,
    patch: SubscriptionPatch,
    now: Timestamp,
) -> Result<Subscription, StoreError> {
    let mut next = row(connection, id).await?.filter(|row| row.app_id == *app).ok_or(StoreError::NotFound)?;
    refuse_of_callback(&next, &patch)?;
    let old_state = next.state;
    if let Some(name) = patch.name {
        refuse_taken(connection, app, &name, Some(id)).await?;
        next.name = name;
    }
    if patch.filter.is_some() || patch.start.is_some() || patch.sink.is_some() {
        // The entries of the next mail are chosen again.
        (next.mail_first, next.mail_last) = (None, None);
    }
    if let Some((filter, reads_rounds)) = patch.filter {
        (next.filter, next.reads_rounds) = (filter, reads_rounds);
    }
    if let Some(start) = patch.start {
        next.position = position(connection, app, start).await?;
        (next.tries, next.next_at) = (0, None);
    }
    if let Some(expires_at) = patch.expires_at {
        next.expires_at = expires_at.map(|at| at.0);
        if next.state == SubscriptionState::Expired && next.expires_at.is_none_or(|at| at > now.0) {
            next.state = SubscriptionState::Active;
        }
    }
    let sink = sinks::row(connection, app, &sink_of(id)).await?.ok_or(StoreError::NotFound)?;
    if let Some((key, until)) = &patch.key {
        sinks::rotate(connection, context, &sink, key, *until).await?;
    }
    if let Some(new) = &patch.sink {
        sinks::put(connection, context, app, Some(sink), new, now).await?;
        try_now(&mut next);
    }
    match patch.is_paused {
        Some(true) => next.state = SubscriptionState::Paused,
        Some(false) => {
            if next.expires_at.is_some_and(|at| at <= now.0) {
                let text = "its time is over: give another expires_at, or null for none";
                return Err(StoreError::Conflict(text.to_owned()));
            }
            sinks::enable(connection, context, app, &sink_of(id), now).await?;
            next.state = SubscriptionState::Active;
            try_now(&mut next);
        }
        None => {}
    }
    if old_state == SubscriptionState::Blocked && next.state != SubscriptionState::Blocked {
        next.reason = None;
        work::tell_state(connection, context, &next, EntryType::SubscriptionRecovered, None).await?;
    }
    write(connection, next).await?;
    // Entries may wait for it now.
    context.news.mark();
    find(connection, app, &SubscriptionName::Id(id.clone())).await
}

/// The tasks of a callback say what it is sent, and where.
fn refuse_of_callback(row: &subscription::Model, patch: &SubscriptionPatch) -> Result<(), StoreError> {
    let SubscriptionPatch { name, filter, sink, start, expires_at, is_paused: _, key: _ } = patch;
    let is_other =
        name.is_some() || filter.is_some() || sink.is_some() || start.is_some() || expires_at.is_some();
    if row.callback.is_none() || !is_other {
        return Ok(());
    }
    let text = "it is the callback of tasks (their webhook): it can be paused, resumed, tested, given \
                another key or removed, and nothing else of it can be changed";
    Err(StoreError::Conflict(text.to_owned()))
}

/// Ends the wait of the next message.
fn try_now(row: &mut subscription::Model) {
    (row.tries, row.skips, row.next_at) = (0, 0, None);
    if row.state == SubscriptionState::Blocked {
        row.state = SubscriptionState::Active;
    }
}

async fn write(connection: &impl ConnectionTrait, row: subscription::Model) -> Result<(), StoreError> {
    let text = "update subscription set name = $1, filter = $2, reads_rounds = $3, position = $4, state = $5,
                reason = $6, tries = $7, skips = $8, next_at = $9, expires_at = $10, mail_first = $11,
                mail_last = $12 where id = $13";
    let values: Vec<Value> = vec![
        row.name.into(),
        row.filter.into(),
        row.reads_rounds.into(),
        row.position.into(),
        row.state.into(),
        row.reason.into(),
        row.tries.into(),
        row.skips.into(),
        row.next_at.into(),
        row.expires_at.into(),
        row.mail_first.into(),
        row.mail_last.into(),
        row.id.into(),
    ];
    rows::execute(connection, "subscription", text, values).await.map(drop)
}
