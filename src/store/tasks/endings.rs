//! The entries `task.ended`, one for each end of a task with a `webhook`, addressed to the callback of that
//! address.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::task::TaskStanding,
    ports::{Origin, Random, StoreError, WatchTaskEnd},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId, TaskId},
    kind::{EntryType, OriginKind, TaskState},
    task,
};

use super::{NewTask, Operation, watch_tasks::aside};
use crate::{
    database::rows,
    ledger::{self, Note, subscriptions::callbacks::Callbacks},
};

/// Most bytes of a result in an entry. Of a larger one the entry says where it is read.
const RESULT_MAX: usize = 1_024;
/// The `error` of a task that was removed with its queue's open tasks.
const PURGED: &str = "the queue was purged";

/// How a task ended.
pub(super) struct Ending<'a> {
    pub(super) command: Option<&'a str>,
    pub(super) state: TaskState,
    pub(super) attempts: i64,
    pub(super) error: Option<&'a str>,
    /// JSON as the worker sent it.
    pub(super) result: Option<&'a str>,
}

/// What a task comes from.
pub(super) fn origin(row: &task::Model) -> Origin {
    Origin { kind: row.origin_kind, name: row.origin.clone() }
}

/// How a task of a watch ended, in a word; `None`: no watch made it.
pub(super) fn of_watch(row: &task::Model, standing: &TaskStanding) -> Option<WatchTaskEnd> {
    row.cursor_id.as_ref()?;
    Some(match standing.state {
        _ if row.flag.as_deref() == Some(aside::OVERTAKEN) => WatchTaskEnd::Overtaken,
        TaskState::Succeeded => WatchTaskEnd::Succeeded,
        TaskState::Failed => WatchTaskEnd::Failed,
        TaskState::Dead => WatchTaskEnd::Dead,
        _ => WatchTaskEnd::Cancelled,
    })
}

/// The entry about a task that died. The entry of a task of a watch leads to the round of its change, which
/// is a dead letter now.
pub(super) fn dead(row: &task::Model, standing: &TaskStanding, command: Option<&str>) -> Note {
    let note = Note::new(row.app_id.clone(), row.id.as_str(), EntryType::TaskDead, origin(row));
    let note = note.with("command", command).with("attempts", standing.attempts);
    let note = note.with("error", standing.error.clone());
    match &row.watch_id {
        Some(watch) => note.of_watch(watch.clone()),
        None => note,
    }
}

/// The entry about the end of a task; `None`: nobody is called back.
pub(super) fn note(task: &task::Model, ending: &Ending<'_>) -> Option<Note> {
    let callback = SubscriptionId::of_callback(&task.app_id, task.callback.as_deref()?);
    let origin = origin(task);
    let note = Note::new(task.app_id.clone(), task.id.as_str(), EntryType::TaskEnded, origin);
    let mut note = note
        .addressed(callback)
        .with("command", ending.command)
        .with("state", ending.state.as_str())
        .with("attempts", ending.attempts)
        .with("error", ending.error);
    if let Some(result) = ending.result {
        note = note
            .with("result_bytes", result.len())
            .with("result_url", format!("/api/tasks/{}/result", task.id));
        let small = (result.len() <= RESULT_MAX).then(|| ledger::value_of(result));
        note = note.whole("result", small.flatten());
    }
    Some(note)
}

/// The addresses of the tasks that an operation may create.
pub(super) fn addresses(operation: &Operation) -> Vec<(AppId, String)> {
    let of = |app: &AppId, tasks: &[NewTask]| -> Vec<(AppId, String)> {
        tasks.iter().filter_map(|task| Some((app.clone(), task.callback.clone()?))).collect()
    };
    match operation {
        Operation::Create(app, tasks) => of(app, tasks),
        Operation::Move(words) => words.iter().flat_map(|word| of(&word.app, &word.then)).collect(),
        Operation::Claim(_) | Operation::Wake => Vec::new(),
    }
}

/// An open task that a purge removed.
#[derive(FromQueryResult)]
pub(super) struct Purged {
    pub(super) id: TaskId,
    app_id: AppId,
    pub(super) state: TaskState,
    pub(super) bytes: i64,
    attempts: i64,
    origin_kind: OriginKind,
    origin: String,
    callback: Option<String>,
}

impl Purged {
    /// Whether a schedule created it, or a task that it follows up.
    pub(super) fn is_of_tick(&self) -> bool {
        self.origin_kind == OriginKind::Tick
    }
}

/// Makes the callbacks of tasks that a purge removed, and returns their entries: the tasks are cancelled.
pub(super) async fn of_purged(
    connection: &impl ConnectionTrait,
    command: &str,
    purged: &[Purged],
    at: Timestamp,
) -> Result<Vec<Note>, StoreError> {
    let called: Vec<(&Purged, &String)> =
        purged.iter().filter_map(|task| Some((task, task.callback.as_ref()?))).collect();
    let wanted: BTreeSet<(AppId, String)> =
        called.iter().map(|(task, address)| (task.app_id.clone(), (*address).clone())).collect();
    let mut callbacks = Callbacks::load(connection, wanted).await?;
    let mut notes = Vec::with_capacity(called.len());
    for (task, address) in called {
        let callback = callbacks.need(&task.app_id, address);
        let origin = Origin { kind: task.origin_kind, name: task.origin.clone() };
        let note = Note::new(task.app_id.clone(), task.id.as_str(), EntryType::TaskEnded, origin);
        notes.push(
            note.addressed(callback)
                .with("command", command)
                .with("state", TaskState::Cancelled.as_str())
                .with("attempts", task.attempts)
                .with("error", PURGED),
        );
    }
    callbacks.write(connection, at).await?;
    Ok(notes)
}

#[derive(FromQueryResult)]
struct Command {
    command: String,
}

/// Writes the ends of tasks that a restore of the database cancels: their claims were flagged.
pub(super) async fn of_restored(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "select * from task where state = 'claimed' and flag is not null and callback is not null
                order by id";
    let tasks: Vec<task::Model> = rows::all(connection, "task", text, vec![]).await?;
    let wanted =
        tasks.iter().filter_map(|task| Some((task.app_id.clone(), task.callback.clone()?))).collect();
    let mut callbacks = Callbacks::load(connection, wanted).await?;
    let mut notes = Vec::with_capacity(tasks.len());
    for task in &tasks {
        if let Some(address) = &task.callback {
            callbacks.need(&task.app_id, address);
        }
        let text = "select command from queue where id = $1";
        let values = vec![task.queue_id.clone().into()];
        let queue: Option<Command> = rows::one(connection, "queue", text, values).await?;
        notes.extend(note(
            task,
            &Ending {
                command: queue.as_ref().map(|queue| queue.command.as_str()),
                state: TaskState::Cancelled,
                attempts: task.attempts,
                error: task.error.as_deref(),
                result: None,
            },
        ));
    }
    callbacks.write(connection, at).await?;
    ledger::write_unheard(connection, random, notes, at).await
}
