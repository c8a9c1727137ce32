//! Hooks of apps as rows: created, shown, rotated, removed; and the secrets that prove requests to them.

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::{
    model::secret::Secret,
    ports::{
        AppHook, HOOK_SECRETS_MAX, HOOKS_MAX, HookName, HookOwner, HookPatch, HookSecrets, LastReceipt,
        NewHook, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    hook,
    id::{AppId, HookId, ReceiptId, WatchId},
    kind::{HookProvider, ReceiptReason, ReceiptVerdict},
};
use tidings_secrets::SealedField;

use crate::{
    Context,
    database::{
        error::{OfTable, undecodable},
        rows::{self, columns, signed},
    },
};

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "hook", column: "secret", row }
}

fn former_place(row: &str) -> SealedField<'_> {
    SealedField { table: "hook", column: "former_secret", row }
}

#[derive(FromQueryResult)]
struct Address {
    url: String,
}

/// Creates a hook with its sealed secret.
pub(crate) async fn create(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: NewHook,
) -> Result<AppHook, StoreError> {
    let text = "select count(*) from hook where app_id = $1";
    let count = rows::number(connection, "hook", text, vec![new.app.clone().into()]).await?;
    if count >= signed(HOOKS_MAX) {
        let text = format!("an app has at most {HOOKS_MAX} hooks: remove one first");
        return Err(StoreError::Conflict(text));
    }
    refuse_taken(connection, &new.app, &new.name, None).await?;
    let repository_url = repository_url(connection, &new.app, new.watch.as_ref()).await?;
    let row = hook::Model {
        secret: context.keyring.seal(&place(new.id.as_str()), &new.secret, &*context.random),
        id: new.id.clone(),
        app_id: new.app.clone(),
        name: new.name,
        provider: new.provider,
        repository_url,
        former_secret: None,
        former_until: None,
        created_at: new.created_at.0,
    };
    rows::insert(connection, "hook", vec![row]).await?;
    find(connection, &new.app, &HookName::Id(new.id)).await
}

async fn refuse_taken(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
    but: Option<&HookId>,
) -> Result<(), StoreError> {
    let text = "select count(*) from hook where app_id = $1 and name = $2 and id <> $3";
    let values = vec![app.clone().into(), name.into(), but.map_or("", HookId::as_str).into()];
    match rows::number(connection, "hook", text, values).await? {
        0 => Ok(()),
        _ => Err(StoreError::Conflict(format!("the app has a hook named {name:?} already"))),
    }
}

/// The address of the repository of a watch of the app.
async fn repository_url(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: Option<&WatchId>,
) -> Result<Option<String>, StoreError> {
    let Some(watch) = watch else { return Ok(None) };
    let text = "select r.url from watch w join repository r on r.id = w.repository_id
                where w.app_id = $1 and w.id = $2";
    let values = vec![app.clone().into(), watch.clone().into()];
    let found: Option<Address> = rows::one(connection, "watch", text, values).await?;
    Ok(Some(found.ok_or(StoreError::NotFound)?.url))
}

/// Changes the name of a hook, or which repositories it may wake.
pub(crate) async fn change(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &HookId,
    patch: HookPatch,
) -> Result<AppHook, StoreError> {
    let old = row(connection, id).await?.filter(|row| row.app_id == *app).ok_or(StoreError::NotFound)?;
    if let Some(name) = &patch.name {
        refuse_taken(connection, app, name, Some(id)).await?;
    }
    let url = match &patch.watch {
        Some(watch) => repository_url(connection, app, watch.as_ref()).await?,
        None => old.repository_url,
    };
    let text = "update hook set name = $1, repository_url = $2 where id = $3";
    let values = vec![patch.name.unwrap_or(old.name).into(), url.into(), id.clone().into()];
    rows::execute(connection, "hook", text, values).await?;
    find(connection, app, &HookName::Id(id.clone())).await
}

/// One hook of an app.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &HookName,
) -> Result<AppHook, StoreError> {
    let (column, value): (_, Value) = match name {
        HookName::Id(id) => ("h.id", id.clone().into()),
        HookName::Name(name) => ("h.name", name.clone().into()),
    };
    let text = format!("{} where h.app_id = $1 and {column} = $2", shown_columns());
    let found = rows::mixed(connection, "hook", &text, vec![app.clone().into(), value]).await?;
    found.first().map(shown).unwrap_or(Err(StoreError::NotFound))
}

