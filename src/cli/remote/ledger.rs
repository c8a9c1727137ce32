//! `tidings ledger`: the entries of an app, with its token; the staff sees all apps, or one with `--for`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{
    Context, Failure,
    client::{Client, ServerArgs},
    follow::follow,
    output::{shown, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum LedgerVerb {
    /// List the entries of the ledger, newest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: LedgerFilter,
        /// Only entries from this moment (RFC 3339) on
        #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
        since: Option<String>,
        /// Only entries before this moment (RFC 3339)
        #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
        until: Option<String>,
        /// With a token of the staff: the entries of all apps instead of the app that --for names
        #[arg(long, conflicts_with = "for_app")]
        all_apps: bool,
        /// At most this number of entries, the newest
        #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = words::limit)]
        limit: usize,
    },
    /// Print entries as they are written, until the process ends
    Follow {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: LedgerFilter,
        /// The id of the last entry already seen, or `beginning`; if missing, only new entries are printed
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// With a token of the staff: the entries of all apps instead of the app that --for names
        #[arg(long, conflicts_with = "for_app")]
        all_apps: bool,
    },
}

/// A filter for ledger entries: those that match all given options.
#[derive(Args, Debug)]
pub(crate) struct LedgerFilter {
    #[command(flatten)]
    query: QueryArgs,
    /// Only entries of these types, separated by commas: watch.blocked,letter.parked
    #[arg(long = "type", value_name = "TYPES")]
    types: Option<String>,
    /// Only entries of this repository: its id, owner/name or address
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only entries about this source, branch, watch, sink or app, by its id
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
}

impl LedgerFilter {
    /// The arguments under the names of the API; the server resolves the repository to a watch.
    async fn query(self, client: &Client) -> Result<Vec<(&'static str, String)>, Failure> {
        let watch = match self.repository {
            Some(named) => Some(client.watch(&named).await?.to_string()),
            None => None,
        };
        let q = self.query.query;
        let said = [("q", q), ("type", self.types), ("repository_id", watch), ("subject", self.subject)];
        Ok(said.into_iter().filter_map(|(name, text)| Some((name, text?))).collect())
    }
}

pub(crate) async fn run(verb: LedgerVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        LedgerVerb::List { server, filter, since, until, all_apps, limit } => {
            let client = context.client(&server)?;
            let mut said = filter.query(&client).await?;
            said.extend([("since", since), ("until", until)].into_iter().filter_map(|(n, v)| Some((n, v?))));
            let query: Vec<_> = said.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let path: &[&str] = if all_apps { &["api", "admin", "ledger"] } else { &["api", "ledger"] };
            let (entries, more) = client.list_at_most(path, &query, limit).await?;
            let rows: Vec<Value> = entries.iter().map(row).collect();
            let columns = ["at", "app_name", "number", "type", "about", "more", "origin", "app_id"];
            let mut lines = table(&rows, if all_apps { &columns[..] } else { &COLUMNS[..] });
            lines.extend(more.then(|| format!("there are more than {limit}; see --limit")));
            context.output.print(&Value::Array(entries), &lines)
        }
        LedgerVerb::Follow { server, filter, after, all_apps } => {
            let client = context.client(&server)?;
            let said = filter.query(&client).await?;
            let query: Vec<_> = said.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let path: &[&str] =
                if all_apps { &["api", "admin", "ledger", "follow"] } else { &["api", "ledger", "follow"] };
            follow(&client, path, &query, after, context, line).await
        }
    }
}

/// The columns of a list of entries.
const COLUMNS: [&str; 6] = ["at", "number", "type", "about", "more", "origin"];

fn row(entry: &Value) -> Value {
    let data = &entry["data"];
    let facts = ["repository", "branch", "url", "path"].map(|fact| data[fact].as_str()).into_iter().flatten();
    let about: Vec<&str> = facts.collect();
    let about = if about.is_empty() { shown(&entry["subject"]) } else { about.join(" ") };
    let count = data["count"].as_u64().filter(|count| *count > 1).map(|count| format!("{count} x "));
    let more = format!("{}{}", count.unwrap_or_default(), data["reason"].as_str().unwrap_or_default());
    json!({
        "at": entry["at"],
        "app_id": entry["app_id"],
        "app_name": entry["app_name"],
        "number": entry["number"],
        "type": entry["type"],
        "about": about,
        "more": more,
        "origin": format!("{} {}", shown(&entry["origin"]["kind"]), shown(&entry["origin"]["name"])),
    })
}

fn line(id: Option<&str>, word: &str, data: &Value) -> String {
    match word {
        "gap" => format!("{}  gap  {}", id.unwrap_or("-"), shown(&data["reason"])),
        _ => {
            let row = row(data);
            let app = Some(shown(&row["app_name"])).filter(|_| row["app_name"].is_string());
            let columns = ["at", "type", "about", "more"].map(|column| shown(&row[column]));
            let columns: Vec<String> = app.into_iter().chain(columns).collect();
            format!("{}  {}", id.unwrap_or("-"), columns.join("  "))
        }
    }
}
