//! `tidings check-config`: reads the settings like a start does and prints what is in effect.

use serde_json::Value;

use super::{Context, Failure, output::shown};

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?.redacted();
    let mut lines = Vec::new();
    describe("", &settings, &mut lines);
    context.output.print(&settings, &lines)
}

fn describe(key: &str, value: &Value, lines: &mut Vec<String>) {
    match value.as_object() {
        None => {
            lines.push(format!("{key} = {}", if value == "" { "(not set)".to_owned() } else { shown(value) }))
        }
        Some(section) => {
            for (name, value) in section {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                describe(&key, value, lines);
            }
        }
    }
}
