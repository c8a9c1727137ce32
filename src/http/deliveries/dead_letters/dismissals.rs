//! Closing dead letters by hand: by their ids, by a filter, or all open ones.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{Dismissed, LetterFilter, StoreError};
use tidings_entity::{
    id::{AppId, DeadLetterId},
    kind::LetterStatus,
};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    ids_of, missing,
    redrives::{self, IDS_MAX},
    search,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// How long a request closes letters before it answers; the next request continues.
const PATIENCE: Duration = Duration::from_secs(5);
/// The states of letters that can be closed.
const OPEN: [LetterStatus; 2] = [LetterStatus::Open, LetterStatus::RedriveRequested];

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_dismiss_one, _, _>(Access::App(Permission::DeadLettersDismiss), dismiss_one),
        route::<__path_dismiss, _, _>(Access::App(Permission::DeadLettersDismiss), dismiss),
    ]
}

body! {
    /// Selects the dead letters to dismiss: those in `ids`, or those that match all other fields.
    struct DismissalRequest {
        /// Ids of dead letters, at most 1,000. Missing: every open dead letter that matches the other fields.
        ids: Option<Vec<String>>,
        /// Must be true if neither `ids` nor a filter is given. Then every open dead letter is dismissed.
        all: Option<bool>,
        /// Whether the dead letters are only counted and shown. Nothing is dismissed.
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

/// Result of a dismissal.
#[derive(Serialize, ToSchema)]
struct DismissalDone {
    /// Number of open dead letters that were dismissed.
    dismissed: u64,
    /// Number of matching dead letters that stay open, because the open round of their branch sends them.
    bound: u64,
    /// Whether the time of the request ended before all dead letters were looked at. Then send the request
    /// again.
    more: bool,
}

impl DismissalDone {
    fn of_named(dismissed: u64) -> Self {
        Self { dismissed, bound: 0, more: false }
    }
}

/// Dismisses one dead letter: its change is not redriven and no longer counts as open. The app gets the path
/// again as soon as the path changes. 409 if the open round of the branch sends the dead letter, or if it was
/// redriven or superseded.
#[utoipa::path(post, path = "/api/dead-letters/{id}/dismiss", tag = "dead letters",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = DismissalDone),
        (status = 409, description = "The open round of the branch sends the dead letter, or the dead letter \
            is closed already.")
    ))]
async fn dismiss_one(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: DeadLetterId = request.id(Kind::NO_DEAD_LETTER)?;
    named(&front, &request.app()?.id, &[id]).await
}

/// Dismisses dead letters: those named in `ids`, those that match a filter, or all open ones.
#[utoipa::path(post, path = "/api/dead-letters/dismiss", tag = "dead letters",
    request_body = DismissalRequest,
    responses(
        (status = 200, body = DismissalDone, description = "The number of dismissed dead letters; with \
            `dry_run`, a `DryRun`."),
        (status = 409, description = "For one of `ids`: the open round of the branch sends the dead letter, \
            or the dead letter is closed already.")
    ))]
async fn dismiss(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<DismissalRequest>(&request.body)?;
    let ids = fields.texts("ids");
    if ids.as_ref().is_some_and(|ids| !(1..=IDS_MAX).contains(&ids.len())) {
        fields.refuse("ids", format!("must name 1 to {IDS_MAX} dead letters"));
    }
    let all = fields.boolean("all").unwrap_or(false);
    let dry_run = fields.boolean("dry_run").unwrap_or(false);
    let filter = search::of_fields(&mut fields, front.clock.now());
    let is_filtered = filter != LetterFilter::default();
    if ids.is_some() && (all || dry_run || is_filtered) {
        fields.refuse("ids", "must stand alone: a request with ids has no filter, `all` or `dry_run`");
    }
    if all && is_filtered {
        fields.refuse("all", "must stand alone: a request for all letters has no filter");
    }
    // A filter that cannot be read is a fault already, and is no request for all letters.
    if ids.is_none() && !all && !dry_run && !is_filtered && !fields.has_faults() {
        fields.refuse("all", "must be true to close every open letter; or give `ids` or a filter");
    }
    fields.finish()?;
    let app = &request.app()?.id;
    if let Some(ids) = ids {
        return named(&front, app, &ids_of(&ids)?).await;
    }
    if let Some(watch) = &filter.watch {
        let found = front.store.watch(app, watch).await;
        found.map_err(|error| redrives::no_watch(error, watch))?;
    }
    if dry_run {
        return redrives::count(&front, app, &filter, &OPEN).await;
    }
    meant(&front, app, &filter).await
}

async fn named(front: &Front, app: &AppId, ids: &[DeadLetterId]) -> Answer {
    let dismissed = front.store.dismiss(app, ids, front.clock.now()).await;
    let dismissed = dismissed.map_err(|error| missing(error, ids))?;
    Ok(json(StatusCode::OK, &DismissalDone::of_named(dismissed)))
}

/// Dismisses the dead letters step by step, each step in its own transaction.
async fn meant(front: &Front, app: &AppId, filter: &LetterFilter) -> Answer {
    let until = Instant::now() + PATIENCE;
    let mut done = DismissalDone::of_named(0);
    let mut before = None;
    loop {
        let step = front.store.dismiss_some(app, filter, before.as_ref(), front.clock.now()).await;
        let Dismissed { dismissed, bound, next } = step.map_err(failed)?;
        done.dismissed += dismissed;
        done.bound += bound;
        before = next;
        if before.is_none() || Instant::now() >= until {
            done.more = before.is_some();
            return Ok(json(StatusCode::OK, &done));
        }
    }
}

fn failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_DEAD_LETTER)
}
