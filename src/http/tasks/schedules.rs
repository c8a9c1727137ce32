//! Schedules: when tasks are created, and which; or when a watch is resynced.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tidings_actors::{
    model::{
        filter::sets,
        schedule::{CRON_MAX, Calendar, CalendarFault},
    },
    ports::{
        COMMAND_MAX, PAYLOAD_DEFAULT, SCHEDULE_NAME_MAX, SCHEDULES_MAX, Schedule, ScheduleFilter,
        ScheduleSettings, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{TaskId, WatchId},
    kind::{MissedTicks, TickOverlap},
};
use ulid::Ulid;
use utoipa::ToSchema;

use super::{
    claims::nothing,
    creates::{ATTEMPTS_MAX, OF_DOTS, at_most, check_command, is_of_dots},
    may_use, owner,
    queues::PlaceOfApp,
    shown::raw,
};
use crate::http::{
    apps::{receiver::read_web_address, watch_sink::refuse_beside_older},
    bodies::{
        body::body,
        fields::Fields,
        filters,
        moment::iso,
        names::{NOT_WATCHED, Names},
        paging::{Page, Query, cut, page},
        problem::{Kind, Problem},
        raw::RawFields,
    },
    door::{
        auth::lacking,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// The name of the list in its cursors, followed by the app.
const SCHEDULES: &str = "schedules";
/// What the cursors of the list of all apps are made for.
const ALL_SCHEDULES: &str = "admin schedules";
/// How many of the next ticks one schedule shows.
const TICKS_SHOWN: usize = 10;
/// Most characters of the name of a zone.
const ZONE_MAX: usize = 64;

/// The routes of the staff in this file.
pub(super) fn staff_routes() -> Vec<Route> {
    vec![route::<__path_list_all, _, _>(Access::Staff(Permission::SchedulesRead), list_all)]
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::SchedulesRead), list),
        route::<__path_show, _, _>(Access::App(Permission::SchedulesRead), show),
        route::<__path_set, _, _>(Access::App(Permission::SchedulesUpdate), set),
        route::<__path_remove, _, _>(Access::App(Permission::SchedulesUpdate), remove),
        route::<__path_pause, _, _>(Access::App(Permission::SchedulesPause), pause),
        route::<__path_resume, _, _>(Access::App(Permission::SchedulesPause), resume),
    ]
}

body! {
    /// When a schedule creates tasks, and which, or which repository it resyncs. Each request sets all
    /// fields: one that is missing gets its default.
    struct ScheduleToSet {
        /// Cron line: minute, hour, day of the month, month and day of the week; or `@hourly`, `@daily`,
        /// `@weekly`, `@monthly` or `@yearly`.
        cron: String,
        /// IANA name of the time zone of the cron line, such as `Europe/Rome`. Default `UTC`.
        zone: Option<String>,
        /// Command of the tasks. Required unless `repository_id` is given.
        command: Option<String>,
        /// Id of a watched repository (`repo_...`). At each tick the repository is resynced, as by a resync
        /// by hand; no task is created, so the fields of tasks are refused. Requires the permission
        /// `watches:resync` as well.
        repository_id: Option<String>,
        /// Payload of the tasks: any JSON, kept byte for byte, at most 256 KiB. Default `null`.
        payload: Option<Value>,
        /// Priority of the tasks, 0 to 9. Default 0.
        priority: Option<u64>,
        /// Number of attempts after which a task is dead. Missing: the setting of the queue.
        max_attempts: Option<u64>,
        /// Web address that receives a message when a task of the schedule ends, as `webhook` of a task.
        #[schema(max_length = 2048)]
        webhook: Option<String>,
        /// Handling of ticks that passed while no server ran: `one` task for all of them, or one task for
        /// `each` of the newest 100. Default `one`.
        missed: Option<String>,
        /// Handling of a tick while the task (or resync) of the previous tick has not ended: `allow` the next
        /// one, `skip` the tick, or `wait` for that end. Default `allow`.
        overlap: Option<String>,
    }
}

