//! `tidings doctor`: looks for faults and names the remedy of each.

use clap::Args;
use serde_json::json;

use crate::cli::{Code, Context, Failure, output::aligned};
use crate::{
    doctor::{self, Finding, Status},
    machine::MachineClock,
    settings::Settings,
};

/// Most variables that are named.
const VARIABLES_NAMED: usize = 5;

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Also ask the Git hosts of all watched repositories whether they answer, and compare their clocks with
    /// this one
    #[arg(long)]
    ask_hosts: bool,
}

pub(crate) async fn run(arguments: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let settings = Settings::load(context.config.as_deref(), context.environment.0.iter().cloned());
    let findings = match &settings {
        Ok(settings) => doctor::examine(settings, &judged(context), arguments.ask_hosts, &MachineClock).await,
        Err(faults) => {
            let remedy = "correct it; config/default.toml and docs/settings.md tell what each key means";
            let faults = faults.iter().map(|fault| Finding::fault("settings", fault.to_string(), remedy));
            std::iter::once(Finding::ok("settings", judged(context))).chain(faults).collect()
        }
    };
    let rows = findings.iter().flat_map(|finding| {
        let word = match finding.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Fault => "FAULT",
        };
        let found = vec![word.to_owned(), finding.check.to_owned(), finding.found.clone()];
        let remedy = finding.remedy.iter().map(|remedy| vec!["".into(), "".into(), format!("-> {remedy}")]);
        std::iter::once(found).chain(remedy)
    });
    let lines = aligned(rows);
    let faults = findings.iter().filter(|finding| finding.status == Status::Fault).count();
    context.output.print(&json!({ "findings": findings, "faults": faults }), &lines)?;
    match faults {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Failed, "1 fault was found")),
        _ => Err(Failure::new(Code::Failed, format!("{faults} faults were found"))),
    }
}

/// The settings that are checked: those that `serve` would use here. A running server may use others.
fn judged(context: &Context) -> String {
    let variables: Vec<&str> = context.environment.settings().collect();
    let over = match variables.len() {
        0 => "no variable".to_owned(),
        count if count > VARIABLES_NAMED => {
            format!("{} and {} more", variables[..VARIABLES_NAMED].join(", "), count - VARIABLES_NAMED)
        }
        _ => variables.join(", "),
    };
    match &context.config {
        Some(path) => {
            format!("settings checked: the defaults, overridden by {}, overridden by {over}", path.display())
        }
        None => format!(
            "settings checked: the defaults, overridden by {over}; no settings file is named. For a server \
             with a settings file, name the same file (--config FILE or TIDINGS_CONFIG)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Environment, Output};

    fn judged_with(config: Option<&str>, variables: &[&str]) -> String {
        let variables = variables.iter().map(|name| ((*name).to_owned(), "x".to_owned()));
        let environment = Environment(variables.collect());
        judged(&Context { output: Output { json: false }, config: config.map(Into::into), environment })
    }

    #[test]
    fn the_settings_that_are_judged_are_named() {
        let none = judged_with(None, &["HOME", "TIDINGS_TOKEN"]);
        let start = "settings checked: the defaults, overridden by no variable; no settings file is named";
        assert!(none.starts_with(start), "{none}");
        assert!(none.contains("--config FILE or TIDINGS_CONFIG"), "{none}");
        let both = judged_with(Some("/etc/t.toml"), &["TIDINGS__DATA_DIR", "tidings__git__poll_min"]);
        assert_eq!(
            both,
            "settings checked: the defaults, overridden by /etc/t.toml, overridden by TIDINGS__DATA_DIR, \
             tidings__git__poll_min"
        );
        let many: Vec<String> = (0..7).map(|number| format!("TIDINGS__A__{number}")).collect();
        let many = judged_with(None, &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(many.contains("TIDINGS__A__4 and 2 more; no settings"), "{many}");
    }
}
