//! `tidings repository update`: other settings for a watch, the fields of `PATCH /api/repositories/{id}`.

use clap::{Args, builder::PossibleValuesParser};
use http::Method;
use serde_json::{Value, json};

use super::{
    super::{Code, Context, Failure},
    OneArgs, call,
    settings::SettingsArgs,
    shown::described,
    sink::SinkArgs,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    sink: SinkArgs,
    /// Send changes to the endpoint of the app instead of a sink of the watch
    #[arg(long, conflicts_with_all = [
        "sink_url", "sink_pull", "sink_tasks", "sink_window", "sink_format", "sink_order",
    ])]
    no_sink: bool,
    /// Remove all include globs: every path is watched
    #[arg(long, conflicts_with = "include")]
    no_include: bool,
    /// Remove all exclude globs
    #[arg(long, conflicts_with = "exclude")]
    no_exclude: bool,
    /// Whether the watch is served (active) or not (paused)
    #[arg(long, value_parser = PossibleValuesParser::new(["active", "paused"]))]
    state: Option<String>,
}

pub(super) async fn run(arguments: &UpdateArgs, context: &Context) -> Result<(), Failure> {
    let mut fields = arguments.settings.fields();
    for (name, is_none) in [("include", arguments.no_include), ("exclude", arguments.no_exclude)] {
        fields.extend(is_none.then(|| (name.to_owned(), json!([]))));
    }
    fields.extend(arguments.state.as_ref().map(|state| ("state".to_owned(), json!(state))));
    fields.extend(sink_field(arguments));
    if fields.is_empty() {
        let text = "there is nothing to change: give a setting (tidings repository update --help lists them)";
        return Err(Failure::new(Code::Usage, text));
    }
    let body = Value::Object(fields);
    let (_, watch) = call(&arguments.one, context, Method::PATCH, None, Some(&body)).await?;
    context.output.print(&watch, &described(&watch, &Value::Null))
}

fn sink_field(arguments: &UpdateArgs) -> Option<(String, Value)> {
    if arguments.no_sink { Some(("sink".to_owned(), Value::Null)) } else { arguments.sink.field() }
}
