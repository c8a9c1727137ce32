//! A request whose caller is known and whose body has arrived: what handlers see.

use std::{net::IpAddr, pin::pin, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Serialize;
use tidings_actors::ports::{App, KeyedRequest};
use tidings_entity::kind::Role;
use tokio::time::timeout;
use ulid::Ulid;
use warp::reply::Response;

use super::access::Access;
use crate::hook::envelope::Envelope;
use crate::http::bodies::problem::{Kind, Problem};

/// Who sent a request.
pub enum Caller {
    /// Nobody that is known.
    Anyone,
    /// An app.
    App(Box<App>),
    /// Somebody of the staff.
    Staff(Staff),
    /// A Git host, by its own account: a hook's body must prove it.
    Hook(Box<Envelope>),
}

/// Somebody who looks after this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staff {
    /// Who it is, as ids only: `admin` for the token of the server itself.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// Whose `Idempotency-Key`s: nobody's but its own.
    pub keys: Ulid,
}

/// Who is known to call.
pub struct Known {
    /// What handlers see.
    pub caller: Caller,
    /// What the audit log says: the id of the token, or whose server it is.
    pub actor: String,
}

/// Checks callers again: an answer that lasts ends when its caller would be refused by now.
#[async_trait]
pub trait Recheck: Send + Sync {
    /// Whether the sender of these headers may call a route with this access.
    ///
    /// # Errors
    /// What the sender would be answered.
    async fn check(&self, access: Access, headers: &HeaderMap, client: IpAddr) -> Result<(), Problem>;
}

/// A request.
pub struct Request {
    /// Who sent it.
    pub caller: Caller,
    /// Who that is in the audit log: also where the staff does an app's work.
    pub actor: String,
    /// What the route asks of its callers.
    pub access: Access,
    /// Where it came from, as far as that is believed.
    pub client: IpAddr,
    /// The method.
    pub method: Method,
    /// The path as it was sent.
    pub path: String,
    /// What stands in the path for the template's parameters, in order, decoded.
    pub parameters: Vec<String>,
    /// The query as it was sent; empty without one.
    pub query: String,
    /// The headers; they hold the caller's token.
    pub headers: HeaderMap,
    /// The body; empty for methods that have none.
    pub body: Bytes,
    /// What it is by its `Idempotency-Key`, if it has one.
    pub keyed: Option<KeyedRequest>,
    /// Checks the caller again, as long as the answer lasts.
    pub recheck: Arc<dyn Recheck>,
}

impl Request {
    /// The app that sent it.
    ///
    /// # Errors
    /// 401 if no app did, which a route for apps never sees.
    pub fn app(&self) -> Result<&App, Problem> {
        match &self.caller {
            Caller::App(app) => Ok(app),
            _ => Err(Problem::new(Kind::MISSING_AUTHORIZATION)),
        }
    }

    /// Who asked for a change of an app or a watch, in words: the app itself, or the staff for it.
    pub(crate) fn by_whom(&self) -> &'static str {
        match self.access {
            Access::App => "by the app",
            _ => "by hand",
        }
    }

    /// The id in the path. Whatever is no id is answered like one that is not there.
    ///
    /// # Errors
    /// `missing`.
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
