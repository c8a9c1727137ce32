//! Pull: an app without an endpoint asks for the changes of a watch and acknowledges how far it got. The
//! cursor, the order, the ids and the dead letters are the same as for an app with an endpoint.
//!
//! A lease (in code: a claim) names changes that are handed out and not yet settled. While it lasts no other
//! consumer gets them. A lease that has ended (by its time, another process, another sink) is refused with
//! 409, and the next request gets the same changes under the same ids. Leases are in the memory of the
//! replica that works on the watch: other replicas forward the request. An answer holds the memory of its
//! changes until it is sent, within the time of a download; a lane keeps nothing of what it has handed out.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tidings_actors::{
    deliverer::outlets::pulling::{Acknowledgement, ClaimedChanges, PullRequest, Pulled, Refusal},
    model::sink::Outlet,
    ports::{Action, App, GONE, Notice, ParcelBody, Watch},
};
use tidings_entity::id::CursorId;
use tracing::debug;
use utoipa::ToSchema;
use warp::reply::Response;

use super::super::{document::PulledPayload, front::Front};
use super::{contents::downloads::in_pieces, named};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        paging::Query,
        problem::{Kind, Problem},
    },
    door::{
        elsewhere,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
};
use crate::sinks::{body::END_OF_BASE64, notice_body};

/// The most changes of one answer, which is the server's limit of unsettled changes.
const CHANGES_MAX: usize = 64;
/// Seconds that a lease lasts: the default, and the most.
const LEASE_SECONDS: [u64; 2] = [60, 3_600];
/// Seconds that an answer may wait for a change: the default, and the most.
const WAIT_SECONDS: [u64; 2] = [0, 60];
/// How long a request without a wait is held while changes exist whose round is being opened.
const OPENING_WAIT: Duration = Duration::from_secs(1);
/// How many seconds a client should wait before it asks again, where it may not wait for the answer.
const RETRY_AFTER_SECONDS: u64 = 5;
/// How long a request beyond the limit of waiting requests is held before its empty answer.
const CROWDED_WAIT: Duration = Duration::from_secs(1);
/// Bodies of at least this many bytes are parts of their own of an answer, and are not copied (64 KiB). An
/// answer of fewer bytes holds no memory of the pool.
const PART_BYTES: usize = 64 << 10;
/// The most characters of a reason for refusing a change.
const REASON_CHARACTERS_MAX: usize = 1_024;

/// The routes of this file.
pub(super) fn routes(places: &Arc<Places>) -> Vec<Route> {
    vec![
        route_with::<__path_pending, _, _, _>(Access::App(Permission::ChangesPull), places, pending),
        route::<__path_settle, _, _>(Access::App(Permission::ChangesPull), settle).unaudited(),
    ]
}

/// Changes that a consumer claims: the next ones of one round, in order.
#[derive(Serialize, ToSchema)]
struct Pending {
    /// Id of the claim. The consumer sends this id when it settles the changes.
    lease_id: String,
    /// When the claim ends, in ISO 8601 with milliseconds, UTC. Afterwards the changes may be given out
    /// again.
    expires_at: String,
    /// Id of the branch of the watch, as `event.cursor`.
    cursor: String,
    /// Full name of the branch.
    branch: String,
    /// Number of the round, as `event.round`.
    round: i64,
    /// Kind of the round: `sync`, `resync`, `redrive` or `replay`.
    kind: &'static str,
    /// Whether the round names every file. Once its last change is settled, drop each file that the round did
    /// not name.
    complete: bool,
    /// Position of the first of these changes.
    from: u64,
    /// Position after the last of these changes.
    to: u64,
    /// Number of changes in the whole round.
    total: u64,
    /// Value of `accepted_through` that settles all of these changes: the position of the last one, or `to`
    /// if the answer has only notices.
    through: u64,
    /// The changes in order, with the notices that the app asked for: `resync` before the first change,
    /// `synced` after the last.
    // Empty here: the bodies are put in as the bytes they are.
    #[schema(required = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<PendingChange>,
}

/// A change or notice that a consumer claims.
#[derive(Serialize, ToSchema)]
struct PendingChange {
    /// `create`, `update` or `delete`; or the notices `resync` and `synced`, for an app that asked for them.
    action: &'static str,
    #[schema(value_type = PulledPayload)]
    body: (),
}

