//! Tasks that a turn creates: all of a request or none, decided before anything is written. A task that is
//! sent again is bounded as a new one is.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::task::{TaskMove, rank},
    ports::{
        CreateRefusal, CreatedTask, Creation, DEPTH_MAX, NewTask, OPEN_BYTES_MAX, OPEN_TASKS_MAX, Origin,
        QUEUES_MAX, QueueSettings, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId, TaskId},
    kind::TaskState,
    task,
};

use super::{Operation, endings::origin, moment, news::TaskChanges, queues::Queues, text};
use crate::{
    Context,
    database::rows::{self, LISTED_MAX, list, signed, sized},
    ledger::subscriptions::callbacks::Callbacks,
};

/// The task that others follow up, and which ends with their creation.
pub(super) struct Parent {
    id: TaskId,
    depth: i64,
    origin: Origin,
    bytes: i64,
}

impl Parent {
    pub(super) fn of(row: &task::Model) -> Self {
        Self { id: row.id.clone(), depth: row.depth, origin: origin(row), bytes: row.bytes }
    }
}

#[derive(FromQueryResult)]
struct KeyedTask {
    id: TaskId,
    queue_id: QueueId,
    key_hash: String,
    request_hash: Option<String>,
}

/// What an app has, over all of its queues.
#[derive(Clone, Default, FromQueryResult)]
struct AppUse {
    app_id: String,
    queues: i64,
    open: i64,
    bytes: i64,
}

/// A key in a queue, and the task and request that used it.
type Keys = HashMap<(QueueId, String), (TaskId, String)>;

/// The tasks that a turn creates.
pub(super) struct Creates {
    keys: Keys,
    uses: HashMap<AppId, AppUse>,
    rows: Vec<Vec<Value>>,
    payloads: Vec<Vec<Value>>,
    callbacks: Callbacks,
    changes: Arc<TaskChanges>,
    wake_at: Option<Timestamp>,
    at: Timestamp,
}

const TYPES: [&str; 17] = [
    "text", "text", "text", "text", "bigint", "bigint", "bigint", "bigint", "text", "text", "text", "bigint",
    "text", "text", "text", "bigint", "bigint",
];

