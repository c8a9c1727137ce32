//! Batches on the wire: several bodies in one request, and the result of each in the answer.
//!
//! The answer is `{"results":[{"id","outcome":"accepted|refused|retry","reason"?}]}`. Only ids that were sent
//! count: others are ignored, so no answer can acknowledge a change that the request did not contain. A 2xx
//! whose body is an object without `results`, or a text that names no change, accepts all. A change that
//! `results` does not name, names twice with different outcomes, or names with an unknown outcome, is tried
//! again. All changes are tried again if `results` is no list, or if the answer begins as an object but is
//! malformed, names changes outside of an object, is not UTF-8 (such as compressed), or is longer than the
//! limit.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use tidings_actors::{model::round::DeliveryId, ports::ItemOutcome};
use tidings_egress::redaction::redact;
use tidings_entity::kind::PayloadFormat;

use crate::answer::excerpt;

/// A byte order mark, which some servers write before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes that are read of any answer to a batch.
const ANSWER_BYTES: usize = 64 << 10;
/// Bytes that are read beyond for each change.
const ANSWER_BYTES_EACH: usize = 1 << 10;

/// The most bytes that are read of the answer to a batch of `changes` changes.
pub(super) fn answer_max(changes: usize) -> usize {
    ANSWER_BYTES.saturating_add(changes.saturating_mul(ANSWER_BYTES_EACH))
}

