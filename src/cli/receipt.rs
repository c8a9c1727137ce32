//! `tidings receipt`: hooks of Git hosts that were received, with the admin token.

use clap::Subcommand;
use http::Method;
use serde_json::Value;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use super::{
    Code, Context, Failure,
    client::ServerArgs,
    output::{shown, table},
    words,
};

#[derive(Subcommand, Debug)]
pub(super) enum ReceiptVerb {
    /// List received hooks, newest first (admin token)
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Only those with this verdict: accepted, duplicate, ignored or refused
        #[arg(
            long,
            value_parser = words::word::<ReceiptVerdict>(ReceiptVerdict::ALL.iter().map(|word| word.as_str()))
        )]
        verdict: Option<ReceiptVerdict>,
    },
    /// Judge a received hook again, and heed it like a new one (admin token)
    Replay {
        #[command(flatten)]
        server: ServerArgs,
        /// Its id
        #[arg(value_parser = words::id::<ReceiptId>("tidings receipt list"))]
        id: ReceiptId,
    },
}

/// The route of all receipts.
const PATH: [&str; 3] = ["api", "admin", "receipts"];

pub(super) async fn run(verb: ReceiptVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ReceiptVerb::List { server, verdict } => {
            let query: Vec<_> = verdict.iter().map(|verdict| ("verdict", verdict.as_str())).collect();
            let receipts = context.client(&server)?.list(&PATH, &query).await?;
            let columns =
                ["receipt_id", "received_at", "provider", "delivery_id", "event", "ref", "verdict", "reason"];
            let lines = table(&receipts, &columns);
            context.output.print(&Value::Array(receipts), &lines)
        }
        ReceiptVerb::Replay { server, id } => {
            let path = [PATH[0], PATH[1], PATH[2], id.as_str(), "replay"];
            let receipt = context.client(&server)?.call(Method::POST, &path, None).await?;
            if receipt["verdict"] != ReceiptVerdict::Accepted.as_str() {
                let reason = shown(&receipt["reason"]);
                return Err(Failure::new(Code::Data, format!("nothing is polled because of it: {reason}")));
            }
            let line = format!("{} watched repositories are polled soon", shown(&receipt["repositories"]));
            context.output.print(&receipt, &[line])
        }
    }
}
