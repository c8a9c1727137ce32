//! `tidings delivery`: deliveries and their results, with the token of their app.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_entity::kind::Operation;

use crate::cli::{
    Context, Failure,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum DeliveryVerb {
    /// List deliveries: the newest round first, and in a round the last change first
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        filter: Box<DeliveryFilter>,
        /// With a token of the staff: the deliveries of all apps instead of the app that --for names
        #[arg(long, conflicts_with = "for_app")]
        all_apps: bool,
        /// At most this number of deliveries, the newest
        #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = words::limit)]
        limit: usize,
    },
    /// Show one delivery with its attempts and their answers
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the delivery: `webhook-id` or `event.id`
        id: String,
    },
    /// Show the body that is sent for a change; bodies are not stored, so it is made again
    Request {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the delivery: `webhook-id` or `event.id`
        id: String,
    },
    /// Show the changed lines of the file of a change
    Diff {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the delivery: `webhook-id` or `event.id`
        id: String,
    },
}

/// A filter for deliveries: those that match all given options.
#[derive(Args, Debug)]
pub(crate) struct DeliveryFilter {
    /// Only deliveries in this state: delivered, parked, failed, pending or dropped
    #[arg(long)]
    status: Option<String>,
    /// Only deliveries of this repository: its id, owner/name or address
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only deliveries of exactly this path
    #[arg(long, conflicts_with_all = ["path_prefix", "path_glob"])]
    path: Option<String>,
    /// Only deliveries of paths with this prefix
    #[arg(long, value_name = "PATH", conflicts_with = "path_glob")]
    path_prefix: Option<String>,
    /// Only deliveries of paths that match this glob
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Only deliveries of this operation: create, update or delete
    #[arg(long, value_parser = words::word::<Operation>(Operation::ALL.iter().map(|word| word.as_str())))]
    kind: Option<Operation>,
    /// Only the delivery with this id (`webhook-id` or `event.id`, dlv_...), however old
    #[arg(long)]
    id: Option<String>,
    /// Only deliveries settled, or last attempted, at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    from: Option<String>,
    /// Only deliveries settled, or last attempted, before this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    to: Option<String>,
    #[command(flatten)]
    query: QueryArgs,
}

impl DeliveryFilter {
    /// The arguments under the names of the API; the server resolves the repository to a watch.
    ///
    /// # Errors
    /// If no watch, or several watches, are for the repository.
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

/// The columns of a list of deliveries over all apps.
const COLUMNS_OF_ALL: [&str; 10] = [
    "settled_at",
    "app_name",
    "repository",
    "state",
    "type",
    "path",
    "attempts",
    "last_status",
    "app_id",
    "id",
];
/// The columns of a list of deliveries.
const COLUMNS: [&str; 8] =
    ["settled_at", "state", "type", "path", "attempts", "last_status", "repository_id", "id"];

pub(crate) async fn run(verb: DeliveryVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DeliveryVerb::List { server, filter, all_apps, limit } => {
            let client = context.client(&server)?;
            let said = filter.said(&client).await?;
            let query: Vec<_> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let path: &[&str] =
                if all_apps { &["api", "admin", "deliveries"] } else { &["api", "deliveries"] };
            let (found, more) = client.list_at_most(path, &query, limit).await?;
            let rows: Vec<Value> = found.iter().map(row).collect();
            let mut lines = table(&rows, if all_apps { &COLUMNS_OF_ALL[..] } else { &COLUMNS[..] });
            lines.extend(more.then(|| format!("there are more than {limit}; see --limit")));
            context.output.print(&Value::Array(found), &lines)
        }
        DeliveryVerb::Show { server, id } => {
            let path = ["api", "deliveries", &id];
            let delivery = context.client(&server)?.call(Method::GET, &path, None).await?;
            context.output.print(&delivery, &described(&delivery, "tries"))
        }
        DeliveryVerb::Request { server, id } => {
            let path = ["api", "deliveries", &id, "request"];
            let request = context.client(&server)?.call(Method::GET, &path, None).await?;
            let body = request["body"].as_str().map(str::to_owned);
            let left_out = || format!("the body is not shown: {}", words_of(&request["left_out"]));
            context.output.print(&request, &[body.unwrap_or_else(left_out)])
        }
        DeliveryVerb::Diff { server, id } => {
            let path = ["api", "deliveries", &id, "content"];
            let content = context.client(&server)?.call(Method::GET, &path, None).await?;
            context.output.print(&content, &differing(&content))
        }
    }
}

/// A delivery as a row of a table. The status code of an acknowledgement is not stored unless the app asks
/// for that, but there was one.
fn row(delivery: &Value) -> Value {
    let mut row = delivery.clone();
    if row["state"] == "delivered" && row["last_status"].is_null() {
        row["last_status"] = json!("accepted");
    }
    row
}

/// Why a body is not shown.
fn words_of(left_out: &Value) -> &'static str {
    match left_out.as_str() {
        Some("too_large") => "its content has more than 256 KiB",
        Some("chunked") => "a large binary file goes in several requests",
        _ => "a content or tree of it is not in the mirror any more",
    }
}

/// The lines that differ, or why they are not shown.
fn differing(content: &Value) -> Vec<String> {
    if let Some(diff) = content["diff"].as_str() {
        let lines: Vec<_> = diff.lines().map(str::to_owned).collect();
        return if lines.is_empty() { vec!["the content is the same".to_owned()] } else { lines };
    }
    let side = |name: &str| {
        let side = &content[name];
        if side.is_null() {
            return format!("{name}: not known");
        }
        let why = match side["left_out"].as_str() {
            Some("binary") => "is no text",
            Some("too_large") => "is larger than 128 KiB",
            Some(_) => "is not available any more",
            None => "is text",
        };
        format!("{name}: {} {why} ({} bytes)", shown(&side["blob"]), shown(&side["size_bytes"]))
    };
    vec![side("old"), side("new")]
}

/// A delivery, or a dead letter, with a block of lines for each of its attempts, which are in this field.
pub(crate) fn described(delivery: &Value, name: &str) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_known_is_shown_also_where_its_code_is_not() {
        let shown = |state: &str, status: Value| row(&json!({ "state": state, "last_status": status }));
        assert_eq!(shown("delivered", Value::Null)["last_status"], "accepted");
        assert_eq!(shown("delivered", json!(204))["last_status"], 204);
        assert_eq!(shown("failed", json!(503))["last_status"], 503);
        assert_eq!(shown("pending", Value::Null)["last_status"], Value::Null);
    }
}
