//! The HTTP front door. A handler parses, calls one verb and replies; everything that all routes
//! share happens once, here: finding the route, knowing the caller, reading the body, turning
//! panics into problems, the headers that every answer has.
//!
//! [`table`] is the only list of routes; [`document`] is made from it.

pub mod admin;
pub mod admin_token;
pub mod apps;
mod attempt;
pub mod auth;
pub mod dead_letters;
pub mod deliveries;
pub mod document;
pub mod downloads;
mod fields;
pub mod histories;
pub mod hooks;
pub mod idempotency;
pub mod listener;
mod moment;
mod paging;
pub mod problem;
pub mod receipts;
pub mod repositories;
pub mod request;
pub mod route;
pub mod status;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tidings_actors::{
    handle::Handle,
    ports::{Clock, GitSource, Random, Store},
    time::Timestamp,
};
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, error, field, info_span};
use warp::{Filter, filters::BoxedFilter, path::FullPath, reply::Response};

use self::{
    admin_token::AdminToken,
    problem::{Kind, Problem},
    request::{Request, expect_json, read_body},
    route::{Access, Answer, Found, Route, Table},
};
use crate::{egress::Egress, settings::Settings};

/// Longest path and query together, in bytes.
const URI_BYTES_MAX: usize = 8 << 10;

/// What the front door needs of the house.
pub struct Front {
    /// Everything that must survive.
    pub store: Arc<dyn Store>,
    /// Asked once in a registration, to prove access.
    pub git: Arc<dyn GitSource>,
    /// Told when rows have changed.
    pub handle: Handle,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Asked whether a receiver's address may be reached at all.
    pub egress: Egress,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, tokens and keys.
    pub random: Arc<dyn Random>,
    /// Opens `/api/admin`.
    pub admin: AdminToken,
    /// Whether this process is ready, and since when it runs.
    pub lifecycle: Lifecycle,
    /// When this process began: a keyed request that is older and has no answer was cut off.
    pub started_at: Timestamp,
    /// What hooks may cost.
    pub hooks: hooks::Bounds,
    /// What test deliveries may cost.
    pub tests: apps::test_delivery::Tests,
    /// What downloads of contents may cost.
    pub downloads: downloads::Downloads,
    /// What reading histories remembers and may cost.
    pub histories: histories::Histories,
}

/// Whether this process takes work, and since when it runs.
#[derive(Clone)]
pub struct Lifecycle {
    started: Instant,
    draining: Arc<AtomicBool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { started: Instant::now(), draining: Arc::default() }
    }
}

impl Lifecycle {
    /// From now on `/readyz` says no: this process is stopping.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Seconds since the start.
    #[must_use]
    pub fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// Every route that is served.
#[must_use]
pub fn table() -> Vec<Route> {
    [
        status::routes(),
        apps::routes(),
        repositories::routes(),
        dead_letters::routes(),
        deliveries::routes(),
        hooks::routes(),
        receipts::routes(),
        admin::routes(),
    ]
    .concat()
}

/// All routes as one filter that never rejects.
#[must_use]
pub fn routes(front: Arc<Front>) -> BoxedFilter<(Response,)> {
    let table = Arc::new(Table::new(table()));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, body| {
            let (front, table) = (front.clone(), table.clone());
            async move { answer(front, &table, method, path, query, headers, body).await }
        })
        .boxed()
}

async fn answer<S, B>(
    front: Arc<Front>,
    table: &Table,
    method: Method,
    path: FullPath,
    query: String,
    headers: HeaderMap,
    body: S,
) -> Response
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let request_id = format!("req_{}", front.random.ulid(front.clock.now()));
    let span = info_span!(
        "request",
        http.method = %method,
        http.route = field::Empty,
        http.status = field::Empty,
        request.id = request_id,
        app.id = field::Empty,
    );
    let head =
        Head { method: &method, path: path.as_str(), query, headers: &headers, request_id: &request_id };
    let found = handled(front, table, head, body);
    // A panic costs one answer, never the process: nothing that a handler owns outlives it.
    let answer = AssertUnwindSafe(found.instrument(span.clone())).catch_unwind().await;
    let _entered = span.enter();
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => {
            debug!(problem = problem.code(), "request refused");
            problem.into_response(&request_id)
        }
        Err(_panic) => {
            error!("a handler panicked");
            Problem::new(Kind::INTERNAL).into_response(&request_id)
        }
    };
    span.record("http.status", response.status().as_u16());
    debug!(status = response.status().as_u16(), "request answered");
    finish(&mut response, &method, &request_id);
    response
}

/// A request without its body.
struct Head<'a> {
    method: &'a Method,
    path: &'a str,
    query: String,
    headers: &'a HeaderMap,
    request_id: &'a str,
}

async fn handled<S, B>(front: Arc<Front>, table: &Table, head: Head<'_>, body: S) -> Answer
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let Head { method, path, query, headers, request_id } = head;
    if path.len() + query.len() > URI_BYTES_MAX {
        return Err(Problem::new(Kind::URI_TOO_LONG));
    }
    let (route, parameters) = match table.find(method, path) {
        Found::Route(route, parameters) => (route, parameters),
        Found::OtherMethods(allowed) => {
            let allowed = HeaderValue::from_str(&allowed).expect("method names are plain ASCII");
            return Err(Problem::new(Kind::METHOD_NOT_ALLOWED).with_header(header::ALLOW, allowed));
        }
        Found::Nothing => {
            // Like Docora: who has no token learns nothing about which routes exist.
            auth::app(&front, headers).await?;
            return Err(Problem::new(Kind::NO_ROUTE));
        }
    };
    Span::current().record("http.route", &route.template);
    let caller = auth::caller(&front, route.access, headers).await?;
    let key = idempotency::key(route, &caller, headers)?;
    // Held until the answer: what is read stays in memory so long.
    let mut room = front.hooks.room();
    let body = body.map(|part| part.map_err(|_| Problem::malformed("the body ended before its end")));
    let has_body = matches!(*method, Method::POST | Method::PATCH);
    let body = if has_body {
        let server = &front.settings.server;
        if let Access::Hook(_) = route.access {
            let limit = front.settings.hooks.body_bytes_max;
            let body = body.map(|part| part.and_then(|part| room.take(part.remaining()).map(|()| part)));
            read_body(headers, body, limit, server.body_timeout).await?
        } else {
            let body = read_body(headers, body, server.body_bytes_max, server.body_timeout).await?;
            if !body.is_empty() {
                expect_json(headers)?;
            }
            body
        }
    } else {
        Bytes::new()
    };
    let keyed = key.map(|key| key.of(method, path, &query, &body));
    let handler = route.handler.clone();
    let request = Request { caller, parameters, query, headers: headers.clone(), body, keyed: keyed.clone() };
    match keyed {
        Some(keyed) => idempotency::once(front, keyed, request_id, handler, request).await,
        None => handler(front, request).await,
    }
}

/// What every answer has.
fn finish(response: &mut Response, method: &Method, request_id: &str) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let request_id = HeaderValue::from_str(request_id).expect("an id is plain ASCII");
    headers.insert(HeaderName::from_static("x-request-id"), request_id);
    if *method == Method::HEAD && response.status() == StatusCode::OK {
        let length = hyper::body::Body::size_hint(response.body()).exact();
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Bytes::new().into();
    }
}

#[cfg(test)]
pub(crate) mod tests;
