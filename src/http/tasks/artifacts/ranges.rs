//! One range of bytes of an answer (RFC 9110, 14). A request for several ranges, or for one that is not
//! understood, is answered with everything, which the standard allows.

use std::ops::Range;

use http::{HeaderMap, header};

/// The bytes that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All bytes of the answer.
    Whole,
    /// Only the bytes of this range.
    Part(Range<u64>),
    /// None that are there.
    Nothing,
}

/// The bytes of an answer of `length` bytes with this tag that a request asks for. `If-Range` with another
/// tag asks for everything.
pub(super) fn wanted(headers: &HeaderMap, length: u64, tag: &str) -> Wanted {
    let mut sent = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (sent.next(), sent.next()) else { return Wanted::Whole };
    if headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        return Wanted::Whole;
    }
    range.to_str().ok().and_then(|text| of_text(text, length)).unwrap_or(Wanted::Whole)
}

/// `None`: it is not one range.
fn of_text(text: &str, length: u64) -> Option<Wanted> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(length)),
        (Some(first), None) if last.is_empty() => (first, length),
        (None, Some(count)) if first.is_empty() => (length.saturating_sub(count), length),
        _ => return None,
    };
    Some(if start >= end { Wanted::Nothing } else { Wanted::Part(start..end) })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(range: &str, if_range: Option<&str>) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).expect("text"));
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(tag).expect("text"));
        }
        wanted(&headers, 10, "\"tag\"")
    }

    #[test]
    fn one_range_is_a_part_and_everything_else_the_whole() {
        use Wanted::{Nothing, Part, Whole};
        for (range, means) in [
            ("bytes=0-3", Part(0..4)),
            ("bytes=4-", Part(4..10)),
            ("bytes=-4", Part(6..10)),
            ("bytes=-400", Part(0..10)),
            ("Bytes=9-99999999999999999999999", Part(9..10)),
            ("bytes=10-", Nothing),
            ("bytes=10-20", Nothing),
            ("bytes=-0", Nothing),
            ("bytes=4-3", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("lines=0-3", Whole),
            ("0-3", Whole),
        ] {
            assert_eq!(of(range, None), means, "{range}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 10, "\"tag\""), Whole);
        assert_eq!(of("bytes=0-3", Some("\"tag\"")), Part(0..4));
        assert_eq!(of("bytes=0-3", Some("\"other\"")), Whole, "it was replaced meanwhile");
        assert_eq!(of("bytes=0-3", Some("W/\"tag\"")), Whole, "a weak tag proves nothing");
    }
}
