//! The files that an app holds, page by page, for a receiver that compares itself with them.
//!
//! All pages are of one tree. If the app gets a new commit in between, the next page is refused: half of one
//! tree and half of another is a state that never existed.

use std::{str::FromStr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::round::{Change, RoundSpec, TreeEnd, short_ref},
    ports::{GitError, PinnedTrees, Seek},
};
use tidings_entity::{
    id::{AppId, ObjectId, ViewId, WatchId},
    kind::{Operation, RoundKind},
};
use utoipa::ToSchema;

use super::super::front::Front;
use super::{contents::downloads::Downloads, store_failed};
use crate::http::{
    bodies::{
        paging::{Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    repositories::contents::trees::{bring_trees, unavailable},
};

/// The routes of this file.
pub(super) fn routes(downloads: &Arc<Downloads>) -> Vec<Route> {
    vec![route_with::<__path_list, _, _, _>(Access::App(Permission::FilesRead), downloads, list)]
}

/// Files of the commit that the app holds.
#[derive(Serialize, ToSchema)]
struct HeldFiles {
    /// Full name of the ref.
    branch: String,
    /// The commit that the app holds. Null: the app holds no commit.
    held_commit: Option<String>,
    /// The files, ordered by the bytes of their paths.
    items: Vec<HeldFile>,
    /// Value of `cursor` for the next page. Missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A file that the app holds.
#[derive(Serialize, ToSchema)]
struct HeldFile {
    path: String,
    /// Bytes of the path in base64. Only if the path is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// File mode in Git: `100644`, `100755`, `100664` (same meaning as `100644`, only in old commits) or
    /// `120000`.
    mode: String,
    /// Git object id of the content. `/api/repositories/{id}/blobs/{blob}` gives the content.
    blob: String,
}

impl HeldFile {
    fn of(change: &Change) -> Option<Self> {
        change.new.map(|entry| Self {
            path: String::from_utf8_lossy(&change.path).into_owned(),
            path_base64: str::from_utf8(&change.path).is_err().then(|| BASE64_STANDARD.encode(&change.path)),
            mode: format!("{:o}", entry.mode),
            blob: entry.blob.to_string(),
        })
    }
}

/// The last file of a page, and its tree.
struct FileMark {
    commit: ObjectId,
    view: ViewId,
    path: Vec<u8>,
}

impl FileMark {
    fn text(end: &TreeEnd, path: &[u8]) -> String {
        format!("{} {} {}", end.commit, end.view.id(), BASE64URL_NOPAD.encode(path))
    }
}

impl FromStr for FileMark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let commit = word()?.parse().map_err(drop)?;
        let view = word()?.parse().map_err(drop)?;
        let path = BASE64URL_NOPAD.decode(word()?.as_bytes()).map_err(drop)?;
        Ok(Self { commit, view, path })
    }
}

/// Lists the files of a branch that the app holds: those that were sent to it and not deleted later.
#[utoipa::path(get, path = "/api/repositories/{id}/files", tag = "repositories",
    params(
        ("id" = String, Path),
        ("branch" = Option<String>, Query,
            description = "Short or full name of the branch. Required if the watch follows several \
                branches."),
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, body = HeldFiles),
        (status = 409, description = "The app holds another tree by now. Begin again without `cursor`.")
    ))]
async fn list(front: Arc<Front>, downloads: Arc<Downloads>, request: Request) -> Answer {
    let app = request.app()?;
    let query = Query::of(&request.query, &["branch", "limit", "cursor"])?;
    let limit = query.limit()?;
    let watch: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let _download = downloads.begin(&app.id)?;
    let pinned = front.store.pinned_trees(&app.id, &watch).await.map_err(store_failed)?;
    let (branch, held) = followed(&pinned, query.get("branch"))?;
    let name = format!("files of {branch} in {watch}");
    let after: Option<FileMark> = query.after(&name)?;
    let is_same = |place: &FileMark, end: &TreeEnd| place.commit == end.commit && place.view == end.view.id();
    if after.as_ref().is_some_and(|place| !held.as_ref().is_some_and(|end| is_same(place, end))) {
        return Err(Problem::new(Kind::CONFLICT)
            .with_detail("the app holds another tree by now: begin again without a cursor"));
    }
    let mut files = HeldFiles { branch, held_commit: None, items: Vec::new(), next_cursor: None };
    if let Some(end) = held {
        let more = usize::try_from(limit + 1).unwrap_or(usize::MAX);
        let after = after.map(|place| place.path);
        let changes = window(&front, &downloads, &app.id, &pinned, &end, after, more).await?;
        let page = page(changes, limit, &name, |change| FileMark::text(&end, &change.path), HeldFile::of);
        files.held_commit = Some(end.commit.to_string());
        files.items = page.items.into_iter().flatten().collect();
        files.next_cursor = page.next_cursor;
    }
    Ok(json(StatusCode::OK, &files))
}

/// The requested branch, and the commit held of it.
fn followed(pinned: &PinnedTrees, asked: Option<&str>) -> Result<(String, Option<TreeEnd>), Problem> {
    let is_asked = |name: &str| asked.is_none_or(|asked| asked == name || asked == short_ref(name));
    let mut found = pinned.held.iter().filter(|(name, _)| is_asked(name));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => {
            Err(Problem::malformed("several branches are followed: name one with `branch`"))
        }
        (None, _) => Err(Problem::malformed(match asked {
            Some(asked) => format!("no branch {asked:?} is followed"),
            None => "no such branch is followed".to_owned(),
        })),
    }
}

/// Files of a tree after a path: the creates of a round from the empty tree to it.
async fn window(
    front: &Front,
    downloads: &Downloads,
    app: &AppId,
    pinned: &PinnedTrees,
    end: &TreeEnd,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Vec<Change>, Problem> {
    let spec = RoundSpec {
        kind: RoundKind::Sync,
        held: None,
        target: Some(end.clone()),
        bases: Vec::new(),
        letters: Vec::new(),
    };
    let last = |path| Change { operation: Operation::Create, path, old: None, new: None, replay_of: None };
    let seek = after.map_or(Seek::Position(0), |path| Seek::After(last(path)));
    let look = async || {
        let _turn = downloads.search(app).await?;
        Ok(front.git.window(&pinned.remote, &spec, &seek, limit).await)
    };
    let found = match look().await? {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            bring_trees(front, pinned).await.map_err(|error| unavailable(&error))?;
            look().await?
        }
        found => found,
    };
    found.map_err(|error| unavailable(&error))
}
