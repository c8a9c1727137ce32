//! Requests that only one replica can answer: the one that works on a repository. Any other makes the same
//! request of it, in the name of who asked, and hands its answer on. Nothing is repeated: where it is not
//! known what became of a request, whoever asked is told to ask again.

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

/// Names the replica that hands a request on: one that was handed on is not handed on again.
const BY: HeaderName = HeaderName::from_static("tidings-replica");
/// Whoever could not be answered comes again so soon, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;
/// An answer takes no longer than the longest wait that can be asked for, and what it takes to be written.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// How long the replica that works on a repository may take to show what only it knows: who asks would rather
/// have the rest than wait.
const SHOWN_MAX: Duration = Duration::from_secs(1);
/// What of the request goes along.
const SENT: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
/// What of the answer comes back.
const BROUGHT: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// The answer of the replica that works on a repository; `None`: that is this one.
pub(crate) async fn answered(front: &Front, request: &Request, repository: &RepositoryId) -> Option<Answer> {
    if front.handle.works_on(repository) {
        return None;
    }
    Some(hand_on(front, request, repository, ANSWER_MAX).await)
}

/// What the replica that works on a repository shows of it; `None`: that is this one, or it shows nothing in
/// time, and this one shows what the rows say.
pub(crate) async fn shown(front: &Front, request: &Request, repository: &RepositoryId) -> Option<Response> {
    if front.handle.works_on(repository) || request.headers.contains_key(BY) {
        return None;
    }
    let answer = hand_on(front, request, repository, SHOWN_MAX).await.ok()?;
    answer.status().is_success().then_some(answer)
}

async fn hand_on(front: &Front, request: &Request, repository: &RepositoryId, within: Duration) -> Answer {
    if request.headers.contains_key(BY) {
        // It moved meanwhile.
        return Err(ask_again("another replica works on this watch: ask again"));
    }
    let owner = front.handle.worked_on_by(repository).await;
    let owner = owner.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let Some(owner) = owner else {
        return Err(ask_again("this watch goes from one replica to another: ask again"));
    };
    let Some(mut url) = owner.address.as_deref().and_then(|address| Url::parse(address).ok()) else {
        return Err(ask_again("another replica works on this watch, and says not where it is: ask again"));
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

/// An answer of another replica as one of this.
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
