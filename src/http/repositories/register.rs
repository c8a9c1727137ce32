//! `POST /api/repositories`: an app begins to watch a repository. Access is proved before anything
//! is written; the same app, repository, refs and name again replaces settings and resyncs.

pub(super) mod credential;
pub(super) mod proof;
pub(crate) mod selector;

use std::{slice::from_ref, sync::Arc};

use http::StatusCode;
use serde::Deserialize;
use tidings_actors::{
    limits::turns::Turns,
    model::secret::Secret,
    model::view::View,
    ports::{App, GitError, Location, NewSink, NewWatch, RepositoryFacts, Selector, Start, StoreError},
};
use tidings_entity::{
    id::{AppId, ObjectId, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};
use utoipa::ToSchema;

use self::credential::GithubApp;
use super::super::{
    apps::watch_sink::{SinkRequest, new_secret, read_alias, read_sink, refuse_beside_older},
    front::Front,
};
use super::{
    Repository, announce, shown,
    status::{self, StatusRequest},
    store_failed,
    views::ViewFields,
};
use crate::git::{address::Address, branches};
use crate::http::{
    bodies::{
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
};

/// Most characters of an address.
const URL_CHARACTERS_MAX: usize = 2048;
/// Most characters of a branch.
const BRANCH_CHARACTERS_MAX: usize = 244;
/// The fields that Docora does not have.
const OURS: &[&str] = &[
    "url",
    "token",
    "token_type",
    "github_app",
    "branch",
    "tags",
    "include",
    "exclude",
    "symlinks",
    "content",
    "max_size",
    "mode",
    "start",
    "on_branch_gone",
    "watch_name",
    "sink",
    "status",
    "if_watched",
];

/// The routes of this file.
pub(super) fn routes(compiling: &Turns) -> Vec<Route> {
    vec![route_with::<__path_register, _, _, _>(Access::App(Permission::WatchesCreate), compiling, register)]
}

/// A repository for an app to watch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
struct Registration {
    /// Address of the repository. `url` is another name for the field.
    #[schema(min_length = 1, max_length = 2048)]
    github_url: Option<String>,
    /// Address of the repository, as `github_url`.
    #[schema(min_length = 1, max_length = 2048)]
    url: Option<String>,
    /// Token for reading the repository. `token` is another name for the field.
    github_token: Option<String>,
    /// Token for reading the repository, as `github_token`.
    token: Option<String>,
    /// How the token is sent to the Git host: `auto`, `github`, `gitlab`, `gitea`, `bitbucket`, `basic` or
    /// `bearer`. Default `auto`.
    token_type: Option<String>,
    /// A GitHub App in place of a token. The server requests and renews its tokens.
    github_app: Option<GithubApp>,
    /// One branch, or a pattern (`release/*`). Missing: the default branch. A name that begins with `refs/`
    /// is the full name of any ref (`refs/notes/x`, `refs/pull/*/head`).
    #[schema(min_length = 1, max_length = 244)]
    branch: Option<String>,
    /// A pattern of tags, in place of `branch`.
    #[schema(min_length = 1, max_length = 244)]
    tags: Option<String>,
    /// Globs; a path must match at least one. Missing: all paths. `*` and `?` match within one name, `**`
    /// matches across directories, `docs/` matches everything below. Paths have no leading slash.
    include: Option<Vec<String>>,
    /// Globs; a path must match none of them.
    exclude: Option<Vec<String>>,
    /// Whether symbolic links are delivered: `skip` or `send`. Default `skip`.
    symlinks: Option<String>,
    /// Whether bodies carry the content of files: `inline` or `none`. Default `inline`.
    content: Option<String>,
    /// Largest content that is sent, in bytes. The content of larger files is left out. Default 64 MiB.
    max_size: Option<u64>,
    /// `net` (the net change of several commits) or `every` (each commit). Default `net`.
    mode: Option<String>,
    /// Effect of a vanished branch of a pattern on the files of the app: `delete` (they are deleted) or
    /// `keep` (they stay until the branch comes back). Default `delete`.
    on_branch_gone: Option<String>,
    /// Name that distinguishes watches of the same refs: lower-case letters, digits and `-`, at most 40
    /// characters. Missing: no name. A registration with the same repository, refs and name replaces the
    /// settings; another name makes another watch.
    #[schema(max_length = 40)]
    watch_name: Option<String>,
    /// The watch's own sink. Missing: changes go to the endpoint of the app.
    sink: Option<SinkRequest>,
    /// How the watch shows its state on commits at the Git host: `off`, `github`, `gitlab`, `gitea` (also
    /// Forgejo), or `auto` (the credential or the name of the host decides). Default `off`.
    status: Option<String>,
    /// What to do if the app watches the repository already, with the same refs and `watch_name`: `replace`
    /// all settings of that watch and send every file again, which needs the permission `watches:update` as
    /// well, or `refuse` with 409. Default `replace`.
    if_watched: Option<String>,
    /// Where deliveries begin: `all` (every file), `now` (changes after the present head) or a commit
    /// (changes after that commit). Default `all`.
    start: Option<String>,
}

/// Where the deliveries of a new watch begin.
enum Begin {
    All,
    Now,
    After(ObjectId),
}

/// What to do with a watch of the same repository, refs and name.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum IfWatched {
    Replace,
    Refuse,
}

/// A registration that was read.
struct WatchRequest {
    field: &'static str,
    address: Option<Address>,
    credential: Option<Secret>,
    selector: Selector,
    alias: String,
    sink: Option<NewSink>,
    status: StatusRequest,
    view: View,
    mode: HistoryMode,
    on_branch_gone: BranchGone,
    begin: Begin,
    if_watched: IfWatched,
}

/// Creates a watch of a repository for the app.
#[utoipa::path(post, path = "/api/repositories", tag = "repositories", request_body = Registration, responses(
    (status = 201, body = Repository),
    (status = 409, description = "The app watches the repository already, with the same refs and \
        `watch_name`; `if_watched` is `refuse`.")
))]
async fn register(front: Arc<Front>, compiling: Turns, request: Request) -> Answer {
    let app = request.app()?;
    let may_update = request.powers.may(Permission::WatchesUpdate);
    let mut fields = Fields::of(&request.body)?;
    fields.ignore_unknown_unless(OURS);
    let wanted = read(&front, &compiling, app, &mut fields).await?;
    fields.finish()?;
    let address = wanted.address.ok_or_else(|| Problem::invalid_field(wanted.field, "is required"))?;
    if wanted.sink.is_some() || !wanted.alias.is_empty() {
        refuse_beside_older(&front, "no sinks and names of watches").await?;
    }
    let status = status::settled(wanted.status, &address.location, wanted.credential.as_ref())?;
    if status.is_some() {
        refuse_beside_older(&front, "no statuses of commits").await?;
    }

    let patterns = selector::patterns(&wanted.selector);
    let has_credential = wanted.credential.is_some();
    let proof = proof::access(&front, &app.id, address.clone(), wanted.credential.clone(), &patterns)
        .await
        .map_err(|error| unproved(&error, &address, wanted.field, has_credential))?;
    let (address, location) = (proof.address.clone(), proof.address.location);
    if !selector::exists(&wanted.selector, &proof.listing) {
        return Err(absent(&front, &app.id, &wanted.selector, location, wanted.credential).await);
    }
    let start = match wanted.begin {
        Begin::All => Start::All,
        // A repository without a commit has no files: its first commit comes after "now".
        Begin::Now => selector::head(&wanted.selector, &proof.listing).map_or(Start::All, Start::At),
        Begin::After(commit) => {
            let known = proof::commit(&front, location, wanted.credential.clone(), from_ref(&app.id), commit);
            known.await.map_err(|error| no_start(&error, has_credential))?;
            Start::At(commit)
        }
    };
    let now = front.clock.now();
    let first_delay = front.settings.delivery.first_delay;
    let id = WatchId::new(front.random.ulid(now));
    let watch = NewWatch {
        facts: RepositoryFacts {
            repository_id: id.clone(),
            github_url: address.display,
            owner: address.owner,
            name: address.name,
        },
        id,
        app: app.id.clone(),
        url: address.normalised,
        is_private: proof.is_private,
        credential: wanted.credential,
        selector: wanted.selector,
        alias: wanted.alias,
        may_replace: may_update && wanted.if_watched == IfWatched::Replace,
        sink: wanted.sink,
        status,
        view: wanted.view,
        mode: wanted.mode,
        on_branch_gone: wanted.on_branch_gone,
        start,
        listing: proof.listing,
        deliver_after: now.after(first_delay),
        created_at: now,
    };
    registered(&front, app, &watch).await.map_err(|refused| match wanted.if_watched {
        IfWatched::Replace if refused.code() == Kind::ALREADY_WATCHED.code => unpermitted(&refused),
        _ => refused,
    })
}