body! {
    /// Settles changes that a consumer claimed.
    struct Settlement {
        /// The `lease_id` of the answer that had the changes.
        lease_id: String,
        /// Position of the last change that the app processed, or `through` for all of them. Missing: none,
        /// and all changes are given out again. If `from` and `to` are equal, the answer had only notices:
        /// `through` settles them.
        accepted_through: Option<u64>,
        /// Changes up to `accepted_through` that the app refuses. They become dead letters.
        refused: Option<Vec<Refused>>,
    }
}

/// A change that an app refuses.
#[derive(serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Refused {
    /// Position of the change in its round.
    position: u64,
    /// Reason of the refusal, for people, at most 1,024 characters.
    #[serde(default)]
    reason: String,
}

/// Progress of the app, as stored on disk.
#[derive(Serialize, ToSchema)]
struct SettledShown {
    /// Id of the branch of the watch, as `event.cursor` in bodies.
    cursor: String,
    /// Number of the round.
    round: i64,
    /// Number of settled changes of the round.
    position: u64,
}

/// Hands out the next changes of a watch whose sink is pull; 204 if there are none now. One app may have one
/// waiting request per 16 connections of the server, all apps together one per 4. A request beyond these
/// limits does not wait: its 204 comes after 1 second, with `Retry-After`. An answer must be read within 30
/// seconds, and 1 second more for each 256 KiB.
#[utoipa::path(get, path = "/api/repositories/{id}/pending", tag = "pull",
    params(
        ("id" = String, Path),
        ("branch" = Option<String>, Query, description = "Only changes of this branch, by its full name \
            (`refs/heads/...`)."),
        ("limit" = Option<u64>, Query, description = "Maximum number of changes, 1 to 64. Default 64."),
        ("lease_seconds" = Option<u64>, Query, description = "Duration of the lease in seconds, 1 to 3,600. \
            Default 60."),
        ("wait_seconds" = Option<u64>, Query,
            description = "Number of seconds to wait for a change, 0 to 60. Default 0."),
    ),
    responses(
        (status = 200, body = Pending),
        (status = 204, description = "No change can be handed out now: none is pending, or another lease \
            holds them. Has `Retry-After` if too many requests wait already."),
        (status = 409, description = "The changes of the watch are sent to an endpoint or stream, or the app \
            is disabled."),
        (status = 503, description = "Changes are pending, and their contents are still being read or wait \
            for memory (`content-unavailable`); or the watch is moving from one replica to another. Repeat \
            the request.")
    ))]
