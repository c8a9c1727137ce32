//! The API's description, and pages that show it: Swagger UI, which is part of the binary and loads nothing
//! from other servers.

mod archive;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use warp::reply::Response;

use crate::http::{
    bodies::problem::{Kind, Problem},
    document,
    door::{
        request::Request,
        route::{Access, Answer, Route, route, route_with},
    },
    front::Front,
};

/// The content security policy of the pages: files of this server, the styles that Swagger UI sets itself,
/// and the images in its style sheet.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
                           style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
/// The files come from the binary: another version is another file.
const PAGE_CACHE: &str = "public, max-age=3600";
/// The script that starts Swagger UI. The one of the archive shows the document of another server.
const STARTER: &str = "swagger-initializer.js";
/// Shows the document of this server. No other server is asked whether the document is valid.
const START: &str = r##"window.onload = function () {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl],
    layout: "StandaloneLayout",
  });
};
"##;

/// The routes of this file; `table` lists those that the document describes.
pub fn routes(table: fn() -> Vec<Route>) -> Vec<Route> {
    vec![
        route_with::<__path_description, _, _, _>(Access::Public, &table, description),
        route::<__path_entrance, _, _>(Access::Public, entrance),
        route::<__path_file, _, _>(Access::Public, file),
    ]
}

/// The OpenAPI document of this API.
#[utoipa::path(get, path = "/openapi.json", tag = "docs", responses((status = 200, body = Object)))]
async fn description(_front: Arc<Front>, table: fn() -> Vec<Route>, _request: Request) -> Answer {
    // The document is large and does not change while the process runs.
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let made = || serde_json::to_vec(&document::document(table())).expect("a document is plain data").into();
    let mut response = Response::new(DOCUMENT.get_or_init(made).clone().into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Redirects to the pages that show the OpenAPI document.
#[utoipa::path(get, path = "/docs", tag = "docs", responses((status = 308, description = "Redirect to \
    `/docs/index.html`.")))]
async fn entrance(_front: Arc<Front>, _request: Request) -> Answer {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/docs/index.html"));
    Ok(response)
}

/// A file of the pages that show the OpenAPI document.
#[utoipa::path(get, path = "/docs/{file}", tag = "docs", params(("file" = String, Path)), responses(
    (status = 200, description = "The content of the file.")
))]
async fn file(_front: Arc<Front>, request: Request) -> Answer {
    page(request.parameters.first().map_or("", String::as_str))
}

/// A file, built once: all readers share its bytes, even if they read slowly.
fn page(name: &str) -> Answer {
    static PAGES: LazyLock<Mutex<HashMap<String, (HeaderValue, Bytes)>>> = LazyLock::new(Mutex::default);
    let mut pages = PAGES.lock();
    let (content_type, bytes) = match pages.get(name) {
        Some(page) => page.clone(),
        None => {
            let page = read(name).ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
            pages.entry(name.to_owned()).or_insert(page).clone()
        }
    };
    drop(pages);
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PAGE_CACHE));
    Ok(response)
}

/// A file of the pages from the binary, with its kind.
fn read(name: &str) -> Option<(HeaderValue, Bytes)> {
    let content_type = match name.rsplit_once('.')?.1 {
        "css" => "text/css",
        "html" => "text/html",
        "js" => "text/javascript",
        "png" => "image/png",
        _ => return None,
    };
    let content = match name {
        STARTER => Bytes::from_static(START.as_bytes()),
        _ => archive::file(name)?.into(),
    };
    Some((HeaderValue::from_static(content_type), content))
}