/// A schedule with its state and its next ticks.
#[derive(Serialize, ToSchema)]
struct ScheduleShown {
    /// Name of the schedule.
    name: String,
    /// Cron line of the schedule.
    cron: String,
    /// Time zone of the cron line.
    zone: String,
    /// Command of the tasks. Missing: the schedule resyncs a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Id of the repository that is resynced at each tick. Missing: the schedule creates tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_id: Option<String>,
    /// Payload of the tasks, byte for byte.
    #[schema(value_type = serde_json::Value)]
    payload: Option<Box<RawValue>>,
    /// Priority of the tasks.
    priority: u8,
    /// Number of attempts after which a task is dead. Missing: the setting of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    /// Web address that receives a message when a task of the schedule ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// Handling of missed ticks: `one` task for all, or one for `each`.
    missed: &'static str,
    /// Handling of a tick while the last task or resync has not ended: `allow`, `skip` or `wait`.
    overlap: &'static str,
    /// Whether the schedule is paused and creates no tasks.
    paused: bool,
    /// The next ticks, in ISO 8601, UTC: ten for one schedule, one in a list. Empty: the schedule is paused.
    next: Vec<String>,
    /// Id of the task that the schedule created last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_task: Option<String>,
    /// When the schedule created that task.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_task_at: Option<String>,
    /// Number of ticks without a task because no server ran.
    missed_ticks: u64,
    /// Number of ticks without a task because the previous task had not ended; or without a resync, because
    /// the previous one had not ended or the watch was paused.
    skipped_ticks: u64,
    /// Why the last attempt to create a task failed. The server tries again every minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When the schedule was created.
    created_at: String,
    /// When a person last changed the schedule.
    updated_at: String,
}

impl ScheduleShown {
    fn of(schedule: &Schedule, ticks: usize, now: Timestamp) -> Self {
        let settings = &schedule.settings;
        let calendar = Calendar::of(&settings.cron, &settings.zone).ok().filter(|_| !schedule.is_paused);
        let from = schedule.last_tick.max(now);
        let next = calendar.iter().flat_map(|calendar| {
            std::iter::successors(calendar.after(from), move |tick| calendar.after(*tick)).take(ticks)
        });
        Self {
            name: schedule.name.clone(),
            cron: settings.cron.clone(),
            zone: settings.zone.clone(),
            command: settings.watch.is_none().then(|| settings.command.clone()),
            repository_id: settings.watch.as_ref().map(ToString::to_string),
            payload: raw(Some(settings.payload.clone())),
            priority: settings.priority,
            max_attempts: settings.max_attempts,
            webhook: settings.callback.clone(),
            missed: settings.missed.as_str(),
            overlap: settings.overlap.as_str(),
            paused: schedule.is_paused,
            next: next.map(iso).collect(),
            last_task: schedule.last_task.as_ref().map(ToString::to_string),
            last_task_at: schedule.last_task.as_ref().and_then(made_at).map(iso),
            missed_ticks: schedule.missed_ticks,
            skipped_ticks: schedule.skipped_ticks,
            error: schedule.error.clone(),
            created_at: iso(schedule.created_at),
            updated_at: iso(schedule.updated_at),
        }
    }
}

/// Lists the schedules of the app, in the order of their names. A token for some commands sees those that
/// create tasks of these commands.
#[utoipa::path(get, path = "/api/schedules", tag = "tasks",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Filter, see docs/filters.md."),
    ),
    responses((status = 200, body = Page<ScheduleShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let (limit, list, now) = (query.limit()?, format!("{SCHEDULES} {app}"), front.clock.now());
    let after: Option<String> = query.after(&list)?;
    let filter =
        ScheduleFilter { app: Some(app.clone()), query: filters::of_query(&query, &sets::SCHEDULES, now)? };
    let after = after.as_deref().map(|name| (&app, name));
    // Of the schedules of an app, which are few, a token for some commands may see any part.
    let most = if request.may_use("") { limit + 1 } else { SCHEDULES_MAX };
    let schedules = front.tasks.schedules(&filter, after, most).await;
    let mut schedules = schedules.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    schedules.retain(|schedule| request.may_use(&schedule.settings.command));
    schedules.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
    let shown = |schedule: &_| ScheduleShown::of(schedule, 1, now);
    Ok(json(StatusCode::OK, &page(schedules, limit, &list, |schedule| schedule.name.clone(), shown)))
}

/// A schedule, with its app.
#[derive(Serialize, ToSchema)]
struct ScheduleOfApp {
    /// Id of the app.
    app_id: String,
    /// Name of the app.
    app_name: String,
    #[serde(flatten)]
    schedule: ScheduleShown,
}

/// Lists the schedules of all apps, in the order of apps and names.
#[utoipa::path(get, path = "/api/admin/schedules", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Filter, see docs/filters.md."),
    ),
    responses((status = 200, body = Page<ScheduleOfApp>)))]
