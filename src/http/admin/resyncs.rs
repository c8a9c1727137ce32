//! Resyncs the watches of all apps or of one: for use after the database lost committed data (a standby that
//! took over without the last transactions, an older dump), because apps may then have files of rounds that
//! no row knows.
//!
//! One request covers a page of watches, so that none takes long and a client that stops in between loses
//! nothing: it continues with `next_cursor`. A repeated request does no harm. The first request of a complete
//! resync also renames the ledgers, because numbers of lost entries are given again.

use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{StoreError, WatchFilter};
use tidings_entity::id::AppId;
use utoipa::ToSchema;

use super::super::front::Front;
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        paging::{Query, cursor_at},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The name of this route in its cursors.
const WATCHES: &str = "admin resync";
/// The reason shown at a branch until its resync begins.
const REASON: &str = "the staff requested a resync";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_resync, _, _>(Access::Staff(Permission::WatchesResync), resync)]
}

body! {
    /// Settings of a resync of all watches.
    struct ResyncAll {
        /// Whether apps are also told to drop each file that the resync does not name. Default false.
        complete: Option<bool>,
    }
}

/// Result of the request for resyncs.
#[derive(Serialize, ToSchema)]
struct ResyncsAsked {
    /// Number of watches that were asked to resync.
    watches: u64,
    /// Number of branches whose next round is a resync.
    branches: u64,
    /// The `cursor` of the request for the next watches. Missing: no watches are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Requests a resync of the watches of all apps or of one app, one page of watches per request. Paused
/// watches stay paused; their resync begins when they are resumed. With `complete` the first of these
/// requests also gives each ledger another name.
#[utoipa::path(post, path = "/api/admin/watches/resync", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Number of watches per request, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous answer."),
        ("app_id" = Option<String>, Query, description = "Only watches of this app (`app_...`). Default: all \
            apps."),
    ),
    request_body = Option<ResyncAll>,
    responses((status = 202, body = ResyncsAsked)))]
async fn resync(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "app_id"])?;
    let limit = query.limit()?;
    let app = query.get("app_id").map(str::parse::<AppId>).transpose();
    let app = app.map_err(|_| Problem::malformed("app_id is the id of an app: app_..."))?;
    let after = query.after(WATCHES)?;
    let mut fields = Fields::of_optional_body::<ResyncAll>(&request.body)?;
    let complete = fields.boolean("complete").unwrap_or(false);
    fields.finish()?;

    let failed = |error| Problem::of_store(error, Kind::NOT_REGISTERED);
    // Followers may have seen entries that the database lost, whose numbers are given again. The other pages
    // belong to the same run.
    if complete && after.is_none() {
        front.administration.rename_ledgers(app.as_ref()).await.map_err(failed)?;
    }
    let filter = WatchFilter { app, ..WatchFilter::default() };
    let mut watches =
        front.administration.all_watches(&filter, after.as_ref(), limit + 1).await.map_err(failed)?;
    let is_last = watches.len() as u64 <= limit;
    watches.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut asked = ResyncsAsked { watches: 0, branches: 0, next_cursor: None };
    let mut apps = BTreeSet::new();
    for watch in &watches {
        for cursor in &watch.cursors {
            match front.store.request_cursor_resync(&cursor.id, complete, REASON).await {
                Ok(()) => asked.branches += 1,
                // The watch was removed meanwhile.
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        asked.watches += 1;
        apps.insert(&watch.app);
    }
    for app in apps {
        front.handle.refresh(app).await;
    }
    asked.next_cursor =
        watches.last().filter(|_| !is_last).map(|watch| cursor_at(WATCHES, watch.id.as_str()));
    Ok(json(StatusCode::ACCEPTED, &asked))
}
