//! Receipts of hooks. A genuine hook is judged and written in one transaction, at most once per provider and
//! delivery id. Refused and repeated hooks are recorded in a ring of their own, so that requests without a
//! valid proof cannot displace genuine receipts. The genuine hooks of each app have such a ring as well.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use serde::{Serialize, de::DeserializeOwned};
use tidings_actors::{
    model::receipt::{Interest, Judgement, id_after, judge},
    ports::{
        APP_RECEIPTS_MAX, BodyNote, Hook, HookOwner, NOTED_RECEIPTS_MAX, RECEIPTS_MAX, Reading, Receipt,
        ReceiptFilter, RequestToKeep, Selector, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, ReceiptId, RepositoryId},
    kind::{ReceiptReason, ReceiptVerdict, SelectorKind},
    receipt,
};

use super::receipt_bodies;
use crate::{
    Context,
    database::{error::undecodable, rows},
};

/// Takes a genuine hook in.
pub(crate) async fn receive(
    connection: &impl ConnectionTrait,
    context: &Context,
    hook: Hook,
    kept: Option<&RequestToKeep>,
) -> Result<Receipt, StoreError> {
    let id = ReceiptId::new(context.random.ulid(hook.received_at));
    if is_seen(connection, &hook).await? {
        let (verdict, reason) = (ReceiptVerdict::Duplicate, ReceiptReason::SeenBefore);
        let (repositories, times) = (Vec::new(), 1);
        return Ok(Receipt { id, hook, verdict, reason, repositories, times, replayed_at: None, body: None });
    }
    let judgement = judged(connection, &hook).await?;
    if hook.owner.is_none() {
        remember(connection, &judgement, hook.received_at).await?;
    }
    let Judgement { verdict, reason, repositories, .. } = judgement;
    let receipt =
        Receipt { id, hook, verdict, reason, repositories, times: 1, replayed_at: None, body: None };
    write(connection, context, receipt, kept).await
}

/// Whether a genuine hook with this delivery id came before, to the same hook of an app or to the server
/// itself.
async fn is_seen(connection: &impl ConnectionTrait, hook: &Hook) -> Result<bool, StoreError> {
    let Some(delivery) = &hook.delivery else { return Ok(false) };
    let (text, first): (_, Value) = match &hook.owner {
        Some(owner) => ("hook_id = $1 and hook_id is not null", owner.hook.clone().into()),
        None => ("provider = $1 and hook_id is null", hook.provider.into()),
    };
    let text = format!("select count(*) from receipt where {text} and delivery_id = $2 and not noted");
    let values = vec![first, delivery.as_str().into()];
    Ok(rows::number(connection, "receipt", &text, values).await? > 0)
}

#[derive(FromQueryResult)]
struct ReceiptRow {
    repository: RepositoryId,
    selector_kind: SelectorKind,
    selector_value: String,
    branch: Option<String>,
    app: AppId,
    url: String,
}

#[derive(FromQueryResult)]
struct Limit {
    repository_url: Option<String>,
}

/// Judges a hook by the watches of the repositories that it names; a hook of an app only by the watches of
/// that app.
async fn judged(connection: &impl ConnectionTrait, hook: &Hook) -> Result<Judgement, StoreError> {
    if hook.addresses.is_empty() {
        return Ok(judge(hook, &[]));
    }
    let limit = match &hook.owner {
        None => None,
        Some(owner) => {
            let text = "select repository_url from hook where id = $1";
            let found = rows::one::<Limit>(connection, "hook", text, vec![owner.hook.clone().into()]).await?;
            found.ok_or(StoreError::NotFound)?.repository_url
        }
    };
    let addresses: Vec<Vec<Value>> =
        hook.addresses.iter().map(|address| vec![address.as_str().into()]).collect();
    let (list, values) = rows::list(connection, &["text"], &addresses);
    let text = format!(
        "with named(url) as ({list})
         select r.id as repository, w.selector_kind, w.selector_value, c.branch, w.app_id as app, r.url
         from repository r join watch w on w.repository_id = r.id
         left join cursor c on c.watch_id = w.id and c.slot = ''
         where r.id in (select id from repository where url in (select url from named)
           union select repository_id from source where moved_to in (select url from named))"
    );
    let found: Vec<ReceiptRow> = rows::readable(connection, "watch", &text, values).await?;
    let interest = |row: ReceiptRow| Interest {
        repository: row.repository,
        selector: Selector { kind: row.selector_kind, value: row.selector_value },
        branch: row.branch,
    };
    let is_meant = |row: &ReceiptRow| {
        hook.owner.as_ref().is_none_or(|owner| owner.app == row.app)
            && limit.as_ref().is_none_or(|limit| *limit == row.url)
    };
    Ok(judge(hook, &found.into_iter().filter(is_meant).map(interest).collect::<Vec<_>>()))
}

