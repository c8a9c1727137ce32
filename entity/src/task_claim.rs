//! A claim of a task that ended before the task did. The last claim stands in the row of the task itself.

use sea_orm::entity::prelude::*;

use crate::{id::TaskId, kind::ClaimEnd};

/// One row of `task_claim`. A task has only its newest rows; they are deleted with it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "task_claim")]
pub struct Model {
    /// The task that was claimed.
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_id: TaskId,
    /// When the claim began, in unix milliseconds.
    #[sea_orm(primary_key, auto_increment = false)]
    pub claimed_at: i64,
    /// When the claim ended, in unix milliseconds.
    pub ended_at: i64,
    /// The worker that had the task: the id of its token.
    pub worker: String,
    /// How the claim ended.
    pub ended_by: ClaimEnd,
    /// The reason that the worker gave.
    pub reason: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
