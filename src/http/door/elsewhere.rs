//! Forwards requests that only one replica can answer, the one that works on a repository: this replica makes
//! the same request to that one, for the same caller, and returns its answer. Nothing is repeated: if the
//! outcome of a request is unknown, the caller is told to ask again.

use std::time::Duration;

use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, StatusCode, header};
use tidings_entity::id::RepositoryId;
use tracing::debug;
use url::Url;
use warp::{Reply, reply::Response};

use super::{edge::FORWARDED_FOR, request::Request, route::Answer};
use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
};
use crate::telemetry;

/// Names the replica that forwards a request; a forwarded request is not forwarded again.
const BY: HeaderName = HeaderName::from_static("tidings-replica");
/// The seconds after which a caller without an answer should ask again.
const RETRY_AFTER_SECONDS: u64 = 1;
/// The deadline of an answer: longer than the longest wait that a request may ask for.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// The deadline for facts that only the other replica has: callers prefer an answer without them to a wait.
const SHOWN_MAX: Duration = Duration::from_secs(1);
/// The headers of the request that are forwarded.
const SENT: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
/// The headers of the answer that are returned.
const BROUGHT: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// The answer of the replica that works on a repository; `None`: this replica does.
pub(crate) async fn answered(front: &Front, request: &Request, repository: &RepositoryId) -> Option<Answer> {
    if front.handle.works_on(repository) {
        return None;
    }
    Some(hand_on(front, request, repository, ANSWER_MAX).await)
}

/// The facts that the replica which works on a repository has; `None`: this replica does, or the other did
/// not answer in time, and the answer is made from the rows alone.
pub(crate) async fn shown(front: &Front, request: &Request, repository: &RepositoryId) -> Option<Response> {
    if front.handle.works_on(repository) || request.headers.contains_key(BY) {
        return None;
    }
    let answer = hand_on(front, request, repository, SHOWN_MAX).await.ok()?;
    answer.status().is_success().then_some(answer)
}

async fn hand_on(front: &Front, request: &Request, repository: &RepositoryId, within: Duration) -> Answer {
    if request.headers.contains_key(BY) {
        // The repository moved to another replica meanwhile.
        return Err(ask_again("another replica works on this watch: ask again"));
    }
    let owner = front.handle.worked_on_by(repository).await;
    let owner = owner.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let Some(owner) = owner else {
        return Err(ask_again("this watch goes from one replica to another: ask again"));
    };
    let Some(mut url) = owner.address.as_deref().and_then(|address| Url::parse(address).ok()) else {
        return Err(ask_again(
            "another replica works on this watch, and its address is not known: ask again",
        ));
    };
    url.set_path(&request.path);
    url.set_query(Some(request.query.as_str()).filter(|query| !query.is_empty()));
    let mut headers = HeaderMap::new();
    for name in SENT {
        if let Some(value) = request.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let (this, client) = (front.handle.replica().to_string(), request.client.to_string());
    let traceparent = telemetry::traceparent();
    let told = [(BY, Some(this)), (FORWARDED_FOR, Some(client)), (TRACEPARENT, traceparent)];
    let sent = front.to_replicas.request(request.method.clone(), url).headers(headers);
    let sent = told.into_iter().fold(sent, |sent, (name, value)| match value {
        Some(value) => sent.header(name, value),
        None => sent,
    });
    let answer = sent.body(request.body.clone()).timeout(within).send().await.map_err(|error| {
        debug!(replica = %owner.id, error = %error.without_url(), "a request could not be handed on");
        ask_again("the replica that works on this watch does not answer: ask again")
    })?;
    Ok(brought(answer))
}

/// The W3C trace context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

fn ask_again(detail: &str) -> Problem {
    Problem::new(Kind::UNAVAILABLE).with_detail(detail).retry_after(RETRY_AFTER_SECONDS)
}

/// Converts an answer of another replica to an answer of this one.
fn brought(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = if status == StatusCode::NO_CONTENT {
        Response::default()
    } else {
        warp::reply::stream(answer.bytes_stream().map_err(reqwest::Error::without_url)).into_response()
    };
    *response.status_mut() = status;
    for name in BROUGHT {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}
