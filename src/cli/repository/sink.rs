//! Arguments for the sink of one watch: the field `sink` of bodies.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};
use tidings_actors::model::sink::SinkAddress;

/// The arguments for the watch's own sink.
#[derive(Args, Debug)]
pub(in crate::cli) struct SinkArgs {
    /// Send the changes of the watch to this address (https:// or nats://) instead of the endpoint of the app
    #[arg(long, value_name = "URL", conflicts_with = "sink_pull")]
    sink_url: Option<String>,
    /// Send nothing: a consumer pulls the changes
    #[arg(long)]
    sink_pull: bool,
    /// Send nothing: each change becomes a task of this command, which workers claim
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["sink_url", "sink_pull", "sink_order"])]
    sink_tasks: Option<String>,
    /// Most unfinished tasks of one branch, with --sink-tasks
    #[arg(long, value_name = "COUNT")]
    sink_window: Option<u32>,
    /// The format of bodies at --sink-url or of payloads with --sink-tasks: docora or cloudevents
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    sink_format: Option<String>,
    /// Send one change at a time (strict) or several at once (phased) to --sink-url
    #[arg(long, value_name = "ORDER", value_parser = PossibleValuesParser::new(["strict", "phased"]))]
    sink_order: Option<String>,
}

impl SinkArgs {
    /// The field for these arguments; `None`: no argument is given.
    pub(super) fn field(&self) -> Option<(String, Value)> {
        let mut sink = Map::new();
        if self.sink_pull {
            sink.insert("kind".to_owned(), json!("pull"));
        }
        if let Some(url) = &self.sink_url {
            sink.insert("kind".to_owned(), json!(SinkAddress::of(Some(url.clone())).kind().as_str()));
            sink.insert("url".to_owned(), json!(url));
        }
        if let Some(command) = &self.sink_tasks {
            sink.insert("kind".to_owned(), json!("tasks"));
            sink.insert("command".to_owned(), json!(command));
        }
        sink.extend(self.sink_window.map(|window| ("window".to_owned(), json!(window))));
        for (name, word) in [("format", &self.sink_format), ("order", &self.sink_order)] {
            sink.extend(word.as_ref().map(|word| (name.to_owned(), json!(word))));
        }
        (!sink.is_empty()).then(|| ("sink".to_owned(), Value::Object(sink)))
    }
}
