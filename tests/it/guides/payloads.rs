//! docs/payloads.md: each example is what the real sender sent, each table is made of the OpenAPI
//! document, and the two are compared field by field.
//!
//! In the page `<!-- made: example NAME -->` and `<!-- made: fields SCHEMA -->` begin a part that is made
//! here, `<!-- end -->` ends it. `UPDATE_EXPECT=1` writes these parts again.

mod examples;
mod fields;

use std::collections::BTreeSet;

use serde_json::Value;
use tidings::http::{document::document, table};

use examples::{Example, examples};
use fields::{Seen, fits, rows};

/// What begins a part that is made, and what ends it.
const MADE: [&str; 2] = ["<!-- made: ", "<!-- end -->"];
/// Characters of a text that an example shows.
const SHOWN: usize = 110;

fn openapi() -> Value {
    serde_json::to_value(document(table())).expect("JSON")
}

/// The page with the parts in it that are made.
fn refilled(page: &str, made: &mut dyn FnMut(&str) -> String) -> String {
    let (mut fresh, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once(MADE[0]) {
        let (name, after) = after.split_once(" -->").expect("the end of the name");
        let (_, after) = after.split_once(MADE[1]).expect("the end of the part");
        fresh.push_str(&format!("{before}{}{name} -->\n{}{}", MADE[0], made(name), MADE[1]));
        rest = after;
    }
    fresh + rest
}

/// JSON in lines, with long texts cut.
fn pretty(json: &str) -> String {
    let (mut text, mut depth, mut characters) = (String::new(), 0_usize, json.chars().peekable());
    let line = |text: &mut String, depth: usize| text.push_str(&format!("\n{}", "  ".repeat(depth)));
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let mut word = String::new();
                while let Some(next) = characters.next_if(|next| *next != '"') {
                    word.push(next);
                    if next == '\\' {
                        word.extend(characters.next());
                    }
                }
                characters.next();
                let cut: String = word.chars().take(SHOWN).collect();
                let mark = if cut.len() < word.len() { "…" } else { "" };
                text.push_str(&format!("\"{cut}{mark}\""));
            }
            '{' | '[' => {
                text.push(character);
                if !characters.peek().is_some_and(|next| matches!(next, '}' | ']')) {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                if !text.ends_with(['{', '[']) {
                    depth -= 1;
                    line(&mut text, depth);
                }
                text.push(character);
            }
            ',' => {
                text.push(',');
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            other => text.push(other),
        }
    }
    text
}

fn shown(example: &Example) -> String {
    let body = pretty(std::str::from_utf8(&example.body).expect("JSON is UTF-8"));
    if example.head.is_empty() {
        return format!("```json\n{body}\n```\n");
    }
    let headers = example.headers.iter().filter(|(name, _)| {
        example.name == "create" || matches!(name.as_str(), "content-type" | "webhook-id")
    });
    let headers: String = headers.map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("```http\n{}\n{headers}\n{body}\n```\n", example.head)
}

#[test]
fn the_page_of_payloads_shows_what_is_sent() {
    let (document, examples) = (openapi(), examples());
    let mut unused: BTreeSet<&str> = examples.iter().map(|example| example.name).collect();
    let page = super::page("payloads.md");
    let fresh = refilled(&page, &mut |name| match name.split_once(' ').expect("two words") {
        ("example", name) => {
            unused.remove(name);
            let example = examples.iter().find(|example| example.name == name);
            shown(example.unwrap_or_else(|| panic!("there is no example {name}")))
        }
        ("fields", name) => rows(&document, name),
        (other, _) => panic!("{other} is not made"),
    });
    expect_test::expect_file!["../../../docs/payloads.md"].assert_eq(&fresh);
    assert_eq!(unused, BTreeSet::new(), "the page lacks these examples");
}

#[test]
fn what_is_sent_has_the_fields_that_are_documented_and_no_others() {
    let (document, mut seen) = (openapi(), Seen::new());
    for example in examples() {
        let body: Value = serde_json::from_slice(&example.body).expect("JSON");
        if let Err(fault) = fits(&document, example.schema, &body, &mut seen) {
            panic!("{}: {fault}", example.name);
        }
    }
    let documented = fields::documented(&document);
    let unseen: Vec<_> = documented.difference(&seen).collect();
    assert!(unseen.is_empty(), "no example has these fields: {unseen:?}");
}

#[test]
fn what_is_sent_has_the_headers_that_are_documented_and_no_others() {
    let document = openapi();
    let own = ["content-type", "user-agent"];
    for example in examples().iter().filter(|example| !example.headers.is_empty()) {
        let action = example.head.trim_start_matches("POST /");
        let parameters = &document["webhooks"][action]["post"]["parameters"];
        let documented: BTreeSet<&str> = parameters
            .as_array()
            .expect(action)
            .iter()
            .filter_map(|header| {
                // Traces are exported by no story of this page.
                header["required"].as_bool()?.then(|| header["name"].as_str())?
            })
            .collect();
        let sent: BTreeSet<&str> = example.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected: BTreeSet<&str> = documented.into_iter().chain(own).collect();
        assert_eq!(sent, expected, "{}", example.name);
    }
}

#[test]
fn a_body_that_differs_from_its_documentation_is_found() {
    let document = openapi();
    let example = examples().into_iter().find(|example| example.name == "odd").expect("an example");
    let body: Value = serde_json::from_slice(&example.body).expect("JSON");
    let fault = |edit: &dyn Fn(&mut Value)| {
        let mut body = body.clone();
        edit(&mut body);
        fits(&document, "ChangePayload", &body, &mut Seen::new()).err().unwrap_or_default()
    };
    assert_eq!(fault(&|_| {}), "");
    assert!(fault(&|body| body["file"]["nope"] = 1.into()).contains("PayloadFile.nope is not documented"));
    assert!(fault(&|body| body["event"]["round"] = "7".into()).contains("PayloadEvent.round: "));
    assert!(fault(&|body| body["file"]["mode"] = Value::Null).contains("PayloadFile.mode: null"));
    let without =
        |body: &mut Value| drop(body["event"].as_object_mut().and_then(|event| event.remove("total")));
    assert!(fault(&without).contains("PayloadEvent.total is missing"));
}
