//! Apps: registered, found by the public part of their token, disabled, erased.

pub(crate) mod access;
pub(crate) mod administration;
mod narrowed;
pub(crate) mod requests;
pub(crate) mod sessions;
mod sign_ins;
pub(crate) mod sinks;
pub(crate) mod tokens;

use std::{collections::HashMap, sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tidings_actors::{
    model::filter::Filter,
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{
        AccessPatch, App, AppPatch, DeliverySettings, KEYS_MAX, NewApp, PERMITS_AHEAD_MAX, Rotation,
        StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    app, app_key,
    id::{AppId, SourceId},
    kind::EntryType,
};
use tidings_secrets::SealedField;

use super::{
    Context,
    database::{error::undecodable, rows},
    ledger::told,
    watching::{sources, statuses},
};
use crate::database::rows::filter::{Column, condition};

/// Registers an app with its first signing key; the request that asked for it ends with it.
pub(super) async fn create(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: NewApp,
) -> Result<(), StoreError> {
    let delivery = serde_json::to_string(&new.delivery).map_err(|error| undecodable("app", error))?;
    let key = app_key::Model {
        app_id: new.id.clone(),
        ordinal: 1,
        secret: context.keyring.seal(&key_place(&key_row(&new.id, 1)), &new.signing_key, &*context.random),
        created_at: new.created_at.0,
        expires_at: None,
    };
    let endpoint_access = access::seal(context, &access::of_app(&new.id), &new.access)?;
    let (id, answer) = (new.id.clone(), new.answer);
    let token = tokens::first(&new.id, &new.token_public_id, new.token_hash, new.created_at)?;
    let app = app::Model {
        id: new.id,
        name: new.name,
        email: new.email,
        is_from_anyone: new.is_from_anyone,
        base_url: new.receives_at.base_url().map(str::to_owned),
        website: new.website,
        description: new.description,
        token_public_id: new.token_public_id,
        delivery,
        endpoint_access,
        disabled: None,
        endpoint_since: new.created_at.0,
        permits_until: None,
        created_at: new.created_at.0,
    };
    rows::insert(connection, "app", vec![app]).await?;
    rows::insert(connection, "app_key", vec![key]).await?;
    rows::insert(connection, "access_token", vec![token]).await?;
    match &answer {
        Some(answer) => requests::end_making(connection, context, &id, answer).await,
        None => Ok(()),
    }
}

/// The app for which `condition` (over `app`, one value) holds.
pub(super) async fn find(
    connection: &impl ConnectionTrait,
    context: &Context,
    condition: &str,
    value: sea_orm::Value,
) -> Result<Option<App>, StoreError> {
    let text = format!("select * from app where {condition} = $1");
    let Some(row) = rows::one::<app::Model>(connection, "app", &text, vec![value]).await? else {
        return Ok(None);
    };
    let keys = keys(connection, context, "app_id = $1", vec![row.id.clone().into()]).await?;
    from_row(context, row, keys).map(Some)
}

/// Apps in the order of their registration; with a filter, only matching ones.
pub(super) async fn list(
    connection: &impl ConnectionTrait,
    context: &Context,
    filter: Option<&Filter>,
    after: Option<&AppId>,
    limit: u64,
) -> Result<Vec<App>, StoreError> {
    let after = after.map_or("", AppId::as_str);
    let mut values = vec![after.into(), rows::signed(limit).into()];
    let meant = filter.map_or_else(
        || "1 = 1".to_owned(),
        |filter| condition(connection.get_database_backend(), filter, column, &mut values),
    );
    let text = format!("select a.* from app a where a.id > $1 and ({meant}) order by a.id limit $2");
    let found: Vec<app::Model> = rows::readable(connection, "app", &text, values).await?;
    let last = found.last().map_or("", |row| row.id.as_str());
    let condition = "app_id > $1 and app_id <= $2";
    let mut by_app: HashMap<AppId, Vec<app_key::Model>> = HashMap::new();
    for key in keys(connection, context, condition, vec![after.into(), last.into()]).await? {
        by_app.entry(key.app_id.clone()).or_default().push(key);
    }
    let apps = found.into_iter().map(|row| {
        let keys = by_app.remove(&row.id).unwrap_or_default();
        from_row(context, row, keys)
    });
    Ok(apps.filter_map(rows::readable_or_logged).collect())
}

/// The fields of an app, as `a`.
pub(super) fn column(field: &str) -> Option<Column> {
    Some(match field {
        "app" => Column::texts(&["a.id", "a.name"]),
        "name" => Column::texts(&["a.name"]),
        "email" => Column::texts(&["a.email"]),
        "url" => Column::texts(&["a.base_url"]),
        "description" => Column::texts(&["a.description"]),
        "state" => Column::Words(vec![
            ("enabled", "a.disabled is null".into()),
            ("disabled", "a.disabled is not null".into()),
        ]),
        "since" | "until" => Column::Number("a.created_at"),
        _ => return None,
    })
}

/// Marks the endpoint as new: earlier answers were of another endpoint.
async fn begin_endpoint(
    connection: &impl ConnectionTrait,
    id: &AppId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update app set endpoint_since = case when endpoint_since < $1 then $1
                  else endpoint_since + 1 end where id = $2";
    rows::execute(connection, "app", text, vec![at.0.into(), id.clone().into()]).await.map(drop)
}

/// Promises the next span of sends at the app's rate to this process; where it begins.
pub(super) async fn take_permits(
    connection: &impl ConnectionTrait,
    id: AppId,
    now: Timestamp,
    span: Duration,
) -> Result<Timestamp, StoreError> {
    let text = "update app set permits_until = $1 + case
                    when permits_until is null or permits_until <= $2 then $2
                    when permits_until > $3 then $2 + $1
                    else permits_until end
                where id = $4";
    let milliseconds = Timestamp(0).after(span).0;
    let latest = now.after(PERMITS_AHEAD_MAX).0;
    let values = vec![milliseconds.into(), now.0.into(), latest.into(), id.clone().into()];
    if rows::execute(connection, "app", text, values).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let text = "select permits_until from app where id = $1";
    let until = rows::number(connection, "app", text, vec![id.into()]).await?;
    Ok(Timestamp(until - milliseconds))
}

/// Changes the settings of an app.
pub(super) async fn patch(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: AppId,
    patch: AppPatch,
    at: Timestamp,
) -> Result<App, StoreError> {
    let row = || vec![id.clone().into()];
    let before: Option<app::Model> =
        rows::one(connection, "app", "select * from app where id = $1", row()).await?;
    let before = before.ok_or(StoreError::NotFound)?;
    if let Some(rotation) = &patch.rotation {
        rotate(connection, context, &id, rotation, at).await?;
    }
    if let Some(receives_at) = &patch.receives_at {
        let base_url = receives_at.base_url().map(str::to_owned);
        if before.base_url != base_url {
            begin_endpoint(connection, &id, at).await?;
        }
        let values = [row(), vec![base_url.into()]].concat();
        rows::execute(connection, "app", "update app set base_url = $2 where id = $1", values).await?;
    }
    if let Some(delivery) = &patch.delivery {
        let text = serde_json::to_string(delivery).map_err(|error| undecodable("app", error))?;
        let values = [row(), vec![text.into()]].concat();
        rows::execute(connection, "app", "update app set delivery = $2 where id = $1", values).await?;
    }
    if let Some(receives_at) = &patch.receives_at
        && receives_at.kind() != SinkAddress::of(before.base_url.clone()).kind()
    {
        let delivery = match patch.delivery {
            Some(delivery) => delivery,
            None => settings("app", &before.delivery)?,
        };
        let condition = "w.app_id = $2 and w.sink_id is null";
        sinks::reformat(connection, condition, id.as_str(), delivery.format_at(receives_at)).await?;
    }
    if !patch.access.is_empty() {
        change_access(connection, context, &id, &patch.access).await?;
    }
    if let Some(disabled) = patch.disabled {
        if before.disabled.is_some() && disabled.is_none() {
            begin_endpoint(connection, &id, at).await?;
        }
        let entry_type = match (&before.disabled, &disabled) {
            (None, Some(_)) => Some(EntryType::SinkDisabled),
            (Some(_), None) => Some(EntryType::SinkEnabled),
            _ => None,
        };
        if let Some(entry_type) = entry_type {
            let note = told::sink_used(connection, &id, None, entry_type, disabled.as_deref()).await?;
            told::now(connection, context, note).await?;
        }
        let values = vec![disabled.into(), id.clone().into()];
        rows::execute(connection, "app", "update app set disabled = $1 where id = $2", values).await?;
        statuses::refresh_app(connection, context, &id).await?;
    }
    find(connection, context, "id", id.clone().into()).await?.ok_or(StoreError::NotFound)
}

/// Applies a change to the sealed access data, and seals the result.
async fn change_access(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &AppId,
    patch: &AccessPatch,
) -> Result<(), StoreError> {
    let text = "select * from app where id = $1";
    let row: Option<app::Model> = rows::one(connection, "app", text, vec![id.clone().into()]).await?;
    let sealed = row.ok_or(StoreError::NotFound)?.endpoint_access;
    let next = access::changed(&access::open(context, &access::of_app(id), sealed.as_deref())?, patch)?;
    let values = vec![access::seal(context, &access::of_app(id), &next)?.into(), id.clone().into()];
    rows::execute(connection, "app", "update app set endpoint_access = $1 where id = $2", values).await?;
    Ok(())
}

/// Seals a new key under the next number; the older keys end with the overlap.
async fn rotate(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &AppId,
    rotation: &Rotation,
    at: Timestamp,
) -> Result<(), StoreError> {
    let live = keys(connection, context, "app_id = $1", vec![id.clone().into()]).await?;
    if live.len() >= KEYS_MAX {
        return Err(StoreError::Conflict(format!("{KEYS_MAX} keys are in use; wait until one of them ends")));
    }
    let text = "update app_key set expires_at = $2
                where app_id = $1 and (expires_at is null or expires_at > $2)";
    let values = vec![id.clone().into(), rotation.overlap_until.0.into()];
    rows::execute(connection, "app_key", text, values).await?;
    let text = "delete from app_key where app_id = $1 and expires_at <= $2 and ordinal <
                (select max(k.ordinal) from app_key k where k.app_id = $1)";
    rows::execute(connection, "app_key", text, vec![id.clone().into(), at.0.into()]).await?;
    let text = "select max(ordinal) from app_key where app_id = $1";
    let ordinal = rows::number(connection, "app_key", text, vec![id.clone().into()]).await? + 1;
    let place = key_row(id, ordinal);
    let key = app_key::Model {
        app_id: id.clone(),
        ordinal,
        secret: context.keyring.seal(&key_place(&place), &rotation.key, &*context.random),
        created_at: at.0,
        expires_at: None,
    };
    rows::insert(connection, "app_key", vec![key]).await
}

/// Removes all rows of an app, and rows that only this app used.
pub(super) async fn erase(
    transaction: &DatabaseTransaction,
    context: &Context,
    id: AppId,
) -> Result<(), StoreError> {
    #[derive(sea_orm::FromQueryResult)]
    struct Seen {
        source_id: SourceId,
    }
    statuses::farewell_to_app(transaction, context, &id, context.clock.now()).await?;
    let own = || vec![id.clone().into()];
    let text = "select distinct source_id from watch where app_id = $1";
    let seen: Vec<Seen> = rows::all(transaction, "watch", text, own()).await?;
    let text = "delete from attempt where owner_kind = 'cursor' and owner_id in
                (select c.id from cursor c join watch w on w.id = c.watch_id where w.app_id = $1)";
    rows::execute(transaction, "attempt", text, own()).await?;
    let text = "delete from attempt where owner_kind = 'subscription'
                and owner_id in (select id from subscription where app_id = $1)";
    rows::execute(transaction, "attempt", text, own()).await?;
    rows::execute(transaction, "watch", "delete from watch where app_id = $1", own()).await?;
    for source in seen {
        sources::remove_unused(transaction, &source.source_id).await?;
    }
    let text = "delete from breaker where kind = 'endpoint'
                and (id = $1 or id in (select k.id from sink k where k.app_id = $1))";
    rows::execute(transaction, "breaker", text, own()).await?;
    requests::erase(transaction, &id).await?;
    // The rows of tasks have no reference to their queue, so they are deleted by hand.
    let text = "delete from task where queue_id in (select id from queue where app_id = $1)";
    rows::execute(transaction, "task", text, own()).await?;
    // The bodies of receipts are deleted with them.
    rows::execute(transaction, "receipt", "delete from receipt where app_id = $1", own()).await?;
    match rows::execute(transaction, "app", "delete from app where id = $1", own()).await? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

/// Key rows, the current key of each app first.
async fn keys(
    connection: &impl ConnectionTrait,
    context: &Context,
    condition: &str,
    mut values: Vec<sea_orm::Value>,
) -> Result<Vec<app_key::Model>, StoreError> {
    values.push(context.clock.now().0.into());
    let now = values.len();
    let text = format!(
        "select * from app_key where {condition} and (expires_at is null or expires_at > ${now})
         order by app_id, ordinal desc"
    );
    rows::readable(connection, "app_key", &text, values).await
}

/// How an app or a sink wants to be delivered to.
pub(super) fn settings(table: &'static str, text: &str) -> Result<DeliverySettings, StoreError> {
    serde_json::from_str(text).map_err(|error| undecodable(table, error))
}

/// An app with its keys, opened.
pub(super) fn from_row(
    context: &Context,
    row: app::Model,
    keys: Vec<app_key::Model>,
) -> Result<App, StoreError> {
    let delivery = settings("app", &row.delivery)?;
    let access = access::open(context, &access::of_app(&row.id), row.endpoint_access.as_deref())?;
    let open = |key: app_key::Model| -> Result<Secret, StoreError> {
        let place = key_row(&key.app_id, key.ordinal);
        let opened = context.keyring.open_sealed(&key_place(&place), &key.secret);
        opened.map_err(|error| undecodable("app_key", error))
    };
    Ok(App {
        id: row.id,
        sink: None,
        name: row.name,
        email: row.email,
        is_from_anyone: row.is_from_anyone,
        receives_at: SinkAddress::of(row.base_url),
        website: row.website,
        description: row.description,
        keys: keys.into_iter().map(open).collect::<Result<_, _>>()?,
        access: Arc::new(access),
        delivery,
        disabled: row.disabled,
        endpoint_since: Timestamp(row.endpoint_since),
        created_at: Timestamp(row.created_at),
    })
}

fn key_row(app: &AppId, ordinal: i64) -> String {
    format!("{app}/{ordinal}")
}

fn key_place(row: &str) -> SealedField<'_> {
    SealedField { table: "app_key", column: "secret", row }
}
