//! Circuit breakers: those that have failures, closing one by hand, and keeping one open.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    circuit_breaker::{endpoint_key, source_key},
    ports::BreakerRow,
};
use tidings_entity::{
    id::{AppId, SinkId, SourceId},
    kind::BreakerKind,
};
use utoipa::ToSchema;

use super::super::front::Front;
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        names::Names,
        paging::{Page, Query, cursor_at},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The name of the list of breakers.
const BREAKERS: &str = "breakers";
/// How long a breaker is kept open, in seconds, if the request does not say.
const SECONDS: u64 = 3_600;
/// The longest time: a day.
const SECONDS_MAX: u64 = 86_400;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::Staff(Permission::BreakersRead), list),
        route::<__path_reset, _, _>(Access::Staff(Permission::BreakersSet), reset),
        route::<__path_open, _, _>(Access::Staff(Permission::BreakersSet), open),
    ]
}

/// A circuit breaker that has failures.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct BreakerShown {
    /// Guarded by the breaker: `source` or `endpoint`.
    kind: &'static str,
    /// Id of the source, the app or the sink that the breaker guards.
    id: String,
    /// `closed` (requests flow) or `open` (requests wait for the next probe).
    state: &'static str,
    /// Number of failures in a row.
    failures: u32,
    opened_at: Option<String>,
    /// When the next probe is due.
    probe_at: Option<String>,
    last_error: String,
}

impl BreakerShown {
    pub(super) fn of(row: &BreakerRow) -> Self {
        Self {
            kind: row.kind.as_str(),
            id: row.id.clone(),
            state: if row.opened_at.is_some() { "open" } else { "closed" },
            failures: row.failures,
            opened_at: row.opened_at.map(iso),
            probe_at: row.probe_at.map(iso),
            last_error: row.last_error.clone(),
        }
    }
}

/// A circuit breaker that has failures, with the name of its app.
#[derive(Serialize, ToSchema)]
struct BreakerOfApp {
    #[serde(flatten)]
    breaker: BreakerShown,
    /// Name of the app whose endpoint the breaker guards. Null for a source.
    app_name: Option<String>,
    /// Address of the repository that the source reads. Missing for an endpoint, and if no watch uses the
    /// source.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// Name of the subscription that sends to this sink. Missing: no subscription does.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<String>,
}

body! {
    /// How long a breaker is kept open by hand.
    struct OpenRequest {
        /// Seconds until the first probe, 1 to 86,400. Default 3,600.
        seconds: Option<u64>,
    }
}

/// Lists the breakers that have failures. All other breakers are closed.
#[utoipa::path(get, path = "/api/admin/breakers", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<BreakerOfApp>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let (limit, after) = (query.limit()?, query.after::<String>(BREAKERS)?);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = front.store.breakers().await;
    let mut rows = rows.map_err(|error| Problem::of_store(error, Kind::NO_BREAKER))?;
    let name = |row: &BreakerRow| format!("{} {}", row.kind.as_str(), row.id);
    rows.sort_by_key(name);
    rows.retain(|row| after.as_ref().is_none_or(|after| name(row) > *after));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| cursor_at(BREAKERS, &name(row)));
    let mut names = Names::of(&front);
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let of_sink = match row.id.parse::<SinkId>() {
            Ok(sink) => front.store.sink_owner(&sink).await,
            Err(_) => Ok(row.id.parse().ok().map(|app| (app, None))),
        };
        let of_sink = of_sink.map_err(|error| Problem::of_store(error, Kind::NO_BREAKER))?;
        let (app_name, subscription) = match of_sink.filter(|_| row.kind == BreakerKind::Endpoint) {
            Some((app, subscription)) => (Some(names.app(&app).await?.name), subscription),
            None => (None, None),
        };
        let repository = repository_of(&front, row).await?;
        items.push(BreakerOfApp { breaker: BreakerShown::of(row), app_name, repository, subscription });
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

