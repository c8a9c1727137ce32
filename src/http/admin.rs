//! What the administrator sees: all apps, the numbers of the house, the live supervision tree.

use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;
use tidings_entity::id::{AppId, RepositoryId, WatchId};
use warp::reply::Response;

use super::{
    Front,
    apps::AppShown,
    paging::{Page, Query, page},
    problem::{Kind, Problem},
    request::{Request, json},
    route::{Access, Answer, Route, route},
};

/// What the cursors of the list of apps are made for.
const APPS: &str = "admin apps";
/// Watches read at once while an app is erased.
const WATCHES_AT_ONCE: u64 = 500;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_tree, _, _>(Access::Admin, tree),
        route::<__path_overview, _, _>(Access::Admin, overview),
        route::<__path_list, _, _>(Access::Admin, list),
        route::<__path_show, _, _>(Access::Admin, show),
        route::<__path_erase, _, _>(Access::Admin, erase),
    ]
}

/// The live supervision tree.
#[utoipa::path(get, path = "/api/admin/tree", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn tree(front: Arc<Front>, _request: Request) -> Answer {
    Ok(json(StatusCode::OK, &front.handle.tree().await))
}

/// Numbers over everything.
#[utoipa::path(get, path = "/api/admin/overview", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn overview(front: Arc<Front>, _request: Request) -> Answer {
    let totals = front.store.totals(front.clock.now()).await;
    let totals = totals.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    Ok(json(StatusCode::OK, &totals))
}

/// All apps, oldest first.
#[utoipa::path(get, path = "/api/admin/apps", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = Page<AppShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let after = query.after(APPS)?;
    let apps = front.store.apps(after.as_ref(), limit + 1).await;
    let apps = apps.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    Ok(json(StatusCode::OK, &page(apps, limit, APPS, |app| app.id.to_string(), AppShown::of)))
}

/// One app.
#[utoipa::path(get, path = "/api/admin/apps/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, body = AppShown)
))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let id: AppId = request.id(Kind::NO_APP)?;
    let app = front.store.app(&id).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    let app = app.ok_or_else(|| Problem::new(Kind::NO_APP))?;
    Ok(json(StatusCode::OK, &AppShown::of(&app)))
}

/// Erases an app with everything that is known of it.
#[utoipa::path(delete, path = "/api/admin/apps/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204)
))]
async fn erase(front: Arc<Front>, request: Request) -> Answer {
    let id: AppId = request.id(Kind::NO_APP)?;
    let failed = |error| Problem::of_store(error, Kind::NO_APP);
    if front.store.app(&id).await.map_err(failed)?.is_none() {
        return Err(Problem::new(Kind::NO_APP));
    }
    let repositories = repositories_of(&front, &id).await?;
    front.store.erase_app(&id).await.map_err(failed)?;
    front.handle.refresh(&id).await;
    for repository in repositories {
        front.handle.repository_changed(&repository).await;
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn repositories_of(front: &Front, app: &AppId) -> Result<BTreeSet<RepositoryId>, Problem> {
    let mut repositories = BTreeSet::new();
    let mut after: Option<WatchId> = None;
    loop {
        let watches = front.store.watches(app, after.as_ref(), WATCHES_AT_ONCE).await;
        let watches = watches.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
        let Some(last) = watches.last() else { return Ok(repositories) };
        after = Some(last.id.clone());
        repositories.extend(watches.into_iter().map(|watch| watch.repository));
    }
}
