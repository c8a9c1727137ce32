//! `Idempotency-Key`: a POST that was sent twice has one effect, and both are answered the same.
//!
//! A request with a key runs in a task of its own, so that a client that goes away neither cuts it off nor
//! leaves its key in use; its answer is stored before it is sent. A repeated request gets the stored answer
//! for [`ANSWERS_KEPT`](tidings_actors::ports::ANSWERS_KEPT), and 409 while the first one runs; another
//! request under the same key gets 409. Answers that do not depend on the request itself (5xx, 401, 408, 413,
//! 429) are not stored: the key is free again, as after a panic.
//!
//! A process that died in between leaves a key without an answer. The next process that gets the request, on
//! this replica or on another one once this counts as dead, runs the request again. Most requests have no
//! further effect then: onboarding writes app and answer together, a watch is found again, a redrive finds
//! its letters marked. Only a skip that names no `round` and `position` may park one more change.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tidings_actors::{
    model::secret::Secret,
    ports::{Begun, KeyedRequest, StoreError, StoredAnswer},
};
use tidings_entity::id::{AppId, Sha256Hash};
use tracing::{Instrument, Span, error, warn};
use ulid::Ulid;
use warp::reply::Response;

use super::{
    request::{Caller, JSON},
    route::{Answer, Route},
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
};

/// The header field that carries the key of a request.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header field that marks an answer as the stored answer of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest key, in characters.
pub(crate) const KEY_CHARACTERS_MAX: usize = 255;
/// The shortest key of a caller without a token, in characters: a person who knows the key may read the
/// answer.
const UNGUESSABLE_CHARACTERS: usize = 32;
/// How many seconds to wait for a request that runs.
const RETRY_AFTER_SECONDS: u64 = 1;
/// The waits before an answer that could not be stored is stored again, in seconds.
const STORE_AGAIN_SECONDS: [u64; 5] = [1, 2, 10, 60, 300];
/// Statuses below 500 that do not depend on the request itself.
const PASSING: [StatusCode; 4] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::TOO_MANY_REQUESTS,
];

/// An idempotency key and its owner.
pub(crate) struct IdempotencyKey {
    owner: AppId,
    key: String,
}

/// The idempotency key of a request. Routes other than POST, hooks (which have ids of their own) and routes
/// of producers (whose keys are in the rows of tasks) do not use the header here.
///
/// # Errors
/// 400 for an invalid key.
pub(crate) fn key(
    route: &Route,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<IdempotencyKey>, Problem> {
    if route.method != Method::POST || route.access.is_of_hooks() || route.of_workers.is_some() {
        return Ok(None);
    }
    let mut sent = headers.get_all(HEADER).iter();
    let Some(first) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(Problem::malformed("Idempotency-Key was sent twice"));
    }
    let is_key =
        (1..=KEY_CHARACTERS_MAX).contains(&first.len()) && first.as_bytes().iter().all(u8::is_ascii_graphic);
    let Some(key) = first.to_str().ok().filter(|_| is_key) else {
        return Err(Problem::malformed(format!(
            "Idempotency-Key has 1 to {KEY_CHARACTERS_MAX} visible ASCII characters"
        )));
    };
    let owner = match caller {
        Caller::App(app) => app.id.clone(),
        // No app has such an id: staff tokens have ids of their own, and the id for the server's token is of
        // the first moment of the clock.
        Caller::Staff(staff) => AppId::new(staff.keys),
        Caller::Anyone if key.len() >= UNGUESSABLE_CHARACTERS => anyone(),
        Caller::Anyone => {
            return Err(Problem::malformed(format!(
                "without a token, Idempotency-Key has at least {UNGUESSABLE_CHARACTERS} random characters: \
                 a caller who knows the key can read the answer"
            )));
        }
        Caller::Hook(_) => return Ok(None),
    };
    Ok(Some(IdempotencyKey { owner, key: key.to_owned() }))
}

/// The owner of the keys of callers without a token.
fn anyone() -> AppId {
    AppId::new(Ulid::from(u128::MAX))
}

