//! Replays a watch from a commit that its app once held: the changes after it are sent again, in a round of
//! their own, before anything newer.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{GitError, Remote};
use tidings_entity::id::{ObjectId, WatchId};
use utoipa::ToSchema;

use super::super::front::Front;
use super::{
    change::{no_branch, read_cursor},
    register::proof,
    store_failed,
};
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    repositories::contents::trees::unavailable,
};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_replay, _, _>(Access::App(Permission::WatchesReplay), replay)]
}

body! {
    /// Where a replay begins.
    struct Replay {
        /// A commit that the app held, 40 hexadecimal digits.
        commit: String,
        /// The branch, by its `cursor`. Required if the app held the commit on several branches.
        cursor: Option<String>,
    }
}

/// The replay that was scheduled.
#[derive(Serialize, ToSchema)]
struct Replaying {
    cursor: String,
    /// The commit from which the replay begins.
    commit: String,
}

/// Sends again what changed between a commit that the app held earlier and the commit that it holds now, as
/// if it still held the earlier one: deletes, creates and updates with new ids, before newer changes. For an
/// app that was restored from a backup of that time, or that wants the changes again. A replay of the branch
/// that was asked for before and has not begun is dropped: the last request counts.
#[utoipa::path(post, path = "/api/repositories/{id}/replay", tag = "repositories",
    params(("id" = String, Path)),
    request_body = Replay,
    responses(
        (status = 202, body = Replaying),
        (status = 409, description = "The app never held the commit, several branches held it, the branch \
            holds nothing now, a resync is pending, or neither the mirror nor the Git host has the commit \
            any more.")
    ))]
async fn replay(front: Arc<Front>, request: Request) -> Answer {
    let id: WatchId = request.id(Kind::NOT_REGISTERED)?;
    let app = &request.app()?.id;
    let mut fields = Fields::of_body::<Replay>(&request.body)?;
    let commit = fields.required_text("commit", 1..=64);
    let parsed: Option<ObjectId> = commit.to_ascii_lowercase().parse().ok();
    if parsed.is_none() && !commit.is_empty() {
        fields.refuse("commit", "must be 40 hexadecimal digits");
    }
    let cursor = fields.text("cursor", 1..=64);
    fields.finish()?;
    let cursor = read_cursor(cursor)?;
    let commit = parsed.ok_or_else(|| Problem::invalid_field("commit", "must be 40 hexadecimal digits"))?;

    // Checked first: the mirror is shared, so a caller whose watch never held the commit must not learn
    // whether the mirror has it.
    let held = front.store.was_held(app, &id, cursor.as_ref(), commit).await;
    let (cursor, from) = held.map_err(|error| no_branch(error, cursor.as_ref()))?;
    let pinned = front.store.pinned_trees(app, &id).await.map_err(store_failed)?;
    obtainable(&front, &pinned.remote, commit).await?;
    front.store.request_replay(&cursor, &from).await.map_err(store_failed)?;
    front.handle.refresh(app).await;
    let replaying = Replaying { cursor: cursor.to_string(), commit: commit.to_string() };
    Ok(json(StatusCode::ACCEPTED, &replaying))
}

/// Whether the mirror has the commit, or the host still gives it. Only two definitive refusals say no.
async fn obtainable(front: &Front, remote: &Remote, commit: ObjectId) -> Result<(), Problem> {
    match front.git.commit(remote, commit).await {
        Ok(_) => return Ok(()),
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {}
        Err(error) => return Err(unavailable(&error)),
    }
    let Remote { location, credential, apps, .. } = remote;
    let ask = || proof::commit(front, location.clone(), credential.clone(), apps, commit);
    let asked = match ask().await {
        Err(GitError::Unobtainable(_)) => ask().await,
        other => other,
    };
    match asked {
        Ok(()) => Ok(()),
        Err(GitError::Unobtainable(_) | GitError::NotACommit(_)) => {
            Err(Problem::new(Kind::TREE_UNAVAILABLE)
                .with_detail(format!("{commit} cannot be fetched any more")))
        }
        Err(error) => Err(unavailable(&error)),
    }
}
