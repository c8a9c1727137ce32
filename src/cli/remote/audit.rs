//! `tidings audit`: the audit log of a running server, and whether the log is unchanged.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_actors::model::words::counted;
use zeroize::Zeroizing;

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::table,
    passphrase::PassphraseArgs,
    progress::Progress,
    words,
};
use crate::{
    http::admin::audit::AuditShown,
    secrets::{AuditKeys, Keyring, export},
    store::audit::{Chain, named},
};

#[derive(Subcommand, Debug)]
pub(crate) enum AuditVerb {
    /// List the rows of the audit log, newest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: Filter,
        /// At most this number of rows, the newest
        #[arg(long, default_value_t = 50, value_parser = words::limit)]
        limit: usize,
    },
    /// Check that no row was changed, added or removed, on a server or in an exported file
    Verify {
        #[command(flatten)]
        server: ServerArgs,
        /// Exported file to check, instead of the log of a server
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Head of an earlier check; the log must still contain it
        #[arg(long, value_name = "ID:HASH")]
        head: Option<String>,
        /// Keyring (plain or exported) to check the rows of the file with
        #[arg(long, value_name = "FILE", requires = "file")]
        keyring: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Write the whole log, one JSON object per line
    Export {
        #[command(flatten)]
        server: ServerArgs,
        /// The file to write, which must not exist; if missing, standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// Only actions of this caller (admin, tok_..., jwt:..., system)
    #[arg(long)]
    actor: Option<String>,
    /// Only actions by this app or on this app, by its id or name
    #[arg(long, value_name = "APP")]
    of: Option<String>,
    /// Only this action, such as post_api_apps_onboard
    #[arg(long)]
    action: Option<String>,
    /// Only actions on the object with this id, such as repo_... or app_...
    #[arg(long)]
    target: Option<String>,
    /// Only actions at this time (RFC 3339) or later
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    since: Option<String>,
    /// Only actions before this time (RFC 3339)
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    until: Option<String>,
}

const PATH: [&str; 3] = ["api", "admin", "audit"];

pub(crate) async fn run(verb: AuditVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        AuditVerb::List { server, filter, limit } => {
            let client = context.client(&server)?;
            let Filter { actor, of, action, target, since, until } = &filter;
            let of = match of {
                Some(named) => Some(client.app(named).await?.to_string()),
                None => None,
            };
            let asked = [
                ("actor", actor),
                ("app", &of),
                ("action", action),
                ("target", target),
                ("since", since),
                ("until", until),
            ];
            let query: Vec<_> =
                asked.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
            let (rows, _) = client.list_at_most(&PATH, &query, limit).await?;
            let lines = table(&rows, &["id", "at", "actor", "address", "action", "target", "result"]);
            context.output.print(&Value::Array(rows), &lines)
        }
        AuditVerb::Verify { server, file: None, head, .. } => {
            let query: Vec<_> = head.iter().map(|head| ("head", head.as_str())).collect();
            let path = ["api", "admin", "audit", "verify"];
            let client = context.client(&server)?;
            tell(context, &client.call_with_query(Method::GET, &path, &query, None).await?)
        }
        AuditVerb::Verify { file: Some(file), head, keyring, passphrase, .. } => {
            let keys = keyring.map(|keyring| keys_of(&keyring, &passphrase, context)).transpose()?;
            tell(context, &of_file(&file, head.as_deref(), keys)?)
        }
        AuditVerb::Export { server, to } => {
            let client = context.client(&server)?;
            match to {
                None => export(&client, &mut io::stdout().lock(), |error| Failure::of_output(&error))
                    .await
                    .map(drop),
                Some(path) => {
                    let failed = |error: io::Error| {
                        Failure::new(Code::CannotCreate, format!("{}: {error}", path.display()))
                    };
                    let mut file = File::create_new(&path).map_err(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => {
                            let text = format!("{} exists already: name a new file", path.display());
                            Failure::new(Code::CannotCreate, text)
                        }
                        _ => failed(error),
                    })?;
                    let rows = export(&client, &mut file, failed).await?;
                    file.sync_all().map_err(failed)?;
                    let done = json!({ "rows": rows, "file": path.display().to_string() });
                    context
                        .output
                        .print(&done, &[format!("wrote {} to {}", counted(rows, "row"), path.display())])
                }
            }
        }
    }
}

