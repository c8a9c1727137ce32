//! Schedules: at the ticks of a cron line, a task is created or a watch is resynced.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, TaskId, WatchId},
    kind::{MissedTicks, TickOverlap},
};

use crate::{model::filter::Filter, ports::StoreError, time::Timestamp};

/// Most schedules of an app.
pub const SCHEDULES_MAX: u64 = 1_000;
/// Most characters of the name of a schedule.
pub const SCHEDULE_NAME_MAX: usize = 64;

/// When a schedule fires, and what it creates then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// The cron line of the schedule.
    pub cron: String,
    /// The time zone of the line, by its IANA name.
    pub zone: String,
    /// What is done about ticks that passed while no server ran.
    pub missed: MissedTicks,
    /// What is done at a tick while the task of an earlier one has not ended.
    pub overlap: TickOverlap,
    /// The watch that it resyncs; `None`: it creates tasks. With a watch the fields below are of no use.
    pub watch: Option<WatchId>,
    /// The command of its tasks; empty with a watch.
    pub command: String,
    /// The payload of its tasks: JSON as it was sent, byte for byte.
    pub payload: String,
    /// The priority of its tasks, 0 to 9.
    pub priority: u8,
    /// After how many attempts its tasks are dead; `None`: as their queue says.
    pub max_attempts: Option<u32>,
    /// The address that is told of the ends of its tasks; `None`: none.
    pub callback: Option<String>,
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The app whose tasks are created.
    pub app: AppId,
    /// Its name, unique in the app.
    pub name: String,
    /// When it fires, and what it creates then.
    pub settings: ScheduleSettings,
    /// Whether the schedule rests: it has no ticks.
    pub is_paused: bool,
    /// The tick up to which everything is decided.
    pub last_tick: Timestamp,
    /// The task that was created last.
    pub last_task: Option<TaskId>,
    /// Ticks without a task because no server ran at their time.
    pub missed_ticks: u64,
    /// Ticks without a task because the task before had not ended.
    pub skipped_ticks: u64,
    /// Why the last try to create its task failed.
    pub error: Option<String>,
    /// When the schedule was created.
    pub created_at: Timestamp,
    /// When a person changed it last.
    pub updated_at: Timestamp,
}

/// Which schedules a list has.
#[derive(Clone, Debug, Default)]
pub struct ScheduleFilter {
    /// Only those of this app.
    pub app: Option<AppId>,
    /// Only those that this filter means.
    pub query: Option<Filter>,
}

/// Schedules as the front door works with them. The clock creates their tasks and asks for their resyncs
/// ([`crate::ports::ClaimStore::wake_tasks`]).
#[async_trait]
pub trait ScheduleStore: Send + Sync + 'static {
    /// Schedules by their apps and names, after the one of `after`, at most `limit`.
    async fn schedules(
        &self,
        filter: &ScheduleFilter,
        after: Option<(&AppId, &str)>,
        limit: u64,
    ) -> Result<Vec<Schedule>, StoreError>;
    /// One schedule of an app.
    async fn schedule(&self, app: &AppId, name: &str) -> Result<Schedule, StoreError>;
    /// Makes a schedule, or changes it. With other times it starts from now: no tick before now is owed. A
    /// [`StoreError::Conflict`] where the app has [`SCHEDULES_MAX`].
    async fn set_schedule(
        &self,
        app: &AppId,
        name: &str,
        settings: &ScheduleSettings,
    ) -> Result<Schedule, StoreError>;
    /// Lets a schedule rest, or go on with the ticks from now on.
    async fn pause_schedule(&self, app: &AppId, name: &str, is_paused: bool) -> Result<Schedule, StoreError>;
    /// Removes a schedule; its tasks stay.
    async fn remove_schedule(&self, app: &AppId, name: &str) -> Result<(), StoreError>;
}
