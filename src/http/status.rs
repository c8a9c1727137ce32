//! How the server is: for people, load balancers and container runtimes. Nothing here is secret,
//! and only `/readyz` asks the database.

pub mod metrics;

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::front::Front;
use crate::http::{
    bodies::{
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        request::{Request, json},
        route::{Access, Answer, Route, route, route_with},
    },
};

/// The routes of this file.
pub fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    vec![
        route_with::<__path_health, _, _, _>(Access::Public, lifecycle, health),
        route::<__path_alive, _, _>(Access::Public, alive),
        route_with::<__path_ready, _, _, _>(Access::Public, lifecycle, ready),
        route::<__path_version, _, _>(Access::Public, version),
    ]
}

/// Time of the server, and the time since its start.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Present time, as a timestamp.
    timestamp: String,
    /// Seconds since the start of the process.
    uptime: f64,
}

/// State of the server.
#[derive(Serialize, ToSchema)]
struct Condition {
    /// Always `ok`. A server that is not ready answers with a problem.
    status: &'static str,
}

/// Version and build of the running server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Version of Tidings, as in the changelog.
    version: &'static str,
    /// Number of the build, if the build set one.
    build_number: &'static str,
    /// Git commit of the build, if the build set one.
    git_sha: &'static str,
    /// Date of the build, if the build set one.
    build_date: &'static str,
}

/// Shows the time of the server and how long the process has run.
#[utoipa::path(get, path = "/health", tag = "status", responses((status = 200, body = Health)))]
async fn health(front: Arc<Front>, lifecycle: Lifecycle, _request: Request) -> Answer {
    let health = Health { timestamp: iso(front.clock.now()), uptime: lifecycle.uptime_seconds() };
    Ok(json(StatusCode::OK, &health))
}

/// Answers 200 as long as the process runs.
#[utoipa::path(get, path = "/livez", tag = "status", responses((status = 200, body = Condition)))]
async fn alive(_front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &Condition { status: "ok" }))
}

/// Answers 200 if the process takes work: the database answers and took the last write, and the server is not
/// stopping.
#[utoipa::path(get, path = "/readyz", tag = "status", responses(
    (status = 200, body = Condition)
))]
async fn ready(front: Arc<Front>, lifecycle: Lifecycle, _request: Request) -> Answer {
    if lifecycle.is_draining() {
        return Err(Problem::new(Kind::UNAVAILABLE).with_detail("the server is stopping"));
    }
    front.store.ping().await.map_err(|error| Problem::of_store(error, Kind::UNAVAILABLE))?;
    Ok(json(StatusCode::OK, &Condition { status: "ok" }))
}

/// Shows the version of the running server, and how it was built.
#[utoipa::path(get, path = "/version", tag = "status", responses((status = 200, body = Version)))]
async fn version(_front: Arc<Front>, _request: Request) -> Answer {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        build_number: option_env!("TIDINGS_BUILD_NUMBER").unwrap_or("unknown"),
        git_sha: option_env!("TIDINGS_GIT_SHA").unwrap_or("unknown"),
        build_date: option_env!("TIDINGS_BUILD_DATE").unwrap_or("unknown"),
    };
    Ok(json(StatusCode::OK, &version))
}
