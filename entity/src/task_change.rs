//! The change that a task of a watch is about: what a dead letter of it says.

use sea_orm::entity::prelude::*;

use crate::{
    id::{ObjectId, TaskId},
    kind::Operation,
};

/// One row of `task_change`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "task_change")]
pub struct Model {
    /// The task that is about the change.
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_id: TaskId,
    /// The id of the delivery that the payload names.
    pub delivery_id: String,
    /// The path of the file as the raw bytes of Git.
    pub path: Vec<u8>,
    /// Whether the file is created, updated or deleted.
    pub operation: Operation,
    /// The mode of the file that the app has; null: no file, or it is unknown which.
    pub before_mode: Option<i32>,
    /// The blob of the file that the app has.
    pub before_blob: Option<ObjectId>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
