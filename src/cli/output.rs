//! What a verb prints: a few lines for people, or with `--json` the whole answer.

use std::io::{self, Write};

use serde_json::Value;

use super::Failure;

/// How a verb prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of lines.
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON, or `lines` for people.
    ///
    /// # Errors
    /// Nobody reads the output any more.
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
    /// Prints one of many values as it comes: a line of JSON, or `line` for people.
    ///
    /// # Errors
    /// Nobody reads the output any more.
    pub fn print_line(self, value: &Value, line: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let text = if self.json { value.to_string() } else { line() };
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        written.map_err(|error| Failure::of_output(&error))
    }
}

/// A field as people read it: texts without quotes, `-` for what is missing. Control characters
/// are escaped, so that nothing from elsewhere moves the cursor.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect(),
        other => other.to_string(),
    }
}

/// The fields of an object, one a line.
#[must_use]
pub fn fields(value: &Value) -> Vec<String> {
    let Some(object) = value.as_object() else { return vec![shown(value)] };
    let width = object.keys().map(String::len).max().unwrap_or(0);
    object.iter().map(|(name, value)| format!("{name:width$}  {}", shown(value))).collect()
}

/// Some fields of each item of a list, one item a line, under their names.
#[must_use]
pub fn table(items: &[Value], columns: &[&str]) -> Vec<String> {
    let mut rows = vec![columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(|item| columns.iter().map(|column| shown(&item[*column])).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}", width = *width))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}