/// Records that hooks of these repositories arrive.
async fn remember(
    connection: &impl ConnectionTrait,
    judgement: &Judgement,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update repository set hooked_at = $1 where id = $2 and coalesce(hooked_at, 0) < $1";
    for repository in judgement.repositories.iter().filter(|_| judgement.tells_of_refs) {
        rows::execute(connection, "repository", text, vec![at.0.into(), repository.clone().into()]).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Last {
    id: ReceiptId,
}

/// Writes a receipt, with an id after all others; the oldest receipt of its ring is removed if the ring is
/// full.
pub(crate) async fn write(
    connection: &impl ConnectionTrait,
    context: &Context,
    receipt: Receipt,
    kept: Option<&RequestToKeep>,
) -> Result<Receipt, StoreError> {
    let text = "select id from receipt order by id desc limit 1";
    let last: Option<Last> = rows::one(connection, "receipt", text, vec![]).await?;
    let id = id_after(last.as_ref().map(|last| &last.id), receipt.id.clone());
    let receipt = Receipt { id, body: kept.map(|kept| kept.note), ..receipt };
    let noted = matches!(receipt.verdict, ReceiptVerdict::Refused | ReceiptVerdict::Duplicate);
    let hook = receipt.hook.clone();
    let (ring, most) = match &hook.owner {
        _ if noted => (String::new(), NOTED_RECEIPTS_MAX),
        Some(owner) => (owner.app.to_string(), APP_RECEIPTS_MAX),
        None => (String::new(), RECEIPTS_MAX),
    };
    let text = "select max(ordinal) from receipt where noted = $1 and ring = $2";
    let of_ring = || vec![noted.into(), ring.as_str().into()];
    let ordinal = 1 + rows::number(connection, "receipt", text, of_ring()).await?;
    let text = "delete from receipt where noted = $1 and ring = $2 and ordinal <= $3";
    let beyond = [of_ring(), vec![(ordinal - most).into()]].concat();
    rows::execute(connection, "receipt", text, beyond).await?;
    let (hook_id, app_id) = hook.owner.map(|owner| (owner.hook, owner.app)).unzip();
    let row = receipt::Model {
        id: receipt.id.clone(),
        provider: hook.provider,
        delivery_id: hook.delivery.unwrap_or_else(|| receipt.id.to_string()),
        event: hook.event,
        news: hook.news,
        ref_name: hook.ref_name,
        addresses: array(&hook.addresses),
        repositories: array(&receipt.repositories),
        verdict: receipt.verdict,
        reason: receipt.reason,
        times: rows::signed(receipt.times),
        noted,
        ordinal,
        received_at: hook.received_at.0,
        replayed_at: receipt.replayed_at.map(|at| at.0),
        hook_id,
        app_id,
        ring,
        body: receipt.body.map(|body| body.fate),
        body_bytes: receipt.body.map(|body| rows::signed(body.size_bytes)),
    };
    rows::insert(connection, "receipt", vec![row]).await?;
    if let Some(kept) = kept {
        receipt_bodies::keep(connection, context, &receipt, kept).await?;
    }
    Ok(receipt)
}

/// Receipts, newest first; of the hooks of this app, or all.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    filter: &ReceiptFilter,
    before: Option<&ReceiptId>,
    limit: u64,
) -> Result<Vec<Receipt>, StoreError> {
    let mut values: Vec<Value> = vec![rows::signed(limit).into()];
    let mut text = String::from("select * from receipt where 1 = 1");
    let conditions: [(&str, Option<Value>); 4] = [
        ("app_id =", app.map(|app| app.clone().into())),
        ("hook_id =", filter.hook.as_ref().map(|hook| hook.clone().into())),
        ("verdict =", filter.verdict.map(Into::into)),
        ("id <", before.map(|before| before.clone().into())),
    ];
    for (condition, value) in conditions {
        let Some(value) = value else { continue };
        values.push(value);
        text.push_str(&format!(" and {condition} ${}", values.len()));
    }
    text.push_str(" order by id desc limit $1");
    let found: Vec<receipt::Model> = rows::readable(connection, "receipt", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// One receipt; of the hooks of this app, or any.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    id: &ReceiptId,
) -> Result<Receipt, StoreError> {
    let text = "select * from receipt where id = $1";
    let row: Option<receipt::Model> = rows::one(connection, "receipt", text, vec![id.clone().into()]).await?;
    let receipt = shown(row.ok_or(StoreError::NotFound)?)?;
    let is_of = |app: &AppId| receipt.hook.owner.as_ref().is_some_and(|owner| owner.app == *app);
    if app.is_none_or(is_of) { Ok(receipt) } else { Err(StoreError::NotFound) }
}

/// Judges a received hook again, by its stored body if that was read again.
pub(crate) async fn replay(
    connection: &impl ConnectionTrait,
    id: ReceiptId,
    reading: Option<&Reading>,
    at: Timestamp,
) -> Result<Receipt, StoreError> {
    let before = find(connection, None, &id).await?;
    before.may_be_replayed()?;
    let hook = before.hook.clone().read_again(reading);
    let judgement = judged(connection, &hook).await?;
    let text = "update receipt set verdict = $1, reason = $2, repositories = $3, replayed_at = $4, news = $5,
                ref_name = $6, addresses = $7 where id = $8";
    let values = vec![
        judgement.verdict.into(),
        judgement.reason.into(),
        array(&judgement.repositories).into(),
        at.0.into(),
        hook.news.into(),
        hook.ref_name.clone().into(),
        array(&hook.addresses).into(),
        before.id.clone().into(),
    ];
    rows::execute(connection, "receipt", text, values).await?;
    let Judgement { verdict, reason, repositories, .. } = judgement;
    Ok(Receipt { hook, verdict, reason, repositories, replayed_at: Some(at), ..before })
}

fn shown(row: receipt::Model) -> Result<Receipt, StoreError> {
    let own_id = row.id.to_string();
    let body = match row.body.zip(row.body_bytes) {
        Some((fate, size)) => Some(BodyNote { fate, size_bytes: rows::unsigned("receipt", size)? }),
        None => None,
    };
    Ok(Receipt {
        hook: Hook {
            owner: row.hook_id.zip(row.app_id).map(|(hook, app)| HookOwner { hook, app }),
            provider: row.provider,
            delivery: (row.delivery_id != own_id).then_some(row.delivery_id),
            event: row.event,
            news: row.news,
            ref_name: row.ref_name,
            addresses: elements(&row.addresses)?,
            received_at: Timestamp(row.received_at),
        },
        id: row.id,
        verdict: row.verdict,
        reason: row.reason,
        repositories: elements(&row.repositories)?,
        times: rows::unsigned("receipt", row.times)?,
        replayed_at: row.replayed_at.map(Timestamp),
        body,
    })
}

fn array<T: Serialize>(elements: &[T]) -> String {
    serde_json::to_string(elements).expect("texts are plain data")
}

fn elements<T: DeserializeOwned>(array: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(array).map_err(|error| undecodable("receipt", error))
}
