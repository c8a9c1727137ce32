//! The types of values in a settings file. TOML has types, and a value of a file must have the type of its
//! setting; `config` converts leniently, because each environment variable is a text.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{Given, SettingPath, Settings, ValueOrigin, nested};

/// How errors begin that are about a table in the place of another value.
const IS_TABLE: &str = "invalid type: map, expected ";

/// The keys of a TOML text whose value is a date, or a list that holds a date, each with its first date.
/// `config` turns a date into a text, so only the parser can tell the two apart.
pub(super) fn dates(text: &str) -> BTreeMap<SettingPath, String> {
    let mut found = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        collect_dates(&[], table.get_ref(), &mut found);
    }
    found
}

fn collect_dates(key: &[String], table: &DeTable<'_>, found: &mut BTreeMap<SettingPath, String>) {
    for (name, value) in table {
        let key = [key, &[name.get_ref().to_string()]].concat();
        match value.get_ref() {
            DeValue::Table(inner) => collect_dates(&key, inner, found),
            value => found.extend(first_date(value).map(|date| (key, date))),
        }
    }
}

fn first_date(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Array(items) => items.iter().find_map(|item| first_date(item.get_ref())),
        _ => None,
    }
}

/// The error of a value in a file that has another type than its setting. `Value` is read leniently: 5 passes
/// as a text, and "yes" as a truth value. A value of a file is therefore read a second time as JSON, which is
/// read strictly.
pub(super) fn refused(alone: Value, given: &Given) -> Option<String> {
    let ValueOrigin::File(_) = given.from else { return None };
    if let Some(date) = &given.date {
        return Some(format!("invalid type: datetime `{date}`, expected a string"));
    }
    let typed = alone.try_deserialize::<serde_json::Value>().ok()?;
    serde_json::from_value::<Settings>(typed).err().map(|error| error.to_string())
}

/// Says in words of TOML which type the value of a file has, and which type is needed. `None`: the error is
/// about something else.
pub(super) fn wrong_type(error: &str, given: &Given) -> Option<String> {
    let ValueOrigin::File(_) = given.from else { return None };
    let (found, expected) = error.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    let wanted = wanted(expected)?;
    if let Some(date) = &given.date {
        return Some(format!("{date} is a date, and {wanted} is needed"));
    }
    let kinds = [
        ("string ", "a text in quotes"),
        ("integer ", "a number"),
        ("floating point ", "a number with a fraction"),
        ("boolean ", "a truth value"),
    ];
    if found == "sequence" {
        return Some(format!("this is a list, and {wanted} is needed"));
    }
    let (value, kind) = kinds.iter().find_map(|(word, kind)| Some((found.strip_prefix(*word)?, kind)))?;
    Some(format!("{} is {kind}, and {wanted} is needed", value.trim_matches('`')))
}

/// The setting that a file gives as a table although the setting is a single value or a list, and which type
/// is needed. `key` lies inside of the table, or the table is empty.
pub(super) fn table_in_place_of_value(key: &[String]) -> Option<(String, String)> {
    (1..=key.len()).find_map(|length| {
        let setting = &key[..length];
        let empty = Value::new(None, ValueKind::Table(config::Map::new()));
        let error = nested(std::iter::once((setting, empty))).try_deserialize::<Settings>().err()?;
        let error = error.to_string();
        let expected = error.strip_prefix(IS_TABLE)?.split(" for key `").next()?;
        let wanted = match expected {
            "a sequence" => "a list",
            // "an unsigned 64 bit or less integer"
            expected if expected.ends_with("integer") => "a whole number",
            expected => wanted(expected).unwrap_or(expected),
        };
        Some((setting.join("."), format!("this is a table, and {wanted} is needed")))
    })
}

/// Whether an error is about a table in the place of another value.
pub(super) fn is_about_table(error: &str) -> bool {
    error.starts_with(IS_TABLE)
}

/// The type that an error expects, in words of TOML.
fn wanted(expected: &str) -> Option<&str> {
    Some(match expected {
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "an integer" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a text or a number" => expected,
        section if section == "a map" || section.starts_with("struct ") => "a table of settings",
        _ => return None,
    })
}
