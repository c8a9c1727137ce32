//! Sending dead letters again: by their ids, by a filter, or all of them; and the progress of that.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{LetterFilter, Redrive, SEARCH_STEP, StoreError};
use tidings_entity::{
    id::{AppId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    DeadLetterShown, ids_of, missing,
    search::{self, FilterShown},
};
use crate::http::{
    apps::watch_sink::refuse_beside_older,
    bodies::{
        body::body,
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
};

/// Most dead letters in `ids` of one request.
pub(super) const IDS_MAX: usize = 1000;
/// How long a request marks letters, or counts them for a dry run, before it answers. The remaining letters
/// are marked after the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Letters that a dry run shows.
const SAMPLE: usize = 20;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_redrive_one, _, _>(Access::App(Permission::DeadLettersRedrive), redrive_one),
        route::<__path_redrive, _, _>(Access::App(Permission::DeadLettersRedrive), redrive),
        route::<__path_cancel, _, _>(Access::App(Permission::DeadLettersRedrive), cancel),
        route::<__path_list, _, _>(Access::App(Permission::DeadLettersRead), list),
        route::<__path_show, _, _>(Access::App(Permission::DeadLettersRead), show),
    ]
}

body! {
    /// Selects the dead letters to send again: those in `ids`, or those that match all other fields.
    struct RedriveRequest {
        /// Ids of dead letters, at most 1,000. Missing: every open dead letter that matches the other fields.
        ids: Option<Vec<String>>,
        /// Whether the dead letters are only counted and shown. Nothing is sent.
        dry_run: Option<bool>,
        /// Only dead letters that match this filter; see docs/filters.md.
        q: Option<String>,
        /// Only dead letters of this repository.
        repository_id: Option<String>,
        /// Only dead letters of this path.
        path: Option<String>,
        /// Only dead letters of the path with these bytes, in base64.
        path_base64: Option<String>,
        /// Only dead letters of paths that begin with this text.
        path_prefix: Option<String>,
        /// Only dead letters of paths that match this glob, in the syntax of `include`.
        path_glob: Option<String>,
        /// Only dead letters of this operation: `create`, `update` or `delete`.
        kind: Option<String>,
        /// Only changes parked for this reason: `rejected`, `failing`, `content_unavailable` or `skipped`.
        reason: Option<String>,
        /// Only changes parked at this moment (RFC 3339) or later.
        from: Option<String>,
        /// Only changes parked before this moment (RFC 3339).
        to: Option<String>,
    }
}

/// Result of a request to redrive.
#[derive(Serialize, ToSchema)]
struct RedriveRequested {
    /// Number of dead letters that were marked so far. More follow while `is_marking` is true.
    requested: u64,
    /// Id of the redrive. `/api/dead-letters/redrives/{id}` shows its progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_id: Option<String>,
    /// Whether dead letters are still being marked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_marking: bool,
}

/// Result of a dry run of a redrive or a dismissal.
#[derive(Serialize, ToSchema)]
struct DryRun {
    dry_run: bool,
    /// Number of dead letters that would be sent again or dismissed.
    would_request: u64,
    /// Whether more dead letters may match, because not all were looked at.
    at_least: bool,
    /// The newest matching dead letters, at most 20.
    sample: Vec<DeadLetterShown>,
}

/// Selects the redrives to cancel.
#[derive(ToSchema)]
struct Cancel {
    /// Only redrives of this repository. Missing: all redrives of the app.
    repository_id: Option<String>,
}

/// Result of the cancellation.
#[derive(Serialize, ToSchema)]
struct RedriveCancelled {
    /// Number of dead letters that waited to be sent again and are open now.
    reopened: u64,
    /// The branches, by `cursor`, whose running redrive ends.
    ending: Vec<String>,
}

/// Progress of a redrive. `asked` = `sent` + `refused` + `superseded` + `cancelled` + `left`.
#[derive(Serialize, ToSchema)]
struct RedriveShown {
    redrive_id: String,
    /// `marking` (dead letters are still being selected; those selected are sent meanwhile), `sending` or
    /// `done`.
    state: &'static str,
    /// The filter that selects the dead letters. Missing: they were named by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<FilterShown>,
    /// Number of dead letters that the redrive selected so far.
    asked: u64,
    /// Number of dead letters that were sent again and acknowledged.
    sent: u64,
    /// Number of dead letters whose change was parked again. Each has a new dead letter.
    refused: u64,
    /// Number of dead letters that a later change of their path superseded, or whose repository was removed.
    superseded: u64,
    /// Number of dead letters whose redrive was cancelled.
    cancelled: u64,
    /// Number of dead letters that are still to be sent, or are being sent.
    left: u64,
    created_at: String,
}