/// The keys of a keyring's file.
fn keys_of(path: &Path, passphrase: &PassphraseArgs, context: &Context) -> Result<AuditKeys, Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::new(Code::NoInput, format!("{}: {error}", path.display()));
    let text = fs::read(path).map(Zeroizing::new).map_err(|error| failed(&error))?;
    let keyring = if export::is_exported(&text) {
        export::import(&text, &passphrase.demand(context)?).map_err(|error| failed(&error))?
    } else {
        Keyring::open(path).map_err(|error| failed(&error))?
    };
    Ok(keyring.audit_keys())
}

/// Prints the result of a check.
fn tell(context: &Context, verdict: &Value) -> Result<(), Failure> {
    let faults: Vec<String> = verdict["faults"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|fault| fault.as_str().map(str::to_owned))
        .collect();
    if verdict["intact"] == false {
        if context.output.json {
            context.output.print(verdict, &[])?;
        }
        return Err(Failure::new(Code::Data, format!("the audit log is not intact\n{}", faults.join("\n"))));
    }
    let head = verdict["head"].as_str().unwrap_or("-");
    let rows = counted(verdict["rows"].as_u64().unwrap_or(0), "row");
    if let Some(unchecked @ 1..) = verdict["unchecked"].as_u64() {
        let said = format!(
            "{rows} in order; the contents of {} were not checked, so any of them may be forged: name the \
             keyring with --keyring; head: {head}",
            counted(unchecked, "row")
        );
        return context.output.print(verdict, &[said]);
    }
    let keyed = match verdict["keyed_from"].as_i64() {
        Some(first) => format!("rows from {first} on are keyed: nobody without the keyring can forge them"),
        None => {
            "no row was written with a key: anyone who can write to the database may have written them all"
                .into()
        }
    };
    context.output.print(verdict, &[format!("{rows}, whole; keep its head elsewhere: {head}"), keyed])
}

fn of_file(path: &Path, head: Option<&str>, keys: Option<AuditKeys>) -> Result<Value, Failure> {
    let unreadable = |error: io::Error| Failure::new(Code::NoInput, format!("{}: {error}", path.display()));
    let head = match head.map(named) {
        Some(None) => return Err(Failure::new(Code::Usage, "--head is <id>:<hash>")),
        other => other.flatten(),
    };
    let mut chain = Chain::with(head, keys);
    for (number, line) in BufReader::new(File::open(path).map_err(unreadable)?).lines().enumerate() {
        let row =
            serde_json::from_str::<AuditShown>(&line.map_err(unreadable)?).ok().and_then(AuditShown::row);
        let row = row.ok_or_else(|| {
            Failure::new(
                Code::Data,
                format!("{}: line {} is no row of an export", path.display(), number + 1),
            )
        })?;
        chain.take(&row);
    }
    let verdict = chain.end();
    let faults: Vec<String> = verdict.faults.iter().map(ToString::to_string).collect();
    Ok(json!({
        // Without the keys the contents of keyed rows are unknown: null is neither whole nor damaged.
        "intact": (!faults.is_empty() || verdict.unchecked == 0).then_some(faults.is_empty()),
        "rows": verdict.rows,
        "head": verdict.last.map(|(id, hash)| format!("{id}:{hash}")),
        "keyed_from": verdict.keyed_from,
        "unchecked": verdict.unchecked,
        "faults": faults,
    }))
}

/// Writes every row; how many there were.
async fn export(
    client: &Client,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let progress = Progress::counting("rows");
    let (mut after, mut rows) = (None::<String>, 0);
    loop {
        let query: Vec<_> = after.iter().map(|after| ("after", after.as_str())).collect();
        let (part, next) = client.lines(&["api", "admin", "audit", "export"], &query).await?;
        out.write_all(&part).map_err(&failed)?;
        rows += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        progress.done(rows);
        after = next;
        if after.is_none() {
            break;
        }
    }
    drop(progress);
    out.flush().map_err(&failed)?;
    Ok(rows)
}
