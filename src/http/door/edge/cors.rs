//! Which web pages may read answers (the CORS protocol of the Fetch standard): those of the origins in the
//! settings, and none by default. Credentials of browsers are never allowed: a page that calls the API has a
//! token.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "authorization, content-digest, content-type, idempotency-key, last-event-id, \
    range, tidings-claim";
const ANSWER_HEADERS: &str =
    "x-request-id, retry-after, idempotent-replayed, etag, content-range, repr-digest";
/// For how long browsers need not ask again, in seconds.
const MAX_AGE: &str = "600";

/// The origins that may read answers.
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        Self { origins: origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect() }
    }

    fn allowed<'a>(&self, asked: &'a HeaderMap) -> Option<&'a HeaderValue> {
        asked.get(header::ORIGIN).filter(|origin| self.origins.contains(origin))
    }

    pub(super) fn preflight(&self, method: &Method, asked: &HeaderMap) -> Option<Response> {
        let asks = *method == Method::OPTIONS && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        self.allowed(asked).filter(|_| asks)?;
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }

    pub(super) fn dress(&self, response: &mut Response, asked: &HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        // A cache must not give a page the answer for another origin.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.allowed(asked) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
        }
    }
}
