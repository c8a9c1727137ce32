//! Receipts of hooks, for the administrator: looking at them, and judging one again.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::Receipt;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};
use utoipa::ToSchema;

use crate::http::{
    bodies::{
        fields::Fields,
        moment::iso,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route},
    },
    front::Front,
    hooks,
};

/// What the cursors of the list are made for.
const RECEIPTS: &str = "admin receipts";

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::Viewer, list),
        route::<__path_replay, _, _>(Access::Operator, replay),
    ]
}

/// A hook of a Git host that was received.
#[derive(Serialize, ToSchema)]
struct ReceiptShown {
    receipt_id: String,
    /// `github`, `gitlab` or `gitea`.
    provider: &'static str,
    /// The host's id of the delivery; `null` where it gave none.
    delivery_id: Option<String>,
    /// The event as the host names it.
    event: String,
    /// `accepted`, `duplicate`, `ignored` or `refused`; of a refused one all else is a claim.
    verdict: &'static str,
    /// The reason for the verdict, as a code.
    reason: &'static str,
    /// The ref that it tells of.
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    /// Under which addresses the repository was looked for.
    addresses: Vec<String>,
    /// How many watched repositories have one of them.
    repositories: usize,
    /// How many requests it stands for: in a flood of refused or repeated hooks not each is kept.
    times: u64,
    received_at: String,
    replayed_at: Option<String>,
}

impl ReceiptShown {
    fn of(receipt: &Receipt) -> Self {
        let hook = &receipt.hook;
        Self {
            receipt_id: receipt.id.to_string(),
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
        }
    }
}

/// Receipts of hooks, newest first.
#[utoipa::path(get, path = "/api/admin/receipts", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("verdict" = Option<String>, Query, description = "only receipts with this verdict"),
    ),
    responses(
        (status = 200, body = Page<ReceiptShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "verdict"])?;
    let limit = query.limit()?;
    let verdict = query.get("verdict").map(str::parse::<ReceiptVerdict>).transpose().map_err(|_| {
        let words: Vec<_> = ReceiptVerdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        Problem::malformed(format!("verdict is one of: {}", words.join(", ")))
    })?;
    let before = query.after(RECEIPTS)?;
    let receipts = front.store.receipts(verdict, before.as_ref(), limit + 1).await;
    let receipts = receipts.map_err(|error| Problem::of_store(error, Kind::NO_RECEIPT))?;
    let page = page(receipts, limit, RECEIPTS, |receipt| receipt.id.to_string(), ReceiptShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// Judges a received hook again, by what is watched now, and heeds it like a new one.
#[utoipa::path(post, path = "/api/admin/receipts/{id}/replay", tag = "admin",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = ReceiptShown, description = "still nothing that anybody watches"),
        (status = 202, body = ReceiptShown, description = "the repository is polled soon")
    ))]
async fn replay(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: ReceiptId = request.id(Kind::NO_RECEIPT)?;
    let receipt = front.store.replay(&id, front.clock.now()).await;
    let receipt = receipt.map_err(|error| Problem::of_store(error, Kind::NO_RECEIPT))?;
    let status = match receipt.verdict {
        ReceiptVerdict::Accepted => {
            hooks::poke(&front, &receipt).await;
            StatusCode::ACCEPTED
        }
        _ => StatusCode::OK,
    };
    Ok(json(status, &ReceiptShown::of(&receipt)))
}
