//! Reading answers: at most 64 KiB are read, 1,024 characters are stored, and both forms of `Retry-After` are
//! understood.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header::RETRY_AFTER};
use reqwest::Response;
use tidings_actors::time::Timestamp;

/// Bytes of an answer's body that are read; then the connection is dropped.
const READ_MAX: usize = 64 * 1024;
/// The most characters of an excerpt.
pub(super) const EXCERPT_MAX: usize = 1024;
/// The bytes that are kept for the excerpt, because a character has at most four bytes.
const KEPT_MAX: usize = 4 * EXCERPT_MAX;

/// Reads a body up to a limit. Returns its beginning, and whether that is the whole body. `wanted`: bytes
/// that are read and kept; `None`: as many as an excerpt needs.
pub(super) async fn read(
    mut response: Response,
    wanted: Option<usize>,
) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let (kept_max, read_max) = wanted.map_or((KEPT_MAX, READ_MAX), |wanted| (wanted, wanted));
    let (mut kept, mut read) = (Vec::new(), 0_usize);
    while let Some(chunk) = response.chunk().await? {
        let room = kept_max - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        read = read.saturating_add(chunk.len());
        if read > read_max || (wanted.is_none() && read == read_max) {
            break;
        }
    }
    let is_whole = kept.len() == read;
    Ok((kept, is_whole))
}

/// The first 1,024 characters of a text, control and direction characters escaped.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    let mut excerpt = String::new();
    let mut length = 0;
    for character in String::from_utf8_lossy(bytes).chars() {
        let start = excerpt.len();
        push_escaped(&mut excerpt, character);
        length += excerpt[start..].chars().count();
        if length > EXCERPT_MAX {
            excerpt.truncate(start);
            break;
        }
    }
    excerpt
}

/// Adds a character; control characters and invisible ones are escaped.
pub(super) fn push_escaped(text: &mut String, character: char) {
    let unseen = character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        );
    if unseen {
        text.extend(character.escape_default());
    } else {
        text.push(character);
    }
}

/// The wait that `Retry-After` asks for, from now: the longest of several, with a fraction rounded up, so
/// that no request is early. An invalid value or a past moment counts as none.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter();
    values.filter_map(|value| asked_for(value.to_str().ok()?.trim(), now)).max()
}

fn asked_for(text: &str, now: Timestamp) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(whole) && is_number(fraction) {
        let begun = u64::from(fraction.bytes().any(|digit| digit != b'0'));
        // A number too large to parse is longer than any wait that is kept.
        return Some(Duration::from_secs(whole.parse().unwrap_or(u64::MAX).saturating_add(begun)));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let at = Timestamp(i64::try_from(at.as_millis()).ok()?);
    Some(at.since(now)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn retry_after_is_read_in_both_forms_and_garbage_is_ignored() {
        let now = Timestamp(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("1000000000000", Some(1_000_000_000_000)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:38 1994", Some(1)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1984 08:49:37 GMT", None),
            ("-5", None),
            ("1e12", None),
            ("1.5", Some(2)),
            ("0.001", Some(1)),
            ("3.000", Some(3)),
            ("1.", None),
            (".5", None),
            ("1.2.3", None),
            ("-1.5", None),
            ("+5", None),
            ("5 s", None),
            ("5, 7", None),
            ("Sun, 06 Nov 1994 08:49:38", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(252_618_189_022)),
            ("soon", None),
            ("", None),
            ("99999999999999999999999", Some(u64::MAX)),
            ("99999999999999999999999.9", Some(u64::MAX)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a value"));
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn of_several_retry_after_the_longest_counts() {
        let now = Timestamp(784_111_777_000);
        for (texts, seconds) in [
            (&["5", "120"][..], Some(120)),
            (&["120", "5"], Some(120)),
            (&["soon", "7", "-1"], Some(7)),
            (&["7", "Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
            (&["soon", "later"], None),
        ] {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(RETRY_AFTER, HeaderValue::from_str(text).expect("a value"));
            }
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{texts:?}");
        }
    }

    #[test]
    fn a_date_is_never_early_within_its_second() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:38 GMT"));
        for (millis, left) in [(784_111_777_001, 999), (784_111_777_999, 1), (784_111_776_500, 1_500)] {
            assert_eq!(retry_after(&headers, Timestamp(millis)), Some(Duration::from_millis(left)));
        }
    }

    #[test]
    fn an_excerpt_is_short_and_cannot_move_a_cursor() {
        assert_eq!(excerpt(b"ok\r\n\x1b[2J\x07\xff"), "ok\\r\\n\\u{1b}[2J\\u{7}\u{fffd}");
        assert_eq!(excerpt("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(excerpt("ä".repeat(5000).as_bytes()).chars().count(), EXCERPT_MAX);
        assert!(excerpt("\n".repeat(5000).as_bytes()).len() <= EXCERPT_MAX);
    }
}
