//! Changing a watch: settings, credential, pause and resume, scans and resyncs, and the end of it.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{Watch, WatchPatch};
use tidings_entity::{
    id::WatchId,
    kind::{HistoryMode, WatchState},
};
use utoipa::ToSchema;
use warp::reply::Response;

use super::{
    super::{
        Front,
        fields::Fields,
        problem::{Kind, Problem},
        request::{Request, json},
        route::{Access, Answer, Route, route},
    },
    Repository, STATES, announce, named, proof, reason_of,
    register::{ViewFields, read_token},
    selector, shown, store_failed,
};
use crate::git::address::Address;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_patch, _, _>(Access::App, patch),
        route::<__path_replace_token, _, _>(Access::App, replace_token),
        route::<__path_unwatch, _, _>(Access::App, unwatch),
        route::<__path_scan, _, _>(Access::App, scan),
        route::<__path_resync, _, _>(Access::App, resync),
        route::<__path_pause, _, _>(Access::App, pause),
        route::<__path_resume, _, _>(Access::App, resume),
    ]
}

/// New settings of a watch; what is missing stays as it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
struct Patch {
    /// Globs of which one must match a path; empty: all paths.
    include: Option<Vec<String>>,
    /// Globs of which none may match a path.
    exclude: Option<Vec<String>>,
    /// `skip` or `send`.
    symlinks: Option<String>,
    /// `inline` or `none`.
    content: Option<String>,
    /// Content of larger files is left out, in bytes.
    max_size: Option<u64>,
    /// `net` or `every`.
    mode: Option<String>,
    /// `active` or `paused`.
    state: Option<String>,
}

/// A new credential.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
struct NewToken {
    /// What gives access to the repository; `token` is another name.
    github_token: Option<String>,
    /// What gives access to the repository.
    token: Option<String>,
}

/// How a resync is done.
#[derive(ToSchema)]
struct Resync {
    /// Also tell the app to drop what it has and is not named.
    complete: Option<bool>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
struct Done {
    message: &'static str,
}

/// Changes settings. A changed view is delivered as the next round.
#[utoipa::path(patch, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    request_body = Patch,
    responses((status = 200, body = Repository)))]
async fn patch(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let mut fields = Fields::of(&request.body)?;
    let view = ViewFields::read(&mut fields);
    let view = if view.is_empty() { None } else { Some(view.over(&watch.view, &mut fields)) };
    let mode: Option<HistoryMode> = fields.word("mode", "net, every");
    let state: Option<WatchState> = fields.word("state", STATES);
    fields.finish()?;
    let patch = WatchPatch { view, mode, state: state.map(|state| (state, reason_of(state))) };
    patched(&front, &watch, &patch).await
}

async fn patched(front: &Front, watch: &Watch, patch: &WatchPatch) -> Answer {
    let watch = front.store.patch_watch(&watch.app, &watch.id, patch).await.map_err(store_failed)?;
    announce(front, &watch).await;
    Ok(json(StatusCode::OK, &shown(front, &watch).await?))
}

/// Replaces the credential, after it has proved to give access.
#[utoipa::path(patch, path = "/api/repositories/{id}/token", tag = "repositories", params(("id" = String, Path)),
    request_body = NewToken,
    responses((status = 200, body = Done)))]
async fn replace_token(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let mut fields = Fields::of(&request.body)?;
    fields.ignore_unknown_unless(&["token"]);
    let field = fields.either("github_token", "token");
    if !fields.has(field) {
        fields.refuse(field, "is required");
    }
    let credential = read_token(&mut fields, field);
    fields.finish()?;

    let settings = &front.settings;
    let address =
        Address::parse(&watch.facts.github_url, settings.git.allow_local, settings.egress.allow_http)
            .map_err(|fault| Problem::new(Kind::CONFLICT).with_detail(fault.to_string()))?;
    let patterns = selector::patterns(&watch.selector);
    let proof = proof::access(&front, address.location, credential.clone(), &patterns)
        .await
        .map_err(|error| proof::failure(&error, field, true, StatusCode::UNPROCESSABLE_ENTITY))?;
    let now = front.clock.now();
    let watch = front
        .store
        .replace_credential(&watch.app, &watch.id, credential.as_ref(), &proof.listing, now)
        .await
        .map_err(store_failed)?;
    announce(&front, &watch).await;
    front.handle.poke(&watch.repository).await;
    Ok(json(StatusCode::OK, &Done { message: "Token updated successfully" }))
}

/// Ends the watch. A body is not looked at.
#[utoipa::path(delete, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    responses((status = 204)))]
async fn unwatch(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    front.store.unwatch(&watch.app, &watch.id).await.map_err(store_failed)?;
    announce(&front, &watch).await;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Asks the Git host soon, whatever the schedule says.
#[utoipa::path(post, path = "/api/repositories/{id}/scan", tag = "repositories", params(("id" = String, Path)),
    responses((status = 202, body = Done)))]
async fn scan(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    Fields::of_optional(&request.body)?.finish()?;
    front.handle.poke(&watch.repository).await;
    Ok(json(StatusCode::ACCEPTED, &Done { message: "Scan requested" }))
}

/// Delivers everything anew: deletes of what is gone, creates of all the rest.
#[utoipa::path(post, path = "/api/repositories/{id}/resync", tag = "repositories", params(("id" = String, Path)),
    request_body = Option<Resync>,
    responses((status = 202, body = Done)))]
async fn resync(front: Arc<Front>, request: Request) -> Answer {
    let id: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let mut fields = Fields::of_optional(&request.body)?;
    let wish = Resync { complete: fields.boolean("complete") };
    fields.finish()?;
    let app = &request.app()?.id;
    front.store.request_resync(app, &id, wish.complete.unwrap_or(false)).await.map_err(store_failed)?;
    front.handle.refresh(app).await;
    Ok(json(StatusCode::ACCEPTED, &Done { message: "Resync requested" }))
}

/// Holds the watch still.
#[utoipa::path(post, path = "/api/repositories/{id}/pause", tag = "repositories", params(("id" = String, Path)),
    responses((status = 200, body = Repository)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    set_state(&front, &request, WatchState::Paused).await
}

/// Serves the watch again.
#[utoipa::path(post, path = "/api/repositories/{id}/resume", tag = "repositories", params(("id" = String, Path)),
    responses((status = 200, body = Repository)))]
async fn resume(front: Arc<Front>, request: Request) -> Answer {
    set_state(&front, &request, WatchState::Active).await
}

async fn set_state(front: &Front, request: &Request, state: WatchState) -> Answer {
    let watch = named(front, request).await?;
    Fields::of_optional(&request.body)?.finish()?;
    let patch = WatchPatch { state: Some((state, reason_of(state))), ..WatchPatch::default() };
    patched(front, &watch, &patch).await
}
