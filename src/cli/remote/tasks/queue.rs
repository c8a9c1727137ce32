//! `tidings queue`: the queues of an app's tasks, with its token; the staff does it for an app with `--for`.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use http::Method;
use serde_json::{Map, Value, json};
use tidings_actors::model::words::counted;
use tidings_entity::kind::RetryPolicy;

use crate::cli::{
    Code, Context, Failure,
    client::ServerArgs,
    listing,
    output::{fields, table},
    query::QueryArgs,
};

#[derive(Subcommand, Debug)]
pub(crate) enum QueueVerb {
    /// List the queues of the app with their counts
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one queue with its counts, settings and rates, and the watches whose changes fill it
    ///
    /// The rates are tasks per minute, on average over the last hour, as the server that answers measured
    /// them. --json has them minute by minute.
    Show(OneArgs),
    /// Change settings of a queue: an option that is missing leaves its setting as it is
    ///
    /// The queue is created if the app does not have it yet; then each option that is missing has its
    /// default. `none` removes a bound (--max-claimed none, --rate none, --ageing none). `default` brings any
    /// other setting back to its default (--timeout default).
    Set(Box<SetArgs>),
    /// Pause a queue: its tasks are not handed out; workers keep the tasks that they have claimed
    Pause(OneArgs),
    /// Resume a paused queue: its tasks are handed out again
    Resume(OneArgs),
    /// Remove the tasks of a queue that wait, are ready or are set aside; those of a watch stay
    Purge {
        #[command(flatten)]
        one: OneArgs,
        /// Remove the tasks in this state instead
        #[arg(long, value_parser = PossibleValuesParser::new(["failed", "dead", "cancelled"]))]
        state: Option<String>,
        /// Confirm that the tasks are removed for good
        #[arg(long)]
        yes: bool,
    },
}

/// One queue of a server.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The command whose tasks the queue holds, such as mail.send
    #[arg(value_name = "COMMAND")]
    command: String,
}

/// The word that removes a bound.
const NO_BOUND: &str = "none";
/// The word that brings a setting back to its default.
const DEFAULT: &str = "default";

/// A setting of a queue as an option gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueSetting {
    /// The setting gets this value.
    To(u64),
    /// The setting is removed, so that its default applies.
    Removed,
}

/// Reads a number, or the word that removes the setting.
fn number_or(
    word: &'static str,
) -> impl Fn(&str) -> Result<QueueSetting, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        _ if text == word => Ok(QueueSetting::Removed),
        Ok(number) => Ok(QueueSetting::To(number)),
        Err(_) => Err(format!("write a whole number without a unit, or the word {word}")),
    }
}

#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Maximum number of tasks of the queue that workers have claimed at once, or `none`: no bound
    /// [default: none]
    #[arg(long, value_name = "NUMBER", value_parser = number_or(NO_BOUND))]
    max_claimed: Option<QueueSetting>,
    /// Maximum number of claims in any second, or `none`: no bound [default: none]
    #[arg(long, value_name = "NUMBER", value_parser = number_or(NO_BOUND))]
    rate: Option<QueueSetting>,
    /// Number of attempts after which a task is dead [default: 5]
    #[arg(long, value_name = "NUMBER", value_parser = number_or(DEFAULT))]
    max_attempts: Option<QueueSetting>,
    /// How the wait between attempts grows [default: exp_full_jitter]
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(
            RetryPolicy::ALL.iter().map(|policy| policy.as_str()).chain([DEFAULT])
        )
    )]
    retry_policy: Option<String>,
    /// The wait after the first attempt, in seconds [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(DEFAULT))]
    retry_base: Option<QueueSetting>,
    /// The longest wait between attempts, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(DEFAULT))]
    retry_cap: Option<QueueSetting>,
    /// Longest duration of a claim with all its extensions, in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(DEFAULT))]
    timeout: Option<QueueSetting>,
    /// Waiting time that counts as much as one step of priority, in seconds, or `none`: the higher priority
    /// always goes first [default: none]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(NO_BOUND))]
    ageing: Option<QueueSetting>,
    /// How long succeeded, failed and cancelled tasks are kept, in seconds [default: 604800]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(DEFAULT))]
    retention: Option<QueueSetting>,
    /// How long dead tasks are kept, in seconds [default: 2592000]
    #[arg(long, value_name = "SECONDS", value_parser = number_or(DEFAULT))]
    dead_retention: Option<QueueSetting>,
    /// Maximum size of a payload or a result, in bytes [default: 262144]
    #[arg(long, value_name = "BYTES", value_parser = number_or(DEFAULT))]
    payload_bytes: Option<QueueSetting>,
}

/// What a list shows of a queue.
pub(in crate::cli::remote) const COLUMNS: [&str; 8] =
    ["command", "paused", "waiting", "ready", "claimed", "failed", "dead", "oldest_seconds"];
/// What is shown of a watch that fills a queue.
const FILLED_BY: [&str; 6] = ["repository_id", "repository", "branch", "state", "position", "why"];
/// The route of all queues.
const PATH: [&str; 2] = ["api", "queues"];

