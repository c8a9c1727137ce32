//! Watches, which are called repositories on the wire: the repositories that an app watches, and their state.

mod branch_tasks;
mod change;
mod changes;
pub mod contents;
mod events;
mod files;
pub(crate) mod preview;
mod pull;
pub(crate) mod register;
mod replay;
mod scan;
pub(super) mod standing;
mod status;
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
    branch_tasks::BranchTasksShown,
    preview::previews::Previews,
    register::selector::SelectorShown,
    scan::{HeadFaultShown, Scan},
    standing::{EffectiveState, Facts},
    status::StatusShown,
};
use super::{apps::watch_sink::SinkShown, deliveries::histories::Histories, front::Front};
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
    repositories::standing::sights::Sights,
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

/// A watch. Docora's clients know the first six fields.
#[derive(Serialize, ToSchema)]
pub(super) struct Repository {
    repository_id: String,
    github_url: String,
    owner: String,
    name: String,
    /// Whether the repository cannot be read without a credential.
    is_private: bool,
    created_at: String,
    /// `owner/name`, or the path of a local repository.
    repository: String,
    /// Whether the watch has a credential.
    has_token: bool,
    /// The branches or refs that the watch follows.
    #[schema(value_type = SelectorShown)]
    selector: Selector,
    /// Name that distinguishes watches of the same refs. Missing: the watch has no such name.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    watch_name: String,
    /// How the watch shows its state on commits at the Git host. Missing: the watch shows no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusShown>,
    /// The watch's own sink. Missing: changes go to the endpoint of the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<SinkShown>,
    include: Vec<String>,
    exclude: Vec<String>,
    /// Whether symbolic links are delivered: `skip` or `send`.
    symlinks: &'static str,
    /// Whether bodies carry the content of files: `inline` or `none`.
    content: &'static str,
    /// Largest content that is sent, in bytes. The content of larger files is left out.
    max_size: u64,
    /// `net` (the net change of several commits) or `every` (one round per commit).
    mode: &'static str,
    /// Effect of a vanished branch of a pattern on the files of the app: `delete` or `keep`.
    on_branch_gone: &'static str,
    /// `active` or `paused`, as the owner chose. `effective_state` has the actual state.
    state: &'static str,
    /// Why the watch is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The actual state; of several that apply, the first in this order: `app_disabled`, `sink_disabled` (the
    /// own sink answered 410), `paused`, `blocked` (a branch), `credential_refused`, `source_failing` (the
    /// repository cannot be scanned), `endpoint_failing` (the breaker of the endpoint is open), `in_grace`
    /// (the watch is new, and its receiver refuses the first deliveries), `retrying`, `delivering`, `pending`
    /// (the next round has not begun), `branch_missing`, `empty`, `unmatched` (the pattern matches no ref),
    /// or `active` (the app has every change).
    effective_state: &'static str,
    /// Reason for `effective_state`, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_reason: Option<String>,
    /// Number of refs that match the pattern and are not followed, because a pattern follows at most
    /// `git.pattern_refs_max` refs. Missing: none, or `last_scan_at` is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    refs_left_out: Option<u64>,
    /// Error of the last scan. Missing: the last scan succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// New address of the repository, as the Git host reports it. Scans use the new address; bodies name the
    /// registered one. To change the address in bodies, watch the new address and unwatch this repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_to: Option<String>,
    /// The breaker of the Git source: whether the Git host is asked now. The breaker of the app's endpoint is
    /// the field `endpoint` of `GET /api/app`.
    breaker: Breaker,
    /// The last scan of the Git host, and the next one.
    scan: Scan,
    /// The same as `scan.last_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    /// The same as `scan.next_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_poll_at: Option<String>,
    /// Number of open dead letters of all branches.
    dead_letters: u64,
    /// The branches that the watch follows.
    branches: Vec<Branch>,
}

/// The circuit breaker of a Git source: a repository read with one credential, or without one.
#[derive(Serialize, ToSchema)]
pub(super) struct Breaker {
    /// `closed` (the Git host is asked) or `open` (the Git host is not asked until the next probe).
    state: &'static str,
    /// Number of failed scans in a row.
    failures: u32,
    /// When the next probe is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<String>,
}

/// Progress of one branch.
#[derive(Serialize, ToSchema)]
struct Branch {
    /// Id of the branch in events, `cur_...`.
    cursor: String,
    /// Full name of the ref.
    branch: String,
    /// Stored state of the branch: `active`, `blocked`, `branch_missing` or `empty`. `effective_state` says
    /// whether the app has every change.
    state: &'static str,
    /// The actual state of the branch, in the words of `effective_state` of the repository. `active`: the app
    /// has every change of the branch.
    effective_state: &'static str,
    /// Why the branch does not progress. Missing: the branch is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The commit that the app holds.
    held_commit: Option<String>,
    /// The newest commit that the Git host named.
    head_commit: Option<String>,
    /// Why `head_commit` cannot be fetched. Missing: there is no such fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<HeadFaultShown>,
    /// How long the app has been behind, in milliseconds. 0: the app has every change.
    lag_ms: u64,
    /// The round that is being delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<OpenRound>,
    /// The tasks of the branch. Only for the sink `tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<BranchTasksShown>,
    /// When the next attempt of the change at the head of the branch is due. Only after a failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    /// Whether the app may hold files that were deleted in the repository: an old tree could not be fetched,
    /// and the app was not told to drop the files that a resync did not name. An app with `delivery.resync`
    /// is told. A complete resync tells the app again.
    #[serde(skip_serializing_if = "is_false")]
    deletes_unknown: bool,
    /// Number of open dead letters of the branch.
    dead_letters: u64,
}

/// A round that is being delivered.
#[derive(Serialize, ToSchema)]
struct OpenRound {
    round: i64,
    /// Number of settled changes of the round.
    position: u64,
    /// Number of changes in the round.
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
                .map(|cursor| Branch {
                    tasks: sights.tasks_of(&cursor.id).map(BranchTasksShown::of),
                    ..Branch::of(cursor, &seen, standing.state, sights.next_try(watch, cursor))
                })
                .collect(),
        }
    }
}

impl Repository {
    /// Adds the signing key that this request made for the sink.
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
    /// `of_watch`: the state of its watch. `next_try`: when the head commit is fetched again, if it cannot be
    /// fetched now.
    fn of(
        cursor: &CursorStatus,
        seen: &Facts<'_>,
        of_watch: EffectiveState,
        next_try: Option<Timestamp>,
    ) -> Self {
        Self {
            cursor: cursor.id.to_string(),
            branch: cursor.branch.clone(),
            state: cursor.state.as_str(),
            effective_state: standing::of_branch(seen, of_watch, cursor).as_str(),
            reason: cursor.reason.clone().filter(|_| cursor.state != CursorState::Active),
            held_commit: cursor.held.map(|commit| commit.to_string()),
            head_commit: cursor.head.map(|commit| commit.to_string()),
            fault: HeadFaultShown::of(cursor, next_try),
            lag_ms: cursor
                .behind_since
                .map_or(0, |since| u64::try_from(seen.now.since(since).as_millis()).unwrap_or(u64::MAX)),
            round: cursor.open.map(|(round, position, total)| OpenRound { round, position, total }),
            tasks: None,
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

/// The values of `state` of a watch.
const STATES: &str = "active, paused";

/// The reason to store if this request pauses a watch.
fn reason_of(state: WatchState, request: &Request) -> Option<String> {
    (state == WatchState::Paused).then(|| format!("paused {}", request.by_whom()))
}
