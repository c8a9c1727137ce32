//! Creating tasks: one, or many of which all are there or none.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tidings_actors::{
    model::codeq,
    ports::{COMMAND_MAX, COMMAND_RESERVED, CreatedTask, NewTask, Origin, TASK_BATCH_MAX, TaskRequestKey},
};
use tidings_entity::{
    id::{Sha256Hash, TaskId},
    kind::OriginKind,
};
use utoipa::ToSchema;

use super::{may_use, owner, refused};
use crate::http::{
    apps::receiver::read_web_address,
    bodies::{
        body::body,
        fields::Fields,
        moment::parsed,
        problem::{Kind, Problem},
        raw::{self, RawFields},
    },
    door::{
        idempotency,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// The longest wait until a task is due (one year, in seconds).
pub(in crate::http) const DELAY_MAX: u64 = 366 * 24 * 3_600;
/// The fault of a name for which [`is_of_dots`] is true.
pub(super) const OF_DOTS: &str = "must not be . or .., which clients take for a step in the path";
/// Most attempts of a task.
pub(in crate::http) const ATTEMPTS_MAX: u64 = 1_000;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_create, _, _>(Access::App(Permission::TasksCreate), create),
        route::<__path_create_batch, _, _>(Access::App(Permission::TasksCreate), create_batch),
    ]
}

body! {
    /// A task to create.
    pub(super) struct TaskToCreate {
        /// Command, which names the queue: 1 to 128 letters, digits and `_.:-`. The first task creates the
        /// queue.
        command: String,
        /// Payload for the worker: any JSON, kept byte for byte, at most 256 KiB or the limit of the queue.
        payload: Option<Value>,
        /// Priority, 0 to 9; 9 is claimed first. Default 0.
        priority: Option<u64>,
        /// Number of attempts after which the task is dead. Missing: the setting of the queue.
        max_attempts: Option<u64>,
        /// When the task is due (RFC 3339). Missing or in the past: at once.
        run_at: Option<String>,
        /// Seconds until the task is due. Not together with `run_at`.
        delay_seconds: Option<u64>,
        /// Idempotency key of the task in its queue: a second request with the same key creates no second
        /// task. The key is kept as long as the task, and at least 24 hours after its end. A request for one
        /// task can use the header `Idempotency-Key` instead.
        key: Option<String>,
        /// A web address that is sent one message, signed with the key of the app, when the task ends: the
        /// entry `task.ended` of the ledger. An app's tasks have at most 100 different addresses.
        #[schema(max_length = 2048)]
        webhook: Option<String>,
    }
}

body! {
    /// Tasks to create together.
    struct TasksToCreate {
        /// The tasks, 1 to 100.
        tasks: Vec<TaskToCreate>,
    }
}

/// A task that exists now.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedShown {
    /// Id of the task, `tsk_...`.
    id: String,
    /// Whether this request created the task. False: an earlier request with the same key did.
    created: bool,
}

impl CreatedShown {
    pub(super) fn of(created: &CreatedTask) -> Self {
        Self { id: created.id.to_string(), created: created.is_new }
    }
}

/// Tasks that exist now.
#[derive(Serialize, ToSchema)]
struct CreatedList {
    /// The tasks, in the order of the request.
    tasks: Vec<CreatedShown>,
}

/// Creates a task. The answer comes when the task is on disk.
#[utoipa::path(post, path = "/api/tasks", tag = "tasks", request_body = TaskToCreate,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same as `key` in the body.")),
    responses(
        (status = 200, body = CreatedShown, description = "An earlier request with this key created the \
            task."),
        (status = 201, body = CreatedShown),
        (status = 409, description = "The key was used for a different task."),
        (status = 413, description = "The payload is larger than the queue allows."),
        (status = 429, description = "The app has reached its limit of queues, open tasks or bytes.")
    ))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    let header = request.headers.get(idempotency::HEADER);
    let header = header.map(HeaderValue::to_str).transpose();
    let header =
        header.map_err(|_| Problem::malformed("Idempotency-Key must have visible ASCII characters only"))?;
    let task = read(&front, &request, &request.body, header)?;
    let created = front.tasks.create_tasks(&app, vec![task]).await;
    let created = created.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let created = created.map_err(|refusal| refused(&refusal, None))?;
    let [created] = &created[..] else { return Err(Problem::new(Kind::INTERNAL)) };
    let status = if created.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &CreatedShown::of(created)))
}

/// Creates several tasks, all of them or none.
#[utoipa::path(post, path = "/api/tasks/batch", tag = "tasks", request_body = TasksToCreate, responses(
    (status = 201, body = CreatedList),
    (status = 409, description = "A key was used for a different task. No task was created."),
    (status = 413, description = "A payload is larger than its queue allows. No task was created."),
    (status = 429, description = "The tasks would exceed a limit of the app. No task was created.")
))]
async fn create_batch(front: Arc<Front>, request: Request) -> Answer {
    let app = owner(&request)?.id.clone();
    if request.headers.contains_key(idempotency::HEADER) {
        return Err(Problem::malformed(
            "Idempotency-Key names one task: give each task of a batch a key of its own (the field key)",
        ));
    }
    let mut raw = RawFields::of(&request.body)?;
    let list = raw.take("tasks")?;
    let mut fields = Fields::of_body::<TasksToCreate>(&raw.rest())?;
    fields.is_kept_raw("tasks");
    fields.finish()?;
    let tasks = read_list(&front, &request, "tasks", list)?;
    let created = front.tasks.create_tasks(&app, tasks).await;
    let created = created.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let created = created.map_err(|refusal| refused(&refusal, Some("tasks")))?;
    Ok(json(StatusCode::CREATED, &CreatedList { tasks: created.iter().map(CreatedShown::of).collect() }))
}

