//! `tidings token`: tokens of an app, with one of its tokens, or with `--staff` tokens of the staff.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use tidings_actors::model::permission::roles::is_name;
use tidings_entity::id::TokenId;

use crate::cli::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{shown, table},
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum TokenVerb {
    /// List the tokens of the app, or with --staff of the staff, oldest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// List the tokens of the staff instead of those of an app
        #[arg(long, conflicts_with = "for_app")]
        staff: bool,
    },
    /// Create a token; the token is shown only once
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// A name that says what the token is for
        name: String,
        /// Create a token of the staff with this role: viewer, operator, admin or a role of the settings
        #[arg(long, value_parser = role, conflicts_with = "for_app")]
        role: Option<String>,
        /// Create a token of the staff with the given permissions
        #[arg(long, conflicts_with = "for_app")]
        staff: bool,
        /// Narrow the token to this permission, such as watches:read or "*:read"; may be given several times
        #[arg(long = "permission", value_name = "PERMISSION", conflicts_with = "role")]
        permissions: Vec<String>,
        /// Narrow the token to commands of this name or glob, such as "mail.*"; may be given several times
        #[arg(long = "command", value_name = "COMMAND")]
        commands: Vec<String>,
        /// When the token ends by itself, such as 2027-01-31T00:00:00Z (RFC 3339); if missing, never
        #[arg(long, value_name = "MOMENT")]
        expires_at: Option<String>,
    },
    /// Revoke a token, at once and for good
    Revoke {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the token, tok_...
        #[arg(value_parser = words::id::<TokenId>("tidings token list"))]
        id: TokenId,
        /// The token belongs to the staff, not to an app
        #[arg(long, conflicts_with = "for_app")]
        staff: bool,
    },
}

/// The name of a role. Which roles there are is known to the server.
fn role(text: &str) -> Result<String, &'static str> {
    let fault = "a role has 1 to 40 of the characters a to z, digits, - and _; there are viewer, operator, \
                 admin and those of the server's settings";
    if is_name(text) { Ok(text.to_owned()) } else { Err(fault) }
}

/// The route of tokens.
fn path(staff: bool) -> [&'static str; 3] {
    ["api", if staff { "admin" } else { "app" }, "tokens"]
}

/// The failure of a call that needs a token of an app, with the flag for tokens of the staff.
fn or_of_staff(failure: Failure, is_of_staff: bool, otherwise: &str) -> Failure {
    if is_of_staff || !failure.message.ends_with("--for APP") {
        return failure;
    }
    Failure::new(failure.code, format!("{}; for tokens of the staff {otherwise}", failure.message))
}

pub(crate) async fn run(verb: TokenVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        TokenVerb::List { server, staff } => {
            let tokens = context.client(&server)?.list(&path(staff), &[]).await;
            let tokens = tokens.map_err(|failure| or_of_staff(failure, staff, "give --staff"))?;
            let columns = [
                "token_id",
                "name",
                "role",
                "permissions",
                "commands",
                "state",
                "expires_at",
                "last_used_at",
                "created_at",
            ];
            let is_shown = |column: &&str| match *column {
                "role" => staff,
                "permissions" | "commands" => tokens.iter().any(|token| token.get(*column).is_some()),
                _ => true,
            };
            let columns: Vec<_> = columns.into_iter().filter(is_shown).collect();
            let lines = table(&tokens, &columns);
            context.output.print(&Value::Array(tokens), &lines)
        }
        TokenVerb::Create { server, name, role, staff, permissions, commands, expires_at } => {
            let mut body = json!({ "name": name });
            let is_of_staff = staff || role.is_some();
            if staff && role.is_none() && permissions.is_empty() {
                let text = "a token of the staff needs --role ROLE, or one or more --permission PERMISSION";
                return Err(Failure::new(Code::Usage, text));
            }
            if let Some(role) = role {
                body["role"] = role.into();
            }
            for (field, given) in [("permissions", permissions), ("commands", commands)] {
                if !given.is_empty() {
                    body[field] = given.into();
                }
            }
            if let Some(moment) = expires_at {
                body["expires_at"] = moment.into();
            }
            let client = context.client(&server)?;
            let made = client.call(Method::POST, &path(is_of_staff), Some(&body)).await;
            let made = made.map_err(|failure| {
                or_of_staff(failure, is_of_staff, "give --role, or --staff with --permission")
            })?;
            let Some(token) = made["token"].as_str() else {
                return Err(Failure::new(Code::Unavailable, "this server does not speak this API"));
            };
            let lines = [format!("id     {}", shown(&made["token_id"])), format!("token  {token}")];
            context.output.print(&made, &lines)
        }
        TokenVerb::Revoke { server, id, staff } => {
            let [api, owner, tokens] = path(staff);
            let client = context.client(&server)?;
            let done = client.call(Method::DELETE, &[api, owner, tokens, id.as_str()], None).await;
            done.map_err(|failure| or_of_staff(failure, staff, "give --staff"))?;
            let done = json!({ "token_id": id.as_str(), "state": "revoked" });
            context.output.print(&done, &[format!("{id} is revoked")])
        }
    }
}
