//! The way of a request, the same for all routes: finding the route, knowing the caller, reading the body,
//! turning panics into problems, and the headers that every answer has.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rand::RngExt;
use tidings_actors::ports::AuditEntry;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span, debug, error, field, info, info_span};
use warp::{Filter, filters::BoxedFilter, path::FullPath, reply::Response};

use super::{
    audit_layer::AuditLayer,
    auth::{Authentication, admin_token::AdminToken},
    edge::{self, Edge, Peer},
    idempotency,
    incoming::Incoming,
    missing::Missing,
    quota::QuotaShare,
    request::{Caller, ConnectionPlace, Request, expect_json, read_body},
    request_lines::RequestLines,
    route::{Access, Answer, Found, Route, Table},
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
    handler_state::HandlerState,
    hooks,
};
use crate::{
    identity::Identity,
    telemetry::{self, Metrics},
};

/// The address of the pages that show the API, and the same with a slash, as people type it.
const PAGES: [&str; 2] = ["/docs", "/docs/"];
/// Longest path and query together, in bytes.
const URI_BYTES_MAX: usize = 8 << 10;
/// The id of a request, in requests and answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The length of an id that a caller may give, in bytes: callers number their requests, or make UUIDs.
const REQUEST_ID_BYTES: RangeInclusive<usize> = 1..=128;
/// Routes that orchestrators and collectors call every few seconds: log lines for them would fill the log.
const PROBES: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];
/// The seconds to wait after a request whose task ended with the server.
const RETRY_AFTER_SECONDS: u64 = 1;
/// The longest time for which a refusal for too many requests with one token is held back, in milliseconds.
const REFUSAL_HELD_MS: u64 = 500;

/// The parts that handle a request before and after its route.
pub struct Pipeline {
    front: Arc<Front>,
    state: HandlerState,
    edge: Arc<Edge>,
    authentication: Arc<Authentication>,
    audit: AuditLayer,
    metrics: Metrics,
    lines: RequestLines,
}

/// The path as the table of routes has it.
fn spelt(path: &str) -> &str {
    if path == PAGES[1] { PAGES[0] } else { path }
}

impl Pipeline {
    /// Builds the pipeline with the limits of the settings, the token of the server itself, and the metrics
    /// of this process.
    #[must_use]
    pub fn new(front: Arc<Front>, state: HandlerState, admin: AdminToken) -> Self {
        let identity = Arc::new(Identity::of(&front.settings.identity, &front.egress));
        let audit = AuditLayer::new(front.clone(), identity.clone(), state.lifecycle.clone());
        let authentication = Authentication {
            front: front.clone(),
            admin,
            identity,
            audit: audit.clone(),
            hooks: state.hooks.clone(),
            roles: front.settings.roles(),
        };
        let edge = Arc::new(Edge::new(&front.settings.server));
        let (authentication, metrics) = (Arc::new(authentication), Metrics::of_process());
        Self { front, state, edge, authentication, audit, metrics, lines: RequestLines::default() }
    }

    /// The checks that every request passes first; listeners use them as well.
    #[must_use]
    pub fn edge(&self) -> Arc<Edge> {
        self.edge.clone()
    }

    /// The state that handlers keep in memory between requests.
    pub(crate) fn state(&self) -> &HandlerState {
        &self.state
    }