impl Creates {
    /// Reads which keys are in use and what apps have.
    pub(super) async fn load<'t>(
        connection: &impl ConnectionTrait,
        context: &Context,
        operations: &'t [Operation],
        of_ticks: impl Iterator<Item = &'t AppId>,
        callbacks: Callbacks,
        at: Timestamp,
    ) -> Result<Self, StoreError> {
        let changes = context.tasks.clone();
        let (keys, uses, rows, payloads) = Default::default();
        let mut creates = Self { keys, uses, rows, payloads, callbacks, changes, wake_at: None, at };
        let asked: Vec<(&AppId, &NewTask)> = operations.iter().flat_map(asked).collect();
        let keyed: BTreeSet<(QueueId, &str)> = asked
            .iter()
            .filter_map(|(app, task)| {
                Some((QueueId::of(app, &task.command), task.key.as_ref()?.key_hash.as_str()))
            })
            .collect();
        let keyed: Vec<Vec<Value>> =
            keyed.into_iter().map(|(queue, key)| vec![queue.into(), key.into()]).collect();
        for some in keyed.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text", "text"], some);
            let text = format!(
                "with v(queue_id, key_hash) as ({values})
                 select distinct t.id, t.queue_id, t.key_hash, t.request_hash from v
                 join task t on t.queue_id = v.queue_id and t.key_hash = v.key_hash"
            );
            for found in rows::all::<KeyedTask>(connection, "task", &text, bound).await? {
                let request = found.request_hash.unwrap_or_default();
                creates.keys.insert((found.queue_id, found.key_hash), (found.id, request));
            }
        }
        let of_redrives = operations.iter().flat_map(sent_again);
        let apps: BTreeSet<&AppId> =
            asked.iter().map(|(app, _)| *app).chain(of_ticks).chain(of_redrives).collect();
        let apps: Vec<Vec<Value>> = apps.into_iter().map(|app| vec![app.clone().into()]).collect();
        for some in apps.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text"], some);
            let text = format!(
                "with v(app_id) as ({values})
                 select app_id, count(*) as queues,
                   cast(sum(waiting + ready + claimed + aside) as bigint) as open,
                   cast(sum(bytes) as bigint) as bytes
                 from queue where app_id in (select app_id from v) group by app_id"
            );
            for found in rows::all::<AppUse>(connection, "queue", &text, bound).await? {
                if let Ok(app) = found.app_id.parse() {
                    creates.uses.insert(app, found);
                }
            }
        }
        Ok(creates)
    }

    /// Creates all of these tasks of an app, or none.
    pub(super) fn create(
        &mut self,
        app: &AppId,
        tasks: &[NewTask],
        parent: Option<&Parent>,
        queues: &mut Queues,
    ) -> Creation {
        let mut used = self.uses.get(app).cloned().unwrap_or_default();
        let (mut keys, mut fresh): (Keys, BTreeSet<QueueId>) = Default::default();
        let mut created = Vec::with_capacity(tasks.len());
        if let Some(parent) = parent {
            if parent.depth >= DEPTH_MAX {
                return Err(CreateRefusal::Depth);
            }
            // Its end gives its place back: an app at a bound could end no task that another one follows up.
            used.open -= 1;
            used.bytes -= parent.bytes;
        }
        for (index, task) in tasks.iter().enumerate() {
            let queue = QueueId::of(app, &task.command);
            if let Some(key) = &task.key {
                let place = (queue.clone(), key.key_hash.clone());
                if let Some((id, request)) = keys.get(&place).or_else(|| self.keys.get(&place)) {
                    if *request != key.request_hash {
                        return Err(CreateRefusal::KeyReused(index));
                    }
                    created.push(CreatedTask { id: id.clone(), is_new: false });
                    continue;
                }
                keys.insert(place, (task.id.clone(), key.request_hash.clone()));
            }
            let limit = queues.get(&queue).map_or_else(
                || QueueSettings::default().payload_limit(),
                |queue| queue.settings.payload_limit(),
            );
            if task.payload.len() as u64 > limit {
                return Err(CreateRefusal::PayloadTooLarge(index, limit));
            }
            if queues.get(&queue).is_none() && fresh.insert(queue) {
                used.queues += 1;
            }
            used.open += 1;
            used.bytes += i64::try_from(task.payload.len()).unwrap_or(i64::MAX);
            created.push(CreatedTask { id: task.id.clone(), is_new: true });
        }
        within(&used, &created, !fresh.is_empty())?;
        let new = tasks.iter().zip(&created).filter(|(_, created)| created.is_new);
        if !self.callbacks.has_room(app, new.filter_map(|(task, _)| task.callback.as_deref())) {
            return Err(CreateRefusal::Callbacks);
        }
        self.uses.insert(app.clone(), used);
        self.keys.extend(keys);
        for (task, created) in tasks.iter().zip(&created) {
            if created.is_new {
                self.add(app, task, parent, queues);
            }
        }
        Ok(created)
    }

    /// Lets an app have a task again that has ended, if its bounds allow one task more of this size. The
    /// callback of the task is made again where it was removed meanwhile.
    pub(super) fn send_again(&mut self, row: &task::Model) -> Result<(), CreateRefusal> {
        let mut used = self.uses.get(&row.app_id).cloned().unwrap_or_default();
        used.open += 1;
        used.bytes += row.bytes;
        bounded(&used)?;
        if let Some(address) = row.callback.as_deref() {
            if !self.callbacks.has_room(&row.app_id, std::iter::once(address)) {
                return Err(CreateRefusal::Callbacks);
            }
            self.callbacks.need(&row.app_id, address);
        }
        self.uses.insert(row.app_id.clone(), used);
        Ok(())
    }

    fn add(&mut self, app: &AppId, task: &NewTask, parent: Option<&Parent>, queues: &mut Queues) {
        queues.make(app, &task.command, self.at);
        let id = QueueId::of(app, &task.command);
        let Some(queue) = queues.get_mut(&id) else { return };
        let run_at = task.delay.map_or(task.run_at, |delay| Some(self.at.after(delay)));
        let run_at = run_at.filter(|run_at| *run_at > self.at);
        let state = if run_at.is_some() { TaskState::Waiting } else { TaskState::Ready };
        let bytes = i64::try_from(task.payload.len()).unwrap_or(i64::MAX);
        queue.moved(None, state, bytes);
        queue.tally.created += 1;
        self.wake_at = self.wake_at.into_iter().chain(run_at).min();
        let ageing = queue.settings.ageing_ms.map(std::time::Duration::from_millis);
        let max_attempts = task.max_attempts.unwrap_or_else(|| queue.settings.attempts());
        let origin = parent.map_or(&task.origin, |parent| &parent.origin);
        if let Some(address) = &task.callback {
            self.callbacks.need(app, address);
        }
        self.rows.push(vec![
            task.id.clone().into(),
            id.into(),
            app.clone().into(),
            state.into(),
            rank(task.priority, self.changes.next_rank(self.at), ageing).into(),
            moment(run_at),
            i64::from(task.priority).into(),
            i64::from(max_attempts).into(),
            origin.kind.into(),
            origin.name.clone().into(),
            text(parent.map(|parent| parent.id.as_str())),
            parent.map_or(0, |parent| parent.depth + 1).into(),
            text(task.key.as_ref().map(|key| key.key_hash.as_str())),
            text(task.key.as_ref().map(|key| key.request_hash.as_str())),
            text(task.callback.as_deref()),
            bytes.into(),
            self.at.0.into(),
        ]);
        self.payloads.push(vec![task.id.clone().into(), task.payload.clone().into()]);
    }

    /// When the first of them is due that is not yet.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Writes the tasks, and the callbacks of these and of the tasks that ended (`called_back`).
    pub(super) async fn write(
        &mut self,
        connection: &impl ConnectionTrait,
        queues: &mut Queues,
        called_back: Vec<(AppId, String)>,
    ) -> Result<(), StoreError> {
        for (app, address) in &called_back {
            self.callbacks.need(app, address);
        }
        self.callbacks.write(connection, self.at).await?;
        queues.insert_new(connection).await?;
        // No padding: a row must not be inserted twice.
        for some in sized(connection, &self.rows) {
            let (values, bound) = list(connection, &TYPES, some);
            let text = format!(
                "with v(id, queue_id, app_id, state, rank, wake_at, priority, max_attempts, origin_kind,
                   origin, parent_id, depth, key_hash, request_hash, callback, bytes, at) as ({values})
                 insert into task (id, queue_id, app_id, state, rank, wake_at, priority, attempts, abandons,
                   max_attempts, origin_kind, origin, parent_id, depth, key_hash, request_hash, callback,
                   bytes, created_at, updated_at)
                 select id, queue_id, app_id, state, rank, nullif(wake_at, -1), priority, 0, 0, max_attempts,
                   origin_kind, origin, nullif(parent_id, ''), depth, nullif(key_hash, ''),
                   nullif(request_hash, ''), nullif(callback, ''), bytes, at, at from v"
            );
            rows::execute(connection, "task", &text, bound).await?;
        }
        for some in sized(connection, &self.payloads) {
            let (values, bound) = list(connection, &["text", "text"], some);
            let text = format!(
                "with v(task_id, payload) as ({values})
                 insert into task_body (task_id, payload) select task_id, payload from v"
            );
            rows::execute(connection, "task_body", &text, bound).await?;
        }
        Ok(())
    }
}

