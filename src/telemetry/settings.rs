//! `telemetry`: logs, traces and metrics, and where they are exported.

use std::{collections::HashSet, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use tidings_actors::model::{queue_name::QueueName, secret::Secret};
use tidings_section::{Fault, duration, optional, secrets, text_or_number};
use tracing_subscriber::EnvFilter;
use url::Url;

/// Most queues that have a label of their own in metrics: each has some fifty series.
const QUEUES_MAX: usize = 100;

/// Logs, traces and metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// How log lines look.
    #[serde(deserialize_with = "tidings_section::word")]
    pub log_format: LogFormat,
    /// The filter for log lines: `info`, `warn,tidings=debug`, ...
    pub log_filter: String,
    /// Where traces go over OTLP (HTTP, protobuf), with its path; not set: nowhere.
    #[serde(with = "optional")]
    pub otlp_endpoint: Option<String>,
    /// The address that metrics are exported to over OTLP, with its path; not set: metrics are only at
    /// `/metrics`.
    #[serde(with = "optional")]
    pub otlp_metrics_endpoint: Option<String>,
    /// Where log lines go over OTLP, with its path, besides standard error; not set: nowhere.
    #[serde(with = "optional")]
    pub otlp_logs_endpoint: Option<String>,
    /// Headers that every export carries, `name=value`; they hold the collector's credential.
    #[serde(with = "secrets")]
    pub otlp_headers: Vec<Secret>,
    /// How often metrics are exported.
    #[serde(with = "duration")]
    pub otlp_interval: Duration,
    /// The share of all traces that is recorded.
    pub trace_ratio: Ratio,
    /// The share of all answered requests that is logged at `info`; answers with 5xx always are, those to
    /// probes only at `debug`.
    pub request_log_ratio: Ratio,
    /// How often what gauges tell is read from rows.
    #[serde(with = "duration")]
    pub survey_interval: Duration,
    /// The queues whose tasks have a label of their own in metrics, `APP/COMMAND`; the tasks of other queues
    /// are counted together.
    pub queues: Vec<QueueName>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Plain text for a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// A part of a whole, from none to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "String")]
pub struct Ratio(f64);

impl Ratio {
    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or_else(|| format!("{text:?} is no number from 0 to 1"))
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl From<Ratio> for String {
    fn from(ratio: Ratio) -> Self {
        ratio.to_string()
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Human,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            otlp_metrics_endpoint: None,
            otlp_logs_endpoint: None,
            otlp_headers: Vec::new(),
            otlp_interval: Duration::from_secs(60),
            trace_ratio: Ratio(1.0),
            request_log_ratio: Ratio(1.0),
            survey_interval: Duration::from_secs(15),
            queues: Vec::new(),
        }
    }
}

impl TelemetrySettings {
    /// Everything that is wrong with the section.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let filter = EnvFilter::builder().parse(&self.log_filter).err().map(|error| {
            Fault::new("telemetry.log_filter", format!("{:?} is no filter: {error}", self.log_filter))
        });
        let endpoints = [
            ("telemetry.otlp_endpoint", &self.otlp_endpoint),
            ("telemetry.otlp_metrics_endpoint", &self.otlp_metrics_endpoint),
            ("telemetry.otlp_logs_endpoint", &self.otlp_logs_endpoint),
        ];
        let endpoints = endpoints.into_iter().filter_map(|(key, endpoint)| {
            let is_usable = endpoint.as_deref().is_none_or(is_usable);
            let message = "the address must be http:// or https://, without user and password";
            (!is_usable).then(|| Fault::new(key, message))
        });
        let headers = self.otlp_headers.iter().any(|header| !is_header(header.expose())).then(|| {
            Fault::new("telemetry.otlp_headers", "each must be name=value, as HTTP allows it in a header")
        });
        let intervals = [
            Fault::of_zero("telemetry.otlp_interval", self.otlp_interval),
            Fault::of_zero("telemetry.survey_interval", self.survey_interval),
        ];
        let intervals = intervals.into_iter().flatten();
        let queues = self.fault_of_queues();
        filter.into_iter().chain(endpoints).chain(headers).chain(intervals).chain(queues).collect()
    }

    fn fault_of_queues(&self) -> Option<Fault> {
        let fault = |message: String| Some(Fault::new("telemetry.queues", message));
        if self.queues.len() > QUEUES_MAX {
            return fault(format!("at most {QUEUES_MAX} queues have labels of their own"));
        }
        let mut seen = HashSet::new();
        let twice = self.queues.iter().find(|queue| !seen.insert(*queue));
        twice.and_then(|queue| fault(format!("{queue} is named twice")))
    }
}

fn is_usable(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

fn is_header(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, value)| {
        name.trim().parse::<http::HeaderName>().is_ok() && http::HeaderValue::from_str(value.trim()).is_ok()
    })
}
