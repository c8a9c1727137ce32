//! Receipts of hooks. A genuine hook is judged and written in one transaction, at most once per
//! provider and delivery id. Refused and repeated ones are noted in a ring of their own, so that
//! nobody who can merely send requests pushes a genuine one out.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use serde::{Serialize, de::DeserializeOwned};
use tidings_actors::{
    ports::{Hook, NOTED_RECEIPTS_MAX, RECEIPTS_MAX, Receipt, Selector, StoreError},
    receipt::{Interest, Judgement, id_after, judge},
    time::Timestamp,
};
use tidings_entity::{
    id::{ReceiptId, RepositoryId},
    kind::{ReceiptReason, ReceiptVerdict, SelectorKind},
    receipt,
};

use crate::{Context, error::undecodable, rows};

/// Takes a genuine hook in.
pub(crate) async fn receive(
    connection: &impl ConnectionTrait,
    context: &Context,
    hook: Hook,
) -> Result<Receipt, StoreError> {
    let id = ReceiptId::new(context.random.ulid(hook.received_at));
    let text = "select count(*) from receipt where provider = $1 and delivery_id = $2 and not noted";
    let seen = match &hook.delivery {
        Some(delivery) => {
            let values = vec![hook.provider.into(), delivery.as_str().into()];
            rows::number(connection, "receipt", text, values).await? > 0
        }
        None => false,
    };
    if seen {
        let (verdict, reason) = (ReceiptVerdict::Duplicate, ReceiptReason::SeenBefore);
        return Ok(Receipt { id, hook, verdict, reason, repositories: vec![], times: 1, replayed_at: None });
    }
    let judgement = judged(connection, &hook).await?;
    remember(connection, &judgement, hook.received_at).await?;
    let Judgement { verdict, reason, repositories, .. } = judgement;
    let receipt = Receipt { id, hook, verdict, reason, repositories, times: 1, replayed_at: None };
    write(connection, receipt).await
}

#[derive(FromQueryResult)]
struct Row {
    repository: RepositoryId,
    selector_kind: SelectorKind,
    selector_value: String,
    branch: Option<String>,
}

/// Judges a hook by the watches of the repositories that it names.
async fn judged(connection: &impl ConnectionTrait, hook: &Hook) -> Result<Judgement, StoreError> {
    if hook.addresses.is_empty() {
        return Ok(judge(hook, &[]));
    }
    let addresses: Vec<Vec<Value>> =
        hook.addresses.iter().map(|address| vec![address.as_str().into()]).collect();
    let (list, values) = rows::list(connection, &["text"], &addresses);
    let text = format!(
        "with named(url) as ({list})
         select r.id as repository, w.selector_kind, w.selector_value, c.branch
         from repository r join watch w on w.repository_id = r.id
         left join cursor c on c.watch_id = w.id and c.slot = ''
         where r.id in (select id from repository where url in (select url from named)
           union select repository_id from source where moved_to in (select url from named))"
    );
    let found: Vec<Row> = rows::readable(connection, "watch", &text, values).await?;
    let interest = |row: Row| Interest {
        repository: row.repository,
        selector: Selector { kind: row.selector_kind, value: row.selector_value },
        branch: row.branch,
    };
    Ok(judge(hook, &found.into_iter().map(interest).collect::<Vec<_>>()))
}

/// Remembers that hooks of these repositories arrive.
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

/// Writes a receipt, under an id that comes after all others; the oldest of its ring goes when that
/// is full.
pub(crate) async fn write(
    connection: &impl ConnectionTrait,
    receipt: Receipt,
) -> Result<Receipt, StoreError> {
    let text = "select id from receipt order by id desc limit 1";
    let last: Option<Last> = rows::one(connection, "receipt", text, vec![]).await?;
    let id = id_after(last.as_ref().map(|last| &last.id), receipt.id.clone());
    let receipt = Receipt { id, ..receipt };
    let noted = matches!(receipt.verdict, ReceiptVerdict::Refused | ReceiptVerdict::Duplicate);
    let text = "select max(ordinal) from receipt where noted = $1";
    let ordinal = 1 + rows::number(connection, "receipt", text, vec![noted.into()]).await?;
    let most = if noted { NOTED_RECEIPTS_MAX } else { RECEIPTS_MAX };
    let text = "delete from receipt where noted = $1 and ordinal <= $2";
    rows::execute(connection, "receipt", text, vec![noted.into(), (ordinal - most).into()]).await?;
    let hook = receipt.hook.clone();
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
    };
    rows::insert(connection, "receipt", vec![row]).await?;
    Ok(receipt)
}

/// Receipts, newest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    verdict: Option<ReceiptVerdict>,
    before: Option<&ReceiptId>,
    limit: u64,
) -> Result<Vec<Receipt>, StoreError> {
    let mut values: Vec<Value> = vec![rows::signed(limit).into()];
    let mut text = String::from("select * from receipt where 1 = 1");
    if let Some(verdict) = verdict {
        values.push(verdict.into());
        text.push_str(&format!(" and verdict = ${}", values.len()));
    }
    if let Some(before) = before {
        values.push(before.clone().into());
        text.push_str(&format!(" and id < ${}", values.len()));
    }
    text.push_str(" order by id desc limit $1");
    let found: Vec<receipt::Model> = rows::readable(connection, "receipt", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// Judges a received hook again.
pub(crate) async fn replay(
    connection: &impl ConnectionTrait,
    id: ReceiptId,
    at: Timestamp,
) -> Result<Receipt, StoreError> {
    let text = "select * from receipt where id = $1";
    let row: Option<receipt::Model> = rows::one(connection, "receipt", text, vec![id.into()]).await?;
    let before = shown(row.ok_or(StoreError::NotFound)?)?;
    before.may_be_replayed()?;
    let judgement = judged(connection, &before.hook).await?;
    let text = "update receipt set verdict = $1, reason = $2, repositories = $3, replayed_at = $4
                where id = $5";
    let values = vec![
        judgement.verdict.into(),
        judgement.reason.into(),
        array(&judgement.repositories).into(),
        at.0.into(),
        before.id.clone().into(),
    ];
    rows::execute(connection, "receipt", text, values).await?;
    let Judgement { verdict, reason, repositories, .. } = judgement;
    Ok(Receipt { verdict, reason, repositories, replayed_at: Some(at), ..before })
}

fn shown(row: receipt::Model) -> Result<Receipt, StoreError> {
    let own_id = row.id.to_string();
    Ok(Receipt {
        hook: Hook {
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
    })
}

fn array<T: Serialize>(elements: &[T]) -> String {
    serde_json::to_string(elements).expect("texts are plain data")
}

fn elements<T: DeserializeOwned>(array: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(array).map_err(|error| undecodable("receipt", error))
}
