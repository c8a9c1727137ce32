//! Logs, traces and metrics. Log lines go to standard error, for people or as JSON; metrics are served at
//! `/metrics`; each of the three is exported over OTLP if a collector is configured. No field ever holds a
//! secret: tokens, keys and credentials are types that cannot be shown.

mod app_samples;
mod exporters;
mod filter;
mod gauges;
pub mod instruments;
mod metrics;
mod place;
mod process;
mod queue_labels;
mod queue_samples;
mod runtime;
mod samples;
pub mod settings;

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TraceId, TracerProvider},
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    Resource, logs::SdkLoggerProvider, propagation::TraceContextPropagator, trace::SdkTracerProvider,
};
use thiserror::Error;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, registry::LookupSpan, reload,
    util::SubscriberInitExt,
};

pub use self::{
    app_samples::AppSample,
    filter::{check_filter, filter, set_filter},
    metrics::{Connected, Metrics, MetricsError},
    place::ProcessTracer,
    queue_samples::QueueSample,
    samples::Sample,
};
use settings::{LogFormat, TelemetrySettings};

/// How long sending the remaining data may take at a stop, for each of the three.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// Targets that are not exported: those of the exporter itself, whose spans and lines would cause more of
/// them; and actors, each of which is one span for its whole life.
const NOT_EXPORTED: [&str; 7] = ["hyper", "reqwest", "h2", "rustls", "opentelemetry", "ractor", "async_nats"];

/// The reason why telemetry could not start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter of log lines does not parse.
    #[error("telemetry.log_filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An exporter cannot be built.
    #[error("telemetry cannot be exported: {0}")]
    Exporter(String),
    /// The numbers cannot be shown.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Something else in this process writes log lines already.
    #[error("telemetry was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry going; ends it with [`Guard::stop`].
#[must_use = "what was not exported is lost without its stop"]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<Metrics>,
}

impl Guard {
    /// Sends the remaining data, for at most five seconds each. Blocks, so it must not run in an async task.
    pub fn stop(self) {
        let Self { traces, logs, metrics } = self;
        let stops = [
            ("spans", traces.map(|traces| traces.shutdown_with_timeout(FLUSH_DEADLINE))),
            ("numbers", metrics.map(|metrics| metrics.stop(FLUSH_DEADLINE))),
            // The lines of the two above are among the last.
            ("lines", logs.map(|logs| logs.shutdown_with_timeout(FLUSH_DEADLINE))),
        ];
        for (what, stopped) in stops {
            if let Some(Err(error)) = stopped {
                tracing::warn!(%error, "the last {what} were not exported");
            }
        }
    }
}

/// Starts logs, metrics and, where an endpoint is set, traces. Must run inside a tokio runtime that
/// lives until [`Guard::stop`].
///
/// # Errors
/// See [`TelemetryError`].
pub fn start(settings: &TelemetrySettings) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::builder().parse(&settings.log_filter)?;
    let out = exporters::Out::of(settings)?;
    let resource = Resource::builder().with_service_name("tidings").build();
    let provider = out.traces(&resource)?;
    let logs = out.logs(&resource)?;
    let metrics = match out.metrics()? {
        Some(reader) => Metrics::new(resource, &settings.queues, |builder| builder.with_reader(reader))?,
        None => Metrics::new(resource, &settings.queues, |builder| builder)?,
    };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tidings"))
            .with_filter(filter_fn(is_exported))
    });
    let mut exported_handle = None;
    let exported = match &logs {
        None => None,
        Some(provider) => {
            let (same, handle) = reload::Layer::new(EnvFilter::builder().parse(&settings.log_filter)?);
            exported_handle = Some(handle);
            let bridge = OpenTelemetryTracingBridge::new(provider);
            Some(bridge.with_filter(filter_fn(is_exported)).with_filter(same))
        }
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = lines(settings.log_format).with_filter(filter);
    tracing_subscriber::registry().with(lines).with(traces).with(exported).try_init()?;
    let lines = settings.log_filter.clone();
    filter::remember(lines, move |text| {
        let parsed = || EnvFilter::builder().parse(text).ok();
        parsed().is_some_and(|filter| handle.reload(filter).is_ok())
            && exported_handle
                .as_ref()
                .is_none_or(|exported| parsed().is_some_and(|filter| exported.reload(filter).is_ok()))
    });
    metrics.install();
    Ok(Guard { traces: provider, logs, metrics: Some(metrics) })
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    !NOT_EXPORTED.iter().any(|name| target.starts_with(name))
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

/// Makes a span part of the trace that a request names in `traceparent`, and returns the id of that trace.
/// The span is exported if the caller records its trace.
pub fn follow(span: &Span, headers: &HeaderMap) -> Option<TraceId> {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    let facts = context.span().span_context().clone();
    if !facts.is_valid() {
        return None;
    }
    // Without an exporter of traces there is no layer that keeps parents; the id is still logged.
    let _ = span.set_parent(context);
    Some(facts.trace_id())
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

#[cfg(test)]
mod tests;
