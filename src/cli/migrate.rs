//! `tidings migrate`: the schema of the database that the settings name, and copies of it into another one.

mod copy;

use clap::Subcommand;
use serde_json::json;

use super::{Code, Context, Failure, output::aligned, progress::Progress};
use crate::{
    app,
    store::{OpenError, schema},
};

#[derive(Subcommand, Debug)]
pub(super) enum MigrateVerb {
    /// Take every step that is missing
    Up,
    /// Take back the last steps: their tables and all in them go
    Down {
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Show which steps were taken; changes nothing
    Status,
    /// Copy everything into another database, SQLite or PostgreSQL, and compare the two; the server is stopped
    Copy(copy::CopyArgs),
}

pub(super) async fn run(verb: MigrateVerb, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let url = settings.database_url();
    app::refuse_unfinished(&settings).map_err(|error| Failure::of_start(&error))?;
    let failed = |error: OpenError| Failure::of_error(Code::Unavailable, &error);
    match verb {
        MigrateVerb::Copy(arguments) => copy::run(arguments, &settings, context).await,
        MigrateVerb::Up => {
            super::key::make_data_dir(&settings.data_dir)?;
            let progress = Progress::steps();
            progress.tell("taking the steps that are missing");
            let taken = schema::up(&url).await;
            drop(progress);
            let taken = taken.map_err(failed)?;
            let lines = if taken.is_empty() { vec!["nothing to do".to_owned()] } else { taken.clone() };
            context.output.print(&json!({ "taken": taken }), &lines)
        }
        MigrateVerb::Down { steps, yes } => {
            if !yes {
                return Err(Failure::new(Code::Usage, "this deletes tables and all in them; add --yes"));
            }
            let progress = Progress::steps();
            progress.tell("taking steps back");
            let taken_back = schema::down(&url, steps).await;
            drop(progress);
            taken_back.map_err(failed)?;
            context.output.print(&json!({ "taken_back": steps }), &[format!("{steps} taken back")])
        }
        MigrateVerb::Status => {
            let steps = schema::status(&url).await.map_err(failed)?;
            let word = |applied: bool| if applied { "taken" } else { "missing" };
            let rows = steps.iter().map(|step| vec![word(step.applied).to_owned(), step.name.clone()]);
            let lines = aligned(rows);
            context.output.print(&json!({ "steps": steps }), &lines)
        }
    }
}
