//! Sessions of browsers: the cookie that stands for a token, and the check that a request with the cookie was
//! made by a page of this server.
//!
//! A browser sends the cookie by itself, so the cookie alone does not prove who wrote the request. A request
//! that changes something therefore needs [`PAGE`], a header that no form can send and that a page of another
//! origin may send only after a preflight, which this server refuses. If the browser reports the origin of
//! the request (`Sec-Fetch-Site`, `Origin`), it must be this server.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tidings_entity::id::Sha256Hash;

use crate::http::bodies::problem::{Kind, Problem};
use crate::secrets::Token;

/// Begins the name of the cookie.
const COOKIE: &str = "tidings_session_";
/// Characters of the database's identity in the name of the cookie.
const IDENTITY_CHARACTERS: usize = 8;
/// The prefix of the secret of a session.
pub(crate) const SESSION_PREFIX: &str = "tds";
/// How long a session lasts that somebody began with a token.
pub(crate) const SESSION_LASTS: Duration = Duration::from_secs(8 * 3_600);
/// The header that the dashboard's pages send with each request.
pub(crate) const PAGE: HeaderName = HeaderName::from_static("tidings-page");
/// The header in which the browser reports the origin of a request.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name of the cookie of a server with this database. Browsers send a cookie to every port of a host, so
/// two servers on one host need two names. Replicas share a database, and therefore the name.
pub(crate) fn cookie_name(identity: &str) -> String {
    // The end of an identity is random; its beginning is a moment.
    let skipped = identity.chars().count().saturating_sub(IDENTITY_CHARACTERS);
    let end: String = identity.chars().skip(skipped).filter(char::is_ascii_alphanumeric).collect();
    format!("{COOKIE}{}", end.to_ascii_lowercase())
}

/// The hash of the session in the cookie with this name; `None` without such a cookie, with several, or with
/// a malformed one.
pub(crate) fn of_cookie(name: &str, headers: &HeaderMap) -> Option<Sha256Hash> {
    let mut sent =
        headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| {
            line.split(';').filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        });
    let first = sent.next()?;
    if sent.next().is_some() {
        return None;
    }
    Token::parse(SESSION_PREFIX, first).ok().map(|secret| secret.hash())
}

/// The cookie that holds a secret until the session ends; `is_secure`: only over TLS.
pub(crate) fn cookie(name: &str, secret: &str, lasts: Duration, is_secure: bool) -> HeaderValue {
    dressed(name, secret, lasts, is_secure)
}

/// The header that removes the cookie.
pub(crate) fn no_cookie(name: &str, is_secure: bool) -> HeaderValue {
    dressed(name, "", Duration::ZERO, is_secure)
}

fn dressed(name: &str, secret: &str, lasts: Duration, is_secure: bool) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let seconds = lasts.as_secs();
    let text = format!("{name}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).expect("names and secrets are plain ASCII")
}

/// Checks that a request with a cookie was made by a page of this server.
///
/// # Errors
/// 403 if it was not.
pub(crate) fn check_page(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(Kind::CROSS_SITE).with_detail(detail));
    let site = headers.get(SITE).map(HeaderValue::as_bytes);
    // `none`: the user typed the address.
    if site.is_some_and(|site| ![b"same-origin".as_slice(), b"none"].contains(&site)) {
        return refused("a page of another site made it");
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    if !headers.contains_key(PAGE) {
        return refused("with the cookie of a session, what changes something needs the header tidings-page");
    }
    // Where the browser has said that it is the same origin, a proxy may have changed the host.
    if site.is_none() && headers.get(header::ORIGIN).is_some_and(|origin| !is_of_host(origin, headers)) {
        return refused("a page of another origin made it");
    }
    Ok(())
}

/// Checks that a page shows the person whose cookie it sends. A page names its person in [`PAGE`], by the id
/// of the token; `1` names nobody. Another tab may have signed somebody else in.
///
/// # Errors
/// 409 if the cookie is another person's.
pub(crate) fn check_person(headers: &HeaderMap, actor: &str) -> Result<(), Problem> {
    let named = headers.get(PAGE).filter(|_| !headers.contains_key(header::AUTHORIZATION));
    if named.is_none_or(|named| named == "1" || named == actor) {
        return Ok(());
    }
    let detail = "load the page again: another person signed in meanwhile";
    Err(Problem::new(Kind::OTHER_PERSON).with_detail(detail))
}

