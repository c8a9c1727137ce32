//! `tidings task`: tasks of an app, with its token; the staff looks at them and sends them again with
//! `--for`.

pub(crate) mod artifact;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json, value::RawValue};
use tidings_actors::model::task::ClaimToken;
use tidings_actors::model::words::counted;
use tidings_entity::{id::TaskId, kind::TaskState};

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum TaskVerb {
    /// Create a task, which a worker claims by its command
    Create(CreateArgs),
    /// Claim tasks, until they are ended or given back or the claim expires; exit code 65 if no task is ready
    Claim(ClaimArgs),
    /// Extend a claim, counted from now, and report progress
    Heartbeat {
        #[command(flatten)]
        word: WordArgs,
        /// Seconds from now until the claim ends, 1 to 3600; if missing, 300
        #[arg(long, value_name = "SECONDS")]
        extend: Option<u64>,
        /// Progress of the work, any JSON, for people
        #[arg(long, value_name = "JSON")]
        progress: Option<String>,
    },
    /// Complete a claimed task, with or without a result
    Complete {
        #[command(flatten)]
        word: WordArgs,
        /// Result of the task, any JSON; if missing, the task has none
        #[arg(long, value_name = "JSON")]
        result: Option<String>,
    },
    /// Give back a task that could not be done this time; it is tried again
    Nack {
        #[command(flatten)]
        word: WordArgs,
        /// Seconds until the task is tried again; if missing, as the policy of its queue says
        #[arg(long, value_name = "SECONDS")]
        delay: Option<u64>,
        /// Why the task could not be done, for people
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give back a task that was not started; the attempt is not counted, the first 100 times
    Abandon {
        #[command(flatten)]
        word: WordArgs,
        /// Seconds until another worker can claim the task; if missing, at once
        #[arg(long, value_name = "SECONDS")]
        delay: Option<u64>,
    },
    /// Fail a task for good: it is not tried again
    Fail {
        #[command(flatten)]
        word: WordArgs,
        /// Why the task failed, as a text for people
        #[arg(long)]
        error: String,
    },
    /// List the tasks of the app, newest first
    List(ListArgs),
    /// Show one task with its payload, result, progress and claims, and its change if a watch made it
    Show(OneArgs),
    /// Cancel a task; a worker that has claimed it may still end it, for at most 60 seconds
    Cancel(OneArgs),
    /// Redrive tasks that failed, are dead or were cancelled
    Redrive(RedriveArgs),
    /// Store, fetch, list and remove files that belong to a task
    #[command(subcommand)]
    Artifact(artifact::ArtifactVerb),
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Command of the task, which is its queue: letters, digits and '_.:-'
    command: String,
    /// Payload of the task: any JSON, at most 256 KiB
    #[arg(long, value_name = "JSON", default_value = "null")]
    payload: String,
    /// Priority of the task, 0 to 9; 9 goes first
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: u8,
    /// Seconds until the task is due; if missing, at once
    #[arg(long, value_name = "SECONDS")]
    delay: Option<u64>,
    /// Number of attempts after which the task is dead; if missing, the setting of its queue
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// Key of this request: a second request with the same key creates no second task
    #[arg(long)]
    key: Option<String>,
    /// A web address that is sent a message when the task ends
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ClaimArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Commands whose tasks are claimed, such as mail.send
    #[arg(required = true)]
    commands: Vec<String>,
    /// Maximum number of tasks to claim, 1 to 100
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Duration of the claim, in seconds, 1 to 3600; if missing, 300
    #[arg(long, value_name = "SECONDS")]
    claim: Option<u64>,
    /// Seconds to wait for a task if none is ready, 0 to 20
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=20)
    )]
    wait: u64,
}

/// A request about a claimed task.
#[derive(Args, Debug)]
pub(crate) struct WordArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The token of the claim, from the answer that handed out the task
    #[arg(value_parser = token)]
    token: ClaimToken,
}

fn token(text: &str) -> Result<ClaimToken, String> {
    text.parse().map_err(|()| "a token comes from `tidings task claim`, as tsk_...".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only tasks with this command
    #[arg(long)]
    command: Option<String>,
    /// Only tasks in this state; if missing, in any state
    #[arg(long, value_parser = words::word::<TaskState>(TaskState::ALL.iter().map(|word| word.as_str())))]
    state: Option<TaskState>,
    /// Only tasks that match this filter, such as 'state:dead since:-2h'; docs/filters.md describes filters
    #[arg(long, short, value_name = "FILTER")]
    query: Option<String>,
}

/// One task of a server.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The id of the task, tsk_...
    #[arg(value_name = "TASK", value_parser = words::id::<TaskId>("tidings task list"))]
    id: TaskId,
}

