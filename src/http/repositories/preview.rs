//! `POST /api/repositories/preview`: lists the files of a repository that a watch would deliver, before the
//! watch exists. Nothing is registered, and nothing is sent.
//!
//! Access is proved each time, as in a registration. The trees of a commit are fetched once, without
//! contents, into a mirror that no app shares and that is removed at once.

pub(crate) mod previews;

use std::{slice::from_ref, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    limits::turns::Turns,
    model::{
        round::{RoundSpec, TreeEnd},
        secret::Secret,
        view::{MAX_SIZE_DEFAULT, View},
    },
    ports::{Extent, FetchOrder, GitError, Location, Remote, Seek},
};
use tidings_entity::{
    id::{AppId, ObjectId, RepositoryId},
    kind::{ContentRule, RoundKind},
};
use tokio::time::timeout;
use tracing::warn;
use utoipa::ToSchema;

use self::previews::{FILES_MAX, Listing, Previews};
use super::super::front::Front;
use super::{
    register::{self, credential::GithubApp, proof, selector},
    views::ViewFields,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    repositories::contents::trees::unavailable,
};

/// How often the preview creates its mirror again, if upkeep removes the mirror meanwhile.
const TRIES_MAX: u32 = 3;
/// How long fetching and reading the trees may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Paths that are listed; the counts are of all.
const PATHS_MAX: usize = 200;

/// The state that the route keeps between requests.
#[derive(Clone)]
struct PreviewState {
    previews: Arc<Previews>,
    compiling: Turns,
}

/// The routes of this file.
pub(super) fn routes(previews: &Arc<Previews>, compiling: &Turns) -> Vec<Route> {
    let state = PreviewState { previews: Arc::clone(previews), compiling: compiling.clone() };
    vec![route_with::<__path_preview, _, _, _>(Access::App(Permission::WatchesPreview), &state, preview)]
}

body! {
    /// A repository, and the settings of a watch to preview.
    struct PreviewRequest {
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
        /// How the token is sent to the Git host, as in a registration.
        token_type: Option<String>,
        /// A GitHub App in place of a token.
        github_app: Option<GithubApp>,
        /// One branch or a pattern. Missing: the default branch. For a pattern the preview shows, of the refs
        /// that match, the ref with the greatest version in its name.
        #[schema(min_length = 1, max_length = 244)]
        branch: Option<String>,
        /// A pattern of tags, in place of `branch`.
        #[schema(min_length = 1, max_length = 244)]
        tags: Option<String>,
        /// Globs; a path must match at least one. Missing: all paths.
        include: Option<Vec<String>>,
        /// Globs; a path must match none of them.
        exclude: Option<Vec<String>>,
        /// Whether symbolic links are delivered: `skip` or `send`. Default `skip`.
        symlinks: Option<String>,
        /// The setting `content` of a registration. A preview shows no content.
        content: Option<String>,
        /// The setting `max_size` of a registration.
        max_size: Option<u64>,
    }
}

/// The first delivery that a watch with these settings would make.
#[derive(Serialize, ToSchema)]
struct PreviewShown {
    /// Whether the repository cannot be read without a credential.
    is_private: bool,
    /// Short name of the branch or tag. Missing: the repository has no commit yet, or no ref matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    /// Number of refs that the pattern matches. Missing: the request has no pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    matching_refs: Option<u64>,
    /// The commit that the preview shows. Null: the repository has no commit, or no ref matches.
    commit: Option<String>,
    /// Number of files that match the globs.
    matching: u64,
    /// Number of all files, including symbolic links.
    files: u64,
    /// The first matching paths, ordered by their bytes, at most 200. Bytes that are not UTF-8 are replaced.
    paths: Vec<String>,
}

/// Shows which files of a repository a watch would deliver. No watch is created. An app has at most one
/// preview at a time.
#[utoipa::path(post, path = "/api/repositories/preview", tag = "repositories", request_body = PreviewRequest,
    responses(
        (status = 200, body = PreviewShown),
        (status = 429, description = "The app has a preview running, or two other apps have one each.")
    ))]
