//! The faults of decoded values in words of JSON. The decoder speaks of types of the code, which a caller
//! does not know, and of lines and columns of a value that the caller sent as a part of a body.

use super::fields::shown_name;

/// Words with which the decoder names a type of the code.
const TYPES: [&str; 7] = ["struct ", "enum ", "tuple ", "unit ", "newtype ", "variant ", "internally "];

/// What is wrong with a value, as a text that follows the name of its field: `must be a text`.
pub(crate) fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    if let Some((name, rest)) = quoted(text, "unknown field `") {
        let (name, known) = (shown_name(name), listed(rest));
        return format!("has the unknown field {name}; its fields are: {known}");
    }
    if let Some((_, rest)) = quoted(text, "unknown variant `") {
        return format!("must be one of: {}", listed(rest));
    }
    if let Some((name, _)) = quoted(text, "missing field `") {
        return format!("must have the field {name}");
    }
    match text.rsplit_once(", expected ") {
        Some((wrong, expected)) if wrong.starts_with("invalid ") => format!("must be {}", kind(expected)),
        _ if text.starts_with("data did not match") => format!("must be {}", kind("enum ")),
        _ => text.to_owned(),
    }
}

/// The unknown field of an object, if that is the fault.
pub(crate) fn unknown_field(error: &serde_json::Error) -> Option<String> {
    quoted(&error.to_string(), "unknown field `").map(|(name, _)| name.to_owned())
}

/// The name after this beginning, up to its closing quote, and the rest.
fn quoted<'t>(text: &'t str, beginning: &str) -> Option<(&'t str, &'t str)> {
    text.strip_prefix(beginning)?.split_once('`')
}

/// The names in quotes of a text, divided by commas.
fn listed(text: &str) -> String {
    text.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(", ")
}

/// A kind of value of JSON, for what the decoder expected.
fn kind(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a string" | "a borrowed string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        _ if expected.starts_with("struct ") => "an object",
        _ if TYPES.iter().any(|word| expected.contains(word)) => "as GET /openapi.json describes it",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, de::DeserializeOwned};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bounds {
        count: u32,
        order: Option<Order>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        Strict,
        Phased,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Flag(bool),
    }

    fn fault<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
        in_words(&serde_json::from_value::<T>(value).expect_err("a fault"))
    }

    #[test]
    fn a_fault_is_told_without_a_word_of_the_decoder() {
        for (told, expected) in [
            (fault::<Bounds>(json!({ "count": "a, expected b" })), "must be a whole number of 0 or more"),
            (fault::<Bounds>(json!({ "count": -1 })), "must be a whole number of 0 or more"),
            (fault::<Bounds>(json!({})), "must have the field count"),
            (
                fault::<Bounds>(json!({ "count": 1, "cnt": 1 })),
                "has the unknown field cnt; its fields are: count, order",
            ),
            (fault::<Bounds>(json!({ "count": 1, "order": "x" })), "must be one of: strict, phased"),
            (fault::<Bounds>(json!(7)), "must be an object"),
            (fault::<Vec<u8>>(json!({})), "must be a list"),
            (fault::<bool>(json!("yes")), "must be true or false"),
            (fault::<Either>(json!("yes")), "must be as GET /openapi.json describes it"),
        ] {
            assert_eq!(told, expected);
        }
        let error = serde_json::from_str::<Bounds>("{\n\"count\": 1,\n\"order\": 7}").expect_err("a fault");
        assert!(!in_words(&error).contains("line"), "{}", in_words(&error));
    }
}
