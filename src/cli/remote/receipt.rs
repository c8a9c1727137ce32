//! `tidings receipt`: received hooks of Git hosts. The staff sees all of them, or with `--for` those of one
//! app; an app sees those of its own hooks with `--own`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use crate::cli::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{fields, shown, table},
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum ReceiptVerb {
    /// List received hooks with the verdict about each, newest first
    List {
        #[command(flatten)]
        whose: WhoseArgs,
        /// Only receipts with this verdict: accepted, duplicate, ignored or refused
        #[arg(
            long,
            value_parser = words::word::<ReceiptVerdict>(ReceiptVerdict::ALL.iter().map(|word| word.as_str()))
        )]
        verdict: Option<ReceiptVerdict>,
    },
    /// Show a received hook with the stored header fields and body
    Show(OneArgs),
    /// Evaluate a received hook again from its stored body, and act on it as on a new hook
    Replay(OneArgs),
}

/// The server, and the app whose receipts are shown.
#[derive(Args, Debug)]
pub(crate) struct WhoseArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// With the token of an app: the receipts of the app's own hooks
    #[arg(long, conflicts_with = "for_app")]
    own: bool,
}

/// The arguments that name one receipt.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    whose: WhoseArgs,
    /// The id of the receipt, `rct_...`
    #[arg(value_parser = words::id::<ReceiptId>("tidings receipt list"))]
    id: ReceiptId,
}

impl WhoseArgs {
    /// The route of the receipts.
    fn path(&self) -> &'static [&'static str] {
        let is_of_app = self.own || self.server.for_app.is_some();
        if is_of_app { &["api", "receipts"] } else { &["api", "admin", "receipts"] }
    }
}

impl WhoseArgs {
    /// The failure for an app, which sees only the receipts of its own hooks.
    fn named(&self, failure: Failure) -> Failure {
        if failure.code != Code::Permission || self.own || self.server.for_app.is_some() {
            return failure;
        }
        let hint = "with the token of an app add --own, for the receipts of its own hooks";
        Failure { message: format!("{}; {hint}", failure.message), ..failure }
    }
}

pub(crate) async fn run(verb: ReceiptVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ReceiptVerb::List { whose, verdict } => {
            let query: Vec<_> = verdict.iter().map(|verdict| ("verdict", verdict.as_str())).collect();
            let receipts = context.client(&whose.server)?.list(whose.path(), &query).await;
            let receipts = receipts.map_err(|failure| whose.named(failure))?;
            let columns =
                ["receipt_id", "received_at", "provider", "delivery_id", "event", "ref", "verdict", "reason"];
            let lines = table(&receipts, &columns);
            context.output.print(&Value::Array(receipts), &lines)
        }
        ReceiptVerb::Show(OneArgs { whose, id }) => {
            let path = [whose.path(), &[id.as_str()]].concat();
            let mut receipt = context.client(&whose.server)?.call(Method::GET, &path, None).await?;
            let body = receipt["body"].take();
            let mut lines = fields(&receipt);
            lines.extend(body.as_str().map(pretty));
            receipt["body"] = body;
            context.output.print(&receipt, &lines)
        }
        ReceiptVerb::Replay(OneArgs { whose, id }) => {
            let path = [whose.path(), &[id.as_str(), "replay"]].concat();
            let receipt = context.client(&whose.server)?.call(Method::POST, &path, None).await?;
            if receipt["verdict"] != ReceiptVerdict::Accepted.as_str() {
                let reason = shown(&receipt["reason"]);
                return Err(Failure::new(Code::Data, format!("nothing is polled because of it: {reason}")));
            }
            let line = match receipt["repositories"].as_u64() {
                Some(1) => "1 watched repository is polled soon".to_owned(),
                _ => format!("{} watched repositories are polled soon", shown(&receipt["repositories"])),
            };
            context.output.print(&receipt, &[line])
        }
    }
}

/// A body for people: JSON with line breaks; of other text, control characters are removed.
fn pretty(body: &str) -> String {
    let json = serde_json::from_str::<Value>(body).ok();
    let text = json.and_then(|json| serde_json::to_string_pretty(&json).ok());
    let text = text.unwrap_or_else(|| body.to_owned());
    text.chars().filter(|letter| *letter == '\n' || !letter.is_control()).collect()
}
