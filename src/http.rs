//! The HTTP front door. A handler parses, calls one verb and replies; everything that all routes
//! share happens once, here: finding the route, knowing the caller, reading the body, turning
//! panics into problems, the headers that every answer has.
//!
//! [`table`] is the only list of routes; [`document`] is made from it.

pub mod admin;
pub mod admin_token;
pub mod apps;
mod attempt;
pub mod audit;
pub mod auth;
pub mod dead_letters;
pub mod deliveries;
pub mod docs;
pub mod document;
pub mod downloads;
pub mod edge;
mod elsewhere;
mod fields;
pub mod histories;
pub mod hooks;
pub mod idempotency;
pub mod keys;
mod lag;
pub mod listener;
pub mod metrics;
mod moment;
mod names;
mod paging;
pub mod places;
pub mod problem;
mod quota;
pub mod receipts;
pub mod repositories;
pub mod request;
pub mod route;
mod sights;
mod standing;
pub mod status;
pub mod tokens;
pub mod witness;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
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
    ports::{Administration, Clock, GitSource, Random, Store},
    turns::Turns,
};
use tidings_entity::kind::ReplicaRole;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, error, field, info_span};
use warp::{Filter, filters::BoxedFilter, path::FullPath, reply::Response};

use self::{
    admin_token::AdminToken,
    auth::Known,
    edge::{Edge, Peer},
    problem::{Kind, Problem},
    request::{Request, expect_json, read_body},
    route::{Access, Answer, Found, Route, Table},
};
use crate::{
    egress::{Egress, replicas::ToReplicas},
    identity::Identity,
    settings::Settings,
    store::keys::Keys,
    telemetry::Metrics,
};

/// Longest path and query together, in bytes.
const URI_BYTES_MAX: usize = 8 << 10;
/// How many seconds to wait after a request whose task was ended with the server.
const RETRY_AFTER_SECONDS: u64 = 1;

/// What the front door needs of the house.
pub struct Front {
    /// Everything that must survive.
    pub store: Arc<dyn Store>,
    /// Tokens, the audit log, looks over all apps.
    pub administration: Arc<dyn Administration>,
    /// What is remembered of callers between requests.
    pub identity: Identity,
    /// Asked once in a registration, to prove access.
    pub git: Arc<dyn GitSource>,
    /// The keys that seal what is secret in it.
    pub keys: Arc<dyn Keys>,
    /// Told when rows have changed.
    pub handle: Handle,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Asked whether a receiver's address may be reached at all.
    pub egress: Egress,
    /// What only another replica can answer goes there.
    pub to_replicas: ToReplicas,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, tokens and keys.
    pub random: Arc<dyn Random>,
    /// Opens `/api/admin`.
    pub admin: AdminToken,
    /// What every request passes first.
    pub edge: Arc<Edge>,
    /// Whether this process is ready, and since when it runs.
    pub lifecycle: Lifecycle,
    /// What hooks may cost.
    pub hooks: hooks::Bounds,
    /// How many apps one address registers.
    pub onboardings: apps::onboardings::Onboardings,
    /// What test deliveries may cost.
    pub tests: apps::test_delivery::Tests,
    /// What downloads of contents may cost.
    pub downloads: downloads::Downloads,
    /// What is counted and timed.
    pub metrics: Metrics,
    /// What `/metrics` told last.
    pub told_metrics: metrics::Told,
    /// What reading histories remembers.
    pub histories: histories::Histories,
    /// What callers may keep busy of the connections.
    pub places: places::Places,
    /// Turns at compiling globs.
    pub compiling: Turns,
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
    Served::of(ReplicaRole::All, false).iter().flat_map(|served| served.routes()).collect()
}

/// Which routes are served at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All but those of [`Served::Ops`].
    Api,
    /// Those for who runs the server: health, version, metrics.
    Ops,
    /// What other replicas hand on.
    Work,
}

impl Served {
    /// What a server of a role serves at its first door, and what beside [`Served::Ops`] where those have a
    /// door of their own.
    #[must_use]
    pub fn of(role: ReplicaRole, has_ops_door: bool) -> &'static [Self] {
        match (role, has_ops_door) {
            (ReplicaRole::Worker, true) => &[Self::Work],
            (ReplicaRole::Worker, false) => &[Self::Ops, Self::Work],
            (ReplicaRole::All | ReplicaRole::Api, true) => &[Self::Api],
            (ReplicaRole::All | ReplicaRole::Api, false) => &[Self::Ops, Self::Api],
        }
    }
}

impl Served {
    fn routes(self) -> Vec<Route> {
        match self {
            Self::Ops => [status::routes(), metrics::routes()].concat(),
            Self::Work => repositories::handed_on(),
            Self::Api => [
                docs::routes(),
                apps::routes(),
                repositories::routes(),
                dead_letters::routes(),
                deliveries::routes(),
                hooks::routes(),
                receipts::routes(),
                lag::routes(),
                tokens::routes(),
                audit::routes(),
                admin::routes(),
                keys::routes(),
            ]
            .concat(),
        }
    }
}

/// Routes as one filter that never rejects.
#[must_use]
pub fn routes(front: Arc<Front>, served: &[Served]) -> BoxedFilter<(Response,)> {
    let table = Arc::new(Table::new(served.iter().flat_map(|served| served.routes()).collect()));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, query, headers: HeaderMap, peer: Option<Peer>, body| {
            let (front, table) = (front.clone(), table.clone());
            async move {
                let is_tls = peer.is_some_and(|peer| peer.is_tls);
                let is_named = peer.is_none_or(|peer| edge::is_host_named(peer.version, &headers));
                let peer = peer.map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
                let client = front.edge.client(peer, &headers);
                let request_id = format!("req_{}", front.random.ulid(front.clock.now()));
                let (method, headers) = (&method, &headers);
                let (path, request_id) = (path.as_str(), request_id.as_str());
                let head = Head { method, path, query, headers, is_named, client, request_id };
                let mut response = answer(front.clone(), &table, head, body).await;
                finish(&mut response, method, request_id);
                front.edge.dress(&mut response, headers, is_tls);
                response
            }
        })
        .boxed()
}