/// The body of a batch: the single bodies word for word.
pub(super) fn render(format: PayloadFormat, id: &DeliveryId, bodies: &[Bytes]) -> Bytes {
    let (before, after) = match format {
        PayloadFormat::Docora => (format!(r#"{{"batch":{{"id":"{id}"}},"changes":["#), "]}"),
        PayloadFormat::Cloudevents => ("[".to_owned(), "]"),
    };
    let size = before.len() + after.len() + bodies.iter().map(|body| body.len() + 1).sum::<usize>();
    let mut batch = Vec::with_capacity(size);
    batch.extend_from_slice(before.as_bytes());
    for (index, body) in bodies.iter().enumerate() {
        if index > 0 {
            batch.push(b',');
        }
        batch.extend_from_slice(body);
    }
    batch.extend_from_slice(after.as_bytes());
    batch.into()
}

/// The result of each sent change in the answer to an acknowledged batch.
pub(super) fn words(answer: &[u8], is_whole: bool, sent: &[DeliveryId]) -> Vec<ItemOutcome> {
    let all = |word: ItemOutcome| vec![word; sent.len()];
    let again = |why: &str| all(ItemOutcome::Retry(why.to_owned()));
    if !is_whole {
        return again("the answer is longer than is read");
    }
    let answer = answer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(answer);
    let object = match serde_json::from_slice::<Value>(answer) {
        Ok(Value::Object(object)) => object,
        Err(_) if answer.trim_ascii_start().starts_with(b"{") => return again("the answer is no JSON"),
        Ok(_) | Err(_) => {
            return match std::str::from_utf8(answer) {
                Ok(text) if text.contains('\0') => again("the answer is no text in UTF-8"),
                Ok(text) if sent.iter().any(|id| text.contains(id.as_str())) => {
                    again("the answer names changes and is no JSON object with results")
                }
                Ok(_) => all(ItemOutcome::Accepted),
                Err(_) => again("the answer is no text in UTF-8"),
            };
        }
    };
    match object.get("results") {
        None | Some(Value::Null) => all(ItemOutcome::Accepted),
        Some(Value::Array(results)) => of_each(results, sent),
        Some(_) => again("results is no list"),
    }
}

fn of_each(results: &[Value], sent: &[DeliveryId]) -> Vec<ItemOutcome> {
    let mut said: HashMap<&str, ItemOutcome> = HashMap::new();
    for result in results {
        let Some(id) = result["id"].as_str() else { continue };
        let reason = || excerpt(redact(result["reason"].as_str().unwrap_or_default()).as_bytes());
        let word = match result["outcome"].as_str() {
            Some("accepted") => ItemOutcome::Accepted,
            Some("refused") => ItemOutcome::Refused(reason()),
            Some("retry") => ItemOutcome::Retry(reason()),
            _ => ItemOutcome::Retry("its outcome is none of accepted, refused and retry".to_owned()),
        };
        let contradicts = said
            .get(id)
            .is_some_and(|before| std::mem::discriminant(before) != std::mem::discriminant(&word));
        let word =
            if contradicts { ItemOutcome::Retry("the answer contradicts itself".to_owned()) } else { word };
        said.insert(id, word);
    }
    let unsaid = || ItemOutcome::Retry("the answer does not name it".to_owned());
    sent.iter().map(|id| said.remove(id.as_str()).unwrap_or_else(unsaid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> Vec<DeliveryId> {
        ["dlv_a", "dlv_b", "dlv_c"].map(|id| DeliveryId::from_stored(id.to_owned())).to_vec()
    }

    /// `a`, `f` or `r` for each of the three.
    fn said(answer: &str) -> String {
        let letter = |word: &ItemOutcome| match word {
            ItemOutcome::Accepted => 'a',
            ItemOutcome::Refused(_) => 'f',
            ItemOutcome::Retry(_) => 'r',
            ItemOutcome::Untaken => 'u',
        };
        words(answer.as_bytes(), true, &ids()).iter().map(letter).collect()
    }

    #[test]
    fn every_answer_has_its_meaning() {
        for (answer, expected) in [
            ("", "aaa"),
            ("OK", "aaa"),
            ("<html>", "aaa"),
            ("null", "aaa"),
            ("[]", "aaa"),
            ("{}", "aaa"),
            (r#"{"ok":true}"#, "aaa"),
            (r#"{"results":null}"#, "aaa"),
            (r#"{"results":[]}"#, "rrr"),
            ("\u{feff}{\"results\":[{\"id\":\"dlv_b\",\"outcome\":\"refused\"}]}", "rfr"),
            (r#"[{"id":"dlv_a","outcome":"refused"}]"#, "rrr"),
            (r#")]}',{"results":[{"id":"dlv_a","outcome":"refused"}]}"#, "rrr"),
            (r#"<b>Warning</b> {"results":[{"id":"dlv_c","outcome":"refused"}]}"#, "rrr"),
            ("{\0\"\0", "rrr"),
            ("O\0K\0", "rrr"),
            (r#"{"results":"all"}"#, "rrr"),
            (r#"{"results":{"dlv_a":"accepted"}}"#, "rrr"),
            (r#" {"results":[{"id":"dlv_a","outc"#, "rrr"),
            (r#"{"results":[{"id":"dlv_b","outcome":"accepted"}]}"#, "rar"),
            (r#"{"results":[{"id":"dlv_b","outcome":"refused"},{"id":"dlv_c","outcome":"retry"}]}"#, "rfr"),
            (r#"{"results":[{"id":"dlv_x","outcome":"accepted"},{"outcome":"accepted"},7,null]}"#, "rrr"),
            (r#"{"results":[{"id":"dlv_a","outcome":"ACCEPTED"},{"id":"dlv_b","outcome":1}]}"#, "rrr"),
            (r#"{"results":[{"id":"dlv_a","outcome":"accepted"},{"id":"dlv_a","outcome":"retry"}]}"#, "rrr"),
            (
                r#"{"results":[{"id":"dlv_a","outcome":"accepted"},{"id":"dlv_a","outcome":"accepted"}]}"#,
                "arr",
            ),
        ] {
            assert_eq!(said(answer), expected, "{answer}");
        }
        let zipped = words(b"\x1f\x8b\x08\x00\xff", true, &ids());
        assert!(zipped.iter().all(|word| matches!(word, ItemOutcome::Retry(_))), "{zipped:?}");
        let cut = words(br#"{"results":"#, false, &ids());
        assert!(cut.iter().all(|word| matches!(word, ItemOutcome::Retry(_))), "{cut:?}");
    }

    #[test]
    fn a_reason_is_kept_short_and_harmless() {
        let answer = format!(
            r#"{{"results":[{{"id":"dlv_a","outcome":"refused","reason":"\u001b{}"}}]}}"#,
            "x".repeat(5_000)
        );
        let words = words(answer.as_bytes(), true, &ids());
        let ItemOutcome::Refused(reason) = &words[0] else { panic!("refused") };
        assert!(reason.starts_with("\\u{1b}x") && reason.len() <= 1_024, "{}", reason.len());
    }

    #[test]
    fn a_batch_holds_the_single_bodies_word_for_word() {
        let id = DeliveryId::of_batch(&ids());
        let bodies = [Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{\"b\":2}")];
        let docora = render(PayloadFormat::Docora, &id, &bodies);
        assert_eq!(docora, format!(r#"{{"batch":{{"id":"{id}"}},"changes":[{{"a":1}},{{"b":2}}]}}"#));
        assert_eq!(&render(PayloadFormat::Cloudevents, &id, &bodies)[..], br#"[{"a":1},{"b":2}]"#);
    }

    #[test]
    fn a_batch_is_named_by_all_of_its_changes() {
        let ids = ids();
        let whole = DeliveryId::of_batch(&ids);
        assert_eq!(whole, DeliveryId::of_batch(&ids));
        assert_ne!(whole, DeliveryId::of_batch([&ids[0], &ids[2]]), "the same ends, another batch");
    }

    proptest! {
        #[test]
        fn every_answer_to_a_batch_gives_one_word_for_each_change_that_was_sent(
            answer in proptest::collection::vec(any::<u8>(), 0..200), is_whole in any::<bool>()
        ) {
            prop_assert_eq!(words(&answer, is_whole, &ids()).len(), 3);
        }
    }
}
