//! All tasks of one command of an app, with their numbers by state.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, QueueId};

/// One row of `queue`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "queue")]
pub struct Model {
    /// The id of the queue, computed from the app and the command.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: QueueId,
    /// The app that the tasks belong to; null: no app, which does not occur yet.
    pub app_id: Option<AppId>,
    /// The command of the tasks, which workers carry out.
    pub command: String,
    /// The settings of the queue, as JSON.
    pub settings: String,
    /// Whether the queue is paused: no task is handed out.
    pub is_paused: bool,
    /// The number of tasks that are not due yet.
    pub waiting: i64,
    /// The number of ready tasks, which may be claimed.
    pub ready: i64,
    /// The number of tasks that a pause set aside.
    pub aside: i64,
    /// The number of claimed tasks.
    pub claimed: i64,
    /// The number of tasks that a worker completed.
    pub succeeded: i64,
    /// The number of tasks that a worker ended as failed.
    pub failed: i64,
    /// The number of dead tasks, which have no attempts left.
    pub dead: i64,
    /// The number of tasks that were cancelled.
    pub cancelled: i64,
    /// Bytes of the payloads of the tasks that have not ended.
    pub bytes: i64,
    /// The end of the permits for claims that the rate of the queue has given out, in unix microseconds.
    pub permits_until: i64,
    /// When the row was inserted, in unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
