//! What the staff sees and does: the numbers of the house, the live supervision tree, what mirrors
//! take, and in the files below all apps, watches, breakers and the server itself.

mod apps;
pub mod audit;
mod breakers;
mod dead_letters;
pub mod keys;
pub(crate) mod lag;
mod replicas;
mod resyncs;
mod system;
mod watches;

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    hosts::HostShown,
    ports::{Backlog, Location, MirrorFacts, ScanTrouble, Storage, Totals},
};
use utoipa::ToSchema;

use super::front::Front;
use crate::http::{
    bodies::{
        paging::{LIMIT_DEFAULT, Page, Query, Window},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route},
    },
};

/// Git hosts shown in the overview.
const HOSTS_SHOWN: usize = 10;

/// The routes of this folder; `of_apps`: those that apps have for themselves.
pub fn routes(of_apps: &[Route]) -> Vec<Route> {
    let own = vec![
        route::<__path_tree, _, _>(Access::Viewer, tree),
        route::<__path_overview, _, _>(Access::Viewer, overview),
        route::<__path_mirrors, _, _>(Access::Viewer, mirrors),
    ];
    [
        own,
        apps::routes(of_apps),
        watches::routes(),
        resyncs::routes(),
        dead_letters::routes(),
        breakers::routes(),
        replicas::routes(),
        system::routes(),
    ]
    .concat()
}

/// The live supervision tree.
#[utoipa::path(get, path = "/api/admin/tree", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn tree(front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &front.handle.tree().await))
}

/// What somebody should look at, as numbers; 0 everywhere: nothing is in the way.
#[derive(Serialize)]
struct Work {
    /// Repositories, each as seen with one credential, whose credential is refused: `admin sources
    /// --failing`.
    credentials_refused: u64,
    /// Repositories that cannot be read for another reason: `admin sources --failing`.
    sources_failing: u64,
    /// Branches that are blocked: `admin watches --condition blocked`.
    branches_blocked: u64,
    /// Breakers that are open: `admin breaker list`.
    breakers_open: u64,
    /// Apps that are disabled, by their owner or because their endpoint answered 410 Gone: `app list`.
    apps_disabled: u64,
    /// Changes that were given up: `admin dead-letters`.
    dead_letters: u64,
}

impl Work {
    fn of(totals: &Totals, backlog: &Backlog) -> Self {
        let refused = backlog.sources_failing.get(&ScanTrouble::Credential).copied().unwrap_or(0);
        Self {
            credentials_refused: refused,
            sources_failing: backlog.sources_failing.values().sum::<u64>() - refused,
            branches_blocked: totals.blocked,
            breakers_open: totals.open_breakers,
            apps_disabled: totals.apps_disabled,
            dead_letters: totals.dead_letters,
        }
    }
}

/// The totals, what is in the way, what mirrors take, and the Git hosts where polls wait: the longest lines
/// first.
#[derive(Serialize)]
struct Overview {
    #[serde(flatten)]
    totals: Totals,
    work: Work,
    storage: Storage,
    hosts: Vec<HostShown>,
}

/// Numbers over everything.
#[utoipa::path(get, path = "/api/admin/overview", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn overview(front: Arc<Front>, _request: Request) -> Answer {
    let totals = front.store.totals(front.clock.now()).await;
    let totals = totals.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let backlog = front.store.backlog(front.clock.now()).await;
    let backlog = backlog.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let storage = front.git.storage().await;
    let storage = storage.map_err(|error| Problem::new(Kind::UNAVAILABLE).with_detail(error.to_string()))?;
    let work = Work::of(&totals, &backlog);
    let hosts = front.git.hosts().shown(HOSTS_SHOWN);
    Ok(json(StatusCode::OK, &Overview { totals, work, storage, hosts }))
}

/// The mirror of a repository, as it lies on disk.
#[derive(Serialize, ToSchema)]
struct Mirror {
    /// `rep_...`
    repository: String,
    /// Where the repository lies; null where nobody watches it any more.
    url: Option<String>,
    /// Bytes of all its files.
    bytes: u64,
    /// Packs.
    packs: u64,
    /// Commits whose parents it lacks on purpose.
    shallow: u64,
    /// Its contents were dropped to make room: the bytes that were left. Null: they were not.
    evicted_to: Option<u64>,
}

impl Mirror {
    fn of(facts: MirrorFacts, url: Option<String>) -> Self {
        let MirrorFacts { repository, bytes, packs, shallow, evicted_to } = facts;
        Self { repository: repository.to_string(), url, bytes, packs, shallow, evicted_to }
    }
}

/// The mirrors that take most of the disk, the largest first; measured now.
#[utoipa::path(get, path = "/api/admin/mirrors", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<Mirror>)))]
async fn mirrors(front: Arc<Front>, request: Request) -> Answer {
    let window = Window::of(&Query::of(&request.query, &["limit", "cursor"])?, "mirrors", LIMIT_DEFAULT)?;
    let measured = front.git.mirrors().await;
    let mut facts =
        measured.map_err(|error| Problem::new(Kind::UNAVAILABLE).with_detail(error.to_string()))?;
    facts.sort_by_key(|facts| std::cmp::Reverse(facts.bytes));
    let (facts, next_cursor) = window.cut(facts);
    let mut items = Vec::with_capacity(facts.len());
    for facts in facts {
        let sources = front.store.sources(&facts.repository).await;
        let sources = sources.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
        let url = sources.first().map(|source| match &source.remote.location {
            Location::Http(url) => url.to_string(),
            Location::Local(path) => path.display().to_string(),
        });
        items.push(Mirror::of(facts, url));
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}
