//! The server itself: its settings, its storage, and its log filter.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{DatabaseUse, Storage};
use utoipa::ToSchema;

use super::super::front::Front;
use crate::http::{
    bodies::{
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};
use crate::telemetry;

/// Most characters of a filter.
const FILTER_CHARACTERS_MAX: usize = 1_000;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_settings, _, _>(Access::Staff(Permission::SettingsRead), settings),
        route::<__path_storage, _, _>(Access::Staff(Permission::SystemRead), storage),
        route::<__path_log_filter, _, _>(Access::Staff(Permission::SystemRead), log_filter),
        route::<__path_set_log_filter, _, _>(Access::Staff(Permission::SystemLog), set_log_filter),
    ]
}

/// Shows the settings in force. Secrets are left out.
#[utoipa::path(get, path = "/api/admin/settings", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn settings(front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &front.settings.redacted()))
}

/// The bytes that the database and the mirrors take.
#[derive(Serialize)]
struct StorageShown {
    database: DatabaseUse,
    mirrors: Storage,
}

/// Shows the space that the database and the mirrors take. Each request counts rows, so do not send it every
/// second.
#[utoipa::path(get, path = "/api/admin/storage", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn storage(front: Arc<Front>, _request: Request) -> Answer {
    let database = front.administration.database_use().await;
    let database = database.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let mirrors = front.git.storage().await;
    let mirrors = mirrors.map_err(|error| Problem::new(Kind::UNAVAILABLE).with_detail(error.to_string()))?;
    Ok(json(StatusCode::OK, &StorageShown { database, mirrors }))
}

/// The filter of the server's log.
#[derive(Serialize, ToSchema)]
struct LogFilter {
    /// The filter, in the syntax of `telemetry.log_filter`: `info`, `warn,tidings=debug`.
    #[schema(min_length = 1, max_length = 1000)]
    filter: String,
}

/// Shows the filter of the log.
#[utoipa::path(get, path = "/api/admin/log-filter", tag = "admin", responses(
    (status = 200, body = LogFilter)
))]
async fn log_filter(front: Arc<Front>, _request: Request) -> Answer {
    let filter = telemetry::filter().unwrap_or_else(|| front.settings.telemetry.log_filter.clone());
    Ok(json(StatusCode::OK, &LogFilter { filter }))
}

/// Changes the filter of the log, until the next restart.
#[utoipa::path(patch, path = "/api/admin/log-filter", tag = "admin", request_body = LogFilter, responses(
    (status = 200, body = LogFilter)
))]
async fn set_log_filter(_front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of(&request.body)?;
    let filter = fields.required_text("filter", 1..=FILTER_CHARACTERS_MAX);
    if let Err(fault) = telemetry::check_filter(&filter) {
        fields.refuse("filter", fault.to_string());
    }
    fields.finish()?;
    if !telemetry::set_filter(&filter) {
        return Err(Problem::new(Kind::UNAVAILABLE).with_detail("the log filter of this process is fixed"));
    }
    Ok(json(StatusCode::OK, &LogFilter { filter }))
}
