//! `tidings migrate copy`: copies all rows of one database into another one, and compares them afterwards.
//!
//! An address with a password is read only from a file or the environment: every user of the machine can see
//! the arguments of a process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use tidings_actors::ports::Clock;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    app::Claim,
    cli::{
        COPY_FROM_VARIABLE, COPY_TO_VARIABLE, Code, Context, Failure, key, output::aligned,
        progress::Progress,
    },
    machine::MachineClock,
    settings::Settings,
    store::{
        copy::file_of,
        transfer::{Compared, TransferError, transfer},
    },
};

/// The two databases of a copy.
#[derive(Args, Debug)]
pub(in crate::cli) struct CopyArgs {
    /// Address of the database to copy, without a password; without this option the variable
    /// TIDINGS_COPY_FROM or database.url gives it
    #[arg(long, value_name = "URL", conflicts_with = "from_file")]
    from: Option<String>,
    /// File that holds the address of the database to copy
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Address of the database to fill, without a password; the database must be empty. Without this option
    /// the variable TIDINGS_COPY_TO gives it
    #[arg(long, value_name = "URL", conflicts_with = "to_file")]
    to: Option<String>,
    /// File that holds the address of the empty database to fill
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

pub(super) async fn run(arguments: CopyArgs, settings: &Settings, context: &Context) -> Result<(), Failure> {
    let CopyArgs { from, from_file, to, to_file } = arguments;
    let from = address("--from", from, from_file.as_deref(), context.environment.get(COPY_FROM_VARIABLE))?;
    let from = from.unwrap_or_else(|| Zeroizing::new(settings.database_url()));
    let to = address("--to", to, to_file.as_deref(), context.environment.get(COPY_TO_VARIABLE))?;
    let to = to.ok_or_else(|| {
        let text = "the target is missing: --to URL, --to-file FILE, or the variable TIDINGS_COPY_TO";
        Failure::new(Code::Usage, text)
    })?;
    let target = file(&to)?;
    if target.as_deref().and_then(Path::parent) == Some(&*settings.data_dir) {
        key::make_data_dir(&settings.data_dir)?;
    }
    let _claims = claims(settings, [file(&from)?, target], *from == settings.database_url())?;
    let progress = Progress::steps_counting("rows");
    let tell = |step, rows| {
        progress.tell(step);
        progress.done(rows);
    };
    let copied = transfer(&from, &to, MachineClock.now(), &tell).await;
    drop(progress);
    match copied {
        Ok(tables) => print(&tables, settings, context),
        Err(error) => {
            if let TransferError::Differs(tables) = &error {
                let (value, lines) = (value(tables), lines(tables));
                context.output.print(&value, &lines)?;
            }
            Err(failed(&error))
        }
    }
}

/// The address from the argument, the file or the variable that has it.
fn address(
    name: &str,
    given: Option<String>,
    file: Option<&Path>,
    variable: Option<String>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(url) = given {
        let has_password = Url::parse(&url).is_ok_and(|url| {
            url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
        });
        // An address that cannot be read, or that hides a password behind the host, is refused and never
        // shown.
        if has_password {
            let text = format!(
                "a password does not belong into arguments, which everybody sees: use {name}-file, or the \
                 variable TIDINGS_COPY_{}",
                name.trim_start_matches('-').to_uppercase()
            );
            return Err(Failure::new(Code::Usage, text));
        }
        return Ok(Some(Zeroizing::new(url)));
    }
    let Some(path) = file else {
        return Ok(variable.filter(|url| !url.is_empty()).map(Zeroizing::new));
    };
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        Failure::new(Code::NoInput, format!("{} cannot be read: {error}", path.display()))
    })?;
    match text.trim() {
        "" => Err(Failure::new(Code::Data, format!("{} holds no address", path.display()))),
        url => Ok(Some(Zeroizing::new(url.to_owned()))),
    }
}

fn file(url: &str) -> Result<Option<PathBuf>, Failure> {
    file_of(url).map_err(|error| Failure::of_error(Code::Usage, &error))
}

/// Claims the SQLite files, and the data directory where one of the databases is that of the settings, so
/// that no server works with them.
fn claims(settings: &Settings, files: [Option<PathBuf>; 2], is_own: bool) -> Result<Claim, Failure> {
    let own = file(&settings.database_url())?.and_then(|file| file.canonicalize().ok());
    let is_of_settings = |file: &PathBuf| own.is_some() && file.canonicalize().ok() == own;
    let is_own = is_own || files.iter().flatten().any(is_of_settings);
    let data_dir = Some(&*settings.data_dir).filter(|data_dir| is_own && data_dir.exists());
    Claim::of(data_dir, files.into_iter().flatten()).map_err(|error| Failure::of_start(&error))
}

fn print(tables: &[Compared], settings: &Settings, context: &Context) -> Result<(), Failure> {
    let mut lines = lines(tables);
    lines.push(format!(
        "Both databases hold the same rows. Set database.url to the copy; its secrets open with the same \
         keyring ({}). Do not start a server on the source again: it would send the same changes as the \
         copy.",
        settings.data_dir.join("keyring").display()
    ));
    context.output.print(&value(tables), &lines)
}

fn value(tables: &[Compared]) -> Value {
    let is_equal = tables.iter().all(Compared::is_equal);
    json!({ "equal": is_equal, "tables": tables })
}

fn lines(tables: &[Compared]) -> Vec<String> {
    let head = ["TABLE", "ROWS", "SHA256", ""].map(str::to_owned).to_vec();
    let row = |table: &Compared| {
        let Compared { table: name, source, target } = table;
        let (mut rows, mut sha256) = (source.rows.to_string(), source.sha256.to_string());
        if !table.is_equal() {
            rows = format!("{rows} and {}", target.rows);
            sha256 = format!("{sha256} and {}", target.sha256);
        }
        let word = if table.is_equal() { "same" } else { "DIFFERS" };
        vec![(*name).to_owned(), rows, sha256, word.to_owned()]
    };
    aligned(std::iter::once(head).chain(tables.iter().map(row)))
}

fn failed(error: &TransferError) -> Failure {
    let code = match error {
        TransferError::Same => Code::Usage,
        TransferError::NotEmpty(_) => Code::CannotCreate,
        TransferError::Source(_)
        | TransferError::Target(_)
        | TransferError::OlderSource(_)
        | TransferError::InUse(_) => Code::Unavailable,
        TransferError::Damaged(_) | TransferError::Unfit { .. } | TransferError::Differs(_) => Code::Data,
    };
    Failure::of_error(code, error)
}
