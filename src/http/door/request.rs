//! A request with a known caller and a complete body: the input of handlers.

use std::{
    net::IpAddr,
    pin::pin,
    str::FromStr,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Serialize;
use tidings_actors::{
    model::permission::{PermissionSet, narrowing::Powers},
    ports::{App, KeyedRequest},
    time::Timestamp,
};
use tokio::time::timeout;
use ulid::Ulid;
use warp::reply::Response;

use super::{access::Access, incoming::Incoming};
use crate::hook::envelope::Envelope;
use crate::http::bodies::problem::{Kind, Problem};
use crate::identity::issuer::Issuers;

/// The actor for callers without a valid token.
pub(crate) const ANYONE: &str = "anyone";
/// The seconds after which a request should come again that found no place to wait.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The sender of a request.
pub enum Caller {
    /// A caller that was not identified, on a route that needs no token.
    Anyone,
    /// An app, by its own token.
    App(Box<App>),
    /// A member of the staff, by a staff token or a token of an external issuer.
    Staff(Staff),
    /// A Git host; its hook must be proved by the body.
    Hook(Box<Envelope>),
}

/// A member of the staff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staff {
    /// The name in the audit log, as ids only: `admin` for the token of the server itself.
    pub id: String,
    /// The roles of the member, built-in ones and those of the settings; empty if a token has permissions
    /// instead.
    pub roles: Vec<String>,
    /// The owner id of the member's `Idempotency-Key`s.
    pub keys: Ulid,
}

/// A caller that was authenticated.
pub struct Known {
    /// The caller as handlers see it.
    pub caller: Caller,
    /// The name of the caller in the audit log: the id of the token, `admin`, `jwt:...` or `anyone`.
    pub actor: String,
    /// The permissions and commands of the caller.
    pub powers: Powers,
    /// When the proof of the caller ends by itself; tokens that the caller makes end no later.
    pub ends_at: Option<Timestamp>,
}

impl Known {
    /// The actor, if it is a token of an app that may not do everything that the app may.
    pub(crate) fn apart(&self) -> Option<&str> {
        let is_app = matches!(self.caller, Caller::App(_));
        (is_app && !self.powers.have_all_of(PermissionSet::of_apps())).then_some(self.actor.as_str())
    }
}

/// Checks callers again: an answer that lasts ends when its caller would be refused by now.
#[async_trait]
pub trait Recheck: Send + Sync {
    /// The issuers whose tokens open the API, and at which people sign in.
    fn issuers(&self) -> &Issuers;

    /// The sender of these headers, if it may call a route with this access.
    ///
    /// # Errors
    /// The problem that the sender would get.
    async fn known(&self, access: Access, headers: &HeaderMap, client: IpAddr) -> Result<Known, Problem>;

    /// Whether the sender of these headers may call a route with this access.
    ///
    /// # Errors
    /// The problem that the sender would get.
    async fn check(&self, access: Access, headers: &HeaderMap, client: IpAddr) -> Result<(), Problem> {
        self.known(access, headers, client).await.map(drop)
    }
}

/// The place of a connection in the bounds of its listener.
pub trait ConnectionPlace: Send + Sync {
    /// Counts the connection among those whose request waits for work until the returned guard is dropped:
    /// in the meantime others may have its ordinary place. `None`: as many wait as may.
    fn step_aside(self: Arc<Self>) -> Option<Aside>;

    /// Counts the connection as an ordinary one again, if there is room; else it ends with its answer.
    fn come_back(&self);
}

/// A connection that is counted among those whose request waits for work.
pub struct Aside(Arc<dyn ConnectionPlace>);

impl Aside {
    /// Of a connection that was counted there.
    #[must_use]
    pub fn new(place: Arc<dyn ConnectionPlace>) -> Self {
        Self(place)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.come_back();
    }
}

