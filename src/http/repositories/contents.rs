//! Contents by blob id: the target of `content_url` in a delivery.
//!
//! Mirrors are shared by all apps that watch a repository, so a blob in a mirror proves nothing: a content is
//! sent only while a tree of the caller's own watch has it, as filtered by its view. A worker without the
//! permission to read contents reads those of a watch while it has a claim on a task of that watch; any other
//! watch is answered to it like one that is not there.

pub mod downloads;
pub(crate) mod trees;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidings_actors::{
    limits::budget::MemoryPermit,
    model::round::TreeEnd,
    model::view::MAX_SIZE_CEILING,
    ports::{Content, GitError, PinnedTrees, Remote},
};
use tidings_entity::id::{AppId, ObjectId, WatchId};
use warp::reply::Response;

use self::downloads::Downloads;
use super::super::front::Front;
use super::store_failed;
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        auth::lacking,
        request::Request,
        route::{Access, Answer, Permission, Route, route_with},
    },
    repositories::contents::trees::{RETRY_AFTER_SECONDS, bring_trees, content, unavailable},
};

/// Content of at most this many bytes (1 MiB) is read at once; larger content only after its size is known.
const SMALL_BYTES: u64 = 1 << 20;

/// The routes of this file.
pub(super) fn routes(downloads: &Arc<Downloads>) -> Vec<Route> {
    vec![route_with::<__path_blob, _, _, _>(Access::Holder(Permission::ContentsRead), downloads, blob)]
}

/// Returns the content of a blob. The blob must be in a tree that the app holds, or in the target tree of an
/// open round. A token with `tasks:claim` reads contents of a watch while it has a claim on a task of the
/// watch.
#[utoipa::path(get, path = "/api/repositories/{id}/blobs/{blob}", tag = "repositories",
    params(
        ("id" = String, Path),
        ("blob" = String, Path, description = "Id of the blob, 40 hexadecimal digits: `file.blob` of a \
            delivery."),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of an earlier answer."),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>,
            description = "The content as raw bytes, at most 256 MiB."),
        (status = 304, description = "The content still has the `ETag` of `If-None-Match`."),
        (status = 410, description = "No tree that the app holds has the blob any more.")
    ))]
async fn blob(front: Arc<Front>, downloads: Arc<Downloads>, request: Request) -> Answer {
    let app = request.app()?;
    let blob = blob_id(&request)?;
    let watch: WatchId = request.id(Kind::NOT_REGISTERED)?;
    check_claim(&front, &request, &watch, Permission::ContentsRead).await?;
    let download = downloads.begin(&app.id)?;
    let pinned = front.store.pinned_trees(&app.id, &watch).await.map_err(store_failed)?;
    if !is_held(&front, &downloads, &app.id, &pinned, blob).await? {
        return Err(Problem::new(Kind::CONTENT_GONE));
    }
    let tag = HeaderValue::from_str(&format!("\"{blob}\"")).expect("hexadecimal digits");
    let mut response = if is_known(&request.headers, blob) {
        let mut response = Response::new(Bytes::new().into());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let (content, held) = read(&front, &downloads, &app.id, &pinned.remote, blob).await?;
        download.answer(content, held)
    };
    response.headers_mut().insert(header::ETAG, tag);
    // The client may cache the content, but must ask each time whether it may still be shown.
    let caching = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    Ok(response)
}

/// Checks that a caller without this permission has a claim on a task of the watch.
pub(super) async fn check_claim(
    front: &Front,
    request: &Request,
    watch: &WatchId,
    permission: Permission,
) -> Result<(), Problem> {
    if request.powers.may(permission) {
        return Ok(());
    }
    let app = &request.app()?.id;
    let has_claim = front.tasks.has_claim(app, watch, &request.actor).await.map_err(store_failed)?;
    if has_claim { Ok(()) } else { Err(lacking(permission)) }
}

fn blob_id(request: &Request) -> Result<ObjectId, Problem> {
    let text = request.parameters.get(1).map(|text| text.to_ascii_lowercase());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Problem::malformed("a blob is named by 40 hexadecimal digits"))
}

/// Whether the client says that it has this content already.
fn is_known(headers: &HeaderMap, blob: ObjectId) -> bool {
    let blob = blob.to_string();
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(',')).map(str::trim).any(|tag| {
        let quoted = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || quoted.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(&blob)
    })
}

/// Whether a tree of the watch has the blob. Trees that a lost mirror lacks are fetched.
async fn is_held(
    front: &Front,
    downloads: &Downloads,
    app: &AppId,
    pinned: &PinnedTrees,
    blob: ObjectId,
) -> Result<bool, Problem> {
    let search = async |ends: &[TreeEnd]| {
        let _turn = downloads.search(app).await?;
        Ok(front.git.holds(&pinned.remote, ends, blob).await)
    };
    let found = match search(&pinned.ends).await? {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            let ends = bring_trees(front, pinned).await.map_err(|error| unavailable(&error))?;
            search(&ends).await?
        }
        found => found,
    };
    found.map_err(|error| unavailable(&error))
}

/// The content, and the memory that it takes.
async fn read(
    front: &Front,
    downloads: &Downloads,
    app: &AppId,
    remote: &Remote,
    blob: ObjectId,
) -> Result<(Bytes, MemoryPermit), Problem> {
    let mut limit = SMALL_BYTES;
    for _ in 0..2 {
        // While it is read there are two copies of it.
        let mut held = downloads.memory(app, limit.saturating_mul(2)).await?;
        match content(front, remote, blob, limit).await.map_err(|error| unavailable(&error))? {
            Content::Whole(bytes) => {
                held.shrink(bytes.len() as u64);
                return Ok((bytes, held));
            }
            Content::TooLarge { size } if size > MAX_SIZE_CEILING => {
                let detail = format!("it has {size} bytes, more than {MAX_SIZE_CEILING}");
                return Err(Problem::new(Kind::CONTENT_TOO_LARGE).with_detail(detail));
            }
            Content::TooLarge { size } => limit = size,
        }
    }
    Err(Problem::new(Kind::CONTENT_UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS))
}
