//! The guide's page of routes, made from the OpenAPI document: it is never older than the code.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use crate::http::{document, table};

fn page(document: &Value) -> String {
    let mut page = String::from(
        "# API\n\nMade from the OpenAPI document (`GET /openapi.json`, `tidings openapi`); \
         `UPDATE_EXPECT=1 cargo test --lib guide` makes it again.\n\n\
         Errors are RFC 9457 problems (`application/problem+json`). Lists come in pages: `next_cursor` of one \
         is `cursor` of the next. `Idempotency-Key` works on every POST but those of workers and batches of tasks. A request may bring an `X-Request-Id` of up to 128 letters, digits and \
         `-_.:/+=`; the answer and the log name it. Fields of a body in bold are required; numbers \
         behind a field say how many characters it may have. Who may call a route is \
         its token: that of \
         an app, or that of staff with the role that is named or a higher one (viewer, operator, admin). The permission \
         behind it is what roles of the settings and narrowed tokens need ([permissions](permissions.md)).\n",
    );
    let mut by_tag: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let tag = operation["tags"][0].as_str().unwrap_or("other");
            by_tag.entry(tag).or_default().push(row(document, path, method, operation));
        }
    }
    for (tag, rows) in by_tag {
        write!(
            page,
            "\n## {tag}\n\n| route | who | does | asks | body | answers |\n|---|---|---|---|---|---|\n"
        )
        .expect("a String takes all");
        page.extend(rows);
    }
    page
}

fn row(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let who = match (&operation["x-role"], &operation["security"][0]) {
        (Value::String(role), _) => role.clone(),
        _ if operation["security"].as_array().is_some_and(|all| all.len() > 1) => "app or staff".to_owned(),
        (_, security) if security["app"].is_array() => "app".to_owned(),
        _ => "anyone".to_owned(),
    };
    let who =
        operation["x-permission"].as_str().map_or(who.clone(), |permission| format!("{who}, `{permission}`"));
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let asks = parameters.filter(|parameter| parameter["in"] == "query");
    let asks: Vec<String> =
        asks.map(|parameter| format!("`{}`", parameter["name"].as_str().unwrap_or_default())).collect();
    let answers = operation["responses"].as_object().into_iter().flatten();
    let answers: Vec<&str> =
        answers.map(|(status, _)| status.as_str()).filter(|status| !status.ends_with("XX")).collect();
    let summary = operation["summary"].as_str().unwrap_or_default().replace('|', "\\|").replace('\n', " ");
    format!(
        "| `{} {path}` | {who} | {summary} | {} | {} | {} |\n",
        method.to_uppercase(),
        asks.join(" "),
        fields(document, &operation["requestBody"]["content"]["application/json"]["schema"]).join(" "),
        answers.join(" ")
    )
}

/// The fields of a body, those that are required in bold; those of inner objects as `outer.inner`.
fn fields(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    let is_required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|field| field == name))
    };
    let mut names = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let inner = resolved(document, field)["properties"].as_object();
        names.extend(inner.into_iter().flatten().map(|(inner, _)| format!("`{name}.{inner}`")));
        if inner.is_none() {
            let shown = if is_required(name) { format!("**`{name}`**") } else { format!("`{name}`") };
            names.push(shown + &length(field));
        }
    }
    names
}

/// How many characters a text may have, where that is said.
fn length(field: &Value) -> String {
    match (field["minLength"].as_u64(), field["maxLength"].as_u64()) {
        (least, Some(most)) => format!(" ({} to {most})", least.unwrap_or(0)),
        _ => String::new(),
    }
}

/// What a schema refers to, null left out.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    if let Some(name) = schema["$ref"].as_str() {
        let found = name.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return resolved(document, found.unwrap_or(&Value::Null));
    }
    let one_of = schema["oneOf"].as_array().into_iter().flatten();
    let mut wanted = one_of.filter(|schema| schema["type"] != "null");
    wanted.next().map_or(schema, |found| resolved(document, found))
}

#[test]
fn the_guide_lists_every_route() {
    let document = serde_json::to_value(document::document(table())).expect("JSON");
    expect_test::expect_file!["../../../docs/api.md"].assert_eq(&page(&document));
}
