//! Artifacts as rows: who may change them, and how much an app may keep. A change locks the row of the task,
//! so that it and the end of the task are decided one after the other, also by several replicas.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::task::ClaimProof,
    ports::{ARTIFACTS_PER_TASK_MAX, Artifact, ArtifactChange, ArtifactRefusal, ArtifactRoom, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    artifact,
    id::{AppId, ArtifactId, TaskId},
    kind::TaskState,
};

use super::for_update;
use crate::database::rows::{self, LISTED_MAX, list, signed, unsigned};

/// What decides whether the artifacts of a task may change.
#[derive(FromQueryResult)]
struct TaskOfArtifact {
    state: TaskState,
    claim: Option<String>,
    worker: Option<String>,
    wake_at: Option<i64>,
}

/// The id of an artifact, and its size.
#[derive(FromQueryResult)]
struct KeptArtifact {
    id: ArtifactId,
    bytes: i64,
}

impl TaskOfArtifact {
    async fn read(
        connection: &impl ConnectionTrait,
        app: &AppId,
        task: &TaskId,
        lock: &str,
    ) -> Result<Option<Self>, StoreError> {
        let text = format!(
            "select t.state, t.claim, t.worker, t.wake_at from task t where t.id = $1 and t.app_id = $2{lock}"
        );
        rows::one(connection, "task", &text, vec![task.clone().into(), app.clone().into()]).await
    }

    /// Whether a sender with this proof may change artifacts: while a worker has the task, only that worker.
    fn admits(&self, proof: Option<&ClaimProof>, at: Timestamp) -> Result<(), ArtifactRefusal> {
        let is_claimed = self.state == TaskState::Claimed;
        let Some(proof) = proof else {
            return if is_claimed { Err(ArtifactRefusal::Claimed) } else { Ok(()) };
        };
        let is_over = self.wake_at.is_some_and(|until| until <= at.0);
        let is_held = match proof {
            ClaimProof::Hash(hash) | ClaimProof::OfWatch(hash, _) => self.claim.as_ref() == Some(hash),
            ClaimProof::Worker(worker) => self.worker.as_ref() == Some(worker),
        };
        if is_claimed && is_held && !is_over { Ok(()) } else { Err(ArtifactRefusal::ClaimLost) }
    }
}

async fn named(
    connection: &impl ConnectionTrait,
    task: &TaskId,
    name: &str,
) -> Result<Option<KeptArtifact>, StoreError> {
    let text = "select id, bytes from artifact where task_id = $1 and name = $2";
    rows::one(connection, "artifact", text, vec![task.clone().into(), name.into()]).await
}

/// Whether an artifact may be put. Returns the one that it would replace.
async fn admitted(
    connection: &impl ConnectionTrait,
    change: &ArtifactChange,
    room: ArtifactRoom,
    at: Timestamp,
    lock: &str,
) -> Result<Result<Option<KeptArtifact>, ArtifactRefusal>, StoreError> {
    let task = TaskOfArtifact::read(connection, &change.app, &change.task, lock).await?;
    let Some(task) = task else { return Ok(Err(ArtifactRefusal::NotFound)) };
    if let Err(refusal) = task.admits(change.proof.as_ref(), at) {
        return Ok(Err(refusal));
    }
    if task.state.has_ended() {
        return Ok(Err(ArtifactRefusal::Ended(task.state)));
    }
    let old = named(connection, &change.task, &change.name).await?;
    if old.is_none() {
        let text = "select count(*) from artifact where task_id = $1";
        let count = rows::number(connection, "artifact", text, vec![change.task.clone().into()]).await?;
        if unsigned("artifact", count)? >= ARTIFACTS_PER_TASK_MAX {
            return Ok(Err(ArtifactRefusal::Count));
        }
    }
    let text = "select cast(coalesce(sum(bytes), 0) as bigint) from artifact where app_id = $1";
    let kept = rows::number(connection, "artifact", text, vec![change.app.clone().into()]).await?;
    let kept = unsigned("artifact", kept)?;
    let freed = unsigned("artifact", old.as_ref().map_or(0, |old| old.bytes))?;
    if kept.saturating_sub(freed).saturating_add(room.bytes) > room.app_bytes_max {
        return Ok(Err(ArtifactRefusal::Bytes(kept)));
    }
    Ok(Ok(old))
}

/// Whether an artifact could be put now.
pub(crate) async fn may_put_artifact(
    connection: &impl ConnectionTrait,
    change: &ArtifactChange,
    room: ArtifactRoom,
    at: Timestamp,
) -> Result<Result<(), ArtifactRefusal>, StoreError> {
    Ok(admitted(connection, change, room, at, "").await?.map(drop))
}

