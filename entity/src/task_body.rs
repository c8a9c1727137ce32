//! The payload and the result of a task, apart from the row that changes often.

use sea_orm::entity::prelude::*;

use crate::id::TaskId;

/// One row of `task_body`. Each text is JSON as it was sent, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "task_body")]
pub struct Model {
    /// The task that has this body.
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_id: TaskId,
    /// The payload for the worker.
    pub payload: String,
    /// The result with which the worker completed the task.
    pub result: Option<String>,
    /// The last progress report of the worker.
    pub progress: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
