//! `tidings doctor`: looks for faults and names the remedy of each.

use clap::Args;
use serde_json::json;

use super::{Code, Context, Failure, output::aligned};
use crate::{
    doctor::{self, Finding, Status},
    machine::MachineClock,
    settings::Settings,
};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Ask the Git hosts of all watched repositories as well: whether they answer, and what time it is
    #[arg(long)]
    ask_hosts: bool,
}

pub(super) async fn run(arguments: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let settings = Settings::load(context.config.as_deref(), context.environment.0.iter().cloned());
    let findings = match &settings {
        Ok(settings) => doctor::examine(settings, arguments.ask_hosts, &MachineClock).await,
        Err(faults) => {
            let remedy = "correct it; config/default.toml and docs/settings.md tell what each key means";
            faults.iter().map(|fault| Finding::fault("settings", fault.to_string(), remedy)).collect()
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
