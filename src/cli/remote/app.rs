//! `tidings app`: registers and looks after apps of a running server.

pub(crate) mod attempts;
pub(crate) mod endpoint_access;
mod update;

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    query::QueryArgs,
    secret_file::{self, Purpose},
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum AppVerb {
    /// Register an app; prints its token and signing secret, which are never shown again
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// Name of the app, 3 to 100 characters; it need not be unique
        #[arg(long)]
        name: String,
        /// The email address of a person to contact about the app
        #[arg(long)]
        email: String,
        /// Address that receives the changes (https:// or nats://); if missing, the app pulls its changes
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
        /// Address of a web page about the app, for people
        #[arg(long, value_name = "URL")]
        website: Option<String>,
        /// What the app is for, in at most 500 characters, for people
        #[arg(long)]
        description: Option<String>,
        /// File with the key that signs deliveries; if the file does not exist, it is created with a new key
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
    },
    /// List all apps (token of the staff)
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one app (token of the staff), or the app whose token is used
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// The id or name of the app; missing: the app whose token is used
        #[arg(value_name = "ID_OR_NAME")]
        id: Option<String>,
    },
    /// Change the app whose token is used; options that are missing leave the setting unchanged
    Update {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        change: Box<update::UpdateArgs>,
    },
    /// Show lag and rates of the app in the last hour, minute by minute, as the server measured them
    Samples {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send a test delivery to the endpoint of the app whose token is used; exit code 0 if the endpoint
    /// accepts it
    Test {
        #[command(flatten)]
        server: ServerArgs,
        /// Test this address instead of the address of the app
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
    },
    /// Replace the signing key; older keys also sign for --overlap. Prints the new key if it was generated
    RotateKey {
        #[command(flatten)]
        server: ServerArgs,
        /// File with the new key; if the file does not exist, it is created with a new key
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
        /// How long older keys also sign: 0s, 1h, 1d; at most 30 days
        #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = words::overlap)]
        overlap: Duration,
    },
    /// Erase an app (token of the staff), or the app whose token is used, with all of its data
    Erase {
        #[command(flatten)]
        server: ServerArgs,
        /// The id or name of the app; missing: the app whose token is used
        #[arg(value_name = "ID_OR_NAME")]
        id: Option<String>,
        /// Confirm that the app and everything stored about it are erased; without this option, nothing is
        /// erased and the app is named
        #[arg(long)]
        yes: bool,
    },
}

/// The path of the route that registers an app.
const ONBOARD: [&str; 3] = ["api", "apps", "onboard"];

/// The notice for an app that was registered without an address.
const PULLS: &str = "without --base-url the app pulls: nothing is sent to it, it asks for its changes \
                     (GET /api/repositories/{id}/pending, or tidings listen --pull --mirror FOLDER)";

/// The body of a registration.
fn wanted(name: &str, email: &str, named: [Option<String>; 3]) -> Value {
    let mut body = json!({ "app_name": name, "email": email });
    for (field, value) in ["base_url", "website", "description"].into_iter().zip(named) {
        if let Some(value) = value {
            body[field] = Value::String(value);
        }
    }
    body
}

/// Erases the named app, or the app whose token is used, if `is_sure`.
///
/// # Errors
/// If `is_sure` is false: the failure names the app that would be erased.
async fn erase(client: &Client, named: Option<&str>, is_sure: bool) -> Result<Erased, Failure> {
    let id = match named {
        Some(named) => Some(client.app(named).await?),
        None => None,
    };
    let path = match &id {
        Some(id) => vec!["api", "admin", "apps", id.as_str()],
        None => vec!["api", "app"],
    };
    let app = client.call(Method::GET, &path, None).await?;
    let (id, name) = (shown(&app["app_id"]), shown(&app["app_name"]));
    if !is_sure {
        let server = client.address_of("");
        let text = format!(
            "this erases the app {name} ({id}) of {server} and everything stored about it; add --yes"
        );
        return Err(Failure::new(Code::Usage, text));
    }
    client.call(Method::DELETE, &path, None).await?;
    Ok(Erased { id, name })
}

