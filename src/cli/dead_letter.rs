//! `tidings dead-letter`: changes that were given up, with the token of their app.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use tidings_entity::{
    id::{DeadLetterId, WatchId},
    kind::LetterStatus,
};

use super::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{shown, table},
};

#[derive(Subcommand, Debug)]
pub(super) enum DeadLetterVerb {
    /// List dead letters, newest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Only those that stand there: open, redrive_requested, redriven or superseded
        #[arg(long)]
        status: Option<LetterStatus>,
    },
    /// Send dead letters again
    Redrive {
        #[command(flatten)]
        server: ServerArgs,
        /// Their ids
        #[arg(required_unless_present = "all")]
        ids: Vec<DeadLetterId>,
        /// Every open one
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Take redrives back: what waits is reopened, what is being sent again ends where it stands
    Cancel {
        #[command(flatten)]
        server: ServerArgs,
        /// Only those of this repository
        #[arg(long, value_name = "ID")]
        repository: Option<WatchId>,
    },
}

/// The route of all dead letters.
const PATH: [&str; 2] = ["api", "dead-letters"];

pub(super) async fn run(verb: DeadLetterVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DeadLetterVerb::List { server, status } => {
            let query: Vec<_> = status.iter().map(|status| ("status", status.as_str())).collect();
            let letters = context.client(&server)?.list(&PATH, &query).await?;
            let columns =
                ["dead_letter_id", "repository_id", "operation", "path", "reason", "status", "http_status"];
            let lines = table(&letters, &columns);
            context.output.print(&Value::Array(letters), &lines)
        }
        DeadLetterVerb::Redrive { server, ids, all } => {
            let body = if all { json!({}) } else { json!({ "ids": ids }) };
            let client = context.client(&server)?;
            let done = client.call(Method::POST, &["api", "dead-letters", "redrive"], Some(&body)).await?;
            if done["requested"] == 0 {
                return Err(Failure::new(
                    Code::Data,
                    "no dead letter is open, so nothing will be sent again",
                ));
            }
            let line = format!("{} will be sent again", shown(&done["requested"]));
            context.output.print(&done, &[line])
        }
        DeadLetterVerb::Cancel { server, repository } => {
            let body = repository.map_or(json!({}), |id| json!({ "repository_id": id }));
            let client = context.client(&server)?;
            let path = ["api", "dead-letters", "redrive", "cancel"];
            let done = client.call(Method::POST, &path, Some(&body)).await?;
            let ending = done["ending"].as_array().map_or(0, Vec::len);
            if done["reopened"] == 0 && ending == 0 {
                return Err(Failure::new(Code::Data, "no redrive waits or runs, so nothing was cancelled"));
            }
            let line = format!("{} reopened, {ending} running redrives end", shown(&done["reopened"]));
            context.output.print(&done, &[line])
        }
    }
}
