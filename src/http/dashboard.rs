//! `/dashboard/`: the pages for people. One HTML frame serves every page; scripts and styles are in the
//! binary and load nothing from other servers. The pages are clients of this API only.
//!
//! The address of a file contains the version of all files together, so that browsers may cache a file for
//! ever and never mix files of two versions.

mod files;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidings_entity::id::Sha256Hash;
use warp::reply::Response;

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::Request,
        route::{Access, Answer, Route, route},
    },
    front::Front,
};

/// The content security policy of the pages: only files and answers of this server, and images inside styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The frame of every page.
const FRAME: &str = "index.html";
/// The text in the frame that the version replaces.
const VERSION_MARK: &str = "{version}";
/// Files of the version that is asked for do not change.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// Browsers ask whether it is still the same.
const ASK_AGAIN: &str = "no-cache";
/// Pages, by the last part of their addresses.
const PAGES: [&str; 20] = [
    "",
    "apps",
    "app",
    "watches",
    "watch",
    "letters",
    "letter",
    "deliveries",
    "delivery",
    "start",
    "ledger",
    "subscription",
    "queues",
    "queue",
    "task",
    "schedules",
    "schedule",
    "tree",
    "system",
    "audit",
];
/// The number of characters of the version.
const VERSION_CHARACTERS: usize = 12;

/// The routes of this file.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route::<__path_root, _, _>(Access::Public, root),
        route::<__path_entrance, _, _>(Access::Public, entrance),
        route::<__path_overview, _, _>(Access::Public, overview),
        route::<__path_page, _, _>(Access::Public, page),
        route::<__path_file, _, _>(Access::Public, file),
        route::<__path_file_of_folder, _, _>(Access::Public, file),
    ]
}

/// Redirects a browser (`Accept: text/html`) to the dashboard. Other clients get 404.
#[utoipa::path(get, path = "/", tag = "dashboard", responses(
    (status = 303, description = "Redirect to `/dashboard/`."),
))]
async fn root(_front: Arc<Front>, request: Request) -> Answer {
    let accepts = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        return Ok(led(StatusCode::SEE_OTHER));
    }
    Err(Problem::new(Kind::NO_PAGE))
}

/// Redirects to the dashboard at `/dashboard/`.
#[utoipa::path(get, path = "/dashboard", tag = "dashboard", responses(
    (status = 308, description = "Redirect to `/dashboard/`.")
))]
async fn entrance(_front: Arc<Front>, _request: Request) -> Answer {
    Ok(led(StatusCode::PERMANENT_REDIRECT))
}

fn led(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/dashboard/"));
    response
}

/// The first page of the dashboard.
#[utoipa::path(get, path = "/dashboard/", tag = "dashboard", responses(
    (status = 200, description = "The HTML page.")
))]
async fn overview(_front: Arc<Front>, request: Request) -> Answer {
    frame(&request, StatusCode::OK)
}

/// A page of the dashboard.
#[utoipa::path(get, path = "/dashboard/{page}", tag = "dashboard", params(("page" = String, Path)), responses(
    (status = 200, description = "The HTML page."),
    (status = 404, description = "The page does not exist. The body is an HTML page that says so.")
))]
async fn page(_front: Arc<Front>, request: Request) -> Answer {
    let name = request.parameters.first().map_or("", String::as_str);
    // The frame itself shows that a page does not exist.
    let status = if PAGES.contains(&name) { StatusCode::OK } else { StatusCode::NOT_FOUND };
    frame(&request, status)
}

/// A script or style sheet of the dashboard.
#[utoipa::path(get, path = "/dashboard/assets/{version}/{file}", tag = "dashboard",
    params(("version" = String, Path), ("file" = String, Path)),
    responses((status = 200, description = "The content of the file."),
        (status = 304, description = "The file still has the `ETag` of `If-None-Match`.")))]
async fn file(_front: Arc<Front>, request: Request) -> Answer {
    let (version, name) = request.parameters.split_first().ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let name = name.join("/");
    let found = files::read(&name).ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let is_kept = version == VERSION.as_str() && !cfg!(debug_assertions);
    answer(&request.headers, content_type(&name), found, if is_kept { FOR_GOOD } else { ASK_AGAIN })
}

/// A script in a folder of the dashboard.
#[utoipa::path(get, path = "/dashboard/assets/{version}/{folder}/{file}", tag = "dashboard",
    params(("version" = String, Path), ("folder" = String, Path), ("file" = String, Path)),
    responses((status = 200, description = "The content of the file."),
        (status = 304, description = "The file still has the `ETag` of `If-None-Match`.")))]
#[expect(dead_code, reason = "it describes the second place of files; the handler is that of the first")]
async fn file_of_folder() {}

/// The version of all files together.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<u8> =
        files::ALL.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes].concat()).collect();
    Sha256Hash::of(&all).to_string()[..VERSION_CHARACTERS].to_owned()
});

fn frame(request: &Request, status: StatusCode) -> Answer {
    let frame = files::read(FRAME).ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let text = String::from_utf8_lossy(&frame).replace(VERSION_MARK, &VERSION);
    let mut response = answer(&request.headers, "text/html; charset=utf-8", text.into(), ASK_AGAIN)?;
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    Ok(response)
}

/// Answers with a file, or with 304 if the browser has this version.
fn answer(asked: &HeaderMap, content_type: &'static str, bytes: Bytes, cache: &'static str) -> Answer {
    let tag = format!("\"{}\"", &Sha256Hash::of(&bytes).to_string()[..VERSION_CHARACTERS]);
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = Response::default();
    if known.is_some_and(|known| known.contains(&tag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = bytes.into();
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("a hash is plain ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