pub(crate) async fn run(verb: QueueVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        QueueVerb::List { server, query } => {
            let said: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &said).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        QueueVerb::Show(one) => show(&one, context).await,
        QueueVerb::Set(arguments) => {
            let mut body = known(&arguments.one, context).await?;
            change(&mut body, &arguments);
            one_queue(&arguments.one, Method::PUT, None, Some(Value::Object(body)), context).await
        }
        QueueVerb::Pause(one) => one_queue(&one, Method::POST, Some("pause"), None, context).await,
        QueueVerb::Resume(one) => one_queue(&one, Method::POST, Some("resume"), None, context).await,
        QueueVerb::Purge { one, state, yes: false } => Err(Failure::new(
            Code::Usage,
            format!(
                "this removes the {} tasks of {} for good; add --yes",
                state.as_deref().unwrap_or("open"),
                one.command
            ),
        )),
        QueueVerb::Purge { one, state, yes: true } => {
            let (client, mut body) = (context.client(&one.server)?, json!({ "confirm": one.command }));
            if let Some(state) = state {
                body["state"] = json!(state);
            }
            let mut removed = 0;
            loop {
                let path = [PATH[0], PATH[1], &one.command, "purge"];
                let answer = client.call(Method::POST, &path, Some(&body)).await?;
                removed += answer["removed"].as_u64().unwrap_or(0);
                if answer["more"] != json!(true) {
                    let mut line = format!("removed {} of {}", counted(removed, "task"), one.command);
                    let stay = answer["of_watches"].as_u64().unwrap_or(0);
                    if stay > 0 {
                        line.push_str(&format!("; those of a watch stay: {stay}"));
                    }
                    return output.print(&json!({ "removed": removed, "of_watches": stay }), &[line]);
                }
            }
        }
    }
}

/// What a list shows of a queue.
pub(in crate::cli::remote) fn row(queue: &Value) -> Value {
    let counts = &queue["counts"];
    json!({
        "command": queue["command"],
        "paused": queue["paused"],
        "waiting": counts["waiting"],
        "ready": counts["ready"],
        "claimed": counts["claimed"],
        "failed": counts["failed"],
        "dead": counts["dead"],
        "oldest_seconds": queue["oldest_ready_seconds"],
    })
}

async fn one_queue(
    one: &OneArgs,
    method: Method,
    verb: Option<&str>,
    body: Option<Value>,
    context: &Context,
) -> Result<(), Failure> {
    let client = context.client(&one.server)?;
    let path: Vec<&str> = PATH.into_iter().chain([one.command.as_str()]).chain(verb).collect();
    let queue = client.call(method, &path, body.as_ref()).await?;
    context.output.print(&queue, &fields(&queue))
}

/// Shows a queue with the watches whose changes fill it.
async fn show(one: &OneArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client(&one.server)?;
    let mut queue = client.call(Method::GET, &[PATH[0], PATH[1], &one.command], None).await?;
    let filter = format!("command:\"{}\"", one.command);
    let watches = match client.list(&["api", "repositories"], &[("q", filter.as_str())]).await {
        // Commands of one queue are written alike, and a filter does not tell small letters from capitals.
        Ok(all) => all.into_iter().filter(|watch| watch["sink"]["command"] == one.command.as_str()).collect(),
        // A token that is for queues alone may not list watches.
        Err(failure) if failure.code == Code::Permission => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let mut lines = fields(&without_minutes(&queue));
    if !watches.is_empty() {
        lines.push(String::new());
        lines.extend(table(&listing::lines(&watches), &FILLED_BY));
    }
    queue["watches"] = Value::Array(watches);
    context.output.print(&queue, &lines)
}

/// The queue without the rates of each minute, which a person reads on the dashboard.
fn without_minutes(queue: &Value) -> Value {
    let mut shown = queue.clone();
    if let Some(rates) = shown.get_mut("rates").and_then(Value::as_object_mut) {
        rates.remove("minutes");
    }
    shown
}

/// The settings of a queue, none where there is no such queue: what is not named keeps its value.
async fn known(one: &OneArgs, context: &Context) -> Result<Map<String, Value>, Failure> {
    match context.client(&one.server)?.call(Method::GET, &[PATH[0], PATH[1], &one.command], None).await {
        Ok(mut queue) => Ok(queue["settings"].as_object_mut().map(std::mem::take).unwrap_or_default()),
        Err(failure) if failure.code == Code::Data => Ok(Map::new()),
        Err(failure) => Err(failure),
    }
}

/// Changes the settings that the arguments name. A setting that the body does not name gets its default.
fn change(body: &mut Map<String, Value>, arguments: &SetArgs) {
    let numbers = [
        ("max_claimed", arguments.max_claimed),
        ("rate", arguments.rate),
        ("max_attempts", arguments.max_attempts),
        ("retry_base_seconds", arguments.retry_base),
        ("retry_cap_seconds", arguments.retry_cap),
        ("timeout_seconds", arguments.timeout),
        ("ageing_seconds", arguments.ageing),
        ("retention_seconds", arguments.retention),
        ("dead_retention_seconds", arguments.dead_retention),
        ("payload_bytes", arguments.payload_bytes),
    ];
    for (name, setting) in numbers {
        match setting {
            Some(QueueSetting::To(number)) => drop(body.insert(name.to_owned(), number.into())),
            Some(QueueSetting::Removed) => drop(body.remove(name)),
            None => {}
        }
    }
    match arguments.retry_policy.as_deref() {
        Some(DEFAULT) => drop(body.remove("retry_policy")),
        Some(policy) => drop(body.insert("retry_policy".to_owned(), policy.into())),
        None => {}
    }
}
