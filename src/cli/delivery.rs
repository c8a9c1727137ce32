//! `tidings delivery`: what became of deliveries, with the token of their app.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_entity::kind::Operation;

use super::{
    Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(super) enum DeliveryVerb {
    /// List deliveries: the newest round first, and in a round the last change first
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: Box<DeliveryFilter>,
        /// Most of them
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// Show one delivery with its tries and what was answered
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// Its id: `webhook-id` or `event.id`
        id: String,
    },
}

/// Deliveries that meet everything that is said.
#[derive(Args, Debug)]
pub(super) struct DeliveryFilter {
    /// Only those that are: delivered, parked, failed, pending or dropped
    #[arg(long)]
    status: Option<String>,
    /// Only those of this repository: its id, owner/name or address
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only those of this path
    #[arg(long, conflicts_with_all = ["path_prefix", "path_glob"])]
    path: Option<String>,
    /// Only those of paths that begin so
    #[arg(long, value_name = "PATH", conflicts_with = "path_glob")]
    path_prefix: Option<String>,
    /// Only those of paths that match
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Only create, update or delete
    #[arg(long, value_parser = words::word::<Operation>(Operation::ALL.iter().map(|word| word.as_str())))]
    kind: Option<Operation>,
    /// Only this one, however far back
    #[arg(long)]
    id: Option<String>,
    /// Only those settled, or tried last, at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// Only those settled, or tried last, before this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    #[command(flatten)]
    query: QueryArgs,
}

impl DeliveryFilter {
    /// What is said, under the names of the API; a server knows which watch a repository is.
    ///
    /// # Errors
    /// No such repository is watched, or several watches are of it.
    async fn said(&self, client: &Client) -> Result<Vec<(&'static str, String)>, Failure> {
        let repository = match &self.repository {
            Some(named) => Some(client.watch(named).await?.to_string()),
            None => None,
        };
        let words = [
            ("status", self.status.clone()),
            ("repository_id", repository),
            ("path", self.path.clone()),
            ("path_prefix", self.path_prefix.clone()),
            ("path_glob", self.path_glob.clone()),
            ("kind", self.kind.map(|kind| kind.to_string())),
            ("id", self.id.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("q", self.query.query.clone()),
        ];
        Ok(words.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect())
    }
}

/// What a list shows of each delivery.
const COLUMNS: [&str; 8] =
    ["settled_at", "state", "type", "path", "attempts", "last_status", "repository_id", "id"];

pub(super) async fn run(verb: DeliveryVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DeliveryVerb::List { server, filter, limit } => {
            let client = context.client(&server)?;
            let said = filter.said(&client).await?;
            let query: Vec<_> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (found, more) = client.list_at_most(&["api", "deliveries"], &query, limit).await?;
            let mut lines = table(&found, &COLUMNS);
            lines.extend(more.then(|| format!("there are more than {limit}; see --limit")));
            context.output.print(&Value::Array(found), &lines)
        }
        DeliveryVerb::Show { server, id } => {
            let path = ["api", "deliveries", &id];
            let delivery = context.client(&server)?.call(Method::GET, &path, None).await?;
            context.output.print(&delivery, &described(&delivery, "tries"))
        }
    }
}

/// A delivery, or a dead letter, with a block of lines for each of its tries, which stand in this field.
pub(super) fn described(delivery: &Value, name: &str) -> Vec<String> {
    let mut facts = delivery.clone();
    let tries = facts[name].take();
    if let Some(facts) = facts.as_object_mut() {
        facts.remove(name);
    }
    let mut lines = fields(&facts);
    for attempt in tries.as_array().map_or(&[][..], Vec::as_slice) {
        lines.push(String::new());
        let mut attempt = attempt.clone();
        let answer = attempt["answer"].take();
        if let Some(attempt) = attempt.as_object_mut() {
            attempt.remove("answer");
        }
        lines.extend(fields(&attempt));
        for header in answer["headers"].as_array().map_or(&[][..], Vec::as_slice) {
            lines.push(format!("  {}: {}", shown(&header["name"]), shown(&header["value"])));
        }
        if answer["body"] != json!("") && !answer["body"].is_null() {
            lines.push(format!("  {}", shown(&answer["body"])));
        }
    }
    lines
}