/// Reads a list of tasks to create.
pub(super) fn read_list(
    front: &Front,
    request: &Request,
    name: &str,
    list: Option<&RawValue>,
) -> Result<Vec<NewTask>, Problem> {
    let items = raw::items(name, list, TASK_BATCH_MAX)?;
    let task = |(at, item): (usize, &RawValue)| {
        read(front, request, item.get().as_bytes(), None).map_err(|problem| problem.within(name, at))
    };
    items.into_iter().enumerate().map(task).collect()
}

/// Reads a task to create.
fn read(front: &Front, request: &Request, body: &[u8], header: Option<&str>) -> Result<NewTask, Problem> {
    let mut raw = RawFields::of(body)?;
    let payload = raw.take("payload")?.map_or("null", RawValue::get).to_owned();
    let mut fields = Fields::of_body::<TaskToCreate>(&raw.rest())?;
    fields.is_kept_raw("payload");
    let command = command(&mut fields);
    let priority = at_most(&mut fields, "priority", 0, 9);
    let max_attempts = at_most(&mut fields, "max_attempts", 1, ATTEMPTS_MAX);
    let delay = at_most(&mut fields, "delay_seconds", 0, DELAY_MAX).map(Duration::from_secs);
    let run_at = fields.text("run_at", 1..=64);
    if run_at.as_deref().is_some_and(|text| parsed(text).is_none()) {
        fields.refuse("run_at", "must be a moment (RFC 3339), for example 2026-11-25T08:00:00Z");
    }
    if run_at.is_some() && delay.is_some_and(|delay| !delay.is_zero()) {
        fields.refuse("delay_seconds", "must not be sent with run_at: send one of them");
    }
    let own = fields.text("key", 1..=idempotency::KEY_CHARACTERS_MAX);
    if header.is_some_and(|header| header.is_empty() || header.len() > idempotency::KEY_CHARACTERS_MAX) {
        let most = idempotency::KEY_CHARACTERS_MAX;
        fields.refuse("key", format!("must have 1 to {most} characters"));
    }
    if own.as_deref().zip(header).is_some_and(|(own, header)| own != header) {
        fields.refuse("key", "must be equal to the header Idempotency-Key");
    }
    let webhook = read_web_address(front, &mut fields, "webhook");
    fields.finish()?;
    may_use(request, Some(&command))?;
    let draft = Draft {
        command,
        payload,
        priority: u8::try_from(priority.unwrap_or(0)).unwrap_or(9),
        max_attempts: max_attempts.and_then(|most| u32::try_from(most).ok()),
        run_at,
        delay,
        key: own.or(header.map(str::to_owned)),
        webhook,
    };
    Ok(draft.task(front, request))
}

/// A task to create, in the words of its producer. All values were checked.
pub(in crate::http) struct Draft {
    pub(in crate::http) command: String,
    pub(in crate::http) payload: String,
    pub(in crate::http) priority: u8,
    pub(in crate::http) max_attempts: Option<u32>,
    /// A moment of RFC 3339, as it was sent.
    pub(in crate::http) run_at: Option<String>,
    pub(in crate::http) delay: Option<Duration>,
    pub(in crate::http) key: Option<String>,
    pub(in crate::http) webhook: Option<String>,
}

impl Draft {
    /// The task that the sender of the request creates.
    pub(in crate::http) fn task(self, front: &Front, request: &Request) -> NewTask {
        let key = self.key.as_deref().map(|key| TaskRequestKey {
            key_hash: Sha256Hash::of(key.as_bytes()).to_string(),
            request_hash: self.meaning(),
        });
        NewTask {
            id: TaskId::new(front.random.ulid(front.clock.now())),
            run_at: self.run_at.as_deref().and_then(parsed),
            command: self.command,
            payload: self.payload,
            priority: self.priority,
            max_attempts: self.max_attempts,
            delay: self.delay,
            key,
            origin: Origin { kind: OriginKind::Person, name: request.actor.clone() },
            callback: self.webhook,
        }
    }

    /// A hash of what the request means, and not of how it is written: a retry may send its key in another
    /// place.
    fn meaning(&self) -> String {
        let Self { command, payload, priority, max_attempts, run_at, .. } = self;
        let delay = self.delay.unwrap_or_default();
        let rest = (command, payload, priority, max_attempts, delay, run_at);
        let webhook = self.webhook.iter().map(|webhook| format!(" {:?}", codeq::address(webhook)));
        Sha256Hash::of(format!("{rest:?}{}", webhook.collect::<String>()).as_bytes()).to_string()
    }
}

/// Reads the command of a task.
fn command(fields: &mut Fields) -> String {
    let command = fields.required_text("command", 1..=COMMAND_MAX);
    if let Err(reason) = check_command(&command)
        && !command.is_empty()
    {
        fields.refuse("command", reason);
    }
    command
}

/// Whether the name is `.` or `..`, which clients resolve in a path.
pub(super) fn is_of_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// Checks a command; the error is the fault.
pub(in crate::http) fn check_command(command: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if command.is_empty() || command.len() > COMMAND_MAX || !command.bytes().all(is_plain) {
        return Err(format!("must be 1 to {COMMAND_MAX} letters, digits and _.:-"));
    }
    if is_of_dots(command) {
        return Err(OF_DOTS.to_owned());
    }
    if command.starts_with(COMMAND_RESERVED) {
        return Err(format!("must not begin with {COMMAND_RESERVED}, which is reserved"));
    }
    Ok(())
}

/// Reads a number within bounds.
pub(super) fn at_most(fields: &mut Fields, name: &str, least: u64, most: u64) -> Option<u64> {
    fields.number_within(name, least..=most)
}