/// Whether an app may have so much. What is there already is no reason to refuse what makes nothing.
fn within(used: &AppUse, created: &[CreatedTask], makes_queues: bool) -> Result<(), CreateRefusal> {
    if !created.iter().any(|task| task.is_new) {
        return Ok(());
    }
    if makes_queues && used.queues > signed(QUEUES_MAX) {
        return Err(CreateRefusal::Queues);
    }
    bounded(used)
}

/// Whether an app may have so many open tasks, and so many bytes of their payloads.
fn bounded(used: &AppUse) -> Result<(), CreateRefusal> {
    if used.open > signed(OPEN_TASKS_MAX) {
        return Err(CreateRefusal::OpenTasks);
    }
    if used.bytes > signed(OPEN_BYTES_MAX) {
        return Err(CreateRefusal::OpenBytes);
    }
    Ok(())
}

/// The apps whose ended tasks an operation sends again.
fn sent_again(operation: &Operation) -> Vec<&AppId> {
    match operation {
        Operation::Move(words) => {
            words.iter().filter(|word| word.step == TaskMove::Redrive).map(|word| &word.app).collect()
        }
        Operation::Create(..) | Operation::Claim(_) | Operation::Wake => Vec::new(),
    }
}

/// The tasks that an operation may create.
fn asked(operation: &Operation) -> Vec<(&AppId, &NewTask)> {
    match operation {
        Operation::Create(app, tasks) => tasks.iter().map(|task| (app, task)).collect(),
        Operation::Move(words) => {
            words.iter().flat_map(|word| word.then.iter().map(move |task| (&word.app, task))).collect()
        }
        Operation::Claim(_) | Operation::Wake => Vec::new(),
    }
}
