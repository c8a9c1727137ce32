//! Reading an artifact: all of it, or one range. The listener closes connections whose clients read too
//! slowly.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use tidings_actors::ports::{Artifact, ObjectBody, ObjectError};
use tidings_entity::id::TaskId;
use tracing::warn;
use warp::reply::{Reply, Response};

use super::{
    name,
    ranges::{Wanted, wanted},
    unavailable,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        places::Places,
        quota::QuotaShare,
        request::Request,
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
    tasks::{owner, seen},
};

/// The digest of the whole artifact, also in the answer to a range (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The route of this file.
pub(super) fn route(places: &Arc<Places>) -> Route {
    route_with::<__path_get, _, _, _>(Access::App(Permission::TasksRead), places, get)
}

/// The bytes of an artifact.
#[utoipa::path(get, path = "/api/tasks/{id}/artifacts/{name}", tag = "tasks",
    params(
        ("id" = String, Path),
        ("name" = String, Path, description = "the name of the artifact"),
        ("Range" = Option<String>, Header, description = "one range, such as `bytes=0-1023`"),
        ("If-Range" = Option<String>, Header, description = "the `ETag` for which the range is wanted"),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` that was given before"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>,
            description = "the bytes, with the media type that their sender named"),
        (status = 206, description = "the range"),
        (status = 304, description = "what `If-None-Match` names is still right"),
        (status = 410, description = "the artifact is known, but its bytes are gone"),
        (status = 416, description = "the range begins behind the end")
    ))]
async fn get(front: Arc<Front>, places: Arc<Places>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let task: TaskId = request.id(Kind::NO_TASK)?;
    let name = name(&request)?;
    seen(&front, &request, &task).await?;
    let artifact = front.artifacts.artifact(&app, &task, &name).await;
    let artifact = artifact.map_err(|error| Problem::of_store(error, Kind::NO_ARTIFACT))?;
    let tag = format!("\"{}\"", artifact.sha256);
    if is_known(&request.headers, &tag) {
        return Ok(dressed(Response::new(Bytes::new().into()), StatusCode::NOT_MODIFIED, &artifact, &tag));
    }
    if request.method == Method::HEAD {
        let mut response: Response =
            warp::reply::stream(stream::empty::<io::Result<Bytes>>()).into_response();
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(artifact.bytes));
        return Ok(dressed(response, StatusCode::OK, &artifact, &tag));
    }
    let (status, range) = match wanted(&request.headers, artifact.bytes, &tag) {
        Wanted::Whole => (StatusCode::OK, 0..artifact.bytes),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => return Err(behind_the_end(&artifact)),
    };
    let share = places.transfer(app.as_str())?;
    let body = match front.objects.open(&artifact.id, range.clone()).await {
        Ok(body) => body,
        Err(ObjectError::Missing) => return Err(gone(&artifact)),
        Err(error) => return Err(unavailable(&error)),
    };
    let body = Sending { body: Mutex::new(body), _counted: share };
    let mut response: Response = warp::reply::stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(header::CONTENT_RANGE, content_range(&range, artifact.bytes));
    }
    Ok(dressed(response, status, &artifact, &tag))
}

/// An object on its way to a client. It is counted until its last byte is read, or the client leaves.
struct Sending {
    /// Never locked: the lock lets the answer be shared between threads.
    body: Mutex<ObjectBody>,
    _counted: QuotaShare,
}

impl Stream for Sending {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = self.body.get_mut().poll_next_unpin(context);
        part.map(|part| part.map(|part| part.map_err(io::Error::other)))
    }
}

/// Whether the client says that it has this artifact already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = sent.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag)
}

/// Adds the headers that each answer about an artifact has. Browsers save it and never show it as a page.
fn dressed(mut response: Response, status: StatusCode, artifact: &Artifact, tag: &str) -> Response {
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut insert = |name: HeaderName, text: &str| {
        // The texts were checked when the artifact was put; a restored row may hold another one.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    insert(header::ETAG, tag);
    insert(header::ACCEPT_RANGES, "bytes");
    insert(header::CACHE_CONTROL, "private, no-cache");
    insert(header::CONTENT_TYPE, &artifact.content_type);
    insert(header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", artifact.name));
    insert(REPR_DIGEST, &format!("sha-256=:{}:", BASE64.encode(artifact.sha256.as_bytes())));
    response
}

fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
    HeaderValue::from_str(&text).expect("digits are ASCII")
}

fn behind_the_end(artifact: &Artifact) -> Problem {
    let text = format!("bytes */{}", artifact.bytes);
    Problem::new(Kind::RANGE_NOT_SATISFIABLE)
        .with_detail(format!("the artifact has {} bytes", artifact.bytes))
        .with_header(header::CONTENT_RANGE, HeaderValue::from_str(&text).expect("digits are ASCII"))
}

/// The answer for an artifact whose object is missing.
fn gone(artifact: &Artifact) -> Problem {
    warn!(artifact.id = %artifact.id, "the object {} of an artifact is missing", artifact.id);
    Problem::new(Kind::ARTIFACT_GONE).with_detail(
        "the object store does not have the bytes of this artifact, which happens after a restore: put it \
         again, or remove it",
    )
}
