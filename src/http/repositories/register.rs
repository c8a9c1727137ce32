//! `POST /api/repositories`: an app begins to watch a repository. Access is proved before anything
//! is written; the same app, repository and refs again replaces settings and resyncs.

use std::{slice::from_ref, sync::Arc};

use http::StatusCode;
use tidings_actors::{
    ports::{App, GitError, Location, NewSink, NewWatch, RepositoryFacts, Selector, Start},
    secret::Secret,
    turns::Turns,
    view::View,
};
use tidings_entity::{
    id::{ObjectId, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};
use utoipa::ToSchema;

use super::super::{
    apps::watch_sink::{SinkWish, new_secret, read_alias, read_sink, refuse_beside_older},
    front::Front,
};
use super::{
    Repository, announce,
    credential::{self, GithubApp},
    proof, selector, shown, store_failed,
    views::ViewFields,
};
use crate::git::{address::Address, branches};
use crate::http::{
    bodies::{fields::Fields, problem::Problem},
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route_with},
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
];

/// The routes of this file.
pub(super) fn routes(compiling: &Turns) -> Vec<Route> {
    vec![route_with::<__path_register, _, _, _>(Access::App, compiling, register)]
}

/// A repository that an app wants to watch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body; the reading is done field by field")]
struct Registration {
    /// Its address; `url` is another name.
    #[schema(min_length = 1, max_length = 2048)]
    github_url: Option<String>,
    /// Its address.
    #[schema(min_length = 1, max_length = 2048)]
    url: Option<String>,
    /// What gives access to it; `token` is another name.
    github_token: Option<String>,
    /// What gives access to it.
    token: Option<String>,
    /// How the token is shown to the host: `auto` (missing), `github`, `gitlab`, `gitea`,
    /// `bitbucket`, `basic` or `bearer`.
    token_type: Option<String>,
    /// A GitHub App instead of a token; its tokens are minted and renewed.
    github_app: Option<GithubApp>,
    /// One branch, or a pattern (`release/*`); missing: the default branch. A name that begins with `refs/`
    /// is a full one and may name any ref (`refs/notes/x`, `refs/pull/*/head`).
    #[schema(min_length = 1, max_length = 244)]
    branch: Option<String>,
    /// A pattern of tags, instead of `branch`.
    #[schema(min_length = 1, max_length = 244)]
    tags: Option<String>,
    /// Globs of which one must match a path; missing: all paths. `*` and `?` stay within a name,
    /// `**` crosses directories; `docs/` means all below it. A path begins without a slash.
    include: Option<Vec<String>>,
    /// Globs of which none may match a path.
    exclude: Option<Vec<String>>,
    /// `skip` (missing) or `send`.
    symlinks: Option<String>,
    /// `inline` (missing) or `none`.
    content: Option<String>,
    /// Content of larger files is left out, in bytes; missing: 64 MiB.
    max_size: Option<u64>,
    /// `net` (missing): the net change once; `every`: each commit.
    mode: Option<String>,
    /// What a vanished branch of a pattern means for the files of the app: `delete` (missing): they
    /// go; `keep`: they stay until it comes back.
    on_branch_gone: Option<String>,
    /// Tells this watch from others of the same refs: small letters, digits and `-`, at most 40. Missing: none. The
    /// same repository, refs and name again replaces settings; another name is another watch.
    #[schema(max_length = 40)]
    watch_name: Option<String>,
    /// Where its changes go; missing: to the endpoint of the app.
    sink: Option<SinkWish>,
    /// `all` (missing): every file; `now`: what comes after the head of now; a commit: what comes
    /// after it.
    start: Option<String>,
}

/// Where an app wants to start.
enum Begin {
    All,
    Now,
    After(ObjectId),
}

/// A registration that was read.
struct Wish {
    field: &'static str,
    address: Option<Address>,
    credential: Option<Secret>,
    selector: Selector,
    alias: String,
    sink: Option<NewSink>,
    view: View,
    mode: HistoryMode,
    on_branch_gone: BranchGone,
    begin: Begin,
}