impl IdempotencyKey {
    /// The request with this key. Tokens of an app share its keys. A token that does not have all permissions
    /// has keys of its own, named by `by`, because its answers are not for other tokens.
    pub(crate) fn of(
        self,
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
        by: Option<&str>,
    ) -> KeyedRequest {
        let key = match by {
            Some(by) => Sha256Hash::of(format!("{by} {}", self.key).as_bytes()).to_string(),
            None => self.key,
        };
        KeyedRequest { owner: self.owner, key, hash: hash(method, path, query, body) }
    }
}

/// A hash that distinguishes requests. Each part is hashed with its length, so that two different requests
/// never give the same bytes.
pub(crate) fn hash(method: &Method, path: &str, query: &str, body: &[u8]) -> Sha256Hash {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), query.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Sha256Hash::new(hash.finalize().into())
}

/// Handles a request, unless a request with its key was handled before.
///
/// # Errors
/// 409 while the earlier request runs, or if it was another request; 503 if the store does not answer.
pub(crate) async fn once(
    front: Arc<Front>,
    keyed: KeyedRequest,
    request_id: String,
    work: impl Future<Output = Answer> + Send,
) -> Answer {
    let begun = front.requests.begin_request(&keyed, front.clock.now(), front.handle.replica()).await;
    match begun.map_err(|error| Problem::of_store(error, Kind::INTERNAL))? {
        Begun::New => {}
        Begun::Running => return Err(Problem::new(Kind::STILL_RUNNING).retry_after(RETRY_AFTER_SECONDS)),
        Begun::Other => return Err(Problem::new(Kind::KEY_REUSED)),
        Begun::Answered(answer) => return Ok(replayed(answer)),
    }
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => {
            let response = answer.unwrap_or_else(|problem| problem.into_response(&request_id));
            let (response, answer) = taken(response).await;
            end(front, keyed, answer).await;
            Ok(response)
        }
        Err(panic) => {
            end(front, keyed, None).await;
            std::panic::resume_unwind(panic)
        }
    }
}

/// Stores the end of a request, now or, if the store does not answer, later.
async fn end(front: Arc<Front>, keyed: KeyedRequest, answer: Option<StoredAnswer>) {
    let Err(reason) = front.requests.end_request(&keyed, answer.as_ref()).await else { return };
    warn!(%reason, "the end of a keyed request could not be stored; it is tried again");
    let again = async move {
        for seconds in STORE_AGAIN_SECONDS {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            match front.requests.end_request(&keyed, answer.as_ref()).await {
                Ok(()) | Err(StoreError::Fenced) => return,
                Err(_) => {}
            }
        }
        error!("the end of a keyed request could not be stored; its key is in use until the next start");
    };
    #[expect(clippy::disallowed_methods, reason = "bounded in time, and what it loses the next start heals")]
    tokio::spawn(again.instrument(Span::current()));
}

/// Whether an answer with this status would be the same the next time.
pub(crate) fn is_kept(status: StatusCode) -> bool {
    !status.is_server_error() && !PASSING.contains(&status)
}

/// The stored form of an answer; `None` if a repeated request may get another answer.
async fn taken(response: Response) -> (Response, Option<StoredAnswer>) {
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return (Problem::new(Kind::INTERNAL).into_response(""), None);
    };
    let body = body.to_bytes();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let answer = std::str::from_utf8(&body).ok().filter(|_| is_kept(parts.status)).map(|text| StoredAnswer {
        status: parts.status.as_u16(),
        content_type: content_type.map(str::to_owned),
        body: Secret::new(text.to_owned()),
    });
    (Response::from_parts(parts, body.into()), answer)
}

fn replayed(answer: StoredAnswer) -> Response {
    let mut response = Response::new(answer.body.expose().to_owned().into());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(value) = answer.content_type.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    response
}

/// The answer with this body, like [`json`](super::request::json) gives it, for calls that store the answer
/// together with their effect.
pub(crate) fn stored(status: StatusCode, body: &impl Serialize) -> StoredAnswer {
    let text = serde_json::to_string(body).expect("an answer is plain data");
    StoredAnswer { status: status.as_u16(), content_type: Some(JSON.to_owned()), body: Secret::new(text) }
}
