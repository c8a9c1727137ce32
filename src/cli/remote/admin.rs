//! `tidings admin`: the view and the actions of the staff on a running server.

mod dead_letters;
mod resync;

use clap::{Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};
use tidings_actors::model::words::counted;
use tidings_entity::id::{RepositoryId, SinkId};

use crate::cli::{
    Context, Failure,
    client::ServerArgs,
    listing,
    output::{fields, shown, table},
    query::QueryArgs,
    queue, schedule, words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum AdminVerb {
    /// Show counts over all apps, the work that waits, the disk space of mirrors, and Git hosts under load
    Overview {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the lag and the rates of the last hour, as the server measured them
    Samples {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the servers that share the database, and the shards of each
    Replicas {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the supervision tree of the running server: each actor, its state and its restarts
    Tree {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the watches of all apps, with the reason for those that are behind
    Watches {
        #[command(flatten)]
        server: ServerArgs,
        /// Only watches in this condition; if missing, all
        #[arg(long, value_enum)]
        condition: Option<Condition>,
        /// Only watches of this app, by its id or name
        #[arg(long, value_name = "APP")]
        of: Option<String>,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// List the queues of all apps with their counts
    Queues {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// List the schedules of all apps with their next ticks
    Schedules {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// List the dead letters of all apps, newest first
    DeadLetters(Box<dead_letters::LettersArgs>),
    /// List the sources with the result of their last scan
    Sources {
        #[command(flatten)]
        server: ServerArgs,
        /// Only sources whose last scan failed
        #[arg(long)]
        failing: bool,
    },
    /// Request a scan of a repository soon, through each of its sources
    Scan {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the repository, rep_...
        #[arg(value_parser = words::id::<RepositoryId>("tidings admin sources"))]
        repository: RepositoryId,
    },
    /// Send every file of every watched branch again, to all apps (--all) or to one (--of)
    ///
    /// Use this after a failover of the database that lost acknowledged changes. Paused watches stay paused,
    /// and begin the resync when they are resumed. `tidings repository resync` does the same for one watch.
    Resync(resync::ResyncArgs),
    /// List, open and close the breakers that have failures
    #[command(subcommand)]
    Breaker(BreakerVerb),
    /// List the mirrors with their disk space, the largest first
    Mirrors {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the disk space of the database and the mirrors, in bytes
    Storage {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the settings in force, without secrets
    Settings {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the filter of the log, or change it until the next restart
    LogFilter {
        #[command(flatten)]
        server: ServerArgs,
        /// The new filter, in the syntax of telemetry.log_filter: info, warn,tidings=debug
        filter: Option<String>,
    },
}

/// The condition of a watch.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Condition {
    /// A branch is behind its head, or may be because the last scan failed
    Behind,
    /// A branch is blocked
    Blocked,
    /// The watch is paused
    Paused,
    /// The last scan failed, a breaker is open, or the app is not served
    Failing,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BreakerVerb {
    /// List the breakers that have failures
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Close a breaker by hand: the next attempt is sent at once
    Reset {
        #[command(flatten)]
        server: ServerArgs,
        /// The kind of thing that the breaker guards
        kind: Kind,
        /// The source (src_...), the app (app_... or its name) or the sink (snk_...)
        id: String,
    },
    /// Open a breaker by hand: requests wait for --seconds, then one probe is sent
    Open {
        #[command(flatten)]
        server: ServerArgs,
        /// The kind of thing that the breaker guards
        kind: Kind,
        /// The source (src_...), the app (app_... or its name) or the sink (snk_...)
        id: String,
        /// How long the breaker stays open, in seconds
        #[arg(long, default_value_t = 3_600)]
        seconds: u64,
    },
}

/// The kind of thing that a breaker guards.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// A Git repository, read with one credential
    Source,
    /// The endpoint of an app, or the sink of a watch or a subscription
    Endpoint,
}

fn word<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The columns for samples.
const SAMPLE_COLUMNS: [&str; 8] = [
    "at",
    "lag_ms",
    "behind",
    "dead_letters",
    "acknowledged_per_s",
    "parked_per_s",
    "failed_per_s",
    "scans_per_s",
];
/// The columns for replicas.
const REPLICA_COLUMNS: [&str; 10] =
    ["replica", "name", "version", "role", "address", "shards", "lag_ms", "seen_ms", "started_at", "is_this"];
/// The columns for sources.
const SOURCE_COLUMNS: [&str; 9] = [
    "source",
    "repository",
    "url",
    "app_name",
    "watches",
    "last_change",
    "last_scan_at",
    "next_poll_at",
    "last_error",
];

pub(crate) async fn run(verb: AdminVerb, context: &Context) -> Result<(), Failure> {
    let get = async |server: &ServerArgs, name: &str| {
        context.client(server)?.call(Method::GET, &["api", "admin", name], None).await
    };
    match verb {
        AdminVerb::Overview { server } => print_fields(context, &get(&server, "overview").await?),
        AdminVerb::Settings { server } => print_fields(context, &get(&server, "settings").await?),
        AdminVerb::Storage { server } => print_fields(context, &get(&server, "storage").await?),
        AdminVerb::Samples { server } => {
            let samples = get(&server, "samples").await?;
            print_table(context, samples["items"].clone(), &SAMPLE_COLUMNS)
        }
        AdminVerb::Replicas { server } => print_list(context, &server, "replicas", &REPLICA_COLUMNS).await,
        AdminVerb::Tree { server } => {
            let (tree, mut lines) = (get(&server, "tree").await?, Vec::new());
            branch(&tree, 0, &mut lines);
            context.output.print(&tree, &lines)
        }
        AdminVerb::Mirrors { server } => {
            print_list(context, &server, "mirrors", &["repository", "bytes", "packs", "shallow", "url"]).await
        }
        AdminVerb::Watches { server, condition, of, query } => {
            watches(context, &server, condition, of, query).await
        }
        AdminVerb::Queues { server, query } => {
            print_with_apps(context, (&server, &query), "queues", &queue::COLUMNS, queue::row).await
        }
        AdminVerb::Schedules { server, query } => {
            print_with_apps(context, (&server, &query), "schedules", &schedule::COLUMNS, schedule::row).await
        }
        AdminVerb::DeadLetters(arguments) => dead_letters::run(*arguments, context).await,
        AdminVerb::Sources { server, failing } => {
            let query: &[_] = if failing { &[("failing", "true")] } else { &[] };
            let sources = context.client(&server)?.list(&["api", "admin", "sources"], query).await?;
            print_table(context, Value::Array(sources), &SOURCE_COLUMNS)
        }
        AdminVerb::Scan { server, repository } => {
            let path = ["api", "admin", "repositories", repository.as_str(), "scan"];
            let done = context.client(&server)?.call(Method::POST, &path, None).await?;
            let sources = counted(done["sources"].as_u64().unwrap_or(0), "source");
            let line = format!("{repository} is polled soon, with {sources}");
            context.output.print(&done, &[line])
        }
        AdminVerb::Resync(arguments) => resync::run(arguments, context).await,
        AdminVerb::Breaker(verb) => breaker(verb, context).await,
        AdminVerb::LogFilter { server, filter } => {
            let path = ["api", "admin", "log-filter"];
            let (method, body) = match filter {
                None => (Method::GET, None),
                Some(filter) => (Method::PATCH, Some(json!({ "filter": filter }))),
            };
            let now = context.client(&server)?.call(method, &path, body.as_ref()).await?;
            context.output.print(&now, &[shown(&now["filter"])])
        }
    }
}

async fn watches(
    context: &Context,
    server: &ServerArgs,
    condition: Option<Condition>,
    of: Option<String>,
    filter: QueryArgs,
) -> Result<(), Failure> {
    let client = context.client(server)?;
    let of = match of {
        Some(named) => Some(client.app(&named).await?),
        None => None,
    };
    let condition = condition.map(word);
    let mut query: Vec<_> = condition.iter().map(|word| ("condition", word.as_str())).collect();
    query.extend(of.iter().map(|app| ("app_id", app.as_str())));
    query.extend(filter.said());
    let watches = client.list(&["api", "admin", "watches"], &query).await?;
    let rows: Vec<Value> = watches.iter().map(listing::line).collect();
    let lines = table(&rows, &listing::STAFF_COLUMNS);
    context.output.print(&Value::Array(watches), &lines)
}

async fn breaker(verb: BreakerVerb, context: &Context) -> Result<(), Failure> {
    let (server, kind, id, verb, body) = match verb {
        BreakerVerb::List { server } => {
            let of = ["kind", "id", "app_name", "subscription", "repository"];
            let columns = [&of[..], &["state", "failures", "probe_at", "last_error"]].concat();
            return print_list(context, &server, "breakers", &columns).await;
        }
        BreakerVerb::Reset { server, kind, id } => (server, kind, id, "reset", json!({})),
        BreakerVerb::Open { server, kind, id, seconds } => {
            (server, kind, id, "open", json!({ "seconds": seconds }))
        }
    };
    let client = context.client(&server)?;
    let id = match kind {
        Kind::Endpoint if id.parse::<SinkId>().is_err() => client.app(&id).await?.to_string(),
        Kind::Endpoint | Kind::Source => id,
    };
    let kind = word(kind);
    let path = ["api", "admin", "breakers", &kind, &id, verb];
    let done = client.call(Method::POST, &path, Some(&body)).await?;
    let line = match done["until"].as_str() {
        Some(until) => format!(
            "the breaker of {kind} {id} is open already and stays as it is: its next probe is due at \
             {until}; tidings admin breaker reset closes it"
        ),
        None => format!("the breaker of {kind} {id} becomes {}", shown(&done["state"])),
    };
    context.output.print(&done, &[line])
}

fn print_fields(context: &Context, value: &Value) -> Result<(), Failure> {
    context.output.print(value, &fields(value))
}

/// Every item of a list of the staff.
async fn print_list(
    context: &Context,
    server: &ServerArgs,
    name: &str,
    columns: &[&str],
) -> Result<(), Failure> {
    let items = context.client(server)?.list(&["api", "admin", name], &[]).await?;
    print_table(context, Value::Array(items), columns)
}

/// The items of a list of the staff that match a filter. `row` is what the list of one app shows of an item;
/// the name of its app comes before that.
async fn print_with_apps(
    context: &Context,
    (server, query): (&ServerArgs, &QueryArgs),
    name: &str,
    columns: &[&str],
    row: fn(&Value) -> Value,
) -> Result<(), Failure> {
    let said: Vec<_> = query.said().into_iter().collect();
    let items = context.client(server)?.list(&["api", "admin", name], &said).await?;
    let with_app = |item: &Value| {
        let mut row = row(item);
        row["app"] = item["app_name"].clone();
        row
    };
    let rows: Vec<Value> = items.iter().map(with_app).collect();
    let lines = table(&rows, &[&["app"][..], columns].concat());
    context.output.print(&Value::Array(items), &lines)
}

fn print_table(context: &Context, items: Value, columns: &[&str]) -> Result<(), Failure> {
    let lines = table(items.as_array().map(Vec::as_slice).unwrap_or_default(), columns);
    context.output.print(&items, &lines)
}

fn branch(node: &Value, depth: usize, lines: &mut Vec<String>) {
    let (actor, state) = (shown(&node["actor"]), shown(&node["state"]));
    let (restarts, mailbox) = (shown(&node["restarts"]), shown(&node["mailbox"]));
    let indent = "  ".repeat(depth);
    lines.push(format!("{indent}{actor}  {state}, {restarts} restarts, {mailbox} waiting"));
    for child in node["children"].as_array().into_iter().flatten() {
        branch(child, depth + 1, lines);
    }
}
