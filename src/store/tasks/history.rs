//! Past claims of tasks: who had a task, and how each claim ended. A claim that ended a task with success or
//! failure stands in the row of the task and costs no row of its own; it gets one when the task is sent
//! again.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::task::{TaskMove, TaskStanding},
    ports::{CLAIMS_KEPT, PastClaim, StoreError, Task},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, TaskId, WatchId},
    kind::{ClaimEnd, TaskState},
    task_claim,
};

use super::text;
use crate::database::rows::{self, LISTED_MAX, list, signed};

/// The claim that ends with this move from `before`; `None`: none does, or the row of the task still shows
/// it.
pub(super) fn ended(before: &TaskStanding, step: &TaskMove, at: Timestamp) -> Option<PastClaim> {
    let (end, ended_at, reason) = match (before.state, step) {
        (TaskState::Claimed, TaskMove::Nack { reason, .. }) => (ClaimEnd::Nacked, at, reason.clone()),
        (TaskState::Claimed, TaskMove::Abandon(_)) => (ClaimEnd::Abandoned, at, None),
        (TaskState::Claimed, TaskMove::Expire) => (ClaimEnd::Expired, at, None),
        (TaskState::Failed, TaskMove::Redrive) => {
            (ClaimEnd::Failed, before.ended_at.unwrap_or(at), before.error.clone())
        }
        _ => return None,
    };
    Some(PastClaim {
        worker: before.worker.clone()?,
        claimed_at: before.claimed_at?,
        ended: Some((ended_at, end)),
        reason,
    })
}

/// Writes claims that ended, and removes what is more than a task keeps.
pub(super) async fn write(
    connection: &impl ConnectionTrait,
    ended: &[(TaskId, PastClaim)],
) -> Result<(), StoreError> {
    const TYPES: [&str; 6] = ["text", "bigint", "bigint", "text", "text", "text"];
    let rows_of = |(id, claim): &(TaskId, PastClaim)| {
        let (ended_at, end) = claim.ended?;
        Some(vec![
            id.clone().into(),
            claim.claimed_at.0.into(),
            ended_at.0.into(),
            claim.worker.as_str().into(),
            end.into(),
            text(claim.reason.as_deref()),
        ])
    };
    let written: Vec<Vec<Value>> = ended.iter().filter_map(rows_of).collect();
    for some in written.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &TYPES, some);
        // Two claims of one millisecond are shown as one.
        let text = format!(
            "with v(task_id, claimed_at, ended_at, worker, ended_by, reason) as ({values})
             insert into task_claim (task_id, claimed_at, ended_at, worker, ended_by, reason)
             select task_id, claimed_at, ended_at, worker, ended_by, nullif(reason, '') from v where true
             on conflict (task_id, claimed_at) do nothing"
        );
        rows::execute(connection, "task_claim", &text, bound).await?;
    }
    let mut ids: Vec<Vec<Value>> = Vec::with_capacity(ended.len());
    ids.extend(ended.iter().map(|(id, _)| vec![id.clone().into()]));
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = list(connection, &["text"], some);
        let text = format!(
            "with v(id) as ({values})
             delete from task_claim where task_id in (select id from v) and claimed_at <= (
               select c.claimed_at from task_claim c where c.task_id = task_claim.task_id
               order by c.claimed_at desc limit 1 offset {CLAIMS_KEPT})"
        );
        rows::execute(connection, "task_claim", &text, bound).await?;
    }
    Ok(())
}

/// The claims of a task, oldest first; the last one stands in its row.
pub(crate) async fn claims(
    connection: &impl ConnectionTrait,
    task: &Task,
) -> Result<Vec<PastClaim>, StoreError> {
    let text = "select * from (select * from task_claim where task_id = $1 order by claimed_at desc limit $2)
                newest order by claimed_at";
    let values = vec![task.id.clone().into(), signed(CLAIMS_KEPT).into()];
    let found: Vec<task_claim::Model> = rows::readable(connection, "task_claim", text, values).await?;
    let past = found.into_iter().map(|row| PastClaim {
        worker: row.worker,
        claimed_at: Timestamp(row.claimed_at),
        ended: Some((Timestamp(row.ended_at), row.ended_by)),
        reason: row.reason,
    });
    Ok(past.chain(last(task)).collect())
}

/// Whether a worker has a claim now on a task of this watch of this app.
pub(crate) async fn has_claim(
    connection: &impl ConnectionTrait,
    app: &AppId,
    watch: &WatchId,
    (worker, now): (&str, Timestamp),
) -> Result<bool, StoreError> {
    let text = "select count(*) from cursor c join watch w on w.id = c.watch_id
                where w.app_id = $1 and w.id = $2 and exists (select 1 from task t where t.cursor_id = c.id
                  and t.state = 'claimed' and t.worker = $3 and t.wake_at > $4)";
    let values = vec![app.clone().into(), watch.clone().into(), worker.into(), now.0.into()];
    Ok(rows::number(connection, "task", text, values).await? > 0)
}

/// The claim that the row of a task shows.
fn last(task: &Task) -> Option<PastClaim> {
    let ended_at = task.ended_at.unwrap_or(task.updated_at);
    let (ended, reason) = match task.state {
        TaskState::Claimed => (None, None),
        TaskState::Succeeded => (Some((ended_at, ClaimEnd::Completed)), None),
        TaskState::Failed => (Some((ended_at, ClaimEnd::Failed)), task.error.clone()),
        TaskState::Waiting | TaskState::Ready | TaskState::Dead | TaskState::Aside | TaskState::Cancelled => {
            return None;
        }
    };
    Some(PastClaim { worker: task.worker.clone()?, claimed_at: task.claimed_at?, ended, reason })
}
