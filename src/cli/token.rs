//! `tidings token`: tokens of an app, with one of its tokens, and with `--staff` those of the staff.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use tidings_entity::{id::TokenId, kind::Role};

use super::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{shown, table},
    words,
};

#[derive(Subcommand, Debug)]
pub(super) enum TokenVerb {
    /// List tokens, oldest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Those of the staff
        #[arg(long, conflicts_with = "for_app")]
        staff: bool,
    },
    /// Make a token; it is shown once
    Create {
        #[command(flatten)]
        server: ServerArgs,
        /// What it is for
        name: String,
        /// For somebody of the staff: viewer, operator or admin
        #[arg(
            long,
            value_parser = words::word::<Role>(Role::ALL.iter().map(|word| word.as_str())),
            conflicts_with = "for_app"
        )]
        role: Option<Role>,
        /// When it ends by itself (RFC 3339)
        #[arg(long, value_name = "MOMENT")]
        expires_at: Option<String>,
    },
    /// End a token, at once and for good
    Revoke {
        #[command(flatten)]
        server: ServerArgs,
        /// Its id
        #[arg(value_parser = words::id::<TokenId>("tidings token list"))]
        id: TokenId,
        /// One of the staff's
        #[arg(long, conflicts_with = "for_app")]
        staff: bool,
    },
}

/// The route of tokens.
fn path(staff: bool) -> [&'static str; 3] {
    ["api", if staff { "admin" } else { "app" }, "tokens"]
}

/// The failure of a call that wanted a token of an app, with what makes the verb about tokens of the staff.
fn or_of_staff(failure: Failure, is_of_staff: bool, otherwise: &str) -> Failure {
    if is_of_staff || !failure.message.ends_with("--for APP") {
        return failure;
    }
    Failure::new(failure.code, format!("{}; for tokens of the staff {otherwise}", failure.message))
}

pub(super) async fn run(verb: TokenVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        TokenVerb::List { server, staff } => {
            let tokens = context.client(&server)?.list(&path(staff), &[]).await;
            let tokens = tokens.map_err(|failure| or_of_staff(failure, staff, "give --staff"))?;
            let columns = ["token_id", "name", "role", "state", "expires_at", "last_used_at", "created_at"];
            let columns: Vec<_> = columns.into_iter().filter(|column| staff || *column != "role").collect();
            let lines = table(&tokens, &columns);
            context.output.print(&Value::Array(tokens), &lines)
        }
        TokenVerb::Create { server, name, role, expires_at } => {
            let mut body = json!({ "name": name });
            if let Some(role) = role {
                body["role"] = role.as_str().into();
            }
            if let Some(moment) = expires_at {
                body["expires_at"] = moment.into();
            }
            let client = context.client(&server)?;
            let made = client.call(Method::POST, &path(role.is_some()), Some(&body)).await;
            let made = made.map_err(|failure| or_of_staff(failure, role.is_some(), "give --role"))?;
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
