//! The servers that share the database.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::ReplicaSeen;
use tidings_entity::id::ReplicaId;
use utoipa::ToSchema;

use super::super::front::Front;
use crate::http::{
    bodies::{
        moment::iso,
        paging::{LIMIT_DEFAULT, Page, Query, Window},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_list, _, _>(Access::Staff(Permission::SystemRead), list)]
}

/// A server (replica) that shares the database.
#[derive(Serialize, ToSchema)]
struct ReplicaShown {
    /// Id of the replica process. A restart gets a new id.
    replica: String,
    /// Host name and process id of the replica.
    name: String,
    version: String,
    /// Role of the replica: `all`, `api` or `worker` (setting `server.role`).
    role: &'static str,
    /// Address at which other replicas reach this one. Missing: other replicas cannot reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Number of shards that the replica holds, of 256.
    shards: usize,
    /// Age of the oldest unsettled change in the repositories of the replica, in milliseconds. 0: nothing is
    /// behind.
    lag_ms: u64,
    /// Milliseconds since the replica last renewed its row, by the clock of the database. After
    /// `database.lease` other replicas take its shards.
    seen_ms: u64,
    started_at: String,
    /// Whether this replica gave the answer.
    is_this: bool,
}

impl ReplicaShown {
    fn of(seen: ReplicaSeen, this: &ReplicaId) -> Self {
        let ReplicaSeen { replica, shards, seen, lag } = seen;
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            is_this: replica.id == *this,
            replica: replica.id.to_string(),
            name: replica.name,
            version: replica.version,
            role: replica.role.as_str(),
            address: replica.address,
            shards,
            lag_ms: milliseconds(lag),
            seen_ms: milliseconds(seen),
            started_at: iso(replica.started_at),
        }
    }
}

/// Lists the servers that share the database and were alive within the last day. With SQLite that is this
/// server alone.
#[utoipa::path(get, path = "/api/admin/replicas", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<ReplicaShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let window = Window::of(&Query::of(&request.query, &["limit", "cursor"])?, "replicas", LIMIT_DEFAULT)?;
    let (this, seen) =
        front.handle.replicas().await.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let (seen, next_cursor) = window.cut(seen);
    let items: Vec<ReplicaShown> = seen.into_iter().map(|seen| ReplicaShown::of(seen, &this)).collect();
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}
