//! The rows of artifacts, for the front door.

use async_trait::async_trait;
use tidings_actors::{
    model::task::ClaimProof,
    ports::{Artifact, ArtifactChange, ArtifactRefusal, ArtifactRoom, ArtifactStore, StoreError},
};
use tidings_entity::id::{AppId, ArtifactId, TaskId};

use crate::{SqlStore, tasks};

#[async_trait]
impl ArtifactStore for SqlStore {
    async fn may_put_artifact(
        &self,
        change: &ArtifactChange,
        room: ArtifactRoom,
    ) -> Result<Result<(), ArtifactRefusal>, StoreError> {
        tasks::may_put_artifact(&self.readers, change, room, self.context.clock.now()).await
    }

    async fn put_artifact(
        &self,
        artifact: &Artifact,
        proof: Option<&ClaimProof>,
        app_bytes_max: u64,
    ) -> Result<Result<Option<ArtifactId>, ArtifactRefusal>, StoreError> {
        let (artifact, proof) = (artifact.clone(), proof.cloned());
        let put = self.writer.decision(move |transaction, context| {
            let at = context.clock.now();
            Box::pin(tasks::put_artifact(transaction, artifact, proof, app_bytes_max, at))
        });
        put.await
    }

    async fn remove_artifact(
        &self,
        change: &ArtifactChange,
    ) -> Result<Result<ArtifactId, ArtifactRefusal>, StoreError> {
        let change = change.clone();
        let remove = self.writer.decision(move |transaction, context| {
            Box::pin(tasks::remove_artifact(transaction, change, context.clock.now()))
        });
        remove.await
    }

    async fn artifacts(&self, app: &AppId, task: &TaskId) -> Result<Vec<Artifact>, StoreError> {
        tasks::artifacts(&self.readers, app, task).await
    }

    async fn artifact(&self, app: &AppId, task: &TaskId, name: &str) -> Result<Artifact, StoreError> {
        tasks::artifact(&self.readers, app, task, name).await
    }

    async fn artifact_ids(
        &self,
        app: &AppId,
        after: Option<&ArtifactId>,
        limit: u64,
    ) -> Result<Vec<ArtifactId>, StoreError> {
        tasks::artifact_ids(&self.readers, app, after, limit).await
    }
}