/// The refusal of a replacement by a caller that may only make watches.
fn unpermitted(refused: &Problem) -> Problem {
    let detail = refused.detail().unwrap_or_default();
    Problem::new(Kind::PERMISSION_REQUIRED)
        .with_detail(format!("{detail}; replacing its settings needs the permission watches:update"))
}

/// The refusal of a commit to start after.
fn no_start(error: &GitError, has_credential: bool) -> Problem {
    match error {
        GitError::Unobtainable(_)
        | GitError::Missing(_)
        | GitError::NotACommit(_)
        | GitError::Protocol(_) => Problem::invalid_field("start", "the repository has no such commit"),
        error => proof::failure(error, "start", has_credential, StatusCode::NOT_FOUND),
    }
}

/// The refusal of an unknown ref or branch; for a branch it names the existing ones.
pub(super) async fn absent(
    front: &Front,
    app: &AppId,
    selector: &Selector,
    location: Location,
    credential: Option<Secret>,
) -> Problem {
    if selector.kind == SelectorKind::Ref {
        let text = format!("the repository has no ref `{}`", selector.value);
        return Problem::invalid_field("branch", text);
    }
    let listing = proof::branches(front, app, location, credential).await;
    let there = listing.map_or_else(String::new, |all| format!("; {}", branches::named(&all)));
    Problem::invalid_field("branch", format!("the repository has no such branch{there}"))
}

