//! Queues: their settings and numbers, and the queues of a turn, whose rows it holds.

pub(super) mod queue_changes;
pub(super) mod queue_lists;

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::{
    model::{queue_name::QueueName, task::ClaimRate},
    ports::{QueueSettings, QueueTally, StoreError, TaskNews},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId},
    kind::TaskState,
};

use super::for_update;
use crate::{
    apps::sinks::STOPPED,
    database::{
        error::{OfTable, undecodable},
        rows::{self, LISTED_MAX, list, signed},
    },
};

/// The states that count in columns of `queue`, in the order of [`TaskState::ALL`].
const STATES: usize = TaskState::ALL.len();

/// The place of a state in [`TaskState::ALL`].
fn index(state: TaskState) -> usize {
    TaskState::ALL.iter().position(|other| *other == state).unwrap_or(0)
}

/// Whether a task in this state has not ended.
pub(super) fn is_open(state: TaskState) -> bool {
    !state.has_ended()
}

#[derive(FromQueryResult)]
struct QueueRow {
    id: QueueId,
    app_id: AppId,
    command: String,
    settings: String,
    is_paused: bool,
    is_stopped: bool,
    permits_until: i64,
    bytes: i64,
    created_at: i64,
}

/// A queue of a turn.
pub(super) struct HeldQueue {
    pub(super) app: AppId,
    pub(super) command: String,
    pub(super) settings: QueueSettings,
    /// Whether nothing of it is handed out until a person resumes it.
    pub(super) is_paused: bool,
    /// Whether nothing of it is handed out because its app is disabled.
    pub(super) is_stopped: bool,
    pub(super) permits_until: i64,
    counts: [i64; STATES],
    pub(super) bytes: i64,
    changes: [i64; STATES],
    bytes_change: i64,
    paid: bool,
    /// Whether a task of it may be claimed now that could not before.
    is_ready: bool,
    /// Whether a task of it was claimed, ended, set aside or removed, so that watches may hand over more.
    has_room: bool,
    /// Whether a claim of this turn left tasks ready that its rate allows only later.
    is_rated: bool,
    /// What the turn did with its tasks, for the meter.
    pub(super) tally: QueueTally,
    pub(super) created_at: i64,
    is_new: bool,
}

impl HeldQueue {
    /// A queue that its first task makes.
    fn fresh(app: &AppId, command: &str, at: Timestamp) -> Self {
        Self {
            app: app.clone(),
            command: command.to_owned(),
            settings: QueueSettings::default(),
            is_paused: false,
            is_stopped: false,
            permits_until: 0,
            counts: [0; STATES],
            bytes: 0,
            changes: [0; STATES],
            bytes_change: 0,
            paid: false,
            is_ready: false,
            has_room: false,
            is_rated: false,
            tally: QueueTally::default(),
            created_at: at.0,
            is_new: true,
        }
    }

    fn name(&self) -> QueueName {
        QueueName { app: self.app.clone(), command: self.command.clone() }
    }

    /// How many tasks it has in a state.
    pub(super) fn count(&self, state: TaskState) -> i64 {
        self.counts[index(state)] + self.changes[index(state)]
    }

    /// A task of this size went from one state to another; `None`: it was made.
    pub(super) fn moved(&mut self, from: Option<TaskState>, to: TaskState, bytes: i64) {
        if let Some(from) = from {
            self.changes[index(from)] -= 1;
        }
        self.changes[index(to)] += 1;
        self.bytes_change += match (from.is_some_and(is_open), is_open(to)) {
            (false, true) => bytes,
            (true, false) => -bytes,
            _ => 0,
        };
        self.is_ready |= to == TaskState::Ready || self.makes_room(from);
        let was_free = from == Some(TaskState::Ready) && to == TaskState::Aside;
        self.has_room |= was_free || from.is_some_and(is_open) && !is_open(to);
    }

    /// How many of its tasks may be claimed by its bounds, and when more may be, where its rate is what
    /// bounds them.
    pub(super) fn room(&self, at: Timestamp) -> (i64, Option<Timestamp>) {
        if self.is_paused || self.is_stopped {
            return (0, None);
        }
        let ready = self.count(TaskState::Ready);
        let most = self.settings.max_claimed.map_or(i64::MAX, signed) - self.count(TaskState::Claimed);
        let room = ready.min(most).max(0);
        let Some(rate) = self.rate() else { return (room, None) };
        let micros = at.0.saturating_mul(1_000);
        let allowed = rate.allowed(micros);
        if room <= allowed {
            return (room, None);
        }
        let next = rate.after(allowed, micros).next(micros);
        (allowed, Some(Timestamp(next.div_euclid(1_000) + 1)))
    }