/// Hooks of an app, oldest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    after: Option<&HookId>,
    limit: u64,
) -> Result<Vec<AppHook>, StoreError> {
    let values: Vec<Value> =
        vec![app.clone().into(), after.map_or("", HookId::as_str).into(), signed(limit).into()];
    let text = format!("{} where h.app_id = $1 and h.id > $2 order by h.id limit $3", shown_columns());
    let found = rows::mixed(connection, "hook", &text, values).await?;
    Ok(found.iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// Gives a hook a new secret; the previous secret is accepted until `until`.
pub(crate) async fn rotate(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &HookId,
    secret: &Secret,
    until: Timestamp,
) -> Result<AppHook, StoreError> {
    let row = row(connection, id).await?.filter(|row| row.app_id == *app).ok_or(StoreError::NotFound)?;
    // A sealed value is bound to its column, so the secret is sealed again for the other column.
    let before = context.keyring.open_sealed(&place(id.as_str()), &row.secret);
    let before = before.map_err(|error| undecodable("hook", error))?;
    let former = context.keyring.seal(&former_place(id.as_str()), &before, &*context.random);
    let fresh = context.keyring.seal(&place(id.as_str()), secret, &*context.random);
    let text = "update hook set secret = $1, former_secret = $2, former_until = $3 where id = $4";
    let values = vec![fresh.into(), former.into(), until.0.into(), id.clone().into()];
    rows::execute(connection, "hook", text, values).await?;
    find(connection, app, &HookName::Id(id.clone())).await
}

/// Removes a hook with its receipts and their bodies.
pub(crate) async fn remove(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &HookId,
) -> Result<(), StoreError> {
    let text = "delete from hook where app_id = $1 and id = $2";
    let values = vec![app.clone().into(), id.clone().into()];
    if rows::execute(connection, "hook", text, values).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let text = "delete from receipt where hook_id = $1";
    rows::execute(connection, "receipt", text, vec![id.clone().into()]).await.map(drop)
}

/// The secrets for requests to this address. An unknown address opens the same number of sealed values, to
/// take the same time.
pub(crate) async fn secrets(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &HookId,
    provider: HookProvider,
    now: Timestamp,
) -> Result<Option<HookSecrets>, StoreError> {
    let found = row(connection, id).await?.filter(|row| row.provider == provider);
    let keyring = &context.keyring;
    let Some(row) = found else {
        let nothing = Secret::new("0".repeat(43));
        let sealed = keyring.seal(&place(id.as_str()), &nothing, &*context.random);
        for _ in 0..HOOK_SECRETS_MAX {
            drop(keyring.open_sealed(&place(id.as_str()), &sealed));
        }
        return Ok(None);
    };
    let mut secrets = Vec::with_capacity(HOOK_SECRETS_MAX);
    let opened = keyring.open_sealed(&place(id.as_str()), &row.secret);
    secrets.push(opened.map_err(|error| undecodable("hook", error))?);
    let is_former_good = row.former_until.is_some_and(|until| until > now.0);
    if let Some(sealed) = row.former_secret.filter(|_| is_former_good) {
        let opened = keyring.open_sealed(&former_place(id.as_str()), &sealed);
        secrets.push(opened.map_err(|error| undecodable("hook", error))?);
    }
    Ok(Some(HookSecrets { owner: HookOwner { hook: row.id, app: row.app_id }, secrets }))
}

async fn row(connection: &impl ConnectionTrait, id: &HookId) -> Result<Option<hook::Model>, StoreError> {
    let text = "select * from hook where id = $1";
    rows::one(connection, "hook", text, vec![id.clone().into()]).await
}

/// All of a hook that people see, up to the conditions.
fn shown_columns() -> String {
    format!(
        "select {}, t.id as last_id, t.verdict as last_verdict, t.reason as last_reason,
         t.received_at as last_received_at
         from hook h left join receipt t on t.id =
           (select n.id from receipt n where n.hook_id = h.id order by n.id desc limit 1)",
        columns::<hook::Entity>("h")
    )
}

fn shown(row: &QueryResult) -> Result<AppHook, StoreError> {
    let hook = hook::Model::from_query_result(row, "h_").of("hook")?;
    let id: Option<ReceiptId> = row.try_get("last_", "id").of("receipt")?;
    let last = match id {
        None => None,
        Some(id) => {
            let verdict: ReceiptVerdict = row.try_get("last_", "verdict").of("receipt")?;
            let reason: ReceiptReason = row.try_get("last_", "reason").of("receipt")?;
            let at: i64 = row.try_get("last_", "received_at").of("receipt")?;
            Some(LastReceipt { id, verdict, reason, received_at: Timestamp(at) })
        }
    };
    Ok(AppHook {
        id: hook.id,
        app: hook.app_id,
        name: hook.name,
        provider: hook.provider,
        repository_url: hook.repository_url,
        former_until: hook.former_until.map(Timestamp),
        created_at: Timestamp(hook.created_at),
        last,
    })
}