async fn list_all(front: Arc<Front>, request: Request) -> Answer {
    may_use(&request, None)?;
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let (limit, now) = (query.limit()?, front.clock.now());
    let filter = ScheduleFilter { app: None, query: filters::of_query(&query, &sets::SCHEDULES, now)? };
    let after: Option<PlaceOfApp> = query.after(ALL_SCHEDULES)?;
    let after = after.as_ref().map(|PlaceOfApp(app, name)| (app, name.as_str()));
    let schedules = front.tasks.schedules(&filter, after, limit + 1).await;
    let mut schedules = schedules.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    let place = |schedule: &Schedule| PlaceOfApp::text(&schedule.app, &schedule.name);
    let next_cursor = cut(&mut schedules, limit, ALL_SCHEDULES, place);
    let (mut names, mut items) = (Names::of(&front), Vec::with_capacity(schedules.len()));
    for schedule in &schedules {
        items.push(ScheduleOfApp {
            app_id: schedule.app.to_string(),
            app_name: names.app(&schedule.app).await?.name,
            schedule: ScheduleShown::of(schedule, 1, now),
        });
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

/// Shows one schedule with its next ten ticks.
#[utoipa::path(get, path = "/api/schedules/{name}", tag = "tasks", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let schedule = seen(&front, &request).await?;
    Ok(json(StatusCode::OK, &ScheduleShown::of(&schedule, TICKS_SHOWN, front.clock.now())))
}

/// The schedule in the path, if the token of the caller may use its command.
async fn seen(front: &Front, request: &Request) -> Result<Schedule, Problem> {
    let app = owner(request)?;
    let schedule = front.tasks.schedule(&app.id, name(request)?).await;
    let schedule = schedule.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    let may = request.may_use(&schedule.settings.command);
    if may { Ok(schedule) } else { Err(Problem::new(Kind::NO_SCHEDULE)) }
}

/// Creates a schedule, or replaces its settings. If `cron` or `zone` changes, ticks before now create no
/// tasks any more. A schedule is removed together with the repository that it resyncs.
#[utoipa::path(put, path = "/api/schedules/{name}", tag = "tasks", params(("name" = String, Path)),
    request_body = ScheduleToSet, responses(
        (status = 200, body = ScheduleShown),
        (status = 409, description = "The app has reached its limit of schedules.")
    ))]
async fn set(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?;
    let name = name(&request)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > SCHEDULE_NAME_MAX || !name.bytes().all(is_plain) {
        let reason = format!("must be 1 to {SCHEDULE_NAME_MAX} letters, digits and _.-");
        return Err(Problem::invalid_field("name", reason));
    }
    if is_of_dots(name) {
        return Err(Problem::invalid_field("name", OF_DOTS));
    }
    let settings = settings(&front, &request.body)?;
    match &settings.watch {
        Some(watch) => check_watch(&front, &request, watch).await?,
        None => may_use(&request, Some(&settings.command))?,
    }
    match front.tasks.schedule(&app.id, name).await {
        // What is there under this name is of a command that the token is not for.
        Ok(there) if !request.may_use(&there.settings.command) => {
            return Err(Problem::new(Kind::NO_SCHEDULE));
        }
        Ok(_) | Err(StoreError::NotFound) => {}
        Err(failure) => return Err(Problem::of_store(failure, Kind::NO_SCHEDULE)),
    }
    let schedule = front.tasks.set_schedule(&app.id, name, &settings).await;
    let schedule = schedule.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    Ok(json(StatusCode::OK, &ScheduleShown::of(&schedule, TICKS_SHOWN, front.clock.now())))
}

/// Checks that the caller may resync this watch.
async fn check_watch(front: &Front, request: &Request, watch: &WatchId) -> Result<(), Problem> {
    if !request.powers.may(Permission::WatchesResync) {
        return Err(lacking(Permission::WatchesResync));
    }
    // The name that no command has: only a token for all commands matches it.
    if !request.may_use("") {
        let detail = "the token is for some commands only, and a schedule that resyncs is of no command";
        return Err(Problem::new(Kind::PERMISSION_REQUIRED).with_detail(detail));
    }
    match front.store.watch(&owner(request)?.id, watch).await {
        Ok(_) => refuse_beside_older(front, "no schedules that resync").await,
        Err(StoreError::NotFound) => Err(Problem::invalid_field("repository_id", NOT_WATCHED)),
        Err(failure) => Err(Problem::of_store(failure, Kind::NO_SCHEDULE)),
    }
}

/// Reads what a schedule does at its ticks: the watch that it resyncs, or the command of its tasks.
fn read_work(fields: &mut Fields, has_payload: bool) -> (Option<WatchId>, String) {
    if let Some(id) = fields.text("repository_id", 1..=64) {
        let watch = id.parse::<WatchId>();
        if watch.is_err() {
            fields.refuse("repository_id", NOT_WATCHED);
        }
        let of_tasks = ["command", "priority", "max_attempts", "webhook"];
        let said = of_tasks.into_iter().filter(|name| fields.has(name));
        let said: Vec<&str> = said.chain(has_payload.then_some("payload")).collect();
        for name in said {
            fields.refuse(name, "is for schedules that create tasks: leave it out beside repository_id");
        }
        return (watch.ok(), String::new());
    }
    let command = fields.required_text("command", 1..=COMMAND_MAX);
    if let Err(reason) = check_command(&command)
        && !command.is_empty()
    {
        fields.refuse("command", reason);
    }
    (None, command)
}

