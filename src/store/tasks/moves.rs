//! Tasks that move by a word or by the clock: read and locked first, decided in memory, written at once.

mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    deliverer::retry::RetryRules,
    model::task::{ClaimProof, MoveRefusal, Moved, TaskMove, TaskPlace, TaskStanding},
    ports::{PastClaim, QueueSettings, StoreError, TaskWord, Woken, WordRefusal, Worded},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId, TaskId},
    kind::TaskState,
    task,
};

use super::{
    Operation, claims_grace,
    creates::{Creates, Parent},
    endings::{self, Ending},
    for_update, history, moment,
    queues::{Queues, is_open},
    text,
    watch_tasks::{aside, late},
};
use crate::{
    Context,
    database::rows::{self, LISTED_MAX, list, signed, sized},
    ledger::Note,
};

/// The word in `flag` of a task that is cancelled once its claim ends.
pub(super) const CANCEL: &str = "cancel";
/// Tasks that become due, and claims that end, in one turn.
const WAKE_MAX: u64 = 500;

/// A task of a turn, whose row it holds.
struct HeldTask {
    row: task::Model,
    standing: TaskStanding,
    result: Option<String>,
    progress: Option<String>,
    /// What the ledger is told of its ends in this turn.
    ends: Vec<Note>,
    /// Its claims that ended in this turn.
    claims: Vec<PastClaim>,
}

impl HeldTask {
    fn of(row: task::Model) -> Self {
        let standing = standing(&row);
        Self { row, standing, result: None, progress: None, ends: Vec::new(), claims: Vec::new() }
    }

    fn is_changed(&self) -> bool {
        standing(&self.row) != self.standing
    }

    /// Whether its row changes and stays: the row of a task of a watch goes with its end.
    fn is_kept(&self) -> bool {
        self.is_changed() && (is_open(self.standing.state) || self.row.cursor_id.is_none())
    }
}

fn standing(row: &task::Model) -> TaskStanding {
    TaskStanding {
        state: row.state,
        attempts: row.attempts,
        abandons: row.abandons,
        max_attempts: row.max_attempts,
        claim: row.claim.clone(),
        worker: row.worker.clone(),
        claimed_at: row.claimed_at.map(Timestamp),
        wake_at: row.wake_at.map(Timestamp),
        is_flagged: row.flag.is_some(),
        is_keyed: row.key_hash.is_some(),
        ended_at: row.ended_at.map(Timestamp),
        error: row.error.clone(),
    }
}

/// The tasks that a turn moves.
pub(super) struct Moves {
    held: BTreeMap<TaskId, HeldTask>,
    due: Vec<TaskId>,
    expired: Vec<TaskId>,
    /// How changes of watches ended whose tasks are gone and that words are about.
    ended_before: BTreeMap<(AppId, TaskPlace), TaskState>,
    /// Tasks of watches in the order of their ends.
    ended: Vec<TaskId>,
    at: Timestamp,
}

