//! Subscriptions as rows: created, changed, removed, and shown with their sinks.

pub(crate) mod attempts;
pub(crate) mod callbacks;
mod change;
mod ends;
pub(crate) mod mails;
pub(crate) mod work;

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::{
    model::filter::Filter,
    ports::{
        MailRange, NewSubscription, ReadFrom, SUBSCRIPTIONS_MAX, StoreError, Subscription, SubscriptionName,
        WatchSink, sink_of,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId},
    kind::SubscriptionState,
    sink, subscription,
};

use crate::{
    Context,
    apps::{self, sinks},
    database::{
        error::{OfTable, undecodable},
        rows::{
            self, columns,
            filter::{Column, condition},
            signed,
        },
    },
    ledger,
};
pub(crate) use change::change;

/// The reason as it is shown.
const REASON: &str = "case when k.disabled is not null and s.state in ('active', 'blocked') then k.disabled
    else s.reason end";
/// The state as shown: an active subscription is disabled while its sink is.
const STATE: &str = "case when k.disabled is not null and s.state in ('active', 'blocked') then 'disabled'
    else s.state end";

/// The number of the last entry that concerns the subscription: of a callback that of the last one which is
/// addressed to it, because it passes over others only with that.
const LAST: &str = "case when s.callback is null then coalesce(l.last, 0) else coalesce(
    (select max(e.number) from entry e where e.recipient = s.id and e.number > s.position), s.position) end";
/// Who made the subscription.
const KIND: &str = "case when s.callback is null then 'subscription' else 'callback' end";

/// Creates a subscription with its sink.
pub(crate) async fn create(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: NewSubscription,
) -> Result<Subscription, StoreError> {
    let text = "select count(*) from subscription where app_id = $1 and callback is null";
    let count = rows::number(connection, "subscription", text, vec![new.app.clone().into()]).await?;
    if count >= signed(SUBSCRIPTIONS_MAX) {
        let text = format!("an app has at most {SUBSCRIPTIONS_MAX} subscriptions: remove one first");
        return Err(StoreError::Conflict(text));
    }
    refuse_taken(connection, &new.app, &new.name, None).await?;
    let sink_id = sink_of(&new.id);
    debug_assert_eq!(sink_id, new.sink.id, "the sink of a subscription has its letters");
    sinks::put(connection, context, &new.app, None, &new.sink, new.created_at).await?;
    let row = subscription::Model {
        position: position(connection, &new.app, new.start).await?,
        id: new.id.clone(),
        app_id: new.app,
        name: new.name,
        filter: new.filter,
        reads_rounds: new.reads_rounds,
        sink_id,
        state: SubscriptionState::Active,
        reason: None,
        tries: 0,
        skips: 0,
        next_at: None,
        mail_first: None,
        mail_last: None,
        quiet_until: None,
        waits_since: None,
        expires_at: new.expires_at.map(|at| at.0),
        created_at: new.created_at.0,
        callback: None,
    };
    let app = row.app_id.clone();
    rows::insert(connection, "subscription", vec![row]).await?;
    // Entries may wait for it already.
    context.news.mark();
    find(connection, &app, &SubscriptionName::Id(new.id)).await
}

/// The position for a subscription that begins with this entry. Not beyond the end of the ledger: otherwise
/// future entries would be skipped.
async fn position(
    connection: &impl ConnectionTrait,
    app: &AppId,
    start: ReadFrom,
) -> Result<i64, StoreError> {
    let last = ledger::ends(connection, app).await?.map_or(0, |ends| ends.last);
    Ok(match start {
        ReadFrom::Now => last,
        ReadFrom::Number(number) => (number - 1).clamp(0, last),
    })
}

async fn refuse_taken(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
    but: Option<&SubscriptionId>,
) -> Result<(), StoreError> {
    let text = "select count(*) from subscription where app_id = $1 and name = $2 and id <> $3";
    let but = but.map_or("", SubscriptionId::as_str);
    let values = vec![app.clone().into(), name.into(), but.into()];
    match rows::number(connection, "subscription", text, values).await? {
        0 => Ok(()),
        _ => Err(StoreError::Conflict(format!("the app has a subscription named {name:?} already"))),
    }
}

/// One subscription of an app.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &SubscriptionName,
) -> Result<Subscription, StoreError> {
    let (column, value): (_, Value) = match name {
        SubscriptionName::Id(id) => ("s.id", id.clone().into()),
        SubscriptionName::Name(name) => ("s.name", name.clone().into()),
    };
    let text = format!("{} where s.app_id = $1 and {column} = $2", shown_columns());
    let found = rows::mixed(connection, "subscription", &text, vec![app.clone().into(), value]).await?;
    found.first().map(shown).unwrap_or(Err(StoreError::NotFound))
}

