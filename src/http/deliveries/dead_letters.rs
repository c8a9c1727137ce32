//! Dead letters: searching them and reading one. Sending them again and closing them by hand are in the
//! folder.
//!
//! A page of a search looks at some thousand letters at most: it may hold fewer than were requested, or none,
//! and still name a next page.

mod dismissals;
mod redrives;
pub(in crate::http) mod search;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use data_encoding::BASE64;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{DeadLetter, StoreError};
use tidings_entity::id::{DeadLetterId, WatchId};
use utoipa::ToSchema;

use self::search::PageOfLetters;
use crate::http::{
    bodies::{
        moment::iso,
        operation::operation,
        paging::{Page, cursor_at},
        problem::{Kind, Problem},
    },
    deliveries::attempt::AttemptShown,
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
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
pub(in crate::http) struct DeadLetterShown {
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
    /// Operation of the change: `create`, `update`, `delete`, or `round` for a whole round that is one task
    /// and has an empty path.
    operation: &'static str,
    /// Id of the delivery that was parked.
    delivery_id: String,
    /// Id of the task that the change was, for a watch whose changes become tasks. The redrive is the same
    /// task again.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// Why the change was parked: `rejected`, `failing`, `content_unavailable` or `skipped`.
    reason: &'static str,
    /// Status of the dead letter: `open`, `redrive_requested`, `redriven`, `superseded` or `dismissed`.
    status: &'static str,
    /// Status code of the receiver's last answer.
    http_status: Option<u16>,
    /// Beginning of the receiver's last answer, or of the error that the last worker of the task reported.
    excerpt: String,
    /// Command of the queue. Only where the changes of the repository become tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Id of the last redrive of the dead letter. Missing: none, or the redrive was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_id: Option<String>,
    created_at: String,
}

impl DeadLetterShown {
    pub(in crate::http) fn of(letter: &DeadLetter) -> Self {
        let lossless = str::from_utf8(&letter.path).is_ok();
        Self {
            dead_letter_id: letter.id.to_string(),
            repository_id: letter.watch.to_string(),
            cursor: letter.cursor.to_string(),
            round: letter.round,
            position: letter.position,
            path: String::from_utf8_lossy(&letter.path).into_owned(),
            path_base64: (!lossless).then(|| BASE64.encode(&letter.path)),
            operation: operation(letter.operation, &letter.path),
            delivery_id: letter.delivery.to_string(),
            task_id: letter.task.as_ref().map(ToString::to_string),
            reason: letter.reason.as_str(),
            status: letter.status.as_str(),
            http_status: letter.http_status,
            excerpt: letter.excerpt.clone(),
            command: None,
            redrive_id: letter.redrive.as_ref().map(ToString::to_string),
            created_at: iso(letter.created_at),
        }
    }

    /// These letters, each with the queue that the changes of its watch fill.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(in crate::http) async fn all(front: &Front, letters: &[&DeadLetter]) -> Result<Vec<Self>, Problem> {
        let queues = queues_of(front, letters).await?;
        let shown = letters.iter().map(|letter| Self::of(letter).with_queue(&queues, &letter.watch));
        Ok(shown.collect())
    }

    /// The letter with the queue that the changes of its watch fill.
    fn with_queue(self, queues: &HashMap<WatchId, String>, watch: &WatchId) -> Self {
        Self { command: queues.get(watch).cloned(), ..self }
    }
}

/// Longest text that a problem repeats as an id, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The ids of the dead letters that a body names.
///
/// # Errors
/// 404 for a text that is no id.
fn ids_of(texts: &[String]) -> Result<Vec<DeadLetterId>, Problem> {
    texts.iter().map(|text| text.parse::<DeadLetterId>().map_err(|_| no_letter(text))).collect()
}

/// The problem for dead letters one of which does not exist.
fn missing(error: StoreError, ids: &[DeadLetterId]) -> Problem {
    match (error, ids) {
        (StoreError::NotFound, [id]) => no_letter(id.as_str()),
        (StoreError::NotFound, ids) => Problem::new(Kind::NO_DEAD_LETTER).with_detail(format!(
            "one of the {} ids, or more, names no dead letter of this app; nothing was done",
            ids.len()
        )),
        (error, _) => Problem::of_store(error, Kind::NO_DEAD_LETTER),
    }
}

fn no_letter(id: &str) -> Problem {
    let problem = Problem::new(Kind::NO_DEAD_LETTER);
    match id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => problem.with_detail(format!("there is no dead letter {id}")),
        false => problem,
    }
}

/// The queues of those of these letters whose watches make tasks of their changes.
async fn queues_of(front: &Front, letters: &[&DeadLetter]) -> Result<HashMap<WatchId, String>, Problem> {
    let watches: BTreeSet<&WatchId> = letters.iter().map(|letter| &letter.watch).collect();
    let watches: Vec<WatchId> = watches.into_iter().cloned().collect();
    let found = front.tasks.queues_of_watches(&watches).await;
    found.map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))
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
    let name = format!("dead-letters of {}", app.id);
    let asked = PageOfLetters::of(&front, &request, &name, &[])?;
    let found = front.store.dead_letters(&app.id, &asked.filter, asked.before.as_ref(), asked.limit).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))?;
    let letters: Vec<&DeadLetter> = found.letters.iter().collect();
    let items = DeadLetterShown::all(&front, &letters).await?;
    let next_cursor = found.next.map(|last| cursor_at(&name, last.as_str()));
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
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
    let queues = queues_of(&front, &[&letter]).await?;
    let detail = DeadLetterDetail {
        letter: DeadLetterShown::of(&letter).with_queue(&queues, &letter.watch),
        attempts: attempts.iter().map(AttemptShown::of).collect(),
    };
    Ok(json(StatusCode::OK, &detail))
}
