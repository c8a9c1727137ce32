//! The guide's page of routes, made from the OpenAPI document: it is never older than the code.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use crate::http::{document, table};

fn page(document: &Value) -> String {
    let mut page = String::from(
        "# API\n\nMade from the OpenAPI document (`GET /openapi.json`, `tidings openapi`); \
         `UPDATE_EXPECT=1 cargo test --lib guide` makes it anew.\n\n\
         Errors are RFC 9457 problems (`application/problem+json`). Lists come in pages: `next_cursor` of one \
         is `cursor` of the next. `Idempotency-Key` works on every POST. Who may call a route is its token: that of \
         an app, or that of staff with the role that is named or a higher one (viewer, operator, admin).\n",
    );
    let mut by_tag: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let tag = operation["tags"][0].as_str().unwrap_or("other");
            by_tag.entry(tag).or_default().push(row(path, method, operation));
        }
    }
    for (tag, rows) in by_tag {
        write!(page, "\n## {tag}\n\n| route | who | does | asks | answers |\n|---|---|---|---|---|\n")
            .expect("a String takes all");
        page.extend(rows);
    }
    page
}

fn row(path: &str, method: &str, operation: &Value) -> String {
    let who = match (&operation["x-role"], &operation["security"][0]) {
        (Value::String(role), _) => role.clone(),
        (_, security) if security["app"].is_array() => "app".to_owned(),
        _ => "anyone".to_owned(),
    };
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let asks = parameters.filter(|parameter| parameter["in"] == "query");
    let asks: Vec<String> =
        asks.map(|parameter| format!("`{}`", parameter["name"].as_str().unwrap_or_default())).collect();
    let answers = operation["responses"].as_object().into_iter().flatten();
    let answers: Vec<&str> =
        answers.map(|(status, _)| status.as_str()).filter(|status| !status.ends_with("XX")).collect();
    let summary = operation["summary"].as_str().unwrap_or_default().replace('|', "\\|").replace('\n', " ");
    format!(
        "| `{} {path}` | {who} | {summary} | {} | {} |\n",
        method.to_uppercase(),
        asks.join(" "),
        answers.join(" ")
    )
}

#[test]
fn the_guide_lists_every_route() {
    let document = serde_json::to_value(document::document(table())).expect("JSON");
    expect_test::expect_file!["../../../docs/api.md"].assert_eq(&page(&document));
}