/// Writes the watch, tells the tree, and answers with the watch.
async fn registered(front: &Front, app: &App, new: &NewWatch) -> Answer {
    let watch = front.store.register_watch(new).await.map_err(|error| match error {
        StoreError::Exists(id) => Problem::new(Kind::ALREADY_WATCHED)
            .with_detail(format!("the app watches this repository already, as {id}")),
        error => store_failed(error),
    })?;
    let shown = shown(front, &watch).await;
    announce(front, &watch).await;
    let secret = new_secret(front, app, &watch, new.sink.as_ref()).await?;
    Ok(json(StatusCode::CREATED, &shown?.with_secret(secret)))
}

async fn read(
    front: &Front,
    compiling: &Turns,
    app: &App,
    fields: &mut Fields,
) -> Result<WatchRequest, Problem> {
    let RepositoryPlace { field, address, credential, selector } = read_place(front, app, fields);
    let view = ViewFields::read(fields).over(compiling, &app.id, &View::default(), fields).await?;
    let mode = fields.word("mode", "net, every").unwrap_or(HistoryMode::Net);
    let gone = read_on_branch_gone(fields, &selector);
    let begin = read_start(fields, &selector);
    let if_watched = fields.word("if_watched", "replace, refuse").unwrap_or(IfWatched::Replace);
    let (alias, sink) = (read_alias(fields), read_sink(front, fields, None).flatten());
    let status = status::read(fields).unwrap_or(StatusRequest::Off);
    let on_branch_gone = gone.unwrap_or(on_branch_gone_of(&selector));
    Ok(WatchRequest {
        field,
        address,
        credential,
        selector,
        alias,
        sink,
        status,
        view,
        mode,
        on_branch_gone,
        begin,
        if_watched,
    })
}

/// The repository part of a request: its address, its credential, and the refs to follow.
pub(super) struct RepositoryPlace {
    /// The name of the field that holds the address.
    pub(super) field: &'static str,
    pub(super) address: Option<Address>,
    pub(super) credential: Option<Secret>,
    pub(super) selector: Selector,
}