async fn preview(front: Arc<Front>, state: PreviewState, request: Request) -> Answer {
    let app = request.app()?;
    let mut fields = Fields::of_body::<PreviewRequest>(&request.body)?;
    let place = register::read_place(&front, app, &mut fields);
    let wanted = ViewFields::read(&mut fields);
    let view = wanted.over(&state.compiling, &app.id, &View::default(), &mut fields).await?;
    fields.finish()?;
    let address = place.address.ok_or_else(|| Problem::invalid_field(place.field, "is required"))?;
    let _turn = state.previews.begin(&app.id)?;

    let (patterns, has_credential) = (selector::patterns(&place.selector), place.credential.is_some());
    let proof = proof::access(&front, &app.id, address.clone(), place.credential.clone(), &patterns).await;
    let proof = proof.map_err(|error| register::unproved(&error, &address, place.field, has_credential))?;
    let location = proof.address.location.clone();
    if !selector::exists(&place.selector, &proof.listing) {
        return Err(register::absent(&front, &app.id, &place.selector, location, place.credential).await);
    }
    let mut shown = PreviewShown {
        is_private: proof.is_private,
        branch: None,
        matching_refs: selector::matched(&place.selector, &proof.listing).map(|names| names.len() as u64),
        commit: None,
        matching: 0,
        files: 0,
        paths: vec![],
    };
    if let Some((name, commit)) = selector::example(&place.selector, &proof.listing) {
        shown.branch = name;
        shown.commit = Some(commit.to_string());
        let trees = Trees { front: &front, previews: &state.previews, app: &app.id, location, commit };
        let read = timeout(DEADLINE, trees.read(place.credential, &view)).await;
        let read = read.map_err(|_| {
            let detail = format!("the Git host did not give the trees within {DEADLINE:?}");
            Problem::new(Kind::UNAVAILABLE).with_detail(detail)
        })?;
        (shown.matching, shown.files, shown.paths) = read.map_err(|error| unavailable(&error))?;
    }
    Ok(json(StatusCode::OK, &shown))
}

/// The trees of one commit, in a mirror of their own.
struct Trees<'f> {
    front: &'f Front,
    previews: &'f Previews,
    app: &'f AppId,
    location: Location,
    commit: ObjectId,
}

/// The number of matching files, the number of all files, and the first matching paths.
type Matches = (u64, u64, Vec<String>);

impl Trees<'_> {
    async fn read(&self, credential: Option<Secret>, view: &View) -> Result<Matches, GitError> {
        if let Some(known) = self.previews.known(self.app, &self.location, self.commit) {
            return matches(known, view.clone()).await;
        }
        let apps = from_ref(self.app).to_vec();
        let mut tries = TRIES_MAX;
        loop {
            tries -= 1;
            // A new mirror each time: upkeep may remove it early, because no watch follows it.
            let repository = RepositoryId::new(self.front.random.ulid(self.front.clock.now()));
            let (location, credential) = (self.location.clone(), credential.clone());
            let remote = Remote { repository, location, credential, apps: apps.clone() };
            let found = self.fetched(&remote, view).await;
            if let Err(error) = self.front.git.remove_mirror(&remote.repository).await {
                warn!(%error, "the mirror of a preview was not removed");
            }
            match found {
                Err(GitError::Missing(_) | GitError::Corrupt(_)) if tries > 0 => {}
                found => return found,
            }
        }
    }

    async fn fetched(&self, remote: &Remote, view: &View) -> Result<Matches, GitError> {
        let git = &self.front.git;
        let order =
            FetchOrder { wants: vec![self.commit], haves: Vec::new(), depth: 1, extent: Extent::Trees };
        git.fetch(remote, &order).await?;
        let all = self.all_of(everything());
        let files = git.window(remote, &all, &Seek::Position(0), FILES_MAX + 1).await?;
        if files.len() <= FILES_MAX {
            let files = files.into_iter().filter_map(|change| Some((change.path, change.new?.mode)));
            let (location, commit) = (self.location.clone(), self.commit);
            let listing = Arc::new(Listing { location, commit, files: files.collect() });
            self.previews.keep(self.app, &listing);
            return matches(listing, view.clone()).await;
        }
        let matching = self.all_of(view.clone());
        let paths = git.window(remote, &matching, &Seek::Position(0), PATHS_MAX).await?;
        let count = git.plan(remote, &matching, &[]).await?.summary.creates;
        let total = git.plan(remote, &all, &[]).await?.summary.creates;
        Ok((count, total, paths.iter().map(|change| shown_path(&change.path)).collect()))
    }

    fn all_of(&self, view: View) -> RoundSpec {
        RoundSpec {
            kind: RoundKind::Sync,
            held: None,
            target: Some(TreeEnd { commit: self.commit, view }),
            bases: Vec::new(),
            letters: Vec::new(),
        }
    }
}

/// A view of every file, including symbolic links.
fn everything() -> View {
    View::new(Vec::new(), Vec::new(), true, ContentRule::Inline, MAX_SIZE_DEFAULT).unwrap_or_default()
}

/// Compares each path with the globs, on a blocking thread: the largest listing takes some milliseconds.
async fn matches(listing: Arc<Listing>, view: View) -> Result<Matches, GitError> {
    let compared = tokio::task::spawn_blocking(move || {
        let filter = view.filter().map_err(|error| GitError::Protocol(error.to_string()))?;
        let mut count = 0;
        let mut paths = Vec::new();
        for (path, _) in listing.files.iter().filter(|(path, mode)| filter.admits(path, *mode)) {
            count += 1;
            if paths.len() < PATHS_MAX {
                paths.push(shown_path(path));
            }
        }
        Ok((count, listing.files.len() as u64, paths))
    });
    compared.await.map_err(|_panic| GitError::Cancelled)?
}

fn shown_path(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
