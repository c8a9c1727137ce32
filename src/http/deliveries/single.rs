//! One delivery by its id.
//!
//! A failed or parked delivery has a row that names its round and position: only that round is read. Others
//! have no row of their own, so they are searched among the newest changes.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::round::DeliveryId,
    ports::{App, LetterFilter, RoundFilter, RoundPlace, Seek},
};
use tidings_entity::id::{AppId, CursorId};
use utoipa::ToSchema;

use super::super::front::Front;
use super::{
    DeliveryShown, Wanted, delivery_id,
    histories::{ChangeShown, Histories, Reading, Unread, round_failed},
    open_endpoint, searched, shown_delivery,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    deliveries::attempt::AttemptShown,
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
};

/// The number of pages that a search for one delivery reads.
const PAGES_MAX: usize = 4;
/// The most attempts of one delivery that are shown.
const ATTEMPTS_MAX: u64 = 100;

/// The route of this file.
pub(super) fn route(histories: &Arc<Histories>) -> Route {
    route_with::<__path_show, _, _, _>(Access::App(Permission::DeliveriesRead), histories, show)
}

/// A delivery with its attempts.
#[derive(Serialize, ToSchema)]
struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryShown,
    /// Id of the unfinished task that the change became, where changes become tasks. The end of the task
    /// settles the delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// The recorded attempts, oldest first, at most 100. Only failed ones, unless `delivery.history = all`.
    tries: Vec<AttemptShown>,
}

/// Shows the delivery with this id. A failed or parked delivery is found at once; others are searched among
/// the newest changes only. `GET /api/deliveries?id=` searches further back.
#[utoipa::path(get, path = "/api/deliveries/{id}", tag = "deliveries",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = DeliveryDetail),
        (status = 409, description = "The mirror no longer has the trees of the round.")
    ))]
async fn show(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let app = request.app()?;
    let _download = histories.downloads.begin(&app.id)?;
    let delivery = named(&front, &histories, app, &request).await?;
    Ok(json(StatusCode::OK, &detail(&front, delivery).await?))
}

/// The delivery whose id is in the path.
///
/// # Errors
/// 404 if the app has no delivery of that id, or it is not among the newest changes.
pub(super) async fn named(
    front: &Front,
    histories: &Histories,
    app: &App,
    request: &Request,
) -> Result<DeliveryShown, Problem> {
    let missing = || Problem::new(Kind::NO_DELIVERY);
    let text = request.parameters.first().map_or("", String::as_str);
    let id = delivery_id(text).map_err(|_| missing())?;
    let place = front.history.delivery(&app.id, &id).await.map_err(round_failed)?;
    if let Some(place) = place {
        let found = known(front, histories, &app.id, &id, place).await;
        let gone = |problem: &Problem| problem.code() == Kind::NO_ROUND.code;
        let delivery = found.map_err(|problem| if gone(&problem) { missing() } else { problem })?;
        return delivery.ok_or_else(missing);
    }
    let wanted = Wanted::of(&LetterFilter::default(), None, Some(id), None)?;
    let mut mark = None;
    for _ in 0..PAGES_MAX {
        let (page, next) = searched(front, histories, app, &wanted, mark, 1).await?;
        if let Some(delivery) = page.items.into_iter().next() {
            return Ok(delivery);
        }
        match next {
            None => return Err(missing()),
            next => mark = next,
        }
    }
    Err(missing().with_detail(
        "the delivery is not among the newest changes; GET /api/deliveries?id=ID searches further back",
    ))
}

/// The delivery whose row names its round and its position. If the trees cannot be read, the dead letter
/// alone is shown.
async fn known(
    front: &Front,
    histories: &Histories,
    app: &AppId,
    id: &DeliveryId,
    (cursor, round, position): (CursorId, i64, u64),
) -> Result<Option<DeliveryShown>, Problem> {
    let place = RoundPlace::At(round, cursor.clone());
    let filter = RoundFilter { cursor: Some(cursor.clone()), place, ..RoundFilter::default() };
    let listed = front.history.rounds(app, &filter, 1).await.map_err(round_failed)?;
    let Some(facts) = listed.first().filter(|facts| facts.number == round) else { return Ok(None) };
    let fates = front.history.fates(&cursor, round, position..position + 1).await.map_err(round_failed)?;
    let fate = fates.of(position);
    let reading = Reading::open(front, app, &cursor, round).await?;
    let shown = match reading.window(front, histories, &Seek::Position(position), 1).await {
        Ok(changes) => {
            let change = changes.first().filter(|change| *id == DeliveryId::of(&cursor, round, change));
            change.map(|change| ChangeShown::of(&reading.past, position, change, &fate))
        }
        Err(unread @ (Unread::Gone(_) | Unread::Failed(_))) => {
            let letter = fates.letters.iter().find(|letter| letter.delivery == *id);
            let letter = letter.ok_or_else(|| unread.problem())?;
            let (id, operation, path) = (id.to_string(), letter.operation, &letter.path);
            Some(ChangeShown::of_path(id, round, position, operation, path, &fate))
        }
        Err(unread) => return Err(unread.problem()),
    };
    let endpoint = open_endpoint(front, app).await?;
    Ok(shown.map(|shown| shown_delivery(facts, shown, &fate, endpoint.as_ref())))
}

async fn detail(front: &Front, delivery: DeliveryShown) -> Result<DeliveryDetail, Problem> {
    let cursor: CursorId = delivery.cursor.parse().map_err(|_| Problem::new(Kind::INTERNAL))?;
    let (round, position) = delivery.change.place();
    let tries = front.store.attempts(&cursor, round, position, ATTEMPTS_MAX).await.map_err(round_failed)?;
    let task = front.tasks.task_of_change(&cursor, round, position).await.map_err(round_failed)?;
    let task_id = task.map(|task| task.to_string());
    Ok(DeliveryDetail { delivery, task_id, tries: tries.iter().map(AttemptShown::of).collect() })
}
