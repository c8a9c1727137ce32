//! Changing a watch: settings, credential, pause and resume, scans and resyncs, and the end of it.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    limits::turns::Turns,
    model::{sink::Outlet, task::TaskMove},
    ports::{OwnSink, Rotation, StoreError, TaskWord, Watch, WatchPatch},
};
use tidings_entity::{
    id::{AppId, CursorId, TaskId, WatchId},
    kind::{HistoryMode, WatchState},
};
use utoipa::ToSchema;
use warp::reply::Response;

use super::super::{
    apps::{
        OVERLAP_SECONDS, OVERLAP_SECONDS_MAX,
        watch_sink::{SinkRequest, new_secret, read_alias, read_sink, refuse_beside_older},
    },
    front::Front,
};
use super::{
    Repository, STATES, announce, named, reason_of,
    register::{
        credential::{self, GithubApp},
        proof, read_on_branch_gone, selector,
    },
    shown, status, store_failed,
    views::ViewFields,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        auth::lacking,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    repositories::standing::kept::{kept_from_being_asked, kept_until},
};
use crate::{
    git::address::Address,
    secrets::{generate_signing_key, shown_signing_secret},
};

/// The routes of this file.
pub(super) fn routes(compiling: &Turns) -> Vec<Route> {
    vec![
        route_with::<__path_patch, _, _, _>(Access::App(Permission::WatchesUpdate), compiling, patch),
        route::<__path_replace_token, _, _>(Access::App(Permission::WatchesCredential), replace_token),
        route::<__path_unwatch, _, _>(Access::App(Permission::WatchesRemove), unwatch),
        route::<__path_scan, _, _>(Access::App(Permission::WatchesScan), scan),
        route::<__path_resync, _, _>(Access::App(Permission::WatchesResync), resync),
        route::<__path_skip, _, _>(Access::App(Permission::WatchesSkip), skip),
        route::<__path_pause, _, _>(Access::App(Permission::WatchesPause), pause),
        route::<__path_resume, _, _>(Access::App(Permission::WatchesPause), resume),
    ]
}

/// Why the refs and the repository of a watch stay as they are.
const OF_REGISTRATION: &str = "remove the watch, and add one with the other value";
/// Why PATCH of a watch takes no credential.
const OF_CREDENTIAL: &str = "PATCH /api/repositories/{id}/token replaces the credential";
/// The fields of a registration that a change cannot have, each with the reason.
const FIXED: [(&str, &str); 9] = [
    ("url", OF_REGISTRATION),
    ("github_url", OF_REGISTRATION),
    ("branch", OF_REGISTRATION),
    ("tags", OF_REGISTRATION),
    ("start", "it says what was sent first; POST /api/repositories/{id}/resync sends every file again"),
    ("github_token", OF_CREDENTIAL),
    ("token", OF_CREDENTIAL),
    ("token_type", OF_CREDENTIAL),
    ("github_app", OF_CREDENTIAL),
];

body! {
    /// Changes to a watch. A field that is missing keeps its value.
    struct Patch {
        /// Globs; a path must match at least one. Empty: all paths. `*` and `?` match within one name, `**`
        /// matches across directories, `docs/` matches everything below. Paths have no leading slash.
        include: Option<Vec<String>>,
        /// Globs; a path must match none of them.
        exclude: Option<Vec<String>>,
        /// Whether symbolic links are delivered: `skip` or `send`.
        symlinks: Option<String>,
        /// Whether bodies carry the content of files: `inline` or `none`.
        content: Option<String>,
        /// Largest content that is sent, in bytes. The content of larger files is left out.
        max_size: Option<u64>,
        /// `net` (the net change of several commits) or `every` (one round per commit).
        mode: Option<String>,
        /// Effect of a vanished branch of a pattern on the files of the app: `delete` or `keep`.
        on_branch_gone: Option<String>,
        /// `active`, or `paused` (no changes are delivered). `active` also enables a sink that is disabled.
        state: Option<String>,
        /// How the watch shows its state on commits at the Git host: `off`, `github`, `gitlab`, `gitea` (also
        /// Forgejo), or `auto`.
        status: Option<String>,
        /// The watch's own sink, used from the next attempt on. Null: changes go to the endpoint of the app.
        /// A field of the sink that is missing keeps its value.
        sink: Option<SinkRequest>,
        /// Whether the watch's own sink signs with a new key from now on. The answer shows the key once, as
        /// `sink.signing_secret`. Also needs the permission `watches:credential`.
        rotate_signing_key: Option<bool>,
        /// Seconds for which the previous key signs beside the new key, 0 to 2,592,000. Default 86,400.
        overlap_seconds: Option<u64>,
        /// Name that distinguishes watches of the same refs: lower-case letters, digits and `-`, at most 40
        /// characters. Empty: no name. 409 if another watch of the same refs has the name.
        #[schema(max_length = 40)]
        watch_name: Option<String>,
    }
}