    /// Routes as one filter that never rejects.
    #[must_use]
    pub(crate) fn filter(self: &Arc<Self>, routes: Vec<Route>) -> BoxedFilter<(Response,)> {
        let (pipeline, table) = (self.clone(), Arc::new(Table::new(routes)));
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        warp::method()
            .and(warp::path::full())
            .and(query)
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<Peer>())
            .and(warp::ext::optional::<Arc<dyn ConnectionPlace>>())
            .and(warp::body::stream())
            .then(
                move |method: Method,
                      path: FullPath,
                      query,
                      headers: HeaderMap,
                      peer: Option<Peer>,
                      place,
                      body| {
                    let (pipeline, table) = (pipeline.clone(), table.clone());
                    async move {
                        let Pipeline { front, edge, .. } = pipeline.as_ref();
                        let is_tls = peer.is_some_and(|peer| peer.is_tls);
                        let is_named = peer.is_none_or(|peer| edge::is_host_named(peer.version, &headers));
                        let peer = peer.map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
                        let client = edge.client(peer, &headers);
                        let request_id = request_id(&headers)
                            .unwrap_or_else(|| format!("req_{}", front.random.ulid(front.clock.now())));
                        let (method, headers) = (&method, &headers);
                        let (path, request_id) = (spelt(path.as_str()), request_id.as_str());
                        let is_secure = is_tls || edge.is_tls_before(peer, headers);
                        let head = Head {
                            method,
                            path,
                            query,
                            headers,
                            is_named,
                            is_secure,
                            client,
                            request_id,
                            place,
                        };
                        let mut response = pipeline.answer(&table, head, body).await;
                        finish(&mut response, method, request_id);
                        edge.dress(&mut response, headers, is_tls);
                        response
                    }
                },
            )
            .boxed()
    }

    async fn answer<S, B>(&self, table: &Table, head: Head<'_>, body: S) -> Response
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf + 'static,
    {
        let Head { method, request_id, .. } = head;
        if let Some(response) = self.edge.preflight(method, head.headers) {
            return response;
        }
        let began = Instant::now();
        let (template, is_public) = match table.find(method, head.path) {
            Found::Route(route, _) => (route.template.as_str(), route.access == Access::Public),
            Found::OtherMethods(_) | Found::Nothing => ("none", true),
        };
        let span = info_span!(
            "request",
            http.method = %method,
            http.route = field::Empty,
            http.status = field::Empty,
            client.address = %head.client,
            request.id = request_id,
            trace.id = field::Empty,
            app.id = field::Empty,
        );
        if let Some(trace) = telemetry::follow(&span, head.headers) {
            span.record("trace.id", field::display(trace));
        }
        let found = self.handled(table, head, body);
        // A panic costs one answer, never the process: no state of a handler outlives it.
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
        let (status, took) = (response.status(), began.elapsed());
        span.record("http.status", status.as_u16());
        self.metrics.requested(template, method_word(method), status.as_u16(), took);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if self.is_logged(template, is_public, status) {
            info!(duration_ms, "request answered");
        } else {
            debug!(duration_ms, "request answered");
        }
        response
    }

    /// Whether the answer to a request to this route is logged at `info`: each failure of this server, a
    /// random sample of other answers, and of answers that anyone can cause only a few per second.
    fn is_logged(&self, template: &str, is_public: bool, status: StatusCode) -> bool {
        let share = self.front.settings.telemetry.request_log_ratio.share();
        let is_wanted =
            status.is_server_error() || !PROBES.contains(&template) && rand::rng().random_bool(share);
        let is_of_anybody =
            is_public || status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
        is_wanted && (!is_of_anybody || self.lines.may_write(status.as_u16(), Instant::now()))
    }

    async fn handled<S, B>(&self, table: &Table, head: Head<'_>, body: S) -> Answer
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf + 'static,
    {
        self.edge.admit(head.client)?;
        let (route, parameters) = self.route(table, &head).await?;
        let Head { method, path, query, headers, is_secure, client, request_id, place, .. } = head;
        Span::current().record("http.route", &route.template);
        let _one_of_its_token = match route.of_workers {
            Some(_) => None,
            None => self.place_of_token(headers).await?,
        };
        let known = self.authentication.caller(route.access, method, headers, request_id, client).await?;
        let _place_until_it_is_answered = if route.of_workers.is_some() {
            self.state.places.work(&known.caller)?
        } else {
            self.edge.admit_owner(&known.caller)?;
            self.state.places.request(&known.caller)?
        };
        let key = idempotency::key(route, &known.caller, headers)?;
        // Held until the answer, because the body stays in memory until then.
        let mut room = self.state.hooks.room();
        let (body, incoming) = if route.streams {
            (Bytes::new(), Incoming::of(body))
        } else {
            (self.body_of(route, method, headers, body, &mut room).await?, Incoming::default())
        };
        let keyed = key.map(|key| key.of(method, path, &query, &body, known.apart()));
        let entry = self.audit.entry(route, &known, &parameters, request_id, client);
        let missing = Missing::of(&route.template, &parameters);
        let request = Request {
            caller: known.caller,
            actor: known.actor,
            access: route.access,
            powers: known.powers,
            ends_at: known.ends_at,
            request_id: request_id.to_owned(),
            client,
            is_secure,
            method: method.clone(),
            path: path.to_owned(),
            parameters,
            query,
            headers: headers.clone(),
            body,
            incoming,
            keyed,
            recheck: self.authentication.clone(),
            place: place.as_ref().map(Arc::downgrade),
        };
        self.work(route, request, entry, request_id).await.map_err(|problem| missing.named(problem))
    }

    /// The place of a request among those with its token. A refusal is held back for a random moment, so that
    /// clients that ask again at once do not come back as one burst.
    async fn place_of_token(&self, headers: &HeaderMap) -> Result<Option<QuotaShare>, Problem> {
        let place = self.state.places.token(headers);
        if place.is_err()
            && let Some(_held) = self.state.places.refusal()
        {
            sleep(Duration::from_millis(self.front.random.below(REFUSAL_HELD_MS))).await;
        }
        place
    }

    /// Finds the route of a request with a valid head.
    async fn route<'t>(
        &self,
        table: &'t Table,
        head: &Head<'_>,
    ) -> Result<(&'t Route, Vec<String>), Problem> {
        if !head.is_named {
            // Another server before this one may see the rest of this connection as part of this request.
            return Err(Problem::malformed("a request has one Host header")
                .with_header(header::CONNECTION, HeaderValue::from_static("close")));
        }
        if head.path.len() + head.query.len() > URI_BYTES_MAX {
            return Err(Problem::new(Kind::URI_TOO_LONG));
        }
        match table.find(head.method, head.path) {
            Found::Route(route, parameters) => Ok((route, parameters)),
            Found::OtherMethods(allowed) => {
                let allowed = HeaderValue::from_str(&allowed).expect("method names are plain ASCII");
                Err(Problem::new(Kind::METHOD_NOT_ALLOWED).with_header(header::ALLOW, allowed))
            }
            // A Git host has no token, so the answer is about the address.
            Found::Nothing if head.path.starts_with("/hooks/") => Err(Problem::new(Kind::NO_ROUTE)
                .with_detail("hooks are read at /hooks/github, /hooks/gitlab and /hooks/gitea")),
            Found::Nothing => {
                // As in Docora, a caller without a token does not learn which routes exist.
                let Head { headers, request_id, client, .. } = *head;
                self.authentication
                    .caller(Access::Anybody, &Method::GET, headers, request_id, client)
                    .await?;
                Err(Problem::new(Kind::NO_ROUTE))
            }
        }
    }

    /// Runs the handler. A request with an audit entry or an `Idempotency-Key` is handled to its end even if
    /// its client goes away.
    async fn work(
        &self,
        route: &Route,
        request: Request,
        entry: Option<AuditEntry>,
        request_id: &str,
    ) -> Answer {
        let keyed = request.keyed.clone();
        let is_staff = matches!(request.caller, Caller::Staff(_));
        let work = (route.handler)(self.front.clone(), request);
        let (work, is_witnessed) = match entry {
            Some(entry) => (self.audit.clone().audited(entry, is_staff, work).boxed(), true),
            None => (work, false),
        };
        match keyed {
            Some(keyed) => {
                apart(idempotency::once(self.front.clone(), keyed, request_id.to_owned(), work)).await
            }
            None if is_witnessed => apart(work).await,
            None => work.await,
        }
    }

    /// The body of a request to a route; the body of a hook only as far as there is room.
    async fn body_of<S, B>(
        &self,
        route: &Route,
        method: &Method,
        headers: &HeaderMap,
        body: S,
        room: &mut hooks::Room,
    ) -> Result<Bytes, Problem>
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf + 'static,
    {
        if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            // The rest of the body is not read.
            drop(body);
            return Ok(Bytes::new());
        }
        let server = &self.front.settings.server;
        let body = body.map(|part| part.map_err(|_| Problem::malformed("the body ended too early")));
        if route.access.is_of_hooks() {
            let limit = self.front.settings.hooks.body_bytes_max;
            let body = body.map(|part| part.and_then(|part| room.take(part.remaining()).map(|()| part)));
            return read_body(headers, body, limit, server.body_timeout).await;
        }
        let limit = route.of_workers.unwrap_or(server.body_bytes_max);
        let body = read_body(headers, body, limit, server.body_timeout).await?;
        if !body.is_empty() {
            expect_json(headers)?;
        }
        Ok(body)
    }
}