fn settings(front: &Front, body: &[u8]) -> Result<ScheduleSettings, Problem> {
    let mut raw = RawFields::of(body)?;
    let payload = raw.take("payload")?;
    let (has_payload, payload) = (payload.is_some(), payload.map_or("null", RawValue::get).to_owned());
    let mut fields = Fields::of_body::<ScheduleToSet>(&raw.rest())?;
    fields.is_kept_raw("payload");
    if payload.len() as u64 > PAYLOAD_DEFAULT {
        fields.refuse("payload", format!("must have at most {PAYLOAD_DEFAULT} bytes"));
    }
    let (watch, command) = read_work(&mut fields, has_payload);
    let cron = fields.required_text("cron", 1..=CRON_MAX);
    let zone = fields.text("zone", 1..=ZONE_MAX).unwrap_or_else(|| "UTC".to_owned());
    match Calendar::of(&cron, &zone) {
        Err(CalendarFault::Cron(fault)) if !cron.is_empty() => fields.refuse("cron", fault.to_string()),
        Err(fault @ CalendarFault::Zone(_)) => fields.refuse("zone", fault.to_string()),
        _ => {}
    }
    let words = |words: Vec<&str>| words.join(", ");
    let missed = words(MissedTicks::ALL.iter().map(|word| word.as_str()).collect());
    let overlap = words(TickOverlap::ALL.iter().map(|word| word.as_str()).collect());
    let settings = ScheduleSettings {
        watch,
        command,
        cron,
        zone,
        payload,
        missed: fields.word("missed", &missed).unwrap_or(MissedTicks::One),
        overlap: fields.word("overlap", &overlap).unwrap_or(TickOverlap::Allow),
        priority: at_most(&mut fields, "priority", 0, 9)
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(0),
        max_attempts: at_most(&mut fields, "max_attempts", 1, ATTEMPTS_MAX)
            .and_then(|most| u32::try_from(most).ok()),
        callback: read_web_address(front, &mut fields, "webhook"),
    };
    if settings.watch.is_some() && settings.missed == MissedTicks::Each {
        fields.refuse("missed", "must be one: a resync for each missed tick would send the same files again");
    }
    fields.finish()?;
    Ok(settings)
}

/// Removes a schedule. The tasks that it created stay.
#[utoipa::path(delete, path = "/api/schedules/{name}", tag = "tasks", params(("name" = String, Path)),
    responses((status = 204, description = "The schedule is removed.")))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let schedule = seen(&front, &request).await?;
    let removed = front.tasks.remove_schedule(&schedule.app, &schedule.name).await;
    removed.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    Ok(nothing())
}

/// Pauses a schedule. Ticks during the pause create no tasks, not even later.
#[utoipa::path(post, path = "/api/schedules/{name}/pause", tag = "tasks", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleShown)))]
async fn pause(front: Arc<Front>, request: Request) -> Answer {
    paused(&front, &request, true).await
}

/// Resumes a schedule, beginning with its next tick.
#[utoipa::path(post, path = "/api/schedules/{name}/resume", tag = "tasks", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleShown)))]
async fn resume(front: Arc<Front>, request: Request) -> Answer {
    paused(&front, &request, false).await
}

async fn paused(front: &Front, request: &Request, is_paused: bool) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let schedule = seen(front, request).await?;
    let schedule = front.tasks.pause_schedule(&schedule.app, &schedule.name, is_paused).await;
    let schedule = schedule.map_err(|error| Problem::of_store(error, Kind::NO_SCHEDULE))?;
    Ok(json(StatusCode::OK, &ScheduleShown::of(&schedule, TICKS_SHOWN, front.clock.now())))
}

/// The moment of the id of a task.
fn made_at(task: &TaskId) -> Option<Timestamp> {
    let id: Ulid = task.as_str().trim_start_matches(TaskId::PREFIX).parse().ok()?;
    i64::try_from(id.timestamp_ms()).ok().map(Timestamp)
}

/// The name in the path.
fn name(request: &Request) -> Result<&str, Problem> {
    request.parameters.first().map(String::as_str).ok_or_else(|| Problem::new(Kind::NO_SCHEDULE))
}
