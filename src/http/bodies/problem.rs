//! Errors as RFC 9457 problems. Each kind has a stable `type`, status and title; `error` repeats the title,
//! or names the invalid fields with their faults, because clients of Docora read that name. Where Docora has
//! a text of its own for a fault, `error` is that text. Nothing internal is ever shown: the chain behind a
//! 500 or 503 goes to the log, under the request id that the problem names.

mod usual;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tidings_actors::ports::StoreError;
use tracing::{error, warn};
use utoipa::ToSchema;
use warp::reply::Response;

/// The prefix of every `type`.
pub const TYPE_PREFIX: &str = "urn:tidings:problem:";
/// Most invalid fields that `error` names.
const NAMED_MAX: usize = 5;
/// The first words of a detail whose subject is the field.
const VERBS: [&str; 9] = ["is", "must", "cannot", "holds", "stands", "says", "names", "goes", "has"];
/// The seconds that a client should wait if the database does not answer.
const STORE_RETRY_AFTER_SECONDS: u64 = 5;
/// The detail where the database fails; its own text goes to the log alone.
const STORE_FAILED: &str = "the database does not answer or takes no writes (its disk may be full): the log \
    of the server says why, and `tidings doctor` there names the remedy";

/// A kind of problem: a `type` with its status and title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of `type`.
    pub code: &'static str,
    /// The status that it has unless a route says otherwise.
    pub status: StatusCode,
    /// The title of the kind; for errors that Docora has too, Docora's text.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)+) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Self =
                Self { code: $code, status: StatusCode::$status, title: $title };)+

            /// Every kind of problem, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