body! {
    /// A new credential for a watch.
    struct NewToken {
        /// Token for reading the repository. `token` is another name for the field.
        github_token: Option<String>,
    }
    beyond docora {
        /// Token for reading the repository, as `github_token`.
        token: Option<String>,
        /// How the token is sent to the Git host: `auto`, `github`, `gitlab`, `gitea`, `bitbucket`, `basic`
        /// or `bearer`. Default `auto`.
        token_type: Option<String>,
        /// A GitHub App in place of a token.
        github_app: Option<GithubApp>,
    }
}

/// Settings of a resync.
#[derive(ToSchema)]
struct Resync {
    /// Whether the app is also told to drop each file that the resync does not name. Default false.
    complete: Option<bool>,
}

body! {
    /// Selects the change to skip.
    struct Skip {
        /// The branch, by its `cursor`. Required if several branches have a change at their head.
        cursor: Option<String>,
        /// Only together with `position`: the expected round of the change. If the head of the branch has
        /// moved on, the answer is 409.
        round: Option<i64>,
        /// Only together with `round`: the expected position of the change.
        position: Option<u64>,
    }
}

/// The change that is parked when its attempt in flight, or the claim of its task, ends.
#[derive(Serialize, ToSchema)]
struct Skipping {
    cursor: String,
    round: i64,
    position: u64,
}

/// The answer to a complete resync for an app that receives no notices of resyncs.
const RESYNC_WITHOUT_NOTICES: &str = "Resync requested. delivery.resync of this app is false, so it is not \
    told what to drop: everything that exists is sent again. `tidings app update --resync true --synced \
    true` changes that";

/// Result of an action on a watch, in words.
#[derive(Serialize, ToSchema)]
struct Done {
    message: &'static str,
}

/// Changes the settings of a watch. The next round delivers the effect of a changed view.
#[utoipa::path(patch, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    request_body = Patch,
    responses((status = 200, body = Repository)))]
async fn patch(front: Arc<Front>, compiling: Turns, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let mut fields = Fields::of_body::<Patch>(&request.body)?;
    fields.refuse_fixed(&FIXED);
    let view = ViewFields::read(&mut fields);
    let view = if view.is_empty() {
        None
    } else {
        Some(view.over(&compiling, &watch.app, &watch.view, &mut fields).await?)
    };
    let mode: Option<HistoryMode> = fields.word("mode", "net, every");
    let on_branch_gone = read_on_branch_gone(&mut fields, &watch.selector);
    let state: Option<WatchState> = fields.word("state", STATES);
    let sink = read_sink(&front, &mut fields, own_sink(&front, &watch).await?.as_ref());
    let rotation = read_rotation(&front, &mut fields);
    let goes_to = match &sink {
        Some(given) => given.as_ref().map(|given| given.address.outlet()),
        None => watch.sink.as_ref().map(|sink| sink.address.outlet()),
    };
    if rotation.is_some() && goes_to != Some(Outlet::Attempt) {
        let fault = "needs a sink of the repository that changes are sent to; PATCH /api/app rotates the key \
                     of the app";
        fields.refuse("rotate_signing_key", fault);
    }
    let status = status::read(&mut fields);
    let (is_renamed, alias) = (fields.has("watch_name"), read_alias(&mut fields));
    let alias = is_renamed.then_some(alias);
    fields.finish()?;
    if rotation.is_some() && !request.powers.may(Permission::WatchesCredential) {
        return Err(lacking(Permission::WatchesCredential));
    }
    let status = match status {
        Some(wanted) => Some(status::settled_of(&front, &watch, wanted).await?),
        None => None,
    };
    if status.flatten().is_some() {
        refuse_beside_older(&front, "no statuses of commits").await?;
    }
    if sink.is_some() || alias.as_ref().is_some_and(|alias| !alias.is_empty()) {
        refuse_beside_older(&front, "no sinks and names of watches").await?;
    }
    let given = sink.clone().flatten();
    let state = state.map(|state| (state, reason_of(state, &request)));
    let patch = WatchPatch { view, mode, on_branch_gone, state, sink, rotation, status, alias };
    let watch =
        front.store.patch_watch(&watch.app, &watch.id, &patch).await.map_err(|error| match error {
            StoreError::Exists(id) => Problem::new(Kind::ALREADY_WATCHED)
                .with_detail(format!("the watch {id} of the same refs has this name")),
            error => store_failed(error),
        })?;
    announce(&front, &watch).await;
    let secret = match &patch.rotation {
        Some(rotation) => Some(shown_signing_secret(&rotation.key).expose().to_owned()),
        None => new_secret(&front, request.app()?, &watch, given.as_ref()).await?,
    };
    Ok(json(StatusCode::OK, &shown(&front, &watch).await?.with_secret(secret)))
}

