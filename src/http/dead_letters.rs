//! Changes that were given up: looking at them, asking that they be sent again, and taking that back.

use std::sync::Arc;

use data_encoding::BASE64;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::DeadLetter;
use tidings_entity::{
    id::{DeadLetterId, WatchId},
    kind::LetterStatus,
};
use utoipa::ToSchema;

use super::{
    Front,
    fields::Fields,
    moment::iso,
    paging::{Page, Query, page},
    problem::{Kind, Problem},
    request::{Request, json},
    route::{Access, Answer, Route, route},
};

/// Most letters that one request names.
const IDS_MAX: usize = 1000;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App, list),
        route::<__path_redrive_one, _, _>(Access::App, redrive_one),
        route::<__path_redrive, _, _>(Access::App, redrive),
        route::<__path_cancel, _, _>(Access::App, cancel),
    ]
}

/// A change that was given up.
#[derive(Serialize, ToSchema)]
struct DeadLetterShown {
    dead_letter_id: String,
    repository_id: String,
    cursor: String,
    round: i64,
    position: u64,
    /// The path; bytes that are not UTF-8 are replaced.
    path: String,
    /// The path's bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `create`, `update` or `delete`.
    operation: &'static str,
    /// The delivery that was given up.
    delivery_id: String,
    /// `rejected`, `failing`, `content_unavailable` or `skipped`.
    reason: &'static str,
    /// `open`, `redrive_requested`, `redriven` or `superseded`.
    status: &'static str,
    /// The receiver's last status code.
    http_status: Option<u16>,
    /// The beginning of its last answer.
    excerpt: String,
    created_at: String,
}

impl DeadLetterShown {
    fn of(letter: &DeadLetter) -> Self {
        let lossless = str::from_utf8(&letter.path).is_ok();
        Self {
            dead_letter_id: letter.id.to_string(),
            repository_id: letter.watch.to_string(),
            cursor: letter.cursor.to_string(),
            round: letter.round,
            position: letter.position,
            path: String::from_utf8_lossy(&letter.path).into_owned(),
            path_base64: (!lossless).then(|| BASE64.encode(&letter.path)),
            operation: letter.operation.as_str(),
            delivery_id: letter.delivery.to_string(),
            reason: letter.reason.as_str(),
            status: letter.status.as_str(),
            http_status: letter.http_status,
            excerpt: letter.excerpt.clone(),
            created_at: iso(letter.created_at),
        }
    }
}

/// Which letters are to be sent again.
#[derive(ToSchema)]
struct Redrive {
    /// Their ids, at most 1,000; missing: every open one.
    ids: Option<Vec<String>>,
}

/// How many changes will be sent again.
#[derive(Serialize, ToSchema)]
struct RedriveRequested {
    requested: u64,
}

/// Which redrives end.
#[derive(ToSchema)]
struct Cancel {
    /// Only those of this repository; missing: all of the app.
    repository_id: Option<String>,
}

/// What was taken back.
#[derive(Serialize, ToSchema)]
struct RedriveCancelled {
    /// Letters that waited to be sent again.
    reopened: u64,
    /// The branches, by `cursor`, whose running redrive ends.
    ending: Vec<String>,
}

/// The app's dead letters, newest first.
#[utoipa::path(get, path = "/api/dead-letters", tag = "dead letters",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("status" = Option<String>, Query, description = "only letters that stand there"),
    ),
    responses(
        (status = 200, body = Page<DeadLetterShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?;
    let query = Query::of(&request.query, &["limit", "cursor", "status"])?;
    let limit = query.limit()?;
    let status = query.get("status").map(str::parse::<LetterStatus>).transpose().map_err(|_| {
        let words: Vec<_> = LetterStatus::ALL.iter().map(|status| status.as_str()).collect();
        Problem::malformed(format!("status is one of: {}", words.join(", ")))
    })?;
    let name = format!("dead-letters of {}", app.id);
    let before = query.after(&name)?;
    let letters = front
        .store
        .dead_letters(&app.id, status, before.as_ref(), limit + 1)
        .await
        .map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))?;
    let page = page(letters, limit, &name, |letter| letter.id.to_string(), DeadLetterShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// Asks that one change be sent again.
#[utoipa::path(post, path = "/api/dead-letters/{id}/redrive", tag = "dead letters",
    params(("id" = String, Path)),
    responses(
        (status = 202, body = RedriveRequested)
    ))]
async fn redrive_one(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: DeadLetterId = request.id(Kind::NO_DEAD_LETTER)?;
    ask(&front, &request, &[id]).await
}

/// Asks that changes be sent again: those that are named, or every open one.
#[utoipa::path(post, path = "/api/dead-letters/redrive", tag = "dead letters",
    request_body = Option<Redrive>,
    responses(
        (status = 202, body = RedriveRequested)
    ))]
async fn redrive(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional(&request.body)?;
    let wish = Redrive { ids: fields.texts("ids") };
    if wish.ids.as_ref().is_some_and(|ids| !(1..=IDS_MAX).contains(&ids.len())) {
        fields.refuse("ids", format!("must name 1 to {IDS_MAX} dead letters"));
    }
    fields.finish()?;
    let ids: Result<Vec<DeadLetterId>, _> = wish.ids.iter().flatten().map(|id| id.parse()).collect();
    let ids = ids.map_err(|_| Problem::new(Kind::NO_DEAD_LETTER))?;
    ask(&front, &request, &ids).await
}

/// Takes every request for a redrive back: what waits is reopened, what is being sent again ends
/// after the attempts under way, and what it did not reach is reopened as well.
#[utoipa::path(post, path = "/api/dead-letters/redrive/cancel", tag = "dead letters",
    request_body = Option<Cancel>,
    responses(
        (status = 202, body = RedriveCancelled)
    ))]
async fn cancel(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional(&request.body)?;
    let wish = Cancel { repository_id: fields.text("repository_id", 1..=64) };
    fields.finish()?;
    let watch: Result<Option<WatchId>, _> = wish.repository_id.map(|id| id.parse()).transpose();
    let watch = watch.map_err(|_| Problem::new(Kind::NOT_REGISTERED))?;
    let app = &request.app()?.id;
    let cancelled = front
        .store
        .cancel_redrive(app, watch.as_ref())
        .await
        .map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    if !cancelled.ending.is_empty() {
        front.handle.refresh(app).await;
    }
    let ending = cancelled.ending.iter().map(ToString::to_string).collect();
    Ok(json(StatusCode::ACCEPTED, &RedriveCancelled { reopened: cancelled.reopened, ending }))
}

async fn ask(front: &Front, request: &Request, ids: &[DeadLetterId]) -> Answer {
    let app = &request.app()?.id;
    let (requested, _cursors) = front
        .store
        .request_redrive(app, ids)
        .await
        .map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))?;
    if requested > 0 {
        front.handle.refresh(app).await;
    }
    Ok(json(StatusCode::ACCEPTED, &RedriveRequested { requested }))
}