    fn rate(&self) -> Option<ClaimRate> {
        Some(ClaimRate { rate: self.settings.rate?, paid_until: self.permits_until })
    }

    /// Notes that tasks of it were claimed.
    pub(super) fn claimed(&mut self, count: i64, at: Timestamp) {
        self.has_room |= count > 0;
        self.changes[index(TaskState::Ready)] -= count;
        self.changes[index(TaskState::Claimed)] += count;
        if let Some(rate) = self.rate() {
            self.permits_until = rate.after(count, at.0.saturating_mul(1_000)).paid_until;
            self.paid = true;
            self.is_rated = matches!(self.room(at), (0, Some(_)));
        }
    }

    fn is_changed(&self) -> bool {
        self.paid || self.bytes_change != 0 || self.changes.iter().any(|change| *change != 0)
    }
}

/// The queues of a turn, whose rows it holds to its end.
pub(super) struct Queues {
    held: BTreeMap<QueueId, HeldQueue>,
    /// When the clock has to look at a task of this turn, at the latest.
    wake_at: Option<Timestamp>,
}

const COLUMNS: &str = "q.id, q.app_id, q.command, q.settings, q.is_paused, q.permits_until, q.bytes,
    q.created_at, q.waiting, q.ready, q.claimed, q.succeeded, q.failed, q.dead, q.aside, q.cancelled";

impl Queues {
    pub(super) async fn load(
        connection: &impl ConnectionTrait,
        ids: &BTreeSet<QueueId>,
    ) -> Result<Self, StoreError> {
        let mut queues = Self::none();
        queues.lock(connection, ids).await?;
        Ok(queues)
    }

    /// A turn that holds no queue yet.
    pub(super) fn none() -> Self {
        Self { held: BTreeMap::new(), wake_at: None }
    }

    /// Reads and locks those of these queues that are not held yet.
    pub(super) async fn also(
        &mut self,
        connection: &impl ConnectionTrait,
        ids: &BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        let more: BTreeSet<QueueId> = ids.iter().filter(|id| !self.held.contains_key(*id)).cloned().collect();
        if more.is_empty() { Ok(()) } else { self.lock(connection, &more).await }
    }

    /// Apps whose watches may hand over more. Bounds of a queue and of an app count the tasks of producers
    /// too, so it does not matter who made the tasks that were claimed or went.
    pub(super) fn rooms(&self) -> BTreeSet<AppId> {
        self.held.values().filter(|queue| queue.has_room).map(|queue| queue.app.clone()).collect()
    }

    /// What others are told where only queues changed.
    pub(super) fn news(&self) -> TaskNews {
        TaskNews { ready: self.ready(), room: self.rooms(), wake_at: self.wake_at, ..TaskNews::default() }
    }

