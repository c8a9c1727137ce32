//! Arguments for a subscription: its filter, its sink and the access data for requests to the sink.

use clap::{ArgGroup, Args, builder::PossibleValuesParser};
use http::Method;
use serde_json::{Map, Value, json};

use super::{OneArgs, PATH, call};
use crate::cli::{
    Code, Context, Failure,
    app::{
        attempts::RetryArgs,
        endpoint_access::{RemovedArgs, SinkAccessArgs},
    },
    client::ServerArgs,
    output::fields,
};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("place").args(["url", "mail"]).required(true))]
pub(in crate::cli) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name: letters, digits, '.', '-' and '_'
    name: String,
    #[command(flatten)]
    sink: SinkArgs,
    /// Only entries that match this filter, such as 'type:source.failing'; docs/filters.md describes filters
    #[arg(long, value_name = "FILTER", default_value = "")]
    filter: String,
    /// Begin with the entry of this number; if missing, with the next new entry
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// End the subscription at this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The new name: letters, digits, '.', '-' and '_'
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    removed: RemovedArgs,
    /// The new filter; '' for all entries
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Continue with the entry of this number: this and later entries are sent again, earlier ones are not
    /// sent
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// End the subscription at this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
    /// Remove the end of the subscription: it goes on until it is removed
    #[arg(long, conflicts_with = "expires_at")]
    no_end: bool,
}

/// The sink of the entries, with its access data: the field `sink` of bodies.
#[derive(Args, Debug)]
struct SinkArgs {
    /// Address that entries are sent to: https://host/path, or nats://host/subject.prefix
    #[arg(long)]
    url: Option<String>,
    /// A recipient of mails with the entries, up to ten times; mail.allow must list each
    #[arg(
        long,
        value_name = "TO",
        conflicts_with_all = ["url", "format", "header_file", "auth", "client_certificate", "ca_file"]
    )]
    mail: Vec<String>,
    /// The format of bodies: docora (plain JSON) or cloudevents
    #[arg(long, value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    format: Option<String>,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    access: SinkAccessArgs,
}

impl SinkArgs {
    fn fields(self, context: &Context) -> Result<Map<String, Value>, Failure> {
        let mut sink = Map::new();
        sink.extend(self.url.map(|url| ("url".to_owned(), json!(url))));
        if !self.mail.is_empty() {
            sink.insert("kind".to_owned(), json!("mail"));
            sink.insert("to".to_owned(), json!(self.mail));
        }
        sink.extend(self.format.map(|format| ("format".to_owned(), json!(format))));
        sink.extend(self.retries.fields());
        self.access.enter(context, &mut sink)?;
        Ok(sink)
    }
}

pub(super) async fn add(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let AddArgs { server, name, sink, filter, from, expires_at } = arguments;
    let mut body = json!({ "name": name, "filter": filter, "sink": sink.fields(context)? });
    if let Some(from) = from {
        body["from"] = json!(from);
    }
    if let Some(expires_at) = expires_at {
        body["expires_at"] = json!(expires_at);
    }
    let made = context.client(&server)?.call(Method::POST, &PATH, Some(&body)).await?;
    print_with_secret(&made, context)
}

pub(super) async fn update(arguments: UpdateArgs, context: &Context) -> Result<(), Failure> {
    let UpdateArgs { one, name, sink, removed, filter, from, expires_at, no_end } = arguments;
    let mut body = Map::new();
    for (field, value) in [
        ("name", name.map(Value::from)),
        ("filter", filter.map(Value::from)),
        ("from", from.map(Value::from)),
        ("expires_at", expires_at.map(Value::from).or(no_end.then_some(Value::Null))),
    ] {
        body.extend(value.map(|value| (field.to_owned(), value)));
    }
    let mut sink = sink.fields(context)?;
    removed.enter(&mut sink);
    body.extend((!sink.is_empty()).then(|| ("sink".to_owned(), Value::Object(sink))));
    if body.is_empty() {
        let text = "name something to change (see tidings subscription update --help)";
        return Err(Failure::new(Code::Usage, text));
    }
    let (_, done) = call(&one, context, Method::PATCH, None, Some(&Value::Object(body))).await?;
    print_with_secret(&done, context)
}

/// Prints a subscription; for a new key also that the key is shown only once.
pub(super) fn print_with_secret(shown: &Value, context: &Context) -> Result<(), Failure> {
    let mut lines = fields(shown);
    if shown["sink"]["signing_secret"].is_string() {
        lines.push("The signing secret is not shown again.".to_owned());
    }
    context.output.print(shown, &lines)
}