/// Writes the row of an artifact in the place of that of the same name, whose id is returned.
pub(crate) async fn put_artifact(
    connection: &impl ConnectionTrait,
    artifact: Artifact,
    proof: Option<ClaimProof>,
    app_bytes_max: u64,
    at: Timestamp,
) -> Result<Result<Option<ArtifactId>, ArtifactRefusal>, StoreError> {
    let Artifact { id, task, app, name, content_type, bytes, sha256, .. } = artifact;
    let change = ArtifactChange { app, task, name, proof };
    let lock = for_update(connection, "t", false);
    let room = ArtifactRoom { bytes, app_bytes_max };
    let old = match admitted(connection, &change, room, at, &lock).await? {
        Ok(old) => old.map(|old| old.id),
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(old) = &old {
        delete(connection, old).await?;
    }
    let row = artifact::Model {
        id,
        task_id: change.task,
        app_id: change.app,
        name: change.name,
        content_type,
        bytes: signed(bytes),
        sha256,
        created_at: at.0,
    };
    rows::insert(connection, "artifact", vec![row]).await?;
    Ok(Ok(old))
}

async fn delete(connection: &impl ConnectionTrait, id: &ArtifactId) -> Result<(), StoreError> {
    let text = "delete from artifact where id = $1";
    rows::execute(connection, "artifact", text, vec![id.clone().into()]).await.map(drop)
}

/// Removes the row of an artifact; its id. What a task that has ended keeps may be removed.
pub(crate) async fn remove_artifact(
    connection: &impl ConnectionTrait,
    change: ArtifactChange,
    at: Timestamp,
) -> Result<Result<ArtifactId, ArtifactRefusal>, StoreError> {
    let lock = for_update(connection, "t", false);
    let task = TaskOfArtifact::read(connection, &change.app, &change.task, &lock).await?;
    let Some(task) = task else { return Ok(Err(ArtifactRefusal::NotFound)) };
    if let Err(refusal) = task.admits(change.proof.as_ref(), at) {
        return Ok(Err(refusal));
    }
    let Some(old) = named(connection, &change.task, &change.name).await? else {
        return Ok(Err(ArtifactRefusal::NotFound));
    };
    delete(connection, &old.id).await?;
    Ok(Ok(old.id))
}

/// The artifacts of a task, by name.
pub(crate) async fn artifacts(
    connection: &impl ConnectionTrait,
    app: &AppId,
    task: &TaskId,
) -> Result<Vec<Artifact>, StoreError> {
    let text = "select * from artifact where task_id = $1 and app_id = $2 order by name";
    let values = vec![task.clone().into(), app.clone().into()];
    let found: Vec<artifact::Model> = rows::readable(connection, "artifact", text, values).await?;
    found.into_iter().map(shown).collect()
}

/// One artifact of a task.
pub(crate) async fn artifact(
    connection: &impl ConnectionTrait,
    app: &AppId,
    task: &TaskId,
    name: &str,
) -> Result<Artifact, StoreError> {
    let text = "select * from artifact where task_id = $1 and app_id = $2 and name = $3";
    let values = vec![task.clone().into(), app.clone().into(), name.into()];
    let found: Option<artifact::Model> = rows::one(connection, "artifact", text, values).await?;
    found.map_or(Err(StoreError::NotFound), shown)
}

/// Ids of the artifacts of an app, after one of them.
pub(crate) async fn artifact_ids(
    connection: &impl ConnectionTrait,
    app: &AppId,
    after: Option<&ArtifactId>,
    limit: u64,
) -> Result<Vec<ArtifactId>, StoreError> {
    let text = "select id, bytes from artifact where app_id = $1 and id > $2 order by id limit $3";
    let after = after.map_or("", ArtifactId::as_str);
    let values = vec![app.clone().into(), after.into(), signed(limit).into()];
    let found: Vec<KeptArtifact> = rows::all(connection, "artifact", text, values).await?;
    Ok(found.into_iter().map(|row| row.id).collect())
}

/// Which of these have a row.
pub(crate) async fn known_artifacts(
    connection: &impl ConnectionTrait,
    ids: &[ArtifactId],
) -> Result<BTreeSet<ArtifactId>, StoreError> {
    let ids: Vec<Vec<Value>> = ids.iter().map(|id| vec![id.clone().into()]).collect();
    let mut known = BTreeSet::new();
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text =
            format!("with v(id) as ({values}) select id, bytes from artifact where id in (select id from v)");
        let found: Vec<KeptArtifact> = rows::all(connection, "artifact", &text, bound).await?;
        known.extend(found.into_iter().map(|row| row.id));
    }
    Ok(known)
}

fn shown(row: artifact::Model) -> Result<Artifact, StoreError> {
    Ok(Artifact {
        bytes: unsigned("artifact", row.bytes)?,
        id: row.id,
        task: row.task_id,
        app: row.app_id,
        name: row.name,
        content_type: row.content_type,
        sha256: row.sha256,
        created_at: Timestamp(row.created_at),
    })
}
