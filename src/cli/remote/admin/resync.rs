//! `tidings admin resync`: sends every file again, to all apps or to one, page after page.

use clap::Args;
use http::Method;
use serde_json::json;
use tidings_actors::model::words::counted;

use crate::cli::{Code, Context, Failure, client::ServerArgs};

#[derive(Args, Debug)]
pub(in crate::cli) struct ResyncArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Also tell apps that receive /resync to drop each file that is not sent again
    #[arg(long)]
    complete: bool,
    /// Only the watches of this app, by its id or name
    #[arg(long, value_name = "APP")]
    of: Option<String>,
    /// Resync the watches of all apps
    #[arg(long, conflicts_with = "of")]
    all: bool,
}

/// The path of the route for resyncs of many watches.
const PATH: [&str; 4] = ["api", "admin", "watches", "resync"];

pub(super) async fn run(arguments: ResyncArgs, context: &Context) -> Result<(), Failure> {
    if arguments.of.is_none() && !arguments.all {
        let text = "say whose watches: --all for those of all apps, --of APP for those of one";
        return Err(Failure::new(Code::Usage, text));
    }
    let client = context.client(&arguments.server)?;
    let of = match &arguments.of {
        Some(named) => Some(client.app(named).await?),
        None => None,
    };
    let body = json!({ "complete": arguments.complete });
    let (mut watches, mut branches, mut cursor) = (0, 0, None::<String>);
    loop {
        let mut query = Vec::new();
        query.extend(of.iter().map(|app| ("app_id", app.as_str())));
        query.extend(cursor.iter().map(|cursor| ("cursor", cursor.as_str())));
        let done = client.call_with_query(Method::POST, &PATH, &query, Some(&body)).await?;
        watches += done["watches"].as_u64().unwrap_or(0);
        branches += done["branches"].as_u64().unwrap_or(0);
        cursor = done["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let line = format!(
        "the apps of {} of {} get every file again",
        counted(branches, "branch"),
        counted(watches, "watch")
    );
    context.output.print(&json!({ "watches": watches, "branches": branches }), &[line])
}
