//! Handing tasks out: of each queue that is asked for, as many from the head as its bounds allow, given to
//! the requests in their order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::task::{ClaimToken, TaskPlace},
    ports::{CLAIM_BYTES_MAX, CLAIM_QUEUE_MAX, Claim, ClaimRequest, ClaimedTask, StoreError},
    time::Timestamp,
};
use tidings_entity::{id::QueueId, task};

use super::{for_update, queues::Queues, shown, watch_tasks::aside};
use crate::{
    Context,
    database::{
        error::undecodable,
        rows::{self, LISTED_MAX, list},
    },
};

/// How soon a queue is looked at again of which a turn of another replica holds tasks: longer than a turn.
const HELD_ELSEWHERE: Duration = Duration::from_millis(100);

/// What may be claimed of a queue in this turn.
struct Heads {
    tasks: VecDeque<task::Model>,
    again_at: Option<Timestamp>,
}

/// Hands tasks out; a claim for each request.
pub(super) async fn hand_out(
    connection: &impl ConnectionTrait,
    context: &Context,
    requests: &[&ClaimRequest],
    queues: &mut Queues,
    at: Timestamp,
) -> Result<Vec<Claim>, StoreError> {
    let mut heads = heads(connection, requests, queues, at).await?;
    let mut claims = Vec::with_capacity(requests.len());
    let mut written: Vec<Vec<Value>> = Vec::new();
    for request in requests {
        let mut claim = Claim::default();
        let asked: Vec<QueueId> =
            request.commands.iter().map(|command| QueueId::of(&request.app, command)).collect();
        // The first task is handed out whatever its size.
        let mut room = i64::MAX;
        while claim.tasks.len() < request.count {
            let Some((queue, row)) = first(&mut heads, &asked, room) else { break };
            room = room.min(CLAIM_BYTES_MAX) - row.bytes;
            let taken = take(context, request, row, &queue, queues, at)?;
            written.push(vec![
                taken.task.id.clone().into(),
                taken.token.hash().into(),
                request.worker.clone().into(),
                taken.task.wake_at.map_or(at.0, |until| until.0).into(),
                at.0.into(),
            ]);
            claim.tasks.push(taken);
        }
        if claim.tasks.is_empty() {
            claim.again_at = asked.iter().filter_map(|queue| heads.get(queue)?.again_at).min();
        }
        claims.push(claim);
    }
    for some in written.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text", "text", "text", "bigint", "bigint"], some);
        let text = format!(
            "with v(id, claim, worker, wake_at, at) as ({values})
             update task set state = 'claimed', attempts = task.attempts + 1, claim = v.claim,
               worker = v.worker, claimed_at = v.at, wake_at = v.wake_at, updated_at = v.at
             from v where task.id = v.id"
        );
        rows::execute(connection, "task", &text, bound).await?;
    }
    Ok(claims)
}

/// Reads and locks the heads of the queues that are asked for. Who bounds none of them reads none. Of a
/// disabled app nothing is handed out, and the tasks of watches that are met are set aside.
async fn heads(
    connection: &impl ConnectionTrait,
    requests: &[&ClaimRequest],
    queues: &mut Queues,
    at: Timestamp,
) -> Result<BTreeMap<QueueId, Heads>, StoreError> {
    let mut wanted: BTreeMap<QueueId, i64> = BTreeMap::new();
    for request in requests {
        for command in &request.commands {
            let count = i64::try_from(request.count).unwrap_or(CLAIM_QUEUE_MAX);
            *wanted.entry(QueueId::of(&request.app, command)).or_default() += count;
        }
    }
    let text = format!(
        "select t.* from task t where t.queue_id = $1 and t.state = 'ready' order by t.rank, t.id limit $2{}",
        for_update(connection, "t", true)
    );
    let mut heads = BTreeMap::new();
    for (id, wanted) in wanted {
        let Some(queue) = queues.get(&id) else { continue };
        if queue.is_stopped {
            aside::of_disabled(connection, queues, &id, wanted.min(CLAIM_QUEUE_MAX), at).await?;
            continue;
        }
        let (room, mut again_at) = queue.room(at);
        let most = room.min(wanted).min(CLAIM_QUEUE_MAX);
        let mut tasks: VecDeque<task::Model> = VecDeque::new();
        if most > 0 {
            let values = vec![id.clone().into(), most.into()];
            tasks = rows::all(connection, "task", &text, values).await?.into();
            if i64::try_from(tasks.len()).is_ok_and(|found| found < most) {
                // A turn of another replica holds the others, for a word that may change nothing.
                again_at = again_at.into_iter().chain([at.after(HELD_ELSEWHERE)]).min();
            }
        }
        heads.insert(id, Heads { tasks, again_at });
    }
    Ok(heads)
}

/// The first task in line over all of these queues; `None`: there is none, or its payload has more than
/// `room` bytes.
fn first(
    heads: &mut BTreeMap<QueueId, Heads>,
    asked: &[QueueId],
    room: i64,
) -> Option<(QueueId, task::Model)> {
    let place = |queue: &&QueueId| {
        let task = heads.get(*queue)?.tasks.front()?;
        Some((task.rank, task.id.clone(), (*queue).clone()))
    };
    let (_, _, queue) = asked.iter().filter_map(|queue| place(&queue)).min()?;
    let row = heads.get_mut(&queue)?.tasks.pop_front_if(|row| row.bytes <= room)?;
    Some((queue, row))
}

/// Gives a task to a worker, with fresh bits that prove the claim.
fn take(
    context: &Context,
    request: &ClaimRequest,
    mut row: task::Model,
    queue: &QueueId,
    queues: &mut Queues,
    at: Timestamp,
) -> Result<ClaimedTask, StoreError> {
    let held = queues.get_mut(queue).ok_or_else(|| undecodable("queue", "a queue with heads is not held"))?;
    let rules = held.settings.rules();
    let until = at.after(request.claim.min(rules.claim_max).min(rules.timeout));
    held.claimed(1, at);
    let command = held.command.clone();
    // A ready task was changed last when it became ready.
    held.tally.queued.push(at.since(Timestamp(row.updated_at)));
    queues.wake(Some(until));
    let mut token = ClaimToken { task: row.id.clone(), bits: [0; 16], place: place(&row)? };
    context.random.fill(&mut token.bits);
    row.state = tidings_entity::kind::TaskState::Claimed;
    row.attempts += 1;
    row.worker = Some(request.worker.clone());
    (row.claimed_at, row.wake_at, row.updated_at) = (Some(at.0), Some(until.0), at.0);
    Ok(ClaimedTask { token, task: shown::task(row, command)?, payload: String::new() })
}

/// The change that a task of a watch is about.
fn place(row: &task::Model) -> Result<Option<TaskPlace>, StoreError> {
    let (Some(cursor), Some(round), Some(position)) = (&row.cursor_id, row.round, row.position) else {
        return Ok(None);
    };
    Ok(Some(TaskPlace { cursor: cursor.clone(), round, position: rows::unsigned("task", position)? }))
}
