//! Dead letters: searching them and reading one. Sending them again and closing them by hand are in the
//! folder.
//!
//! A page of a search looks at some thousand letters at most: it may hold fewer than were requested, or none,
//! and still name a next page.

mod dismissals;
mod redrives;
pub(super) mod search;

use std::sync::Arc;

use data_encoding::BASE64;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::DeadLetter;
use tidings_entity::id::DeadLetterId;
use utoipa::ToSchema;

use super::front::Front;
use crate::http::{
    bodies::{
        moment::iso,
        paging::{Page, Query, cursor_at},
        problem::{Kind, Problem},
    },
    deliveries::attempt::AttemptShown,
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The most attempts of one letter that are shown.
const ATTEMPTS_MAX: u64 = 100;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    let own = vec![
        route::<__path_list, _, _>(Access::App(Permission::DeadLettersRead), list),
        route::<__path_show, _, _>(Access::App(Permission::DeadLettersRead), show),
    ];
    [own, redrives::routes(), dismissals::routes()].concat()
}

/// A dead letter: a change that was parked.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterShown {
    dead_letter_id: String,
    repository_id: String,
    cursor: String,
    round: i64,
    position: u64,
    /// Path of the file. Bytes that are not UTF-8 are replaced.
    path: String,
    /// Bytes of the path in base64. Only if the path is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// Operation of the change: `create`, `update` or `delete`.
    operation: &'static str,
    /// Id of the delivery that was parked.
    delivery_id: String,
    /// Why the change was parked: `rejected`, `failing`, `content_unavailable` or `skipped`.
    reason: &'static str,
    /// Status of the dead letter: `open`, `redrive_requested`, `redriven`, `superseded` or `dismissed`.
    status: &'static str,
    /// Status code of the receiver's last answer.
    http_status: Option<u16>,
    /// Beginning of the receiver's last answer.
    excerpt: String,
    /// Id of the last redrive of the dead letter. Missing: none, or the redrive was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_id: Option<String>,
    created_at: String,
}

impl DeadLetterShown {
    pub(super) fn of(letter: &DeadLetter) -> Self {
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
            redrive_id: letter.redrive.as_ref().map(ToString::to_string),
            created_at: iso(letter.created_at),
        }
    }
}

/// Lists the dead letters of the app, newest first.
#[utoipa::path(get, path = "/api/dead-letters", tag = "dead letters",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("status" = Option<String>, Query, description = "Only dead letters with this status: `open`, \
            `redrive_requested`, `redriven`, `superseded` or `dismissed`."),
        ("repository_id" = Option<String>, Query, description = "Only changes of this repository \
            (`repo_...`)."),
        ("path" = Option<String>, Query, description = "Only changes of this path."),
        ("path_base64" = Option<String>, Query, description = "Only changes of this path, given as base64 of \
            its raw bytes."),
        ("path_prefix" = Option<String>, Query, description = "Only changes of paths that begin with this \
            text."),
        ("path_glob" = Option<String>, Query, description = "Only changes of paths that match this glob, \
            written as in `include`."),
        ("kind" = Option<String>, Query, description = "Only changes of this operation: `create`, `update` \
            or `delete`."),
        ("reason" = Option<String>, Query,
            description = "Only changes parked for this reason: `rejected`, `failing`, `content_unavailable` \
                or `skipped`."),
        ("from" = Option<String>, Query, description = "Only changes parked at this time (RFC 3339) or \
            later."),
        ("to" = Option<String>, Query, description = "Only changes parked before this time (RFC 3339)."),
    ),
    responses(
        (status = 200, body = Page<DeadLetterShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?;
    let known = [&["limit", "cursor", "q", "status"][..], &search::WORDS[..]].concat();
    let query = Query::of(&request.query, &known)?;
    let limit = query.limit()?;
    let filter = search::of_letters(&query, front.clock.now())?;
    let name = format!("dead-letters of {}", app.id);
    let before: Option<DeadLetterId> = query.after(&name)?;
    let found = front
        .store
        .dead_letters(&app.id, &filter, before.as_ref(), limit)
        .await
        .map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))?;
    let page = Page {
        items: found.letters.iter().map(DeadLetterShown::of).collect(),
        next_cursor: found.next.map(|last| cursor_at(&name, last.as_str())),
    };
    Ok(json(StatusCode::OK, &page))
}

/// A dead letter with its attempts.
#[derive(Serialize, ToSchema)]
struct DeadLetterDetail {
    #[serde(flatten)]
    letter: DeadLetterShown,
    /// The attempts at the change, oldest first, at most 100.
    attempts: Vec<AttemptShown>,
}

/// Shows the dead letter with this id.
#[utoipa::path(get, path = "/api/dead-letters/{id}", tag = "dead letters",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = DeadLetterDetail)
    ))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let id: DeadLetterId = request.id(Kind::NO_DEAD_LETTER)?;
    let failed = |error| Problem::of_store(error, Kind::NO_DEAD_LETTER);
    let letter = front.store.dead_letter(&request.app()?.id, &id).await.map_err(failed)?;
    let attempts = front.store.attempts(&letter.cursor, letter.round, letter.position, ATTEMPTS_MAX);
    let attempts = attempts.await.map_err(failed)?;
    let detail = DeadLetterDetail {
        letter: DeadLetterShown::of(&letter),
        attempts: attempts.iter().map(AttemptShown::of).collect(),
    };
    Ok(json(StatusCode::OK, &detail))
}
