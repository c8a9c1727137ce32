//! `GET /metrics`: the metrics of this process for Prometheus. They name no app, no repository and no
//! address. Numbers from rows are those of the last survey, so that a scrape costs no query.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header};
use tokio::{sync::Mutex, time::Instant};
use warp::reply::Response;

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::Request,
        route::{Access, Answer, Route, route_with},
    },
    front::Front,
};
use crate::telemetry::Metrics;

/// The text format that every version of Prometheus reads.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// How long an answer is given again: every caller may ask, as often as it likes.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer. One request computes it, concurrent ones wait for the result.
#[derive(Default)]
pub struct Told(Mutex<Option<(Instant, Bytes)>>);

/// The routes of this file.
pub(crate) fn routes(told: &Arc<Told>) -> Vec<Route> {
    vec![route_with::<__path_metrics, _, _, _>(Access::Public, told, metrics)]
}

/// Shows the metrics of this process in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, content_type = "text/plain", body = String)
))]
async fn metrics(_front: Arc<Front>, told: Arc<Told>, _request: Request) -> Answer {
    let mut told = told.0.lock().await;
    let text = match &*told {
        Some((at, text)) if at.elapsed() < FRESH => text.clone(),
        _ => {
            let metrics = Metrics::of_process();
            // Takes some milliseconds of a processor, so it runs on a blocking thread.
            let text = tokio::task::spawn_blocking(move || metrics.text()).await;
            let text = text.map_err(|_panic| Problem::new(Kind::INTERNAL))?;
            let text =
                text.map_err(|error| Problem::new(Kind::UNAVAILABLE).with_detail(error.to_string()))?;
            told.insert((Instant::now(), Bytes::from(text))).1.clone()
        }
    };
    drop(told);
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    Ok(response)
}