/// Reads the repository part; faults are recorded.
pub(super) fn read_place(front: &Front, app: &App, fields: &mut Fields) -> RepositoryPlace {
    let field = fields.either("github_url", "url");
    if !fields.has(field) {
        fields.refuse(field, "is required unless `url` is given");
    }
    let url = fields.text(field, 1..=URL_CHARACTERS_MAX).unwrap_or_default();
    let address = if url.is_empty() { None } else { read_address(front, fields, field, &url) };
    let location = address.as_ref().map(|address| &address.location);
    let credential = credential::read(front, fields, location);
    let branch = fields.text("branch", 1..=BRANCH_CHARACTERS_MAX);
    let tags = fields.text("tags", 1..=BRANCH_CHARACTERS_MAX);
    let linked = address.as_ref().and_then(|address| address.branch.clone());
    let branch = one_branch(fields, branch, tags.as_deref(), linked);
    let multi_branch = app.delivery.multi_branch;
    let selector = selector::selector(branch.as_deref(), tags.as_deref(), multi_branch).unwrap_or_else(
        |(field, fault)| {
            fields.refuse(field, fault);
            Selector::default_branch()
        },
    );
    RepositoryPlace { field, address, credential, selector }
}

/// The problem for a failed proof, with advice if the address was given in another form than https.
pub(super) fn unproved(error: &GitError, address: &Address, field: &str, has_credential: bool) -> Problem {
    let problem = proof::failure(error, field, has_credential, StatusCode::NOT_FOUND);
    match (address.way_around(error), &address.location) {
        (Some(words), _) => problem.with_detail_first(&words),
        (None, Location::Local(path)) if matches!(error, GitError::NotFound) => {
            problem.with_detail(format!("there is no Git repository at {} on the server", path.display()))
        }
        (None, _) => problem,
    }
}

fn read_address(front: &Front, fields: &mut Fields, field: &str, url: &str) -> Option<Address> {
    let settings = &front.settings;
    match Address::parse(url, settings.git.allow_local, settings.egress.allow_http) {
        // Clients of Docora know `github_url` and the answer that nothing is there.
        Ok(address) if field != "github_url" && is_relative(url, &address) => {
            fields.refuse(
                field,
                "must be an absolute path, such as /srv/git/site, or an https:// address: the server does \
                 not know in which folder a relative path begins",
            );
            None
        }
        Ok(address) => Some(address),
        Err(fault) => {
            fields.refuse(field, fault.to_string());
            None
        }
    }
}

/// Whether a text is a path that begins in the folder of the process, which is the server's here.
fn is_relative(text: &str, address: &Address) -> bool {
    matches!(address.location, Location::Local(_)) && !text.contains("://") && !text.trim().starts_with('/')
}

/// The named branch, or the branch of a web link; two different ones are a fault.
fn one_branch(
    fields: &mut Fields,
    branch: Option<String>,
    tags: Option<&str>,
    linked: Option<String>,
) -> Option<String> {
    let Some(linked) = linked else { return branch };
    if tags.is_some() || branch.as_ref().is_some_and(|branch| *branch != linked) {
        let field = if tags.is_some() { "tags" } else { "branch" };
        fields.refuse(field, "the address is the page of another branch");
    }
    Some(linked).filter(|_| tags.is_none())
}

fn read_start(fields: &mut Fields, selector: &Selector) -> Begin {
    let begin = match fields.text("start", 1..=64).as_deref() {
        None | Some("all") => return Begin::All,
        Some("now") => Begin::Now,
        Some(commit) => match commit.parse() {
            Ok(commit) => Begin::After(commit),
            Err(_) => {
                fields.refuse("start", "must be all, now, or the 40 hexadecimal digits of a commit");
                return Begin::All;
            }
        },
    };
    if selector.is_pattern() {
        fields.refuse("start", "must be all, because the watch follows a pattern");
    }
    begin
}

/// The setting for a vanished branch if the request does not say.
fn on_branch_gone_of(selector: &Selector) -> BranchGone {
    if selector.is_pattern() { BranchGone::Delete } else { BranchGone::Keep }
}

/// Reads the setting for a vanished branch; only a pattern may have it.
pub(super) fn read_on_branch_gone(fields: &mut Fields, selector: &Selector) -> Option<BranchGone> {
    let gone = fields.word("on_branch_gone", "delete, keep");
    if gone.is_some() && !selector.is_pattern() {
        fields.refuse("on_branch_gone", "is for patterns; the files of a single branch always stay");
    }
    gone
}
