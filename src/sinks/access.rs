//! The access data of an app in each request: its header fields and credentials; and removing them from
//! answers that repeat them.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use tidings_actors::{
    model::secret::Secret,
    ports::{EndpointAccess, EndpointAuth},
};
use zeroize::Zeroizing;

/// The text that replaces a secret.
const MARK: &[u8] = b"[redacted]";
/// A shorter secret could be a part of any word.
const SECRET_BYTES_MIN: usize = 4;
/// The beginning of a secret at the end of an answer that was cut off, in bytes.
const PIECE_BYTES_MIN: usize = 6;

/// A value that is not valid in a header field. Values are checked when they are given, so Tidings did not
/// write such a row.
#[derive(Debug)]
pub(super) struct Unsendable;

/// Puts everything that the app wants into the header of a request.
pub(super) fn put(
    headers: &mut HeaderMap,
    access: &EndpointAccess,
    token: Option<&Secret>,
) -> Result<(), Unsendable> {
    for (name, value) in &access.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsendable)?;
        headers.append(name, sensitive(value.expose())?);
    }
    let authorization = match (&access.auth, token) {
        (Some(EndpointAuth::Basic { username, password }), _) => {
            Some(Zeroizing::new(format!("Basic {}", *basic(username, password.expose()))))
        }
        (Some(EndpointAuth::Bearer { token }), _) | (Some(EndpointAuth::Oauth2(_)), Some(token)) => {
            Some(Zeroizing::new(format!("Bearer {}", token.expose())))
        }
        (Some(EndpointAuth::Oauth2(_)), None) | (None, _) => None,
    };
    if let Some(value) = authorization {
        headers.append(AUTHORIZATION, sensitive(&value)?);
    }
    Ok(())
}

/// A header value that is marked as sensitive, so that logs do not show it.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, Unsendable> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Unsendable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// User and password as RFC 7617 joins them.
pub(super) fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let joined = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(BASE64_STANDARD.encode(joined.as_bytes()))
}

/// The secrets of a request, which an answer may repeat. The longest come first, because a shorter one may be
/// part of a longer one.
pub(super) fn secrets(access: &EndpointAccess, token: Option<&Secret>) -> Vec<Secret> {
    let mut needles: Vec<Secret> = Vec::new();
    let mut add = |text: &str| needles.push(Secret::new(text.to_owned()));
    access.headers.values().for_each(|value| add(value.expose()));
    token.into_iter().for_each(|token| add(token.expose()));
    match &access.auth {
        Some(EndpointAuth::Basic { username, password }) => {
            add(password.expose());
            add(&basic(username, password.expose()));
        }
        Some(EndpointAuth::Bearer { token }) => add(token.expose()),
        Some(EndpointAuth::Oauth2(client)) => add(client.client_secret.expose()),
        None => {}
    }
    needles.retain(|needle| needle.expose().len() >= SECRET_BYTES_MIN);
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.expose().len()));
    needles
}

/// An answer without the secrets of the request, because the answer is stored and shown to people. `secrets`:
/// the longest first.
pub(super) fn scrubbed(answer: Vec<u8>, secrets: &[Secret]) -> Vec<u8> {
    let needles = secrets.iter().map(|secret| secret.expose().as_bytes());
    let needles = needles.filter(|needle| needle.len() >= SECRET_BYTES_MIN);
    needles.fold(answer, without)
}

fn without(answer: Vec<u8>, needle: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(answer.len());
    let mut rest = &answer[..];
    while let Some(at) = rest.windows(needle.len()).position(|window| window == needle) {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(MARK);
        rest = &rest[at + needle.len()..];
    }
    let mut lengths = (PIECE_BYTES_MIN..needle.len()).rev();
    if let Some(length) = lengths.find(|length| rest.ends_with(&needle[..*length])) {
        clean.extend_from_slice(&rest[..rest.len() - length]);
        clean.extend_from_slice(MARK);
    } else {
        clean.extend_from_slice(rest);
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_answer_that_repeats_what_was_sent_is_kept_without_it() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let headers = BTreeMap::from([
            ("x-key".to_owned(), secret("header-secret")),
            ("x-long".to_owned(), secret("header-secret-and-more")),
            ("x-version".to_owned(), secret("2")),
        ]);
        let auth = Some(EndpointAuth::Basic { username: "user".into(), password: secret("pass-word") });
        let access = EndpointAccess { headers, auth, tls: None };
        let token = secret("the-token");
        let clean = |text: &str| {
            String::from_utf8(scrubbed(text.as_bytes().to_vec(), &secrets(&access, Some(&token))))
                .expect("text")
        };
        for (answer, kept) in [
            ("all is well: 2", "all is well: 2"),
            ("header-secret header-secret-and-more", "[redacted] [redacted]"),
            ("pass-word dXNlcjpwYXNzLXdvcmQ= the-token", "[redacted] [redacted] [redacted]"),
            ("cut off: pass-wor", "cut off: [redacted]"),
            ("cut off: pass", "cut off: pass"),
            ("", ""),
        ] {
            assert_eq!(clean(answer), kept);
        }
        let bearer = EndpointAccess {
            auth: Some(EndpointAuth::Bearer { token: secret("bear-er") }),
            ..EndpointAccess::default()
        };
        assert_eq!(scrubbed(b"Bearer bear-er".to_vec(), &secrets(&bearer, None)), b"Bearer [redacted]");
    }
}