impl Moves {
    pub(super) async fn load(
        connection: &impl ConnectionTrait,
        operations: &[Operation],
        at: Timestamp,
    ) -> Result<Self, StoreError> {
        let ids: BTreeSet<&TaskId> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Move(words) => Some(words),
                _ => None,
            })
            .flatten()
            .map(|word| &word.id)
            .collect();
        let mut moves = Self {
            held: BTreeMap::new(),
            due: Vec::new(),
            expired: Vec::new(),
            ended_before: BTreeMap::new(),
            ended: Vec::new(),
            at,
        };
        let ids: Vec<Vec<Value>> = ids.into_iter().map(|id| vec![id.clone().into()]).collect();
        let lock = for_update(connection, "t", false);
        for some in ids.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text"], some);
            let text = format!(
                "with v(id) as ({values}) select t.* from task t where t.id in (select id from v)
                 order by t.id{lock}"
            );
            moves.hold(rows::all(connection, "task", &text, bound).await?);
        }
        let words = operations.iter().filter_map(|operation| match operation {
            Operation::Move(words) => Some(words),
            _ => None,
        });
        let gone: Vec<&TaskWord> = words.flatten().filter(|word| moves.held_of(word).is_none()).collect();
        moves.ended_before = late::ends(connection, &gone).await?;
        if operations.iter().any(|operation| matches!(operation, Operation::Wake)) {
            moves.due = moves.find_over(connection, TaskState::Waiting).await?;
            moves.expired = moves.find_over(connection, TaskState::Claimed).await?;
        }
        Ok(moves)
    }

    /// Tasks in this state whose moment has come. Those that another replica moves now are passed over.
    async fn find_over(
        &mut self,
        connection: &impl ConnectionTrait,
        state: TaskState,
    ) -> Result<Vec<TaskId>, StoreError> {
        let text = format!(
            "select t.* from task t where t.state = '{state}' and t.wake_at <= $1
             order by t.wake_at, t.id limit $2{}",
            for_update(connection, "t", true)
        );
        let grace = if state == TaskState::Claimed { claims_grace(connection) } else { 0 };
        let values = vec![(self.at.0 - grace).into(), signed(WAKE_MAX).into()];
        let found: Vec<task::Model> = rows::all(connection, "task", &text, values).await?;
        let ids = found.iter().map(|row| row.id.clone()).collect();
        self.hold(found);
        Ok(ids)
    }

    fn hold(&mut self, found: Vec<task::Model>) {
        for row in found {
            self.held.entry(row.id.clone()).or_insert_with(|| HeldTask::of(row));
        }
    }

    pub(super) fn queues(&self) -> BTreeSet<QueueId> {
        self.held.values().map(|task| task.row.queue_id.clone()).collect()
    }

    /// The task that a word is about. A dead letter that is sent again is the same task at another place, and
    /// a token of a watch is about the place that it names.
    fn held_of(&self, word: &TaskWord) -> Option<&HeldTask> {
        let task = self.held.get(&word.id).filter(|task| task.row.app_id == word.app)?;
        let Some(ClaimProof::OfWatch(_, place)) = &word.proof else { return Some(task) };
        let named = (Some(&place.cursor), Some(place.round), Some(signed(place.position)));
        (named == (task.row.cursor_id.as_ref(), task.row.round, task.row.position)).then_some(task)
    }

    /// Does what words say; an answer to each.
    pub(super) fn say(
        &mut self,
        context: &Context,
        words: &[TaskWord],
        queues: &mut Queues,
        creates: &mut Creates,
    ) -> Vec<Result<Worded, WordRefusal>> {
        words.iter().map(|word| self.say_one(context, word, queues, creates)).collect()
    }

    fn say_one(
        &mut self,
        context: &Context,
        word: &TaskWord,
        queues: &mut Queues,
        creates: &mut Creates,
    ) -> Result<Worded, WordRefusal> {
        let Some(task) = self.held_of(word) else { return self.say_late(word) };
        if task.row.cursor_id.is_some() && word.step == TaskMove::Redrive {
            // The dead letter of its change is sent again, not the task.
            return Err(WordRefusal::Move(MoveRefusal::State(task.standing.state)));
        }
        // Whatever the worker of a round that ended early reports, the task goes and settles nothing.
        let is_overtaken = task.row.flag.as_deref() == Some(aside::OVERTAKEN);
        let is_end = matches!(word.step, TaskMove::Complete | TaskMove::Fail(_));
        let step = if is_overtaken && is_end { &TaskMove::Abandon(Duration::ZERO) } else { &word.step };
        let settings = settings(queues, &task.row.queue_id);
        let limit = settings.payload_limit();
        if word.step == TaskMove::Complete && word.body.as_ref().is_some_and(|body| body.len() as u64 > limit)
        {
            return Err(WordRefusal::ResultTooLarge(limit));
        }
        let mut after = task.standing.clone();
        let moved = apply(context, &settings, &mut after, step, word.proof.as_ref(), self.at)
            .map_err(WordRefusal::Move)?;
        if moved == Moved::Now && *step == TaskMove::Redrive {
            creates.send_again(&task.row).map_err(WordRefusal::Redrive)?;
        }
        let mut then = Vec::new();
        if moved == Moved::Now && !word.then.is_empty() && !is_overtaken {
            let parent = Parent::of(&task.row);
            then = creates.create(&word.app, &word.then, Some(&parent), queues).map_err(WordRefusal::Then)?;
        }
        let shown = Worded {
            moved,
            state: after.state,
            wake_at: after.wake_at,
            attempts: u64::try_from(after.attempts).unwrap_or(0),
            then,
        };
        if let Some(task) = self.held.get_mut(&word.id) {
            match (&word.step, moved) {
                (TaskMove::Complete, Moved::Now) => task.result.clone_from(&word.body),
                (TaskMove::Heartbeat(_), Moved::Now) if word.body.is_some() => {
                    task.progress.clone_from(&word.body);
                }
                _ => {}
            }
            if moved == Moved::Now {
                task.claims.extend(history::ended(&task.standing, step, self.at));
            }
            self.ended.extend(move_to(task, after, queues));
        }
        if is_overtaken && is_end { Err(WordRefusal::Move(MoveRefusal::ClaimLost)) } else { Ok(shown) }
    }

    /// The answer to a word about a task that is gone, or that is at another place now: the word that ended a
    /// task of a watch was heard before.
    fn say_late(&self, word: &TaskWord) -> Result<Worded, WordRefusal> {
        let Some(ClaimProof::OfWatch(_, place)) = &word.proof else {
            return Err(WordRefusal::Move(MoveRefusal::NotFound));
        };
        let said = match word.step {
            TaskMove::Complete => Some(TaskState::Succeeded),
            TaskMove::Fail(_) => Some(TaskState::Failed),
            _ => None,
        };
        let ended = self.ended_before.get(&(word.app.clone(), place.clone())).copied();
        match ended.filter(|_| ended == said) {
            Some(state) => {
                Ok(Worded { moved: Moved::Before, state, wake_at: None, attempts: 0, then: Vec::new() })
            }
            None => Err(WordRefusal::Move(MoveRefusal::ClaimLost)),
        }
    }

    /// Does what the clock asks for.
    pub(super) fn wake(&mut self, context: &Context, queues: &mut Queues) -> Woken {
        let (due, expired) = (std::mem::take(&mut self.due), std::mem::take(&mut self.expired));
        Woken {
            due: self.pass(context, due, &TaskMove::Due, queues),
            expired: self.pass(context, expired, &TaskMove::Expire, queues),
            ..Woken::default()
        }
    }

    /// Moves tasks by the clock; those that moved otherwise in this turn stay. How many moved.
    fn pass(&mut self, context: &Context, ids: Vec<TaskId>, step: &TaskMove, queues: &mut Queues) -> u64 {
        let mut count = 0;
        for id in ids {
            let Some(task) = self.held.get_mut(&id) else { continue };
            let settings = settings(queues, &task.row.queue_id);
            let mut after = task.standing.clone();
            if apply(context, &settings, &mut after, step, None, self.at).is_ok() {
                task.claims.extend(history::ended(&task.standing, step, self.at));
                if *step == TaskMove::Expire
                    && let Some(queue) = queues.get_mut(&task.row.queue_id)
                {
                    queue.tally.run_out += 1;
                }
                self.ended.extend(move_to(task, after, queues));
                count += 1;
            }
        }
        count
    }

    /// Writes the tasks that changed.
    pub(super) async fn write(
        &self,
        connection: &impl ConnectionTrait,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let changed: Vec<Vec<Value>> =
            self.held.values().filter(|task| task.is_kept()).map(|task| written(task, at)).collect();
        const TYPES: [&str; 12] = [
            "text", "text", "bigint", "bigint", "bigint", "text", "text", "bigint", "text", "bigint", "text",
            "bigint",
        ];
        for some in changed.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &TYPES, some);
            let text = format!(
                "with v(id, state, wake_at, attempts, abandons, claim, worker, claimed_at, flag, ended_at,
                   error, at) as ({values})
                 update task set state = v.state, wake_at = nullif(v.wake_at, -1), attempts = v.attempts,
                   abandons = v.abandons, claim = nullif(v.claim, ''), worker = nullif(v.worker, ''),
                   claimed_at = nullif(v.claimed_at, -1), flag = nullif(v.flag, ''),
                   ended_at = nullif(v.ended_at, -1), error = nullif(v.error, ''), updated_at = v.at
                 from v where task.id = v.id"
            );
            rows::execute(connection, "task", &text, bound).await?;
        }
        let bodies = |body: fn(&HeldTask) -> Option<&String>| -> Vec<Vec<Value>> {
            let bodies = self.held.values().filter_map(|task| Some((&task.row.id, body(task)?)));
            bodies.map(|(id, body)| vec![id.clone().into(), body.as_str().into()]).collect()
        };
        write_bodies(connection, "result", &bodies(|task| task.result.as_ref())).await?;
        write_bodies(connection, "progress", &bodies(|task| task.progress.as_ref())).await?;
        let claims = |task: &HeldTask| {
            let id = task.row.id.clone();
            task.claims.clone().into_iter().map(move |claim| (id.clone(), claim))
        };
        // The past claims of a task of a watch go with its row.
        let kept = self.held.values().filter(|task| task.is_kept());
        history::write(connection, &kept.flat_map(claims).collect::<Vec<_>>()).await
    }
}

