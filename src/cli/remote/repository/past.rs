//! Rounds, changes and the tail of a watch, on the command line.

use clap::Args;
use serde_json::Value;
use tidings_entity::id::WatchId;

use super::{OneArgs, PATH};
use crate::cli::{
    Context, Failure,
    client::Client,
    follow::follow,
    output::{shown, table},
};

/// The message if no change is being delivered.
const NOTHING_OPEN: &str =
    "nothing is being delivered now; --round shows an ended round (tidings repository rounds)";
/// Selects changes of one round.
#[derive(Args, Debug)]
pub(in crate::cli) struct ChangesArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Number of the round; if missing, the open round
    #[arg(long)]
    round: Option<i64>,
    /// The branch, by its short or full name; required if the watch follows several branches
    #[arg(long)]
    branch: Option<String>,
    /// Only changes of paths that match this glob
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// At most this number of changes, from the first on
    #[arg(long, default_value_t = 1_000, value_name = "COUNT", value_parser = crate::cli::words::limit)]
    limit: usize,
}

/// The arguments for the beginning of a tail.
#[derive(Args, Debug)]
pub(in crate::cli) struct EventsArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The branch, by its short or full name; required if the watch follows several branches
    #[arg(long)]
    branch: Option<String>,
    /// The id of the last event already seen (ROUND.POSITION); if missing, only new events are printed
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

pub(super) async fn changes(arguments: ChangesArgs, context: &Context) -> Result<(), Failure> {
    let ChangesArgs { one, round, branch, path_glob, limit } = arguments;
    let round = round.map(|round| round.to_string());
    let said = [("round", &round), ("branch", &branch), ("path_glob", &path_glob)];
    let query: Vec<_> = said.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?))).collect();
    let (client, id) = one.find(context).await?;
    let path: Vec<&str> = PATH.into_iter().chain([id.as_str(), "changes"]).collect();
    let (found, more) = client.list_at_most(&path, &query, limit).await?;
    let mut lines = match (found.is_empty(), &round) {
        (false, _) => table(&found, &["position", "state", "type", "path", "mode", "blob", "settled_at"]),
        (true, Some(round)) => vec![format!("round {round} has no such change")],
        (true, None) => vec![NOTHING_OPEN.to_owned()],
    };
    lines.extend(more.then(|| format!("there are more than {limit}; see --limit")));
    context.output.print(&Value::Array(found), &lines)
}

pub(super) async fn rounds(one: OneArgs, context: &Context) -> Result<(), Failure> {
    let (client, id) = one.find(context).await?;
    let path: Vec<&str> = PATH.into_iter().chain([id.as_str(), "rounds"]).collect();
    let rounds = client.list(&path, &[]).await?;
    let columns =
        ["round", "kind", "state", "branch", "position", "total", "parked", "target_commit", "began_at"];
    let lines = table(&rounds, &columns);
    context.output.print(&Value::Array(rounds), &lines)
}

/// Prints events until the process ends; a tail that breaks off is taken up where it was.
pub(super) async fn events(arguments: EventsArgs, context: &Context) -> Result<(), Failure> {
    let EventsArgs { one, branch, after } = arguments;
    let (client, id) = one.find(context).await?;
    let path: Vec<&str> = PATH.into_iter().chain([id.as_str(), "events"]).collect();
    let query: Vec<_> = branch.iter().map(|branch| ("branch", branch.as_str())).collect();
    follow(&client, &path, &query, after, context, line).await
}

fn line(id: Option<&str>, word: &str, data: &Value) -> String {
    match word {
        "gap" => format!("{}  {word}  {}", id.unwrap_or("-"), shown(&data["reason"])),
        _ => format!("{}  {}  {word}  {}", id.unwrap_or("-"), shown(&data["state"]), shown(&data["path"])),
    }
}

/// The columns of a list of statuses.
const STATUS_COLUMNS: [&str; 6] = ["commit", "wanted", "told", "description", "next_attempt_at", "ended"];
/// Statuses that are shown with a watch.
const STATUSES_SHOWN: usize = 5;

pub(super) async fn statuses(one: OneArgs, context: &Context) -> Result<(), Failure> {
    let (client, id) = one.find(context).await?;
    let found = client.list(&[PATH[0], PATH[1], id.as_str(), "statuses"], &[]).await?;
    let lines = status_lines(&found);
    context.output.print(&Value::Array(found), &lines)
}

/// The statuses of a watch that changed last.
pub(super) async fn last_statuses(client: &Client, id: &WatchId) -> Result<Vec<Value>, Failure> {
    let path = [PATH[0], PATH[1], id.as_str(), "statuses"];
    Ok(client.list_at_most(&path, &[], STATUSES_SHOWN).await?.0)
}

/// A line for each status.
pub(super) fn status_lines(statuses: &[Value]) -> Vec<String> {
    table(statuses, &STATUS_COLUMNS)
}
