//! `tidings hook`: the hooks of an app, with the token of the app; the staff names the app with `--for`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use tidings_entity::kind::HookProvider;

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    secret_file::{self, Purpose},
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum HookVerb {
    /// Create a hook: an address for one Git host, and the secret that the host signs with
    Add(AddArgs),
    /// List the hooks of the app with their addresses
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one hook with its last receipt
    Show(OneArgs),
    /// Change the name of a hook, or the repositories whose scans it may cause; its address and secret stay
    Update {
        #[command(flatten)]
        one: OneArgs,
        /// The new name: letters, digits, '.', '-' and '_'
        #[arg(long)]
        name: Option<String>,
        /// The only repository whose scans the hook may cause: its id, owner/name or address
        #[arg(long, value_name = "REPOSITORY")]
        repository: Option<String>,
        /// Let the hook cause scans of all repositories of the app
        #[arg(long, conflicts_with = "repository")]
        all_repositories: bool,
    },
    /// Replace the secret of a hook; the previous secret is also accepted for --overlap
    Rotate {
        #[command(flatten)]
        one: OneArgs,
        /// File with the new secret; created if it does not exist
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// How long the previous secret is also accepted: 0s, 1h, 1d; at most 30 days
        #[arg(long, default_value = "1d", value_parser = words::overlap)]
        overlap: Duration,
    },
    /// Remove a hook with its receipts: later requests to its address are refused
    Remove(OneArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name of the hook: letters, digits, '.', '-' and '_'
    name: String,
    /// The kind of Git host: github, gitlab or gitea (Gitea and Forgejo)
    #[arg(
        long,
        value_parser = words::word::<HookProvider>(HookProvider::ALL.iter().map(|word| word.as_str()))
    )]
    provider: HookProvider,
    /// The only repository whose scans the hook may cause: its id, owner/name or address; if missing, all
    /// repositories of the app
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// File with the secret that the host signs with; created if it does not exist
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// The arguments that name one hook.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name or the `hook_id` of the hook
    #[arg(value_name = "HOOK")]
    named: String,
}

/// The route of all hooks.
const PATH: [&str; 2] = ["api", "hooks"];
/// The columns of a list of hooks.
const COLUMNS: [&str; 6] = ["name", "provider", "repository_url", "last", "reason", "path"];
/// The columns of a list of receipts.
const RECEIPTS: [&str; 6] = ["receipt_id", "received_at", "event", "ref", "verdict", "reason"];
/// Receipts that are shown with a hook.
const RECEIPTS_SHOWN: usize = 10;

pub(crate) async fn run(verb: HookVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        HookVerb::Add(arguments) => add(arguments, context).await,
        HookVerb::List { server } => {
            let items = context.client(&server)?.list(&PATH, &[]).await?;
            let rows: Vec<Value> = items.iter().map(row).collect();
            output.print(&Value::Array(items), &table(&rows, &COLUMNS))
        }
        HookVerb::Show(one) => show(&one, context).await,
        HookVerb::Update { one, name, repository, all_repositories } => {
            let client = context.client(&one.server)?;
            let mut body = Map::new();
            body.extend(name.map(|name| ("name".to_owned(), json!(name))));
            if let Some(named) = repository {
                body.insert("repository_id".to_owned(), json!(client.watch(&named).await?.to_string()));
            }
            if all_repositories {
                body.insert("repository_id".to_owned(), Value::Null);
            }
            if body.is_empty() {
                let text = "name something to change (see tidings hook update --help)";
                return Err(Failure::new(Code::Usage, text));
            }
            let path = [PATH[0], PATH[1], &one.named];
            let changed = client.call(Method::PATCH, &path, Some(&Value::Object(body))).await?;
            output.print(&changed, &fields(&changed))
        }
        HookVerb::Rotate { one, secret_file, overlap } => {
            let mut body = json!({ "overlap_seconds": overlap.as_secs() });
            if let Some(file) = secret_file {
                body["secret"] = json!(secret_file::read_or_make(&file, Purpose::HookSecret)?.expose());
            }
            let client = context.client(&one.server)?;
            let path = [PATH[0], PATH[1], &one.named, "rotate-secret"];
            let rotated = client.call(Method::POST, &path, Some(&body)).await?;
            print_with_secret(rotated, &client, context)
        }
        HookVerb::Remove(one) => {
            let client = context.client(&one.server)?;
            client.call(Method::DELETE, &[PATH[0], PATH[1], &one.named], None).await?;
            let line = format!(
                "further requests to {} are refused; remove the webhook at the Git host as well",
                one.named
            );
            output.print(&json!({ "removed": one.named }), &[line])
        }
    }
}

async fn add(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let AddArgs { server, name, provider, repository, secret_file } = arguments;
    let client = context.client(&server)?;
    let mut body = json!({ "name": name, "provider": provider.as_str() });
    if let Some(named) = repository {
        body["repository_id"] = json!(client.watch(&named).await?.to_string());
    }
    if let Some(file) = secret_file {
        body["secret"] = json!(secret_file::read_or_make(&file, Purpose::HookSecret)?.expose());
    }
    let made = client.call(Method::POST, &PATH, Some(&body)).await?;
    print_with_secret(made, &client, context)
}

/// Shows a hook with the secret that it was just given, and where the Git host sends.
fn print_with_secret(mut hook: Value, client: &Client, context: &Context) -> Result<(), Failure> {
    let url = client.address_of(hook["path"].as_str().unwrap_or_default());
    hook["url"] = json!(url);
    let mut lines = fields(&hook);
    lines.push("Give the Git host this url and this secret; the secret is not shown again.".to_owned());
    if client.is_of_this_machine() {
        lines.push("The Git host must reach the server: put its public address before the path.".to_owned());
    }
    context.output.print(&hook, &lines)
}

async fn show(one: &OneArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client(&one.server)?;
    let mut hook = client.call(Method::GET, &[PATH[0], PATH[1], &one.named], None).await?;
    let id = shown(&hook["hook_id"]);
    let (receipts, _) = client.list_at_most(&["api", "receipts"], &[("hook", &id)], RECEIPTS_SHOWN).await?;
    let mut lines = fields(&hook);
    if receipts.is_empty() {
        lines.push("no request has arrived yet; let the Git host send a test".to_owned());
    } else {
        lines.extend(table(&receipts, &RECEIPTS));
    }
    hook["receipts"] = Value::Array(receipts);
    context.output.print(&hook, &lines)
}

fn row(hook: &Value) -> Value {
    let last = &hook["last_receipt"];
    json!({
        "name": hook["name"],
        "provider": hook["provider"],
        "repository_url": hook["repository_url"],
        "last": last["verdict"],
        "reason": last["reason"],
        "path": hook["path"],
    })
}
