//! The OTLP exporters (HTTP, protobuf): one address each for traces, metrics and logs, the same headers for
//! all.

use std::{collections::HashMap, time::Duration};

use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::PeriodicReader,
    trace::{Sampler, SdkTracerProvider},
};

use super::{TelemetryError, runtime::OnRuntime, settings::TelemetrySettings};

/// The settings, client and header fields for exports over OTLP.
pub(super) struct Out<'s> {
    settings: &'s TelemetrySettings,
    client: OnRuntime,
    headers: HashMap<String, String>,
}

impl<'s> Out<'s> {
    /// # Errors
    /// [`TelemetryError::Exporter`] when no client can be made.
    pub(super) fn of(settings: &'s TelemetrySettings) -> Result<Self, TelemetryError> {
        let client = OnRuntime::new().map_err(failed)?;
        let headers = settings.otlp_headers.iter().filter_map(|header| header.expose().split_once('='));
        let headers =
            headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        Ok(Self { settings, client, headers })
    }

    /// Spans. Of all traces `trace_ratio` are recorded; a span follows its trace.
    pub(super) fn traces(&self, resource: &Resource) -> Result<Option<SdkTracerProvider>, TelemetryError> {
        let Some(endpoint) = &self.settings.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(self.client.clone())
            .with_headers(self.headers.clone())
            .with_endpoint(endpoint)
            .build()
            .map_err(failed)?;
        let sampler =
            Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.settings.trace_ratio.share())));
        let builder = SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler);
        Ok(Some(builder.with_resource(resource.clone()).build()))
    }

    /// The provider that exports log lines; `None`: no address for logs is set.
    pub(super) fn logs(&self, resource: &Resource) -> Result<Option<SdkLoggerProvider>, TelemetryError> {
        let Some(endpoint) = &self.settings.otlp_logs_endpoint else { return Ok(None) };
        let exporter = LogExporter::builder()
            .with_http()
            .with_http_client(self.client.clone())
            .with_headers(self.headers.clone())
            .with_endpoint(endpoint)
            .build()
            .map_err(failed)?;
        let builder = SdkLoggerProvider::builder().with_batch_exporter(exporter);
        Ok(Some(builder.with_resource(resource.clone()).build()))
    }

    /// Numbers, once in each interval.
    pub(super) fn metrics(&self) -> Result<Option<PeriodicReader<MetricExporter>>, TelemetryError> {
        let Some(endpoint) = &self.settings.otlp_metrics_endpoint else { return Ok(None) };
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(self.client.clone())
            .with_headers(self.headers.clone())
            .with_endpoint(endpoint)
            .build()
            .map_err(failed)?;
        let interval: Duration = self.settings.otlp_interval;
        Ok(Some(PeriodicReader::builder(exporter).with_interval(interval).build()))
    }
}

fn failed(error: impl std::fmt::Display) -> TelemetryError {
    TelemetryError::Exporter(error.to_string())
}
