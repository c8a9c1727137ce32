//! Logs and traces.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{Fault, optional};

/// Logs and traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written: `info`, `warn,tidings=debug`, ...
    pub log_filter: String,
    /// Where traces go over OTLP (HTTP, protobuf), with its path; not set: nowhere.
    #[serde(with = "optional")]
    pub otlp_endpoint: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { log_format: LogFormat::Human, log_filter: "info".to_owned(), otlp_endpoint: None }
    }
}

impl TelemetrySettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let filter = EnvFilter::builder().parse(&self.log_filter).err().map(|error| {
            Fault::new("telemetry.log_filter", format!("{:?} is no filter: {error}", self.log_filter))
        });
        let endpoint = self.otlp_endpoint.as_ref().and_then(|text| {
            let usable = Url::parse(text).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.host().is_some()
                    && url.username().is_empty()
                    && url.password().is_none()
            });
            (!usable).then(|| {
                let message = "the address must be http:// or https://, without user and password";
                Fault::new("telemetry.otlp_endpoint", message)
            })
        });
        filter.into_iter().chain(endpoint).collect()
    }
}
