//! The own sink of a watch as answers show it, without its secrets.

use serde::Serialize;
use tidings_actors::{
    model::sink::SinkAddress,
    ports::{BatchSettings, BreakerRow, DeliverySettings, WINDOW_MAX, Watch},
};
use tidings_entity::kind::RetryPolicy;
use utoipa::ToSchema;

use super::super::{endpoint::EndpointShown, tasks_sink};

/// The sink of one watch, used in place of the endpoint of the app.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct SinkShown {
    /// Id of the sink, `snk_...`. Its breaker has the same id.
    sink_id: String,
    /// Kind of the sink: `endpoint`, `stream`, `pull` or `tasks`.
    kind: &'static str,
    /// Command of the tasks that changes become. Only for `tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// `change` (one task for each change) or `round` (one task for each round). Only for `tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    per: Option<&'static str>,
    /// Maximum number of unfinished tasks of one branch. Only for `tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    /// Address that changes are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Format of the bodies: `docora` or `cloudevents`.
    format: &'static str,
    /// `strict` (one change at a time) or `phased` (attempts may overlap). Only for `endpoint` and `stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    /// Maximum number of attempts in flight. Only for `endpoint` and `stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    /// Settings for sending many changes in one request. Null: one change per request. Only for `endpoint`
    /// and `stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, required = false)]
    batch: Option<Option<BatchSettings>>,
    /// The settings that differ from their defaults.
    #[serde(flatten)]
    chosen: ChosenShown,
    /// Whether header fields, credentials or certificates of the app are used for requests to the sink.
    has_access: bool,
    /// Why nothing is sent to the sink. Missing: the sink is served. `POST /api/repositories/{id}/resume`
    /// enables the sink, and so does a change that names `sink`.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<String>,
    /// State of the endpoint. Missing: nothing is sent to this sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointShown>,
    /// The signing key that this request made for the sink, in the format of Standard Webhooks. Never shown
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) signing_secret: Option<String>,
}

/// Settings of a sink that are shown where they differ from their defaults.
#[derive(Serialize, ToSchema)]
struct ChosenShown {
    /// Growth of the wait between attempts. Missing: `exp_full_jitter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_policy: Option<&'static str>,
    /// The first wait between attempts, in milliseconds. Missing: the server's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_base_ms: Option<u64>,
    /// The longest wait between attempts, in milliseconds. Missing: the server's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_cap_ms: Option<u64>,
    /// How long failures of the endpoint are retried before the branch is blocked, in milliseconds. Missing:
    /// the server's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_window_ms: Option<u64>,
    /// Whether `/synced` is sent after each round. Missing: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    synced: Option<bool>,
    /// Whether `/resync` is sent before each resync. Missing: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    resync: Option<bool>,
    /// Whether `/sync_recovered` is sent when a source can be scanned again. Missing: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_recovered: Option<bool>,
}

impl ChosenShown {
    fn of(delivery: &DeliverySettings) -> Self {
        let yes = |chosen: bool| chosen.then_some(true);
        let policy = Some(delivery.retry_policy).filter(|policy| *policy != RetryPolicy::ExpFullJitter);
        Self {
            retry_policy: policy.map(|policy| policy.as_str()),
            retry_base_ms: delivery.retry_base_ms,
            retry_cap_ms: delivery.retry_cap_ms,
            retry_window_ms: delivery.retry_window_ms,
            synced: yes(delivery.synced),
            resync: yes(delivery.resync),
            sync_recovered: yes(delivery.sync_recovered),
        }
    }
}

impl SinkShown {
    /// The watch's own sink, if it has one.
    pub(in crate::http) fn of(watch: &Watch, breakers: &[BreakerRow]) -> Option<Self> {
        let sink = watch.sink.as_ref()?;
        let address = &sink.address;
        let is_sent_to = matches!(address, SinkAddress::Endpoint(_) | SinkAddress::Stream(_));
        let sent = Some(&sink.delivery).filter(|_| is_sent_to);
        Some(Self {
            sink_id: sink.id.to_string(),
            kind: address.kind().as_str(),
            command: address.command().map(str::to_owned),
            per: address.command().map(|_| tasks_sink::per(&sink.delivery)),
            window: address.command().map(|_| sink.delivery.window.unwrap_or(WINDOW_MAX)),
            url: address.base_url().filter(|_| is_sent_to).map(str::to_owned),
            format: sink.delivery.format_at(address).as_str(),
            order: sent.map(|delivery| delivery.order.as_str()),
            max_in_flight: sent.map(|delivery| delivery.max_in_flight),
            batch: sent.map(|delivery| delivery.batch),
            chosen: ChosenShown::of(&sink.delivery),
            has_access: sink.has_access,
            disabled: sink.disabled.clone(),
            endpoint: EndpointShown::of(&watch.sink_key(), address, breakers),
            signing_secret: None,
        })
    }
}
