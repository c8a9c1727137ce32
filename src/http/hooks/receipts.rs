//! Receipts of hooks: reading them, and judging one again. The staff sees all receipts, an app those of its
//! own hooks.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{AppHook, Reading, Receipt, ReceiptFilter, StoreError};
use tidings_entity::{
    id::{AppId, ReceiptId},
    kind::{ReceiptReason, ReceiptVerdict},
};
use utoipa::ToSchema;

use crate::hook::{kept, payload::Payload};
use crate::http::{
    bodies::{
        fields::Fields,
        moment::iso,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    hooks::{self, own},
};

/// The name of the list in its cursors.
const RECEIPTS: &str = "admin receipts";

/// The routes of an app.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::ReceiptsRead), list),
        route::<__path_show, _, _>(Access::App(Permission::ReceiptsOpen), show),
        route::<__path_replay, _, _>(Access::App(Permission::ReceiptsReplay), replay),
    ]
}

/// The routes of the staff alone.
pub fn staff_routes() -> Vec<Route> {
    vec![
        route::<__path_list_of_all, _, _>(Access::Staff(Permission::ReceiptsRead), list_of_all),
        route::<__path_show_any, _, _>(Access::Staff(Permission::ReceiptsOpen), show_any),
        route::<__path_replay_any, _, _>(Access::Staff(Permission::ReceiptsReplay), replay_any),
    ]
}

/// Receipt of a request from a Git host to a hook.
#[derive(Serialize, ToSchema)]
struct ReceiptShown {
    receipt_id: String,
    /// Id of the app's hook that got the request. Missing: the request came to an address of the server
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_id: Option<String>,
    /// Kind of the Git host: `github`, `gitlab` or `gitea`.
    provider: &'static str,
    /// Id that the Git host gave to the request. Null: the Git host gave none.
    delivery_id: Option<String>,
    /// Type of the event, in the word of the Git host.
    event: String,
    /// Verdict: `accepted`, `duplicate`, `ignored` or `refused`. If refused, all other fields are unverified
    /// claims of the sender.
    verdict: &'static str,
    /// Reason for the verdict, as a code.
    reason: &'static str,
    /// The ref that the hook names.
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    /// Addresses by which the repository was looked up.
    addresses: Vec<String>,
    /// Number of watched repositories that have one of these addresses.
    repositories: usize,
    /// Number of requests that the receipt counts. In a flood, refused or repeated requests share a receipt.
    times: u64,
    received_at: String,
    replayed_at: Option<String>,
    /// State of the body: `kept`, `too_large` (more than 65,536 bytes), `not_text`, `off` (`hooks.kept_bytes`
    /// is 0) or `dropped` (newer bodies needed the space). Null: the request had no valid proof, or repeats
    /// another one.
    body_state: Option<&'static str>,
    /// Size of the body in bytes.
    body_bytes: Option<u64>,
}

impl ReceiptShown {
    fn of(receipt: &Receipt) -> Self {
        let hook = &receipt.hook;
        Self {
            receipt_id: receipt.id.to_string(),
            hook_id: hook.owner.as_ref().map(|owner| owner.hook.to_string()),
            provider: hook.provider.as_str(),
            delivery_id: hook.delivery.clone(),
            event: hook.event.clone(),
            verdict: receipt.verdict.as_str(),
            reason: receipt.reason.as_str(),
            ref_name: hook.ref_name.clone(),
            addresses: hook.addresses.clone(),
            repositories: receipt.repositories.len(),
            times: receipt.times,
            received_at: iso(hook.received_at),
            replayed_at: receipt.replayed_at.map(iso),
            body_state: receipt.body.map(|body| body.fate.as_str()),
            body_bytes: receipt.body.map(|body| body.size_bytes),
        }
    }
}

/// A receipt with the stored parts of its request.
#[derive(Serialize, ToSchema)]
struct ReceiptWhole {
    #[serde(flatten)]
    receipt: ReceiptShown,
    /// Header fields of the request, without secrets and signatures. Null: nothing is stored.
    request_headers: Option<BTreeMap<String, String>>,
    /// The body, unchanged. Null: not stored; `body_state` has the reason.
    body: Option<String>,
}

fn store_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_RECEIPT)
}

/// The verdict that a list is limited to.
fn verdict(query: &Query) -> Result<Option<ReceiptVerdict>, Problem> {
    query.get("verdict").map(str::parse::<ReceiptVerdict>).transpose().map_err(|_| {
        let words: Vec<_> = ReceiptVerdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        Problem::malformed(format!("verdict is one of: {}", words.join(", ")))
    })
}