/// The watch's own sink, with the access data for requests to it.
async fn own_sink(front: &Front, watch: &Watch) -> Result<Option<OwnSink>, Problem> {
    match &watch.sink {
        Some(sink) => front.store.sink(&watch.app, &sink.id).await.map_err(store_failed),
        None => Ok(None),
    }
}

/// A request for a new key of the watch's own sink.
fn read_rotation(front: &Front, fields: &mut Fields) -> Option<Rotation> {
    let rotate = fields.boolean("rotate_signing_key").unwrap_or(false);
    let overlap = fields.number_within("overlap_seconds", 0..=OVERLAP_SECONDS_MAX);
    if !rotate {
        if overlap.is_some() {
            fields.refuse("rotate_signing_key", "must be true for a new key");
        }
        return None;
    }
    let overlap = Duration::from_secs(overlap.unwrap_or(OVERLAP_SECONDS));
    Some(Rotation {
        key: generate_signing_key(front.random.as_ref()),
        overlap_until: front.clock.now().after(overlap),
    })
}

async fn patched(front: &Front, watch: &Watch, patch: &WatchPatch) -> Answer {
    let watch = front.store.patch_watch(&watch.app, &watch.id, patch).await.map_err(store_failed)?;
    announce(front, &watch).await;
    Ok(json(StatusCode::OK, &shown(front, &watch).await?))
}

/// Replaces the credential of a repository, after a check that the new one gives access.
#[utoipa::path(patch, path = "/api/repositories/{id}/token", tag = "repositories",
    params(("id" = String, Path)),
    request_body = NewToken,
    responses((status = 200, body = Done)))]
async fn replace_token(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let mut fields = Fields::of_body::<NewToken>(&request.body)?;
    let settings = &front.settings;
    let address =
        Address::parse(&watch.facts.github_url, settings.git.allow_local, settings.egress.allow_http)
            .map_err(|fault| Problem::new(Kind::CONFLICT).with_detail(fault.to_string()))?;
    let field = credential::field(&mut fields);
    if !fields.has(field) {
        fields.refuse(field, "is required");
    }
    let credential = credential::read(&front, &mut fields, Some(&address.location));
    fields.finish()?;

    let patterns = selector::patterns(&watch.selector);
    let proof = proof::access(&front, &watch.app, address, credential.clone(), &patterns)
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

/// Ends a watch. No attempt of it begins after the answer. A body of the request is ignored.
#[utoipa::path(delete, path = "/api/repositories/{id}", tag = "repositories", params(("id" = String, Path)),
    responses((status = 204)))]
async fn unwatch(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    let was_open = front.store.unwatch(&watch.app, &watch.id).await.map_err(store_failed)?;
    front.handle.unwatched(&watch, was_open).await;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Requests a scan of the repository, whatever its schedule says. If the breaker of the source is open, the
/// scan is its probe. While an operator keeps the breaker open by hand, the request is refused.
#[utoipa::path(post, path = "/api/repositories/{id}/scan", tag = "repositories",
    params(("id" = String, Path)),
    responses((status = 202, body = Done), (status = 409, description = "An operator opened the breaker of \
        the source by hand.")))]
async fn scan(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    Fields::of_optional(&request.body)?.finish()?;
    let breakers = front.store.breakers().await.map_err(store_failed)?;
    if let Some(until) = kept_until(&breakers, &watch.source) {
        return Err(kept_from_being_asked(until));
    }
    front.handle.poke(&watch.repository).await;
    Ok(json(StatusCode::ACCEPTED, &Done { message: "Scan requested" }))
}

/// Requests a resync: deletes of files that are gone, then creates of all other files. A paused watch stays
/// paused; its resync begins when it is resumed.
#[utoipa::path(post, path = "/api/repositories/{id}/resync", tag = "repositories",
    params(("id" = String, Path)),
    request_body = Option<Resync>,
    responses((status = 202, body = Done)))]