kinds! {
    /// The request cannot be read.
    MALFORMED = "malformed", BAD_REQUEST, "Bad Request";
    /// No bearer token where one is needed.
    MISSING_AUTHORIZATION = "missing-authorization", UNAUTHORIZED, "Missing or invalid Authorization header";
    /// A token that is not, or no longer, known.
    INVALID_TOKEN = "invalid-token", UNAUTHORIZED, "Invalid token";
    /// The route is for the administrator.
    ADMIN_REQUIRED = "admin-required", UNAUTHORIZED, "Admin authentication required";
    /// A token that is known, and may not do this.
    ROLE_REQUIRED = "role-required", FORBIDDEN, "The request needs a higher role";
    /// A token that is known, and lacks the permission of the route.
    PERMISSION_REQUIRED = "permission-required", FORBIDDEN,
        "The request needs a permission that the caller lacks";
    /// The cookie of a session came with a request that no page of this server made.
    CROSS_SITE = "cross-site-request", FORBIDDEN, "The request was not made by a page of this server";
    /// A page of the dashboard shows one person, and its cookie is another person's by now.
    OTHER_PERSON = "other-person", CONFLICT, "Another person is signed in by now";
    /// The path leads to no route.
    NO_ROUTE = "no-route", NOT_FOUND, "Not Found";
    /// No such watch, or that of another app.
    NOT_REGISTERED = "repository-not-registered", NOT_FOUND,
        "Repository not found or not registered for this app";
    /// No such dead letter, or that of another app.
    NO_DEAD_LETTER = "dead-letter-not-found", NOT_FOUND, "Dead letter not found";
    /// No such redrive, or that of another app.
    NO_REDRIVE = "redrive-not-found", NOT_FOUND, "Redrive not found";
    /// No such round, or that of another app.
    NO_ROUND = "round-not-found", NOT_FOUND, "Round not found";
    /// No such delivery among those that were looked at, or that of another app.
    NO_DELIVERY = "delivery-not-found", NOT_FOUND, "Delivery not found";
    /// The app does not exist.
    NO_APP = "app-not-found", NOT_FOUND, "App not found";
    /// No such token, or that of another owner.
    NO_TOKEN = "token-not-found", NOT_FOUND, "Token not found";
    /// No such repository in the list of all.
    NO_REPOSITORY = "repository-not-found", NOT_FOUND, "Repository not found";
    /// No such breaker that has failures.
    NO_BREAKER = "breaker-not-found", NOT_FOUND, "Breaker not found, or closed without failures";
    /// The keyring has no key of this id.
    NO_KEY = "key-not-found", NOT_FOUND, "Key not found";
    /// No such subscription, or that of another app.
    NO_SUBSCRIPTION = "subscription-not-found", NOT_FOUND, "Subscription not found";
    /// No such entry that may be sent.
    NO_ENTRY = "entry-not-found", NOT_FOUND, "Entry not found";
    /// No such hook, or that of another app.
    NO_HOOK = "hook-not-found", NOT_FOUND, "Hook not found";
    /// The receipt does not exist.
    NO_RECEIPT = "receipt-not-found", NOT_FOUND, "Receipt not found";
    /// No such task, or that of another app.
    NO_TASK = "task-not-found", NOT_FOUND, "Task not found";
    /// The task has no artifact of this name.
    NO_ARTIFACT = "artifact-not-found", NOT_FOUND, "Artifact not found";
    /// The artifact is known, but the object store does not have its bytes.
    ARTIFACT_GONE = "artifact-gone", GONE, "The bytes of the artifact are gone";
    /// The bytes that arrived do not have the digest that the request names.
    DIGEST_MISMATCH = "digest-mismatch", BAD_REQUEST,
        "The body does not have the digest that the request names";
    /// The request does not say how long its body is.
    LENGTH_REQUIRED = "length-required", LENGTH_REQUIRED, "Length Required";
    /// The range begins behind the end.
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable", RANGE_NOT_SATISFIABLE, "Range Not Satisfiable";
    /// No such queue, or that of another app.
    NO_QUEUE = "queue-not-found", NOT_FOUND, "Queue not found";
    /// No such schedule, or that of another app.
    NO_SCHEDULE = "schedule-not-found", NOT_FOUND, "Schedule not found";
    /// No such worker subscription, one that has ended, or that of another app.
    NO_WORKER_SUBSCRIPTION = "worker-subscription-not-found", NOT_FOUND, "Worker subscription not found";
    /// The claim is not the newest of its task, or its time is over.
    CLAIM_LOST = "claim-lost", CONFLICT, "The claim is over: another worker may have the task";
    /// No such page of the documentation.
    NO_PAGE = "page-not-found", NOT_FOUND, "Page not found";
    /// No secret is set that a hook could prove itself with.
    HOOKS_OFF = "hooks-off", NOT_FOUND, "Hooks are not served: hooks.secret is not set";
    /// A hook that does not prove who sent it.
    HOOK_REFUSED = "hook-refused", UNAUTHORIZED, "The hook is not genuine";
    /// More requests than are taken in.
    TOO_MANY = "too-many-requests", TOO_MANY_REQUESTS, "Too Many Requests";
    /// The Git host shows no such repository to this credential.
    NOT_ACCESSIBLE = "repository-not-accessible", NOT_FOUND, "Repository not found or not accessible";
    /// The Git host refuses the credential.
    INVALID_GIT_TOKEN = "invalid-git-token", NOT_FOUND, "Invalid GitHub token";
    /// The Git host does not answer, so nothing is known.
    UNVERIFIED = "repository-unverified", SERVICE_UNAVAILABLE, "Failed to validate repository";
    /// No tree that the app holds or is brought to has this content.
    CONTENT_GONE = "content-gone", GONE, "No tree that the app holds has the content";
    /// More bytes than are ever served.
    CONTENT_TOO_LARGE = "content-too-large", UNPROCESSABLE_ENTITY, "The content is too large to be served";
    /// The mirror lacks it and the Git host does not have it, or there is no room for it just now.
    CONTENT_UNAVAILABLE = "content-unavailable", SERVICE_UNAVAILABLE, "The content is not available now";
    /// A tree that this needs cannot be fetched any more, or does not give the same list any more.
    TREE_UNAVAILABLE = "tree-unavailable", CONFLICT, "A tree that the request needs is unavailable";
    /// The route exists, the method does not.
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "Method Not Allowed";
    /// The body did not arrive in time.
    TIMEOUT = "request-timeout", REQUEST_TIMEOUT, "Request Timeout";
    /// The state does not allow it.
    CONFLICT = "conflict", CONFLICT, "Conflict";
    /// The app watches the repository already, and the request may not replace that watch.
    ALREADY_WATCHED = "already-watched", CONFLICT, "The app watches this repository already";
    /// The key of another request.
    KEY_REUSED = "idempotency-key-reused", CONFLICT, "The Idempotency-Key was used for another request";
    /// The request with this key has not been answered yet.
    STILL_RUNNING = "request-still-running", CONFLICT, "The request with this Idempotency-Key still runs";
    /// The body is too large.
    TOO_LARGE = "body-too-large", PAYLOAD_TOO_LARGE, "Payload Too Large";
    /// The address is too long.
    URI_TOO_LONG = "uri-too-long", URI_TOO_LONG, "URI Too Long";
    /// The body is not JSON by its own account.
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type";
    /// The test delivery that was to come first was not answered with 2xx.
    TEST_FAILED = "test-delivery-failed", UNPROCESSABLE_ENTITY, "The endpoint did not accept the test \
        delivery";
    /// The problem for fields with invalid values.
    INVALID = "invalid", UNPROCESSABLE_ENTITY, "Invalid fields";
    /// The database does not answer; nothing is known about the outcome of a write.
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "Service Unavailable";
    /// A defect of ours.
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "Internal Server Error";
}