/// Begins to watch a repository.
#[utoipa::path(post, path = "/api/repositories", tag = "repositories", request_body = Registration, responses(
    (status = 201, body = Repository)
))]
async fn register(front: Arc<Front>, compiling: Turns, request: Request) -> Answer {
    let app = request.app()?;
    let mut fields = Fields::of(&request.body)?;
    fields.ignore_unknown_unless(OURS);
    let wish = read(&front, &compiling, app, &mut fields).await?;
    fields.finish()?;
    let address = wish.address.ok_or_else(|| Problem::invalid_field(wish.field, "is required"))?;
    if wish.sink.is_some() || !wish.alias.is_empty() {
        refuse_beside_older(&front, "no sinks and names of watches").await?;
    }

    let patterns = selector::patterns(&wish.selector);
    let has_credential = wish.credential.is_some();
    let proof = proof::access(&front, address.clone(), wish.credential.clone(), &patterns)
        .await
        .map_err(|error| unproved(&error, &address, wish.field, has_credential))?;
    let (address, location) = (proof.address.clone(), proof.address.location);
    if !selector::exists(&wish.selector, &proof.listing) {
        return Err(absent(&front, &wish.selector, location, wish.credential).await);
    }
    let start = match wish.begin {
        Begin::All => Start::All,
        // What has no commit yet has no file either: its first commit is what comes after now.
        Begin::Now => selector::head(&wish.selector, &proof.listing).map_or(Start::All, Start::At),
        Begin::After(commit) => {
            let asked =
                proof::commit(&front, location, wish.credential.clone(), from_ref(&app.id), commit).await;
            asked.map_err(|error| match error {
                GitError::Unobtainable(_)
                | GitError::Missing(_)
                | GitError::NotACommit(_)
                | GitError::Protocol(_) => {
                    Problem::invalid_field("start", "the repository has no such commit")
                }
                error => proof::failure(&error, "start", has_credential, StatusCode::NOT_FOUND),
            })?;
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
        credential: wish.credential,
        selector: wish.selector,
        alias: wish.alias,
        sink: wish.sink,
        view: wish.view,
        mode: wish.mode,
        on_branch_gone: wish.on_branch_gone,
        start,
        listing: proof.listing,
        deliver_after: now.after(first_delay),
        created_at: now,
    };
    registered(&front, app, &watch).await
}

/// The refusal of a ref or branch that is not there; of a branch it names those that are.
async fn absent(
    front: &Front,
    selector: &Selector,
    location: Location,
    credential: Option<Secret>,
) -> Problem {
    if selector.kind == SelectorKind::Ref {
        let text = format!("the repository has no ref `{}`", selector.value);
        return Problem::invalid_field("branch", text);
    }
    let listing = proof::branches(front, location, credential).await;
    let there = listing.map_or_else(String::new, |all| format!("; {}", branches::named(&all)));
    Problem::invalid_field("branch", format!("the repository has no such branch{there}"))
}

/// Writes the watch, tells the tree of it, and answers with it.
async fn registered(front: &Front, app: &App, new: &NewWatch) -> Answer {
    let watch = front.store.register_watch(new).await.map_err(store_failed)?;
    let shown = shown(front, &watch).await;
    announce(front, &watch).await;
    let secret = new_secret(front, app, &watch, new.sink.as_ref()).await?;
    Ok(json(StatusCode::CREATED, &shown?.with_secret(secret)))
}

async fn read(front: &Front, compiling: &Turns, app: &App, fields: &mut Fields) -> Result<Wish, Problem> {
    let field = fields.either("github_url", "url");
    let url = fields.required_text(field, 1..=URL_CHARACTERS_MAX);
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
    let view = ViewFields::read(fields).over(compiling, &app.id, &View::default(), fields).await?;
    let mode = fields.word("mode", "net, every").unwrap_or(HistoryMode::Net);
    let gone = read_on_branch_gone(fields, &selector);
    let begin = read_start(fields, &selector);
    let (alias, sink) = (read_alias(fields), read_sink(front, fields, None).flatten());
    let on_branch_gone = gone.unwrap_or(on_branch_gone_of(&selector));
    Ok(Wish { field, address, credential, selector, alias, sink, view, mode, on_branch_gone, begin })
}

/// What a failed proof means, and what helps where the address is of another way than https.
fn unproved(error: &GitError, address: &Address, field: &str, has_credential: bool) -> Problem {
    let problem = proof::failure(error, field, has_credential, StatusCode::NOT_FOUND);
    match address.way_around(error) {
        Some(words) => problem.with_detail(words),
        None => problem,
    }
}

fn read_address(front: &Front, fields: &mut Fields, field: &str, url: &str) -> Option<Address> {
    let settings = &front.settings;
    match Address::parse(url, settings.git.allow_local, settings.egress.allow_http) {
        Ok(address) => Some(address),
        Err(fault) => {
            fields.refuse(field, fault.to_string());
            None
        }
    }
}

/// The branch that is named, or that a web link brings along; two different ones are a fault.
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
        fields.refuse("start", "a pattern always starts with all");
    }
    begin
}

/// What a vanished branch means where nobody says so.
fn on_branch_gone_of(selector: &Selector) -> BranchGone {
    if selector.is_pattern() { BranchGone::Delete } else { BranchGone::Keep }
}

/// What a vanished branch means; only a pattern may say so.
pub(super) fn read_on_branch_gone(fields: &mut Fields, selector: &Selector) -> Option<BranchGone> {
    let gone = fields.word("on_branch_gone", "delete, keep");
    if gone.is_some() && !selector.is_pattern() {
        fields.refuse("on_branch_gone", "is for patterns; the files of a single branch always stay");
    }
    gone
}
