//! Schedules as rows: what people make and change of them.

pub(super) mod resyncs;
pub(super) mod ticks;

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::schedule::{Calendar, begins_anew},
    ports::{SCHEDULES_MAX, Schedule, ScheduleFilter, ScheduleSettings, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, WatchId},
    schedule,
};

use crate::database::{
    error::undecodable,
    rows::{
        self,
        filter::{self, Column},
        signed, unsigned,
    },
};

/// The columns of the filter's fields in a statement over `s`, the row of the schedule.
fn column(field: &str) -> Option<Column> {
    let word = |word: &'static str, condition: &'static str| (word, condition.into());
    Some(match field {
        "app" => Column::texts(&["s.app_id", "(select a.name from app a where a.id = s.app_id)"]),
        "name" => Column::texts(&["s.name"]),
        "command" => Column::texts(&["s.command"]),
        "cron" => Column::texts(&["s.cron"]),
        "zone" => Column::texts(&["s.zone"]),
        "error" => Column::texts(&["s.error"]),
        "state" => Column::Words(vec![
            word("active", "(not s.is_paused and s.error is null)"),
            word("paused", "s.is_paused"),
            word("failing", "(not s.is_paused and s.error is not null)"),
        ]),
        _ => return None,
    })
}

/// Schedules by their apps and names, after the one of `after`.
pub(crate) async fn schedules(
    connection: &impl ConnectionTrait,
    filter: &ScheduleFilter,
    after: Option<(&AppId, &str)>,
    limit: u64,
) -> Result<Vec<Schedule>, StoreError> {
    let mut values: Vec<Value> = vec![signed(limit).into()];
    let mut text = "select s.* from schedule s where 1 = 1".to_owned();
    let mut bind = |value: &str| {
        values.push(value.into());
        values.len()
    };
    if let Some(app) = &filter.app {
        text.push_str(&format!(" and s.app_id = ${}", bind(app.as_str())));
    }
    if let Some((app, name)) = after {
        text.push_str(&format!(" and (s.app_id, s.name) > (${}, ${})", bind(app.as_str()), bind(name)));
    }
    if let Some(query) = &filter.query {
        let meant = filter::condition(connection.get_database_backend(), query, column, &mut values);
        text.push_str(&format!(" and ({meant})"));
    }
    text.push_str(" order by s.app_id, s.name limit $1");
    let found: Vec<schedule::Model> = rows::all(connection, "schedule", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// One schedule of an app.
pub(crate) async fn schedule(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
) -> Result<Schedule, StoreError> {
    row(connection, app, name).await?.map_or(Err(StoreError::NotFound), shown)
}

async fn row(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
) -> Result<Option<schedule::Model>, StoreError> {
    let text = "select * from schedule where app_id = $1 and name = $2";
    rows::one(connection, "schedule", text, vec![app.clone().into(), name.into()]).await
}

/// Makes a schedule, or changes it. With other times it starts from now.
pub(crate) async fn set(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
    settings: &ScheduleSettings,
    at: Timestamp,
) -> Result<Schedule, StoreError> {
    let before = row(connection, app, name).await?;
    let last_tick = match &before {
        Some(row) if row.cron == settings.cron && row.zone == settings.zone => Timestamp(row.last_tick),
        Some(row) => begins_anew(Timestamp(row.last_tick), at),
        None => at,
    };
    let is_paused = before.as_ref().is_some_and(|row| row.is_paused);
    let wake_at = if is_paused { None } else { next(&settings.cron, &settings.zone, last_tick)? };
    let mut values: Vec<Value> = vec![
        app.clone().into(),
        name.into(),
        settings.cron.clone().into(),
        settings.zone.clone().into(),
        settings.missed.into(),
        settings.overlap.into(),
        settings.command.clone().into(),
        settings.payload.clone().into(),
        i64::from(settings.priority).into(),
        settings.max_attempts.map(i64::from).into(),
        settings.callback.clone().into(),
        settings.watch.clone().into(),
        last_tick.0.into(),
        wake_at.map(|wake_at| wake_at.0).into(),
        at.0.into(),
    ];
    let text = if before.is_some() {
        "update schedule set cron = $3, zone = $4, missed = $5, overlap = $6, command = $7, payload = $8,
           priority = $9, max_attempts = $10, callback = $11, watch_id = $12, last_tick = $13,
           wake_at = $14, updated_at = $15, error = null
         where app_id = $1 and name = $2"
    } else {
        let text = "select count(*) from schedule where app_id = $1";
        let count = rows::number(connection, "schedule", text, vec![app.clone().into()]).await?;
        if count >= signed(SCHEDULES_MAX) {
            return Err(StoreError::Conflict(format!("an app has at most {SCHEDULES_MAX} schedules")));
        }
        values.push(at.0.into());
        "insert into schedule (app_id, name, cron, zone, missed, overlap, command, payload, priority,
           max_attempts, callback, watch_id, is_paused, last_tick, wake_at, missed_ticks, skipped_ticks,
           updated_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, false, $13, $14, 0, 0, $15, $16)"
    };
    rows::execute(connection, "schedule", text, values).await?;
    schedule(connection, app, name).await
}

/// Lets a schedule rest, or go on with the ticks from now on.
pub(crate) async fn pause(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
    is_paused: bool,
    at: Timestamp,
) -> Result<Schedule, StoreError> {
    let before = row(connection, app, name).await?.ok_or(StoreError::NotFound)?;
    if before.is_paused == is_paused {
        return shown(before);
    }
    let mut last_tick = Timestamp(before.last_tick);
    let mut wake_at = None;
    if !is_paused {
        last_tick = begins_anew(last_tick, at);
        wake_at = next(&before.cron, &before.zone, last_tick)?;
    }
    let text =
        "update schedule set is_paused = $1, last_tick = $2, wake_at = $3, updated_at = $4, error = null
                where app_id = $5 and name = $6";
    let values = vec![
        is_paused.into(),
        last_tick.0.into(),
        wake_at.map(|wake_at| wake_at.0).into(),
        at.0.into(),
        app.clone().into(),
        name.into(),
    ];
    rows::execute(connection, "schedule", text, values).await?;
    schedule(connection, app, name).await
}

/// Removes a schedule; its tasks stay.
pub(crate) async fn remove(
    connection: &impl ConnectionTrait,
    app: &AppId,
    name: &str,
) -> Result<(), StoreError> {
    let text = "delete from schedule where app_id = $1 and name = $2";
    let gone = rows::execute(connection, "schedule", text, vec![app.clone().into(), name.into()]).await?;
    if gone == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Removes the schedules that resync a watch, which is removed.
pub(crate) async fn remove_of_watch(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
) -> Result<(), StoreError> {
    let text = "delete from schedule where watch_id = $1";
    rows::execute(connection, "schedule", text, vec![watch.clone().into()]).await.map(drop)
}

/// Schedules of a restored database owe no tick from before now: nobody knows which of them had their tasks.
pub(crate) async fn of_restored(connection: &impl ConnectionTrait, at: Timestamp) -> Result<(), StoreError> {
    let text = "update schedule set last_tick = $1, wake_at = case when wake_at is null then null else $1 end
                where last_tick < $1";
    rows::execute(connection, "schedule", text, vec![at.0.into()]).await.map(drop)
}

fn next(cron: &str, zone: &str, last_tick: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let calendar = Calendar::of(cron, zone).map_err(|fault| StoreError::Conflict(fault.to_string()))?;
    Ok(calendar.after(last_tick))
}

fn shown(row: schedule::Model) -> Result<Schedule, StoreError> {
    Ok(Schedule {
        settings: ScheduleSettings {
            cron: row.cron,
            zone: row.zone,
            missed: row.missed,
            overlap: row.overlap,
            command: row.command,
            payload: row.payload,
            priority: u8::try_from(row.priority).map_err(|error| undecodable("schedule", error))?,
            max_attempts: row
                .max_attempts
                .map(u32::try_from)
                .transpose()
                .map_err(|error| undecodable("schedule", error))?,
            callback: row.callback,
            watch: row.watch_id,
        },
        app: row.app_id,
        name: row.name,
        is_paused: row.is_paused,
        last_tick: Timestamp(row.last_tick),
        last_task: row.last_task,
        missed_ticks: unsigned("schedule", row.missed_ticks)?,
        skipped_ticks: unsigned("schedule", row.skipped_ticks)?,
        error: row.error,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}
