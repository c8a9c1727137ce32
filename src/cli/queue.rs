//! `tidings queue`: the queues of an app's tasks, with its token; the staff does it for an app with `--for`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use tidings_actors::model::words::counted;
use tidings_entity::kind::RetryPolicy;

use super::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{fields, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(super) enum QueueVerb {
    /// List the queues of the app with their counts
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one queue with its counts and settings
    Show(OneArgs),
    /// Create a queue, or replace its settings; settings that are not given get their defaults
    Set(SetArgs),
    /// Pause a queue: its tasks are not handed out; workers keep the tasks that they have claimed
    Pause(OneArgs),
    /// Resume a paused queue: its tasks are handed out again
    Resume(OneArgs),
    /// Remove the tasks of a queue that wait, are ready or are set aside
    Purge {
        #[command(flatten)]
        one: OneArgs,
        /// Confirm that the tasks are removed
        #[arg(long)]
        yes: bool,
    },
}

/// One queue of a server.
#[derive(Args, Debug)]
pub(super) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The command of the queue
    #[arg(value_name = "COMMAND")]
    command: String,
}

#[derive(Args, Debug)]
pub(super) struct SetArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Maximum number of tasks of the queue that workers have claimed at once
    #[arg(long, value_name = "NUMBER")]
    max_claimed: Option<u64>,
    /// Maximum number of claims in any second
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u32>,
    /// Number of attempts after which a task is dead [default: 5]
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// How the wait between attempts grows [default: exp_full_jitter]
    #[arg(long, value_parser = words::word::<RetryPolicy>(RetryPolicy::ALL.iter().map(|word| word.as_str())))]
    retry_policy: Option<RetryPolicy>,
    /// The wait after the first attempt, in seconds [default: 5]
    #[arg(long, value_name = "SECONDS")]
    retry_base: Option<u64>,
    /// The longest wait between attempts, in seconds [default: 900]
    #[arg(long, value_name = "SECONDS")]
    retry_cap: Option<u64>,
    /// Longest duration of a claim with all its extensions, in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Waiting time that counts as much as one step of priority, in seconds
    #[arg(long, value_name = "SECONDS")]
    ageing: Option<u64>,
    /// How long ended tasks are kept, in seconds [default: 604800]
    #[arg(long, value_name = "SECONDS")]
    retention: Option<u64>,
    /// How long dead tasks are kept, in seconds [default: 2592000]
    #[arg(long, value_name = "SECONDS")]
    dead_retention: Option<u64>,
    /// Maximum size of a payload or a result, in bytes [default: 262144]
    #[arg(long, value_name = "BYTES", value_parser = words::bytes)]
    payload_bytes: Option<u64>,
}

/// What a list shows of a queue.
const COLUMNS: [&str; 8] =
    ["command", "paused", "waiting", "ready", "claimed", "failed", "dead", "oldest_seconds"];
/// The route of all queues.
const PATH: [&str; 2] = ["api", "queues"];

pub(super) async fn run(verb: QueueVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        QueueVerb::List { server, query } => {
            let said: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &said).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        QueueVerb::Show(one) => one_queue(&one, Method::GET, None, None, context).await,
        QueueVerb::Set(arguments) => {
            let body = settings(&arguments);
            let known = known(&arguments.one, context).await?;
            let body = known.into_iter().chain(body).collect();
            one_queue(&arguments.one, Method::PUT, None, Some(Value::Object(body)), context).await
        }
        QueueVerb::Pause(one) => one_queue(&one, Method::POST, Some("pause"), None, context).await,
        QueueVerb::Resume(one) => one_queue(&one, Method::POST, Some("resume"), None, context).await,
        QueueVerb::Purge { one, yes: false } => Err(Failure::new(
            Code::Usage,
            format!("this removes the open tasks of {} for good: say it with --yes", one.command),
        )),
        QueueVerb::Purge { one, yes: true } => {
            let (client, body) = (context.client(&one.server)?, json!({ "confirm": one.command }));
            let mut removed = 0;
            loop {
                let path = [PATH[0], PATH[1], &one.command, "purge"];
                let answer = client.call(Method::POST, &path, Some(&body)).await?;
                removed += answer["removed"].as_u64().unwrap_or(0);
                if answer["more"] != json!(true) {
                    let line = format!("removed {} of {}", counted(removed, "task"), one.command);
                    return output.print(&json!({ "removed": removed }), &[line]);
                }
            }
        }
    }
}

/// The queues of all apps, for the staff.
pub(super) async fn all(server: &ServerArgs, query: &QueryArgs, context: &Context) -> Result<(), Failure> {
    let said: Vec<_> = query.said().into_iter().collect();
    let items = context.client(server)?.list(&["api", "admin", "queues"], &said).await?;
    let with_app = |queue: &Value| {
        let mut row = row(queue);
        row["app"] = queue["app_name"].clone();
        row
    };
    let rows: Vec<Value> = items.iter().map(with_app).collect();
    let columns = [&["app"][..], &COLUMNS].concat();
    context.output.print(&Value::Array(items), &table(&rows, &columns))
}

/// What a list shows of a queue.
fn row(queue: &Value) -> Value {
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

/// The settings of a queue, none where there is no such queue: what is not named keeps its value.
async fn known(one: &OneArgs, context: &Context) -> Result<Map<String, Value>, Failure> {
    match context.client(&one.server)?.call(Method::GET, &[PATH[0], PATH[1], &one.command], None).await {
        Ok(mut queue) => Ok(queue["settings"].as_object_mut().map(std::mem::take).unwrap_or_default()),
        Err(failure) if failure.code == Code::Data => Ok(Map::new()),
        Err(failure) => Err(failure),
    }
}

fn settings(arguments: &SetArgs) -> Map<String, Value> {
    let body = json!({
        "max_claimed": arguments.max_claimed,
        "rate": arguments.rate,
        "max_attempts": arguments.max_attempts,
        "retry_policy": arguments.retry_policy.map(|policy| policy.as_str()),
        "retry_base_seconds": arguments.retry_base,
        "retry_cap_seconds": arguments.retry_cap,
        "timeout_seconds": arguments.timeout,
        "ageing_seconds": arguments.ageing,
        "retention_seconds": arguments.retention,
        "dead_retention_seconds": arguments.dead_retention,
        "payload_bytes": arguments.payload_bytes,
    });
    let Value::Object(mut body) = body else { unreachable!("it is an object") };
    body.retain(|_, value| !value.is_null());
    body
}
