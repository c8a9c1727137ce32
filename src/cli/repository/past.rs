//! Rounds, changes and the tail of a watch, on the command line.

use clap::Args;
use serde_json::Value;

use super::{
    super::{
        Context, Failure,
        follow::follow,
        output::{shown, table},
    },
    OneArgs, PATH,
};

/// What is said where no change is being delivered.
const NOTHING_OPEN: &str =
    "no such change is being delivered; --round names an ended round (tidings repository rounds)";
/// Which changes of a round.
#[derive(Args, Debug)]
pub(in crate::cli) struct ChangesArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The round; else the one that is being delivered
    #[arg(long)]
    round: Option<i64>,
    /// Which branch, by its short or full name; needed where several are followed
    #[arg(long)]
    branch: Option<String>,
    /// Only of paths that match
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Most of them
    #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
    limit: usize,
}

/// Where a tail begins.
#[derive(Args, Debug)]
pub(in crate::cli) struct EventsArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Which branch, by its short or full name; needed where several are followed
    #[arg(long)]
    branch: Option<String>,
    /// The id of the last event that was seen (ROUND.POSITION); else only what comes from now on
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
