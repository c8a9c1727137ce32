//! Calls of the S3 server: sent by the guarded client, repeated where the server or the way to it fails, and
//! answered with errors that name the bucket and the call, and never an address that is signed.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Body, Method, Response, StatusCode, header};
use rusty_s3::S3Action;
use tidings_actors::ports::ObjectError;
use tokio::time::{sleep, timeout};
use url::Url;

use super::{Bucket, Inner};
use crate::egress::Egress;

/// How long a signed address is valid.
pub(super) const SIGNED_FOR: Duration = Duration::from_secs(3_600);
/// How long a call waits for its answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The waits before a call is repeated.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// Most bytes of an answer that describes something.
pub(super) const XML_MAX: usize = 4 << 20;
/// Most bytes of an error that are read.
const ERROR_MAX: usize = 8 << 10;

impl Bucket {
    /// Makes a call, again if that may help.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] for 404, else [`ObjectError::Unavailable`].
    pub(super) async fn call(
        &self,
        name: &'static str,
        method: Method,
        signed: impl Fn() -> Url,
        body: Option<Bytes>,
    ) -> Result<Response, ObjectError> {
        self.ranged_call(name, method, signed, body, None).await
    }

    /// The same with a `Range`.
    pub(super) async fn ranged_call(
        &self,
        name: &'static str,
        method: Method,
        signed: impl Fn() -> Url,
        body: Option<Bytes>,
        range: Option<&str>,
    ) -> Result<Response, ObjectError> {
        let mut waits = AGAIN.iter();
        loop {
            let made = self.once(name, method.clone(), &signed(), body.clone(), range).await;
            let (error, may_help) = match made {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match waits.next() {
                Some(wait) if may_help => sleep(*wait).await,
                _ => return Err(error),
            }
        }
    }

    /// One call; with an error whether the same call may succeed.
    async fn once(
        &self,
        name: &'static str,
        method: Method,
        url: &Url,
        body: Option<Bytes>,
        range: Option<&str>,
    ) -> Result<Response, (ObjectError, bool)> {
        let request = self.0.egress.request(method, url);
        let mut request = request.map_err(|error| (self.failed(name, &error.to_string()), false))?;
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_LENGTH, body.len()).body(Body::from(body));
        }
        let answer = timeout(ANSWER_MAX, request.send()).await;
        let answer = answer.map_err(|_| (self.failed(name, "no answer within 30 s"), true))?;
        let answer = answer.map_err(|error| (self.unsent(name, &error), !Egress::is_refused(&error)))?;
        self.judged(name, answer).await
    }

    /// The answer, if it is no error.
    pub(super) async fn judged(
        &self,
        name: &'static str,
        answer: Response,
    ) -> Result<Response, (ObjectError, bool)> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let may_help = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let text = self.text(name, answer, ERROR_MAX).await.unwrap_or_default();
        let code = code(&text);
        // A missing bucket is no missing object.
        if status == StatusCode::NOT_FOUND && code != "NoSuchBucket" {
            return Err((ObjectError::Missing, false));
        }
        let remedy = if status.is_client_error() { "; see artifacts.s3_... of the settings" } else { "" };
        let status = status.as_u16();
        Err((self.failed(name, &format!("it says {status} {code}{remedy}")), may_help))
    }

    /// The text of an answer, at most `most` bytes of it.
    pub(super) async fn text(
        &self,
        name: &'static str,
        mut answer: Response,
        most: usize,
    ) -> Result<String, ObjectError> {
        let mut bytes = Vec::new();
        loop {
            let part = timeout(ANSWER_MAX, answer.chunk()).await;
            let part = part.map_err(|_| self.failed(name, "its answer did not end within 30 s"))?;
            match part.map_err(|error| self.unsent(name, &error))? {
                Some(part) if bytes.len() + part.len() > most => {
                    return Err(self.failed(name, "its answer is too large"));
                }
                Some(part) => bytes.extend_from_slice(&part),
                None => break,
            }
        }
        String::from_utf8(bytes).map_err(|_| self.unreadable(name))
    }

    /// Whether an object is there.
    pub(super) async fn head(&self, key: &str) -> Result<(), ObjectError> {
        let Inner { bucket, credentials, .. } = &*self.0;
        let signed = || bucket.head_object(Some(credentials), key).sign(SIGNED_FOR);
        self.call("HeadObject", Method::HEAD, signed, None).await.map(drop)
    }

    pub(super) fn failed(&self, name: &str, why: &str) -> ObjectError {
        let Inner { bucket, .. } = &*self.0;
        let host = bucket.base_url().host_str().unwrap_or_default();
        ObjectError::Unavailable(format!("{name} of the bucket {} at {host} failed: {why}", bucket.name()))
    }

    pub(super) fn unreadable(&self, name: &str) -> ObjectError {
        self.failed(name, "its answer is not that of an S3 server")
    }

    /// A request that was not answered. The innermost cause names no address.
    pub(super) fn unsent(&self, name: &str, error: &reqwest::Error) -> ObjectError {
        if let Some(refused) = Egress::refusal(error) {
            return self.failed(name, &refused.to_string());
        }
        let mut cause: &dyn std::error::Error = error;
        // The error of the client itself may show the address.
        let is_outer = cause.source().is_none();
        while let Some(next) = cause.source() {
            cause = next;
        }
        self.failed(
            name,
            &if is_outer { "the request was not answered".to_owned() } else { cause.to_string() },
        )
    }
}

/// The code of an error, such as `AccessDenied`; empty if the answer names none.
fn code(text: &str) -> &str {
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let is_word = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    code.map(|(code, _)| code).filter(is_word).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_code_and_nothing_else() {
        let text =
            "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>";
        assert_eq!(code(text), "SignatureDoesNotMatch");
        for other in ["", "<Code>", "<Code>a b</Code>", "<Code><script></Code>", "plain"] {
            assert_eq!(code(other), "", "{other}");
        }
    }
}
