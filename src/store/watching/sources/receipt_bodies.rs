//! Bodies of hooks, sealed. All bodies share a ring of bytes: each row has the start of its body in the
//! sequence of all bytes ever stored, so that writing and dropping need no counting. The bodies of one app
//! are a smaller ring within it: an app that is flooded drops its own bodies first.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::secret::Secret,
    ports::{APP_BODIES_PART, KeptRequest, Receipt, RequestToKeep, StoreError},
};
use tidings_entity::{
    id::{AppId, ReceiptId},
    kind::BodyFate,
    receipt_body,
};
use tidings_secrets::SealedField;

use crate::{
    Context,
    database::{error::undecodable, rows},
};

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "receipt_body", column: "sealed", row }
}

/// Keeps the request of a receipt that was just written, and drops the oldest bodies beyond the ring.
pub(super) async fn keep(
    connection: &impl ConnectionTrait,
    context: &Context,
    receipt: &Receipt,
    kept: &RequestToKeep,
) -> Result<(), StoreError> {
    let ring = rows::signed(kept.ring_bytes);
    let start = end(connection, None).await?;
    let Some(request) = kept.request.as_ref().filter(|_| kept.note.fate == BodyFate::Kept) else {
        // A ring whose size was reduced is applied even if this body is not stored.
        return drop_before(connection, None, start - ring).await;
    };
    let app = receipt.hook.owner.as_ref().map(|owner| owner.app.clone());
    let sealed = context.keyring.seal(&place(receipt.id.as_str()), &packed(request), &*context.random);
    let size = rows::signed(sealed.len() as u64);
    let app_start = match &app {
        Some(app) => Some(end(connection, Some(app)).await?),
        None => None,
    };
    let row = receipt_body::Model {
        receipt_id: receipt.id.clone(),
        app_id: app.clone(),
        sealed,
        ring_start: start,
        app_start,
    };
    rows::insert(connection, "receipt_body", vec![row]).await?;
    if let (Some(app), Some(start)) = (&app, app_start) {
        drop_before(connection, Some(app), start + size - ring / rows::signed(APP_BODIES_PART)).await?;
    }
    drop_before(connection, None, start + size - ring).await
}

/// The start of the next body: after the newest one, of all or of this app.
async fn end(connection: &impl ConnectionTrait, app: Option<&AppId>) -> Result<i64, StoreError> {
    let (text, values): (_, Vec<Value>) = match app {
        Some(app) => (
            "select cast(app_start + length(sealed) as bigint) from receipt_body where app_id = $1
             order by app_start desc limit 1",
            vec![app.clone().into()],
        ),
        None => (
            "select cast(ring_start + length(sealed) as bigint) from receipt_body
             order by ring_start desc limit 1",
            vec![],
        ),
    };
    rows::number(connection, "receipt_body", text, values).await
}

/// Drops bodies that start before this place; their receipts stay and say so.
async fn drop_before(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    start: i64,
) -> Result<(), StoreError> {
    let mut values: Vec<Value> = vec![start.into()];
    let which = match app {
        Some(app) => {
            values.push(app.clone().into());
            "app_id = $2 and app_start < $1"
        }
        None => "ring_start < $1",
    };
    let fate = BodyFate::Dropped.as_str();
    let text = format!(
        "update receipt set body = '{fate}' where id in (select receipt_id from receipt_body where {which})"
    );
    if rows::execute(connection, "receipt", &text, values.clone()).await? == 0 {
        return Ok(());
    }
    let text = format!("delete from receipt_body where {which}");
    rows::execute(connection, "receipt_body", &text, values).await.map(drop)
}

#[derive(FromQueryResult)]
struct Sealed {
    sealed: Vec<u8>,
}

/// The stored part of a receipt's request.
pub(crate) async fn read(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &ReceiptId,
) -> Result<Option<KeptRequest>, StoreError> {
    let text = "select sealed from receipt_body where receipt_id = $1";
    let row: Option<Sealed> = rows::one(connection, "receipt_body", text, vec![id.clone().into()]).await?;
    let Some(Sealed { sealed }) = row else { return Ok(None) };
    let opened = context.keyring.open_sealed(&place(id.as_str()), &sealed);
    let opened = opened.map_err(|error| undecodable("receipt_body", error))?;
    unpacked(&opened).map(Some).ok_or_else(|| undecodable("receipt_body", "no header fields before the body"))
}

/// The header fields as one line of JSON, then the body as received.
fn packed(request: &KeptRequest) -> Secret {
    let headers = serde_json::to_string(&request.headers).expect("texts are plain data");
    Secret::new(format!("{headers}\n{}", request.body))
}

fn unpacked(opened: &Secret) -> Option<KeptRequest> {
    let (headers, body) = opened.expose().split_once('\n')?;
    Some(KeptRequest { headers: serde_json::from_str(headers).ok()?, body: body.to_owned() })
}
