//! Logs and traces. Log lines go to standard error, for people or as JSON; spans go to a collector
//! over OTLP where one is configured. Nothing secret is ever a field: tokens, keys and credentials
//! are types that cannot be shown.

mod runtime;

use std::time::Duration;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use thiserror::Error;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use self::runtime::OnRuntime;
use crate::settings::{LogFormat, TelemetrySettings};

/// How long the last spans may take to leave at a stop.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// What the exporter itself uses: its spans would make spans.
const NOT_EXPORTED: [&str; 4] = ["hyper", "reqwest", "h2", "opentelemetry"];

/// Why telemetry did not start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter of log lines does not parse.
    #[error("telemetry.log_filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of spans cannot be built.
    #[error("traces cannot be exported: {0}")]
    Exporter(String),
    /// Something else in this process writes log lines already.
    #[error("telemetry was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry going; ends it with [`Guard::stop`].
#[must_use = "spans that were not exported are lost without its stop"]
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what is left, for at most five seconds. Blocks: not for an async task.
    pub fn stop(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_DEADLINE) {
            tracing::warn!(error = %error, "the last spans were not exported");
        }
    }
}

/// Starts logs and, where an endpoint is set, traces. Must run inside a tokio runtime that lives
/// until [`Guard::stop`].
///
/// # Errors
/// See [`TelemetryError`].
pub fn start(settings: &TelemetrySettings) -> Result<Guard, TelemetryError> {
    let provider = settings.otlp_endpoint.as_deref().map(provider).transpose()?;
    let filter = EnvFilter::builder().parse(&settings.log_filter)?;
    let traces = provider.as_ref().map(|provider| {
        let ours = filter_fn(|metadata| {
            let target = metadata.target();
            !NOT_EXPORTED.iter().any(|name| target.starts_with(name))
        });
        tracing_opentelemetry::layer().with_tracer(provider.tracer("tidings")).with_filter(ours)
    });
    let lines = lines(settings.log_format).with_filter(filter);
    tracing_subscriber::registry().with(lines).with(traces).try_init()?;
    Ok(Guard { provider })
}

/// The W3C `traceparent` of the current span, where traces are exported.
#[must_use]
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let facts = span.span_context();
    facts
        .is_valid()
        .then(|| format!("00-{}-{}-{:02x}", facts.trace_id(), facts.span_id(), facts.trace_flags().to_u8()))
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Human => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(colours).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).boxed(),
    }
}

fn provider(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let failed = |error: &dyn std::fmt::Display| TelemetryError::Exporter(error.to_string());
    let client = OnRuntime::new().map_err(|error| failed(&error))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| failed(&error))?;
    let resource = Resource::builder().with_service_name("tidings").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests;
