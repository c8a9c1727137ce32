//! One route: method and template come from its OpenAPI description, so that what is documented
//! and what is served cannot differ. [`Table`] finds the route of a request.

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

/// What a handler gives back.
pub type Answer = Result<Response, Problem>;

/// What a route does.
pub(crate) type Handler = Arc<dyn Fn(Arc<Front>, Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A route: what is documented of it, who may call it and what it does.
#[derive(Clone)]
pub struct Route {
    /// The template, `/api/repositories/{id}`.
    pub template: String,
    /// The method.
    pub method: Method,
    /// Who may call it.
    pub access: Access,
    /// Its deeds are not written down one by one.
    pub unwitnessed: bool,
    /// What it does.
    pub handler: Handler,
    /// Its description.
    pub operation: Operation,
    /// The schemas that its description names.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl Route {
    /// The same route, whose deeds are not written down one by one: they are too many, and have a
    /// record of their own.
    #[must_use]
    pub fn unwitnessed(self) -> Self {
        Self { unwitnessed: true, ..self }
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
        [HttpMethod::Patch] => Method::PATCH,
        [HttpMethod::Delete] => Method::DELETE,
        _ => unreachable!("each description has one method, one of these four; a test lists them"),
    };
    Route {
        template: P::path(),
        method,
        access,
        unwitnessed: false,
        handler: Arc::new(move |front, request| handler(front, request).boxed()),
        operation: P::operation(),
        schemas,
    }
}

/// A route whose handler also works with `own`: what its file keeps between requests.
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

/// What was found for a path and a method.
pub enum Found<'a> {
    /// The route, and what stands in the path for its parameters, decoded.
    Route(&'a Route, Vec<String>),
    /// The path exists with these methods only.
    OtherMethods(String),
    /// No such path.
    Nothing,
}

impl Table {
    /// A table of these routes.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let mut by_template: BTreeMap<String, BTreeMap<&'static str, Route>> = BTreeMap::new();
        for route in routes {
            let name = method_name(&route.method).expect("a route has one of the served methods");
            by_template.entry(route.template.clone()).or_default().insert(name, route);
        }
        let mut paths: Vec<_> =
            by_template.into_iter().map(|(template, methods)| (segments(&template), methods)).collect();
        // A literal goes before a parameter in the same place: `redrive` before `{id}`.
        paths.sort_by_key(|(segments, _)| {
            segments.iter().map(|segment| matches!(segment, Segment::Parameter)).collect::<Vec<_>>()
        });
        Self { paths }
    }

    /// Finds a route. A trailing slash makes another path. `HEAD` is served where `GET` is. The first
    /// template that fits decides, as in the OpenAPI description: what has a name is no parameter.
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