impl RedriveShown {
    fn of(redrive: &Redrive) -> Self {
        Self {
            redrive_id: redrive.id.to_string(),
            state: match (redrive.is_marking, redrive.left) {
                (true, _) => "marking",
                (false, 0) => "done",
                (false, _) => "sending",
            },
            filter: redrive.filter.as_ref().map(FilterShown::of),
            asked: redrive.asked,
            sent: redrive.sent,
            refused: redrive.refused,
            superseded: redrive.superseded,
            cancelled: redrive.cancelled,
            left: redrive.left,
            created_at: iso(redrive.created_at),
        }
    }
}

/// Requests a redrive of one dead letter: its change is sent again.
#[utoipa::path(post, path = "/api/dead-letters/{id}/redrive", tag = "dead letters",
    params(("id" = String, Path)),
    responses(
        (status = 202, body = RedriveRequested)
    ))]
async fn redrive_one(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: DeadLetterId = request.id(Kind::NO_DEAD_LETTER)?;
    named(&front, &request, &[id]).await
}

/// Requests a redrive of dead letters: those named in `ids`, those that match a filter, or all open ones.
/// Each path is sent as it is on the branch at that time, so no newer content is overwritten.
#[utoipa::path(post, path = "/api/dead-letters/redrive", tag = "dead letters",
    request_body = Option<RedriveRequest>,
    responses(
        (status = 202, body = RedriveRequested),
        (status = 200, body = DryRun, description = "With `dry_run`: the dead letters that a redrive would \
            send. Nothing is sent.")
    ))]
async fn redrive(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<RedriveRequest>(&request.body)?;
    let ids = fields.texts("ids");
    if ids.as_ref().is_some_and(|ids| !(1..=IDS_MAX).contains(&ids.len())) {
        fields.refuse("ids", format!("must name 1 to {IDS_MAX} dead letters"));
    }
    let dry_run = fields.boolean("dry_run").unwrap_or(false);
    let filter = search::of_fields(&mut fields, front.clock.now());
    if ids.is_some() && (dry_run || filter != LetterFilter::default()) {
        fields.refuse("ids", "must stand alone: a request with ids has no filter and no `dry_run`");
    }
    fields.finish()?;
    let app = &request.app()?.id;
    if let Some(ids) = ids {
        return named(&front, &request, &ids_of(&ids)?).await;
    }
    if let Some(watch) = &filter.watch {
        front.store.watch(app, watch).await.map_err(|error| no_watch(error, watch))?;
    }
    if dry_run {
        return count(&front, app, &filter, &[LetterStatus::Open]).await;
    }
    if filter.q.is_some() {
        // An older replica that continues this redrive would mark every letter.
        refuse_beside_older(&front, "no filter `q`").await?;
    }
    begin(&front, app, &filter).await
}

/// Cancels the redrives of the app, or of one of its repositories. Attempts in flight finish; dead letters
/// that were not sent yet are open again.
#[utoipa::path(post, path = "/api/dead-letters/redrive/cancel", tag = "dead letters",
    request_body = Option<Cancel>,
    responses(
        (status = 202, body = RedriveCancelled)
    ))]
async fn cancel(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional(&request.body)?;
    let wanted = Cancel { repository_id: fields.text("repository_id", 1..=64) };
    fields.finish()?;
    let watch: Result<Option<WatchId>, _> = wanted.repository_id.map(|id| id.parse()).transpose();
    let watch = watch.map_err(|_| {
        Problem::new(Kind::NOT_REGISTERED).with_detail("repository_id is no id of a repository (repo_...)")
    })?;
    let app = &request.app()?.id;
    let cancelled = front.store.cancel_redrive(app, watch.as_ref()).await.map_err(|error| match &watch {
        Some(watch) => no_watch(error, watch),
        None => Problem::of_store(error, Kind::NOT_REGISTERED),
    })?;
    if !cancelled.ending.is_empty() {
        front.handle.refresh(app).await;
    }
    let ending = cancelled.ending.iter().map(ToString::to_string).collect();
    Ok(json(StatusCode::ACCEPTED, &RedriveCancelled { reopened: cancelled.reopened, ending }))
}