    async fn lock(
        &mut self,
        connection: &impl ConnectionTrait,
        ids: &BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        let lock = for_update(connection, "q", false);
        let ids: Vec<Vec<Value>> = ids.iter().map(|id| vec![id.clone().into()]).collect();
        for some in ids.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text"], some);
            let text = format!(
                "with v(id) as ({values}) select {COLUMNS}, {STOPPED} as is_stopped
                 from queue q join app a on a.id = q.app_id
                 where q.id in (select id from v) order by q.id{lock}"
            );
            for row in rows::mixed(connection, "queue", &text, bound).await? {
                let (id, queue) = held(&row)?;
                self.held.insert(id, queue);
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &QueueId) -> Option<&HeldQueue> {
        self.held.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &QueueId) -> Option<&mut HeldQueue> {
        self.held.get_mut(id)
    }

    /// Adds a queue that is made in this turn.
    pub(super) fn make(&mut self, app: &AppId, command: &str, at: Timestamp) {
        self.held.entry(QueueId::of(app, command)).or_insert_with(|| HeldQueue::fresh(app, command, at));
    }

    /// Inserts the rows of queues that are made in this turn. Another replica may have made one meanwhile:
    /// then its numbers are read before they are changed.
    pub(super) async fn insert_new(&mut self, connection: &impl ConnectionTrait) -> Result<(), StoreError> {
        let new: BTreeSet<QueueId> =
            self.held.iter().filter(|(_, queue)| queue.is_new).map(|(id, _)| id.clone()).collect();
        for id in &new {
            let Some(queue) = self.held.get_mut(id) else { continue };
            queue.is_new = false;
            insert(connection, id, &queue.app, &queue.command, &queue.settings, Timestamp(queue.created_at))
                .await?;
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut there = Self::none();
        there.lock(connection, &new).await?;
        for (id, found) in there.held {
            if let Some(queue) = self.held.get_mut(&id) {
                (queue.counts, queue.bytes) = (found.counts, found.bytes);
                (queue.settings, queue.is_paused) = (found.settings, found.is_paused);
                queue.is_stopped = found.is_stopped;
                queue.permits_until = found.permits_until;
            }
        }
        Ok(())
    }

    /// A claim ends then, or a task is due.
    pub(super) fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = self.wake_at.into_iter().chain(at).min();
    }

    /// Takes what the turn did with the tasks of each queue.
    pub(super) fn take_tallies(&mut self) -> BTreeMap<QueueName, QueueTally> {
        let moved = self.held.values_mut().filter(|queue| queue.tally != QueueTally::default());
        moved.map(|queue| (queue.name(), std::mem::take(&mut queue.tally))).collect()
    }

    /// When the first claim ends or the first task is due of those that [`Self::wake`] was told of.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Queues of which tasks may be claimed now that could not before.
    pub(super) fn ready(&self) -> BTreeSet<(AppId, QueueId)> {
        let ready = self.held.iter().filter(|(_, queue)| queue.is_ready && queue.count(TaskState::Ready) > 0);
        ready.map(|(id, queue)| (queue.app.clone(), id.clone())).collect()
    }

    /// Queues whose rate allows no claim now although tasks of them are ready.
    pub(super) fn rated(&self) -> BTreeSet<(AppId, QueueId)> {
        let rated = self.held.iter().filter(|(_, queue)| queue.is_rated);
        rated.map(|(id, queue)| (queue.app.clone(), id.clone())).collect()
    }

    pub(super) async fn write(&self, connection: &impl ConnectionTrait) -> Result<(), StoreError> {
        let changed: Vec<Vec<Value>> = self
            .held
            .iter()
            .filter(|(_, queue)| queue.is_changed())
            .map(|(id, queue)| {
                let counts = TaskState::ALL.iter().map(|state| Value::from(queue.count(*state)));
                let rest = [(queue.bytes + queue.bytes_change).into(), queue.permits_until.into()];
                std::iter::once(id.clone().into()).chain(counts).chain(rest).collect()
            })
            .collect();
        let names: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
        let sets: Vec<String> = names.iter().map(|name| format!("{name} = v.{name}")).collect();
        let mut types = vec!["text"];
        types.resize(names.len() + 3, "bigint");
        for some in changed.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &types, some);
            let text = format!(
                "with v(id, {}, bytes, permits_until) as ({values}) update queue set {}, bytes = v.bytes,
                   permits_until = v.permits_until from v where queue.id = v.id",
                names.join(", "),
                sets.join(", ")
            );
            rows::execute(connection, "queue", &text, bound).await?;
        }
        Ok(())
    }
}

pub(super) fn held(row: &QueryResult) -> Result<(QueueId, HeldQueue), StoreError> {
    let queue = QueueRow::from_query_result(row, "").of("queue")?;
    let mut counts = [0; STATES];
    for (count, state) in counts.iter_mut().zip(TaskState::ALL) {
        *count = row.try_get("", state.as_str()).of("queue")?;
    }
    let settings =
        serde_json::from_str(&queue.settings).map_err(|error| undecodable("queue", error.to_string()))?;
    let held = HeldQueue {
        settings,
        is_paused: queue.is_paused,
        is_stopped: queue.is_stopped,
        permits_until: queue.permits_until,
        counts,
        bytes: queue.bytes,
        created_at: queue.created_at,
        is_new: false,
        ..HeldQueue::fresh(&queue.app_id, &queue.command, Timestamp(queue.created_at))
    };
    Ok((queue.id, held))
}

pub(super) async fn insert(
    connection: &impl ConnectionTrait,
    id: &QueueId,
    app: &AppId,
    command: &str,
    settings: &QueueSettings,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let text = "insert into queue (id, app_id, command, settings, is_paused, waiting, ready, aside, claimed,
                  succeeded, failed, dead, cancelled, bytes, permits_until, created_at)
                values ($1, $2, $3, $4, false, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $5) on conflict do nothing";
    let values =
        vec![id.clone().into(), app.clone().into(), command.into(), written(settings)?.into(), at.0.into()];
    rows::execute(connection, "queue", text, values).await
}

pub(super) fn written(settings: &QueueSettings) -> Result<String, StoreError> {
    serde_json::to_string(settings).map_err(|error| undecodable("queue", error))
}

