//! The audit log, for the staff: searched, exported and checked.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tidings_actors::{
    ports::{AuditEntry, AuditFilter, AuditRow},
    time::Timestamp,
};
use tidings_entity::id::Sha256Hash;
use utoipa::ToSchema;
use warp::reply::Response;

use crate::http::{
    bodies::{
        moment::{iso, parsed},
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};
use crate::store::audit::{Chain, named};

/// The name of the list in its cursors.
const AUDIT: &str = "admin audit";
/// Rows that are read at once.
const STEP: u64 = 1_000;
/// The most rows of one export; `after` asks for the rest.
const EXPORT_ROWS: u64 = 20_000;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::Staff(Permission::AuditRead), list),
        route::<__path_export, _, _>(Access::Staff(Permission::AuditRead), export),
        route::<__path_verify, _, _>(Access::Staff(Permission::AuditRead), verify),
    ]
}

/// A row of the audit log. Lists and exports have the same fields.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuditShown {
    /// Number of the row in the log. Numbers rise by one.
    id: i64,
    /// When the action happened, in Unix milliseconds. The hash covers this form of the time.
    at_ms: i64,
    /// When the action happened, in ISO 8601, UTC.
    at: String,
    /// Who acted: `admin` (the server's own token), `tok_...`, `jwt:...`, `anyone` or `system`.
    actor: String,
    /// Id of the app that acted, or that the action changed. Empty: no app.
    app: String,
    /// The action, named like the operation id of its route.
    action: String,
    /// Id of the object that the action changed. Empty: none.
    target: String,
    /// `ok`, or the code of the problem that refused the action.
    result: String,
    /// Id of the request, as in the server's log.
    request: String,
    /// Address of the client, as far as proxies are trusted (`server.trusted_proxies`). Null: no request, or
    /// a row from before addresses were stored. A row that counts several requests (`times:n`) has the
    /// address of one of them.
    #[serde(default)]
    address: Option<String>,
    /// Hash of the previous row.
    previous: String,
    /// Id of the keyring key that the hash was made with. Null: a row from before hashes had a key.
    #[serde(default)]
    key: Option<String>,
    /// Hash of this row.
    hash: String,
}

impl AuditShown {
    fn of(row: &AuditRow) -> Self {
        let AuditEntry { at, actor, app, action, target, result, request, address } = row.entry.clone();
        Self {
            id: row.id,
            at_ms: at.0,
            at: iso(at),
            actor,
            app,
            action,
            target,
            result,
            request,
            address,
            previous: row.previous.to_string(),
            key: row.key.clone(),
            hash: row.hash.to_string(),
        }
    }

    /// The row in the form that is hashed; `None` if its hashes are malformed.
    #[must_use]
    pub fn row(self) -> Option<AuditRow> {
        let Self { id, at_ms, at: _, actor, app, action, target, result, request, .. } = self;
        let Self { address, previous, key, hash, .. } = self;
        let entry = AuditEntry { at: Timestamp(at_ms), actor, app, action, target, result, request, address };
        let (previous, hash): (Sha256Hash, Sha256Hash) = (previous.parse().ok()?, hash.parse().ok()?);
        Some(AuditRow { id, entry, previous, key, hash })
    }
}

/// Result of the check of the audit log.
#[derive(Serialize, ToSchema)]
struct Verified {
    /// Whether the check found no fault.
    intact: bool,
    /// Number of rows that were checked.
    rows: u64,
    /// The last row, as `<id>:<hash>`. Compared with a later log, this value shows whether rows were
    /// rewritten.
    head: Option<String>,
    /// Id of the first row whose hash was made with a key of the keyring and cannot be made without the key.
    /// Null: no such row.
    keyed_from: Option<i64>,
    /// The faults, at most 100.
    faults: Vec<String>,
}