async fn pending(front: Arc<Front>, places: Arc<Places>, mut request: Request) -> Answer {
    let query = Query::of(&request.query, &["branch", "limit", "lease_seconds", "wait_seconds"])?;
    let most = number(&query, "limit", 1, [CHANGES_MAX as u64; 2])?;
    let lease = Duration::from_secs(number(&query, "lease_seconds", 1, LEASE_SECONDS)?);
    let mut wait = Duration::from_secs(number(&query, "wait_seconds", 0, WAIT_SECONDS)?);
    let watch = named(&front, &request).await?;
    pulls(request.app()?, &watch)?;
    let branch = query.get("branch");
    let asked = || watch.cursors.iter().filter(|cursor| branch.is_none_or(|branch| cursor.branch == branch));
    let cursors: Vec<CursorId> = asked().map(|cursor| cursor.id.clone()).collect();
    let is_behind = asked().any(|cursor| cursor.behind_since.is_some() || cursor.open.is_some());
    if let Some(branch) = branch.filter(|_| cursors.is_empty()) {
        let said = format!("no branch {branch:?} is followed; the full name is needed (refs/heads/...)");
        return Err(Problem::malformed(said));
    }
    let most = usize::try_from(most).unwrap_or(CHANGES_MAX);
    // Held until it is answered.
    let place = if wait.is_zero() { None } else { places.poll(watch.app.as_str()) };
    let may_not_wait = !wait.is_zero() && place.is_none();
    if may_not_wait {
        wait = Duration::ZERO;
        request.query = query.without("wait_seconds");
    }
    if wait.is_zero() && is_behind {
        wait = OPENING_WAIT;
    }
    let mut answer = match elsewhere::answered(&front, &request, &watch.repository).await {
        Some(answer) => answer?,
        None => {
            let pull = |reply| PullRequest { watch: watch.id.clone(), cursors, most, lease, wait, reply };
            match front.handle.pull(&watch.sink_key(), pull).await {
                Pulled::Claimed(changes) => {
                    if !wait.is_zero()
                        && let Err(ended) = request.check_after_wait().await
                    {
                        give_back(&front, &watch, changes.id).await;
                        return Err(ended);
                    }
                    handed_out(*changes)
                }
                Pulled::Nothing => nothing(),
                Pulled::NotReady => return Err(not_ready()),
            }
        }
    };
    if may_not_wait && answer.status() == StatusCode::NO_CONTENT {
        // A client that asks again at once must not cost more than a client that waits.
        tokio::time::sleep(CROWDED_WAIT).await;
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    Ok(answer)
}

/// Ends a lease whose caller may not have the changes any more: the next request gets them.
async fn give_back(front: &Front, watch: &Watch, lease: String) {
    let given = front
        .handle
        .acknowledge(&watch.sink_key(), |reply| Acknowledgement {
            id: lease,
            watch: watch.id.clone(),
            accepted_through: None,
            refused: Vec::new(),
            reply,
        })
        .await;
    if !matches!(given, Some(Ok(_))) {
        debug!(watch.id = %watch.id, "a lease of {} that nobody got ends by its time", watch.id);
    }
}

/// Changes are pending whose contents are not in memory yet. The lane goes on with reading them, so a
/// repeated request gets the changes.
fn not_ready() -> Problem {
    Problem::new(Kind::CONTENT_UNAVAILABLE)
        .with_detail("the contents of the next changes are being read, or wait for memory")
        .retry_after(RETRY_AFTER_SECONDS)
}

fn nothing() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Settles changes that were handed out: acknowledges or refuses them. The answer comes when the result is on
/// disk.
#[utoipa::path(post, path = "/api/repositories/{id}/settle", tag = "pull", params(("id" = String, Path)),
    request_body = Settlement,
    responses(
        (status = 200, body = SettledShown),
        (status = 409, description = "The lease has ended. Request the pending changes again."),
        (status = 503, description = "The watch is moving from one replica to another, or the database does \
            not answer. Repeat the request.")
    ))]
async fn settle(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let app = request.app()?;
    let mut fields = Fields::of_body::<Settlement>(&request.body)?;
    let id = fields.required_text("lease_id", 1..=64);
    let accepted_through = fields.number("accepted_through");
    let refused = read_refused(&mut fields);
    fields.finish()?;
    pulls(app, &watch)?;
    if let Some(answer) = elsewhere::answered(&front, &request, &watch.repository).await {
        return answer;
    }
    let settled = front
        .handle
        .acknowledge(&watch.sink_key(), |reply| Acknowledgement {
            id,
            watch: watch.id.clone(),
            accepted_through,
            refused,
            reply,
        })
        .await;
    match settled {
        Some(Ok(settled)) => Ok(json(
            StatusCode::OK,
            &SettledShown {
                cursor: settled.cursor.to_string(),
                round: settled.round,
                position: settled.position,
            },
        )),
        Some(Err(refusal @ Refusal::Stale)) => {
            Err(Problem::new(Kind::CONFLICT).with_detail(refusal.to_string()))
        }
        Some(Err(refusal)) => Err(Problem::new(Kind::INVALID).with_detail(refusal.to_string())),
        // The settlement may or may not be on disk; unsettled changes are handed out again.
        None => Err(Problem::new(Kind::UNAVAILABLE)
            .with_detail("the changes may be settled; those that are not settled are handed out again")),
    }
}

/// Whether changes of this watch are claimed.
fn pulls(app: &App, watch: &Watch) -> Result<(), Problem> {
    let refused = |why: &str| Err(Problem::new(Kind::CONFLICT).with_detail(why));
    if let Some(sink) = &watch.sink {
        let by_hand = app.disabled.as_deref().filter(|why| *why != GONE);
        return match (sink.address.outlet(), by_hand) {
            (Outlet::Attempt, _) => refused(
                "the watch has a sink that its changes are sent to; PATCH /api/repositories/{id} with \
                 {\"sink\": {\"kind\": \"pull\"}} makes it pull",
            ),
            (Outlet::HandOver, _) => refused(
                "the changes of the watch become tasks: workers claim them with POST /api/tasks/claim",
            ),
            (Outlet::Claim, Some(_)) => refused("the app is disabled"),
            (Outlet::Claim, None) => Ok(()),
        };
    }
    match (app.receives_at.outlet(), &app.disabled) {
        (Outlet::Attempt | Outlet::HandOver, _) => refused(
            "the app has an endpoint that its changes are sent to; PATCH /api/app with base_url null \
             (tidings app update --pull) makes it pull",
        ),
        (Outlet::Claim, Some(_)) => refused("the app is disabled"),
        (Outlet::Claim, None) => Ok(()),
    }
}

