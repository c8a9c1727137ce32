//! Everything anew, for the watches of all apps or of one: the way out after the database lost what was
//! committed (a standby that took over without the last transactions, an older dump), because apps may then
//! have files of rounds that no row tells of.
//!
//! One request asks for a page of watches, so that none takes long and nothing is lost when a client goes
//! away in between: whoever asks goes on with `next_cursor`. To ask twice does no harm.

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
        route::{Access, Answer, Route, route},
    },
};

/// What the cursors of this route are made for.
const WATCHES: &str = "admin resync";
/// Shown at a branch that does not move until its resync began.
const REASON: &str = "the staff asked for everything anew";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_resync, _, _>(Access::Operator, resync)]
}

body! {
    /// How everything is to come anew.
    struct ResyncAll {
        /// Also tell the apps to drop what they have and is not named. False where it is missing.
        complete: Option<bool>,
    }
}

/// What was asked for.
#[derive(Serialize, ToSchema)]
struct ResyncsAsked {
    /// So many watches were asked.
    watches: u64,
    /// The next round of so many branches is a resync.
    branches: u64,
    /// Goes on with the watches after these as `cursor`; missing: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Delivers everything anew to all apps, or to one: a page of their watches. Paused watches stay paused, and
/// begin with it when they are resumed.
#[utoipa::path(post, path = "/api/admin/watches/resync", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100 watches; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the answer before"),
        ("app_id" = Option<String>, Query, description = "only of this app"),
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
                // It went meanwhile.
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