async fn resync(front: Arc<Front>, request: Request) -> Answer {
    let id: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let mut fields = Fields::of_optional(&request.body)?;
    let wanted = Resync { complete: fields.boolean("complete") };
    fields.finish()?;
    let app = &request.app()?.id;
    front.store.request_resync(app, &id, wanted.complete.unwrap_or(false)).await.map_err(store_failed)?;
    front.handle.refresh(app).await;
    let message = match wanted.complete {
        Some(true) if !request.app()?.delivery.resync => RESYNC_WITHOUT_NOTICES,
        _ => "Resync requested",
    };
    Ok(json(StatusCode::ACCEPTED, &Done { message }))
}

/// Skips the change at the head of a branch: the change becomes a dead letter, and the next change follows. A
/// task that a worker has may still be ended by its worker, for at most 60 seconds.
#[utoipa::path(post, path = "/api/repositories/{id}/skip", tag = "repositories",
    params(("id" = String, Path)),
    request_body = Option<Skip>,
    responses((status = 202, body = Skipping)))]
async fn skip(front: Arc<Front>, request: Request) -> Answer {
    let id: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let mut fields = Fields::of_optional_body::<Skip>(&request.body)?;
    let cursor = fields.text("cursor", 1..=64);
    let (round, position) = (fields.number("round"), fields.number("position"));
    if round.is_some() != position.is_some() {
        fields.refuse("position", "goes with round");
    }
    fields.finish()?;
    let cursor = read_cursor(cursor)?;
    let expected = round.map(|round| i64::try_from(round).unwrap_or(i64::MAX)).zip(position);
    let app = &request.app()?.id;
    let head = front.store.request_skip(app, &id, cursor.as_ref(), expected).await;
    let head = head.map_err(|error| no_branch(error, cursor.as_ref()))?;
    match &head.task {
        Some(task) => cancel_head(&front, app, task).await?,
        None => front.handle.refresh(app).await,
    }
    let skipping = Skipping { cursor: head.cursor.to_string(), round: head.round, position: head.position };
    Ok(json(StatusCode::ACCEPTED, &skipping))
}

/// The branch that a body names by its `cursor`.
pub(super) fn read_cursor(text: Option<String>) -> Result<Option<CursorId>, Problem> {
    text.map(|text| text.parse()).transpose().map_err(|_| {
        Problem::new(Kind::NOT_REGISTERED)
            .with_detail("cursor is no id of a branch (cur_...); GET /api/repositories/{id} shows them")
    })
}

/// The failure of a call about one branch of a watch.
pub(super) fn no_branch(error: StoreError, cursor: Option<&CursorId>) -> Problem {
    match (error, cursor) {
        (StoreError::NotFound, Some(cursor)) => Problem::new(Kind::NOT_REGISTERED)
            .with_detail(format!("this app has no such repository with the branch {cursor}")),
        (error, _) => store_failed(error),
    }
}

/// Skips a change that is a task.
async fn cancel_head(front: &Front, app: &AppId, task: &TaskId) -> Result<(), Problem> {
    let word = TaskWord {
        id: task.clone(),
        app: app.clone(),
        proof: None,
        step: TaskMove::Cancel,
        body: None,
        then: Vec::new(),
    };
    let answers = front.tasks.move_tasks(vec![word]).await.map_err(store_failed)?;
    match answers.first() {
        Some(Ok(_)) => Ok(()),
        // Its worker ended it meanwhile.
        _ => Err(Problem::new(Kind::CONFLICT).with_detail("the change at the head was settled meanwhile")),
    }
}

/// Pauses the watch until it is resumed.
#[utoipa::path(post, path = "/api/repositories/{id}/pause", tag = "repositories",
    params(("id" = String, Path)),
    responses((status = 200, body = Repository)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    set_state(&front, &request, WatchState::Paused).await
}

/// Resumes the watch after a pause. Enables the own sink of the watch, if the sink is disabled because it
/// answered 410.
#[utoipa::path(post, path = "/api/repositories/{id}/resume", tag = "repositories",
    params(("id" = String, Path)),
    responses((status = 200, body = Repository)))]
async fn resume(front: Arc<Front>, request: Request) -> Answer {
    set_state(&front, &request, WatchState::Active).await
}

async fn set_state(front: &Front, request: &Request, state: WatchState) -> Answer {
    let watch = named(front, request).await?;
    Fields::of_optional(&request.body)?.finish()?;
    let patch = WatchPatch { state: Some((state, reason_of(state, request))), ..WatchPatch::default() };
    patched(front, &watch, &patch).await
}