/// One invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldFault {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong with the field, without the value of the field.
    pub detail: String,
    /// The text that Docora has for this fault, where it has one.
    #[serde(skip)]
    pub docora: Option<&'static str>,
}

impl FieldFault {
    /// A fault of the field behind `name`, the parts of which are divided by slashes.
    pub fn new(name: &str, detail: impl Into<String>) -> Self {
        Self { pointer: format!("/{name}"), detail: detail.into(), docora: None }
    }
}

/// A field and its fault, as one sentence: `github_url is required`, `branch: there is none`,
/// `sink.to[0] must be a text`.
#[must_use]
pub fn sentence(pointer: &str, detail: &str) -> String {
    let mut field = String::new();
    for (depth, part) in pointer.trim_start_matches('/').split('/').enumerate() {
        let part = part.replace("~1", "/").replace("~0", "~");
        let is_index = depth > 0 && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        field += &match depth {
            0 => part,
            _ if is_index => format!("[{part}]"),
            _ => format!(".{part}"),
        };
    }
    let first = detail.split([' ', ',']).next().unwrap_or_default();
    match VERBS.contains(&first) {
        _ if field.is_empty() => detail.to_owned(),
        true => format!("{field} {detail}"),
        false => format!("{field}: {detail}"),
    }
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    status: StatusCode,
    detail: Option<Box<str>>,
    faults: Vec<FieldFault>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    rare: Option<Box<Rare>>,
}

/// What few problems have.
#[derive(Clone, Debug, Default)]
struct Rare {
    /// The outcome of a test delivery.
    outcome: Option<Value>,
    /// The value of `error` on a route whose clients know other texts.
    said: Option<String>,
}

/// The body of every error (`application/problem+json`, RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Stable identifier of the kind of problem: `urn:tidings:problem:<code>`.
    #[serde(rename = "type")]
    problem_type: String,
    /// Short description of the kind of problem.
    title: &'a str,
    /// Status code of the answer.
    status: u16,
    /// Explanation of this problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// The title, or a list of the invalid fields with the fault of each.
    error: &'a str,
    /// Id of the request in the server's log.
    request_id: &'a str,
    /// The invalid fields (422).
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldFault],
    /// Result of the test delivery (422 of a change with `test_first`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    outcome: Option<&'a Value>,
}

