//! `tidings schedule`: tasks that are created, or repositories that are resynced, at moments of a clock, with
//! the app's token; the staff does it for an app with `--for`.

use clap::{ArgGroup, Args, Subcommand, builder::TypedValueParser};
use http::Method;
use serde_json::{Value, json};
use tidings_entity::kind::{MissedTicks, TickOverlap};

use crate::cli::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{fields, shown, table},
    query::QueryArgs,
    task::json_of,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum ScheduleVerb {
    /// Create a schedule; with --replace, replace all settings of an existing one: an option that is missing
    /// gets its default
    Add(AddArgs),
    /// List the schedules of the app with their next ticks
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one schedule with its next ten ticks
    Show(OneArgs),
    /// Pause a schedule; ticks during the pause create no tasks, not even later
    Pause(OneArgs),
    /// Resume a schedule, beginning with its next tick
    Resume(OneArgs),
    /// Remove a schedule; tasks that it created stay
    Remove(OneArgs),
}

/// One schedule of a server.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name of the schedule, which the app chooses
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("work").args(["command", "resync"]).required(true))]
pub(crate) struct AddArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Cron line: minute, hour, day of the month, month and day of the week; or a word such as '@daily'
    #[arg(long, value_name = "LINE")]
    cron: String,
    /// Time zone of the cron line by its IANA name, such as Europe/Rome
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// Command of the tasks that the schedule creates, which names their queue
    #[arg(long)]
    command: Option<String>,
    /// Resync this repository at each tick, in place of creating a task: its `repository_id`; or owner/name
    /// or its address, if it has one watch
    #[arg(long, value_name = "REPOSITORY",
        conflicts_with_all = ["payload", "priority", "max_attempts", "webhook"])]
    resync: Option<String>,
    /// Payload of the tasks: any JSON, at most 256 KiB
    #[arg(long, value_name = "JSON", default_value = "null")]
    payload: String,
    /// Priority of the tasks, 0 to 9; 9 goes first
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: u8,
    /// Number of attempts after which a task is dead; if missing, the setting of the queue
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// Web address that receives a message when a task ends
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// What to do about ticks that passed while no server ran: one (one task for all of them) or each (a task
    /// for each of the newest 100)
    #[arg(long, default_value = "one", value_parser = missed())]
    missed: MissedTicks,
    /// What to do at a tick while the task of the previous tick has not ended: allow (create the next task),
    /// skip (the tick) or wait (for that end)
    #[arg(long, default_value = "allow", value_parser = overlap())]
    overlap: TickOverlap,
    /// Replace the schedule of this name, if there is one
    #[arg(long)]
    replace: bool,
}

fn missed() -> impl TypedValueParser<Value = MissedTicks> {
    words::word(MissedTicks::ALL.iter().map(|word| word.as_str()))
}

fn overlap() -> impl TypedValueParser<Value = TickOverlap> {
    words::word(TickOverlap::ALL.iter().map(|word| word.as_str()))
}

/// The route of all schedules.
const PATH: [&str; 2] = ["api", "schedules"];
/// What a list shows of each.
pub(in crate::cli::remote) const COLUMNS: [&str; 6] = ["name", "cron", "zone", "command", "paused", "next"];

pub(crate) async fn run(verb: ScheduleVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ScheduleVerb::Add(arguments) => add(arguments, context).await,
        ScheduleVerb::List { server, query } => {
            let said: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &said).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            context.output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        ScheduleVerb::Show(one) => one_schedule(&one, Method::GET, None, context).await,
        ScheduleVerb::Pause(one) => one_schedule(&one, Method::POST, Some("pause"), context).await,
        ScheduleVerb::Resume(one) => one_schedule(&one, Method::POST, Some("resume"), context).await,
        ScheduleVerb::Remove(one) => {
            let client = context.client(&one.server)?;
            client.call(Method::DELETE, &[PATH[0], PATH[1], &one.name], None).await?;
            context.output.print(&json!({ "removed": one.name }), &[format!("{} is removed", one.name)])
        }
    }
}

/// What a list shows of a schedule.
pub(in crate::cli::remote) fn row(schedule: &Value) -> Value {
    let mut row = schedule.clone();
    row["next"] = schedule["next"][0].clone();
    if let Value::String(watch) = &schedule["repository_id"] {
        row["command"] = json!(format!("resync of {watch}"));
    }
    row
}

async fn add(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let AddArgs {
        one,
        cron,
        zone,
        command,
        resync,
        payload,
        priority,
        max_attempts,
        webhook,
        missed,
        overlap,
        replace,
    } = arguments;
    let client = context.client(&one.server)?;
    if !replace {
        match client.call(Method::GET, &[PATH[0], PATH[1], &one.name], None).await {
            Ok(_) => {
                let text = format!("there is a schedule {}: add --replace to replace it", one.name);
                return Err(Failure::new(Code::Data, text));
            }
            Err(failure) if failure.code == Code::Data => {}
            Err(failure) => return Err(failure),
        }
    }
    let path = [PATH[0], PATH[1], &one.name];
    let mut rest = json!({
        "cron": cron, "zone": zone, "missed": missed.as_str(), "overlap": overlap.as_str(),
    });
    if let Some(named) = resync {
        rest["repository_id"] = json!(client.watch(&named).await?.to_string());
        let schedule = client.call(Method::PUT, &path, Some(&rest)).await?;
        return context.output.print(&schedule, &lines(&schedule));
    }
    let payload = json_of("--payload", payload)?;
    rest["command"] = json!(command);
    rest["priority"] = json!(priority);
    if let Some(most) = max_attempts {
        rest["max_attempts"] = json!(most);
    }
    if let Some(webhook) = webhook {
        rest["webhook"] = json!(webhook);
    }
    let rest = rest.to_string();
    let rest = rest.strip_prefix('{').unwrap_or_default();
    let body = format!("{{\"payload\":{},{rest}", payload.get());
    let (status, answer) = client.call_raw(Method::PUT, &path, body).await?;
    if !status.is_success() {
        return Err(client.refused(status, &answer));
    }
    let schedule: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
    context.output.print(&schedule, &lines(&schedule))
}

async fn one_schedule(
    one: &OneArgs,
    method: Method,
    verb: Option<&str>,
    context: &Context,
) -> Result<(), Failure> {
    let client = context.client(&one.server)?;
    let path: Vec<&str> = PATH.into_iter().chain([one.name.as_str()]).chain(verb).collect();
    let schedule = client.call(method, &path, None).await?;
    context.output.print(&schedule, &lines(&schedule))
}

/// A schedule for people: its next ticks stand below each other.
fn lines(schedule: &Value) -> Vec<String> {
    let mut rest = schedule.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("next");
    }
    let ticks = schedule["next"].as_array().into_iter().flatten();
    fields(&rest).into_iter().chain(ticks.map(|tick| format!("next  {}", shown(tick)))).collect()
}
