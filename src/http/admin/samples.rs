//! The numbers of the last hour, for plots, from the surveys of this process.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::front::Front;
use crate::http::{
    bodies::{moment::iso, paging::Query},
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};
use crate::telemetry::{Metrics, Sample};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_list, _, _>(Access::Staff(Permission::SystemRead), list)]
}

/// The samples of this process.
#[derive(Serialize, ToSchema)]
struct SamplesShown {
    /// How often one is taken (`telemetry.survey_interval`), in milliseconds.
    interval_ms: u64,
    /// The oldest first; of the last hour, at most 720.
    items: Vec<SampleShown>,
}

/// What a survey found, and what this process did since the one before.
#[derive(Serialize, ToSchema)]
struct SampleShown {
    at: String,
    /// Age of the oldest unsettled change in milliseconds; null where another replica measures it.
    lag_ms: Option<u64>,
    /// Branches that are behind; null as above.
    behind: Option<u64>,
    /// Open dead letters; null as above.
    dead_letters: Option<u64>,
    /// Changes that were acknowledged each second; null in the first sample.
    acknowledged_per_s: Option<f64>,
    /// Changes that were parked each second; null in the first sample.
    parked_per_s: Option<f64>,
    /// Attempts each second that no 2xx ended; null in the first sample.
    failed_per_s: Option<f64>,
    /// Scans each second; null in the first sample.
    scans_per_s: Option<f64>,
}

impl SampleShown {
    fn of(sample: &Sample) -> Self {
        let per_second = |number: u64| {
            let seconds = sample.over.as_secs_f64();
            (seconds > 0.0).then(|| (number as f64 / seconds * 1_000.0).round() / 1_000.0)
        };
        Self {
            at: iso(sample.at),
            lag_ms: sample.totals.map(|totals| totals.lag_ms),
            behind: sample.totals.map(|totals| totals.behind),
            dead_letters: sample.totals.map(|totals| totals.dead_letters),
            acknowledged_per_s: per_second(sample.acknowledged),
            parked_per_s: per_second(sample.parked),
            failed_per_s: per_second(sample.failed),
            scans_per_s: per_second(sample.scans),
        }
    }
}

/// Lists the lag and the rates of the last hour, as this process measured them. A restart clears the list.
#[utoipa::path(get, path = "/api/admin/samples", tag = "admin", responses(
    (status = 200, body = SamplesShown)
))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    Query::of(&request.query, &[])?;
    let interval: Duration = front.settings.telemetry.survey_interval;
    let items = Metrics::of_process().samples().iter().map(SampleShown::of).collect();
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Ok(json(StatusCode::OK, &SamplesShown { interval_ms, items }))
}