impl Problem {
    /// A problem without details.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let (faults, headers) = (Vec::new(), Vec::new());
        Self { kind, status: kind.status, detail: None, faults, headers, rare: None }
    }

    /// A request that cannot be read, and why.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::MALFORMED).with_detail(detail)
    }

    /// The problem for fields with invalid values.
    #[must_use]
    pub fn invalid(faults: Vec<FieldFault>) -> Self {
        Self { faults, ..Self::new(Kind::INVALID) }
    }

    /// The problem for one field with an invalid value.
    pub fn invalid_field(name: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldFault::new(name, detail)])
    }

    /// Adds the details of this request, which must contain nothing secret and nothing internal.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into_boxed_str());
        self
    }

    /// Puts a text before the present detail.
    #[must_use]
    pub fn with_detail_first(self, detail: &str) -> Self {
        match self.detail.clone() {
            Some(cause) => self.with_detail(format!("{detail}; the cause: {cause}")),
            None => self.with_detail(detail),
        }
    }

    /// Adds the outcome of a test delivery.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Value) -> Self {
        self.rare.get_or_insert_default().outcome = Some(outcome);
        self
    }

    /// Answers with another status than the kind has.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Puts this text into `error`, for clients of another contract that compare it.
    #[must_use]
    pub fn saying(mut self, error: impl Into<String>) -> Self {
        self.rare.get_or_insert_default().said = Some(error.into());
        self
    }

    /// The reason in one sentence: the text of `error`, or the detail where `error` names only the kind.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.detail {
            Some(detail) if self.said().is_none() && self.faults.is_empty() => detail.to_string(),
            _ => self.error(),
        }
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header field to the answer.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The problem for a failed call of the store; `missing` is the kind for a thing that does not exist.
    #[must_use]
    pub fn of_store(error: StoreError, missing: Kind) -> Self {
        match error {
            StoreError::NotFound => Self::new(missing),
            StoreError::Conflict(text) => Self::new(Kind::CONFLICT).with_detail(text),
            error @ StoreError::Exists(_) => Self::new(Kind::CONFLICT).with_detail(error.to_string()),
            StoreError::Unavailable(_) | StoreError::Fenced | StoreError::Lost => {
                warn!(error = %error, "a request failed because the store did not answer");
                Self::new(Kind::UNAVAILABLE).with_detail(STORE_FAILED).retry_after(STORE_RETRY_AFTER_SECONDS)
            }
            StoreError::Undecodable { .. } => {
                error!(error = %error, "a request met a row that cannot be read");
                Self::new(Kind::INTERNAL)
            }
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same problem of an item of a list: the fields are those of this item.
    #[must_use]
    pub fn within(mut self, list: &str, item: usize) -> Self {
        for fault in &mut self.faults {
            fault.pointer = format!("/{list}/{item}{}", fault.pointer);
        }
        self
    }

    /// The explanation of this problem.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The stable code of the problem's kind.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    fn said(&self) -> Option<&str> {
        self.rare.as_ref()?.said.as_deref()
    }

    /// The text that a client of Docora reads.
    fn error(&self) -> String {
        if let Some(said) = self.said() {
            return said.to_owned();
        }
        match self.faults.as_slice() {
            [] => self.kind.title.to_owned(),
            [FieldFault { docora: Some(text), .. }] => (*text).to_owned(),
            faults => {
                let named = faults.iter().take(NAMED_MAX);
                let mut parts: Vec<_> = named.map(|fault| sentence(&fault.pointer, &fault.detail)).collect();
                if let Some(more @ 1..) = faults.len().checked_sub(NAMED_MAX) {
                    parts.push(format!("and {more} more"));
                }
                parts.join("; ")
            }
        }
    }

    /// Makes the answer: the status, the header fields and the body of the problem.
    #[must_use]
    pub fn into_response(self, request_id: &str) -> Response {
        let error = self.error();
        let body = ProblemBody {
            problem_type: format!("{TYPE_PREFIX}{}", self.kind.code),
            title: self.kind.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref().or(self.kind.usual_detail()),
            error: &error,
            request_id,
            errors: &self.faults,
            outcome: self.rare.as_ref().and_then(|rare| rare.outcome.as_ref()),
        };
        let json = serde_json::to_vec(&body).expect("a problem is plain data");
        let mut response = Response::new(json.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use super::*;

    #[test]
    fn the_kinds_are_stable_and_each_code_is_used_once() {
        let mut table = String::new();
        for kind in Kind::ALL {
            writeln!(table, "{} {TYPE_PREFIX}{} {}", kind.status.as_u16(), kind.code, kind.title)
                .expect("text");
        }
        insta::assert_snapshot!("problem_kinds", table);
        let codes: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
    }

    #[test]
    fn error_names_the_field_or_is_the_text_of_docora() {
        let error = |faults: Vec<FieldFault>| Problem::invalid(faults).error();
        assert_eq!(error(Vec::new()), "Invalid fields");
        let required = FieldFault::new("github_url", "is required");
        assert_eq!(error(vec![required.clone()]), "github_url is required");
        let none = FieldFault::new("delivery/a~1b", "there is no such field");
        let both = error(vec![required.clone(), none]);
        assert_eq!(both, "github_url is required; delivery.a/b: there is no such field");
        let listed = FieldFault::new("sink/to/1", "must be a text");
        assert_eq!(error(vec![listed]), "sink.to[1] must be a text");
        let docora = FieldFault { docora: Some("URL must use HTTPS"), ..required.clone() };
        assert_eq!(error(vec![docora]), "URL must use HTTPS");
        assert!(error(vec![required; 7]).ends_with("; github_url is required; and 2 more"));
    }

    #[test]
    fn what_the_store_says_internally_is_not_shown() {
        for error in [
            StoreError::Unavailable("disk planted".into()),
            StoreError::Undecodable { table: "planted", reason: "planted".into() },
        ] {
            let problem = Problem::of_store(error, Kind::NO_APP);
            assert!(problem.status().is_server_error());
            assert!(!problem.detail().unwrap_or_default().contains("planted"), "{problem:?}");
        }
        assert_eq!(Problem::of_store(StoreError::NotFound, Kind::NO_APP).code(), "app-not-found");
    }
}
