//! `tidings check-config`: reads the settings like a start does, and prints the effective settings and the
//! open rounds of an older version that a start would end.

use serde_json::{Value, json};

use crate::cli::{Code, Context, Failure, output::shown};
use crate::{doctor, store::schema};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    if let Some(fault) = doctor::unusable(&settings.data_dir) {
        return Err(Failure::new(
            Code::Config,
            format!("data_dir: {}; {}", fault.found, fault.remedy.unwrap_or_default()),
        ));
    }
    let old_rounds = schema::old_rounds(&settings.database_url())
        .await
        .map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    let mut shown = settings.redacted();
    let mut lines = Vec::new();
    describe("", &shown, &mut lines);
    if old_rounds > 0 {
        let notice =
            format!("rounds of an older version that the next start ends by a resync each: {old_rounds}");
        lines.push(notice.clone());
        shown["notices"] = json!([notice]);
    }
    context.output.print(&shown, &lines)
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
