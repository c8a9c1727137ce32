//! `tidings subscription`: sends entries of a ledger to sinks, with the token of the app; the staff names the
//! app with `--for`.

mod settings;

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum SubscriptionVerb {
    /// Send entries of the ledger to an HTTP address, to a stream, or by mail
    Add(Box<settings::AddArgs>),
    /// Change a subscription; options that are missing leave the setting unchanged
    Update(Box<settings::UpdateArgs>),
    /// List the subscriptions of the app with their sinks and positions
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one subscription with its last attempts
    Show(OneArgs),
    /// List the attempts of a subscription, newest first
    Attempts {
        #[command(flatten)]
        one: OneArgs,
        /// Only attempts of the entry with this number
        #[arg(long, value_name = "NUMBER")]
        number: Option<u64>,
        /// At most this number of attempts, the newest
        #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = words::limit)]
        limit: usize,
    },
    /// Replace the signing key of the sink; the previous key also signs for --overlap
    RotateKey {
        #[command(flatten)]
        one: OneArgs,
        /// How long the previous key also signs: 0s, 1h, 1d; at most 30 days
        #[arg(long, default_value = "1d", value_parser = words::overlap)]
        overlap: Duration,
    },
    /// Send a test message now; exit code 0 if the sink accepts it
    Test(OneArgs),
    /// Pause a subscription: nothing is sent until it is resumed
    Pause(OneArgs),
    /// Resume a subscription; its next message is tried at once
    Resume(OneArgs),
    /// Send one entry now, such as a skipped one; exit code 0 if the sink accepts it
    Send {
        #[command(flatten)]
        one: OneArgs,
        /// The number of the entry in the ledger
        number: u64,
    },
    /// Remove a subscription with its sink and its attempts
    Remove(OneArgs),
}

/// The arguments that name one subscription.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name of the subscription, or its `subscription_id`
    #[arg(value_name = "SUBSCRIPTION")]
    named: String,
}

/// The route of all subscriptions.
const PATH: [&str; 2] = ["api", "subscriptions"];
/// The columns of a list of subscriptions.
const COLUMNS: [&str; 7] = ["name", "state", "position", "filter", "kind", "url", "why"];
/// The columns of a list of attempts.
const TRIES: [&str; 6] = ["ended_at", "entry", "number", "http_status", "took_ms", "excerpt"];
/// Tries that are shown with a subscription.
const TRIES_SHOWN: usize = 10;

pub(crate) async fn run(verb: SubscriptionVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        SubscriptionVerb::Add(arguments) => settings::add(*arguments, context).await,
        SubscriptionVerb::Update(arguments) => settings::update(*arguments, context).await,
        SubscriptionVerb::List { server, query } => {
            let query: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &query).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        SubscriptionVerb::Show(one) => show(&one, context).await,
        SubscriptionVerb::Attempts { one, number, limit } => {
            let client = context.client(&one.server)?;
            let path = [PATH[0], PATH[1], one.named.as_str(), "attempts"];
            let number = number.map(|number| number.to_string());
            let query: Vec<_> = number.iter().map(|number| ("number", number.as_str())).collect();
            let (tries, _) = client.list_at_most(&path, &query, limit).await?;
            let lines = table(&tries, &TRIES);
            output.print(&Value::Array(tries), &lines)
        }
        SubscriptionVerb::RotateKey { one, overlap } => {
            let body = json!({ "overlap_seconds": overlap.as_secs() });
            let (_, done) = call(&one, context, Method::POST, Some("rotate-key"), Some(&body)).await?;
            settings::print_with_secret(&done, context)
        }
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

/// Calls a route of one subscription. Returns the client, and the answer.
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

/// Prints the answer to one message.
fn answered(outcome: &Value, context: &Context) -> Result<(), Failure> {
    let url = shown(&outcome["url"]);
    let line = match (outcome["status"].as_u64(), outcome["failure"].as_str()) {
        (Some(status), _) => format!("{url} answered status {status}"),
        (None, Some("timeout")) => format!("{url} did not answer in time"),
        (None, Some("refused")) => format!("{url} was not asked: a rule of this server forbids it"),
        (None, _) => format!("{url} cannot be reached"),
    };
    context.output.print(outcome, &[line])?;
    if outcome["accepted"] == true {
        return Ok(());
    }
    let why = match outcome["detail"].as_str() {
        None | Some("") => "the answer says no reason".to_owned(),
        Some(_) => shown(&outcome["detail"]),
    };
    Err(Failure::new(Code::Failed, format!("{url} did not take the message: {why}")))
}

fn row(one: &Value) -> Value {
    let sink = &one["sink"];
    let why = if one["reason"].is_null() { &sink["disabled"] } else { &one["reason"] };
    json!({
        "name": one["name"],
        "state": one["state"],
        "position": format!("{}/{}", shown(&one["position"]), shown(&one["last"])),
        // Of a callback the address alone says which tasks it is of.
        "filter": one["filter"],
        "kind": sink["kind"],
        "url": sink["url"],
        "why": why,
    })
}
