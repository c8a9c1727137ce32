//! `tidings admin dead-letters`: dead letters of all apps.

use clap::Args;
use serde_json::Value;
use tidings_entity::kind::{LetterStatus, Operation, ParkReason};

use crate::cli::{Context, Failure, client::ServerArgs, output::table, query::QueryArgs, words};

/// Selects the letters to list.
#[derive(Args, Debug)]
pub(in crate::cli) struct LettersArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only letters of this app, by its id or name
    #[arg(long, value_name = "APP")]
    of: Option<String>,
    /// Only letters in this state: open, redrive_requested, redriven, superseded or dismissed
    #[arg(long, default_value = "open")]
    status: LetterStatus,
    /// Only letters parked for this reason: rejected, failing, content_unavailable or skipped
    #[arg(long)]
    reason: Option<ParkReason>,
    /// Only letters of this operation: create, update or delete
    #[arg(long)]
    kind: Option<Operation>,
    /// Only letters of exactly this path
    #[arg(long, conflicts_with_all = ["path_prefix", "path_glob"])]
    path: Option<String>,
    /// Only letters of paths that begin with this text
    #[arg(long, value_name = "PATH", conflicts_with = "path_glob")]
    path_prefix: Option<String>,
    /// Only letters of paths that match this glob
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Only changes parked at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    from: Option<String>,
    /// Only changes parked before this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    to: Option<String>,
    #[command(flatten)]
    query: QueryArgs,
    /// At most this number of dead letters, the newest
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = words::limit)]
    limit: usize,
}

/// The columns for dead letters.
const COLUMNS: [&str; 10] = [
    "created_at",
    "app_name",
    "repository",
    "operation",
    "path",
    "reason",
    "http_status",
    "excerpt",
    "app_id",
    "dead_letter_id",
];

pub(super) async fn run(arguments: LettersArgs, context: &Context) -> Result<(), Failure> {
    let limit = arguments.limit;
    let client = context.client(&arguments.server)?;
    let of = match &arguments.of {
        Some(named) => Some(client.app(named).await?),
        None => None,
    };
    let said = [
        ("app_id", of.map(|app| app.to_string())),
        ("status", Some(arguments.status.to_string())),
        ("reason", arguments.reason.map(|reason| reason.to_string())),
        ("kind", arguments.kind.map(|kind| kind.to_string())),
        ("path", arguments.path),
        ("path_prefix", arguments.path_prefix),
        ("path_glob", arguments.path_glob),
        ("from", arguments.from),
        ("to", arguments.to),
        ("q", arguments.query.query),
    ];
    let query: Vec<(&str, &str)> =
        said.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let (letters, more) = client.list_at_most(&["api", "admin", "dead-letters"], &query, limit).await?;
    let mut lines = table(&letters, &COLUMNS);
    lines.extend(more.then(|| format!("there are more than {limit}; see --limit")));
    context.output.print(&Value::Array(letters), &lines)
}
