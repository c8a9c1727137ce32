//! The effect of one change on its file, for people: the content before and after as text, and the changed
//! lines.
//!
//! The contents are those of the round's two trees, filtered by their views: the app was sent them, or will
//! be. Each side has a size limit; a side that is larger, is no text or cannot be fetched is marked so.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{Content, GitError, Remote};
use tidings_entity::id::{CursorId, ObjectId};
use tracing::info;
use utoipa::ToSchema;

use super::single;
use crate::git::text_diff;
use crate::http::{
    bodies::problem::{Kind, Problem},
    deliveries::histories::{Histories, round_failed},
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
    repositories::contents::trees::{content, unavailable},
};

/// A side with more bytes is not shown (128 KiB).
const SIDE_BYTES_MAX: u64 = 128 << 10;
/// The memory that one answer needs: both sides, the lines of both, and their JSON.
const MEMORY_BYTES: u64 = 8 * SIDE_BYTES_MAX;

/// The route of this file.
pub(super) fn route(histories: &Arc<Histories>) -> Route {
    route_with::<__path_show, _, _, _>(Access::App(Permission::ContentsRead), histories, show)
}

/// The content of a file before and after a change.
#[derive(Serialize, ToSchema)]
struct ContentChange {
    /// Id of the delivery.
    id: String,
    /// The content before the change. Missing: there was none, or the app's content is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Side>,
    /// The content after the change. Missing: the file is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Side>,
    /// The changed lines, as hunks of a unified diff. Empty: no line changed. Missing: a side is not shown as
    /// text.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
}

/// The content before or after a change.
#[derive(Serialize, ToSchema)]
struct Side {
    /// Git object id of the content.
    blob: String,
    /// Size of the content in bytes. Missing: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    /// The content. Only for text of at most 128 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Why `text` is missing: `binary`, `too_large` (more than 128 KiB) or `unavailable` (neither the mirror
    /// nor the Git host gives the content).
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'static str>,
}

/// Shows the content of a file before and after a change, and the lines that differ. Staff need the role
/// operator, because the contents of private repositories belong to their apps.
#[utoipa::path(get, path = "/api/deliveries/{id}/content", tag = "deliveries",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = ContentChange),
        (status = 409, description = "The mirror no longer has the trees of the round.")
    ))]
async fn show(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let app = request.app()?;
    let _download = histories.downloads.begin(&app.id)?;
    let delivery = single::named(&front, &histories, app, &request).await?;
    let (old, new) = delivery.change.blobs();
    if !delivery.change.is_read() {
        let detail = "the mirror no longer has the trees of the round";
        return Err(Problem::new(Kind::TREE_UNAVAILABLE).with_detail(detail));
    }
    let cursor: CursorId = delivery.cursor.parse().map_err(|_| Problem::new(Kind::INTERNAL))?;
    let (round, _) = delivery.change.place();
    let past = front.history.past_round(&app.id, &cursor, round).await.map_err(round_failed)?;
    let _memory = histories.downloads.memory(&app.id, MEMORY_BYTES).await?;
    let (old, before) = side(&front, &past.remote, old).await?;
    let (new, after) = side(&front, &past.remote, new).await?;
    let diff = match (before, after) {
        // The delete of a file that the app is not known to have: there is nothing to compare.
        (Lines::None, Lines::None) => None,
        // The app's previous content is unknown: every line would look new.
        (Lines::None, _) if delivery.change.change_type() == "file.updated" => None,
        (before, after) => lines(before, after).await?,
    };
    let id = request.parameters.first().cloned().unwrap_or_default();
    Ok(json(StatusCode::OK, &ContentChange { id, old, new, diff }))
}

/// The lines of one side for the comparison.
enum Lines {
    /// The file does not exist on this side.
    None,
    Text(Bytes),
    /// The file exists, but its content is not shown.
    LeftOut,
}

async fn side(front: &Front, remote: &Remote, blob: Option<&str>) -> Result<(Option<Side>, Lines), Problem> {
    let Some(name) = blob else { return Ok((None, Lines::None)) };
    let blob: ObjectId = name.parse().map_err(|_| Problem::new(Kind::INTERNAL))?;
    let left_out = |size_bytes, why| {
        let side = Side { blob: name.to_owned(), size_bytes, text: None, left_out: Some(why) };
        Ok((Some(side), Lines::LeftOut))
    };
    match content(front, remote, blob, SIDE_BYTES_MAX).await {
        Ok(Content::Whole(bytes)) if text_diff::is_text(&bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let size = Some(bytes.len() as u64);
            let side = Side { blob: name.to_owned(), size_bytes: size, text: Some(text), left_out: None };
            Ok((Some(side), Lines::Text(bytes)))
        }
        Ok(Content::Whole(bytes)) => left_out(Some(bytes.len() as u64), "binary"),
        Ok(Content::TooLarge { size }) => left_out(Some(size), "too_large"),
        Err(error @ (GitError::RateLimited { .. } | GitError::Busy(_) | GitError::Cancelled)) => {
            Err(unavailable(&error))
        }
        Err(error) => {
            info!(code = error.code(), %error, "a side of a change is not shown");
            left_out(None, "unavailable")
        }
    }
}

/// The hunks, computed on a blocking thread; `None`: a side is not shown.
async fn lines(before: Lines, after: Lines) -> Result<Option<String>, Problem> {
    let text = |lines| match lines {
        Lines::None => Some(Bytes::new()),
        Lines::Text(text) => Some(text),
        Lines::LeftOut => None,
    };
    let (Some(before), Some(after)) = (text(before), text(after)) else { return Ok(None) };
    let made = tokio::task::spawn_blocking(move || text_diff::unified(&before, &after)).await;
    made.map_err(|_panic| Problem::new(Kind::INTERNAL))
}