async fn answer<S, B>(front: Arc<Front>, table: &Table, head: Head<'_>, body: S) -> Response
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let Head { method, request_id, .. } = head;
    if let Some(response) = front.edge.preflight(method, head.headers) {
        return response;
    }
    let (began, metrics) = (Instant::now(), front.metrics.clone());
    let template = match table.find(method, head.path) {
        Found::Route(route, _) => route.template.as_str(),
        Found::OtherMethods(_) | Found::Nothing => "none",
    };
    let span = info_span!(
        "request",
        http.method = %method,
        http.route = field::Empty,
        http.status = field::Empty,
        client.address = %head.client,
        request.id = request_id,
        app.id = field::Empty,
    );
    let found = handled(front, table, head, body);
    // A panic costs one answer, never the process: nothing that a handler owns outlives it.
    let answer = AssertUnwindSafe(found.instrument(span.clone())).catch_unwind().await;
    let _entered = span.enter();
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => {
            debug!(problem = problem.code(), "request refused");
            problem.into_response(request_id)
        }
        Err(_panic) => {
            error!("a handler panicked");
            Problem::new(Kind::INTERNAL).into_response(request_id)
        }
    };
    span.record("http.status", response.status().as_u16());
    debug!(status = response.status().as_u16(), "request answered");
    let status = response.status().as_u16();
    metrics.requested(template, method_word(method), status, began.elapsed());
    response
}

/// A method as a label: others than those that are served are one.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// A request without its body.
struct Head<'a> {
    method: &'a Method,
    path: &'a str,
    query: String,
    headers: &'a HeaderMap,
    /// Whether it says without doubt which host it is for.
    is_named: bool,
    client: IpAddr,
    request_id: &'a str,
}

async fn handled<S, B>(front: Arc<Front>, table: &Table, head: Head<'_>, body: S) -> Answer
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let Head { method, path, query, headers, is_named, client, request_id } = head;
    front.edge.admit(client)?;
    if !is_named {
        // What follows on such a connection may be part of this request to somebody before us.
        return Err(Problem::malformed("a request has one Host header")
            .with_header(header::CONNECTION, HeaderValue::from_static("close")));
    }
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
            drop(auth::app(&front, headers).await?);
            return Err(Problem::new(Kind::NO_ROUTE));
        }
    };
    Span::current().record("http.route", &route.template);
    let Known { caller, actor } = auth::caller(&front, route.access, headers, request_id, client).await?;
    front.edge.admit_owner(&caller)?;
    let _place_until_it_is_answered = front.places.request(&caller)?;
    let key = idempotency::key(route, &caller, headers)?;
    // Held until the answer: what is read stays in memory so long.
    let mut room = front.hooks.room();
    let body = body_of(&front, route, method, headers, body, &mut room).await?;
    let keyed = key.map(|key| key.of(method, path, &query, &body));
    let deed = witness::deed(&front, route, &caller, &actor, &parameters, request_id, client);
    let is_witnessed = deed.is_some();
    let handler = match deed {
        Some(deed) => witness::witnessed(route.handler.clone(), deed),
        None => route.handler.clone(),
    };
    let (access, headers, keyed_too) = (route.access, headers.clone(), keyed.clone());
    let (method, path) = (method.clone(), path.to_owned());
    let request = Request {
        caller,
        actor,
        access,
        client,
        method,
        path,
        parameters,
        query,
        headers,
        body,
        keyed: keyed_too,
    };
    match keyed {
        Some(keyed) => apart(idempotency::once(front, keyed, request_id.to_owned(), handler, request)).await,
        None if is_witnessed => apart(handler(front, request)).await,
        None => handler(front, request).await,
    }
}

/// The body of a request to a route; that of a hook as far as there is room.
async fn body_of<S, B>(
    front: &Front,
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
    body: S,
    room: &mut hooks::Room,
) -> Result<Bytes, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    if !matches!(*method, Method::POST | Method::PATCH) {
        // Whoever waits for the rest of it waits no longer.
        drop(body);
        return Ok(Bytes::new());
    }
    let server = &front.settings.server;
    let body = body.map(|part| part.map_err(|_| Problem::malformed("the body ended before its end")));
    if let Access::Hook(_) = route.access {
        let limit = front.settings.hooks.body_bytes_max;
        let body = body.map(|part| part.and_then(|part| room.take(part.remaining()).map(|()| part)));
        return read_body(headers, body, limit, server.body_timeout).await;
    }
    let body = read_body(headers, body, server.body_bytes_max, server.body_timeout).await?;
    if !body.is_empty() {
        expect_json(headers)?;
    }
    Ok(body)
}

/// Does the work of a request in a task of its own, so that a client that goes away cuts nothing off:
/// neither its key stays in use, nor has it an effect of which the audit log says nothing.
async fn apart(work: impl Future<Output = Answer> + Send + 'static) -> Answer {
    #[expect(clippy::disallowed_methods, reason = "it ends by itself, whether or not its client waits")]
    let task = tokio::spawn(work.instrument(Span::current()));
    match task.await {
        Ok(answer) => answer,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(Problem::new(Kind::UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS)),
        },
    }
}

/// What every answer has.
fn finish(response: &mut Response, method: &Method, request_id: &str) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Only the pages of the documentation say what they may load.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
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