fn settings(queues: &Queues, id: &QueueId) -> QueueSettings {
    queues.get(id).map(|queue| queue.settings.clone()).unwrap_or_default()
}

fn apply(
    context: &Context,
    settings: &QueueSettings,
    standing: &mut TaskStanding,
    step: &TaskMove,
    proof: Option<&ClaimProof>,
    at: Timestamp,
) -> Result<Moved, MoveRefusal> {
    let (policy, base, cap) = settings.backoff();
    let rules = RetryRules { policy, base, cap, window: cap };
    let backoff = |attempts: i64| {
        rules.wait(u32::try_from(attempts).unwrap_or(u32::MAX).max(1), None, &*context.random)
    };
    standing.apply(step, proof, &settings.rules(), &backoff, at)
}

/// Moves a task. Returns its id if it is a task of a watch that ends by that.
fn move_to(task: &mut HeldTask, after: TaskStanding, queues: &mut Queues) -> Option<TaskId> {
    let (from, to) = (task.standing.state, after.state);
    task.standing = after;
    if from != to
        && let Some(queue) = queues.get_mut(&task.row.queue_id)
    {
        queue.moved(Some(from), to, task.row.bytes);
    }
    if is_open(from) && !is_open(to) {
        let ending = Ending {
            command: queues.get(&task.row.queue_id).map(|queue| queue.command.as_str()),
            state: to,
            attempts: task.standing.attempts,
            error: task.standing.error.as_deref(),
            result: task.result.as_deref(),
        };
        task.ends.extend(endings::note(&task.row, &ending));
    }
    if task.row.cursor_id.is_none() || !is_open(from) || is_open(to) {
        return None;
    }
    // Its row goes, and no queue counts it any more.
    if let Some(queue) = queues.get_mut(&task.row.queue_id) {
        queue.left(to, task.row.bytes);
    }
    Some(task.row.id.clone())
}

fn written(task: &HeldTask, at: Timestamp) -> Vec<Value> {
    let standing = &task.standing;
    vec![
        task.row.id.clone().into(),
        standing.state.into(),
        moment(standing.wake_at),
        standing.attempts.into(),
        standing.abandons.into(),
        text(standing.claim.as_deref()),
        text(standing.worker.as_deref()),
        moment(standing.claimed_at),
        text(standing.is_flagged.then(|| task.row.flag.as_deref().unwrap_or(CANCEL))),
        moment(standing.ended_at),
        text(standing.error.as_deref()),
        at.0.into(),
    ]
}

async fn write_bodies(
    connection: &impl ConnectionTrait,
    column: &str,
    bodies: &[Vec<Value>],
) -> Result<(), StoreError> {
    for some in sized(connection, bodies) {
        let (values, bound) = list(connection, &["text", "text"], some);
        let text = format!(
            "with v(id, body) as ({values}) update task_body set {column} = v.body from v
             where task_body.task_id = v.id"
        );
        rows::execute(connection, "task_body", &text, bound).await?;
    }
    Ok(())
}
