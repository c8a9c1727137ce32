//! What is known of a file that belongs to a task. Its bytes are an object in the object store, named by the
//! id of the row.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, ArtifactId, Sha256Hash, TaskId};

/// One row of `artifact`. It is written after its object, so that a row never names bytes that were not
/// stored. It is deleted with its task; its object is removed afterwards.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "artifact")]
pub struct Model {
    /// The id of the artifact: `art_` and a ULID, whose moment is that at which its upload began.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ArtifactId,
    /// The task that the artifact belongs to.
    pub task_id: TaskId,
    /// The app of that task.
    pub app_id: AppId,
    /// The name of the artifact, unique within its task.
    pub name: String,
    /// The media type that its sender named.
    pub content_type: String,
    /// The size of the object in bytes.
    pub bytes: i64,
    /// The SHA-256 of the object.
    pub sha256: Sha256Hash,
    /// When the row was inserted, in unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
