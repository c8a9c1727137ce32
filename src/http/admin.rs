//! The staff's routes: the live supervision tree and the mirrors; the files in the folder have the overview,
//! all apps, watches, breakers and the server itself.

mod apps;
pub mod audit;
mod breakers;
mod dead_letters;
pub mod keys;
pub(crate) mod lag;
pub mod overview;
mod replicas;
mod resyncs;
pub(super) mod samples;
mod system;
mod watches;

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{Location, MirrorFacts};
use utoipa::ToSchema;

use self::overview::Measured;
use super::front::Front;
use crate::http::{
    bodies::{
        paging::{LIMIT_DEFAULT, Page, Query, Window},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The routes of this folder; `of_apps`: the routes that apps use for themselves.
pub fn routes(of_apps: &[Route], measured: &Arc<Measured>) -> Vec<Route> {
    let own = vec![
        route::<__path_tree, _, _>(Access::Staff(Permission::SystemRead), tree),
        route::<__path_mirrors, _, _>(Access::Staff(Permission::SystemRead), mirrors),
    ];
    [
        own,
        overview::routes(measured),
        samples::routes(),
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

/// Shows the supervision tree of this process, with the actors that run now.
#[utoipa::path(get, path = "/api/admin/tree", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn tree(front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &front.handle.tree().await))
}

/// The mirror of a repository on disk.
#[derive(Serialize, ToSchema)]
struct Mirror {
    /// Id of the repository, `rep_...`.
    repository: String,
    /// Address of the repository. Null: no watch follows the repository any more.
    url: Option<String>,
    /// Size of all files of the mirror, in bytes.
    bytes: u64,
    /// Number of pack files.
    packs: u64,
    /// Number of commits whose parents are absent on purpose (entries of Git's `shallow` file).
    shallow: u64,
    /// Size of the mirror after file contents were removed to make room, in bytes. Null: none were removed.
    evicted_to: Option<u64>,
}

impl Mirror {
    fn of(facts: MirrorFacts, url: Option<String>) -> Self {
        let MirrorFacts { repository, bytes, packs, shallow, evicted_to } = facts;
        Self { repository: repository.to_string(), url, bytes, packs, shallow, evicted_to }
    }
}

/// Lists the mirrors, the largest first. Their sizes on disk are measured for each request.
#[utoipa::path(get, path = "/api/admin/mirrors", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
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