/// Lists the rows of the audit log, newest first.
#[utoipa::path(get, path = "/api/admin/audit", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("actor" = Option<String>, Query, description = "Only rows of this caller: `admin`, `tok_...`, \
            `jwt:...`, `anyone` or `system`."),
        ("app" = Option<String>, Query, description = "Only rows of actions by this app or on this app \
            (`app_...`)."),
        ("action" = Option<String>, Query, description = "Only rows of this action, the operation id of its \
            route."),
        ("target" = Option<String>, Query, description = "Only rows of actions on the object with this id."),
        ("since" = Option<String>, Query, description = "Only rows from this time (RFC 3339) on."),
        ("until" = Option<String>, Query, description = "Only rows before this time (RFC 3339)."),
    ),
    responses((status = 200, body = Page<AuditShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let known = ["limit", "cursor", "actor", "app", "action", "target", "since", "until"];
    let query = Query::of(&request.query, &known)?;
    let limit = query.limit()?;
    let moment = |key: &str| match query.get(key).map(parsed) {
        Some(None) => Err(Problem::malformed(format!("{key} is a moment (RFC 3339)"))),
        other => Ok(other.flatten()),
    };
    let text = |key: &str| query.get(key).map(str::to_owned);
    let filter = AuditFilter {
        actor: text("actor"),
        app: text("app"),
        action: text("action"),
        target: text("target"),
        since: moment("since")?,
        until: moment("until")?,
    };
    let before = query.after(AUDIT)?;
    let rows = front.administration.audit(&filter, before, limit + 1).await;
    let rows = rows.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    Ok(json(StatusCode::OK, &page(rows, limit, AUDIT, |row| row.id.to_string(), AuditShown::of)))
}

/// Exports the audit log, oldest row first, one JSON object per line, at most 20,000 rows. If more rows
/// follow, the header `tidings-next-after` has the `after` of the next request.
#[utoipa::path(get, path = "/api/admin/audit/export", tag = "admin",
    params(("after" = Option<i64>, Query, description = "Only rows with a larger id than this one.")),
    responses((status = 200, content_type = "application/x-ndjson", body = String)))]
async fn export(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["after"])?;
    let mut after = match query.get("after").map(str::parse::<i64>) {
        None => 0,
        Some(Ok(after)) if after >= 0 => after,
        Some(_) => return Err(Problem::malformed("after is the id of a row")),
    };
    let (mut lines, mut count) = (Vec::new(), 0);
    let more = loop {
        let rows = front.administration.audit_chain(after, STEP).await;
        let rows = rows.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
        for row in &rows {
            serde_json::to_writer(&mut lines, &AuditShown::of(row)).expect("a row is plain data");
            lines.push(b'\n');
            after = row.id;
        }
        count += rows.len() as u64;
        if (rows.len() as u64) < STEP {
            break false;
        }
        if count >= EXPORT_ROWS {
            break true;
        }
    };
    let mut response = Response::new(lines.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if more {
        headers.insert("tidings-next-after", HeaderValue::from(after));
    }
    Ok(response)
}

/// Checks the hashes of the whole audit log and names at most 100 faults.
#[utoipa::path(get, path = "/api/admin/audit/verify", tag = "admin",
    params(("head" = Option<String>, Query, description = "`head` of an earlier check. The log must still \
        contain that row.")),
    responses((status = 200, body = Verified)))]
async fn verify(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["head"])?;
    let head = match query.get("head").map(named) {
        Some(None) => return Err(Problem::malformed("head is <id>:<hash>")),
        other => other.flatten(),
    };
    let mut chain = Chain::with(head, Some(front.audit_keyring.audit_keys()));
    let mut after = 0;
    loop {
        let rows = front.administration.audit_chain(after, STEP).await;
        let rows = rows.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        rows.iter().for_each(|row| chain.take(row));
    }
    let verdict = chain.end();
    let verified = Verified {
        intact: verdict.faults.is_empty(),
        rows: verdict.rows,
        head: verdict.last.map(|(id, hash)| format!("{id}:{hash}")),
        keyed_from: verdict.keyed_from,
        faults: verdict.faults.iter().map(ToString::to_string).collect(),
    };
    Ok(json(StatusCode::OK, &verified))
}
