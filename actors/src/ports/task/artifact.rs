//! Artifacts: files that belong to a task, as rows. Their bytes are [objects](crate::ports::Objects).

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, ArtifactId, Sha256Hash, TaskId},
    kind::TaskState,
};

use crate::{model::task::ClaimProof, ports::StoreError, time::Timestamp};

/// Characters of the name of an artifact.
pub const ARTIFACT_NAME_MAX: usize = 128;
/// Most artifacts of a task.
pub const ARTIFACTS_PER_TASK_MAX: u64 = 100;
/// Characters of the media type of an artifact.
pub const CONTENT_TYPE_MAX: usize = 255;

/// What is known of a file that belongs to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The id, which is also the name of its object.
    pub id: ArtifactId,
    /// The task that the artifact belongs to.
    pub task: TaskId,
    /// The app of that task.
    pub app: AppId,
    /// The name of the artifact, unique within its task.
    pub name: String,
    /// The media type that its sender named.
    pub content_type: String,
    /// The size of the object in bytes.
    pub bytes: u64,
    /// The SHA-256 of the object.
    pub sha256: Sha256Hash,
    /// When the row was inserted.
    pub created_at: Timestamp,
}

/// A change of one artifact, and the proof that its sender may make it.
#[derive(Clone, Debug)]
pub struct ArtifactChange {
    /// The app whose task it is.
    pub app: AppId,
    /// The task of the artifact.
    pub task: TaskId,
    /// The name of the artifact.
    pub name: String,
    /// Proves the claim of the task; `None`: the sender has no claim.
    pub proof: Option<ClaimProof>,
}

/// Limits on what an app may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactRoom {
    /// The size of the new artifact in bytes.
    pub bytes: u64,
    /// Most bytes of all artifacts of an app.
    pub app_bytes_max: u64,
}

/// Why an artifact was not changed. Nothing was stored or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactRefusal {
    /// There is no such task of this app, or no artifact of this name to remove.
    NotFound,
    /// The claim is not the newest of the task, or its time is over.
    ClaimLost,
    /// A worker has the task: only that worker may change its artifacts.
    Claimed,
    /// The task has ended: nothing is added to it.
    Ended(TaskState),
    /// The task has [`ARTIFACTS_PER_TASK_MAX`] artifacts.
    Count,
    /// The artifacts of the app would have more bytes than it may keep; the field says how many they have.
    Bytes(u64),
}

/// The rows of artifacts. An object is stored before its row and removed after it.
#[async_trait]
pub trait ArtifactStore: Send + Sync + 'static {
    /// Whether a put would be accepted now. It is asked before the bytes arrive; [`Self::put_artifact`]
    /// decides.
    async fn may_put_artifact(
        &self,
        change: &ArtifactChange,
        room: ArtifactRoom,
    ) -> Result<Result<(), ArtifactRefusal>, StoreError>;
    /// Writes the row of an artifact whose object is stored. Returns the id of the artifact of the same name
    /// that it replaces.
    async fn put_artifact(
        &self,
        artifact: &Artifact,
        proof: Option<&ClaimProof>,
        app_bytes_max: u64,
    ) -> Result<Result<Option<ArtifactId>, ArtifactRefusal>, StoreError>;
    /// Removes the row of an artifact. Returns its id, which is the name of its object.
    async fn remove_artifact(
        &self,
        change: &ArtifactChange,
    ) -> Result<Result<ArtifactId, ArtifactRefusal>, StoreError>;
    /// The artifacts of a task of this app, by name.
    async fn artifacts(&self, app: &AppId, task: &TaskId) -> Result<Vec<Artifact>, StoreError>;
    /// One artifact of a task of this app.
    async fn artifact(&self, app: &AppId, task: &TaskId, name: &str) -> Result<Artifact, StoreError>;
    /// Ids of the artifacts of an app, in their order, after one of them.
    async fn artifact_ids(
        &self,
        app: &AppId,
        after: Option<&ArtifactId>,
        limit: u64,
    ) -> Result<Vec<ArtifactId>, StoreError>;
}
