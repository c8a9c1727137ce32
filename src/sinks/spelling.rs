//! Finds a secret in a text in any encoding. An endpoint may repeat a secret in its own way: unchanged, in a
//! JSON string, in an address, in an HTML page, in base64 or in hexadecimal digits. All of these are
//! searched, and mixtures of the first four too.
//!
//! Both the text and the secret may be chosen to make the search expensive (endless backslashes before
//! backslashes). So the work is counted, and a text that needs too much is left out as a whole.

use std::collections::BTreeSet;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use tidings_egress::redaction::MARK;

/// A shorter encoding is not searched for, because it would occur by chance.
const ENCODED_BYTES_MIN: usize = 8;

/// The most backslashes before a character: those of a string nested four times.
const STROKES_MAX: usize = 16;
/// The most characters that are compared for one text: some fifty times the need of a normal text.
const WORK_MAX: u32 = 200_000;

/// The text without this secret, which is not empty.
pub(super) fn without(text: &str, secret: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut work) = (text, WORK_MAX);
    while let Some(first) = rest.chars().next() {
        let found = length_of(rest, secret, &mut work);
        if work == 0 {
            return MARK.to_owned();
        }
        if let Some(length) = found {
            clean.push_str(MARK);
            rest = &rest[length..];
        } else {
            clean.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    for encoded in encodings(secret) {
        if clean.contains(&encoded) {
            clean = clean.replace(&encoded, MARK);
        }
    }
    clean
}

/// The longest come first: an encoding with padding before the one without.
fn encodings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut encodings: Vec<String> = [HEXLOWER, HEXUPPER, BASE64, BASE64URL, BASE64_NOPAD, BASE64URL_NOPAD]
        .map(|form| form.encode(bytes))
        .into();
    encodings.retain(|encoded| encoded.len() >= ENCODED_BYTES_MIN);
    encodings
}

/// How many bytes of the text's beginning spell the secret; the longest reading where there are several.
/// Ends where no work is left.
fn length_of(text: &str, secret: &str, work: &mut u32) -> Option<usize> {
    // A character may be spelt in several ways, and so end in several places.
    let mut ends = BTreeSet::from([0]);
    for wanted in secret.chars() {
        let mut next = BTreeSet::new();
        for end in ends {
            *work = work.saturating_sub(1);
            if *work == 0 {
                return None;
            }
            let mut add = |length: usize| next.extend([end + length]);
            spellings(&text[end..], wanted, &mut add);
        }
        if next.is_empty() {
            return None;
        }
        ends = next;
    }
    ends.last().copied()
}

/// The lengths of all spellings of a character that the text begins with.
fn spellings(text: &str, wanted: char, add: &mut dyn FnMut(usize)) {
    if text.starts_with(wanted) {
        add(wanted.len_utf8());
    }
    match text.as_bytes().first() {
        Some(b'\\') => escaped(text, wanted, add),
        Some(b'%') => percent_encoded(text, wanted, add),
        Some(b'&') => entity(text, wanted, add),
        Some(b'+') if wanted == ' ' => add(1),
        _ => {}
    }
}

/// As in JSON; in a string within a string each character has several backslashes.
fn escaped(text: &str, wanted: char, add: &mut dyn FnMut(usize)) {
    let strokes = text.bytes().take(STROKES_MAX).take_while(|byte| *byte == b'\\').count();
    if wanted == '\\' {
        (2..=strokes).for_each(&mut *add);
    }
    let rest = &text[strokes..];
    let letter = match wanted {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        other => other,
    };
    if rest.starts_with(letter) {
        add(strokes + letter.len_utf8());
    }
    let mut units = [0; 2];
    let mut length = strokes;
    for (index, unit) in wanted.encode_utf16(&mut units).iter().enumerate() {
        let mut at = text.get(length..).unwrap_or_default();
        if index > 0 {
            let trimmed = at.trim_start_matches('\\');
            length += at.len() - trimmed.len();
            at = trimmed;
        }
        let digits = at.strip_prefix('u').and_then(|digits| digits.get(..4));
        if digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) != Some(*unit) {
            return;
        }
        length += 5;
    }
    add(length);
}

