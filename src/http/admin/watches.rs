//! Watches and sources of all apps: which are behind, the reasons, and the results of the last scans.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::filter::sets::REPOSITORIES,
    ports::{BreakerRow, SourceLine, Watch, WatchCondition, WatchFilter},
    signals::polls::Polled,
};
use tidings_entity::{
    id::{AppId, RepositoryId},
    kind::BreakerKind,
};
use utoipa::ToSchema;

use super::super::{front::Front, repositories::Repository};
use super::breakers::BreakerShown;
use crate::http::{
    bodies::{
        fields::Fields,
        filters,
        moment::iso,
        names::Names,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    deliveries::attempt::AttemptShown,
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    repositories::standing::{
        kept::{kept_from_being_asked, kept_until},
        sights::Sights,
    },
};

/// The name of the list of watches in its cursors.
const WATCHES: &str = "admin watches";
/// The operation of the list of sources, for its cursors.
const SOURCES: &str = "admin sources";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::Staff(Permission::WatchesRead), list),
        route::<__path_sources, _, _>(Access::Staff(Permission::SourcesRead), sources),
        route::<__path_scan, _, _>(Access::Staff(Permission::WatchesScan), scan),
    ]
}

/// A watch of any app, with the reasons why the watch does not progress.
#[derive(Serialize, ToSchema)]
struct WatchShown {
    app_id: String,
    app_name: String,
    /// Why nothing is delivered to the app. Null: the app is served.
    app_disabled: Option<String>,
    /// Id of the repository, which its watches share. `POST /api/admin/repositories/{id}/scan` takes this id.
    shared_repository: String,
    /// The breaker of the endpoint. Null: the endpoint has no failures.
    endpoint_breaker: Option<BreakerShown>,
    /// Id of the delivery at the head of a branch that was attempted and not acknowledged. `GET
    /// /api/admin/apps/{app_id}/deliveries/{id}` shows every attempt.
    waits_for: Option<String>,
    /// The last failed attempt of the delivery `waits_for`.
    last_attempt: Option<AttemptShown>,
    #[serde(flatten)]
    watch: Repository,
}

/// Lists the watches of all apps, in the order of their ids.
#[utoipa::path(get, path = "/api/admin/watches", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("condition" = Option<String>, Query,
            description = "Only watches in this condition: `behind` (a branch is behind, or the last scan \
                failed), `blocked`, `paused` or `failing` (the last scan failed, a breaker is open, or the \
                app is not served)."),
        ("app_id" = Option<String>, Query, description = "Only watches of this app (`app_...`)."),
        ("repository" = Option<String>, Query, description = "Only watches of this repository (`rep_...`)."),
    ),
    responses((status = 200, body = Page<WatchShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "q", "condition", "app_id", "repository"])?;
    let limit = query.limit()?;
    let condition = query.get("condition").map(|word| {
        let known = WatchCondition::ALL.iter().find(|(name, _)| *name == word);
        known
            .map(|(_, condition)| *condition)
            .ok_or_else(|| Problem::malformed("condition is one of: behind, blocked, paused, failing"))
    });
    let filter = WatchFilter {
        condition: condition.transpose()?,
        app: named::<AppId>(&query, "app_id")?,
        repository: named::<RepositoryId>(&query, "repository")?,
        q: filters::of_query(&query, &REPOSITORIES, front.clock.now())?,
    };
    let after = query.after(WATCHES)?;
    let watches = front.administration.all_watches(&filter, after.as_ref(), limit + 1).await;
    let watches = watches.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let sights = Sights::of_all(&front, &watches).await?;
    let page =
        page(watches, limit, WATCHES, |watch| watch.id.to_string(), |watch| WatchShown::of(watch, &sights));
    Ok(json(StatusCode::OK, &page))
}

impl WatchShown {
    fn of(watch: &Watch, sights: &Sights) -> Self {
        let seen = sights.of(watch);
        let app = sights.apps.get(&watch.app).cloned().unwrap_or_default();
        let endpoint = sights
            .breakers
            .iter()
            .find(|row| row.kind == BreakerKind::Endpoint && row.id == watch.sink_key().id())
            .map(BreakerShown::of);
        let last = watch.cursors.iter().filter_map(|cursor| seen.last_try(cursor)).max_by_key(|row| row.at);
        Self {
            app_id: watch.app.to_string(),
            app_name: app.name,
            app_disabled: app.disabled,
            shared_repository: watch.repository.to_string(),
            endpoint_breaker: endpoint,
            waits_for: last.map(|attempt| attempt.delivery.to_string()),
            last_attempt: last.map(AttemptShown::of),
            watch: Repository::of(watch, sights),
        }
    }
}