/// How many tasks all queues together have in each state; states without tasks are left out.
pub(crate) async fn depths(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<TaskState, u64>, StoreError> {
    let sum = |state: &TaskState| format!("cast(coalesce(sum({state}), 0) as bigint) as {state}");
    let sums: Vec<String> = TaskState::ALL.iter().map(sum).collect();
    let text = format!("select {} from queue", sums.join(", "));
    let found = rows::mixed(connection, "queue", &text, vec![]).await?;
    let mut depths = BTreeMap::new();
    for (row, state) in found.iter().flat_map(|row| TaskState::ALL.iter().map(move |state| (row, *state))) {
        let count: i64 = row.try_get("", state.as_str()).of("queue")?;
        if count > 0 {
            depths.insert(state, rows::unsigned("queue", count)?);
        }
    }
    Ok(depths)
}

/// How many tasks each of these queues has in each state.
pub(crate) async fn depths_of(
    connection: &impl ConnectionTrait,
    names: &[QueueName],
) -> Result<BTreeMap<QueueName, BTreeMap<TaskState, u64>>, StoreError> {
    let ids: Vec<Vec<Value>> =
        names.iter().map(|name| vec![QueueId::of(&name.app, &name.command).into()]).collect();
    let mut depths = BTreeMap::new();
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values}) select {COLUMNS}, false as is_stopped from queue q
             where q.id in (select id from v)"
        );
        for row in rows::mixed(connection, "queue", &text, bound).await? {
            let (_, queue) = held(&row)?;
            let count = |state: &TaskState| Ok((*state, rows::unsigned("queue", queue.count(*state))?));
            let counts: Result<_, StoreError> = TaskState::ALL.iter().map(count).collect();
            depths.insert(queue.name(), counts?);
        }
    }
    Ok(depths)
}

/// When the task was created that is next in line in its queue: the oldest such task of all queues that are
/// not paused.
pub(crate) async fn ready_since(connection: &impl ConnectionTrait) -> Result<Option<Timestamp>, StoreError> {
    #[derive(FromQueryResult)]
    struct Oldest {
        since: Option<i64>,
    }
    let text = "select min(heads.since) as since from
                  (select (select t.created_at from task t where t.queue_id = q.id and t.state = 'ready'
                     order by t.rank, t.id limit 1) as since from queue q
                   where q.ready > 0 and not q.is_paused) heads";
    let found: Option<Oldest> = rows::one(connection, "queue", text, vec![]).await?;
    Ok(found.and_then(|oldest| oldest.since).map(Timestamp))
}

/// A queue of which tasks may be claimed.
pub(crate) struct QueueToClaim {
    pub(crate) app: AppId,
    pub(crate) id: QueueId,
    pub(crate) command: String,
    pub(crate) ready: u64,
    /// When its rate allows a claim again; `None`: now.
    pub(crate) free_at: Option<Timestamp>,
}

/// Those of these queues of which tasks may be claimed now, or once their rate allows that.
pub(crate) async fn with_work(
    connection: &impl ConnectionTrait,
    ids: &BTreeSet<QueueId>,
    at: Timestamp,
) -> Result<Vec<QueueToClaim>, StoreError> {
    let ids: Vec<Vec<Value>> = ids.iter().map(|id| vec![id.clone().into()]).collect();
    let mut work = Vec::new();
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values}) select {COLUMNS}, {STOPPED} as is_stopped
             from queue q join app a on a.id = q.app_id
             where q.id in (select id from v) and q.ready > 0 order by q.id"
        );
        for row in rows::mixed(connection, "queue", &text, bound).await? {
            let (id, queue) = held(&row)?;
            let (room, again_at) = queue.room(at);
            if room > 0 || again_at.is_some() {
                let ready = rows::unsigned("queue", queue.count(TaskState::Ready))?;
                let free_at = again_at.filter(|_| room <= 0);
                work.push(QueueToClaim { app: queue.app, id, command: queue.command, ready, free_at });
            }
        }
    }
    Ok(work)
}

impl HeldQueue {
    /// A task of this size was removed in this state.
    pub(super) fn left(&mut self, state: TaskState, bytes: i64) {
        self.changes[index(state)] -= 1;
        self.is_ready |= self.makes_room(Some(state));
        if is_open(state) {
            self.bytes_change -= bytes;
            self.has_room = true;
        }
    }

    /// Whether others may be claimed once a task leaves this state: a claim that ends makes room where the
    /// queue bounds them.
    fn makes_room(&self, from: Option<TaskState>) -> bool {
        from == Some(TaskState::Claimed) && self.settings.max_claimed.is_some()
    }
}
