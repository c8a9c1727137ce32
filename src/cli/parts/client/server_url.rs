//! The address of a server, as people write it.

use std::borrow::Cow;

use url::Url;

use crate::egress::redaction::MARK;

/// How an address is written, for a text that resembles none.
const HOW: &str = "write http://HOST:PORT or https://HOST";

/// Reads the address of a server; the failure says what is missing and how the address is written.
pub(crate) fn server_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let parsed = Url::parse(text);
    if let Ok(url) = &parsed
        && text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://"))
        && ["http", "https"].contains(&url.scheme())
        && url.username().is_empty()
        && url.password().is_none()
    {
        return Ok(url.clone());
    }
    if text.contains('@') {
        return Err("the address holds a user or a password; give a token with --token-file".to_owned());
    }
    Err(match (text.split_once("://"), parsed) {
        (Some((scheme, rest)), Ok(_)) if has_host(rest) => {
            format!("{scheme} is no scheme of a server; write http://{rest} or https://{rest}")
        }
        (Some(_), Err(error)) => format!("{text} is no address of a server: {error}; {HOW}"),
        (None, _) if has_host(text) => format!("{text} has no scheme; write http://{text}"),
        _ => format!("{text:?} is no address of a server; {HOW}"),
    })
}

/// Whether a text would be an address with `http://` before it: the text begins with a host, and only a
/// number follows the host's colon. A text of another scheme, such as `javascript:alert(1)`, would not.
pub(crate) fn has_host(text: &str) -> bool {
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let begins = text.starts_with(|c: char| c.is_alphanumeric() || c == '[');
    if !begins || text.contains(":/") || text.contains('@') {
        return false;
    }
    let url = Url::parse(&format!("http://{text}"));
    url.is_ok_and(|url| url.host_str().is_some_and(|host| host.chars().all(is_of_host)))
}

/// A text for messages. What stands before the last `@` may be a user and a password, and is left out.
pub(crate) fn without_user(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("{MARK}@{host}").into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        server_url(text).expect_err(text)
    }

    #[test]
    fn an_address_without_a_scheme_is_told_with_the_scheme() {
        assert_eq!(refused("127.0.0.1:8080"), "127.0.0.1:8080 has no scheme; write http://127.0.0.1:8080");
        assert_eq!(refused("localhost:8080"), "localhost:8080 has no scheme; write http://localhost:8080");
        assert_eq!(refused("[::1]:1/a"), "[::1]:1/a has no scheme; write http://[::1]:1/a");
        assert_eq!(refused("ftp://a"), "ftp is no scheme of a server; write http://a or https://a");
        assert!(refused("http://").contains("is no address of a server"));
        assert_eq!(server_url("HTTP://a:1/b").expect("an address").as_str(), "http://a:1/b");
        assert_eq!(server_url(" http://a/@b ").expect("an address").as_str(), "http://a/@b");
    }

    #[test]
    fn a_text_that_resembles_no_address_is_not_told_with_a_scheme_before_it() {
        for text in [
            "",
            "javascript:alert(1)",
            "javascript://alert(1)",
            "mailto:me",
            "data:,x",
            "http:a",
            "http:/a:1",
            "https:/a",
            "/run/tidings.sock",
            "./in",
            "://a",
            "unix:///run/x",
            "two words",
            "a:b",
        ] {
            let said = refused(text);
            assert!(said.contains("is no address of a server"), "{text:?}: {said}");
            assert!(said.ends_with(HOW), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_user_and_a_password_are_never_repeated() {
        for text in
            ["https://me:hush@a", "me:hush@a", "ftp://me:hush@a", "https://me:hu/hush@a", "http://hush@"]
        {
            assert!(!refused(text).contains("hush"), "{text}: {}", refused(text));
            assert!(!without_user(text).contains("hush"), "{text}");
        }
        assert_eq!(without_user("http://a"), "http://a");
    }
}
