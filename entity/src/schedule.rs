//! A schedule of an app: when tasks are created, and which; or when a watch is resynced.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, TaskId, WatchId},
    kind::{MissedTicks, TickOverlap},
};

/// One row of `schedule`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule")]
pub struct Model {
    /// The app whose tasks are created.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// Name of the schedule, unique in the app.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The cron line of the schedule.
    pub cron: String,
    /// IANA name of the time zone of the cron line.
    pub zone: String,
    /// Handling of ticks that passed while no server ran.
    pub missed: MissedTicks,
    /// Handling of a tick while the task of an earlier tick has not ended.
    pub overlap: TickOverlap,
    /// Command of the tasks; empty where the schedule creates none.
    pub command: String,
    /// Payload of the tasks: JSON, byte for byte as it was sent.
    pub payload: String,
    /// Priority of the tasks.
    pub priority: i64,
    /// Number of attempts after which a task is dead. Null: the setting of the queue.
    pub max_attempts: Option<i64>,
    /// Whether the schedule is paused and creates no tasks.
    pub is_paused: bool,
    /// All ticks up to this moment are handled; in unix milliseconds.
    pub last_tick: i64,
    /// When the schedule is checked next, in unix milliseconds. Null: the schedule is paused.
    pub wake_at: Option<i64>,
    /// The task that was created last.
    pub last_task: Option<TaskId>,
    /// Number of ticks without a task because no server ran.
    pub missed_ticks: i64,
    /// Number of ticks without a task because the previous task had not ended.
    pub skipped_ticks: i64,
    /// Why the last attempt to create a task failed.
    pub error: Option<String>,
    /// When the row was inserted, in unix milliseconds.
    pub created_at: i64,
    /// When a person last changed the schedule, in unix milliseconds.
    pub updated_at: i64,
    /// The address that is told of the end of its tasks; null: none.
    pub callback: Option<String>,
    /// The watch that is resynced at each tick; null: a task is created.
    pub watch_id: Option<WatchId>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