/// Lists the receipts of the app's hooks, newest first.
#[utoipa::path(get, path = "/api/receipts", tag = "hooks",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("verdict" = Option<String>, Query, description = "Only receipts with this verdict: `accepted`, \
            `duplicate`, `ignored` or `refused`."),
        ("hook" = Option<String>, Query, description = "Only receipts of this hook, by its id or name."),
    ),
    responses((status = 200, body = Page<ReceiptShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = &request.app()?.id;
    let query = Query::of(&request.query, &["limit", "cursor", "verdict", "hook"])?;
    let limit = query.limit()?;
    let hook = match query.get("hook") {
        Some(text) => Some(own::of_app(&front, app, text).await?),
        None => None,
    };
    let filter = ReceiptFilter { hook: hook.map(|AppHook { id, .. }| id), verdict: verdict(&query)? };
    let list = format!("receipts of {app}");
    let before = query.after(&list)?;
    let found = front.hooks.receipts_of(app, &filter, before.as_ref(), limit + 1).await;
    let found = found.map_err(store_failed)?;
    let page = page(found, limit, &list, |receipt| receipt.id.to_string(), ReceiptShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// Shows one receipt of a hook of the app, with the stored headers and body of the webhook.
#[utoipa::path(get, path = "/api/receipts/{id}", tag = "hooks", params(("id" = String, Path)),
    responses((status = 200, body = ReceiptWhole)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    whole(&front, Some(&request.app()?.id), &request).await
}

/// Evaluates a received webhook of the app again: reads its stored body once more and compares it with the
/// present watches. An accepted webhook causes a scan, as a new one does.
#[utoipa::path(post, path = "/api/receipts/{id}/replay", tag = "hooks", params(("id" = String, Path)),
    responses(
        (status = 200, body = ReceiptShown, description = "The webhook still names nothing that the app \
            watches."),
        (status = 202, body = ReceiptShown, description = "The repository is scanned soon."),
        (status = 409, description = "The webhook was not authenticated, repeats another webhook, or cannot \
            be read.")
    ))]
async fn replay(front: Arc<Front>, request: Request) -> Answer {
    replayed(&front, Some(&request.app()?.id), &request).await
}

/// Lists the receipts of all hooks, newest first.
#[utoipa::path(get, path = "/api/admin/receipts", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("verdict" = Option<String>, Query, description = "Only receipts with this verdict: `accepted`, \
            `duplicate`, `ignored` or `refused`."),
    ),
    responses(
        (status = 200, body = Page<ReceiptShown>)
    ))]
async fn list_of_all(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "verdict"])?;
    let limit = query.limit()?;
    let before = query.after(RECEIPTS)?;
    let receipts = front.store.receipts(verdict(&query)?, before.as_ref(), limit + 1).await;
    let receipts = receipts.map_err(store_failed)?;
    let page = page(receipts, limit, RECEIPTS, |receipt| receipt.id.to_string(), ReceiptShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// Shows one receipt, with the stored headers and body of the webhook.
#[utoipa::path(get, path = "/api/admin/receipts/{id}", tag = "admin", params(("id" = String, Path)),
    responses((status = 200, body = ReceiptWhole)))]
async fn show_any(front: Arc<Front>, request: Request) -> Answer {
    whole(&front, None, &request).await
}

/// Evaluates a received webhook again: reads its stored body once more and compares it with the present
/// watches. An accepted webhook causes a scan, as a new one does.
#[utoipa::path(post, path = "/api/admin/receipts/{id}/replay", tag = "admin",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = ReceiptShown, description = "The webhook still names nothing that any app \
            watches."),
        (status = 202, body = ReceiptShown, description = "The repository is scanned soon."),
        (status = 409, description = "The webhook was not authenticated, repeats another webhook, or cannot \
            be read.")
    ))]
async fn replay_any(front: Arc<Front>, request: Request) -> Answer {
    replayed(&front, None, &request).await
}

async fn whole(front: &Front, app: Option<&AppId>, request: &Request) -> Answer {
    let id: ReceiptId = request.id(Kind::NO_RECEIPT)?;
    let receipt = front.hooks.receipt(app, &id).await.map_err(store_failed)?;
    let kept = front.hooks.kept_request(&id).await.map_err(store_failed)?;
    let (request_headers, body) = kept.map(|kept| (kept.headers.into_iter().collect(), kept.body)).unzip();
    Ok(json(StatusCode::OK, &ReceiptWhole { receipt: ReceiptShown::of(&receipt), request_headers, body }))
}

async fn replayed(front: &Front, app: Option<&AppId>, request: &Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: ReceiptId = request.id(Kind::NO_RECEIPT)?;
    let receipt = front.hooks.receipt(app, &id).await.map_err(store_failed)?;
    let reading = read_again(front, &receipt).await?;
    let receipt = front.store.replay(&id, reading.as_ref(), front.clock.now()).await.map_err(store_failed)?;
    let status = match receipt.verdict {
        ReceiptVerdict::Accepted => {
            hooks::poke(front, &receipt).await;
            StatusCode::ACCEPTED
        }
        _ => StatusCode::OK,
    };
    Ok(json(status, &ReceiptShown::of(&receipt)))
}

/// The result of reading the stored body of a receipt again; `None`: no body is stored, so the first result
/// counts.
async fn read_again(front: &Front, receipt: &Receipt) -> Result<Option<Reading>, Problem> {
    let Some(kept) = front.hooks.kept_request(&receipt.id).await.map_err(store_failed)? else {
        return Ok(None);
    };
    match kept::read_again(receipt.hook.provider, &receipt.hook.event, &kept) {
        Ok(Payload { news, ref_name, addresses }) => Ok(Some(Reading { news, ref_name, addresses })),
        Err(fault) if receipt.reason == ReceiptReason::Unreadable => {
            Err(Problem::new(Kind::CONFLICT).with_detail(format!("the body can still not be read: {fault}")))
        }
        Err(_what_was_read_then_counts) => Ok(None),
    }
}
