//! The rates of one queue in the last hour, from the surveys of this process.

use serde::Serialize;
use tidings_actors::{model::queue_name::QueueName, ports::Queue};
use utoipa::ToSchema;

use crate::{
    http::bodies::moment::iso,
    telemetry::{Metrics, QueueSample},
};

/// How many tasks a queue moved in a minute, on average over the last hour, as this process measured it. A
/// restart loses the numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueRatesShown {
    /// Tasks that were created, those of changes of watches included; null where no time was measured.
    created_per_min: Option<f64>,
    /// Tasks that were handed out to workers; null as above.
    claimed_per_min: Option<f64>,
    /// Tasks that succeeded; null as above.
    succeeded_per_min: Option<f64>,
    /// Tasks that failed or died; null as above.
    failed_per_min: Option<f64>,
    /// The oldest first: one for each minute of the last hour. Empty where more queues are at work than this
    /// process takes samples of (10,000).
    minutes: Vec<QueueMinuteShown>,
}

/// The rates of a queue in one minute.
#[derive(Serialize, ToSchema)]
struct QueueMinuteShown {
    /// The begin of the minute.
    at: String,
    /// Tasks that were created; null where no time was measured.
    created_per_min: Option<f64>,
    /// Tasks that were handed out to workers; null as above.
    claimed_per_min: Option<f64>,
    /// Tasks that succeeded; null as above.
    succeeded_per_min: Option<f64>,
    /// Tasks that failed or died; null as above.
    failed_per_min: Option<f64>,
}

/// A number for each minute; `None` where no time was measured.
fn per_minute(number: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| (number as f64 / seconds * 60_000.0).round() / 1_000.0)
}

impl QueueRatesShown {
    pub(super) fn of(queue: &Queue) -> Self {
        let name = QueueName { app: queue.app.clone(), command: queue.command.clone() };
        Self::of_samples(&Metrics::of_process().samples_of_queue(&name))
    }

    fn of_samples(samples: &[QueueSample]) -> Self {
        let seconds: f64 = samples.iter().map(|sample| sample.seconds).sum();
        let average = |of: fn(&QueueSample) -> u64| per_minute(samples.iter().map(of).sum(), seconds);
        Self {
            created_per_min: average(|sample| sample.created),
            claimed_per_min: average(|sample| sample.claimed),
            succeeded_per_min: average(|sample| sample.succeeded),
            failed_per_min: average(|sample| sample.failed),
            minutes: samples.iter().map(QueueMinuteShown::of).collect(),
        }
    }
}

impl QueueMinuteShown {
    fn of(sample: &QueueSample) -> Self {
        Self {
            at: iso(sample.at),
            created_per_min: per_minute(sample.created, sample.seconds),
            claimed_per_min: per_minute(sample.claimed, sample.seconds),
            succeeded_per_min: per_minute(sample.succeeded, sample.seconds),
            failed_per_min: per_minute(sample.failed, sample.seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_actors::time::Timestamp;

    use super::*;

    #[test]
    fn the_rates_are_averages_over_the_time_that_was_measured() {
        let sample = |at, seconds, created, failed| QueueSample {
            at: Timestamp(at),
            seconds,
            created,
            claimed: 2 * created,
            succeeded: 0,
            failed,
        };
        let rates = QueueRatesShown::of_samples(&[sample(0, 30.0, 10, 0), sample(60_000, 60.0, 5, 3)]);
        let shown = serde_json::to_value(&rates).expect("JSON");
        assert_eq!(
            (&shown["created_per_min"], &shown["claimed_per_min"], &shown["failed_per_min"]),
            (&json!(10.0), &json!(20.0), &json!(2.0)),
            "15, 30 and 3 in one minute and a half"
        );
        assert_eq!(shown["minutes"][0]["created_per_min"], json!(20.0));
        assert_eq!(shown["minutes"][1]["created_per_min"], json!(5.0));
        let none = serde_json::to_value(QueueRatesShown::of_samples(&[])).expect("JSON");
        assert_eq!((&none["created_per_min"], &none["minutes"]), (&json!(null), &json!([])));
    }
}