/// Whether an origin has the host that the request is for.
fn is_of_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let origin = host(origin);
    let named = origin.as_deref().and_then(|origin| Some(origin.split_once("://")?.1));
    named.is_some() && named == headers.get(header::HOST).and_then(host).as_deref()
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::Random;

    use super::*;
    use crate::machine::MachineRandom;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    fn check(method: Method, fields: &[(&'static str, &str)]) -> bool {
        check_page(&method, &headers(&[&[("host", "here:80")], fields].concat())).is_ok()
    }

    #[test]
    fn what_changes_something_comes_from_a_page_of_this_server() {
        let page = ("tidings-page", "1");
        assert!(check(Method::POST, &[page]), "a client that is no browser");
        assert!(check(Method::POST, &[page, ("origin", "http://here:80")]));
        assert!(check(Method::POST, &[page, ("origin", "https://HERE:80")]));
        assert!(check(
            Method::DELETE,
            &[page, ("sec-fetch-site", "same-origin"), ("origin", "https://outer")]
        ));
        for fields in [
            [].as_slice(),
            &[("origin", "http://here:80")],
            &[("sec-fetch-site", "same-origin")],
            &[page, ("origin", "http://here")],
            &[page, ("origin", "http://here:80.evil")],
            &[page, ("origin", "null")],
            &[page, ("sec-fetch-site", "cross-site")],
            &[page, ("sec-fetch-site", "same-site"), ("origin", "http://here:80")],
        ] {
            for method in [Method::POST, Method::PATCH, Method::DELETE] {
                assert!(!check(method, fields), "{fields:?}");
            }
        }
    }

    #[test]
    fn what_reads_needs_no_header_and_never_comes_from_another_site() {
        assert!(check(Method::GET, &[]) && check(Method::HEAD, &[("sec-fetch-site", "none")]));
        assert!(!check(Method::GET, &[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn a_page_that_shows_another_person_is_refused() {
        let check = |fields: &[(&'static str, &str)]| check_person(&headers(fields), "tok_1").is_ok();
        assert!(check(&[]) && check(&[("tidings-page", "1")]) && check(&[("tidings-page", "tok_1")]));
        assert!(!check(&[("tidings-page", "tok_2")]));
        let with_token = [("tidings-page", "tok_2"), ("authorization", "Bearer x")];
        assert!(check(&with_token), "a token is its own proof");
    }

    #[test]
    fn one_cookie_is_read_and_no_other() {
        let random: &dyn Random = &MachineRandom;
        let secret = Token::generate(SESSION_PREFIX, random);
        let text = secret.text().expose();
        let name = cookie_name("01KDPN3F8GT4ZRNV6Q2M0S9XAB");
        assert_eq!(name, "tidings_session_2m0s9xab");
        let own = format!("{name}={text}");
        let read = |lines: &[&str]| {
            of_cookie(&name, &headers(&lines.iter().map(|line| ("cookie", *line)).collect::<Vec<_>>()))
        };
        assert_eq!(read(&[&own]), Some(secret.hash()));
        assert_eq!(read(&[&format!("a=b; {own}; c=d")]), Some(secret.hash()));
        assert_eq!(read(&["a=b", &own]), Some(secret.hash()));
        let other = Token::generate("tdg", random);
        let foreign = format!("{name}={}", other.text().expose());
        let garbage = format!("{name}=garbage");
        for lines in [[].as_slice(), &["a=b"], &[&own, &own], &[&foreign], &[&garbage]] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
        let set = cookie(&name, text, SESSION_LASTS, true);
        let set = set.to_str().expect("text");
        assert_eq!(set, format!("{own}; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict; Secure"));
        assert!(!no_cookie(&name, false).to_str().expect("text").contains("Secure"));
    }

    #[test]
    fn two_servers_on_one_host_leave_each_other_their_cookies() {
        let random: &dyn Random = &MachineRandom;
        let [one, two] = ["01KDPN3F8GT4ZRNV6Q2M0S9XAB", "01KDPN3F8GT4ZRNV6Q2M0S9XAC"].map(cookie_name);
        let [own, other] = [(); 2].map(|()| Token::generate(SESSION_PREFIX, random));
        let line = format!("{one}={}; {two}={}", own.text().expose(), other.text().expose());
        let sent = headers(&[("cookie", &line)]);
        assert_eq!(of_cookie(&one, &sent), Some(own.hash()));
        assert_eq!(of_cookie(&two, &sent), Some(other.hash()));
        let gone = no_cookie(&one, false);
        assert!(!gone.to_str().expect("text").contains(&two), "signing out here leaves the other session");
    }
}
