//! Converts errors of libraries and hosts to [`GitError`]. No text made here holds a credential; the words of
//! a host are shortened and freed of control characters first.

use std::{error::Error, io, time::Duration};

use reqwest::{
    StatusCode,
    header::{HeaderMap, LOCATION},
};
use tidings_actors::{ports::GitError, time::Timestamp};
use tidings_egress::{Egress, EgressError};
use tidings_entity::id::ObjectId;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use url::Url;

use super::address::Address;

/// The longest text of a host that is kept, in characters.
const SHOWN_CHARACTERS: usize = 200;
/// The longest wait that a host gets: a number of seconds beyond any calendar must neither stop
/// polls for good nor overflow a clock.
const PATIENCE_MAX: Duration = Duration::from_secs(86_400);

/// How the text of a host of plain files begins.
pub const PLAIN_FILES: &str = "it serves plain files";
/// How the text of a port without TLS begins.
pub const NO_TLS: &str = "the port of this https address does not speak TLS";

/// The text of a host, made safe to show.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect()
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A request that the guarded client refused to make.
pub(super) fn of_egress(error: &EgressError) -> GitError {
    match error {
        EgressError::Refused(_) | EgressError::PlainHttp => GitError::Refused(error.to_string()),
        other => GitError::Unreachable(chain(other)),
    }
}

/// A request that got no answer.
pub(super) fn of_request(egress: &Egress, error: reqwest::Error) -> GitError {
    match egress.connection_refused(&error) {
        Some(refused) => GitError::Unreachable(refused),
        None => of_exchange(error),
    }
}

/// A request that got no answer, or only the beginning of one.
pub(super) fn of_exchange(error: reqwest::Error) -> GitError {
    if let Some(refused) = Egress::refusal(&error) {
        return GitError::Refused(refused.to_string());
    }
    if Egress::is_unresolved(&error) {
        return GitError::Unreachable(EgressError::Unresolved.to_string());
    }
    let timed_out = error.is_timeout();
    let text = chain(&error.without_url());
    // The words of rustls for an answer in clear text.
    if text.contains("InvalidContentType") {
        return GitError::Protocol(format!("{NO_TLS}: an address with http:// may lead there"));
    }
    if timed_out { GitError::Timeout(text) } else { GitError::Unreachable(text) }
}

/// The error for an answer whose status is not 200; `granted` is the wait that the answer asked for.
pub(super) fn of_status(response: &reqwest::Response, granted: Option<Duration>) -> Option<GitError> {
    Some(match response.status() {
        StatusCode::OK => return None,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE
            if granted.is_some() =>
        {
            GitError::RateLimited { retry_after: granted }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GitError::Unauthorized,
        StatusCode::NOT_FOUND | StatusCode::GONE => GitError::NotFound,
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => moved(response),
        status if status.is_redirection() => GitError::Redirected,
        status => GitError::Status(status.as_u16()),
    })
}

/// An answer of another content type than the protocol has; of an advertisement, or of a command.
pub(super) fn of_content_type(found: &[u8], is_advertisement: bool) -> GitError {
    let shown = shown(found);
    let is_page = shown.starts_with("text/html");
    // A plain file server sends `info/refs` as a file, or as plain text.
    GitError::Protocol(if is_advertisement && !is_page {
        format!(
            "{PLAIN_FILES} (\"dumb\" HTTP, content type {shown:?}), which are not read; serve the \
             repository with git http-backend, or watch a clone of it by its path"
        )
    } else {
        format!("the content type of the answer is {shown:?}")
    })
}

/// Where a repository moved for good, if the answer says so in a way that can be used.
fn moved(response: &reqwest::Response) -> GitError {
    let named = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match named.and_then(|named| response.url().join(named).ok()).and_then(|target| base_of(&target)) {
        Some(base) => GitError::Moved(base.to_string()),
        None => GitError::Redirected,
    }
}

/// The repository that a protocol address belongs to; `None` for a web page, and for an address that could
/// not be registered.
fn base_of(target: &Url) -> Option<Url> {
    let path = target.path();
    let path = path.strip_suffix("/info/refs").or_else(|| path.strip_suffix("/git-upload-pack"))?;
    let mut base = target.clone();
    base.set_path(path);
    base.set_query(None);
    Address::parse(base.as_str(), false, true).is_ok().then_some(base)
}

/// Whether an answer asks to wait, and how long if it says so: 429; 403 and 503 with `Retry-After`; and any
/// status, 200 too, with `x-ratelimit-remaining: 0` (GitHub) or `ratelimit-remaining: 0` (GitLab), which
/// announces that the next request would exceed the limit. The longest wait counts.
pub(super) fn wait_asked(response: &reqwest::Response, now: Timestamp) -> Option<Option<Duration>> {
    asked_patience(response.status(), response.headers(), now)
}

fn asked_patience(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Option<Duration>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let named = text("retry-after").and_then(|value| retry_after(value, now));
    let reset = ["x-ratelimit", "ratelimit"].into_iter().find_map(|family| {
        let is_spent = text(&format!("{family}-remaining")) == Some("0");
        text(&format!("{family}-reset")).filter(|_| is_spent).and_then(|moment| until(moment, now))
    });
    let is_refused = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => named.is_some(),
        _ => false,
    };
    (is_refused || reset.is_some()).then(|| named.filter(|_| is_refused).max(reset))
}