fn number(query: &Query, key: &str, least: u64, [usual, most]: [u64; 2]) -> Result<u64, Problem> {
    let refused = || Problem::malformed(format!("{key} is a whole number from {least} to {most}"));
    match query.get(key).map(str::parse) {
        None => Ok(usual),
        Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
        Some(_) => Err(refused()),
    }
}

fn read_refused(fields: &mut Fields) -> Vec<(u64, String)> {
    let Some(refused) = fields.list::<Refused>("refused") else { return Vec::new() };
    if refused.len() > CHANGES_MAX {
        fields.refuse("refused", format!("names at most {CHANGES_MAX} positions"));
    }
    if refused.iter().any(|one| one.reason.chars().count() > REASON_CHARACTERS_MAX) {
        fields.refuse("refused", format!("a reason has at most {REASON_CHARACTERS_MAX} characters"));
    }
    refused.into_iter().map(|one| (one.position, one.reason)).collect()
}

/// The answer with the changes, as the bytes that would have been sent. Notices are in the same places as
/// when sent: before the first change of a resync and after the last change of a round. If no change is left,
/// an answer has only notices.
fn handed_out(claimed: ClaimedChanges) -> Response {
    let round = &claimed.lane.round;
    let Range { start, end } = claimed.positions;
    let pending = Pending {
        lease_id: claimed.id,
        expires_at: iso(claimed.expires_at),
        cursor: round.cursor.to_string(),
        branch: round.branch.clone(),
        round: round.number,
        kind: round.spec.kind.as_str(),
        complete: round.complete,
        from: start,
        to: end,
        total: round.summary.total(),
        through: if start < end { end - 1 } else { end },
        changes: Vec::new(),
    };
    let notice = |action| {
        let (round, repository) = (round.clone(), claimed.lane.repository.clone());
        let format = round.format;
        (action, ParcelBody::Whole(notice_body(&Notice::OfRound { action, round, repository }, format)))
    };
    let before = claimed.announces.then(|| notice(Action::Resync));
    let after = claimed.tells_end.then(|| notice(Action::Synced));
    let held = claimed.parcels.iter().filter_map(|parcel| parcel.held.clone()).collect();
    let changes = claimed.parcels.into_iter().map(|parcel| (parcel.action, parcel.body));
    let beginning = serde_json::to_vec(&pending).expect("an answer is plain data");
    let mut parts = Parts { whole: Vec::new(), open: beginning };
    parts.open.pop();
    parts.open.extend_from_slice(b",\"changes\":[");
    for (index, (action, body)) in before.into_iter().chain(changes).chain(after).enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let action = action.as_str();
        parts.open.extend_from_slice(format!("{comma}{{\"action\":\"{action}\",\"body\":").as_bytes());
        parts.add_body(body);
        parts.open.push(b'}');
    }
    parts.open.extend_from_slice(b"]}");
    parts.whole.push(parts.open.into());
    let mut response = match parts.whole.as_slice() {
        // An ordinary answer costs about as much as its connection.
        [small] if small.len() < PART_BYTES => Response::new(small.clone().into()),
        _ => in_pieces(parts.whole, held, None),
    };
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The parts of an answer that follow each other: large bodies as they are, and the bytes between them.
struct Parts {
    whole: Vec<Bytes>,
    /// The end of the answer so far.
    open: Vec<u8>,
}

impl Parts {
    /// Adds a body in one piece: pulled bodies need no chunks.
    fn add_body(&mut self, body: ParcelBody) {
        match body {
            ParcelBody::Whole(body) => self.add(body),
            ParcelBody::Chunked { before, content, after } => {
                self.add(before);
                self.add(content);
                self.open.extend_from_slice(END_OF_BASE64);
                self.add(after);
            }
        }
    }

    fn add(&mut self, bytes: Bytes) {
        if bytes.len() < PART_BYTES {
            self.open.extend_from_slice(&bytes);
        } else {
            self.whole.extend([Bytes::from(std::mem::take(&mut self.open)), bytes]);
        }
    }
}