/// Subscriptions of an app, oldest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: Option<&Filter>,
    after: Option<&SubscriptionId>,
    limit: u64,
) -> Result<Vec<Subscription>, StoreError> {
    let mut values: Vec<Value> =
        vec![app.clone().into(), after.map_or("", SubscriptionId::as_str).into(), signed(limit).into()];
    let meant = match filter {
        Some(filter) => condition(connection.get_database_backend(), filter, column, &mut values),
        None => "1 = 1".to_owned(),
    };
    let text =
        format!("{} where s.app_id = $1 and s.id > $2 and ({meant}) order by s.id limit $3", shown_columns());
    let found = rows::mixed(connection, "subscription", &text, values).await?;
    Ok(found.iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// The fields of a subscription, as `s` with its sink `k`.
pub(crate) fn column(field: &str) -> Option<Column> {
    Some(match field {
        "name" => Column::texts(&["s.name", "s.id"]),
        "state" => Column::texts(&[STATE]),
        "sink" => Column::texts(&["k.kind"]),
        "filter" => Column::texts(&["s.filter"]),
        "kind" => Column::texts(&[KIND]),
        "reason" => Column::texts(&[REASON]),
        "since" | "until" => Column::Number("s.created_at"),
        _ => return None,
    })
}

/// Removes a subscription with its sink and its attempts.
pub(crate) async fn remove(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &SubscriptionId,
) -> Result<(), StoreError> {
    let text = "delete from subscription where app_id = $1 and id = $2";
    let values = vec![app.clone().into(), id.clone().into()];
    if rows::execute(connection, "subscription", text, values).await? == 0 {
        return Err(StoreError::NotFound);
    }
    sinks::remove(connection, Some(&sink_of(id))).await?;
    // Folded changes of a removed subscription get no entry.
    let text = "delete from entry_fold where app_id = $1 and subject = $2";
    let values = vec![app.clone().into(), id.clone().into()];
    rows::execute(connection, "entry_fold", text, values).await?;
    attempts::remove(connection, id).await
}

/// A row by its id alone.
/// The app of a subscription; `None`: the subscription was removed.
pub(crate) async fn app_of(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
) -> Result<Option<AppId>, StoreError> {
    Ok(row(connection, id).await?.map(|row| row.app_id))
}

async fn row(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
) -> Result<Option<subscription::Model>, StoreError> {
    let text = "select * from subscription where id = $1";
    rows::one(connection, "subscription", text, vec![id.clone().into()]).await
}

/// The beginning of a statement that reads what people see of subscriptions, without conditions.
fn shown_columns() -> String {
    format!(
        "select {}, {}, {LAST} as ledger_last from subscription s
         join sink k on k.id = s.sink_id left join ledger l on l.app_id = s.app_id",
        columns::<subscription::Entity>("s"),
        columns::<sink::Entity>("k"),
    )
}

fn shown(row: &QueryResult) -> Result<Subscription, StoreError> {
    let of_row = subscription::Model::from_query_result(row, "s_").of("subscription")?;
    let sink = sink::Model::from_query_result(row, "k_").of("sink")?;
    let last: i64 = row.try_get("ledger_", "last").of("ledger")?;
    let count = |number: i64| u32::try_from(number).map_err(|error| undecodable("subscription", error));
    Ok(Subscription {
        tries: count(of_row.tries)?,
        skips: count(of_row.skips)?,
        sink: WatchSink {
            id: sink.id,
            address: sinks::address(sink.kind, sink.address)?,
            has_access: sink.access.is_some(),
            delivery: apps::settings("sink", &sink.delivery)?,
            disabled: sink.disabled,
        },
        id: of_row.id,
        app: of_row.app_id,
        name: of_row.name,
        filter: of_row.filter,
        reads_rounds: of_row.reads_rounds,
        position: of_row.position,
        last,
        state: of_row.state,
        reason: of_row.reason,
        next_at: of_row.next_at.map(Timestamp),
        mail: of_row.mail_first.zip(of_row.mail_last).map(|(first, last)| MailRange { first, last }),
        quiet_until: of_row.quiet_until.map(Timestamp),
        expires_at: of_row.expires_at.map(Timestamp),
        created_at: Timestamp(of_row.created_at),
        callback: of_row.callback,
    })
}
