//! The state of a sink that deliveries are sent to, by its circuit breaker.

use serde::Serialize;
use tidings_actors::{
    model::sink::{Outlet, SinkAddress},
    ports::{BreakerRow, SinkKey},
};
use tidings_entity::kind::BreakerKind;
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// State of an endpoint, as its circuit breaker reports it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct EndpointShown {
    /// `closed` (deliveries flow) or `open` (nothing is sent except a probe from time to time).
    state: &'static str,
    /// Number of failures in a row.
    failures: u32,
    /// When the next probe is due. Only while the breaker is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<String>,
    /// The last failure of a request to the endpoint, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl EndpointShown {
    /// `None`: nothing is sent to this sink, so it has no state.
    pub(in crate::http) fn of(key: &SinkKey, address: &SinkAddress, breakers: &[BreakerRow]) -> Option<Self> {
        if address.outlet() != Outlet::Attempt {
            return None;
        }
        let row = breakers.iter().find(|row| row.kind == BreakerKind::Endpoint && row.id == key.id());
        let is_open = row.is_some_and(|row| row.opened_at.is_some());
        Some(Self {
            state: if is_open { "open" } else { "closed" },
            failures: row.map_or(0, |row| row.failures),
            probe_at: row.filter(|_| is_open).and_then(|row| row.probe_at).map(iso),
            last_error: row.map(|row| row.last_error.clone()),
        })
    }
}
