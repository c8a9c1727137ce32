//! `tidings app`: registers and looks after apps of a running server.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use tidings_entity::id::AppId;

use super::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{fields, table},
};
use crate::http::admin_token;

#[derive(Subcommand, Debug)]
pub(super) enum AppVerb {
    /// Register an app; prints its token and signing secret, which are never shown again
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// Name, 3 to 100 characters
        #[arg(long)]
        name: String,
        /// Whom to write to
        #[arg(long)]
        email: String,
        /// Where the app receives
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
        /// A web page about the app
        #[arg(long, value_name = "URL")]
        website: Option<String>,
        /// What the app is
        #[arg(long)]
        description: Option<String>,
        /// File that holds the key deliveries are signed with; made where it is missing
        #[arg(long, value_name = "FILE")]
        signing_key_file: Option<PathBuf>,
    },
    /// List all apps (admin token)
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one app (admin token), or the app whose token is used
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Its id; missing: the app whose token is used
        id: Option<AppId>,
    },
    /// Erase an app with everything that is known of it (admin token)
    Erase {
        #[command(flatten)]
        server: ServerArgs,
        /// Its id
        id: AppId,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(verb: AppVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        AppVerb::Create { server, name, email, base_url, website, description, signing_key_file } => {
            let mut body = json!({ "app_name": name, "email": email });
            for (field, value) in [("base_url", base_url), ("website", website), ("description", description)]
            {
                if let Some(value) = value {
                    body[field] = Value::String(value);
                }
            }
            if let Some(path) = signing_key_file {
                body["client_auth_key"] = Value::String(secret_of(&path)?);
            }
            let client = context.client(&server)?;
            let app = client.call(Method::POST, &["api", "apps", "onboard"], Some(&body)).await?;
            output.print(&app, &fields(&app))
        }
        AppVerb::List { server } => {
            let apps = context.client(&server)?.list(&["api", "admin", "apps"], &[]).await?;
            let lines = table(&apps, &["app_id", "app_name", "base_url", "disabled", "created_at"]);
            output.print(&Value::Array(apps), &lines)
        }
        AppVerb::Show { server, id } => {
            let client = context.client(&server)?;
            let app = match &id {
                Some(id) => client.call(Method::GET, &["api", "admin", "apps", id.as_str()], None).await?,
                None => client.call(Method::GET, &["api", "app"], None).await?,
            };
            output.print(&app, &fields(&app))
        }
        AppVerb::Erase { server, id, yes } => {
            if !yes {
                return Err(Failure::new(Code::Usage, "this erases everything of the app; add --yes"));
            }
            let client = context.client(&server)?;
            client.call(Method::DELETE, &["api", "admin", "apps", id.as_str()], None).await?;
            output.print(&json!({ "erased": id }), &[format!("{id} is erased")])
        }
    }
}

/// The secret in a file that only its owner can read.
pub(super) fn secret_of(path: &std::path::Path) -> Result<String, Failure> {
    let secret = admin_token::read(path).map_err(|error| Failure::of_error(Code::Data, &error))?;
    let secret =
        secret.ok_or_else(|| Failure::new(Code::Data, format!("{} does not exist", path.display())))?;
    Ok(secret.expose().to_owned())
}
