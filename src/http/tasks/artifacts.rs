//! Artifacts: files that belong to a task. An upload is streamed into the object store and gets its row when
//! all of it is there; a download is streamed out of it, also in parts.
//!
//! **Who may change them.** While a worker has the task, only that worker, with the token of its claim in
//! `Tidings-Claim`: what a worker sends whose claim is over does not replace what its successor stored.
//! Before that, anyone with the permission. After the end of a task nothing is added to it, and what it keeps
//! may be removed.

mod download;
mod ranges;
mod upload;

pub(in crate::http) use upload::put_bytes;

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use serde::Serialize;
use tidings_actors::{
    model::task::{ClaimProof, ClaimToken},
    ports::{
        ARTIFACT_NAME_MAX, ARTIFACTS_PER_TASK_MAX, ArtifactChange, ArtifactRefusal, ObjectError, StoreError,
    },
};
use tidings_entity::id::{AppId, ArtifactId, TaskId};
use tracing::{error, warn};
use utoipa::ToSchema;

use super::{claims::nothing, owner, seen, shown::ArtifactShown};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// The header that proves a claim.
const CLAIM: HeaderName = HeaderName::from_static("tidings-claim");
/// How many seconds to wait while the object store does not answer.
const RETRY_AFTER_SECONDS: u64 = 5;
/// How many seconds to wait while an app keeps as much as it may.
const RETRY_FULL_AFTER_SECONDS: u64 = 60;
/// Objects that are removed at once with their app; others are removed as orphans.
const ERASED_MAX: usize = 10_000;
/// Ids that are read at a time.
const IDS_AT_ONCE: u64 = 1_000;

/// The routes of people.
pub(super) fn routes(places: &Arc<Places>) -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::TasksRead), list),
        route::<__path_remove, _, _>(Access::App(Permission::TasksArtifacts), remove),
        download::route(places),
    ]
}

/// The routes of producers and workers.
pub(super) fn worker_routes(places: &Arc<Places>) -> Vec<Route> {
    vec![upload::route(places)]
}

/// The artifacts of a task.
#[derive(Serialize, ToSchema)]
struct ArtifactList {
    /// All of them, at most 100, by name.
    items: Vec<ArtifactShown>,
}

/// The artifacts of a task, by name.
#[utoipa::path(get, path = "/api/tasks/{id}/artifacts", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = ArtifactList)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let task: TaskId = request.id(Kind::NO_TASK)?;
    seen(&front, &request, &task).await?;
    let items = of_task(&front, &owner(&request)?.id, &task).await?;
    Ok(json(StatusCode::OK, &ArtifactList { items }))
}

/// The artifacts of a task as answers show them.
pub(super) async fn of_task(
    front: &Front,
    app: &AppId,
    task: &TaskId,
) -> Result<Vec<ArtifactShown>, Problem> {
    let artifacts = front.artifacts.artifacts(app, task).await;
    let artifacts = artifacts.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    Ok(artifacts.iter().map(ArtifactShown::of).collect())
}

/// Removes an artifact. While a worker has the task, only that worker may.
#[utoipa::path(delete, path = "/api/tasks/{id}/artifacts/{name}", tag = "tasks",
    params(
        ("id" = String, Path),
        ("name" = String, Path, description = "the name of the artifact"),
        ("Tidings-Claim" = Option<String>, Header, description = "the token of the claim"),
    ),
    responses(
        (status = 204, description = "the artifact is gone"),
        (status = 409, description = "a worker has the task, or the claim is over")
    ))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let change = change(&front, &request).await?;
    let removed = front.artifacts.remove_artifact(&change).await;
    let removed = removed.map_err(|error| Problem::of_store(error, Kind::NO_ARTIFACT))?;
    let id = removed.map_err(|refusal| match refusal {
        ArtifactRefusal::NotFound => Problem::new(Kind::NO_ARTIFACT),
        refusal => refused(&refusal, 0),
    })?;
    drop_object(&front, &id).await;
    Ok(nothing())
}

/// The artifact that a request names and wants to change. Its task is one that the caller may see.
async fn change(front: &Front, request: &Request) -> Result<ArtifactChange, Problem> {
    let app = owner(request)?.id.clone();
    let task: TaskId = request.id(Kind::NO_TASK)?;
    let name = name(request)?;
    seen(front, request, &task).await?;
    let proof = proof(request, &task)?;
    Ok(ArtifactChange { app, task, name, proof })
}

/// The name in the path.
fn name(request: &Request) -> Result<String, Problem> {
    let name = request.parameters.get(1).map_or("", String::as_str);
    check_name(name).map_err(|reason| Problem::invalid_field("name", reason))?;
    Ok(name.to_owned())
}