/// The failure of a call about the repository that a body names.
pub(super) fn no_watch(error: StoreError, watch: &WatchId) -> Problem {
    match error {
        StoreError::NotFound => {
            Problem::new(Kind::NOT_REGISTERED).with_detail(format!("this app has no repository {watch}"))
        }
        error => Problem::of_store(error, Kind::NOT_REGISTERED),
    }
}

/// Lists the redrives of the app, newest first.
#[utoipa::path(get, path = "/api/dead-letters/redrives", tag = "dead letters",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, body = Page<RedriveShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = &request.app()?.id;
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let name = format!("redrives of {app}");
    let before = query.after(&name)?;
    let redrives = front.store.redrives(app, before.as_ref(), limit + 1).await.map_err(failed)?;
    let page = page(redrives, limit, &name, |redrive| redrive.id.to_string(), RedriveShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// Shows the progress of one redrive.
#[utoipa::path(get, path = "/api/dead-letters/redrives/{id}", tag = "dead letters",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = RedriveShown)
    ))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let id: RedriveId = request.id(Kind::NO_REDRIVE)?;
    let redrive = front.store.redrive(&request.app()?.id, &id).await.map_err(failed)?;
    Ok(json(StatusCode::OK, &RedriveShown::of(&redrive)))
}

async fn named(front: &Front, request: &Request, ids: &[DeadLetterId]) -> Answer {
    let app = &request.app()?.id;
    let requested = front.store.request_redrive(app, ids).await;
    let (requested, _cursors) = requested.map_err(|error| missing(error, ids))?;
    if requested > 0 {
        front.handle.refresh(app).await;
    }
    let answer = RedriveRequested { requested, redrive_id: None, is_marking: false };
    Ok(json(StatusCode::ACCEPTED, &answer))
}

/// Begins a redrive and marks letters for a short time; the rest is marked after the answer.
async fn begin(front: &Front, app: &AppId, filter: &LetterFilter) -> Answer {
    let id = front.store.begin_redrive(app, filter).await.map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    let mut more = true;
    while more && Instant::now() < until {
        let step = front.store.mark_redrive(Some(&id)).await.map_err(failed)?;
        more = step.is_some_and(|step| step.more);
    }
    let redrive = front.store.redrive(app, &id).await.map_err(failed)?;
    if redrive.asked > 0 {
        front.handle.refresh(app).await;
    }
    if redrive.is_marking {
        front.handle.carry_on_redrives().await;
    }
    let answer = RedriveRequested {
        requested: redrive.asked,
        redrive_id: Some(id.to_string()),
        is_marking: redrive.is_marking,
    };
    Ok(json(StatusCode::ACCEPTED, &answer))
}

/// Counts the letters of these states that match a filter, page by page, and changes nothing.
pub(super) async fn count(
    front: &Front,
    app: &AppId,
    filter: &LetterFilter,
    states: &[LetterStatus],
) -> Answer {
    let until = Instant::now() + PATIENCE;
    let (mut would_request, mut sample, mut at_least) = (0, Vec::new(), false);
    for state in states {
        let filter = LetterFilter { status: Some(*state), ..filter.clone() };
        let mut before = None;
        loop {
            let page = front.store.dead_letters(app, &filter, before.as_ref(), SEARCH_STEP).await;
            let page = page.map_err(failed)?;
            would_request += page.letters.len() as u64;
            let room = SAMPLE.saturating_sub(sample.len());
            sample.extend(page.letters.iter().take(room).map(DeadLetterShown::of));
            before = page.next;
            if before.is_none() {
                break;
            }
            if Instant::now() >= until {
                at_least = true;
                break;
            }
        }
    }
    Ok(json(StatusCode::OK, &DryRun { dry_run: true, would_request, at_least, sample }))
}

fn failed(error: tidings_actors::ports::StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_REDRIVE)
}
