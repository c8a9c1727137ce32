//! `tidings dead-letter dismiss`: closes letters that need not be sent again.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tidings_entity::id::DeadLetterId;

use super::{COLUMNS, filter::FilterArgs};
use crate::cli::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{shown, table},
};

/// Selects the dead letters to close.
#[derive(Args, Debug)]
pub(in crate::cli) struct DismissArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The ids of the dead letters to close, dead_...
    #[arg(
        conflicts_with_all = ["all", "dry_run", "filter"],
        value_parser = crate::cli::words::id::<DeadLetterId>(super::LIST)
    )]
    ids: Vec<DeadLetterId>,
    /// Close every open dead letter of the app
    #[arg(long, conflicts_with = "filter")]
    all: bool,
    #[command(flatten)]
    filter: Box<FilterArgs>,
    /// Close nothing; show how many letters would be closed, and some of them
    #[arg(long)]
    dry_run: bool,
}

/// Repeats the request until every matching letter was looked at.
pub(super) async fn run(arguments: DismissArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client(&arguments.server)?;
    let said = arguments.filter.said(&client).await?;
    if arguments.ids.is_empty() && said.is_empty() && !arguments.all {
        return Err(Failure::new(Code::Usage, "name dead letters by id, by a filter, or give --all"));
    }
    let mut body = json!({});
    for (name, value) in said {
        body[name] = Value::String(value);
    }
    if !arguments.ids.is_empty() {
        body["ids"] = json!(arguments.ids);
    }
    for (name, flag) in [("all", arguments.all), ("dry_run", arguments.dry_run)] {
        if flag {
            body[name] = Value::Bool(true);
        }
    }
    let ask = || client.call(Method::POST, &["api", "dead-letters", "dismiss"], Some(&body));
    if arguments.dry_run {
        let done = ask().await?;
        let more = if done["at_least"] == true { "at least " } else { "" };
        let mut lines = vec![format!("{more}{} would be dismissed", shown(&done["would_request"]))];
        lines.extend(table(done["sample"].as_array().map_or(&[][..], Vec::as_slice), &COLUMNS));
        return context.output.print(&done, &lines);
    }
    let (dismissed, bound) = repeated(ask).await?;
    if dismissed == 0 && bound == 0 {
        let text = match arguments.ids.len() {
            1 => "this dead letter is not open any more, so nothing was dismissed",
            _ => "no such dead letter is open, so nothing was dismissed",
        };
        return Err(Failure::new(Code::Data, text));
    }
    let mut line = format!("{dismissed} dismissed");
    if bound > 0 {
        line.push_str(&format!(
            "; {bound} stay open: the open round of their branch sends them, dismiss them once it has ended"
        ));
    }
    context.output.print(&json!({ "dismissed": dismissed, "bound": bound }), &[line])
}

/// Letters that were closed, and letters that an open round sends, over as many requests as it takes.
async fn repeated<F: Future<Output = Result<Value, Failure>>>(
    ask: impl Fn() -> F,
) -> Result<(u64, u64), Failure> {
    let mut dismissed = 0;
    loop {
        let done = ask().await?;
        dismissed += done["dismissed"].as_u64().unwrap_or(0);
        if done["more"] != true {
            return Ok((dismissed, done["bound"].as_u64().unwrap_or(0)));
        }
    }
}