/// The address of the repository that a source reads; `None` for the breaker of an endpoint.
async fn repository_of(front: &Front, row: &BreakerRow) -> Result<Option<String>, Problem> {
    let source = row.id.parse::<SourceId>().ok().filter(|_| row.kind == BreakerKind::Source);
    let Some(source) = source else { return Ok(None) };
    let watches = front.store.watches_of_source(&source).await;
    let watches = watches.map_err(|error| Problem::of_store(error, Kind::NO_BREAKER))?;
    Ok(watches.into_iter().next().map(|watch| watch.url))
}

/// Closes a breaker by hand. The next request to the endpoint or Git source goes at once.
#[utoipa::path(post, path = "/api/admin/breakers/{kind}/{id}/reset", tag = "admin",
    params(("kind" = String, Path, description = "Kind of the breaker: `source` or `endpoint`."),
        ("id" = String, Path)),
    responses((status = 202, description = "The breaker closes.")))]
async fn reset(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let (kind, key) = key(&front, &request).await?;
    if !front.handle.reset_breaker(&key).await {
        return Err(Problem::new(Kind::NO_BREAKER));
    }
    let told = serde_json::json!({ "kind": kind.as_str(), "state": "closed" });
    Ok(json(StatusCode::ACCEPTED, &told))
}

/// Opens a breaker by hand: requests wait for `seconds`, then one probe goes. A breaker that is open already
/// stays as it is: its answer has `until`, the time of the next probe, and no `seconds`.
#[utoipa::path(post, path = "/api/admin/breakers/{kind}/{id}/open", tag = "admin", request_body = OpenRequest,
    params(("kind" = String, Path, description = "Kind of the breaker: `source` or `endpoint`."),
        ("id" = String, Path)),
    responses((status = 202, description = "The breaker opens, or is open already.")))]
async fn open(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<OpenRequest>(&request.body)?;
    let seconds = fields.number_within("seconds", 1..=SECONDS_MAX).unwrap_or(SECONDS);
    fields.finish()?;
    let (kind, key) = key(&front, &request).await?;
    let rows = front.store.breakers().await;
    let rows = rows.map_err(|error| Problem::of_store(error, Kind::NO_BREAKER))?;
    let id = request.parameters.get(1).map(String::as_str);
    let is_open =
        |row: &&BreakerRow| row.kind == kind && Some(row.id.as_str()) == id && row.opened_at.is_some();
    if let Some(row) = rows.iter().find(is_open) {
        let until = row.probe_at.map(iso);
        let told = serde_json::json!({ "kind": kind.as_str(), "state": "open", "until": until });
        return Ok(json(StatusCode::ACCEPTED, &told));
    }
    front.handle.open_breaker(kind, &key, Duration::from_secs(seconds));
    let told = serde_json::json!({ "kind": kind.as_str(), "state": "open", "seconds": seconds });
    Ok(json(StatusCode::ACCEPTED, &told))
}

/// The key of the breaker that a path names, of something that is there.
async fn key(front: &Front, request: &Request) -> Result<(BreakerKind, String), Problem> {
    let missing = || Problem::new(Kind::NO_BREAKER);
    let failed = |error| Problem::of_store(error, Kind::NO_BREAKER);
    let kind: BreakerKind = request.id(Kind::NO_BREAKER)?;
    let id = request.parameters.get(1).ok_or_else(missing)?;
    match kind {
        BreakerKind::Endpoint => {
            let is_sink = id.parse::<SinkId>().is_ok();
            if is_sink {
                // A breaker has a row while it has failures.
                let rows = front.store.breakers().await.map_err(failed)?;
                rows.iter().find(|row| row.kind == kind && row.id == *id).ok_or_else(missing)?;
                return Ok((kind, endpoint_key(id)));
            }
            let id: AppId = id.parse().map_err(|_| missing())?;
            front.store.app(&id).await.map_err(failed)?.ok_or_else(missing)?;
            Ok((kind, endpoint_key(id.as_str())))
        }
        BreakerKind::Source => {
            let id: SourceId = id.parse().map_err(|_| missing())?;
            let watches = front.store.watches_of_source(&id).await.map_err(failed)?;
            let repository = &watches.first().ok_or_else(missing)?.repository;
            Ok((kind, source_key(id.as_str(), repository.as_str())))
        }
    }
}
