//! Schemas of the OpenAPI document: as tables of fields, and compared with bodies.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::Value;

/// Fields that were seen, each as `Schema.field`.
pub(super) type Seen = BTreeSet<String>;

/// What has a table of its own, or is told elsewhere: its fields are not listed once more.
const APART: [&str; 3] = ["ChangePayload", "CloudEventData", "PulledPayload"];
/// The schema whose table shows the repository; the other tables leave it out.
const SHOWS_REPOSITORY: &str = "ChangePayload";
/// The schemas that bodies begin with.
const ROOTS: [&str; 11] = [
    "ChangePayload",
    "BatchPayload",
    "BatchAnswer",
    "RoundPayload",
    "SyncFailedPayload",
    "SyncRecoveredPayload",
    "TestPayload",
    "CloudEventPayload",
    "Pending",
    "Settlement",
    "SettledShown",
];

fn named<'d>(document: &'d Value, name: &str) -> &'d Value {
    let schema = &document["components"]["schemas"][name];
    assert!(schema.is_object(), "there is no schema {name}");
    schema
}

/// The name behind `$ref`, also where it may be null.
fn reference(schema: &Value) -> Option<&str> {
    let found = schema["$ref"].as_str().or_else(|| {
        let any = schema["oneOf"].as_array()?;
        any.iter().find_map(|one| one["$ref"].as_str()).filter(|_| any.len() == 2)
    })?;
    found.strip_prefix("#/components/schemas/")
}

/// The type in words.
fn kind(schema: &Value) -> String {
    if reference(schema).is_some() {
        return if schema["oneOf"].is_array() { "object or null" } else { "object" }.to_owned();
    }
    if schema["items"].is_object() {
        return format!("list of {}s", kind(&schema["items"]));
    }
    match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "object".to_owned(),
    }
}

/// A table of all fields of a schema.
pub(super) fn rows(document: &Value, name: &str) -> String {
    let mut table = String::from("\n| field | type | there | meaning |\n|---|---|---|---|\n");
    let with_repository = name == SHOWS_REPOSITORY;
    push(document, named(document, name), "", with_repository, &mut table);
    table.push('\n');
    table
}

fn push(document: &Value, schema: &Value, above: &str, with_repository: bool, table: &mut String) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (list, item) = if field["items"].is_object() { ("[]", &field["items"]) } else { ("", field) };
        let path = format!("{above}{name}{list}");
        let target = reference(item);
        let there = if required.contains(&name.as_str()) { "always" } else { "where it applies" };
        let own = field["description"]
            .as_str()
            .or_else(|| field["oneOf"].as_array()?.iter().find_map(|one| one["description"].as_str()));
        let meaning = own.or_else(|| named(document, target?)["description"].as_str()).unwrap_or_default();
        let meaning = meaning.replace('\n', " ").replace('|', "\\|");
        writeln!(table, "| `{path}` | {} | {there} | {meaning} |", kind(field)).expect("a String takes all");
        let Some(target) = target else { continue };
        let is_told = APART.contains(&target) || (target == "PayloadRepository" && !with_repository);
        if !is_told {
            push(document, named(document, target), &format!("{path}."), with_repository, table);
        }
    }
}

/// Whether a value is what its schema says; the fields that it has are added to `seen`.
pub(super) fn fits(document: &Value, name: &str, value: &Value, seen: &mut Seen) -> Result<(), String> {
    let schema = named(document, name);
    if let Some(any) = schema["oneOf"].as_array() {
        let fitting = any.iter().find_map(|one| {
            let mut found = Seen::new();
            fits(document, reference(one)?, value, &mut found).ok().map(|()| found)
        });
        seen.append(&mut fitting.ok_or_else(|| format!("{name}: nothing fits {value}"))?);
        return Ok(());
    }
    let object = value.as_object().ok_or_else(|| format!("{name} is an object, not {value}"))?;
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            return Err(format!("{name}.{required} is missing"));
        }
    }
    for (key, value) in object {
        let field = &schema["properties"][key];
        if field.is_null() {
            return Err(format!("{name}.{key} is not documented"));
        }
        seen.insert(format!("{name}.{key}"));
        is_of(document, field, value, seen).map_err(|fault| format!("{name}.{key}: {fault}"))?;
    }
    Ok(())
}

fn is_of(document: &Value, schema: &Value, value: &Value, seen: &mut Seen) -> Result<(), String> {
    if let Some(name) = reference(schema) {
        let is_allowed_null = value.is_null() && schema["oneOf"].is_array();
        return if is_allowed_null { Ok(()) } else { fits(document, name, value, seen) };
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.iter().any(|known| known == kind) {
        return Err(format!("{value} is none of {kinds:?}"));
    }
    value.as_array().into_iter().flatten().try_for_each(|item| is_of(document, &schema["items"], item, seen))
}

/// All fields of the schemas that bodies begin with, and of those below them.
pub(super) fn documented(document: &Value) -> Seen {
    let (mut fields, mut done) = (Seen::new(), BTreeSet::new());
    let mut open: Vec<&str> = ROOTS.to_vec();
    while let Some(name) = open.pop() {
        if !done.insert(name) {
            continue;
        }
        let schema = named(document, name);
        open.extend(schema["oneOf"].as_array().into_iter().flatten().filter_map(reference));
        for (key, field) in schema["properties"].as_object().into_iter().flatten() {
            fields.insert(format!("{name}.{key}"));
            open.extend(reference(field).or_else(|| reference(&field["items"])));
        }
    }
    fields
}