#[derive(Args, Debug)]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The id of one task, tsk_...
    #[arg(value_name = "TASK", value_parser = words::id::<TaskId>("tidings task list"))]
    id: Option<TaskId>,
    /// Only tasks with this command
    #[arg(long, conflicts_with = "id")]
    command: Option<String>,
    /// Only tasks that match this filter; docs/filters.md describes filters
    #[arg(long, short, value_name = "FILTER", conflicts_with = "id")]
    query: Option<String>,
    /// Every task that failed, is dead or was cancelled
    #[arg(long, conflicts_with_all = ["id", "command", "query"])]
    all: bool,
    /// Only count the tasks; redrive none
    #[arg(long, conflicts_with = "id")]
    dry_run: bool,
}

/// The route of all tasks.
const PATH: [&str; 2] = ["api", "tasks"];
/// What a list shows of each.
const COLUMNS: [&str; 6] = ["id", "command", "state", "attempts", "created_at", "error"];

pub(crate) async fn run(verb: TaskVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        TaskVerb::Create(arguments) => create(arguments, context).await,
        TaskVerb::Claim(arguments) => claim(arguments, context).await,
        TaskVerb::Heartbeat { word, extend, progress } => {
            let progress = progress.map(|text| json_of("--progress", text)).transpose()?;
            let said = [
                ("extend_seconds", extend.map(|seconds| seconds.to_string())),
                ("progress", progress.map(|text| text.get().to_owned())),
            ];
            say_raw(&word, "heartbeat", said, context).await
        }
        TaskVerb::Complete { word, result } => {
            let result = result.map(|text| json_of("--result", text)).transpose()?;
            let said = [("result", result.map(|text| text.get().to_owned()))];
            say_raw(&word, "complete", said, context).await
        }
        TaskVerb::Nack { word, delay, reason } => {
            say(&word, "nack", json!({ "delay_seconds": delay, "reason": reason }), context).await
        }
        TaskVerb::Abandon { word, delay } => {
            say(&word, "abandon", json!({ "delay_seconds": delay }), context).await
        }
        TaskVerb::Fail { word, error } => say(&word, "fail", json!({ "error": error }), context).await,
        TaskVerb::List(arguments) => list(arguments, context).await,
        TaskVerb::Show(one) => {
            let client = context.client(&one.server)?;
            let task = client.call(Method::GET, &[PATH[0], PATH[1], one.id.as_str()], None).await?;
            context.output.print(&task, &whole(&task))
        }
        TaskVerb::Cancel(one) => act(&one.server, &one.id, "cancel", context).await,
        TaskVerb::Redrive(arguments) => redrive(arguments, context).await,
        TaskVerb::Artifact(verb) => artifact::run(verb, context).await,
    }
}

/// The fields of a task, and below them its claims.
fn whole(task: &Value) -> Vec<String> {
    let mut rest = task.clone();
    let claims = rest.as_object_mut().and_then(|rest| rest.remove("claims"));
    let claims = claims.and_then(|claims| claims.as_array().cloned()).unwrap_or_default();
    let mut lines = fields(&rest);
    if !claims.is_empty() {
        lines.push(String::new());
        lines.extend(table(&claims, &["claimed_at", "ended_at", "end", "worker", "reason"]));
    }
    lines
}

/// JSON that was given on the command line, which stays as it is.
pub(crate) fn json_of(option: &str, text: String) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(text).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("{option} must be JSON ({error}); a text stands in quotation marks"),
        )
    })
}

async fn create(arguments: CreateArgs, context: &Context) -> Result<(), Failure> {
    let CreateArgs { server, command, payload, priority, delay, max_attempts, key, webhook } = arguments;
    let client = context.client(&server)?;
    let payload = json_of("--payload", payload)?;
    let mut rest = json!({ "command": command, "priority": priority });
    for (name, value) in [
        ("delay_seconds", json!(delay)),
        ("max_attempts", json!(max_attempts)),
        ("key", json!(key)),
        ("webhook", json!(webhook)),
    ] {
        if !value.is_null() {
            rest[name] = value;
        }
    }
    let rest = rest.to_string();
    let rest = rest.strip_prefix('{').unwrap_or_default();
    let body = format!("{{\"payload\":{},{rest}", payload.get());
    let (status, answer) = client.call_raw(Method::POST, &PATH, body).await?;
    if !status.is_success() {
        return Err(client.refused(status, &answer));
    }
    let made: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
    let line = match made["created"] == json!(true) {
        true => shown(&made["id"]),
        false => format!("{} was there already", shown(&made["id"])),
    };
    context.output.print(&made, &[line])
}

