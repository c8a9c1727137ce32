//! Contents by blob id: what `content_url` of a delivery leads to.
//!
//! Mirrors are shared by all apps that watch a repository, so that a blob is in one proves nothing: a
//! content is given only while a tree of the caller's own watch has it, as its view shows it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidings_actors::{
    budget::Held,
    ports::{Content, Extent, FetchOrder, GitError, PinnedTrees, Remote},
    round::TreeEnd,
    view::MAX_SIZE_CEILING,
};
use tidings_entity::id::{AppId, ObjectId, WatchId};
use tracing::{info, warn};
use warp::reply::Response;

use super::{
    super::{
        Front,
        problem::{Kind, Problem},
        request::Request,
        route::{Access, Answer, Route, route},
    },
    store_failed,
};

/// Content of at most so many bytes (1 MiB) is read at once; of more the size is asked for before.
const SMALL_BYTES: u64 = 1 << 20;
/// Trees that the host refuses for good are left out, at most so many of one request.
const REFUSALS_MAX: usize = 8;
/// How many seconds a client should wait when the Git host does not give a content.
const RETRY_AFTER_SECONDS: u64 = 30;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_blob, _, _>(Access::App, blob)]
}

/// The content of a blob, while a tree that the app holds or is brought to has it.
#[utoipa::path(get, path = "/api/repositories/{id}/blobs/{blob}", tag = "repositories",
    params(
        ("id" = String, Path),
        ("blob" = String, Path, description = "`file.blob` of a delivery: 40 hexadecimal digits"),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` that was given before"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>,
            description = "the bytes as they are stored, at most 256 MiB"),
        (status = 304, description = "what `If-None-Match` names is still right"),
        (status = 410, description = "no tree that is held has it any more")
    ))]
async fn blob(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?;
    let blob = blob_id(&request)?;
    let watch: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let download = front.downloads.begin(&app.id)?;
    let pinned = front.store.pinned_trees(&app.id, &watch).await.map_err(store_failed)?;
    if !is_held(&front, &app.id, &pinned, blob).await? {
        return Err(Problem::new(Kind::CONTENT_GONE));
    }
    let tag = HeaderValue::from_str(&format!("\"{blob}\"")).expect("hexadecimal digits");
    let mut response = if is_known(&request.headers, blob) {
        let mut response = Response::new(Bytes::new().into());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let (content, held) = read(&front, &pinned.remote, blob).await?;
        download.answer(content, held)
    };
    response.headers_mut().insert(header::ETAG, tag);
    // May be kept by the client, but whether it may still be seen is asked each time.
    let caching = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    Ok(response)
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
async fn is_held(front: &Front, app: &AppId, pinned: &PinnedTrees, blob: ObjectId) -> Result<bool, Problem> {
    let search = async |ends: &[TreeEnd]| {
        let _turn = front.downloads.search(app).await?;
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

/// Makes the trees present, and gives those that can be had.
pub(in crate::http) async fn bring_trees(
    front: &Front,
    pinned: &PinnedTrees,
) -> Result<Vec<TreeEnd>, GitError> {
    let mut ends = pinned.ends.clone();
    for _ in 0..REFUSALS_MAX {
        let wants = ends.iter().map(|end| end.commit).collect();
        let order = FetchOrder { wants, haves: Vec::new(), depth: 1, extent: Extent::Trees };
        match front.git.fetch(&pinned.remote, &order).await {
            Err(GitError::Unobtainable(commit)) if ends.iter().any(|end| end.commit == commit) => {
                ends.retain(|end| end.commit != commit);
            }
            fetched => return fetched.map(|_| ends),
        }
    }
    Ok(ends)
}

/// The content, and the memory that it takes.
async fn read(front: &Front, remote: &Remote, blob: ObjectId) -> Result<(Bytes, Held), Problem> {
    let mut limit = SMALL_BYTES;
    for _ in 0..2 {
        // While it is read there are two copies of it.
        let mut held = front.downloads.memory(limit.saturating_mul(2)).await?;
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

/// Reads a blob; one that the mirror lacks is fetched by its id.
async fn content(front: &Front, remote: &Remote, blob: ObjectId, limit: u64) -> Result<Content, GitError> {
    match front.git.content(remote, blob, limit).await {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            let report = front.git.fetch_blobs(remote, &[blob]).await?;
            if report.refused.contains(&blob) {
                return Err(GitError::Unobtainable(blob));
            }
            front.git.content(remote, blob, limit).await
        }
        read => read,
    }
}

/// What failed Git work means here: the app was told of the content, so it is never said to be gone.
pub(in crate::http) fn unavailable(error: &GitError) -> Problem {
    let (detail, seconds) = match error {
        GitError::RateLimited { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
            ("the Git host asks for patience", seconds)
        }
        GitError::Storage(_) | GitError::Corrupt(_) | GitError::Busy(_) | GitError::Cancelled => {
            warn!(code = error.code(), %error, "a content was not read");
            ("the mirror cannot be read", RETRY_AFTER_SECONDS)
        }
        GitError::TooLarge(_) | GitError::MalformedTree(_) => {
            ("the repository is beyond what is served of it", RETRY_AFTER_SECONDS)
        }
        _ => ("the Git host does not give it", RETRY_AFTER_SECONDS),
    };
    info!(code = error.code(), %error, "a content was not served");
    Problem::new(Kind::CONTENT_UNAVAILABLE).with_detail(detail).retry_after(seconds)
}
