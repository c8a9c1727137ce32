//! One route: method and template come from its OpenAPI description, so that documentation and behaviour
//! cannot differ. [`Table`] finds the route of a request.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use http::Method;
use percent_encoding::percent_decode_str;
use utoipa::{
    __dev::SchemaReferences,
    Path,
    openapi::{HttpMethod, RefOr, path::Operation, schema::Schema},
};
use warp::reply::Response;

pub use super::access::Access;
use super::request::Request;
use crate::http::{bodies::problem::Problem, front::Front};
pub(crate) use tidings_actors::model::permission::Permission;

/// The result of a handler.
pub type Answer = Result<Response, Problem>;

/// The function that handles requests to a route.
pub(crate) type Handler = Arc<dyn Fn(Arc<Front>, Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A route: its documentation, its access and its handler.
#[derive(Clone)]
pub struct Route {
    /// The template of the path, such as `/api/repositories/{id}`.
    pub template: String,
    /// The HTTP method that the route is served for.
    pub method: Method,
    /// The access that the route requires of its callers.
    pub access: Access,
    /// Whether the audit log leaves out the requests of this route.
    pub unaudited: bool,
    /// For routes of producers and workers, whose requests have limits of their own: the most bytes of a
    /// body; `None` for other routes.
    pub of_workers: Option<u64>,
    /// Whether the handler reads the body itself, part by part ([`Request::incoming`]); other bodies are read
    /// as a whole before the handler runs.
    pub streams: bool,
    /// The handler that answers the requests of this route.
    pub handler: Handler,
    /// The description of the route in the OpenAPI document.
    pub operation: Operation,
    /// The schemas that its description names.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl Route {
    /// The same route without audit entries for its requests, which are too many and have a record of their
    /// own.
    #[must_use]
    pub fn unaudited(self) -> Self {
        Self { unaudited: true, ..self }
    }

    /// The same route for producers and workers: their requests leave no audit entry, have bodies of at most
    /// this size, have limits of their own, and store their idempotency keys themselves.
    #[must_use]
    pub fn of_workers(self, body_max: u64) -> Self {
        Self { of_workers: Some(body_max), unaudited: true, ..self }
    }

    /// The same route for bodies of any size and kind, which its handler reads part by part.
    #[must_use]
    pub fn streaming(self) -> Self {
        Self { streams: true, ..self }
    }

    /// The same route, described with the parameters of the route `P` behind its own: both read them from the
    /// query in the same way.
    #[must_use]
    pub(crate) fn with_parameters_of<P: Path>(mut self) -> Self {
        let parameters = P::operation().parameters.unwrap_or_default();
        self.operation.parameters.get_or_insert_default().extend(parameters);
        self
    }
}

/// A route from the description `P` and a handler.
pub fn route<P, F, Answered>(access: Access, handler: F) -> Route
where
    P: Path + SchemaReferences,
    F: Fn(Arc<Front>, Request) -> Answered + Send + Sync + 'static,
    Answered: Future<Output = Answer> + Send + 'static,
{
    let mut schemas = Vec::new();
    P::schemas(&mut schemas);
    let method = match P::methods().as_slice() {
        [HttpMethod::Get] => Method::GET,
        [HttpMethod::Post] => Method::POST,
        [HttpMethod::Put] => Method::PUT,
        [HttpMethod::Patch] => Method::PATCH,
        [HttpMethod::Delete] => Method::DELETE,
        _ => unreachable!("each description has one method, one of these five; a test lists them"),
    };
    Route {
        template: P::path(),
        method,
        access,
        unaudited: false,
        of_workers: None,
        streams: false,
        handler: Arc::new(move |front, request| handler(front, request).boxed()),
        operation: P::operation(),
        schemas,
    }
}

/// A route whose handler also gets `own`: the state that its file keeps between requests.
pub fn route_with<P, Own, F, Answered>(access: Access, own: &Own, handler: F) -> Route
where
    P: Path + SchemaReferences,
    Own: Clone + Send + Sync + 'static,
    F: Fn(Arc<Front>, Own, Request) -> Answered + Send + Sync + 'static,
    Answered: Future<Output = Answer> + Send + 'static,
{
    let own = own.clone();
    route::<P, _, _>(access, move |front, request| handler(front, own.clone(), request))
}

/// The routes, found by path.
pub struct Table {
    paths: Vec<(Vec<Segment>, BTreeMap<&'static str, Route>)>,
}

enum Segment {
    Literal(String),
    Parameter,
}

/// The result of a search for a path and a method.
pub enum Found<'a> {
    /// The route, and the values of its parameters in the path, decoded.
    Route(&'a Route, Vec<String>),
    /// The path exists, but only with these methods.
    OtherMethods(String),
    /// The path leads to no route.
    Nothing,
}

impl Table {
    /// The table of these routes.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let mut by_template: BTreeMap<String, BTreeMap<&'static str, Route>> = BTreeMap::new();
        for route in routes {
            let name = method_name(&route.method).expect("a route has one of the served methods");
            // Only the document needs descriptions: megabytes of nodes.
            let served = Route { operation: Operation::default(), schemas: Vec::new(), ..route };
            by_template.entry(served.template.clone()).or_default().insert(name, served);
        }
        let mut paths: Vec<_> =
            by_template.into_iter().map(|(template, methods)| (segments(&template), methods)).collect();
        // A literal comes before a parameter in the same place: `redrive` before `{id}`.
        paths.sort_by_key(|(segments, _)| {
            segments.iter().map(|segment| matches!(segment, Segment::Parameter)).collect::<Vec<_>>()
        });
        Self { paths }
    }

    /// Finds a route. A trailing slash makes another path. `HEAD` is served like `GET`. The first matching
    /// template decides, as in the OpenAPI description: a literal comes before a parameter.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let parts: Vec<&str> = path.split('/').collect();
        let mut fitting =
            self.paths.iter().filter_map(|(segments, methods)| Some((matched(segments, &parts)?, methods)));
        let Some((parameters, methods)) = fitting.next() else { return Found::Nothing };
        let name = if method == Method::HEAD { Some("GET") } else { method_name(method) };
        if let Some(route) = name.and_then(|name| methods.get(name)) {
            return Found::Route(route, parameters);
        }
        let head = methods.contains_key("GET").then_some("HEAD");
        let mut allowed: Vec<&str> = methods.keys().copied().chain(head).collect();
        allowed.sort_unstable();
        Found::OtherMethods(allowed.join(", "))
    }
}

fn method_name(method: &Method) -> Option<&'static str> {
    match *method {
        Method::GET => Some("GET"),
        Method::POST => Some("POST"),
        Method::PUT => Some("PUT"),
        Method::PATCH => Some("PATCH"),
        Method::DELETE => Some("DELETE"),
        _ => None,
    }
}

fn segments(template: &str) -> Vec<Segment> {
    template
        .split('/')
        .map(
            |part| if part.starts_with('{') { Segment::Parameter } else { Segment::Literal(part.to_owned()) },
        )
        .collect()
}

fn matched(segments: &[Segment], parts: &[&str]) -> Option<Vec<String>> {
    if segments.len() != parts.len() {
        return None;
    }
    let mut parameters = Vec::new();
    for (segment, part) in segments.iter().zip(parts) {
        match segment {
            Segment::Literal(literal) if literal == part => {}
            Segment::Literal(_) => return None,
            Segment::Parameter if part.is_empty() => return None,
            Segment::Parameter => parameters.push(percent_decode_str(part).decode_utf8_lossy().into_owned()),
        }
    }
    Some(parameters)
}