/// Percent-encoded, as in an address.
fn percent_encoded(text: &str, wanted: char, add: &mut dyn FnMut(usize)) {
    let mut bytes = [0; 4];
    let mut length = 0;
    for byte in wanted.encode_utf8(&mut bytes).bytes() {
        let digits =
            text.get(length..).and_then(|rest| rest.strip_prefix('%')).and_then(|rest| rest.get(..2));
        if digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) != Some(byte) {
            return;
        }
        length += 3;
    }
    add(length);
}

/// As an entity in an HTML page.
fn entity(text: &str, wanted: char, add: &mut dyn FnMut(usize)) {
    let Some(end) = text.bytes().take(12).position(|byte| byte == b';') else { return };
    let name = &text[1..end];
    let found = match name {
        "quot" => Some('"'),
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "apos" => Some('\''),
        _ => {
            let hexadecimal = name.strip_prefix("#x").or_else(|| name.strip_prefix("#X"));
            let number = match hexadecimal {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => name.strip_prefix('#').and_then(|digits| digits.parse().ok()),
            };
            number.and_then(char::from_u32)
        }
    };
    if found == Some(wanted) {
        add(end + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        for (secret, text) in [
            ("pa\"ss\\word", "pa\"ss\\word"),
            ("pa\"ss\\word", r#"pa\"ss\\word"#),
            ("pa\"ss\\word", r#"pa\\\"ss\\\\word"#),
            ("pa\"ss\\word", r"pa\u0022ss\u005Cword"),
            ("pa\"ss\\word", "pa%22ss%5cword"),
            ("pa\"ss\\word", "pa&quot;ss&#92;word"),
            ("pa/ss+wo rd", r"pa\/ss%2Bwo+rd"),
            ("pa/ss+wo rd", "%70%61%2F%73%73%2b%77%6F%20%72%64"),
            ("<käse&>", "&lt;k%C3%A4se&amp;&#x3e;"),
            ("<käse&>", r"\u003ck\u00e4se\u0026\u003e"),
            ("hidden 🗝", r"hidden \ud83d\udddd"),
            ("a-secret", "YS1zZWNyZXQ="),
            ("a-secret", "YS1zZWNyZXQ"),
            ("a-secret", "612d736563726574"),
            ("a-secret>>>", "YS1zZWNyZXQ-Pj4"),
        ] {
            let shown = without(&format!("before {text} after {text}"), secret);
            assert_eq!(shown, "before [redacted] after [redacted]", "{secret} as {text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in
            ["", "%", "%zz \\ \\u12 &; &nothing; &#x110000; a-secre", "A-SECRET", "k%C3%A4se \u{1f5dd}"]
        {
            assert_eq!(without(text, "a-secret"), text);
        }
    }

    #[test]
    fn what_is_made_to_be_dear_is_left_out_and_takes_no_time() {
        let strokes = "\\".repeat(4_096);
        let key = format!("{}x", "\\".repeat(499));
        assert_eq!(without(&strokes, &key), MARK);
        let long = "\\".repeat(100_000);
        assert_eq!(without(&long, "a-secret"), long);
    }

    proptest! {
        #[test]
        fn no_spelling_by_a_library_is_missed(secret in "[ -~äß\u{1f5dd}]{4,24}") {
            let json = serde_json::to_string(&secret).expect("a text");
            let twice = serde_json::to_string(&json).expect("a text");
            let address = percent_encoding::utf8_percent_encode(&secret, percent_encoding::NON_ALPHANUMERIC);
            let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let (json, twice) = (json[1..json.len() - 1].to_owned(), twice[3..twice.len() - 3].to_owned());
            for spelt in [json, twice, address.to_string(), form] {
                let shown = without(&format!("<<{spelt}>>"), &secret);
                prop_assert!(!shown.contains(&spelt), "{} as {}: {}", secret, spelt, shown);
            }
        }
    }
}