/// A request with a known caller and a complete body.
pub struct Request {
    /// The app, member of staff or Git host that sent the request.
    pub caller: Caller,
    /// The name of the caller in the audit log, also where the staff acts for an app.
    pub actor: String,
    /// The access that the route requires of its callers.
    pub access: Access,
    /// The permissions and commands of the caller; if the staff acts for an app, those of the staff.
    pub powers: Powers,
    /// When the proof of the caller ends by itself.
    pub ends_at: Option<Timestamp>,
    /// The id of the request, in logs and in the audit log.
    pub request_id: String,
    /// The address that the request came from, as far as proxies are trusted.
    pub client: IpAddr,
    /// Whether the request came over TLS, to this server or to a trusted proxy.
    pub is_secure: bool,
    /// The HTTP method of the request.
    pub method: Method,
    /// The path as it was sent.
    pub path: String,
    /// The values of the template's parameters in the path, in order, decoded.
    pub parameters: Vec<String>,
    /// The query as it was sent; empty without one.
    pub query: String,
    /// The headers, including the caller's token.
    pub headers: HeaderMap,
    /// The body; empty for methods that have none.
    pub body: Bytes,
    /// The body, where the route reads it part by part.
    pub incoming: Incoming,
    /// The keyed request, if it has an `Idempotency-Key`.
    pub keyed: Option<KeyedRequest>,
    /// Checks the caller again, as long as the answer lasts.
    pub recheck: Arc<dyn Recheck>,
    /// The place of the connection that the request came by; `None` where no listener counts it.
    pub place: Option<Weak<dyn ConnectionPlace>>,
}

impl Request {
    /// Counts the connection among those whose request waits for work, as long as the guard lives.
    ///
    /// # Errors
    /// 429 when as many connections wait as may.
    pub(crate) fn step_aside(&self) -> Result<Option<Aside>, Problem> {
        let Some(place) = self.place.as_ref().and_then(Weak::upgrade) else { return Ok(None) };
        let full = || {
            Problem::new(Kind::TOO_MANY)
                .with_detail("too many requests wait for work (server.waiting_connections_max)")
                .retry_after(RETRY_AFTER_SECONDS)
        };
        place.step_aside().map(Some).ok_or_else(full)
    }

    /// Checks the caller once more before it gets what came while it waited: its token may have ended
    /// meanwhile.
    ///
    /// # Errors
    /// What the caller would be answered if it asked now.
    pub(crate) async fn check_after_wait(&self) -> Result<(), Problem> {
        self.recheck.check(self.access, &self.headers, self.client).await
    }

    /// The app that sent it.
    ///
    /// # Errors
    /// 401 if the caller is no app, which does not happen in routes for apps.
    pub fn app(&self) -> Result<&App, Problem> {
        match &self.caller {
            Caller::App(app) => Ok(app),
            _ => Err(Problem::new(Kind::MISSING_AUTHORIZATION)),
        }
    }

    /// The app or the staff as the cause of a change, in words.
    pub(crate) fn by_whom(&self) -> &'static str {
        if self.access.is_of_apps() { "by the app" } else { "by hand" }
    }

    /// Whether the caller may use a command. Routes about commands check this in addition to the permission.
    #[must_use]
    pub fn may_use(&self, command: &str) -> bool {
        self.powers.may_use(command)
    }

    /// The id in the path. A malformed id is answered like an unknown one.
    ///
    /// # Errors
    /// A problem of the kind `missing`.
    pub fn id<T: FromStr>(&self, missing: Kind) -> Result<T, Problem> {
        self.parameters.first().and_then(|text| text.parse().ok()).ok_or_else(|| Problem::new(missing))
    }
}

/// Reads a body of at most `limit` bytes within `deadline`.
///
/// # Errors
/// 413, 408 or, when the client broke off, 400; the connection is closed after each.
pub async fn read_body<S, B>(
    headers: &HeaderMap,
    stream: S,
    limit: u64,
    deadline: Duration,
) -> Result<Bytes, Problem>
where
    S: Stream<Item = Result<B, Problem>>,
    B: Buf,
{
    let closing =
        |problem: Problem| problem.with_header(header::CONNECTION, HeaderValue::from_static("close"));
    let too_large =
        || closing(Problem::new(Kind::TOO_LARGE).with_detail(format!("a body has at most {limit} bytes")));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit) {
        return Err(too_large());
    }
    let whole = async {
        let mut stream = pin!(stream);
        let mut body = BytesMut::new();
        while let Some(part) = stream.next().await {
            let mut part = part.map_err(closing)?;
            if (body.len() + part.remaining()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        Ok(body.freeze())
    };
    match timeout(deadline, whole).await {
        Ok(body) => body,
        Err(_) => Err(closing(Problem::new(Kind::TIMEOUT).with_detail("the body did not arrive in time"))),
    }
}

/// Whether a body that is there is JSON by its own account.
///
/// # Errors
/// 415.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE).with_detail(detail));
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|value| value == "identity");
    if !plain {
        return refused("a body is sent without a content encoding");
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        refused("a body is sent as application/json")
    }
}

/// The `Content-Type` of answers.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// An answer with a JSON body.
pub fn json(status: http::StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("an answer is plain data");
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}
