//! `tidings migrate`: the schema of the database in the settings, and copies of that database into another
//! one.

mod copy;

use clap::Subcommand;
use serde_json::json;

use crate::cli::{Code, Context, Failure, output::aligned, progress::Progress};
use crate::{
    app::{self, Claim},
    settings::Settings,
    store::{OpenError, copy as database_copy, schema},
};

#[derive(Subcommand, Debug)]
pub(crate) enum MigrateVerb {
    /// Apply all migrations that the database lacks
    Up,
    /// Revert the last migrations: their tables are deleted with all data in them
    Down {
        /// Number of migrations to revert [default: 1; with --everything-of all]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        steps: Option<u32>,
        /// Confirm that tables and their data are deleted
        #[arg(long)]
        yes: bool,
        /// Name of the database (for SQLite the name of the file); required to revert all migrations, which
        /// deletes everything
        #[arg(long, value_name = "NAME")]
        everything_of: Option<String>,
    },
    /// Show which migrations are applied; changes nothing
    Status,
    /// Copy all data into another database, SQLite or PostgreSQL, and compare both; stop the server before
    Copy(copy::CopyArgs),
}

pub(crate) async fn run(verb: MigrateVerb, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let url = settings.database_url();
    app::refuse_unfinished(&settings).map_err(|error| Failure::of_start(&error))?;
    let failed = |error: OpenError| Failure::of_error(Code::Unavailable, &error);
    match verb {
        MigrateVerb::Copy(arguments) => copy::run(arguments, &settings, context).await,
        MigrateVerb::Up => {
            crate::cli::key::make_data_dir(&settings.data_dir)?;
            // On PostgreSQL, replicas of the previous version may run beside a newer schema; the one server
            // of a SQLite file may not.
            let _claim = if is_file(&url)? { Some(claim(&settings)?) } else { None };
            let progress = Progress::steps();
            progress.tell("applying the missing migrations");
            let taken = schema::up(&url).await;
            drop(progress);
            let taken = taken.map_err(failed)?;
            let lines = if taken.is_empty() { vec!["nothing to do".to_owned()] } else { taken.clone() };
            context.output.print(&json!({ "taken": taken }), &lines)
        }
        MigrateVerb::Down { steps, yes, everything_of } => {
            if !yes {
                return Err(Failure::new(
                    Code::Usage,
                    "this deletes tables with all data in them; add --yes",
                ));
            }
            let _claim = claim(&settings)?;
            let taken =
                schema::status(&url).await.map_err(failed)?.iter().filter(|step| step.applied).count();
            let name = database_copy::name_of(&url).map_err(failed)?;
            if let Some(other) = everything_of.as_ref().filter(|given| **given != name) {
                let text =
                    format!("--everything-of names {other}, and the database is {name}; nothing is reverted");
                return Err(Failure::new(Code::Usage, text));
            }
            let all = u32::try_from(taken).unwrap_or(u32::MAX).max(1);
            let steps = steps.unwrap_or(if everything_of.is_some() { all } else { 1 });
            if taken > 0 && steps as usize >= taken && everything_of.is_none() {
                let text = format!(
                    "this reverts all migrations and deletes everything in the database; add --everything-of \
                     {name}"
                );
                return Err(Failure::new(Code::Usage, text));
            }
            let progress = Progress::steps();
            progress.tell("reverting migrations");
            let taken_back = schema::down(&url, steps).await;
            drop(progress);
            let taken_back = taken_back.map_err(failed)?;
            let lines =
                if taken_back.is_empty() { vec!["nothing to do".to_owned()] } else { taken_back.clone() };
            context.output.print(&json!({ "taken_back": taken_back }), &lines)
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

/// Claims the data directory and the SQLite file, which must not be in use: the schema must not change while
/// a server writes.
fn claim(settings: &Settings) -> Result<Claim, Failure> {
    Claim::hold(settings).map_err(|error| Failure::of_start(&error))
}

fn is_file(url: &str) -> Result<bool, Failure> {
    let file = database_copy::file_of(url).map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    Ok(file.is_some())
}
