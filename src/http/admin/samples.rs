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
use crate::telemetry::{AppSample, Metrics, Sample};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_list, _, _>(Access::Staff(Permission::SystemRead), list)]
}

/// The routes of apps in this file.
pub(in crate::http) fn of_apps() -> Vec<Route> {
    vec![route::<__path_list_of_app, _, _>(Access::App(Permission::AppsRead), list_of_app)]
}

/// Samples that this process measured.
#[derive(Serialize, ToSchema)]
struct SamplesShown {
    /// Milliseconds between two samples (`telemetry.survey_interval`).
    interval_ms: u64,
    /// The samples of the last hour, oldest first, at most 720.
    items: Vec<SampleShown>,
}

/// State of the server at one moment, and rates since the previous sample. Rates count only this process.
#[derive(Serialize, ToSchema)]
struct SampleShown {
    at: String,
    /// Age of the oldest unsettled change in milliseconds. Null: another replica reports the number.
    lag_ms: Option<u64>,
    /// Number of branches that are behind. Null: another replica reports the number.
    behind: Option<u64>,
    /// Number of open dead letters. Null: another replica reports the number.
    dead_letters: Option<u64>,
    /// Acknowledged changes per second. Null in the first sample.
    acknowledged_per_s: Option<f64>,
    /// Parked changes per second. Null in the first sample.
    parked_per_s: Option<f64>,
    /// Attempts per second that did not end with a 2xx. Null in the first sample.
    failed_per_s: Option<f64>,
    /// Scans per second. Null in the first sample.
    scans_per_s: Option<f64>,
}

/// A number for each second; `None` where no time was measured.
fn per_second(number: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| (number as f64 / seconds * 1_000.0).round() / 1_000.0)
}

impl SampleShown {
    fn of(sample: &Sample) -> Self {
        let per_second = |number| per_second(number, sample.over.as_secs_f64());
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

/// The samples of an app.
#[derive(Serialize, ToSchema)]
struct AppSamplesShown {
    /// The oldest first: one for each minute of the last hour. Empty where more apps are at work than this
    /// process takes samples of (10,000).
    items: Vec<AppSampleShown>,
}

/// What an app had in a minute, as this process measured it.
#[derive(Serialize, ToSchema)]
struct AppSampleShown {
    /// The begin of the minute.
    at: String,
    /// The longest age of an unsettled change in milliseconds; null where another replica measures it.
    lag_ms: Option<u64>,
    /// Branches that were behind; null as above.
    behind: Option<u64>,
    /// Changes that were acknowledged each second; null where no time was measured.
    acknowledged_per_s: Option<f64>,
    /// Attempts each second that no 2xx ended; null as above.
    failed_per_s: Option<f64>,
}

impl AppSampleShown {
    fn of(sample: &AppSample) -> Self {
        Self {
            at: iso(sample.at),
            lag_ms: sample.lag_ms,
            behind: sample.behind,
            acknowledged_per_s: per_second(sample.acknowledged, sample.seconds),
            failed_per_s: per_second(sample.failed, sample.seconds),
        }
    }
}

/// Lag and rates of this app in the last hour, as this process measured them. A restart loses them.
#[utoipa::path(get, path = "/api/app/samples", tag = "apps", responses(
    (status = 200, body = AppSamplesShown)
))]
async fn list_of_app(_front: Arc<Front>, request: Request) -> Answer {
    Query::of(&request.query, &[])?;
    let samples = Metrics::of_process().samples_of(&request.app()?.id);
    Ok(json(StatusCode::OK, &AppSamplesShown { items: samples.iter().map(AppSampleShown::of).collect() }))
}
