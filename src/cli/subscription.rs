//! `tidings subscription`: who is sent the entries of a ledger, with the token of the app; the staff does it
//! for an app with `--for`.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    query::QueryArgs,
};

#[derive(Subcommand, Debug)]
pub(super) enum SubscriptionVerb {
    /// Send entries of the ledger to an address
    Add(Box<AddArgs>),
    /// List the subscriptions of the app
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one subscription with its last tries
    Show(OneArgs),
    /// Send a test message now; exit code 0 if it is taken
    Test(OneArgs),
    /// Send nothing until it is resumed
    Pause(OneArgs),
    /// Go on, at once
    Resume(OneArgs),
    /// Send one entry now, such as one that was skipped; exit code 0 if it is taken
    Send {
        #[command(flatten)]
        one: OneArgs,
        /// The number of the entry
        number: u64,
    },
    /// End a subscription
    Remove(OneArgs),
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Its name: letters, digits, '.', '-' and '_'
    name: String,
    /// Where entries go: https://host/path, or nats://host/subject.prefix
    #[arg(long)]
    url: String,
    /// Only the entries that this filter means, such as 'type:source.failing'; docs/filters.md tells what a
    /// filter may say
    #[arg(long, value_name = "FILTER", default_value = "")]
    filter: String,
    /// What bodies look like: docora (plain JSON) or cloudevents
    #[arg(long, value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    format: Option<String>,
    /// Begin with the entry of this number, not with the next one that is written
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// End at this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
}

/// One subscription of a server.
#[derive(Args, Debug)]
pub(super) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Its name or its `subscription_id`
    #[arg(value_name = "SUBSCRIPTION")]
    named: String,
}

/// The route of all subscriptions.
const PATH: [&str; 2] = ["api", "subscriptions"];
/// What a list shows of each.
const COLUMNS: [&str; 7] = ["name", "state", "position", "filter", "kind", "url", "why"];
/// What is shown of each try.
const TRIES: [&str; 6] = ["ended_at", "entry", "number", "http_status", "took_ms", "excerpt"];
/// Tries that are shown with a subscription.
const TRIES_SHOWN: usize = 10;

pub(super) async fn run(verb: SubscriptionVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        SubscriptionVerb::Add(arguments) => add(*arguments, context).await,
        SubscriptionVerb::List { server, query } => {
            let query: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &query).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        SubscriptionVerb::Show(one) => show(&one, context).await,
        SubscriptionVerb::Test(one) => {
            let (_, outcome) = call(&one, context, Method::POST, Some("test"), None).await?;
            answered(&outcome, context)
        }
        SubscriptionVerb::Pause(one) => act(&one, context, "pause").await,
        SubscriptionVerb::Resume(one) => act(&one, context, "resume").await,
        SubscriptionVerb::Send { one, number } => {
            let body = json!({ "number": number });
            let (_, outcome) = call(&one, context, Method::POST, Some("send"), Some(&body)).await?;
            answered(&outcome, context)
        }
        SubscriptionVerb::Remove(one) => {
            call(&one, context, Method::DELETE, None, None).await?;
            let line = format!("{} is sent nothing any more", one.named);
            output.print(&json!({ "removed": one.named }), &[line])
        }
    }
}

async fn add(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let AddArgs { server, name, url, filter, format, from, expires_at } = arguments;
    let mut sink = Map::new();
    sink.insert("url".to_owned(), json!(url));
    sink.extend(format.map(|format| ("format".to_owned(), json!(format))));
    let mut body = json!({ "name": name, "filter": filter, "sink": sink });
    if let Some(from) = from {
        body["from"] = json!(from);
    }
    if let Some(expires_at) = expires_at {
        body["expires_at"] = json!(expires_at);
    }
    let made = context.client(&server)?.call(Method::POST, &PATH, Some(&body)).await?;
    let mut lines = fields(&made);
    lines.push("The signing secret is not shown again.".to_owned());
    context.output.print(&made, &lines)
}

async fn show(one: &OneArgs, context: &Context) -> Result<(), Failure> {
    let (client, found) = call(one, context, Method::GET, None, None).await?;
    let id = shown(&found["subscription_id"]);
    let path = [PATH[0], PATH[1], &id, "attempts"];
    let (tries, _) = client.list_at_most(&path, &[], TRIES_SHOWN).await?;
    let mut lines = fields(&found);
    lines.extend(table(&tries, &TRIES));
    let mut all = found;
    all["attempts"] = Value::Array(tries);
    context.output.print(&all, &lines)
}

/// Calls a route of one subscription; the client, and the answer.
async fn call(
    one: &OneArgs,
    context: &Context,
    method: Method,
    verb: Option<&str>,
    body: Option<&Value>,
) -> Result<(Client, Value), Failure> {
    let client = context.client(&one.server)?;
    let path: Vec<&str> = PATH.into_iter().chain([one.named.as_str()]).chain(verb).collect();
    let answer = client.call(method, &path, body).await?;
    Ok((client, answer))
}

async fn act(one: &OneArgs, context: &Context, verb: &str) -> Result<(), Failure> {
    let (_, done) = call(one, context, Method::POST, Some(verb), None).await?;
    let line = format!("{} is {}", shown(&done["name"]), shown(&done["state"]));
    context.output.print(&done, &[line])
}

/// Tells what was answered to one message.
fn answered(outcome: &Value, context: &Context) -> Result<(), Failure> {
    let said = match outcome["status"].as_u64() {
        Some(status) => format!("status {status}"),
        None => shown(&outcome["failure"]),
    };
    let line = format!("{} answered {said}", shown(&outcome["url"]));
    context.output.print(outcome, &[line])?;
    if outcome["accepted"] == true {
        return Ok(());
    }
    Err(Failure::new(Code::Data, format!("it was not taken: {}", shown(&outcome["detail"]))))
}

fn row(one: &Value) -> Value {
    let sink = &one["sink"];
    let why = if one["reason"].is_null() { &sink["disabled"] } else { &one["reason"] };
    json!({
        "name": one["name"],
        "state": one["state"],
        "position": format!("{}/{}", shown(&one["position"]), shown(&one["last"])),
        "filter": one["filter"],
        "kind": sink["kind"],
        "url": sink["url"],
        "why": why,
    })
}
