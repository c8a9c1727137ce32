//! Bringing changes to apps; an app's own settings go before these where it has them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fault, duration};
use crate::sinks::body::CHUNK_THRESHOLD;

/// Bytes of a file in one chunk: a smaller file needs no chunks.
const CHUNK_BYTES: u64 = 384 << 10;
/// The largest content that is delivered, in bytes.
const CONTENT_BYTES_MAX: u64 = 256 << 20;

/// Bringing changes to apps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// How long after the answer to a registration the first delivery waits.
    #[serde(with = "duration")]
    pub first_delay: Duration,
    /// Connect, headers and body of one attempt together.
    #[serde(with = "duration")]
    pub attempt_timeout: Duration,
    /// The first wait between tries.
    #[serde(with = "duration")]
    pub retry_base: Duration,
    /// The longest wait between tries.
    #[serde(with = "duration")]
    pub retry_cap: Duration,
    /// How long failures of an endpoint are retried before its watch is blocked.
    #[serde(with = "duration")]
    pub retry_window: Duration,
    /// Most attempts in flight over all apps.
    pub max_concurrent: u32,
    /// Most attempts in flight to one app; an app may choose fewer.
    pub app_max_concurrent: u32,
    /// Most requests to one app in any second; an app may choose fewer. 0: no limit but its own.
    pub app_rate: u32,
    /// Bytes of deliveries that all watches together hold rendered, beside one larger delivery.
    pub memory_bytes: u64,
    /// Binary files of more bytes than this go in chunks; smaller ones in one request.
    pub chunk_threshold: u32,
    /// Which attempts are stored as rows, and so shown as history.
    #[serde(deserialize_with = "tidings_section::word")]
    pub history: History,
    /// For how many days history is kept.
    pub history_days: u32,
    /// Rows of history that an app has at most.
    pub history_rows: u64,
    /// How long a stop waits for answers to attempts.
    #[serde(with = "duration")]
    pub drain_deadline: Duration,
}

/// Which attempts are stored as rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Failed attempts; successes are one row for each settled range.
    #[default]
    Failed,
    /// Every attempt, successful ones included.
    All,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(30),
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_hours(1),
            retry_window: Duration::from_hours(72),
            max_concurrent: 1_024,
            app_max_concurrent: 32,
            app_rate: 0,
            memory_bytes: 128 << 20,
            chunk_threshold: CHUNK_THRESHOLD as u32,
            history: History::Failed,
            history_days: 30,
            history_rows: 1_000_000,
            drain_deadline: Duration::from_secs(20),
        }
    }
}

impl DeliverySettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let above_cap = self.retry_base > self.retry_cap;
        [
            Fault::of_zero("delivery.attempt_timeout", self.attempt_timeout),
            Fault::of_zero("delivery.retry_base", self.retry_base),
            Fault::of_zero("delivery.retry_window", self.retry_window),
            above_cap.then(|| {
                let base = humantime::format_duration(self.retry_base);
                let cap = humantime::format_duration(self.retry_cap);
                let message = format!("{base} is longer than delivery.retry_cap, which is {cap}");
                Fault::new("delivery.retry_base", message)
            }),
            Fault::of_range("delivery.max_concurrent", self.max_concurrent.into(), 1..=65_536),
            Fault::of_range("delivery.app_max_concurrent", self.app_max_concurrent.into(), 1..=1_024),
            Fault::of_range("delivery.app_rate", self.app_rate.into(), 0..=10_000),
            Fault::of_range("delivery.memory_bytes", self.memory_bytes, 1 << 20..=1 << 40),
            Fault::of_range(
                "delivery.chunk_threshold",
                self.chunk_threshold.into(),
                CHUNK_BYTES..=CONTENT_BYTES_MAX,
            ),
            Fault::of_range("delivery.history_days", self.history_days.into(), 1..=36_500),
            Fault::of_range("delivery.history_rows", self.history_rows, 1_000..=1_000_000_000),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
