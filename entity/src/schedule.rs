//! A schedule of an app: when tasks are created, and which.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, TaskId},
    kind::{MissedTicks, TickOverlap},
};

/// One row of `schedule`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule")]
pub struct Model {
    /// The app whose tasks are created.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// Its name, unique in the app.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The cron line of the schedule.
    pub cron: String,
    /// The time zone of the line, by its IANA name.
    pub zone: String,
    /// What is done about ticks that passed while no server ran.
    pub missed: MissedTicks,
    /// What is done at a tick while the task of an earlier one has not ended.
    pub overlap: TickOverlap,
    /// The command of its tasks.
    pub command: String,
    /// The payload of its tasks: JSON as it was sent.
    pub payload: String,
    /// The priority of its tasks.
    pub priority: i64,
    /// After how many attempts its tasks are dead; null: as their queue says.
    pub max_attempts: Option<i64>,
    /// Whether the schedule rests: it has no ticks.
    pub is_paused: bool,
    /// The tick up to which everything is decided, in unix milliseconds.
    pub last_tick: i64,
    /// When it is looked at next, in unix milliseconds; null: it rests.
    pub wake_at: Option<i64>,
    /// The task that was created last.
    pub last_task: Option<TaskId>,
    /// Ticks without a task because no server ran at their time.
    pub missed_ticks: i64,
    /// Ticks without a task because the task before had not ended.
    pub skipped_ticks: i64,
    /// Why the last try to create its task failed.
    pub error: Option<String>,
    /// When the row was inserted, in unix milliseconds.
    pub created_at: i64,
    /// When a person changed it last, in unix milliseconds.
    pub updated_at: i64,
    /// The address that is told of the end of its tasks; null: none.
    pub callback: Option<String>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