/// A method as a metric label: all methods that no route serves share one label.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The request id of the caller, so that the logs of both sides name the same one. An id with characters that
/// could break a log line is ignored.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (REQUEST_ID_BYTES.contains(&given.len()) && given.bytes().all(is_plain)).then(|| given.to_owned())
}

/// A request without its body.
struct Head<'a> {
    method: &'a Method,
    path: &'a str,
    query: String,
    headers: &'a HeaderMap,
    /// Whether it says without doubt which host it is for.
    is_named: bool,
    /// Whether the request came over TLS, to this server or to a trusted proxy.
    is_secure: bool,
    client: IpAddr,
    request_id: &'a str,
    /// The place of its connection in the bounds of the listener.
    place: Option<Arc<dyn ConnectionPlace>>,
}

/// Handles a request in its own task, so that a client that goes away interrupts nothing: otherwise its key
/// could stay in use, or an effect could lack its audit entry.
async fn apart(work: impl Future<Output = Answer> + Send + 'static) -> Answer {
    #[expect(clippy::disallowed_methods, reason = "it ends by itself, whether or not its client waits")]
    let task = tokio::spawn(work.instrument(Span::current()));
    match task.await {
        Ok(answer) => answer,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(Problem::new(Kind::UNAVAILABLE)
                .with_detail("the server stopped meanwhile: the request may have taken effect")
                .retry_after(RETRY_AFTER_SECONDS)),
        },
    }
}

/// Adds the headers that every answer has.
fn finish(response: &mut Response, method: &Method, request_id: &str) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Only the pages of the documentation set their own policy.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let request_id = HeaderValue::from_str(request_id).expect("an id is plain ASCII");
    headers.insert(REQUEST_ID, request_id);
    if *method == Method::HEAD && response.status() == StatusCode::OK {
        let length = hyper::body::Body::size_hint(response.body()).exact();
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Bytes::new().into();
    }
}