/// A source: a repository read with one credential, or without one, and the result of its last scan.
#[derive(Clone, Serialize, ToSchema)]
struct SourceShown {
    source: String,
    /// Id of the repository, `rep_...`.
    repository: String,
    url: String,
    /// New address of the repository, as the Git host reports it.
    moved_to: Option<String>,
    /// Id of the app whose credential is used.
    app_id: Option<String>,
    app_name: Option<String>,
    /// Number of watches that use the source.
    watches: u64,
    /// When a ref of the source last moved. If none ever did: when the source was created.
    last_change: String,
    /// Why the last scan failed. Null: the last scan succeeded.
    last_error: Option<String>,
    /// When the last scan ended, successful or not. Null: no scan since this process began, or another
    /// replica scans the source.
    last_scan_at: Option<String>,
    /// When the next poll is due. Null: not known, for the same reasons as `last_scan_at`.
    next_poll_at: Option<String>,
    /// The breaker of the source. Null: the source has no failures.
    breaker: Option<BreakerShown>,
}

impl SourceShown {
    fn of(line: &SourceLine, app_name: Option<String>, breakers: &[BreakerRow], polled: &Polled) -> Self {
        let breaker =
            breakers.iter().find(|row| row.kind == BreakerKind::Source && row.id == line.id.as_str());
        let probe = breaker.filter(|row| row.opened_at.is_some()).and_then(|row| row.probe_at);
        Self {
            source: line.id.to_string(),
            repository: line.repository.to_string(),
            url: line.url.clone(),
            moved_to: line.moved_to.clone(),
            app_id: line.app.as_ref().map(ToString::to_string),
            app_name,
            watches: line.watches,
            last_change: iso(line.last_change),
            last_error: line.last_error.clone(),
            last_scan_at: polled.last.as_ref().map(|scanned| iso(scanned.at)),
            next_poll_at: polled.next.or(probe).map(iso),
            breaker: breaker.map(BreakerShown::of),
        }
    }
}

/// Lists the sources with the result of their last scan, in the order of their ids.
#[utoipa::path(get, path = "/api/admin/sources", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("failing" = Option<bool>, Query, description = "`true`: only sources whose last scan failed. \
            Default `false`."),
    ),
    responses((status = 200, body = Page<SourceShown>)))]
async fn sources(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "failing"])?;
    let limit = query.limit()?;
    let failing = match query.get("failing") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::malformed("failing is true or false")),
    };
    let after = query.after(SOURCES)?;
    let sources = front.administration.all_sources(failing, after.as_ref(), limit + 1).await;
    let sources = sources.map_err(|error| Problem::of_store(error, Kind::NO_REPOSITORY))?;
    let breakers = front.store.breakers().await;
    let breakers = breakers.map_err(|error| Problem::of_store(error, Kind::NO_REPOSITORY))?;
    let mut names = Names::of(&front);
    let mut shown = Vec::with_capacity(sources.len());
    for line in sources {
        let name = match &line.app {
            Some(app) => Some(names.app(app).await?.name),
            None => None,
        };
        let polled = front.handle.polled(&line.id).unwrap_or_default();
        shown.push((line.id.clone(), SourceShown::of(&line, name, &breakers, &polled)));
    }
    let page = page(shown, limit, SOURCES, |(id, _)| id.to_string(), |(_, shown)| shown.clone());
    Ok(json(StatusCode::OK, &page))
}

/// Requests a scan of a repository through each of its sources, except sources whose breaker an operator
/// opened by hand.
#[utoipa::path(post, path = "/api/admin/repositories/{id}/scan", tag = "admin", params(("id" = String, Path)),
    responses((status = 202, description = "The repository is scanned soon."),
        (status = 409, description = "An operator opened the breakers of all sources of the repository by \
            hand.")))]
async fn scan(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id: RepositoryId = request.id(Kind::NO_REPOSITORY)?;
    let sources = front.store.sources(&id).await;
    let sources = sources.map_err(|error| Problem::of_store(error, Kind::NO_REPOSITORY))?;
    if sources.is_empty() {
        return Err(Problem::new(Kind::NO_REPOSITORY));
    }
    let breakers = front.store.breakers().await;
    let breakers = breakers.map_err(|error| Problem::of_store(error, Kind::NO_REPOSITORY))?;
    let kept: Vec<_> = sources.iter().map(|source| kept_until(&breakers, &source.id)).collect();
    if let Some(until) = kept.iter().flatten().min().filter(|_| kept.iter().all(Option::is_some)) {
        return Err(kept_from_being_asked(*until));
    }
    front.handle.poke(&id).await;
    let asked = serde_json::json!({ "repository": id.as_str(), "sources": sources.len() });
    Ok(json(StatusCode::ACCEPTED, &asked))
}

fn named<T: std::str::FromStr>(query: &Query, key: &str) -> Result<Option<T>, Problem> {
    let id = query.get(key).map(str::parse::<T>).transpose();
    id.map_err(|_| Problem::malformed(format!("{key} has no valid id")))
}