/// An app that is erased.
struct Erased {
    id: String,
    name: String,
}

pub(crate) async fn run(verb: AppVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        AppVerb::Create { server, name, email, base_url, website, description, signing_key_file } => {
            let mut body = wanted(&name, &email, [base_url, website, description]);
            let client = context.client(&server)?;
            if let Some(path) = signing_key_file {
                let key = secret_file::read_or_make(&path, Purpose::SigningKey)?;
                body["client_auth_key"] = Value::String(key.expose().to_owned());
            }
            let app = client.call(Method::POST, &ONBOARD, Some(&body)).await?;
            let mut lines = fields(&app);
            if body.get("base_url").is_none() {
                lines.push(PULLS.to_owned());
            }
            output.print(&app, &lines)
        }
        AppVerb::List { server, query } => {
            let query: Vec<_> = query.said().into_iter().collect();
            let apps = context.client(&server)?.list(&["api", "admin", "apps"], &query).await?;
            let lines = table(&apps, &["app_id", "app_name", "base_url", "disabled", "created_at"]);
            output.print(&Value::Array(apps), &lines)
        }
        AppVerb::Show { server, id } => {
            let client = context.client(&server)?;
            let app = match &id {
                Some(named) => {
                    let id = client.app(named).await?;
                    client.call(Method::GET, &["api", "admin", "apps", id.as_str()], None).await?
                }
                None => client.call(Method::GET, &["api", "app"], None).await?,
            };
            output.print(&app, &fields(&app))
        }
        AppVerb::Erase { server, id, yes } => {
            let Erased { id, name } = erase(&context.client(&server)?, id.as_deref(), yes).await?;
            output.print(&json!({ "erased": id }), &[format!("the app {name} ({id}) is erased")])
        }
        AppVerb::Update { server, change } => {
            let body = change.body(context)?;
            let app = context.client(&server)?.call(Method::PATCH, &["api", "app"], Some(&body)).await?;
            output.print(&app, &fields(&app))
        }
        AppVerb::Samples { server } => {
            let samples =
                context.client(&server)?.call(Method::GET, &["api", "app", "samples"], None).await?;
            let rows = samples["items"].as_array().cloned().unwrap_or_default();
            output.print(&samples, &table(&rows, &SAMPLE_COLUMNS))
        }
        AppVerb::Test { server, base_url } => test(context, &server, base_url).await,
        AppVerb::RotateKey { server, signing_key_file, overlap } => {
            let mut body = json!({ "rotate_signing_key": true, "overlap_seconds": overlap.as_secs() });
            let client = context.client(&server)?;
            if let Some(path) = signing_key_file {
                let key = secret_file::read_or_make(&path, Purpose::SigningKey)?;
                body["client_auth_key"] = Value::String(key.expose().to_owned());
            }
            let app = client.call(Method::PATCH, &["api", "app"], Some(&body)).await?;
            let shown = json!({
                "app_id": app["app_id"], "signing_keys": app["signing_keys"],
                "signing_secret": app["signing_secret"],
            });
            output.print(&shown, &fields(&shown))
        }
    }
}

/// What the list of samples shows of each minute.
const SAMPLE_COLUMNS: [&str; 5] = ["at", "lag_ms", "behind", "acknowledged_per_s", "failed_per_s"];

/// Prints the result of the test delivery, and fails if the endpoint did not accept it.
async fn test(context: &Context, server: &ServerArgs, base_url: Option<String>) -> Result<(), Failure> {
    let body = base_url.map_or_else(|| json!({}), |url| json!({ "base_url": url }));
    let client = context.client(server)?;
    let outcome = client.call(Method::POST, &["api", "app", "test"], Some(&body)).await?;
    context.output.print(&outcome, &fields(&outcome))?;
    if outcome["accepted"] == true {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "the endpoint did not accept the test delivery"))
}
