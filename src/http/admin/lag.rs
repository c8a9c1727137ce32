//! `GET /api/admin/lag`: the watches that are behind for longest, with the reason. Metrics show only how many
//! are behind; they name no watch.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    ports::{Laggard, StoreError, Watch},
    time::Timestamp,
};
use tidings_entity::id::WatchId;
use utoipa::ToSchema;

use crate::http::{
    bodies::{
        moment::iso,
        names::{Names, repository_name},
        paging::{Page, Query, Window},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    repositories::standing::{self, sights::Sights},
};

/// Watches named where the request asks for no number.
const SHOWN: u64 = 10;

/// The routes of this file.
pub(crate) fn routes() -> Vec<Route> {
    vec![route::<__path_lag, _, _>(Access::Staff(Permission::SystemRead), lag)]
}

/// A branch of a watch that is behind: the app lacks changes.
#[derive(Serialize, ToSchema)]
struct Late {
    /// Id of the app, `app_...`.
    app_id: String,
    app_name: String,
    /// Id of the watch, `repo_...`.
    repository_id: String,
    /// Id of the branch of the watch, `cur_...`.
    cursor_id: String,
    /// The owner of the repository.
    owner: String,
    /// The name of the repository.
    name: String,
    /// `owner/name`, or the path of a local repository. Null: the repository was unwatched a moment ago.
    repository: Option<String>,
    /// Name of the watch. Missing: the watch has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_name: Option<String>,
    /// The full name of the branch.
    branch: String,
    /// Age of the oldest unsettled change, in milliseconds.
    lag_ms: u64,
    /// When the oldest unsettled change was found.
    behind_since: String,
    /// State of the branch: `active`, `blocked`, `branch_missing` or `empty`.
    state: String,
    /// Why the branch is not active. Null: the branch is active.
    reason: Option<String>,
    /// The effective state of the watch, as in `GET /api/admin/watches`. Null: the repository was unwatched a
    /// moment ago.
    effective_state: Option<&'static str>,
    /// Reason for `effective_state`, as a sentence.
    effective_reason: Option<String>,
    /// Number of the open round. Null: no round is open.
    open_round: Option<i64>,
}

impl Late {
    fn of(laggard: Laggard, app_name: String, seen: Option<(&Watch, &Sights)>, now: Timestamp) -> Self {
        let lag = now.since(laggard.since);
        let standing = seen.map(|(watch, sights)| standing::of(&sights.of(watch)));
        let watch = seen.map(|(watch, _)| watch);
        Self {
            app_id: laggard.app.to_string(),
            app_name,
            repository_id: laggard.watch.to_string(),
            cursor_id: laggard.cursor.to_string(),
            owner: laggard.owner,
            name: laggard.name,
            repository: watch.map(repository_name),
            watch_name: watch.map(|watch| watch.alias.clone()).filter(|name| !name.is_empty()),
            branch: laggard.branch,
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            behind_since: iso(laggard.since),
            state: laggard.state.to_string(),
            reason: laggard.reason,
            effective_state: standing.as_ref().map(|standing| standing.state.as_str()),
            effective_reason: standing.and_then(|standing| standing.reason),
            open_round: laggard.open_round,
        }
    }
}

/// Lists the branches of served watches that are behind, the longest lag first.
#[utoipa::path(get, path = "/api/admin/lag", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 10."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<Late>)))]
async fn lag(front: Arc<Front>, request: Request) -> Answer {
    let window = Window::of(&Query::of(&request.query, &["limit", "cursor"])?, "lag", SHOWN)?;
    let laggards = front.store.laggards(window.needed()).await;
    let laggards = laggards.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let (laggards, next_cursor) = window.cut(laggards);
    let watches = watches_of(&front, &laggards).await?;
    let places: HashMap<WatchId, usize> =
        watches.iter().enumerate().map(|(place, watch)| (watch.id.clone(), place)).collect();
    let sights = Sights::of_all(&front, &watches).await?;
    let now = front.clock.now();
    let mut names = Names::of(&front);
    let mut items = Vec::with_capacity(laggards.len());
    for laggard in laggards {
        let app_name = names.app(&laggard.app).await?.name;
        let watch = places.get(&laggard.watch).map(|place| &watches[*place]);
        items.push(Late::of(laggard, app_name, watch.map(|watch| (watch, &sights)), now));
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

/// The watches of the branches, each once. A watch that was removed a moment ago is left out.
async fn watches_of(front: &Front, laggards: &[Laggard]) -> Result<Vec<Watch>, Problem> {
    let mut found: HashMap<&WatchId, Watch> = HashMap::new();
    for laggard in laggards {
        let Entry::Vacant(entry) = found.entry(&laggard.watch) else { continue };
        match front.store.watch(&laggard.app, &laggard.watch).await {
            Ok(watch) => {
                entry.insert(watch);
            }
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(Problem::of_store(error, Kind::NOT_REGISTERED)),
        }
    }
    Ok(found.into_values().collect())
}
