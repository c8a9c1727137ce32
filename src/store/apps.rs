//! Apps: registered, found by the public part of their token, disabled, erased.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tidings_actors::{
    ports::{App, DeliverySettings, NewApp, StoreError},
    secret::Secret,
    time::Timestamp,
};
use tidings_entity::{
    app, app_key,
    id::{AppId, SourceId},
};

use super::{Context, error::undecodable, rows, sources};
use crate::secrets::Place;

/// Registers an app with its first signing key.
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
    let app = app::Model {
        id: new.id,
        name: new.name,
        email: new.email,
        base_url: new.base_url,
        website: new.website,
        description: new.description,
        token_public_id: new.token_public_id,
        token_hash: new.token_hash,
        delivery,
        disabled: None,
        created_at: new.created_at.0,
    };
    rows::insert(connection, "app", vec![app]).await?;
    rows::insert(connection, "app_key", vec![key]).await
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

/// Apps in the order of their registration.
pub(super) async fn list(
    connection: &impl ConnectionTrait,
    context: &Context,
    after: Option<&AppId>,
    limit: u64,
) -> Result<Vec<App>, StoreError> {
    let after = after.map_or("", AppId::as_str);
    let text = "select * from app where id > $1 order by id limit $2";
    let values = vec![after.into(), rows::signed(limit).into()];
    let found: Vec<app::Model> = rows::readable(connection, "app", text, values).await?;
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

/// Stops serving an app, or serves it again.
pub(super) async fn set_disabled(
    connection: &impl ConnectionTrait,
    id: AppId,
    reason: Option<String>,
) -> Result<(), StoreError> {
    let text = "update app set disabled = $1 where id = $2";
    match rows::execute(connection, "app", text, vec![reason.into(), id.into()]).await? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

/// Removes all rows of an app; what only it used goes too.
pub(super) async fn erase(transaction: &DatabaseTransaction, id: AppId) -> Result<(), StoreError> {
    #[derive(sea_orm::FromQueryResult)]
    struct Seen {
        source_id: SourceId,
    }
    let own = || vec![id.clone().into()];
    let text = "select distinct source_id from watch where app_id = $1";
    let seen: Vec<Seen> = rows::all(transaction, "watch", text, own()).await?;
    let text = "delete from attempt where owner_kind = 'cursor' and owner_id in
                (select c.id from cursor c join watch w on w.id = c.watch_id where w.app_id = $1)";
    rows::execute(transaction, "attempt", text, own()).await?;
    rows::execute(transaction, "watch", "delete from watch where app_id = $1", own()).await?;
    for source in seen {
        sources::remove_unused(transaction, &source.source_id).await?;
    }
    let text = "delete from breaker where kind = 'endpoint' and id = $1";
    rows::execute(transaction, "breaker", text, own()).await?;
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

fn from_row(context: &Context, row: app::Model, keys: Vec<app_key::Model>) -> Result<App, StoreError> {
    let delivery: DeliverySettings =
        serde_json::from_str(&row.delivery).map_err(|error| undecodable("app", error))?;
    let open = |key: app_key::Model| -> Result<Secret, StoreError> {
        let place = key_row(&key.app_id, key.ordinal);
        let opened = context.keyring.open_sealed(&key_place(&place), &key.secret);
        opened.map_err(|error| undecodable("app_key", error))
    };
    Ok(App {
        id: row.id,
        name: row.name,
        email: row.email,
        base_url: row.base_url,
        token_hash: row.token_hash,
        keys: keys.into_iter().map(open).collect::<Result<_, _>>()?,
        delivery,
        disabled: row.disabled,
        created_at: Timestamp(row.created_at),
    })
}

fn key_row(app: &AppId, ordinal: i64) -> String {
    format!("{app}/{ordinal}")
}

fn key_place(row: &str) -> Place<'_> {
    Place { table: "app_key", column: "secret", row }
}
