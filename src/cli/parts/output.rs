//! The output of a verb: a few lines for people, or with `--json` the whole answer.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde_json::Value;

use crate::cli::Failure;

/// The form of the output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of lines.
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON, or `lines` for people.
    ///
    /// # Errors
    /// If the output was closed.
    pub fn print(self, value: &Value, lines: &[String]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer_pretty(&mut out, value)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))
        };
        written.and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
    }
}

impl Output {
    /// Prints one of several values when it arrives: a line of JSON, or `line` for people.
    ///
    /// # Errors
    /// If the output was closed.
    pub fn print_line(self, value: &Value, line: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let text = if self.json { value.to_string() } else { line() };
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        written.map_err(|error| Failure::of_output(&error))
    }
}

/// A field for people: texts without quotes, lists with commas, `-` for a missing value. Control characters
/// are escaped, so that data cannot move the cursor of the terminal.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect(),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_string) => {
            items.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A field in a table: `-` also for an empty text.
fn cell(value: &Value) -> String {
    Some(shown(value)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// The fields of an object, one per line; fields of inner objects as `outer.inner`.
#[must_use]
pub fn fields(value: &Value) -> Vec<String> {
    match value.as_object() {
        Some(_) => aligned(flattened(value).into_iter().map(|(name, value)| vec![name, cell(value)])),
        None => vec![shown(value)],
    }
}

/// The fields of an object by their names; fields of inner objects as `outer.inner`.
#[must_use]
pub fn flattened(value: &Value) -> Vec<(String, &Value)> {
    let mut flat = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        if value.as_object().is_some_and(|inner| !inner.is_empty()) {
            flat.extend(
                flattened(value).into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)),
            );
        } else {
            flat.push((name.clone(), value));
        }
    }
    flat
}

/// Some fields of each item of a list, one item per line, below their names.
#[must_use]
pub fn table(items: &[Value], columns: &[&str]) -> Vec<String> {
    let names = columns.iter().map(|column| column.to_uppercase()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(&item[*column])).collect());
    aligned(std::iter::once(names).chain(rows))
}

/// Rows with aligned cells, also for wide characters; one line per row, which is neither cut nor wrapped, so
/// that scripts may read it.
#[must_use]
pub fn aligned(rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_stand_below_each_other_and_each_row_is_one_line() {
        let long = "x".repeat(500);
        let items = [
            json!({ "id": "a", "name": "\u{7530}\u{4e2d}\nx", "state": true }),
            json!({ "id": long, "name": "b" }),
        ];
        let lines = table(&items, &["id", "name", "state"]);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "NAME", "STATE"]);
        assert_eq!(lines[1], format!("a{:500} \u{7530}\u{4e2d}\\nx  true", ""));
        assert_eq!(lines[2], format!("{long}  b        -"));
        assert_eq!(fields(&json!({ "a": 1, "long": null })), ["a     1", "long  -"]);
        assert_eq!(fields(&json!({ "path": "" })), ["path  -"]);
        let nested =
            json!({ "breaker": { "state": "open", "last": { "at": 5 } }, "none": {}, "list": ["a"] });
        assert_eq!(
            fields(&nested),
            ["breaker.last.at  5", "breaker.state    open", "list             a", "none             {}"]
        );
        assert!(table(&[], &["id"]) == ["ID"] && fields(&json!({})).is_empty());
    }
}