async fn claim(arguments: ClaimArgs, context: &Context) -> Result<(), Failure> {
    let ClaimArgs { server, commands, count, claim, wait } = arguments;
    let mut body = json!({ "commands": commands, "count": count, "wait_seconds": wait });
    if let Some(seconds) = claim {
        body["claim_seconds"] = json!(seconds);
    }
    let client = context.client(&server)?;
    let answer = client.call(Method::POST, &[PATH[0], PATH[1], "claim"], Some(&body)).await?;
    let tasks = answer["tasks"].as_array().cloned().unwrap_or_default();
    let lines: Vec<String> = tasks.iter().flat_map(fields).collect();
    context.output.print(&json!({ "tasks": tasks }), &lines)?;
    if tasks.is_empty() {
        let text = format!("no task of {} is ready, so none was claimed", commands.join(", "));
        return Err(Failure::new(Code::Data, text));
    }
    Ok(())
}

/// Sends a request about a claimed task; the values are JSON, which stays as it is.
async fn say_raw<const N: usize>(
    word: &WordArgs,
    verb: &str,
    said: [(&str, Option<String>); N],
    context: &Context,
) -> Result<(), Failure> {
    let mut body = format!("{{\"token\":\"{}\"", word.token);
    for (name, value) in said {
        if let Some(value) = value {
            body.push_str(&format!(",\"{name}\":{value}"));
        }
    }
    body.push('}');
    let client = context.client(&word.server)?;
    let task = word.token.task.to_string();
    let (status, answer) = client.call_raw(Method::POST, &[PATH[0], PATH[1], &task, verb], body).await?;
    if !status.is_success() {
        return Err(client.refused(status, &answer));
    }
    let answer = serde_json::from_slice(&answer).unwrap_or(Value::Null);
    context.output.print(&answer, &fields(&answer))
}

async fn say(word: &WordArgs, verb: &str, mut body: Value, context: &Context) -> Result<(), Failure> {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body["token"] = json!(word.token.to_string());
    let client = context.client(&word.server)?;
    let task = word.token.task.to_string();
    let answer = client.call(Method::POST, &[PATH[0], PATH[1], &task, verb], Some(&body)).await?;
    context.output.print(&answer, &fields(&answer))
}

async fn list(arguments: ListArgs, context: &Context) -> Result<(), Failure> {
    let ListArgs { server, command, state, query } = arguments;
    let pairs = [("command", command), ("state", state.map(|state| state.to_string())), ("q", query)];
    let query: Vec<(&str, &str)> =
        pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let items = context.client(&server)?.list(&PATH, &query).await?;
    let lines = table(&items, &COLUMNS);
    context.output.print(&Value::Array(items), &lines)
}

async fn act(server: &ServerArgs, id: &TaskId, verb: &str, context: &Context) -> Result<(), Failure> {
    let client = context.client(server)?;
    let answer = client.call(Method::POST, &[PATH[0], PATH[1], id.as_str(), verb], None).await?;
    context.output.print(&answer, &fields(&answer))
}

async fn redrive(arguments: RedriveArgs, context: &Context) -> Result<(), Failure> {
    let RedriveArgs { server, id, command, query, all, dry_run } = arguments;
    if let Some(id) = id {
        return act(&server, &id, "redrive", context).await;
    }
    if command.is_none() && query.is_none() && !all {
        let text =
            "name a task, or give --command, --query, or --all for every failed, dead and cancelled task";
        return Err(Failure::new(Code::Usage, text));
    }
    let mut body = json!({ "dry_run": dry_run, "all": all });
    for (name, value) in [("command", command), ("q", query)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let client = context.client(&server)?;
    let mut count = 0;
    loop {
        let answer = redriven(&client, &body).await.map_err(|failure| so_far(count, failure))?;
        count += answer["count"].as_u64().unwrap_or(0);
        if answer["more"] != json!(true) || dry_run {
            let verb = if dry_run { "would send" } else { "sent" };
            let more = if answer["more"] == json!(true) { ", and there are more" } else { "" };
            let line = format!("{verb} {} again{more}", counted(count, "task"));
            return context.output.print(&json!({ "count": count, "dry_run": dry_run }), &[line]);
        }
    }
}

/// Adds to a failure how far the redrive came before it: those tasks stay sent.
fn so_far(count: u64, failure: Failure) -> Failure {
    if count == 0 {
        return failure;
    }
    let sent = counted(count, "task");
    let message = format!("sent {sent} again, and the rest is for a later request: {}", failure.message);
    Failure { message, ..failure }
}

async fn redriven(client: &Client, body: &Value) -> Result<Value, Failure> {
    client.call(Method::POST, &[PATH[0], PATH[1], "redrive"], Some(body)).await
}