/// Checks the name of an artifact: it is also a good name of a file everywhere.
pub(in crate::http) fn check_name(name: &str) -> Result<(), String> {
    let is_first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_plain = |byte: u8| is_first(byte) || b".-+=@".contains(&byte);
    let is_good = (1..=ARTIFACT_NAME_MAX).contains(&name.len())
        && name.bytes().next().is_some_and(is_first)
        && name.bytes().all(is_plain);
    if is_good {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {ARTIFACT_NAME_MAX} letters, digits and '._-+=@', and begin with a letter, a digit \
         or '_'"
    ))
}

/// The proof of the claim that the request names, if it names one.
fn proof(request: &Request, task: &TaskId) -> Result<Option<ClaimProof>, Problem> {
    let Some(sent) = request.headers.get(CLAIM) else { return Ok(None) };
    let token = sent.to_str().ok().and_then(|text| text.parse::<ClaimToken>().ok());
    let token = token.ok_or_else(|| {
        Problem::malformed("Tidings-Claim must be the token from the answer that gave the task")
    })?;
    if token.task != *task {
        return Err(Problem::malformed("Tidings-Claim is the token of another task"));
    }
    Ok(Some(ClaimProof::Hash(token.hash())))
}

/// Why an artifact was not changed, as an answer. `app_bytes_max`: what an app may keep.
fn refused(refusal: &ArtifactRefusal, app_bytes_max: u64) -> Problem {
    let conflict = |detail: &str| Problem::new(Kind::CONFLICT).with_detail(detail);
    let full = |detail: String| {
        Problem::new(Kind::TOO_MANY).with_detail(detail).retry_after(RETRY_FULL_AFTER_SECONDS)
    };
    match refusal {
        ArtifactRefusal::NotFound => Problem::new(Kind::NO_TASK),
        ArtifactRefusal::ClaimLost => Problem::new(Kind::CLAIM_LOST),
        ArtifactRefusal::Claimed => conflict(
            "a worker has the task: only that worker changes its artifacts, with the token of its claim in \
             Tidings-Claim",
        ),
        ArtifactRefusal::Ended(state) => {
            conflict(&format!("the task is {state}: artifacts are added to tasks that have not ended"))
        }
        ArtifactRefusal::Count => full(format!(
            "a task has at most {ARTIFACTS_PER_TASK_MAX} artifacts: remove one, or put several files into \
             one archive"
        )),
        ArtifactRefusal::Bytes(kept) => full(format!(
            "the artifacts of this app have {kept} bytes, and may have at most {app_bytes_max} with this one \
             (artifacts.app_bytes_max): remove some"
        )),
    }
}

/// The answer for a failed call of the object store.
pub(in crate::http) fn unavailable(error: &ObjectError) -> Problem {
    error!(%error, "the object store of artifacts failed");
    let problem = Problem::new(Kind::UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS);
    match error {
        ObjectError::Full { .. } => problem.with_detail("there is too little room for artifacts just now"),
        _ => problem.with_detail("the object store of artifacts does not answer just now"),
    }
}

/// Removes the object of an artifact whose row is gone. What fails here is removed later, as an orphan.
async fn drop_object(front: &Front, id: &ArtifactId) {
    if let Err(error) = front.objects.remove(id).await {
        warn!(%error, artifact.id = %id, "the object {id} could not be removed yet: {error}");
    }
}

/// The objects of an app that is about to be erased.
pub(crate) async fn objects_of(front: &Front, app: &AppId) -> Result<Vec<ArtifactId>, StoreError> {
    let mut ids: Vec<ArtifactId> = Vec::new();
    loop {
        let page = front.artifacts.artifact_ids(app, ids.last(), IDS_AT_ONCE).await?;
        let is_last = page.len() < IDS_AT_ONCE as usize;
        ids.extend(page);
        if is_last || ids.len() >= ERASED_MAX {
            return Ok(ids);
        }
    }
}

/// Removes the objects of an app whose rows are gone.
pub(crate) async fn drop_objects(front: &Front, ids: &[ArtifactId]) {
    for id in ids {
        drop_object(front, id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_good_name_of_a_file() {
        let long = "x".repeat(ARTIFACT_NAME_MAX);
        for good in ["output.json", "_", "0", "a+b=c@d-e.tar.gz", &long] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let longer = "x".repeat(ARTIFACT_NAME_MAX + 1);
        for bad in ["", ".", "..", ".hidden", "-rf", "a/b", "a\\b", "a b", "ä", "a\0", "a\n", "\"", &longer]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
