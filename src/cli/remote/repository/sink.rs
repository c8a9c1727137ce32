//! Arguments for the sink of one watch: the field `sink` of bodies.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};
use tidings_actors::model::sink::SinkAddress;

use crate::cli::{
    Context, Failure,
    app::{
        attempts::{LimitArgs, RetryArgs},
        endpoint_access::SinkAccessArgs,
    },
};

/// The arguments for the watch's own sink.
#[derive(Args, Debug)]
pub(in crate::cli) struct SinkArgs {
    /// Send the changes of the watch to this address (https:// or nats://) instead of the endpoint of the app
    #[arg(long, value_name = "URL", conflicts_with = "sink_pull")]
    sink_url: Option<String>,
    /// Send nothing: a consumer pulls the changes of the watch (tidings listen --pull)
    #[arg(long)]
    sink_pull: bool,
    /// Send nothing: each change becomes a task of this command, which workers claim
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["sink_url", "sink_pull", "sink_order"])]
    sink_tasks: Option<String>,
    /// One task for each change (the default) or for each round, with --sink-tasks
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["change", "round"]))]
    sink_per: Option<String>,
    /// Most unfinished tasks of one branch, 1 to 1000, with --sink-tasks; 1000 if never set
    #[arg(long, value_name = "COUNT")]
    sink_window: Option<u32>,
    /// The format of bodies at --sink-url or of payloads with --sink-tasks: docora or cloudevents
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    sink_format: Option<String>,
    /// Send one change at a time (strict) or several at once (phased) to --sink-url
    #[arg(long, value_name = "ORDER", conflicts_with = "sink_pull")]
    #[arg(value_parser = PossibleValuesParser::new(["strict", "phased"]))]
    sink_order: Option<String>,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    access: SinkAccessArgs,
}

impl SinkArgs {
    /// What the field `sink` holds for these arguments; empty: no argument is given.
    ///
    /// # Errors
    /// If a secret is missing or a file cannot be read.
    pub(super) fn fields(&self, context: &Context) -> Result<Map<String, Value>, Failure> {
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
        let words = [("format", &self.sink_format), ("order", &self.sink_order), ("per", &self.sink_per)];
        for (name, word) in words {
            sink.extend(word.as_ref().map(|word| (name.to_owned(), json!(word))));
        }
        sink.extend(self.retries.fields());
        sink.extend(self.limits.fields());
        self.access.enter(context, &mut sink)?;
        Ok(sink)
    }
}
