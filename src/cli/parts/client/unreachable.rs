//! The reason why a server was not reached, and the remedy.

use std::{error::Error, io};

use url::Url;

use super::DEADLINE;
use crate::cli::{Code, Failure};

/// The failure of a request that got no answer, or only its beginning; `otherwise` names the flag that sets
/// another address.
pub(super) fn failure(server: &Url, otherwise: &str, error: &reqwest::Error) -> Failure {
    let cause = Cause::of(error);
    let other = |scheme: &str| {
        let mut url = server.clone();
        let changed = url.set_scheme(scheme).is_ok();
        if changed { url.to_string() } else { format!("{scheme}://...") }
    };
    let text = match cause {
        _ if error.is_timeout() => format!("the server {server} does not answer within {DEADLINE:?}"),
        Cause::Refused => format!(
            "nothing listens at {server} (connection refused): is the server running, and is this its port? \
             {otherwise}"
        ),
        Cause::NoTls => format!("the server {server} does not speak TLS; write {}", other("http")),
        Cause::Tls(why) => format!("the server {server} was reached, and TLS failed: {why}"),
        Cause::NoHttp if server.scheme() == "http" => format!(
            "the server {server} broke off without an answer in plain http; if it speaks TLS, write {}",
            other("https")
        ),
        Cause::NoHttp => format!("the server {server} broke off: {}", last(error)),
        Cause::Name(why) => {
            let host = server.host_str().unwrap_or_default();
            format!("the name {host} has no address ({why}); {otherwise}")
        }
        Cause::Other if error.is_connect() => {
            format!("the server {server} cannot be reached: {}", last(error))
        }
        Cause::Other => format!("the server {server} broke off: {}", last(error)),
    };
    Failure::new(Code::Unavailable, text)
}

/// The cause of a request that got no answer.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    /// The connection was refused: no process listens at the address.
    Refused,
    /// The other side does not speak TLS.
    NoTls,
    /// The TLS handshake failed, with the reason.
    Tls(String),
    /// The connection was made, but no HTTP came back.
    NoHttp,
    /// The name does not resolve.
    Name(String),
    /// A cause that is none of the others.
    Other,
}

impl Cause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        let mut is_of_names = false;
        while let Some(error) = next {
            is_of_names |= error.to_string().contains("dns error");
            if let Some(error) = error.downcast_ref::<io::Error>() {
                if let Some(tls) = tls_in(error) {
                    return Self::of_tls(tls);
                }
                match error.kind() {
                    _ if is_of_names => return Self::Name(error.to_string()),
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::ConnectionReset => return Self::NoHttp,
                    _ => {}
                }
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>()
                && (error.is_parse() || error.is_incomplete_message())
            {
                return Self::NoHttp;
            }
            next = error.source();
        }
        Self::Other
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            error => Self::Tls(error.to_string()),
        }
    }
}

/// The error of TLS in an error of the machine, however often that is wrapped.
fn tls_in(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.downcast_ref().and_then(tls_in))
}

/// The text of the last cause.
fn last(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
