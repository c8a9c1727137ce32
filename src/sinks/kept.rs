//! The stored part of an answer, for people who look for the reason of a failure: its headers and the
//! beginning of its body, without credentials, bounded, and without control characters.
//!
//! An endpoint, and any proxy before it, is not trusted: its answer may contain session cookies, its own
//! tokens, or the key that signs its deliveries.

use http::{HeaderMap, HeaderName, header};
use tidings_actors::{model::secret::Secret, ports::KeptAnswer};
use tidings_egress::redaction::{MARK, redact};

use super::{answer::push_escaped, spelling};

/// Bytes of names and values of all headers together.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// The stored bytes of a body.
pub(super) const BODY_BYTES_MAX: usize = 4 << 10;
/// A cut body also loses its last word, if that has at most this many bytes: half of a credential cannot be
/// recognised.
const WORD_BYTES_MAX: usize = 512;
/// A shorter key is not searched for, because it would occur in ordinary words.
const KEY_BYTES_MIN: usize = 4;

/// Headers whose value is a credential, or can lead to one.
const SECRET_HEADERS: [HeaderName; 6] = [
    header::SET_COOKIE,
    header::COOKIE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
];
/// A header whose name contains one of these words counts as a credential, too.
const SECRET_WORDS: [&str; 7] = ["token", "secret", "api-key", "apikey", "password", "session", "signature"];

/// The stored headers of an answer: the first ones, as far as there is room.
pub(super) fn headers(headers: &HeaderMap, keys: &[Secret]) -> Vec<(String, String)> {
    let mut room = HEADER_BYTES_MAX;
    let mut kept = Vec::new();
    for (name, value) in headers {
        let value = if is_secret(name) {
            MARK.to_owned()
        } else {
            let bytes = value.as_bytes();
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(room)]);
            let text = if bytes.len() <= room { &text } else { without_last_word(&text) };
            escaped(&clean(text, keys), HEADER_BYTES_MAX)
        };
        let Some(left) = room.checked_sub(name.as_str().len() + value.len()) else { break };
        room = left;
        kept.push((name.as_str().to_owned(), value));
    }
    kept
}

fn is_secret(name: &HeaderName) -> bool {
    SECRET_HEADERS.contains(name)
        || name.as_str().contains("cookie")
        || SECRET_WORDS.iter().any(|word| name.as_str().contains(word))
}

/// The beginning of a body without credentials, not yet escaped. `is_whole`: the bytes are the whole body.
pub(super) fn body(bytes: &[u8], is_whole: bool, keys: &[Secret]) -> String {
    let is_whole = is_whole && bytes.len() <= BODY_BYTES_MAX;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_BYTES_MAX)]);
    clean(if is_whole { &text } else { without_last_word(&text) }, keys)
}

/// The stored headers and body together.
pub(super) fn answer(headers: Vec<(String, String)>, body: &str) -> KeptAnswer {
    KeptAnswer { headers, body: escaped(body, BODY_BYTES_MAX) }
}

/// A text without the keys, in any spelling, and without known forms of credentials.
pub(super) fn clean(text: &str, keys: &[Secret]) -> String {
    let mut text = text.to_owned();
    for key in keys.iter().map(Secret::expose).filter(|key| key.len() >= KEY_BYTES_MIN) {
        text = spelling::without(&text, key);
    }
    redact(&text)
}

fn without_last_word(text: &str) -> &str {
    let ends_word = |c: char| c.is_whitespace() || "\"'<>,;(){}[]&".contains(c);
    let word = text.len() - text.trim_end_matches(|c| !ends_word(c)).len();
    let mut end = text.len() - word.min(WORD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// At most this many bytes of a text, with control and direction characters escaped.
fn escaped(text: &str, bytes_max: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let start = shown.len();
        push_escaped(&mut shown, character);
        if shown.len() > bytes_max {
            shown.truncate(start);
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> Vec<Secret> {
        vec![Secret::new("the-signing-key".into()), Secret::new("sho".into())]
    }

    #[test]
    fn headers_are_kept_without_what_opens_doors() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("server", "nginx"),
            ("set-cookie", "session=planted"),
            ("set-cookie", "other=planted"),
            ("www-authenticate", "Digest opaque planted"),
            ("x-csrf-token", "planted"),
            ("x-debug", "Authorization: Bearer planted-token, key the-signing-key"),
            ("location", "https://user:planted@host/x?token=planted"),
        ] {
            given.append(name, HeaderValue::from_static(value));
        }
        given.append("x-bytes", HeaderValue::from_bytes(b"\xe4\tb").expect("a value"));
        let kept = headers(&given, &keys());
        let text = format!("{kept:?}");
        assert!(!text.contains("planted") && !text.contains("the-signing-key"), "{text}");
        let value =
            |name: &str| kept.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("server"), Some("nginx"));
        assert_eq!(value("x-debug"), Some("Authorization: Bearer [redacted], key [redacted]"));
        assert_eq!(value("x-bytes"), Some("\u{fffd}\\tb"));
        assert_eq!(kept.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    }

    #[test]
    fn all_headers_together_are_bounded() {
        let mut given = HeaderMap::new();
        for number in 0..100 {
            let name: HeaderName = format!("x-{number}").parse().expect("a name");
            given.append(name, HeaderValue::from_static("0123456789012345678901234567890123456789"));
        }
        let kept = headers(&given, &[]);
        let bytes: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= HEADER_BYTES_MAX && kept.len() > 80, "{} headers, {bytes} bytes", kept.len());
    }

    #[test]
    fn a_body_is_bounded_and_a_credential_at_its_cut_goes_as_a_whole() {
        let shown = |bytes: &[u8], is_whole| answer(Vec::new(), &body(bytes, is_whole, &keys())).body;
        assert_eq!(shown(b"no: token=abc\x1b", true), "no: token=[redacted]\\u{1b}");
        assert_eq!(shown(b"the-signing-key is sho", true), "[redacted] is sho");
        assert_eq!(shown(b"all of it", true), "all of it");
        let long = [vec![b'x'; BODY_BYTES_MAX - 10], b" https://user:pass@host".to_vec()].concat();
        assert_eq!(shown(&long, true), format!("{} ", "x".repeat(BODY_BYTES_MAX - 10)), "cut in the address");
        let cut = [b"see ".to_vec(), b"the-signing-k".to_vec()].concat();
        assert_eq!(shown(&cut, false), "see ", "more was sent than was read");
        assert_eq!(shown(&vec![b'x'; 9000], false).len(), BODY_BYTES_MAX - WORD_BYTES_MAX);
        assert!(shown("\u{e4}".repeat(9000).as_bytes(), false).len() <= BODY_BYTES_MAX);
        assert!(shown(&[0; 4000], true).len() <= BODY_BYTES_MAX, "escapes count");
    }
}
