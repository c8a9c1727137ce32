//! `tidings repository update`: other settings for a watch, the fields of `PATCH /api/repositories/{id}`.

use clap::{Args, builder::PossibleValuesParser};
use http::Method;
use serde_json::{Value, json};

use super::{OneArgs, call, settings::SettingsArgs, shown::described, sink::SinkArgs};
use crate::cli::{Code, Context, Failure, app::endpoint_access::RemovedArgs};

#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    removed: RemovedArgs,
    /// Send changes to the endpoint of the app instead of a sink of the watch
    // The names of structs stand for all of their arguments.
    #[arg(long, conflicts_with_all = [
        "sink_url", "sink_pull", "sink_tasks", "sink_window", "sink_per", "sink_format", "sink_order",
        "RetryArgs", "LimitArgs", "HeaderArgs", "AuthArgs", "TlsArgs", "RemovedArgs",
    ])]
    no_sink: bool,
    /// Remove all include globs: every path is watched
    #[arg(long, conflicts_with = "include")]
    no_include: bool,
    /// Remove all exclude globs: no path is left out
    #[arg(long, conflicts_with = "exclude")]
    no_exclude: bool,
    /// Let the sink of the watch sign with a new key, which is printed once; the previous key signs beside it
    /// for a day
    #[arg(long, conflicts_with_all = ["no_sink", "sink_pull", "sink_tasks"])]
    rotate_sink_key: bool,
    /// Give the watch this name, which distinguishes watches of the same refs: lower-case letters, digits
    /// and -
    #[arg(long, value_name = "NAME", conflicts_with = "no_watch_name")]
    watch_name: Option<String>,
    /// Remove the name of the watch
    #[arg(long)]
    no_watch_name: bool,
    /// Whether the watch is served (active) or not (paused)
    #[arg(long, value_parser = PossibleValuesParser::new(["active", "paused"]))]
    state: Option<String>,
}

pub(super) async fn run(arguments: &UpdateArgs, context: &Context) -> Result<(), Failure> {
    let mut fields = arguments.settings.fields();
    for (name, is_none) in [("include", arguments.no_include), ("exclude", arguments.no_exclude)] {
        fields.extend(is_none.then(|| (name.to_owned(), json!([]))));
    }
    let name = if arguments.no_watch_name { Some("") } else { arguments.watch_name.as_deref() };
    fields.extend(name.map(|name| ("watch_name".to_owned(), json!(name))));
    fields.extend(arguments.state.as_ref().map(|state| ("state".to_owned(), json!(state))));
    fields.extend(sink(arguments, context)?.map(|sink| ("sink".to_owned(), sink)));
    fields.extend(arguments.rotate_sink_key.then(|| ("rotate_signing_key".to_owned(), json!(true))));
    if fields.is_empty() {
        let text = "there is nothing to change: give a setting (tidings repository update --help lists them)";
        return Err(Failure::new(Code::Usage, text));
    }
    let body = Value::Object(fields);
    let (_, watch) = call(&arguments.one, context, Method::PATCH, None, Some(&body)).await?;
    context.output.print(&watch, &described(&watch, &Value::Null))
}

/// The field `sink`; `None`: no argument is about the sink.
fn sink(arguments: &UpdateArgs, context: &Context) -> Result<Option<Value>, Failure> {
    if arguments.no_sink {
        return Ok(Some(Value::Null));
    }
    let mut sink = arguments.sink.fields(context)?;
    arguments.removed.enter(&mut sink);
    Ok((!sink.is_empty()).then_some(Value::Object(sink)))
}