/// The time until a moment in unix seconds; at most [`PATIENCE_MAX`].
fn until(moment: &str, now: Timestamp) -> Option<Duration> {
    let moment: i64 = moment.parse().ok()?;
    Some(Timestamp(moment.checked_mul(1_000)?).since(now).min(PATIENCE_MAX))
}

/// `Retry-After` in both its forms: seconds, or a moment; at most [`PATIENCE_MAX`].
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds).min(PATIENCE_MAX));
    }
    let moment = OffsetDateTime::parse(value, &Rfc2822).ok()?;
    Some(Timestamp(moment.unix_timestamp().checked_mul(1_000)?).since(now).min(PATIENCE_MAX))
}

/// The error of a read of `object` that failed: missing, out of memory or corrupt.
pub(super) fn of_read(error: &git2::Error, object: ObjectId) -> GitError {
    if error.code() == git2::ErrorCode::NotFound {
        return GitError::Missing(object);
    }
    match error.class() {
        git2::ErrorClass::NoMemory => GitError::Storage(error.message().to_owned()),
        _ => GitError::Corrupt(format!("{object}: {}", error.message())),
    }
}

/// Indexing a pack failed: the disk's fault or the host's.
pub(super) fn of_indexing(error: &git2::Error) -> GitError {
    match error.class() {
        git2::ErrorClass::Os | git2::ErrorClass::NoMemory | git2::ErrorClass::Filesystem => {
            GitError::Storage(error.message().to_owned())
        }
        _ => GitError::Protocol(format!("bad pack: {}", error.message())),
    }
}

/// The error of a file system operation on a mirror that failed.
pub(super) fn of_disk(error: &io::Error) -> GitError {
    GitError::Storage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = Timestamp(784_111_777_000);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("18446744073709551615", Some(86_400)),
            ("Sun, 06 Nov 2094 08:49:47 GMT", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now).map(|wait| wait.as_secs()), seconds, "{value}");
        }
    }

    #[test]
    fn a_host_asks_for_patience_in_many_words() {
        let now = Timestamp(1_000_000);
        let (spent, reset) = (("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1060"));
        for (status, headers, asked) in [
            (200, vec![], None),
            (403, vec![], None),
            (500, vec![("retry-after", "9")], None),
            (429, vec![], Some(None)),
            (429, vec![("retry-after", "9")], Some(Some(9))),
            (403, vec![("retry-after", "9")], Some(Some(9))),
            (503, vec![("retry-after", "9")], Some(Some(9))),
            (403, vec![spent, reset], Some(Some(60))),
            (429, vec![spent, reset, ("retry-after", "90")], Some(Some(90))),
            (429, vec![spent, reset, ("retry-after", "9")], Some(Some(60))),
            (403, vec![("x-ratelimit-remaining", "1"), reset], None),
            (403, vec![spent], None),
            (403, vec![spent, ("x-ratelimit-reset", "900")], Some(Some(0))),
            (403, vec![spent, ("x-ratelimit-reset", "99999999999999999999")], None),
            (200, vec![spent, reset], Some(Some(60))),
            (200, vec![("ratelimit-remaining", "0"), ("ratelimit-reset", "1060")], Some(Some(60))),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let named = headers
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
            let found = asked_patience(status, &named.collect(), now);
            let seconds = found.map(|wait| wait.map(|wait| wait.as_secs()));
            assert_eq!(seconds, asked, "{status} {headers:?}");
        }
    }

    #[test]
    fn only_an_address_of_the_protocol_says_where_a_repository_moved() {
        for (target, base) in [
            (
                "https://h.example/o/new.git/info/refs?service=git-upload-pack",
                Some("https://h.example/o/new.git"),
            ),
            ("https://h.example/o/new/git-upload-pack", Some("https://h.example/o/new")),
            ("https://h.example/users/sign_in", None),
            ("https://h.example/info/refs", None),
            ("https://user:secret@h.example/o/new/info/refs", None),
            ("ftp://h.example/o/new/info/refs", None),
        ] {
            let found = base_of(&Url::parse(target).expect("an address"));
            assert_eq!(found.as_ref().map(Url::as_str), base, "{target}");
        }
    }

    #[test]
    fn the_words_of_a_host_are_shortened_and_escaped() {
        assert_eq!(shown(b"a\x1b[31mb\n"), "a\\u{1b}[31mb");
        assert_eq!(shown(&[b'x'; 1_000]).len(), SHOWN_CHARACTERS);
    }
}
