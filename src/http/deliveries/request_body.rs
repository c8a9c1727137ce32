//! The body that is sent for one change, rendered again for people.
//!
//! Bodies are not stored. Every attempt of a delivery has the same bytes, which the round and the contents of
//! its files determine; so they can be rendered again as long as the contents are available.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::{round::DeliveryId, sink::Outlet},
    ports::{Action, ParcelBody, PrepareError, Seek},
};
use tidings_entity::id::{CursorId, WatchId};
use tracing::info;
use utoipa::ToSchema;

use super::single;
use crate::http::{
    bodies::problem::{Kind, Problem},
    deliveries::histories::{Histories, Reading, Unread, round_failed},
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
};

/// A body that is longer is not shown (384 KiB: base64 and JSON around 256 KiB).
const BODY_BYTES_MAX: usize = 384 << 10;
/// The memory that one answer needs.
const MEMORY_BYTES: u64 = 4 << 20;

/// The route of this file.
pub(super) fn route(histories: &Arc<Histories>) -> Route {
    route_with::<__path_show, _, _, _>(Access::App(Permission::ContentsRead), histories, show)
}

/// The request of a delivery.
#[derive(Serialize, ToSchema)]
struct RequestShown {
    /// Id of the delivery, and `webhook-id` of each of its requests.
    id: String,
    /// Last part of the address: `create`, `update` or `delete`. For a stream: the end of the subject. A
    /// batch is sent to `batch` and has this body as one of its elements.
    action: &'static str,
    /// Format of the bodies of the round: `docora` or `cloudevents`.
    format: &'static str,
    /// The body, byte for byte as in each attempt, or as the payload of the task that the change became.
    /// Missing: `left_out` has the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Why `body` is missing: `too_large` (the content has more than 256 KiB), `chunked` (a large binary file
    /// is sent in several requests) or `unavailable` (a content or tree is not in the mirror any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'static str>,
}

/// Shows the body that is sent for a change. Bodies are not stored: this one is made again from the round and
/// equals the body of each attempt. Headers are not shown: neither timestamps and signatures nor the headers
/// that the app added.
#[utoipa::path(get, path = "/api/deliveries/{id}/request", tag = "deliveries",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = RequestShown),
        (status = 409, description = "The mirror no longer has the trees of the round.")
    ))]
async fn show(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let app = request.app()?;
    let _download = histories.downloads.begin(&app.id)?;
    let delivery = single::named(&front, &histories, app, &request).await?;
    let cursor: CursorId = delivery.cursor.parse().map_err(|_| Problem::new(Kind::INTERNAL))?;
    let watch: WatchId = delivery.repository_id.parse().map_err(|_| Problem::new(Kind::INTERNAL))?;
    let (round, position) = delivery.change.place();
    let reading = Reading::open(&front, &app.id, &cursor, round).await?;
    let changes = reading.window(&front, &histories, &Seek::Position(position), 1).await;
    let change = changes.map_err(Unread::problem)?.into_iter().next();
    let change = change.ok_or_else(|| Problem::new(Kind::NO_DELIVERY))?;
    let watch = front.store.watch(&app.id, &watch).await.map_err(round_failed)?;
    let outlet = watch.sink.as_ref().map(|sink| sink.address.outlet());
    let past = &reading.past;
    let mut shown = RequestShown {
        id: DeliveryId::of(&cursor, round, &change).to_string(),
        action: Action::from(change.operation).as_str(),
        format: past.round.format.as_str(),
        body: None,
        left_out: None,
    };
    let _memory = histories.downloads.memory(&app.id, MEMORY_BYTES).await?;
    let outlet = outlet.unwrap_or(Outlet::Attempt);
    let parcel = front.handle.body_again(&app.id, past, (watch.facts, outlet), change, position).await;
    match parcel.map(|parcel| parcel.body) {
        Ok(ParcelBody::Whole(body)) if body.len() <= BODY_BYTES_MAX => {
            shown.body = Some(String::from_utf8_lossy(&body).into_owned());
        }
        Ok(ParcelBody::Whole(_)) | Err(PrepareError::OverBudget(_)) => shown.left_out = Some("too_large"),
        Ok(ParcelBody::Chunked { .. }) => shown.left_out = Some("chunked"),
        Err(PrepareError::Store(error)) => return Err(round_failed(error)),
        Err(PrepareError::Git(error)) => {
            info!(code = error.code(), %error, "the body of a change is not shown");
            shown.left_out = Some("unavailable");
        }
    }
    Ok(json(StatusCode::OK, &shown))
}
