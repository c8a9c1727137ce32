//! Watches, which are called repositories on the wire: the repositories that an app watches, and their state.

mod change;
mod changes;
mod contents;
mod credential;
mod events;
mod files;
mod preview;
pub(crate) mod previews;
mod proof;
mod pull;
mod register;
mod replay;
mod scan;
pub(crate) mod selector;
mod status;
pub(crate) mod trees;
mod views;

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    limits::turns::Turns,
    model::filter::sets::REPOSITORIES,
    ports::{BreakerRow, CursorStatus, Selector, StoreError, Watch, WatchFilter},
    time::Timestamp,
};
use tidings_entity::{
    id::WatchId,
    kind::{BreakerKind, CursorState, WatchState},
};
use utoipa::ToSchema;

use self::{
    previews::Previews,
    scan::{HeadFaultShown, Scan},
    selector::SelectorShown,
    status::StatusShown,
};
use super::{
    apps::watch_sink::SinkShown,
    front::Front,
    histories::Histories,
    standing::{self, Facts},
};
use crate::http::{
    bodies::{
        filters,
        moment::iso,
        names::repository_name,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        elsewhere,
        lifecycle::Lifecycle,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    standing::sights::Sights,
};

/// The routes of this folder. Globs are compiled when `compiling` gives the app its turn.
pub fn routes(
    histories: &Arc<Histories>,
    previews: &Arc<Previews>,
    compiling: &Turns,
    places: &Arc<Places>,
    lifecycle: &Lifecycle,
) -> Vec<Route> {
    let reading = vec![
        route::<__path_list, _, _>(Access::App(Permission::WatchesRead), list),
        route::<__path_show, _, _>(Access::App(Permission::WatchesRead), show),
    ];
    [
        register::routes(compiling),
        preview::routes(previews, compiling),
        reading,
        contents::routes(&histories.downloads),
        files::routes(&histories.downloads),
        change::routes(compiling),
        replay::routes(),
        changes::routes(histories),
        events::routes(histories, places, lifecycle),
        pull::routes(places),
        status::routes(),
    ]
    .concat()
}

/// The routes that only the replica of a repository can answer.
pub(super) fn handed_on(places: &Arc<Places>) -> Vec<Route> {
    let seen = vec![route::<__path_show, _, _>(Access::App(Permission::WatchesRead), show)];
    [pull::routes(places), seen].concat()
}

/// A watch. The first six fields are what clients of Docora know.
#[derive(Serialize, ToSchema)]
pub(super) struct Repository {
    repository_id: String,
    github_url: String,
    owner: String,
    name: String,
    /// Whether it cannot be read without a credential.
    is_private: bool,
    created_at: String,
    /// `owner/name`, or the path of a local repository.
    repository: String,
    /// Whether it is watched with a credential.
    has_token: bool,
    /// The branches or refs that are followed.
    #[schema(value_type = SelectorShown)]
    selector: Selector,
    /// Tells it from other watches of the same refs. Missing where it has no such name.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    watch_name: String,
    /// How it shows on its commits where it stands. Missing where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusShown>,
    /// Where its changes go. Missing where they go to the endpoint of the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<SinkShown>,
    include: Vec<String>,
    exclude: Vec<String>,
    /// Whether symbolic links are delivered: `skip` or `send`.
    symlinks: &'static str,
    /// Whether bodies carry the content of files: `inline` or `none`.
    content: &'static str,
    /// Content of larger files is left out, in bytes.
    max_size: u64,
    /// `net` (the net change of several commits) or `every` (one round for each commit).
    mode: &'static str,
    /// What a vanished branch of a pattern means: `delete` or `keep`.
    on_branch_gone: &'static str,
    /// `active` or `paused`: what was chosen. `effective_state` says how it is.
    state: &'static str,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What it does, or what is in its way, the strongest reason first: `app_disabled`, `paused`, `blocked`
    /// (a branch), `credential_refused`, `source_failing` (the repository cannot be looked at),
    /// `endpoint_failing` (the breaker of the endpoint is open), `in_grace` (it is new, and its receiver
    /// refuses the first deliveries), `retrying`, `delivering`, `pending` (the next round has not begun),
    /// `branch_missing`, `empty`, `unmatched` (a pattern that matches no ref), or `active`: the app has
    /// everything.
    effective_state: &'static str,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_reason: Option<String>,
    /// How many refs that the pattern matches are not followed, because it may follow `git.pattern_refs_max`.
    /// Missing where there are none, and where `last_scan_at` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    refs_left_out: Option<u64>,
    /// What the last scan said, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Where its host says that the repository moved, and where it is asked now. What is delivered names
    /// the address that was registered; to have the new one named, watch that and unwatch this.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_to: Option<String>,
    /// The breaker of the Git source: whether the Git host is asked at all just now. It says nothing of the
    /// endpoint of the app: `GET /api/app` has that breaker, as `endpoint`.
    breaker: Breaker,
    /// What looking at the Git host came to.
    scan: Scan,
    /// The same moment as `scan.last_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    /// The same moment as `scan.next_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_poll_at: Option<String>,
    /// Open dead letters of all branches.
    dead_letters: u64,
    /// Each branch that is followed.
    branches: Vec<Branch>,
}

/// The circuit breaker of a Git source: a repository as seen with one credential, or with none.
#[derive(Serialize, ToSchema)]
pub(super) struct Breaker {
    /// `closed` (the Git host is asked) or `open` (it is left alone until the next probe).
    state: &'static str,
    /// Failed scans in a row.
    failures: u32,
    /// When the next probe is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<String>,
}

/// The progress of one branch.
#[derive(Serialize, ToSchema)]
struct Branch {
    /// Id of the branch in events, `cur_...`.
    cursor: String,
    /// The full name of the ref.
    branch: String,
    /// `active`, `blocked`, `branch_missing` or `empty`.
    state: &'static str,
    /// Why it does not move.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The commit that the app has.
    held_commit: Option<String>,
    /// The commit that the Git host named last.
    head_commit: Option<String>,
    /// Why that commit cannot be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<HeadFaultShown>,
    /// For how many milliseconds the app has been behind; 0 when it is not.
    lag_ms: u64,
    /// What is being delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<OpenRound>,
    /// When the change at its head is tried next, where that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    /// Whether the app may have files that are gone: an old tree could not be fetched, and the app was not
    /// told to drop what was not named. Registering the app with `delivery.resync` avoids it; to be told
    /// again, ask for a complete resync.
    #[serde(skip_serializing_if = "is_false")]
    deletes_unknown: bool,
    /// The number of open dead letters.
    dead_letters: u64,
}

/// A round that is being delivered.
#[derive(Serialize, ToSchema)]
struct OpenRound {
    round: i64,
    /// How many changes are settled.
    position: u64,
    /// How many there are.
    total: u64,
}

impl Breaker {
    fn of(row: Option<&BreakerRow>) -> Self {
        row.map_or(Self { state: "closed", failures: 0, probe_at: None }, |row| Self {
            state: if row.opened_at.is_some() { "open" } else { "closed" },
            failures: row.failures,
            probe_at: row.probe_at.map(iso),
        })
    }
}

impl Repository {
    pub(super) fn of(watch: &Watch, sights: &Sights) -> Self {
        let facts = &watch.facts;
        let seen = sights.of(watch);
        let standing = standing::of(&seen);
        let source = watch.source.as_str();
        let breaker = seen.breakers.iter().find(|row| row.kind == BreakerKind::Source && row.id == source);
        let polled = sights.polled(watch);
        let scan = Scan::of(watch, &polled, breaker);
        let left_out = polled.left_out.get(&watch.id).copied();
        Self {
            repository_id: watch.id.to_string(),
            github_url: facts.github_url.clone(),
            owner: facts.owner.clone(),
            name: facts.name.clone(),
            repository: repository_name(watch),
            is_private: watch.is_private,
            created_at: iso(watch.created_at),
            has_token: watch.has_credential,
            selector: watch.selector.clone(),
            watch_name: watch.alias.clone(),
            status: StatusShown::of(watch),
            sink: SinkShown::of(watch, seen.breakers),
            include: watch.view.include().to_vec(),
            exclude: watch.view.exclude().to_vec(),
            symlinks: if watch.view.symlinks() { "send" } else { "skip" },
            content: watch.view.content().as_str(),
            max_size: watch.view.max_size(),
            mode: watch.mode.as_str(),
            on_branch_gone: watch.on_branch_gone.as_str(),
            state: watch.state.as_str(),
            reason: watch.reason.clone(),
            effective_state: standing.state.as_str(),
            effective_reason: standing.reason.or_else(|| left_out.map(words_of_left_out)),
            refs_left_out: left_out,
            last_error: watch.last_error.clone(),
            moved_to: watch.moved_to.clone(),
            breaker: Breaker::of(breaker),
            last_scan_at: scan.last_at(),
            next_poll_at: scan.next_at(),
            scan,
            dead_letters: watch.cursors.iter().map(|cursor| cursor.dead_letters).sum(),
            branches: watch
                .cursors
                .iter()
                .map(|cursor| Branch::of(cursor, &seen, sights.next_try(watch, cursor)))
                .collect(),
        }
    }
}

impl Repository {
    /// Adds the signing key that its sink was given just now.
    fn with_secret(mut self, secret: Option<String>) -> Self {
        if let Some(sink) = &mut self.sink {
            sink.signing_secret = secret;
        }
        self
    }
}

fn words_of_left_out(count: u64) -> String {
    format!("the pattern matches {count} refs more than git.pattern_refs_max lets it follow")
}

impl Branch {
    /// `next_try`: when its head is asked for again, where that cannot be taken.
    fn of(cursor: &CursorStatus, seen: &Facts<'_>, next_try: Option<Timestamp>) -> Self {
        Self {
            cursor: cursor.id.to_string(),
            branch: cursor.branch.clone(),
            state: cursor.state.as_str(),
            reason: cursor.reason.clone().filter(|_| cursor.state != CursorState::Active),
            held_commit: cursor.held.map(|commit| commit.to_string()),
            head_commit: cursor.head.map(|commit| commit.to_string()),
            fault: HeadFaultShown::of(cursor, next_try),
            lag_ms: cursor
                .behind_since
                .map_or(0, |since| u64::try_from(seen.now.since(since).as_millis()).unwrap_or(u64::MAX)),
            round: cursor.open.map(|(round, position, total)| OpenRound { round, position, total }),
            next_attempt_at: seen.next_attempt(cursor).map(iso),
            deletes_unknown: cursor.deletes_unknown,
            dead_letters: cursor.dead_letters,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn store_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NOT_REGISTERED)
}

/// The watch as its app sees it now.
async fn shown(front: &Front, watch: &Watch) -> Result<Repository, Problem> {
    let sights = Sights::of_all(front, std::slice::from_ref(watch)).await?;
    Ok(Repository::of(watch, &sights))
}

/// The watch that the path names, if the caller owns it.
async fn named(front: &Front, request: &Request) -> Result<Watch, Problem> {
    let id: WatchId = request.id(Kind::NOT_REGISTERED)?;
    front.store.watch(&request.app()?.id, &id).await.map_err(store_failed)
}

/// Tells the tree that rows of this watch changed.
async fn announce(front: &Front, watch: &Watch) {
    front.handle.repository_changed(&watch.repository).await;
    front.handle.refresh(&watch.app).await;
}

/// Lists the repositories of the app, oldest first.
#[utoipa::path(get, path = "/api/repositories", tag = "repositories",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
    ),
    responses(
        (status = 200, body = Page<Repository>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?;
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let limit = query.limit()?;
    let name = format!("repositories of {}", app.id);
    let after = query.after(&name)?;
    let watches = match filters::of_query(&query, &REPOSITORIES, front.clock.now())? {
        None => front.store.watches(&app.id, after.as_ref(), limit + 1).await,
        q => {
            let own = WatchFilter { app: Some(app.id.clone()), q, ..WatchFilter::default() };
            front.administration.all_watches(&own, after.as_ref(), limit + 1).await
        }
    };
    let watches = watches.map_err(store_failed)?;
    let sights = Sights::of_app(&front, app, &watches).await?;
    let page =
        page(watches, limit, &name, |watch| watch.id.to_string(), |watch| Repository::of(watch, &sights));
    Ok(json(StatusCode::OK, &page))
}

/// Shows one repository of the app.
#[utoipa::path(get, path = "/api/repositories/{id}", tag = "repositories",
    params(("id" = String, Path)), responses(
    (status = 200, body = Repository)
))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let watch = named(&front, &request).await?;
    // The results of scans are known to the replica that works on the repository.
    if let Some(answer) = elsewhere::shown(&front, &request, &watch.repository).await {
        return Ok(answer);
    }
    Ok(json(StatusCode::OK, &shown(&front, &watch).await?))
}

/// The words for whether a watch is served.
const STATES: &str = "active, paused";

/// Why a watch is paused that this request pauses.
fn reason_of(state: WatchState, request: &Request) -> Option<String> {
    (state == WatchState::Paused).then(|| format!("paused {}", request.by_whom()))
}
